/*
 * manifest.c - lorafold.json and lorafold.blocks
 *
 * The manifest says what was merged and holds size and digest of every other
 * file; the digest of a file is XXH3-128 over the digests of its 4 MiB blocks,
 * which stand in lorafold.blocks, one line of 32 hex digits each, below a line
 * "# NAME" per file.  Blocks that were cloned from the base were never read: they
 * have no digest and no line, and stand in the manifest as runs of a shard.
 * Nothing in them depends on time, machine or backend, but for these runs.
 */
#include "merge.h"

#include <stdio.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* for a state that is not on the heap */
#include "base/hash.h"

static struct digest from_xxh(XXH128_hash_t hash)
{
    return (struct digest){ { hash.low64, hash.high64 } };
}

struct digest digest_bytes(const void *bytes, size_t count)
{
    return from_xxh(XXH3_128bits(bytes, count));
}

struct digest digest_of_blocks(const struct digest *blocks, size_t count)
{
    XXH3_state_t state;

    XXH3_128bits_reset(&state);
    for (size_t i = 0; i < count; i++) {
        XXH128_canonical_t canonical;
        XXH128_hash_t hash = { .low64 = blocks[i].half[0], .high64 = blocks[i].half[1] };

        XXH128_canonicalFromHash(&canonical, hash);
        XXH3_128bits_update(&state, canonical.digest, sizeof(canonical.digest));
    }
    return from_xxh(XXH3_128bits_digest(&state));
}

void text_add_digest(struct text *out, struct digest digest)
{
    text_addf(out, "%016llx%016llx", (unsigned long long)digest.half[1],
              (unsigned long long)digest.half[0]);
}

static void add_name(struct text *out, const char *key, const char *value)
{
    text_addf(out, "\"%s\": ", key);
    if (value)
        text_add_json(out, value, strlen(value));
    else
        text_adds(out, "null");
}

static void add_digest(struct text *out, const char *key, const uint64_t half[2])
{
    text_addf(out, "\"%s\": \"", key);
    text_add_digest(out, (struct digest){ { half[0], half[1] } });
    text_adds(out, "\"");
}

static void write_base(const struct lorafold_merge *merge, struct text *out)
{
    struct digest config = digest_bytes(merge->base->config ? merge->base->config : "",
                                        merge->base->config_bytes);

    text_adds(out, "  \"base\": {\n    ");
    add_name(out, "name", merge->base->source.name);
    text_adds(out, ",\n    ");
    add_name(out, "revision", merge->base->source.revision);
    if (merge->base->config) {
        text_adds(out, ",\n    ");
        add_digest(out, "config_xxh3_128", config.half);
    }
    text_adds(out, ",\n    \"shards\": [");
    for (size_t i = 0; i < merge->base->model.shard_count; i++) {
        const struct model_shard *shard = &merge->base->model.shards[i];

        text_adds(out, i ? ",\n      { " : "\n      { ");
        add_name(out, "name", shard->name);
        text_addf(out, ", \"bytes\": %llu, ", (unsigned long long)shard->identity.bytes);
        add_digest(out, "header_xxh3_128", shard->header_digest);
        text_adds(out, " }");
    }
    text_adds(out, "\n    ]\n  },\n");
}

static void write_adapters(const struct lorafold_merge *merge, struct text *out)
{
    text_adds(out, "  \"adapters\": [");
    for (size_t i = 0; i < merge->adapter_count; i++) {
        const struct adapter *adapter = &merge->adapters[i];

        text_adds(out, i ? ",\n    { " : "\n    { ");
        add_name(out, "name",
                 merge->adapter_sources[i].from_hub ? merge->adapter_sources[i].name
                                                    : adapter->name);
        text_adds(out, ", ");
        add_name(out, "revision", merge->adapter_sources[i].revision);
        text_addf(out, ", \"weight\": %.17g, \"bytes\": %llu, ", merge->plan_adapters[i].weight,
                  (unsigned long long)adapter->weights_bytes);
        add_digest(out, "header_xxh3_128", adapter->header_digest);
        text_adds(out, ", ");
        add_digest(out, "config_xxh3_128", adapter->config_digest);
        text_addf(out, ", \"unused_tensors\": %zu }", adapter->unused_count);
    }
    text_adds(out, "\n  ],\n");
}

