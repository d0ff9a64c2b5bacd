#include "adapter/adapter.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHT ".weight"
#define WEIGHT_BYTES (sizeof(WEIGHT) - 1)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NEAREST_COUNT 3

/*
 * How a module path of the adapter becomes a name in the base: where it begins with `strip`, that
 * is replaced by `add`, and ".weight" follows.  Every rule is tried; one tensor must remain.
 */
static const struct naming_rule {
    const char *strip;
    const char *add;
} rules[] = {
    { "", "" },
};

/* A base tensor that has the name. */
struct candidate {
    struct model_ref ref;
    bool computed; /* dtype */
    bool fits;     /* shape */
};

struct pair_shape {
    uint64_t rows; /* of B: outputs */
    uint64_t cols; /* of A: inputs */
};

static struct pair_shape pair_shape(const struct adapter *adapter, const struct adapter_pair *pair)
{
    const struct st_header *header = &adapter->header;

    return (struct pair_shape){ st_shape(header, &header->tensors[pair->tensor_b])[0],
                                st_shape(header, &header->tensors[pair->tensor_a])[1] };
}

static const char *quote_ref(char buf[QUOTED_BYTES], const struct model *model,
                             struct model_ref ref)
{
    const struct st_tensor *tensor = model_tensor(model, ref);

    return error_quote(buf, QUOTED_BYTES, st_name(model_header(model, ref), tensor),
                       tensor->name_bytes);
}

static int find_candidates(struct candidate out[COUNT(rules)], size_t *count,
                           const struct adapter_pair *pair, struct pair_shape wanted,
                           const struct model *model, struct error *err)
{
    struct text name = { 0 };
    bool failed;

    *count = 0;
    for (size_t i = 0; i < COUNT(rules) && !name.failed; i++) {
        struct candidate *candidate = &out[*count];
        const struct st_tensor *tensor;
        const uint64_t *shape;

        if (strncmp(pair->module, rules[i].strip, strlen(rules[i].strip)) != 0)
            continue;
        text_clear(&name);
        text_adds(&name, rules[i].add);
        text_adds(&name, pair->module + strlen(rules[i].strip));
        text_adds(&name, WEIGHT);
        if (name.failed || !model_find(model, name.data, name.bytes, &candidate->ref))
            continue;
        tensor = model_tensor(model, candidate->ref);
        shape = st_shape(model_header(model, candidate->ref), tensor);
        candidate->computed = dtype_is_computed((enum dtype)tensor->dtype);
        candidate->fits = tensor->shape_count == 2 && shape[0] == wanted.rows &&
                          shape[1] == wanted.cols;
        (*count)++;
    }
    failed = name.failed;
    text_release(&name);
    return failed ? error_no_memory(err, "a tensor name") : 0;
}

static int refuse_unknown(const struct adapter_pair *pair, const struct model *model,
                          struct error *err)
{
    struct model_ref nearest[NEAREST_COUNT];
    char quoted[QUOTED_BYTES];
    struct text name = { 0 };
    struct text list = { 0 };
    size_t found;

    text_adds(&name, pair->module);
    text_adds(&name, WEIGHT);
    found = name.failed ? 0 : model_nearest(model, name.data, nearest, NEAREST_COUNT);
    for (size_t i = 0; i < found; i++)
        text_addf(&list, "%s'%s'", i ? ", " : "; the nearest names are ",
                  quote_ref(quoted, model, nearest[i]));
    error_quote(quoted, sizeof(quoted), name.failed ? "" : name.data, name.failed ? 0 : name.bytes);
    error_set(err, ERR_MISMATCH, "the base has no tensor '%s'%s", quoted,
              list.data && !list.failed ? list.data : "");
    text_release(&name);
    text_release(&list);
    return err->code;
}

static int refuse_several(const struct adapter_pair *pair, const struct candidate *candidates,
                          size_t count, const struct model *model, struct error *err)
{
    char quoted[QUOTED_BYTES];
    struct text list = { 0 };

    for (size_t i = 0; i < count; i++) {
        if (candidates[i].computed && candidates[i].fits)
            text_addf(&list, "%s'%s'", list.bytes ? ", " : "",
                      quote_ref(quoted, model, candidates[i].ref));
    }
    error_set(err, ERR_MISMATCH, "module '%s' may be any of several tensors of the base: %s",
              error_quote(quoted, sizeof(quoted), pair->module, strlen(pair->module)),
              list.data && !list.failed ? list.data : "");
    text_release(&list);
    return err->code;
}

