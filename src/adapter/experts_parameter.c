#include "adapter/experts.h"

#include "adapter/naming.h"
#include "base/bytes.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CANDIDATES_MAX 16u /* no module in transformers registers half as many parameters */

/* The order in which transformers' experts register their parameters. */
static const char *const registered[] = {
    "gate_up_proj", "gate_up_proj_bias", "up_proj", "down_proj", "down_proj_bias",
};

/* A parameter of the module that target_parameters names and the base has. */
struct candidate {
    const char *name; /* in the configuration */
    size_t order;     /* in `registered`, or its length */
    struct expert_parameter parameter;
};

struct candidates {
    struct candidate list[CANDIDATES_MAX];
    size_t count;
    const char *absent; /* one that the base does not have, or NULL */
};

static const char *quote(char buf[QUOTED_BYTES], const char *text)
{
    return error_quote(buf, QUOTED_BYTES, text, strlen(text));
}

/*
 * The parameter of `module` that an entry of target_parameters names, or NULL.  PEFT compares
 * "<module>.<parameter>" with the entry, whole or from a dot on.
 */
static const char *entry_parameter(const char *entry, const char *module)
{
    const char *dot = strrchr(entry, '.');
    size_t bytes = dot ? (size_t)(dot - entry) : 0;
    size_t module_bytes = strlen(module);

    if (!dot)
        return entry;
    if (bytes > module_bytes || memcmp(module + module_bytes - bytes, entry, bytes) != 0)
        return NULL;
    return bytes == module_bytes || module[module_bytes - bytes - 1] == '.' ? dot + 1 : NULL;
}

static bool is_known(const struct candidates *candidates, const char *name)
{
    for (size_t i = 0; i < candidates->count; i++) {
        if (strcmp(candidates->list[i].name, name) == 0)
            return true;
    }
    return candidates->absent && strcmp(candidates->absent, name) == 0;
}

static int add_candidate(struct candidates *candidates, const struct expert_pair *pair,
                         const char *name, struct error *err)
{
    struct candidate *candidate = &candidates->list[candidates->count];
    struct text full = { 0 };
    char quoted[QUOTED_BYTES];
    int status;

    if (candidates->count == CANDIDATES_MAX)
        return error_set(err, ERR_FORMAT,
                         "target_parameters names more than %u parameters of module '%s'",
                         CANDIDATES_MAX, quote(quoted, pair->pair->module));
    *candidate = (struct candidate){ .name = name };
    while (candidate->order < COUNT(registered) && strcmp(registered[candidate->order], name) != 0)
        candidate->order++;
    status = expert_place_find(&candidate->parameter.place, pair->context->model, pair->module,
                               strlen(pair->module), name, pair->out, pair->in, err);
    if (status || candidate->parameter.place.kind == EXPERTS_NOWHERE) {
        expert_place_release(&candidate->parameter.place);
        candidates->absent = name;
        return status;
    }
    candidates->count++; /* from here on released with the others */
    text_addf(&full, "%s.%s", pair->pair->module, name);
    status = full.failed ? error_no_memory(err, "a parameter name")
                         : adapter_config_module(&pair->context->adapter->config, full.data,
                                                 &candidate->parameter.rank,
                                                 &candidate->parameter.scale, err);
    text_release(&full);
    return status;
}

static int collect(struct candidates *candidates, const struct expert_pair *pair, struct error *err)
{
    const struct adapter_config *config = &pair->context->adapter->config;
    int status = 0;

    for (size_t i = 0; i < config->target_parameters_count && !status; i++) {
        const char *name = entry_parameter(config->target_parameters[i], pair->pair->module);

        if (name && !is_known(candidates, name))
            status = add_candidate(candidates, pair, name, err);
    }
    return status;
}

static bool rank_fits(const struct candidate *candidate, const struct expert_pair *pair)
{
    uint64_t rows;

    return mul_u64(candidate->parameter.place.count, candidate->parameter.rank, &rows) &&
           rows == pair->rows;
}

/*
 * Parameters of one module are wrapped in the order of registration, so the innermost factors are
 * those of the first.  `outside` counts the pairs of the module around this one.
 */
static void count_nested(const struct expert_pair *pair, size_t *outside, size_t *count)
{
    const struct adapter *adapter = pair->context->adapter;
    size_t first = pair->index;

    *outside = 0;
    *count = 0;
    while (first > 0 && strcmp(adapter->pairs[first - 1].module, pair->pair->module) == 0)
        first--;
    for (size_t i = first;
         i < adapter->pair_count && strcmp(adapter->pairs[i].module, pair->pair->module) == 0;
         i++) {
        *count += adapter->pairs[i].parameter;
        *outside += adapter->pairs[i].parameter && adapter->pairs[i].depth < pair->pair->depth;
    }
}

