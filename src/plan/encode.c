/*
 * encode.c - which tensors are quantised on their way out, and their companions
 *
 * The names and shapes are those of bitsandbytes' files.  Of a base that
 * bitsandbytes quantised, the same tensors are quantised again; of any other, the
 * weights of linear layers.  A header does not tell a linear layer from an embedding
 * or a router: names do.
 */
#include "plan/plan_internal.h"

#include "base/array.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHT ".weight"

/* Last components of modules whose 2-D weights are no linear layers, or must stay exact. */
static const char *const never[] = {
    "embed_tokens",
    "wte",
    "wpe",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "embed_positions",
    "embed_in",
    "tok_embeddings",
    "shared", /* tables */
    "patch_embedding",
    "position_embedding",
    "relative_attention_bias",
    "embeddings",
    "lm_head",
    "embed_out",
    "output",
    "score",
    "classifier",
    "qa_outputs", /* heads */
    "gate",
    "router",
    "shared_expert_gate",
    "wg",
    "switch" /* routers */
};

static bool ends_with_component(const char *name, size_t bytes, const char *end)
{
    size_t end_bytes = strlen(end);

    return bytes >= end_bytes && memcmp(name + bytes - end_bytes, end, end_bytes) == 0 &&
           (bytes == end_bytes || name[bytes - end_bytes - 1] == '.');
}

static bool is_skipped(const struct plan_options *options, const char *module, size_t bytes)
{
    for (size_t i = 0; i < options->skip_count; i++) {
        if (ends_with_component(module, bytes, options->skip[i]))
            return true;
    }
    return false;
}

/* transformers holds experts as one parameter, which bitsandbytes leaves in 16 bits. */
static bool is_expert(const char *module, size_t bytes)
{
    return memmem(module, bytes, ".experts.", strlen(".experts.")) != NULL;
}

static bool is_linear(const char *module, size_t bytes)
{
    if (is_expert(module, bytes))
        return false;
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
        if (ends_with_component(module, bytes, never[i]))
            return false;
    }
    return true;
}

/* A base of bitsandbytes says itself what is quantised. */
static bool base_decides(const struct plan_options *options)
{
    const struct scheme_base *scheme = options->scheme;

    for (size_t i = 0; scheme && i < scheme->view.tensor_count; i++) {
        if (scheme->tensors[i].kind == SCHEME_BNB4)
            return true;
    }
    return false;
}

static char *join(struct plan *plan, const char *name, size_t bytes, const char *suffix)
{
    struct text text = { 0 };
    char *out = NULL;

    text_add(&text, name, bytes);
    text_adds(&text, suffix);
    if (!text.failed)
        out = plan_keep(plan, text.data, text.bytes + 1);
    text_release(&text);
    return out;
}

static int new_encoding(struct plan *plan, const struct plan_tensor *weight, uint64_t index,
                        const struct plan_options *options, struct plan_encoding **out,
                        struct error *err)
{
    uint64_t rows = weight->shape[0], cols = weight->shape[1];
    struct plan_encoding made = {
        .tensor = index,
        .elements = rows * cols, /* the header's parser has checked this product */
        .rows = rows,
        .cols = cols,
        .absmax_count = (rows * cols + PLAN_ENCODING_BLOCK - 1) / PLAN_ENCODING_BLOCK,
        .absmax_offset = plan->repack_bytes,
        .codes = options->codes,
        .middle = (enum dtype)weight->dtype_out,
        .nested = options->nested,
        .number = (uint32_t)plan->encoding_count,
    };
    struct plan_encoding **encodings;

    encodings = array_next(plan->encodings, plan->encoding_count, &plan->encoding_capacity,
                           sizeof(*plan->encodings));
    if (!encodings)
        return error_no_memory(err, "the encodings");
    plan->encodings = encodings;
    *out = plan_keep(plan, &made, sizeof(made));
    if (!*out)
        return error_no_memory(err, "an encoding");
    plan->encodings[plan->encoding_count++] = *out;
    plan->repack_bytes += made.absmax_count * sizeof(float);
    return 0;
}

/* Name, dtype and number of elements of a companion; count 0: there is none. */
struct companion {
    const char *suffix;
    enum dtype dtype;
    uint64_t count;
};

static struct companion companion_of(const struct plan_encoding *encoding,
                                     enum plan_companion companion)
{
    bool nested = encoding->nested;

