#include "adapter/config_fields.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#define NOT_SUPPORTED "not supported by this version"

enum field_kind {
    FIELD_USED,     /* config.c reads it */
    FIELD_HARMLESS, /* of training or of the file's history; the merged weight is the same */
    FIELD_REFUSED   /* changes the merged weight; only null, false and empty values pass */
};

struct field {
    const char *name;
    enum field_kind kind;
    const char *why; /* of a refusal */
};

/* LoraConfig and its parents in PEFT 0.21. */
static const struct field fields[] = {
    { "peft_type", FIELD_USED, NULL },
    { "base_model_name_or_path", FIELD_USED, NULL },
    { "revision", FIELD_USED, NULL },
    { "peft_version", FIELD_USED, NULL },
    { "r", FIELD_USED, NULL },
    { "lora_alpha", FIELD_USED, NULL },
    { "use_rslora", FIELD_USED, NULL },
    { "rank_pattern", FIELD_USED, NULL },
    { "alpha_pattern", FIELD_USED, NULL },
    { "target_modules", FIELD_USED, NULL },
    { "exclude_modules", FIELD_USED, NULL },
    { "layers_to_transform", FIELD_USED, NULL },
    { "layers_pattern", FIELD_USED, NULL },
    { "init_lora_weights", FIELD_USED, NULL }, /* check_initialisation() */

    { "task_type", FIELD_HARMLESS, NULL },
    { "auto_mapping", FIELD_HARMLESS, NULL },
    { "inference_mode", FIELD_HARMLESS, NULL },
    { "lora_dropout", FIELD_HARMLESS, NULL },
    { "megatron_config", FIELD_HARMLESS, NULL }, /* parallel layers merge as linear ones do */
    { "megatron_core", FIELD_HARMLESS, NULL },
    { "loftq_config", FIELD_HARMLESS, NULL }, /* this and the next three: see init_lora_weights */
    { "eva_config", FIELD_HARMLESS, NULL },
    { "corda_config", FIELD_HARMLESS, NULL },
    { "lora_ga_config", FIELD_HARMLESS, NULL },
    { "velora_config", FIELD_HARMLESS, NULL },
    { "monteclora_config", FIELD_HARMLESS, NULL },
    { "qalora_group_size", FIELD_HARMLESS, NULL },
    { "ensure_weight_tying", FIELD_HARMLESS, NULL }, /* both sides have tensors of their own */
    { "runtime_config", FIELD_HARMLESS, NULL },

    { "use_dora", FIELD_REFUSED, "DoRA, a trained magnitude per row, is " NOT_SUPPORTED },
    { "bias", FIELD_REFUSED, "an adapter that trained biases of the base is " NOT_SUPPORTED },
    { "lora_bias", FIELD_REFUSED, "a bias on the B factors is " NOT_SUPPORTED },
    { "modules_to_save", FIELD_REFUSED,
      "an adapter that replaces whole modules of the base is " NOT_SUPPORTED },
    { "target_parameters", FIELD_REFUSED,
      "an adapter on parameters such as fused experts is " NOT_SUPPORTED },
    { "trainable_token_indices", FIELD_REFUSED,
      "an adapter that replaces rows of the embedding is " NOT_SUPPORTED },
    { "layer_replication", FIELD_REFUSED,
      "an adapter on a model with repeated layers is " NOT_SUPPORTED },
    { "fan_in_fan_out", FIELD_REFUSED,
      "weights stored transposed, as in GPT-2's Conv1D layers, are " NOT_SUPPORTED },
    { "use_bdlora", FIELD_REFUSED, "block-diagonal factors (BD-LoRA) are " NOT_SUPPORTED },
    { "use_qalora", FIELD_REFUSED, "QA-LoRA, with inputs pooled in groups, is " NOT_SUPPORTED },
    { "kasa_config", FIELD_REFUSED,
      "KaSA, which cuts singular values off the base, is " NOT_SUPPORTED },
    { "alora_invocation_tokens", FIELD_REFUSED,
      "aLoRA acts on some tokens only, so it cannot be folded into weights" },
    { "arrow_config", FIELD_REFUSED,
      "Arrow chooses among adapters for every token, so it cannot be folded into weights" },
};