/* By the order of registration, if every parameter has its factors; NULL if that is not so. */
static struct candidate *choose_by_order(struct candidates *candidates,
                                         const struct expert_pair *pair)
{
    size_t outside;
    size_t count;

    count_nested(pair, &outside, &count);
    if (count != candidates->count)
        return NULL;
    if (count == 1)
        return &candidates->list[0];
    for (size_t i = 0; i < count; i++) {
        size_t later = 0;

        if (candidates->list[i].order == COUNT(registered))
            return NULL;
        for (size_t j = 0; j < count; j++)
            later += candidates->list[j].order > candidates->list[i].order;
        if (later == outside)
            return &candidates->list[i];
    }
    return NULL;
}

static int refuse_several(const struct candidates *candidates, const struct expert_pair *pair,
                          struct error *err)
{
    char quoted[QUOTED_BYTES];
    struct text list = { 0 };

    for (size_t i = 0; i < candidates->count; i++)
        text_addf(&list, "%s'%s'", i ? ", " : "", quote(quoted, candidates->list[i].name));
    error_set(
        err, ERR_MISMATCH,
        "the factors of module '%s' may belong to any of its parameters %s: the file does not "
        "name the parameter, and neither the order nor the shapes decide; correct "
        "target_parameters so that it names only those that were trained",
        quote(quoted, pair->pair->module), list.data && !list.failed ? list.data : "");
    text_release(&list);
    return err->code;
}

/* By shape and number of rows; more than one left is refused. */
static int choose_by_shape(struct candidate **chosen, struct candidates *candidates,
                           const struct expert_pair *pair, struct error *err)
{
    size_t count = 0;

    for (size_t i = 0; i < candidates->count; i++) {
        if (candidates->list[i].parameter.place.fits && rank_fits(&candidates->list[i], pair)) {
            *chosen = &candidates->list[i];
            count++;
        }
    }
    if (count == 0)
        *chosen = &candidates->list[0]; /* for the sentence that says what does not fit */
    return count > 1 ? refuse_several(candidates, pair, err) : 0;
}

static int check_fit(const struct candidate *candidate, const struct expert_pair *pair,
                     struct error *err)
{
    const struct expert_place *place = &candidate->parameter.place;
    char quoted[2][QUOTED_BYTES];

    if (!place->fits)
        return expert_refuse_shape(pair, place->tensor, err);
    if (!rank_fits(candidate, pair))
        return error_set(err, ERR_MISMATCH,
                         "module '%s' has an A factor of %" PRIu64 " rows, but parameter '%s' of "
                         "the base has %" PRIu64 " experts, and r and rank_pattern give each a "
                         "rank of %u",
                         quote(quoted[0], pair->pair->module), pair->rows,
                         quote(quoted[1], candidate->name), place->count,
                         candidate->parameter.rank);
    return 0;
}

static int choose(struct expert_parameter *out, struct candidates *candidates,
                  const struct expert_pair *pair, struct error *err)
{
    struct candidate *chosen = choose_by_order(candidates, pair);
    int status = chosen ? 0 : choose_by_shape(&chosen, candidates, pair, err);

    if (!status)
        status = check_fit(chosen, pair, err);
    if (status)
        return status;
    *out = chosen->parameter;
    chosen->parameter = (struct expert_parameter){ 0 };
    return 0;
}

int expert_parameter_find(struct expert_parameter *out, bool *found, const struct expert_pair *pair,
                          struct error *err)
{
    struct candidates candidates = { 0 };
    char quoted[QUOTED_BYTES];
    struct text name = { 0 };
    int status = collect(&candidates, pair, err);

    *found = status || candidates.count;
    if (!status && candidates.count) {
        status = choose(out, &candidates, pair, err);
    } else if (!status && !candidates.absent) {
        status = error_set(err, ERR_MISMATCH,
                           "module '%s' has factors, but neither target_modules nor "
                           "target_parameters names it or a parameter of it",
                           quote(quoted, pair->pair->module));
    } else if (!status) {
        text_addf(&name, "%s.%s", pair->module, candidates.absent);
        status = name.failed
                     ? error_no_memory(err, "a parameter name")
                     : naming_refuse_unknown(pair->context->model, name.data, name.bytes, err);
        text_release(&name);
    }
    for (size_t i = 0; i < candidates.count; i++)
        expert_place_release(&candidates.list[i].parameter.place);
    return status;
}