/* The tensor is there by name, but its dtype or shape is not what can be folded. */
static int refuse_candidate(const struct candidate *candidate, struct pair_shape wanted,
                            const struct model *model, struct error *err)
{
    const struct st_tensor *tensor = model_tensor(model, candidate->ref);
    const uint64_t *shape = st_shape(model_header(model, candidate->ref), tensor);
    bool transposed = tensor->shape_count == 2 && shape[0] == wanted.cols &&
                      shape[1] == wanted.rows;
    char quoted[QUOTED_BYTES];
    struct text list = { 0 };

    quote_ref(quoted, model, candidate->ref);
    if (!candidate->computed)
        return error_set(err, ERR_FORMAT,
                         "tensor '%s' of the base is stored as %s: a quantised base is not "
                         "supported by this version, so give the BF16, F16 or F32 model that it "
                         "was made from",
                         quoted, dtype_name((enum dtype)tensor->dtype));
    for (size_t i = 0; i < tensor->shape_count; i++)
        text_addf(&list, "%s%" PRIu64, i ? ", " : "", shape[i]);
    error_set(err, ERR_MISMATCH,
              "tensor '%s' of the base has shape [%s], but the factors make [%" PRIu64 ", %" PRIu64
              "]%s",
              quoted, list.data && !list.failed ? list.data : "", wanted.rows, wanted.cols,
              transposed ? "; weights stored transposed, as in GPT-2's Conv1D layers, are not "
                           "supported by this version"
                         : "");
    text_release(&list);
    return err->code;
}

int adapter_find_target(const struct adapter *adapter, const struct adapter_pair *pair,
                        const struct model *model, struct model_ref *out, struct error *err)
{
    struct candidate candidates[COUNT(rules)];
    struct pair_shape wanted = pair_shape(adapter, pair);
    const struct candidate *good = NULL;
    size_t good_count = 0;
    size_t count;
    char quoted[QUOTED_BYTES];
    int status;

    status = find_candidates(candidates, &count, pair, wanted, model, err);
    if (status)
        return status;
    for (size_t i = 0; i < count; i++) {
        if (candidates[i].computed && candidates[i].fits) {
            good = &candidates[i];
            good_count++;
        }
    }
    if (good_count == 1) {
        *out = good->ref;
        return 0;
    }
    if (good_count)
        status = refuse_several(pair, candidates, count, model, err);
    else if (count)
        status = refuse_candidate(&candidates[0], wanted, model, err);
    else
        status = refuse_unknown(pair, model, err);
    error_prefix(err, "adapter '%s'",
                 error_quote(quoted, sizeof(quoted), adapter->name, strlen(adapter->name)));
    return status;
}

bool adapter_pair_is_head(const struct adapter_pair *pair)
{
    /* Output embeddings in transformers' model code. */
    static const char *const heads[] = { "lm_head", "embed_out", "output" };
    const char *dot = strrchr(pair->module, '.');
    const char *last = dot ? dot + 1 : pair->module;

    /* Inside a numbered layer the same names stand for something else. */
    for (const char *at = pair->module; at < last; at = strchr(at, '.') + 1) {
        if (at[strspn(at, "0123456789")] == '.')
            return false;
    }
    for (size_t i = 0; i < COUNT(heads); i++) {
        if (strcmp(last, heads[i]) == 0)
            return true;
    }
    return false;
}

static int compare_module(const void *key, const void *element)
{
    return strcmp(key, ((const struct adapter_pair *)element)->module);
}

int adapter_count_missing(const struct adapter *adapter, const struct model *model,
                          const char **names, size_t count, size_t *missing, struct error *err)
{
    const struct module_matcher *targets = &adapter->config.target_modules;
    char module[ST_NAME_BYTES_MAX + 1];

    *missing = 0;
    /* "All linear layers" depends on the model's code, and nothing at all on its defaults. */
    if (!targets->present || targets->all)
        return 0;
    for (size_t s = 0; s < model->shard_count; s++) {
        const struct st_header *header = &model->shards[s].header;

        for (size_t t = 0; t < header->tensor_count; t++) {
            const struct st_tensor *tensor = &header->tensors[t];
            const char *name = st_name(header, tensor);
            size_t bytes = tensor->name_bytes;
            bool targeted;

            if (tensor->shape_count != 2 || bytes <= WEIGHT_BYTES || bytes > ST_NAME_BYTES_MAX ||
                memcmp(name + bytes - WEIGHT_BYTES, WEIGHT, WEIGHT_BYTES) != 0 ||
                memchr(name, '\0', bytes))
                continue;
            memcpy(module, name, bytes - WEIGHT_BYTES);
            module[bytes - WEIGHT_BYTES] = '\0';
            if (bsearch(module, adapter->pairs, adapter->pair_count, sizeof(*adapter->pairs),
                        compare_module))
                continue;
            if (adapter_config_targets(&adapter->config, module, &targeted, err))
                return err->code;
            if (!targeted)
                continue;
            if (*missing < count)
                names[*missing] = name;
            (*missing)++;
        }
    }
    return 0;
}