/* PEFT's other types, to tell "not supported" from "never heard of". */
static const char *const other_types[] = {
    "ADALORA",
    "ADAMSS",
    "ADAPTION_PROMPT",
    "BEFT",
    "BOFT",
    "BONE",
    "C3A",
    "CARTRIDGE",
    "CPT",
    "DEFT",
    "DELORA",
    "FOURIERFT",
    "FROD",
    "GLORA",
    "GRALORA",
    "HIRA",
    "HRA",
    "IA3",
    "LILY",
    "LN_TUNING",
    "LOHA",
    "LOKR",
    "MISS",
    "MULTITASK_PROMPT_TUNING",
    "OFT",
    "OSF",
    "PEANUT",
    "POLY",
    "PREFIX_TUNING",
    "PROMPT_TUNING",
    "PSOFT",
    "PVERA",
    "P_TUNING",
    "RANDLORA",
    "ROAD",
    "SHADOW",
    "SHIRA",
    "SUPERTUNING",
    "TINYLORA",
    "TRAINABLE_TOKENS",
    "UNILORA",
    "VBLORA",
    "VERA",
    "WAVEFT",
    "XLORA",
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

int config_refuse(const struct cJSON *field, const char *why, struct error *err)
{
    char name[QUOTED_BYTES];
    char value[QUOTED_BYTES];
    /* cJSON prints what is not finite as null. */
    bool finite = !cJSON_IsNumber(field) || isfinite(field->valuedouble);
    char *printed = finite ? cJSON_PrintUnformatted(field) : NULL;
    const char *text = printed ? printed : finite ? "unprintable" : "not finite";

    error_set(err, ERR_FORMAT, "'%s' is %s: %s",
              error_quote(name, sizeof(name), field->string, strlen(field->string)),
              error_quote(value, sizeof(value), text, strlen(text)), why);
    cJSON_free(printed);
    return err->code;
}

static int check_type(const cJSON *root, struct error *err)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(root, "peft_type");

    if (!type)
        return error_set(
            err, ERR_FORMAT,
            "there is no 'peft_type': this is not the configuration of a PEFT adapter");
    if (!cJSON_IsString(type))
        return config_refuse(type, "it must be a string", err);
    if (strcmp(type->valuestring, "LORA") == 0)
        return 0;
    for (size_t i = 0; i < COUNT(other_types); i++) {
        if (strcmp(type->valuestring, other_types[i]) == 0)
            return config_refuse(type, "this kind of adapter is " NOT_SUPPORTED ", only LORA is",
                                 err);
    }
    return config_refuse(type, "there is no such kind of PEFT adapter; LORA is what is folded",
                         err);
}

/* Some ways to begin training change the base, and the saved factors then fit only that base. */
static int check_initialisation(const cJSON *root, struct error *err)
{
    static const char *const same_base[] = { "gaussian", "eva",  "orthogonal",
                                             "mica",     "true", "false" };
    static const char *const changed_base[] = { "olora", "corda", "lora_ga" };
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(root, "init_lora_weights");

    if (!value || cJSON_IsNull(value) || cJSON_IsBool(value))
        return 0;
    if (!cJSON_IsString(value))
        return config_refuse(value, "it must be true, false or a string", err);
    for (size_t i = 0; i < COUNT(same_base); i++) {
        if (strcasecmp(value->valuestring, same_base[i]) == 0)
            return 0;
    }
    if (strcasecmp(value->valuestring, "loftq") == 0)
        return config_refuse(value,
                             "the adapter belongs to a base that LoftQ quantised, not to the "
                             "published one; this is " NOT_SUPPORTED,
                             err);
    for (size_t i = 0; i <= COUNT(changed_base); i++) {
        if (i == COUNT(changed_base) ? strncasecmp(value->valuestring, "pissa", 5) == 0
                                     : strcasecmp(value->valuestring, changed_base[i]) == 0)
            return config_refuse(value,
                                 "training began by changing the base, so these factors do not fit "
                                 "the published one; save the adapter again with PEFT's "
                                 "save_pretrained(path_initial_model_for_weight_conversion=...), "
                                 "which makes it an ordinary LoRA",
                                 err);
    }
    return config_refuse(value,
                         "this way to begin training is not known, and it may have changed "
                         "the base",
                         err);
}

/* Null, false, empty; and "none", which is how `bias` says it. */
static bool is_off(const cJSON *value)
{
    if (cJSON_IsString(value))
        return value->valuestring[0] == '\0' || strcmp(value->valuestring, "none") == 0;
    return cJSON_IsNull(value) || cJSON_IsFalse(value) ||
           ((cJSON_IsArray(value) || cJSON_IsObject(value)) && !value->child);
}

static const struct field *find_field(const char *name)
{
    for (size_t i = 0; i < COUNT(fields); i++) {
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    }
    return NULL;
}

int config_check_fields(const struct cJSON *root, const struct log *log, struct error *err)
{
    const cJSON *item;
    int status;

    status = check_type(root, err);
    if (status)
        return status;
    cJSON_ArrayForEach(item, root)
    {
        const struct field *field = find_field(item->string);
        char name[QUOTED_BYTES];

        if (!field)
            log_say(log, LOG_DETAIL, "adapter_config.json: field '%s' is not known and is ignored",
                    error_quote(name, sizeof(name), item->string, strlen(item->string)));
        else if (field->kind == FIELD_REFUSED && !is_off(item))
            return config_refuse(item, field->why, err);
    }
    return check_initialisation(root, err);
}