    switch (companion) {
    case PLAN_ABSMAX:
        return (struct companion){ ".absmax", nested ? DTYPE_U8 : DTYPE_F32,
                                   encoding->absmax_count };
    case PLAN_QUANT_MAP:
        return (struct companion){ ".quant_map", DTYPE_F32, 16 };
    case PLAN_NESTED_ABSMAX:
        return (struct companion){ ".nested_absmax", DTYPE_F32,
                                   nested ? (encoding->absmax_count + 255) / 256 : 0 };
    case PLAN_NESTED_MAP:
        return (struct companion){ ".nested_quant_map", DTYPE_F32, nested ? 256 : 0 };
    case PLAN_QUANT_STATE:
    case PLAN_COMPANIONS:
        break;
    }
    return (struct companion){ encoding->codes == QUANT_NF4 ? ".quant_state.bitsandbytes__nf4"
                                                            : ".quant_state.bitsandbytes__fp4",
                               DTYPE_U8, PLAN_QUANT_STATE_BYTES };
}

static int add_companion(struct plan *plan, struct plan_tensor *out,
                         const struct plan_tensor *weight, enum plan_companion which,
                         struct error *err)
{
    struct companion companion = companion_of(weight->encoding, which);

    *out = (struct plan_tensor){
        .name = join(plan, weight->name, weight->name_bytes, companion.suffix),
        .shape = plan_keep(plan, &companion.count, sizeof(companion.count)),
        .encoding = weight->encoding,
        .name_bytes = weight->name_bytes + (uint32_t)strlen(companion.suffix),
        .shard = weight->shard,
        .out_bytes = companion.count * dtype_bytes(companion.dtype),
        .shape_count = 1,
        .action = PLAN_COMPANION,
        .companion = (uint8_t)which,
        .dtype_in = (uint8_t)companion.dtype,
        .dtype_out = (uint8_t)companion.dtype,
    };
    return out->name && out->shape ? 0 : error_no_memory(err, "a companion");
}

static bool is_weight(const struct plan_tensor *tensor)
{
    size_t bytes = strlen(WEIGHT);

    return tensor->shape_count == 2 && tensor->name_bytes > bytes &&
           memcmp(tensor->name + tensor->name_bytes - bytes, WEIGHT, bytes) == 0 &&
           dtype_is_computed((enum dtype)tensor->dtype_out) && tensor->action != PLAN_PATCH &&
           tensor->patch_count == 0 && tensor->out_bytes != 0;
}

void plan_set_roundtrip(struct plan_tensor *tensor, const struct plan_options *options,
                        size_t shard_count)
{
    size_t bytes = tensor->name_bytes - strlen(WEIGHT);

    if (!options->roundtrip || tensor->quant || tensor->input >= shard_count ||
        !is_weight(tensor) || !is_linear(tensor->name, bytes) ||
        is_skipped(options, tensor->name, bytes))
        return;
    tensor->roundtrip = true;
    if (tensor->action == PLAN_COPY)
        tensor->action = PLAN_CONVERT;
}

bool plan_is_encoded(struct plan *plan, const struct plan_tensor *tensor,
                     const struct plan_options *options)
{
    size_t bytes = tensor->name_bytes - strlen(WEIGHT);
    bool linear, wanted;

    if (!options->encode || !is_weight(tensor))
        return false;
    linear = is_linear(tensor->name, bytes) && !is_skipped(options, tensor->name, bytes);
    wanted = base_decides(options) ? tensor->quant && tensor->quant->kind == SCHEME_BNB4 : linear;
    if (!wanted) {
        text_add(&plan->skipped, tensor->name, bytes);
        text_adds(&plan->skipped, "\n");
    }
    return wanted;
}

int plan_encode(struct plan *plan, struct plan_tensor tensors[PLAN_COMPANIONS + 1], size_t *count,
                uint64_t index, const struct plan_options *options, struct error *err)
{
    struct plan_tensor *weight = &tensors[0];
    struct plan_encoding *encoding;
    uint64_t shape[2];

    if (new_encoding(plan, weight, index, options, &encoding, err))
        return err->code;
    shape[0] = (encoding->elements + 1) / 2;
    shape[1] = 1;
    weight->shape = plan_keep(plan, shape, sizeof(shape));
    if (!weight->shape)
        return error_no_memory(err, "a shape");
    weight->encoding = encoding;
    weight->action = PLAN_ENCODE;
    weight->dtype_out = DTYPE_U8;
    weight->out_bytes = shape[0];
    *count = 1;
    for (int i = 0; i < PLAN_COMPANIONS; i++) {
        if (companion_of(encoding, (enum plan_companion)i).count == 0)
            continue;
        if (add_companion(plan, &tensors[*count], weight, (enum plan_companion)i, err))
            return err->code;
        (*count)++;
    }
    return 0;
}
