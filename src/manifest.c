/*
 * manifest.c - lorafold.json and lorafold.blocks
 *
 * The manifest says what was merged and holds size and digest of every other
 * file; the digest of a file is XXH3-128 over the digests of its 4 MiB blocks,
 * which stand in lorafold.blocks, one line of 32 hex digits each, below a line
 * "# NAME" per file.  Nothing in them depends on time, machine or backend.
 */
#include "merge.h"

#include "base/json.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* for a state that is not on the heap */
#include <xxhash.h>

#define MANIFEST_FORMAT 1

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
              "    \"allow_nonfinite\": %s\n  },\n",
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
              options->allow_nonfinite ? "true" : "false");
    text_adds(out, "  \"numerics\": {\n    \"version\": 1,\n    \"sum\": \"fp32 fma, ascending, "
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
        text_adds(manifest, " }");
    }
    text_adds(manifest, "\n  ]\n}\n");
}

/* ---- reading ---- */

static bool parse_digest(const char *hex, size_t bytes, struct digest *out)
{
    uint64_t half[2] = { 0, 0 };

    if (bytes != 32)
        return false;
    for (size_t i = 0; i < 32; i++) {
        const char *digits = "0123456789abcdef";
        const char *digit = memchr(digits, hex[i], 16);

        if (!digit)
            return false;
        half[i / 16] = half[i / 16] << 4 | (uint64_t)(digit - digits);
    }
    *out = (struct digest){ { half[1], half[0] } };
    return true;
}

static bool same_digest(struct digest x, struct digest y)
{
    return x.half[0] == y.half[0] && x.half[1] == y.half[1];
}

static bool read_size(const cJSON *item, uint64_t *out)
{
    /* A double is exact up to 2^53 bytes, which is 9 PB. */
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) ||
        item->valuedouble > 9007199254740992.0)
        return false;
    *out = (uint64_t)item->valuedouble;
    return (double)*out == item->valuedouble;
}

static bool read_digest(const cJSON *item, struct digest *out)
{
    return cJSON_IsString(item) && parse_digest(item->valuestring, strlen(item->valuestring), out);
}

static int read_file(struct output_files *files, const cJSON *item, struct error *err)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name");
    uint64_t bytes;
    struct digest digest;
    struct output_file *file;
    char quoted[QUOTED_BYTES];

    if (!cJSON_IsString(name) ||
        !model_name_is_safe(name->valuestring, strlen(name->valuestring)) ||
        strlen(name->valuestring) >= sizeof(file->name))
        return error_set(err, ERR_FORMAT, "a file's name is missing or leaves the directory");
    error_quote(quoted, sizeof(quoted), name->valuestring, strlen(name->valuestring));
    if (!read_size(cJSON_GetObjectItemCaseSensitive(item, "bytes"), &bytes) ||
        bytes > UINT64_C(1) << 50 ||
        !read_digest(cJSON_GetObjectItemCaseSensitive(item, "xxh3_128"), &digest))
        return error_set(err, ERR_FORMAT, "size or digest of '%s' is missing or damaged", quoted);
    file = output_add(files, name->valuestring, bytes);
    if (!file)
        return error_no_memory(err, "the list of files");
    file->digest = digest;
    return 0;
}

/* The lines of lorafold.blocks; they must be what the manifest says, file by file. */
static int read_blocks(struct output_files *files, const char *line, const char *end,
                       struct error *err)
{
    for (size_t i = 0; i < files->count; i++) {
        struct output_file *file = &files->list[i];
        size_t name_bytes = strlen(file->name);

        if ((size_t)(end - line) < name_bytes + 3 || memcmp(line, "# ", 2) != 0 ||
            memcmp(line + 2, file->name, name_bytes) != 0 || line[name_bytes + 2] != '\n')
            return error_set(err, ERR_FORMAT, "'%s' has no blocks of '%s'", BLOCKS_NAME,
                             file->name);
        line += name_bytes + 3;
        for (size_t b = 0; b < file->block_count; b++, line += 33) {
            if (end - line < 33 || line[32] != '\n' || !parse_digest(line, 32, &file->blocks[b]))
                return error_set(err, ERR_FORMAT, "'%s': block %zu of '%s' is damaged", BLOCKS_NAME,
                                 b, file->name);
        }
        if (!same_digest(digest_of_blocks(file->blocks, file->block_count), file->digest))
            return error_set(err, ERR_FORMAT, "'%s' and '%s' disagree about the digest of '%s'",
                             BLOCKS_NAME, MANIFEST_NAME, file->name);
    }
    if (line != end)
        return error_set(err, ERR_FORMAT, "'%s' goes on behind its last file", BLOCKS_NAME);
    return 0;
}

static int read_manifest(struct output_files *files, const cJSON *root, size_t blocks_bytes,
                         struct error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "files");
    const cJSON *item;
    uint64_t format = 0;
    uint64_t block_bytes = 0;
    uint64_t lines = 0;

    if (!read_size(cJSON_GetObjectItemCaseSensitive(root, "format"), &format) ||
        format != MANIFEST_FORMAT)
        return error_set(err, ERR_FORMAT, "format is not %d: made by another version of lorafold?",
                         MANIFEST_FORMAT);
    if (!read_size(cJSON_GetObjectItemCaseSensitive(root, "block_bytes"), &block_bytes) ||
        block_bytes != PLAN_BLOCK_BYTES)
        return error_set(err, ERR_FORMAT, "block_bytes is not %llu",
                         (unsigned long long)PLAN_BLOCK_BYTES);
    if (!cJSON_IsArray(list) || !list->child)
        return error_set(err, ERR_FORMAT, "it lists no files");
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(item, "bytes");
        uint64_t size = 0;

        /* The blocks are counted before any memory is taken for them. */
        if (read_size(bytes, &size))
            lines += size / PLAN_BLOCK_BYTES;
        if (lines > blocks_bytes / 33)
            return error_set(err, ERR_FORMAT, "'%s' is too short for the files that it lists",
                             BLOCKS_NAME);
        if (read_file(files, item, err))
            return err->code;
    }
    return 0;
}

int manifest_read(struct output_files *out, const char *json, size_t json_bytes, const char *blocks,
                  size_t blocks_bytes, struct error *err)
{
    struct output_files files = { 0 };
    struct cJSON *root = NULL;
    int status;

    status = json_parse(&root, json, json_bytes, 0, err);
    if (!status)
        status = read_manifest(&files, root, blocks_bytes, err);
    if (!status)
        status = read_blocks(&files, blocks, blocks + blocks_bytes, err);
    cJSON_Delete(root);
    if (status)
        output_files_release(&files);
    else
        *out = files;
    return status;
}
