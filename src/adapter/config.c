#include "adapter/config.h"

#include "adapter/config_fields.h"
#include "adapter/matcher.h"
#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RANK_MAX 65536

/* LoraConfig's own values where a field is not written. */
#define RANK_DEFAULT 8
#define ALPHA_DEFAULT 8

static int check_rank(const cJSON *value, struct error *err)
{
    if (!config_is_integer(value, 1, RANK_MAX))
        return config_refuse(value, "a rank is a whole number from 1 to 65536", err);
    return 0;
}

static int check_alpha(const cJSON *value, struct error *err)
{
    if (!cJSON_IsNumber(value) || !isfinite(value->valuedouble))
        return config_refuse(value, "an alpha is a finite number", err);
    return 0;
}

static int read_numbers(struct adapter_config *out, const cJSON *root, struct error *err)
{
    const cJSON *rank = cJSON_GetObjectItemCaseSensitive(root, "r");
    const cJSON *alpha = cJSON_GetObjectItemCaseSensitive(root, "lora_alpha");

    if (rank) {
        if (check_rank(rank, err))
            return err->code;
        out->rank = (uint32_t)rank->valuedouble;
    }
    if (alpha) {
        if (check_alpha(alpha, err))
            return err->code;
        out->alpha = alpha->valuedouble;
    }
    return config_read_flag(&out->rslora, root, "use_rslora", err);
}

/* rank_pattern or alpha_pattern; `check` is what its values must be. */
static int read_patterns(struct pattern_value **out, size_t *out_count, const cJSON *root,
                         const char *name, int (*check)(const cJSON *value, struct error *err),
                         struct error *err)
{
    const cJSON *field = config_get(root, name);
    const cJSON *item;

    if (!field)
        return 0;
    if (!cJSON_IsObject(field))
        return config_refuse(field, "it must be an object", err);
    *out = calloc((size_t)cJSON_GetArraySize(field) + 1, sizeof(**out));
    if (!*out)
        return error_no_memory(err, "a configuration");
    cJSON_ArrayForEach(item, field)
    {
        struct pattern_value *value = &(*out)[*out_count];
        int status = check(item, err);

        if (!status)
            status = pattern_compile(&value->pattern, item->string, strlen(item->string),
                                     PATTERN_SUFFIX_KEY, err);
        if (status) {
            error_prefix(err, "'%s'", name);
            return status;
        }
        (*out_count)++;
        value->value = item->valuedouble;
        value->text = strdup(item->string);
        if (!value->text)
            return error_no_memory(err, "a configuration");
    }
    return 0;
}

static void release_patterns(struct pattern_value *patterns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(patterns[i].text);
        pattern_free(patterns[i].pattern);
    }
    free(patterns);
}

/* A pattern is part of a regular expression in PEFT; only plain names mean themselves there. */
static int check_layer_names(const cJSON *field, char *const *names, size_t count,
                             struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        for (const char *c = names[i]; *c; c++) {
            if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", *c))
                return config_refuse(field, "only names of letters, digits and '_' are admitted",
                                     err);
        }
        if (names[i][0] == '\0')
            return config_refuse(field, "a name in it is empty", err);
    }
    return 0;
}

static int read_layers(struct adapter_config *out, const cJSON *root, struct error *err)
{
    static const char *const shape = "it must be a whole number or a list of them";
    const cJSON *layers = config_get(root, "layers_to_transform");
    const cJSON *pattern = config_get(root, "layers_pattern");
    bool alone = layers && !cJSON_IsArray(layers);
    size_t count = alone ? 1 : (size_t)cJSON_GetArraySize(layers);
    const cJSON *item = alone || !layers ? layers : layers->child;

    if (count) {
        out->layers_to_transform = calloc(count, sizeof(*out->layers_to_transform));
        if (!out->layers_to_transform)
            return error_no_memory(err, "a configuration");
        for (; out->layers_to_transform_count < count; item = item->next) {
            if (!config_is_integer(item, -1e6, 1e6))
                return config_refuse(layers, shape, err);
            out->layers_to_transform[out->layers_to_transform_count++] = (int64_t)item->valuedouble;
        }
    }
    if (pattern && !(cJSON_IsString(pattern) && pattern->valuestring[0] == '\0')) {
        if (matcher_read_names(&out->layers_pattern, &out->layers_pattern_count, pattern, err) ||
            check_layer_names(pattern, out->layers_pattern, out->layers_pattern_count, err))
            return err->code;
    }
    if (out->layers_pattern_count && !layers)
        return config_refuse(pattern, "it means nothing without 'layers_to_transform'", err);
    if ((out->target_modules.pattern || out->target_modules.all) && count)
        return config_refuse(layers,
                             "PEFT does not allow it beside a 'target_modules' that is "
                             "one string",
                             err);
    return 0;
}

