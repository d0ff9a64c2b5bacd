#include "adapter/experts.h"

#include "adapter/naming.h"
#include "base/bytes.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define EXPERTS "experts"

/*
 * Names of fused tensors, behind the path of the experts ('*') or of the module that holds them
 * ('^'): the runtime's, GraniteMoE's, Aria's.
 */
static const struct fused_name {
    const char *parameter;
    enum expert_part part;
    const char *names[3];
} fused_names[] = {
    { "gate_up_proj", EXPERT_GATE_UP, { "*gate_up_proj", "^input_linear.weight", "*fc1.weight" } },
    { "down_proj", EXPERT_DOWN, { "*down_proj", "^output_linear.weight", "*fc2.weight" } },
    { "up_proj", EXPERT_UP, { "*up_proj" } },
    { "gate_proj", EXPERT_GATE, { "*gate_proj" } },
};

static bool is_word(const char *text, size_t bytes, const char *word)
{
    return bytes == strlen(word) && memcmp(text, word, bytes) == 0;
}

void expert_place_release(struct expert_place *place)
{
    free(place->experts);
    *place = (struct expert_place){ 0 };
}

size_t expert_place_parts(const struct expert_place *place, enum expert_part parts[2])
{
    parts[0] = place->part == EXPERT_GATE_UP ? EXPERT_GATE : place->part;
    parts[1] = EXPERT_UP;
    return place->part == EXPERT_GATE_UP ? 2 : 1;
}

/* Does one expert's matrix have the shape of B A, or of its transpose? */
static bool shape_fits(const uint64_t *shape, size_t shape_count, uint64_t out, uint64_t in)
{
    const uint64_t *matrix = shape + shape_count - 2;

    return (matrix[0] == out && matrix[1] == in) ||
           (shape_count == 3 && matrix[0] == in && matrix[1] == out);
}

/* Take the tensor that the name stands for, one that fits rather than another. */
static int find_tensor(struct expert_place *place, const struct model *model,
                       const struct text *name, uint64_t out, uint64_t in, struct error *err)
{
    struct naming_found found[NAMING_FOUND_MAX];
    struct naming_found good[NAMING_FOUND_MAX];
    size_t good_count = 0;
    size_t count;
    int status = naming_find(found, &count, model, name->data, name->bytes, err);

    for (size_t i = 0; i < count && !status; i++) {
        const struct st_tensor *tensor = model_tensor(model, found[i].ref);
        const uint64_t *shape = st_shape(model_header(model, found[i].ref), tensor);
        bool fits;

        if (tensor->shape_count != 2 && tensor->shape_count != 3)
            continue;
        fits = shape_fits(shape, tensor->shape_count, out, in);
        if (good_count && (!fits || found[i].tier != good[0].tier))
            continue;
        if (place->kind != EXPERTS_NOWHERE && !fits)
            continue;
        if (fits)
            good[good_count++] = found[i];
        place->kind = tensor->shape_count == 2 ? EXPERTS_MATRIX : EXPERTS_FUSED;
        place->fits = fits;
        place->tensor = found[i].ref;
        place->count = tensor->shape_count == 2 ? 1 : shape[0];
        place->rows = shape[tensor->shape_count - 2];
        place->cols = shape[tensor->shape_count - 1];
    }
    if (!status && good_count > 1)
        status = naming_refuse_several(model, name->data, name->bytes, good, good_count, err);
    return status;
}

static int find_fused(struct expert_place *place, const struct model *model, const char *module,
                      size_t bytes, const char *parameter, uint64_t out, uint64_t in,
                      struct error *err)
{
    const char *const *names = (const char *const[]){ NULL };
    size_t count = 1;
    size_t owner_bytes = bytes; /* with the dot behind it */
    bool of_experts;
    struct text name = { 0 };
    int status = 0;

    while (owner_bytes > 0 && module[owner_bytes - 1] != '.')
        owner_bytes--;
    of_experts = is_word(module + owner_bytes, bytes - owner_bytes, EXPERTS);
    place->part = EXPERT_OTHER;
    for (size_t i = 0; i < COUNT(fused_names) && of_experts; i++) {
        if (strcmp(parameter, fused_names[i].parameter) == 0) {
            place->part = fused_names[i].part;
            names = fused_names[i].names;
            count = COUNT(fused_names[i].names);
        }
    }
    for (size_t i = 0; i < count && !place->fits && !status; i++) {
        if (i && !names[i])
            break;
        text_clear(&name);
        if (names[i] && names[i][0] == '^') {
            text_add(&name, module, owner_bytes);
        } else {
            text_add(&name, module, bytes);
            text_adds(&name, ".");
        }
        text_adds(&name, names[i] ? names[i] + 1 : parameter);
        status = name.failed ? error_no_memory(err, "a tensor name")
                             : find_tensor(place, model, &name, out, in, err);
    }
    text_release(&name);
    return status;
}

int expert_place_single(struct model_ref *out, bool *found, const struct expert_place *place,
                        const struct model *model, uint64_t expert, enum expert_part part,
                        struct error *err)
{
    struct text name = { 0 };
    int status = 0;

