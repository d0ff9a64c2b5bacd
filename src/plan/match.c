#include "plan/plan_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t plan_model_number(const struct model *model, struct model_ref ref)
{
    uint64_t number = ref.tensor;

    for (uint32_t i = 0; i < ref.shard; i++)
        number += model->shards[i].header.tensor_count;
    return number;
}

/* Last components of the names that input embeddings have in transformers' model code. */
static const char *const embedding_names[] = { "embed_tokens.weight", "wte.weight",
                                               "word_embeddings.weight", "embed_in.weight",
                                               "tok_embeddings.weight" };

static bool name_ends_with_component(const char *name, size_t bytes, const char *end)
{
    size_t end_bytes = strlen(end);

    if (bytes < end_bytes || memcmp(name + bytes - end_bytes, end, end_bytes) != 0)
        return false;
    return bytes == end_bytes || name[bytes - end_bytes - 1] == '.';
}

/* The one embedding of the base that has the shape of the head's delta. */
static bool find_embedding(const struct model *model, uint64_t rows, uint64_t cols,
                           struct model_ref *out)
{
    size_t found = 0;

    for (uint32_t s = 0; s < model->shard_count; s++) {
        const struct st_header *header = &model->shards[s].header;

        for (uint32_t t = 0; t < header->tensor_count; t++) {
            const struct st_tensor *tensor = &header->tensors[t];
            const uint64_t *shape = st_shape(header, tensor);
            bool named = false;

            for (size_t i = 0; i < sizeof(embedding_names) / sizeof(embedding_names[0]); i++)
                named |= name_ends_with_component(st_name(header, tensor), tensor->name_bytes,
                                                  embedding_names[i]);
            if (!named || tensor->shape_count != 2 || shape[0] != rows || shape[1] != cols ||
                !dtype_is_computed((enum dtype)tensor->dtype))
                continue;
            *out = (struct model_ref){ s, t };
            found++;
        }
    }
    return found == 1;
}

static int set_head(struct plan_matches *matches, const char *module, struct error *err)
{
    size_t bytes = strlen(module) + strlen(".weight");
    char quoted[2][QUOTED_BYTES];
    char *name;

    if (matches->head) {
        if (strncmp(matches->head_name, module, strlen(module)) != 0 ||
            matches->head_name_bytes != bytes)
            return error_set(
                err, ERR_MISMATCH,
                "adapters name two output heads, '%s' and '%s.weight', and the base "
                "holds neither",
                error_quote(quoted[0], QUOTED_BYTES, matches->head_name, matches->head_name_bytes),
                error_quote(quoted[1], QUOTED_BYTES, module, strlen(module)));
        return 0;
    }
    name = malloc(bytes + 1);
    if (!name)
        return error_no_memory(err, "a tensor name");
    memcpy(name, module, bytes - strlen(".weight"));
    memcpy(name + bytes - strlen(".weight"), ".weight", strlen(".weight") + 1);
    matches->head_name = name;
    matches->head_name_bytes = bytes;
    matches->head = true;
    return 0;
}

/*
 * The head of a base that ties it to the embedding is not in the files.  Returns 0 with *tied set
 * if the pair is for such a head.
 */
static int match_tied_head(struct plan_matches *matches, const struct adapter *adapter,
                           const struct adapter_pair *pair, const struct model *model,
                           int config_tied, bool *tied, struct error *err)
{
    const uint64_t *a_shape = st_shape(&adapter->header, &adapter->header.tensors[pair->tensor_a]);
    const uint64_t *b_shape = st_shape(&adapter->header, &adapter->header.tensors[pair->tensor_b]);
    struct model_ref source;
    char quoted[QUOTED_BYTES];

    *tied = false;
    if (!adapter_pair_is_head(pair) || config_tied == 0 ||
        !find_embedding(model, b_shape[0], a_shape[1], &source))
        return 0;
    *tied = true;
    if (matches->head &&
        plan_model_number(model, source) != plan_model_number(model, matches->head_source)) {
        error_quote(quoted, sizeof(quoted), adapter->name, strlen(adapter->name));
        return error_set(err, ERR_MISMATCH,
                         "adapter '%s': its output head [%" PRIu64 ", %" PRIu64
                         "] has another shape than that of the adapter before",
                         quoted, b_shape[0], a_shape[1]);
    }
    if (set_head(matches, pair->module, err))
        return err->code;
    matches->head_source = source;
    return 0;
}

/* weight * alpha / r must stay a number when it is rounded to fp32. */
static int check_scale(const struct plan_adapter *adapter, const struct adapter_pair *pair,
                       struct error *err)
{
    char quoted[QUOTED_BYTES];

    if (isfinite((float)(adapter->weight * pair->scale)))
        return 0;
    error_quote(quoted, sizeof(quoted), pair->module, strlen(pair->module));
    return error_set(err, ERR_USAGE,
                     "adapter '%s': the weight %g times the scale %g of module '%s' is beyond the "
                     "range of fp32 (3.4e38): give a smaller weight",
                     adapter->adapter->name, adapter->weight, pair->scale, quoted);
}