static int read_lora(struct adapter_config *out, const cJSON *root, struct error *err)
{
    if (read_numbers(out, root, err) ||
        read_patterns(&out->rank_pattern, &out->rank_pattern_count, root, "rank_pattern",
                      check_rank, err) ||
        read_patterns(&out->alpha_pattern, &out->alpha_pattern_count, root, "alpha_pattern",
                      check_alpha, err) ||
        matcher_read(&out->target_modules, root, "target_modules", true, err) ||
        matcher_read(&out->exclude_modules, root, "exclude_modules", false, err) ||
        read_layers(out, root, err) || config_read_saved(out, root, err))
        return err->code;
    return config_read_kinds(out, root, err);
}

/* What Unsloth adds to PEFT's fields. */
static int read_unsloth(struct adapter_config *out, const cJSON *root, struct error *err)
{
    const cJSON *mapping = cJSON_GetObjectItemCaseSensitive(root, "auto_mapping");

    out->unsloth = cJSON_IsObject(mapping) &&
                   cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(mapping, "unsloth_fixed"));
    return config_read_string(&out->b_layout, root, "lora_B_layout", err);
}

static int read_config(struct adapter_config *out, const cJSON *root, struct error *err)
{
    out->rank = RANK_DEFAULT;
    out->alpha = ALPHA_DEFAULT;
    if (config_read_string(&out->base_model, root, "base_model_name_or_path", err) ||
        config_read_string(&out->revision, root, "revision", err) ||
        config_read_string(&out->peft_version, root, "peft_version", err) ||
        read_unsloth(out, root, err))
        return err->code;
    if (out->type == ADAPTER_LORA)
        return read_lora(out, root, err);
    if (matcher_read(&out->target_modules, root, "target_modules", false, err))
        return err->code;
    return config_read_tokens(out, root, err);
}

int adapter_config_parse(struct adapter_config *out, const char *json, size_t bytes,
                         const struct log *log, struct error *err)
{
    struct adapter_config config = { 0 };
    cJSON *root = NULL;
    int status;

    status = json_parse(&root, json, bytes, JSON_PYTHON, err);
    if (status)
        goto out;
    if (!cJSON_IsObject(root)) {
        status = error_set(err, ERR_FORMAT, "a configuration is a JSON object");
        goto out;
    }
    status = config_read_type(&config.type, root, err);
    if (!status)
        status = config_check_fields(root, config.type, log, err);
    if (!status)
        status = read_config(&config, root, err);
    if (status)
        goto out;
    *out = config;
    config = (struct adapter_config){ 0 };

out:
    cJSON_Delete(root);
    adapter_config_release(&config);
    return status;
}

static void release_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

void adapter_config_release(struct adapter_config *config)
{
    free(config->base_model);
    free(config->revision);
    free(config->peft_version);
    free(config->b_layout);
    release_patterns(config->rank_pattern, config->rank_pattern_count);
    release_patterns(config->alpha_pattern, config->alpha_pattern_count);
    matcher_release(&config->target_modules);
    matcher_release(&config->exclude_modules);
    free(config->layers_to_transform);
    release_names(config->layers_pattern, config->layers_pattern_count);
    matcher_release(&config->modules_to_save);
    for (size_t i = 0; i < config->token_rows_count; i++) {
        free(config->token_rows[i].module);
        free(config->token_rows[i].rows);
    }
    free(config->token_rows);
    release_names(config->target_parameters, config->target_parameters_count);
    free(config->layer_replication);
    matcher_release(&config->bdlora_a);
    matcher_release(&config->bdlora_b);
    *config = (struct adapter_config){ 0 };
}