static void write_options(const struct lorafold_merge *merge, struct text *out)
{
    static const char *const dtypes[] = { "keep", "bf16", "f16", "f32" };
    static const char *const methods[] = { "merged_16bit", "merged_4bit", "lora", "same" };
    static const char *const layouts[] = { "auto", "rank-major", "expert-major" };
    const struct lorafold_merge_options *options = &merge->options;

    text_addf(out,
              "  \"options\": {\n    \"save_method\": \"%s\",\n    \"dtype\": \"%s\",\n"
              "    \"max_shard_bytes\": %llu,\n    \"tied\": \"%s\",\n"
              "    \"lora_b_layout\": \"%s\",\n    \"base_numerics\": \"%s\",\n"
              "    \"quant_type\": %s,\n    \"double_quant\": %s,\n"
              "    \"allow_nonfinite\": %s,\n    \"safe_serialization\": %s,\n    ",
              methods[options->save_method], dtypes[options->dtype],
              (unsigned long long)options->max_shard_bytes,
              options->tied == LORAFOLD_TIED_SHARED ? "shared" : "exact",
              layouts[options->b_layout], original_numerics(merge),
              options->save_method != LORAFOLD_MERGED_4BIT ? "null"
              : options->quant_type == LORAFOLD_FP4        ? "\"fp4\""
                                                           : "\"nf4\"",
              options->save_method != LORAFOLD_MERGED_4BIT ? "null"
              : options->single_quant                      ? "false"
                                                           : "true",
              options->allow_nonfinite ? "true" : "false",
              options->safe_serialization ? "true" : "false");
    add_name(out, "variant", options->variant);
    text_adds(out,
              "\n  },\n  \"numerics\": {\n    \"version\": 1,\n    \"sum\": \"fp32 fma, ascending, "
              "panels of 64\",\n    \"rounding\": \"once, to nearest even\"\n  },\n");
    text_addf(out,
              "  \"tensors\": { \"folded\": %zu, \"replaced\": %zu, \"patched\": %zu, "
              "\"converted\": %zu, \"copied\": %zu },\n",
              merge->plan.folded, merge->plan.replaced, merge->plan.patched, merge->plan.converted,
              merge->plan.copied);
}

static void write_blocks(const struct lorafold_merge *merge, struct text *blocks)
{
    for (size_t i = 0; i < merge->files.count; i++) {
        const struct output_file *file = &merge->files.list[i];

        text_addf(blocks, "# %s\n", file->name);
        for (size_t b = 0; b < file->block_count; b++) {
            text_add_digest(blocks, file->blocks[b]);
            text_adds(blocks, "\n");
        }
    }
}

static void write_clones(const struct output_file *file, struct text *out)
{
    for (size_t i = 0; i < file->clone_count; i++) {
        const struct output_clone *clone = &file->clones[i];

        text_adds(out, i ? ",\n        " : ",\n      \"cloned\": [\n        ");
        text_addf(out,
                  "{ \"offset\": %llu, \"bytes\": %llu, \"shard\": %llu, \"shard_offset\": %llu }",
                  (unsigned long long)clone->offset, (unsigned long long)clone->bytes,
                  (unsigned long long)clone->shard, (unsigned long long)clone->shard_offset);
    }
    if (file->clone_count)
        text_adds(out, "\n      ]");
}

void manifest_write(const struct lorafold_merge *merge, struct text *manifest, struct text *blocks)
{
    struct digest digest;

    text_addf(manifest, "{\n  \"format\": %d,\n  \"lorafold\": \"%s\",\n", MANIFEST_FORMAT,
              LORAFOLD_VERSION);
    write_base(merge, manifest);
    write_adapters(merge, manifest);
    write_options(merge, manifest);
    write_blocks(merge, blocks);
    digest = digest_bytes(blocks->data ? blocks->data : "", blocks->bytes);
    text_addf(manifest, "  \"block_bytes\": %llu,\n  \"blocks\": { \"name\": \"%s\", ",
              (unsigned long long)PLAN_BLOCK_BYTES, BLOCKS_NAME);
    text_addf(manifest, "\"bytes\": %zu, ", blocks->bytes);
    add_digest(manifest, "xxh3_128", digest.half);
    text_adds(manifest, " },\n  \"files\": [");
    for (size_t i = 0; i < merge->files.count; i++) {
        const struct output_file *file = &merge->files.list[i];

        text_adds(manifest, i ? ",\n    { " : "\n    { ");
        add_name(manifest, "name", file->name);
        text_addf(manifest, ", \"bytes\": %llu, ", (unsigned long long)file->bytes);
        add_digest(manifest, "xxh3_128", file->digest.half);
        write_clones(file, manifest);
        text_adds(manifest, " }");
    }
    text_adds(manifest, "\n  ]\n}\n");
}
