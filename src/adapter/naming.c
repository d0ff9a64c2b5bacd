#include "adapter/naming_internal.h"
#include "base/text.h"

#define SHOWN_COUNT 3u
#define PREFIXES_MAX 2u /* "language_model.model." */

int naming_find(struct naming_found out[NAMING_FOUND_MAX], size_t *count, const struct model *model,
                const char *name, size_t bytes, struct error *err)
{
    struct model_ref ref;

    (void)err;
    *count = 0;
    if (model_find(model, name, bytes, &ref))
        out[(*count)++] = (struct naming_found){ ref, NAMING_ITSELF };
    if (!*count)
        *count = naming_find_spelled(out, model, name, bytes, 0);
    if (!*count)
        *count = naming_find_spelled(out, model, name, bytes, PREFIXES_MAX);
    if (!*count)
        *count = naming_find_ends(out, model, name, bytes);
    return 0;
}

int naming_refuse_unknown(const struct model *model, const char *name, size_t bytes,
                          struct error *err)
{
    struct model_ref nearest[SHOWN_COUNT];
    char quoted[QUOTED_BYTES];
    struct text copy = { 0 };
    struct text list = { 0 };
    size_t found;

    text_add(&copy, name, bytes);
    found = copy.data && !copy.failed ? model_nearest(model, copy.data, nearest, SHOWN_COUNT) : 0;
    for (size_t i = 0; i < found; i++) {
        const struct st_tensor *tensor = model_tensor(model, nearest[i]);

        text_addf(&list, "%s'%s'", i ? ", " : "; the nearest names are ",
                  error_quote(quoted, sizeof(quoted),
                              st_name(model_header(model, nearest[i]), tensor),
                              tensor->name_bytes));
    }
    error_set(err, ERR_MISMATCH, "the base has no tensor '%s'%s",
              error_quote(quoted, sizeof(quoted), name, bytes),
              list.data && !list.failed ? list.data : "");
    text_release(&copy);
    text_release(&list);
    return err->code;
}

int naming_refuse_several(const struct model *model, const char *name, size_t bytes,
                          const struct naming_found *found, size_t count, struct error *err)
{
    char quoted[QUOTED_BYTES];
    struct text list = { 0 };

    for (size_t i = 0; i < count && i < SHOWN_COUNT; i++) {
        const struct st_tensor *tensor = model_tensor(model, found[i].ref);

        text_addf(&list, "%s'%s'", i ? ", " : "",
                  error_quote(quoted, sizeof(quoted),
                              st_name(model_header(model, found[i].ref), tensor),
                              tensor->name_bytes));
    }
    if (count > SHOWN_COUNT)
        text_adds(&list, ", ...");
    error_set(err, ERR_MISMATCH, "'%s' may be any of several tensors of the base: %s",
              error_quote(quoted, sizeof(quoted), name, bytes),
              list.data && !list.failed ? list.data : "");
    text_release(&list);
    return err->code;
}
