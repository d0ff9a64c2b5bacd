#include "adapter/experts.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <string.h>

static const char *quote(char buf[QUOTED_BYTES], const char *text)
{
    return error_quote(buf, QUOTED_BYTES, text, strlen(text));
}

/*
 * Does the base keep one expert's matrix transposed, [in, out]?  Where it is square, the other
 * parameter of the same experts tells.  *known is false if it does not.
 */
static int base_is_transposed(bool *transposed, bool *known, const struct expert_pair *pair,
                              const struct expert_name *name, const struct expert_place *place,
                              uint64_t out, struct error *err)
{
    bool is_down = place->part == EXPERT_DOWN;
    struct expert_place other;
    uint64_t other_out = pair->in; /* of down beside gate and up [2 I, H]: [H, I] */
    uint64_t other_in = out / 2;
    int status;

    *known = out != pair->in;
    *transposed = place->rows == pair->in;
    if (*known)
        return 0;
    if (is_down) {
        other_in = out;
        if (!mul_u64(pair->in, 2, &other_out))
            return 0;
    }
    status = expert_place_find(&other, pair->context->model, pair->module, name->experts_bytes,
                               is_down ? "gate_up_proj" : "down_proj", other_out, other_in, err);
    *known = !status && other.kind == EXPERTS_FUSED && other.fits && other_out != other_in;
    *transposed = other.rows == other_in;
    expert_place_release(&other);
    return status;
}

/* GPT-OSS takes even columns for the gate and odd ones for up; all others the first half. */
static bool is_interleaved(const struct expert_pair *pair)
{
    return strcmp(pair->context->options->facts->model_type, "gpt_oss") == 0;
}

/* One expert's layer goes into its slice of a fused tensor, of which it may be a half. */
static int add_to_fused(struct adapter_edits *edits, const struct expert_pair *pair,
                        const struct expert_name *name, const struct expert_place *place,
                        struct error *err)
{
    bool half = place->part == EXPERT_GATE_UP && name->part != EXPERT_GATE_UP;
    bool interleaved = half && is_interleaved(pair);
    uint64_t skip = name->part == EXPERT_UP && half ? interleaved ? 1 : pair->out : 0;
    uint64_t row_first = name->expert * place->rows;
    uint64_t row_count = place->rows;
    struct expert_delta delta = expert_delta_make(pair, pair->pair->rank, pair->pair->scale, 0, 0,
                                                  1);
    char quoted[QUOTED_BYTES];
    bool transposed;
    bool known;
    int status = base_is_transposed(&transposed, &known, pair, name, place,
                                    half ? 2 * pair->out : pair->out, err);

    if (status)
        return status;
    if (!known)
        return error_set(err, ERR_MISMATCH,
                         "the base keeps the experts of module '%s' fused in square matrices, and "
                         "nothing in it tells whether they are transposed",
                         quote(quoted, pair->pair->module));
    if (half && !transposed && !interleaved) {
        row_first += skip;
        row_count = pair->out;
    } else if (half) {
        delta.left.first = skip;
        delta.left.step = interleaved ? 2 : 1;
    }
    if (transposed)
        delta = expert_delta_transpose(&delta);
    return expert_add_edit(edits, pair, place->tensor, row_first, row_count, &delta, err);
}

/* The place of one expert's layer: with its partner in one parameter, or alone. */
static int find_place(struct expert_place *place, const struct expert_pair *pair,
                      const struct expert_name *name, struct error *err)
{
    static const char *const alone[] = { "gate_proj", "up_proj", "down_proj", "gate_up_proj" };
    const struct model *model = pair->context->model;
    uint64_t both;
    int status;

    *place = (struct expert_place){ 0 };
    if (name->part <= EXPERT_UP && mul_u64(pair->out, 2, &both)) {
        status = expert_place_find(place, model, pair->module, name->experts_bytes, "gate_up_proj",
                                   both, pair->in, err);
        if (status || place->kind != EXPERTS_NOWHERE)
            return status;
    }
    return expert_place_find(place, model, pair->module, name->experts_bytes, alone[name->part],
                             pair->out, pair->in, err);
}

int expert_module_edits(struct adapter_edits *edits, bool *handled, const struct expert_pair *pair,
                        const struct expert_name *name, struct error *err)
{
    struct expert_place place = { 0 };
    struct model_ref ref;
    char quoted[QUOTED_BYTES];
    bool found = false;
    int status = expert_is_fused(pair, name) ? 0
                                             : expert_find_respelled(&ref, &found, pair, name, err);

    if (!status && !found)
        status = find_place(&place, pair, name, err);
    *handled = found || place.kind == EXPERTS_SINGLE || place.kind == EXPERTS_FUSED;
    if (status || !*handled)
        goto out;
    status = expert_refuse_extras(pair, err);
    if (status)
        goto out;
    if (found) {
        struct expert_delta delta = expert_delta_make(pair, pair->pair->rank, pair->pair->scale, 0,
                                                      0, 1);

        status = expert_add_edit(edits, pair, ref, 0, pair->out, &delta, err);
    } else if (name->expert >= place.count) {
        status = error_set(err, ERR_MISMATCH,
                           "module '%s' is of expert %" PRIu64 ", but the base has %" PRIu64
                           " experts there, counted from 0",
                           quote(quoted, pair->pair->module), name->expert, place.count);
    } else if (place.kind == EXPERTS_SINGLE || !place.fits) {
        status = expert_refuse_shape(pair, place.tensor, err);
    } else {
        status = add_to_fused(edits, pair, name, &place, err);
    }
out:
    expert_place_release(&place);
    return status;
}
