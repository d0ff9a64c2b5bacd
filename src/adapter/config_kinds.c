#include "adapter/config_fields.h"
#include "adapter/matcher.h"

#include <stdlib.h>
#include <string.h>

#define LAYERS_MAX 100000 /* of the new model; the largest published models have some hundred */
#define BLOCKS_MAX 65536  /* no more than ranks */

static int read_target_parameters(struct adapter_config *out, const cJSON *root, struct error *err)
{
    const cJSON *field = config_get(root, "target_parameters");

    if (!field)
        return 0;
    return matcher_read_array(&out->target_parameters, &out->target_parameters_count, field, err);
}

static int read_replication(struct adapter_config *out, const cJSON *root, struct error *err)
{
    static const char *const shape =
        "it must be a list of ranges [first, end] of layers, with 0 <= first < end <= 100000";
    const cJSON *field = config_get(root, "layer_replication");
    const cJSON *range;
    uint64_t total = 0;

    if (!field)
        return 0;
    if (!cJSON_IsArray(field))
        return config_refuse(field, shape, err);
    out->layer_replication = calloc((size_t)cJSON_GetArraySize(field) + 1,
                                    sizeof(*out->layer_replication));
    if (!out->layer_replication)
        return error_no_memory(err, "a configuration");
    cJSON_ArrayForEach(range, field)
    {
        const cJSON *first = cJSON_IsArray(range) ? range->child : NULL;
        const cJSON *end = first ? first->next : NULL;
        uint64_t *pair = out->layer_replication[out->layer_replication_count++];

        if (!end || end->next || !config_is_integer(first, 0, LAYERS_MAX) ||
            !config_is_integer(end, 0, LAYERS_MAX) || first->valuedouble >= end->valuedouble)
            return config_refuse(field, shape, err);
        pair[0] = (uint64_t)first->valuedouble;
        pair[1] = (uint64_t)end->valuedouble;
        total += pair[1] - pair[0]; /* at most the limit twice */
        if (total > LAYERS_MAX)
            return config_refuse(field, "the new model would have more than 100000 layers", err);
    }
    return 0;
}

static int read_blocks(struct adapter_config *out, const cJSON *root, struct error *err)
{
    const cJSON *field = config_get(root, "use_bdlora");
    const cJSON *blocks;
    int status = 0;

    if (!field || cJSON_IsFalse(field))
        return 0;
    if (!cJSON_IsObject(field))
        return config_refuse(field,
                             "it must be an object with 'nblocks', 'target_modules_bd_a' and "
                             "'target_modules_bd_b'",
                             err);
    out->bdlora = true;
    out->bdlora_blocks = 1;
    blocks = cJSON_GetObjectItemCaseSensitive(field, "nblocks");
    if (blocks && !config_is_integer(blocks, 1, BLOCKS_MAX))
        status = config_refuse(blocks, "a number of blocks is a whole number from 1 to 65536", err);
    else if (blocks)
        out->bdlora_blocks = (uint32_t)blocks->valuedouble;
    if (!status)
        status = matcher_read_list(&out->bdlora_a, field, "target_modules_bd_a", err);
    if (!status)
        status = matcher_read_list(&out->bdlora_b, field, "target_modules_bd_b", err);
    for (size_t i = 0; i < out->bdlora_b.name_count && !status; i++) {
        char name[QUOTED_BYTES];
        const char *text = out->bdlora_b.names[i];

        if (matcher_has_name(&out->bdlora_a, text))
            status = error_set(err, ERR_FORMAT,
                               "'%s' stands both in 'target_modules_bd_a' and in "
                               "'target_modules_bd_b', which PEFT does not allow",
                               error_quote(name, sizeof(name), text, strlen(text)));
    }
    if (status)
        error_prefix(err, "'use_bdlora'");
    return status;
}

/* PEFT raises an error for these, so no formula is defined. */
static int refuse_combinations(const struct adapter_config *config, const cJSON *root,
                               struct error *err)
{
    const cJSON *megatron = config_get(root, "megatron_config");
    bool parameters = config->target_parameters_count > 0;
    const struct {
        bool both;
        const char *one;
        const char *other;
    } forbidden[] = {
        { config->dora && config->lora_bias, "use_dora", "lora_bias" },
        { config->dora && config->bdlora, "use_dora", "use_bdlora" },
        { config->dora && megatron && megatron->child, "use_dora", "megatron_config" },
        { config->dora && parameters, "use_dora", "target_parameters" },
        { config->lora_bias && parameters, "lora_bias", "target_parameters" },
        { config->bdlora && parameters, "use_bdlora", "target_parameters" },
        { config->fan_in_fan_out && parameters, "fan_in_fan_out", "target_parameters" },
    };

    for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
        if (forbidden[i].both)
            return error_set(err, ERR_FORMAT,
                             "PEFT does not allow '%s' and '%s' together, so what they mean "
                             "together is not defined",
                             forbidden[i].one, forbidden[i].other);
    }
    return 0;
}

int config_read_kinds(struct adapter_config *out, const cJSON *root, struct error *err)
{
    if (config_read_flag(&out->dora, root, "use_dora", err) ||
        config_read_flag(&out->lora_bias, root, "lora_bias", err) ||
        config_read_flag(&out->fan_in_fan_out, root, "fan_in_fan_out", err) ||
        config_read_flag(&out->tie, root, "ensure_weight_tying", err) ||
        read_target_parameters(out, root, err) || read_replication(out, root, err) ||
        read_blocks(out, root, err))
        return err->code;
    return refuse_combinations(out, root, err);
}
