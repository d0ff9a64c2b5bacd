/*
 * encode.c - which tensors are quantised on their way out, and their companions
 *
 * The names and shapes are those of bitsandbytes' files.  Of a base that
 * bitsandbytes quantised, the same tensors are quantised again; of any other, the
 * weights of linear layers.  A header does not tell a linear layer from an embedding
 * or a router: names do.
 */
#include "plan/plan_internal.h"

#include "adapter/tied.h"
#include "base/array.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHT ".weight"
#define EXPERTS ".experts"

/*
 * Last components of modules whose 2-D weights are no linear layers, or must stay exact; and those
 * with "emb" in them, and those that end with "head".
 */
static const char *const never[] = {
    "wte",        "wpe",     "shared",     "relative_attention_bias",            /* tables */
    "output",     "score",   "classifier", "pre_classifier",          "decoder", /* heads */
    "qa_outputs", "proj_out"                                                     /* heads */
};

/* Components anywhere in the name of a module that is a router, or part of one. */
static const char *const routers[] = { "gate", "router", "shared_expert_gate", "wg", "switch" };

static bool ends_with_component(const char *name, size_t bytes, const char *end)
{
    size_t end_bytes = strlen(end);

    return bytes >= end_bytes && memcmp(name + bytes - end_bytes, end, end_bytes) == 0 &&
           (bytes == end_bytes || name[bytes - end_bytes - 1] == '.');
}

/* Is `words` a run of whole components of the name? */
static bool has_components(const char *name, size_t bytes, const char *words)
{
    size_t words_bytes = strlen(words);

    for (const char *at = name, *end = name + bytes; at < end;) {
        const char *dot = memchr(at, '.', (size_t)(end - at));
        size_t left = (size_t)(end - at);

        if (left >= words_bytes && memcmp(at, words, words_bytes) == 0 &&
            (left == words_bytes || at[words_bytes] == '.'))
            return true;
        at = dot ? dot + 1 : end;
    }
    return false;
}

static bool is_skipped(const struct plan_options *options, const char *module, size_t bytes)
{
    for (size_t i = 0; i < options->skip_count; i++) {
        if (has_components(module, bytes, options->skip[i]))
            return true;
    }
    return false;
}

/*
 * The bytes of "x.experts" at the start of an expert's name, or 0.  transformers holds experts as
 * one parameter, which bitsandbytes leaves in 16 bits.
 */
static size_t experts_bytes(const char *module, size_t bytes)
{
    const char *found = memmem(module, bytes, EXPERTS ".", strlen(EXPERTS "."));

    return found ? (size_t)(found - module) + strlen(EXPERTS) : 0;
}

static bool is_linear(const char *module, size_t bytes)
{
    const char *dot = memrchr(module, '.', bytes);
    const char *last = dot ? dot + 1 : module;
    size_t last_bytes = (size_t)(module + bytes - last);

    if (experts_bytes(module, bytes) || memmem(last, last_bytes, "emb", 3) ||
        (last_bytes >= 4 && memcmp(last + last_bytes - 4, "head", 4) == 0))
        return false;
    for (size_t i = 0; i < sizeof(routers) / sizeof(routers[0]); i++) {
        if (has_components(module, bytes, routers[i]))
            return false;
    }
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
        if (ends_with_component(module, bytes, never[i]))
            return false;
    }
    return true;
}

bool plan_base_is_bnb4(const struct plan_options *options)
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

/* The module of a 2-D weight that a linear layer may have; 0: it is none. */
static size_t module_bytes(const struct plan_tensor *tensor)
{
    size_t bytes = strlen(WEIGHT);

    if (tensor->shape_count != 2 || tensor->name_bytes <= bytes ||
        memcmp(tensor->name + tensor->name_bytes - bytes, WEIGHT, bytes) != 0)
        return 0;
    return tensor->name_bytes - bytes;
}

/* A weight of the base with numbers that can be quantised.  What an adapter saves whole, or row by
 * row, was trained in 16 bits. */
