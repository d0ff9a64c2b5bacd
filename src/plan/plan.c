#include "plan/plan_internal.h"

#include "format/conv1d.h"

#include <stdlib.h>
#include <string.h>

/* Modules that the configuration names but the file has no factors for: told, or refused. */
static int check_missing(const struct model *model, const struct plan_adapter *adapters,
                         const struct plan_matches *matches, bool strict, const struct log *log,
                         struct error *err)
{
    for (size_t i = 0; i < matches->adapter_count; i++) {
        const struct adapter *adapter = adapters[i].adapter;
        const char *name = NULL;
        size_t missing = 0;
        char quoted[2][QUOTED_BYTES];

        if (adapter_count_missing(adapter, &matches->edits[i], model, &name, 1, &missing, err))
            return err->code;
        if (missing == 0)
            continue;
        error_quote(quoted[0], QUOTED_BYTES, adapter->name, strlen(adapter->name));
        error_quote(quoted[1], QUOTED_BYTES, name, strlen(name));
        if (strict)
            return error_set(err, ERR_MISMATCH,
                             "adapter '%s': target_modules names %zu modules of the base that have "
                             "no factors in the file, first '%s' (--strict)",
                             quoted[0], missing, quoted[1]);
        log_say(log, LOG_WARNING,
                "adapter '%s': target_modules names %zu modules of the base that have no factors "
                "in the file and stay as they are, first '%s'",
                quoted[0], missing, quoted[1]);
    }
    return 0;
}

/* Layers can be repeated in one way only. */
static int find_replicas(struct plan *plan, const struct model *model,
                         const struct plan_adapter *adapters, size_t adapter_count,
                         struct error *err)
{
    for (size_t i = 0; i < adapter_count; i++) {
        struct adapter_replicas replicas = { 0 };
        char quoted[QUOTED_BYTES];
        bool same;

        error_quote(quoted, sizeof(quoted), adapters[i].adapter->name,
                    strlen(adapters[i].adapter->name));
        if (adapter_find_replicas(&replicas, adapters[i].adapter, model, err)) {
            error_prefix(err, "adapter '%s'", quoted);
            return err->code;
        }
        if (i == 0) {
            plan->replicas = replicas;
            continue;
        }
        same = replicas.count == plan->replicas.count &&
               (replicas.count == 0 || memcmp(replicas.base_layer, plan->replicas.base_layer,
                                              replicas.count * sizeof(uint64_t)) == 0);
        adapter_replicas_release(&replicas);
        if (!same)
            return error_set(err, ERR_MISMATCH,
                             "adapter '%s' repeats the layers of the base (layer_replication) in "
                             "another way than '%s'",
                             quoted, adapters[0].adapter->name);
    }
    return 0;
}

/* bitsandbytes holds Conv1D layers transposed: their blocks go down the columns of the base's. */
static int check_conv1d(const struct plan_options *options, const struct config_facts *facts,
                        struct error *err)
{
    if (!options->roundtrip || !conv1d_in_type(facts->model_type))
        return 0;
    return error_set(err, ERR_FORMAT,
                     "models of type '%s' have Conv1D layers, which are not taken through NF4 on "
                     "their way in: leave out --base-numerics nf4-roundtrip",
                     facts->model_type);
}

int plan_make(struct plan *out, const struct model *model, const struct plan_adapter *adapters,
              size_t adapter_count, const struct plan_options *options,
              const struct config_facts *facts, const struct log *log, struct error *err)
{
    struct plan plan = { 0 };
    struct plan_matches matches = { 0 };
    int status;

    if (check_conv1d(options, facts, err))
        return err->code;
    status = plan_match_all(&matches, model, adapters, adapter_count, options, facts, log, err);
    if (!status)
        status = find_replicas(&plan, model, adapters, adapter_count, err);
    if (!status)
        status = check_missing(model, adapters, &matches, options->strict, log, err);
    if (!status && matches.count == 0)
        status = error_set(err, ERR_MISMATCH,
                           "nothing of the adapter is left to fold: the output would be the base");
    if (status)
        goto out;
    plan.untied = matches.own_head;
    plan.passing_bytes = matches.bytes;
    status = plan_list_tensors(&plan, model, adapters, &matches, options, facts, err);
    if (!status && options->torch)
        status = plan_find_alias(&plan, model, facts, err);
    if (!status)
        status = plan_lay_out(&plan, options->stored ? options->stored : model, options, err);
    if (!status)
        status = plan_count_blocks(&plan, err);
out:
    plan_matches_release(&matches);
    if (status)
        plan_release(&plan);
    else
        *out = plan;
    return status;
}

void plan_release(struct plan *plan)
{
    for (size_t i = 0; i < plan->kept_count; i++)
        free(plan->kept[i]);
    free(plan->kept);
    free(plan->encodings);
    text_release(&plan->skipped);
    adapter_replicas_release(&plan->replicas);
    free(plan->patches);
    free(plan->cuts);
    free(plan->repacks);
    free(plan->inputs);
    free(plan->tensors);
    free(plan->targets);
    free(plan->deltas);
    free(plan->files);
    free(plan->clones);
    free(plan->headers);
    free(plan->residents);
    free(plan->tied_head);
    *plan = (struct plan){ 0 };
}