    text_addf(&name, "%s.%" PRIu64 ".%s.weight", place->experts, expert,
              expert_spelling(place->spelling, part));
    if (name.failed)
        status = error_no_memory(err, "a tensor name");
    else
        *found = model_find(model, name.data, name.bytes, out);
    text_release(&name);
    return status;
}

/* The path of the experts on disk, from the name of the first one's first part. */
static int find_first(struct expert_place *place, const struct model *model, const char *module,
                      size_t bytes, enum expert_part part, struct error *err)
{
    struct naming_found found[NAMING_FOUND_MAX];
    struct text name = { 0 };
    struct text tail = { 0 };
    size_t count = 0;
    int status = 0;

    for (unsigned s = 0; expert_spelling(s, part) && !place->experts && !status; s++) {
        text_clear(&name);
        text_clear(&tail);
        text_addf(&tail, ".0.%s.weight", expert_spelling(s, part));
        text_add(&name, module, bytes);
        text_adds(&name, tail.failed ? "" : tail.data);
        status = name.failed || tail.failed
                     ? error_no_memory(err, "a tensor name")
                     : naming_find(found, &count, model, name.data, name.bytes, err);
        for (size_t i = 0; i < count && !place->experts && !status; i++) {
            const struct st_tensor *tensor = model_tensor(model, found[i].ref);
            const char *there = st_name(model_header(model, found[i].ref), tensor);

            if (tensor->shape_count != 2 || tensor->name_bytes <= tail.bytes ||
                memcmp(there + tensor->name_bytes - tail.bytes, tail.data, tail.bytes) != 0)
                continue;
            place->experts = strndup(there, tensor->name_bytes - tail.bytes);
            place->spelling = s;
            place->tensor = found[i].ref;
            if (!place->experts)
                status = error_no_memory(err, "a tensor name");
        }
    }
    text_release(&name);
    text_release(&tail);
    return status;
}

static int find_single(struct expert_place *place, const struct model *model, const char *module,
                       size_t bytes, uint64_t out, uint64_t in, struct error *err)
{
    enum expert_part parts[2];
    size_t part_count = expert_place_parts(place, parts);
    struct model_ref ref;
    const uint64_t *shape;
    bool found = true;
    int status = find_first(place, model, module, bytes, parts[0], err);

    if (status || !place->experts)
        return status;
    place->kind = EXPERTS_SINGLE;
    shape = st_shape(model_header(model, place->tensor), model_tensor(model, place->tensor));
    place->cols = shape[1];
    if (!mul_u64(shape[0], part_count, &place->rows))
        place->rows = 0;
    place->fits = (place->rows == out && place->cols == in) ||
                  (place->rows == in && place->cols == out);
    for (place->count = 0; found; place->count += found) {
        status = expert_place_single(&ref, &found, place, model, place->count, parts[0], err);
        if (status)
            return status;
    }
    return 0;
}

int expert_place_find(struct expert_place *place, const struct model *model, const char *module,
                      size_t bytes, const char *parameter, uint64_t out, uint64_t in,
                      struct error *err)
{
    struct expert_place single = { 0 };
    int status;

    *place = (struct expert_place){ 0 };
    status = find_fused(place, model, module, bytes, parameter, out, in, err);
    if (status || place->fits || place->part == EXPERT_OTHER)
        return status;
    single.part = place->part;
    status = find_single(&single, model, module, bytes, out, in, err);
    if (!status && single.kind != EXPERTS_NOWHERE &&
        (single.fits || place->kind == EXPERTS_NOWHERE)) {
        *place = single;
        return 0;
    }
    expert_place_release(&single);
    return status;
}

int expert_find_respelled(struct model_ref *out, bool *found, const struct expert_pair *pair,
                          const struct expert_name *name, struct error *err)
{
    const struct model *model = pair->context->model;
    struct expert_place place = { 0 };
    struct text text = { 0 };
    int status = 0;

    *found = false;
    for (unsigned s = 0; expert_spelling(s, name->part) && !*found && !status; s++) {
        text_clear(&text);
        text_add(&text, pair->module, name->experts_bytes);
        text_adds(&text, ".");
        text_add(&text, name->number, name->number_bytes);
        text_addf(&text, ".%s.weight", expert_spelling(s, name->part));
        place = (struct expert_place){ 0 };
        status = text.failed ? error_no_memory(err, "a tensor name")
                             : find_tensor(&place, model, &text, pair->out, pair->in, err);
        *found = place.kind == EXPERTS_MATRIX && place.fits;
        *out = place.tensor;
    }
    text_release(&text);
    return status;
}

bool expert_is_fused(const struct expert_pair *pair, const struct expert_name *name)
{
    static const char *const parameters[] = { ".gate_up_proj", ".gate_up_proj", ".down_proj",
                                              ".gate_up_proj" };
    const struct model *model = pair->context->model;
    struct text text = { 0 };
    struct model_ref ref;
    bool fused;

    text_add(&text, pair->module, name->experts_bytes);
    text_adds(&text, parameters[name->part]);
    fused = !text.failed && model_find(model, text.data, text.bytes, &ref) &&
            model_tensor(model, ref)->shape_count == 3;
    text_release(&text);
    return fused;
}
