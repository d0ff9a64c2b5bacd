/*
 * lora.c - an output that is an adapter: --save-method lora
 *
 * PEFT's own spelling, one file, the configuration as it was written.  The base is
 * only looked at: what a merge would refuse is refused here.
 */
#include "merge.h"

#include <stdlib.h>
#include <string.h>

int lora_check_options(const struct lorafold_merge_options *options, struct error *err)
{
    if (options->adapter_count > 1)
        return error_set(err, ERR_USAGE,
                         "save method lora writes one adapter, %zu are given: fold them into the "
                         "base with save method merged_16bit, or give one of them",
                         options->adapter_count);
    if (options->adapter_count == 1 && options->adapters[0].weight != 1)
        return error_set(err, ERR_USAGE,
                         "save method lora cannot write adapter '%s' with the weight %g, for which "
                         "PEFT has no place: multiply lora_alpha and alpha_pattern in its "
                         "configuration, or fold it in with save method merged_16bit",
                         options->adapters[0].path, options->adapters[0].weight);
    if (options->variant)
        return error_set(
            err, ERR_USAGE,
            "save method lora has no --variant: PEFT knows one name for the weights of "
            "an adapter");
    return 0;
}

/*
 * Plan the merge and drop it.  A base that the adapter names but that cannot be folded into, as one
 * in a scheme that is not decoded, is no reason to refuse: it was not asked for.
 */
static int check_base(struct lorafold_merge *merge, const struct plan_options *options,
                      uint64_t *passing_bytes, struct error *err)
{
    struct plan plan = { 0 };
    struct error inner = { 0 };

    if (plan_make(&plan,
                  merge->base->scheme.quantised ? &merge->base->scheme.view : &merge->base->model,
                  merge->plan_adapters, merge->adapter_count, options, &merge->base->facts,
                  &merge->log, &inner)) {
        if (inner.code != ERR_FORMAT || merge->options.base)
            return error_set(err, inner.code, "%s", inner.text);
        log_say(&merge->log, LOG_NOTICE, "the adapter is not checked against its base: %s",
                inner.text);
        return 0;
    }
    *passing_bytes = plan.passing_bytes + plan.headers_bytes + plan.kept_bytes +
                     plan.tensor_count * sizeof(*plan.tensors) +
                     plan.target_count * sizeof(*plan.targets) +
                     plan.delta_count * sizeof(*plan.deltas);
    plan_release(&plan);
    return 0;
}

int lora_plan(struct lorafold_merge *merge, const struct plan_options *options, struct error *err)
{
    uint64_t passing_bytes = 0;
    int status = 0;

    if (merge->base->source.name)
        status = check_base(merge, options, &passing_bytes, err);
    if (!status)
        status = plan_make_adapter(&merge->plan, &merge->adapters[0], options, err);
    if (!status)
        merge->plan.passing_bytes += passing_bytes;
    return status;
}

/* What the user called the base, if that is a name that others know. */
static const char *given_repo(const struct lorafold_merge *merge)
{
    return merge->options.base && merge->base->source.from_hub ? merge->base->source.name : NULL;
}

int lora_write_config(struct lorafold_merge *merge, struct outdir *outdir, struct error *err)
{
    const struct adapter *adapter = &merge->adapters[0];
    const char *repo = given_repo(merge);
    const char *at = repo ? strchr(merge->options.base, '@') : NULL;
    struct config_member members[3] = { { "inference_mode", "true" } };
    size_t count = 1;
    struct text name = { 0 };
    struct text revision = { 0 };
    struct text text = { 0 };
    int status;

    if (repo) {
        text_add_json(&name, repo, strlen(repo));
        members[count++] = (struct config_member){ "base_model_name_or_path", name.data };
    }
    /* The revision of another base means nothing. */
    if (at || (repo && adapter->config.revision &&
               (!adapter->config.base_model || strcmp(repo, adapter->config.base_model) != 0))) {
        if (at)
            text_add_json(&revision, at + 1, strlen(at + 1));
        else
            text_adds(&revision, "null");
        members[count++] = (struct config_member){ "revision", revision.data };
    }
    if (name.failed || revision.failed)
        status = error_no_memory(err, ADAPTER_CONFIG_NAME);
    else
        status = config_set_members(&text, adapter->config_text, adapter->config_bytes, members,
                                    count, err);
    if (!status)
        status = output_write(merge, outdir, ADAPTER_CONFIG_NAME, text.data, text.bytes, err);
    text_release(&name);
    text_release(&revision);
    text_release(&text);
    return status;
}