static int match_pair(struct plan_matches *matches, const struct model *model,
                      const struct plan_adapter *adapters, uint32_t adapter_index,
                      uint32_t pair_index, const struct plan_options *options, int config_tied,
                      struct error *err)
{
    const struct adapter *adapter = adapters[adapter_index].adapter;
    const struct adapter_pair *pair = &adapter->pairs[pair_index];
    struct plan_match *match = &matches->list[matches->count];
    struct model_ref ref;
    char weight_name[ST_NAME_BYTES_MAX + 8];
    size_t module_bytes = strlen(pair->module);
    bool tied = false;

    *match = (struct plan_match){ 0, adapter_index, pair_index };
    if (check_scale(&adapters[adapter_index], pair, err))
        return err->code;
    if (module_bytes <= ST_NAME_BYTES_MAX) {
        memcpy(weight_name, pair->module, module_bytes);
        memcpy(weight_name + module_bytes, ".weight", 8);
        if (!model_find(model, weight_name, module_bytes + 7, &ref) &&
            match_tied_head(matches, adapter, pair, model, config_tied, &tied, err))
            return err->code;
    }
    if (adapter_pair_is_head(pair) && !(tied && options->tied == PLAN_TIED_SHARED))
        matches->own_head = true;
    if (tied && options->tied == PLAN_TIED_EXACT)
        match->tensor = model->tensor_count;
    else if (tied)
        match->tensor = plan_model_number(model, matches->head_source);
    else if (adapter_find_target(adapter, pair, model, &ref, err))
        return err->code;
    else
        match->tensor = plan_model_number(model, ref);
    matches->count++;
    return 0;
}

static int compare_matches(const void *left, const void *right)
{
    const struct plan_match *x = left;
    const struct plan_match *y = right;

    if (x->tensor != y->tensor)
        return x->tensor < y->tensor ? -1 : 1;
    if (x->adapter != y->adapter)
        return x->adapter < y->adapter ? -1 : 1;
    return x->pair < y->pair ? -1 : x->pair > y->pair;
}

/* One adapter may change one tensor once. */
static int check_twice(const struct plan_matches *matches, const struct plan_adapter *adapters,
                       struct error *err)
{
    for (size_t i = 1; i < matches->count; i++) {
        const struct plan_match *x = &matches->list[i - 1];
        const struct plan_match *y = &matches->list[i];
        const struct adapter *adapter = adapters[y->adapter].adapter;
        const char *module = adapter->pairs[y->pair].module;
        const char *other;
        char quoted[3][QUOTED_BYTES];

        if (x->tensor != y->tensor || x->adapter != y->adapter)
            continue;
        other = adapter->pairs[x->pair].module;
        return error_set(err, ERR_MISMATCH,
                         "adapter '%s': modules '%s' and '%s' both match one tensor of the base",
                         error_quote(quoted[0], QUOTED_BYTES, adapter->name, strlen(adapter->name)),
                         error_quote(quoted[1], QUOTED_BYTES, other, strlen(other)),
                         error_quote(quoted[2], QUOTED_BYTES, module, strlen(module)));
    }
    return 0;
}

int plan_match_all(struct plan_matches *out, const struct model *model,
                   const struct plan_adapter *adapters, size_t adapter_count,
                   const struct plan_options *options, int config_tied, const struct log *log,
                   struct error *err)
{
    struct plan_matches matches = { 0 };
    size_t pair_count = 0;
    int status = 0;

    for (size_t i = 0; i < adapter_count; i++)
        pair_count += adapters[i].adapter->pair_count;
    matches.list = calloc(pair_count + 1, sizeof(*matches.list));
    if (!matches.list)
        return error_no_memory(err, "the list of targets");
    for (uint32_t i = 0; i < adapter_count && !status; i++) {
        for (uint32_t p = 0; p < adapters[i].adapter->pair_count && !status; p++)
            status = match_pair(&matches, model, adapters, i, p, options, config_tied, err);
    }
    if (!status) {
        qsort(matches.list, matches.count, sizeof(*matches.list), compare_matches);
        status = check_twice(&matches, adapters, err);
    }
    if (!status && matches.head && options->tied == PLAN_TIED_SHARED) {
        char quoted[QUOTED_BYTES];

        log_say(log, LOG_NOTICE,
                "the base ties '%s' to its embedding: with --tied shared the delta of the head "
                "changes the embedding too",
                error_quote(quoted, sizeof(quoted), matches.head_name, matches.head_name_bytes));
        matches.head = false;
    }
    if (status)
        plan_matches_release(&matches);
    else
        *out = matches;
    return status;
}

void plan_matches_release(struct plan_matches *matches)
{
    free(matches->list);
    free(matches->head_name);
    *matches = (struct plan_matches){ 0 };
}