static bool is_weight(const struct plan *plan, const struct plan_tensor *tensor)
{
    return module_bytes(tensor) && dtype_is_computed((enum dtype)tensor->dtype_out) &&
           tensor->action != PLAN_PATCH && tensor->patch_count == 0 && tensor->out_bytes != 0 &&
           tensor->input < plan->shard_count;
}

static bool is_wanted(const struct plan_tensor *tensor, const struct plan_options *options)
{
    size_t bytes = module_bytes(tensor);

    return is_linear(tensor->name, bytes) && !is_skipped(options, tensor->name, bytes);
}

void plan_set_roundtrip(const struct plan *plan, struct plan_tensor *tensor,
                        const struct plan_options *options)
{
    if (!options->roundtrip || tensor->quant || !is_weight(plan, tensor) ||
        !is_wanted(tensor, options))
        return;
    tensor->roundtrip = true;
    if (tensor->action == PLAN_COPY)
        tensor->action = PLAN_CONVERT;
}

bool plan_is_encoded(const struct plan_maker *maker, const struct plan_tensor *tensor)
{
    const struct plan_options *options = maker->options;

    if (!options->encode || !is_weight(maker->plan, tensor))
        return false;
    if (maker->bnb4)
        return tensor->quant && tensor->quant->kind == SCHEME_BNB4 &&
               !is_skipped(options, tensor->name, module_bytes(tensor));
    return is_wanted(tensor, options);
}

/* A line of plan.skipped, unless it is the last one already. */
static void add_skipped(struct plan *plan, const char *module, size_t bytes)
{
    const struct text *text = &plan->skipped;

    if (text->bytes > bytes && text->data[text->bytes - 1] == '\n' &&
        memcmp(text->data + text->bytes - 1 - bytes, module, bytes) == 0 &&
        (text->bytes == bytes + 1 || text->data[text->bytes - 2 - bytes] == '\n'))
        return;
    text_add(&plan->skipped, module, bytes);
    text_adds(&plan->skipped, "\n");
}

/* Heads that share the embedding's tensor are linear layers that no tensor names. */
static int add_tied_heads(const struct plan_maker *maker, struct error *err)
{
    struct tied_uses uses;

    tied_read_uses(&uses, maker->model, maker->facts);
    for (size_t i = 0; i < uses.embedding_count && i < TIED_USES_MAX; i++) {
        char *name;

        if (!tied_is_shared(&uses, maker->model, uses.embeddings[i]))
            continue;
        if (tied_head_name(&name, maker->model, uses.embeddings[i], maker->facts, err))
            return err->code;
        add_skipped(maker->plan, name, strlen(name) - strlen(WEIGHT));
        free(name);
    }
    return 0;
}

static int check_skips(const struct plan_maker *maker, struct error *err)
{
    const struct plan_options *options = maker->options;
    const struct plan *plan = maker->plan;
    char quoted[QUOTED_BYTES];

    for (size_t s = 0; s < options->skip_count; s++) {
        bool found = false;

        for (size_t i = 0; i < plan->tensor_count && !found; i++) {
            const struct plan_tensor *tensor = &plan->tensors[i];

            found = tensor->action != PLAN_COMPANION &&
                    has_components(tensor->name, tensor->name_bytes, options->skip[s]);
        }
        if (!found)
            return error_set(
                err, ERR_USAGE,
                "--skip '%s' is the name of no module of the base, nor part of one "
                "between dots",
                error_quote(quoted, sizeof(quoted), options->skip[s], strlen(options->skip[s])));
    }
    return 0;
}

int plan_list_skipped(const struct plan_maker *maker, struct error *err)
{
    struct plan *plan = maker->plan;

    if (check_skips(maker, err) || !maker->options->encode)
        return err->code;
    for (size_t i = 0; i < plan->tensor_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        size_t bytes = tensor->encoding ? 0 : module_bytes(tensor);
        size_t experts = maker->bnb4 ? 0 : experts_bytes(tensor->name, bytes);

        if (bytes)
            add_skipped(plan, tensor->name, experts ? experts : bytes);
    }
    if (!plan->tied_head && add_tied_heads(maker, err))
        return err->code;
    return plan->skipped.failed ? error_no_memory(err, "the list of modules") : 0;
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
