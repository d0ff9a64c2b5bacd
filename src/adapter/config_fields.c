#include "adapter/config_fields.h"

#include <string.h>
#include <strings.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum field_kind {
    FIELD_USED,     /* read elsewhere */
    FIELD_HARMLESS, /* of training or of the file's history; the merged weight is the same */
    FIELD_REFUSED   /* changes the result; only null, false and [] pass */
};

/* Which types have the field. */
#define OF_LORA (1u << ADAPTER_LORA)
#define OF_TOKENS (1u << ADAPTER_TRAINABLE_TOKENS)
#define OF_BOTH (OF_LORA | OF_TOKENS)

struct field {
    const char *name;
    enum field_kind kind;
    unsigned types;
    const char *why; /* of a refusal */
};

/* LoraConfig, TrainableTokensConfig and their parents in PEFT 0.21. */
static const struct field fields[] = {
    { "peft_type", FIELD_USED, OF_BOTH, NULL },
    { "base_model_name_or_path", FIELD_USED, OF_BOTH, NULL },
    { "revision", FIELD_USED, OF_BOTH, NULL },
    { "peft_version", FIELD_USED, OF_BOTH, NULL },
    { "task_type", FIELD_USED, OF_BOTH, NULL },
    { "target_modules", FIELD_USED, OF_BOTH, NULL },
    { "token_indices", FIELD_USED, OF_TOKENS, NULL },
    { "r", FIELD_USED, OF_LORA, NULL },
    { "lora_alpha", FIELD_USED, OF_LORA, NULL },
    { "use_rslora", FIELD_USED, OF_LORA, NULL },
    { "rank_pattern", FIELD_USED, OF_LORA, NULL },
    { "alpha_pattern", FIELD_USED, OF_LORA, NULL },
    { "exclude_modules", FIELD_USED, OF_LORA, NULL },
    { "layers_to_transform", FIELD_USED, OF_LORA, NULL },
    { "layers_pattern", FIELD_USED, OF_LORA, NULL },
    { "fan_in_fan_out", FIELD_USED, OF_LORA, NULL },
    { "init_lora_weights", FIELD_USED, OF_LORA, NULL }, /* check_initialisation() */
    { "bias", FIELD_USED, OF_LORA, NULL },
    { "lora_bias", FIELD_USED, OF_LORA, NULL },
    { "use_dora", FIELD_USED, OF_LORA, NULL },
    { "modules_to_save", FIELD_USED, OF_LORA, NULL },
    { "trainable_token_indices", FIELD_USED, OF_LORA, NULL },
    { "ensure_weight_tying", FIELD_USED, OF_LORA, NULL },
    { "target_parameters", FIELD_USED, OF_LORA, NULL },
    { "layer_replication", FIELD_USED, OF_LORA, NULL },
    { "use_bdlora", FIELD_USED, OF_LORA, NULL },

    { "auto_mapping", FIELD_USED, OF_BOTH, NULL },
    { "lora_B_layout", FIELD_USED, OF_BOTH, NULL }, /* Unsloth's */
    { "inference_mode", FIELD_HARMLESS, OF_BOTH, NULL },
    { "init_weights", FIELD_HARMLESS, OF_TOKENS, NULL },
    { "lora_dropout", FIELD_HARMLESS, OF_LORA, NULL },
    { "megatron_config", FIELD_HARMLESS, OF_LORA, NULL }, /* parallel layers merge as linear ones */
    { "megatron_core", FIELD_HARMLESS, OF_LORA, NULL },
    { "loftq_config", FIELD_HARMLESS, OF_LORA, NULL }, /* these four: see init_lora_weights */
    { "eva_config", FIELD_HARMLESS, OF_LORA, NULL },
    { "corda_config", FIELD_HARMLESS, OF_LORA, NULL },
    { "lora_ga_config", FIELD_HARMLESS, OF_LORA, NULL },
    { "velora_config", FIELD_HARMLESS, OF_LORA, NULL },     /* saves less for the gradient */
    { "monteclora_config", FIELD_HARMLESS, OF_LORA, NULL }, /* adds noise while it trains */
    { "qalora_group_size", FIELD_HARMLESS, OF_LORA, NULL },
    { "runtime_config", FIELD_HARMLESS, OF_LORA, NULL },

    { "use_qalora", FIELD_REFUSED, OF_LORA,
      "QA-LoRA pools the inputs of a GPTQ base, and PEFT cannot merge it either; on any other base "
      "the field does nothing, and false says the same" },
    { "kasa_config", FIELD_REFUSED, OF_LORA,
      "KaSA cuts the smallest singular values off the base when it is loaded, and the factors fit "
      "only what is left; merge it with PEFT itself: merge_and_unload(), then save_pretrained()" },
    { "alora_invocation_tokens", FIELD_REFUSED, OF_LORA,
      "aLoRA acts only behind certain tokens, which no weight can hold; use it with PEFT beside "
      "the base" },
    { "arrow_config", FIELD_REFUSED, OF_LORA,
      "Arrow chooses among adapters for every token, which no weight can hold; use it with PEFT "
      "beside the base" },
};

#define BASE_CHANGED                                                                               \
    "training began by changing the base, and the factors fit only the changed one; save the "     \
    "adapter again with PEFT's save_pretrained(path_initial_model_for_weight_conversion=...), "    \
    "which makes it an ordinary LoRA; "
#define CHANGED_BASE_AT_HAND                                                                       \
    "or, if the changed base was saved and is what is given as the base, write true here"

/* Ways to begin that change the base: the saved factors alone do not tell what was trained. */
static const struct initialisation {
    const char *name;
    bool is_prefix;
    const char *why;
} changed_base[] = {
    { "pissa_niter_", true, BASE_CHANGED CHANGED_BASE_AT_HAND },
    { "pissa", false,
      BASE_CHANGED
      "or merge it with PEFT itself, which repeats the change; " CHANGED_BASE_AT_HAND },
    { "olora", false,
      BASE_CHANGED
      "or merge it with PEFT itself, which repeats the change; " CHANGED_BASE_AT_HAND },
    { "corda", false, BASE_CHANGED CHANGED_BASE_AT_HAND },
    { "lora_ga", false, BASE_CHANGED CHANGED_BASE_AT_HAND },
    { "loftq", false,
      "the factors fit only the base that LoftQ quantised, not the published one; if that base was "
      "saved and is what is given as the base, write true here" },
};

static int check_initialisation(const cJSON *root, struct error *err)
{
    static const char *const same_base[] = { "gaussian", "eva",  "orthogonal",
                                             "mica",     "true", "false" };
    const cJSON *value = config_get(root, "init_lora_weights");

    if (!value || cJSON_IsBool(value))
        return 0;
    if (!cJSON_IsString(value))
        return config_refuse(value, "it must be true, false or a string", err);
    for (size_t i = 0; i < COUNT(same_base); i++) {
        if (strcasecmp(value->valuestring, same_base[i]) == 0)
            return 0;
    }
    for (size_t i = 0; i < COUNT(changed_base); i++) {
        const char *name = changed_base[i].name;

        if (changed_base[i].is_prefix ? strncasecmp(value->valuestring, name, strlen(name)) == 0
                                      : strcasecmp(value->valuestring, name) == 0)
            return config_refuse(value, changed_base[i].why, err);
    }
    return config_refuse(value,
                         "this way to begin training is not known, and it may have changed "
                         "the base",
                         err);
}

/* An empty object is not off: PEFT fills it with its own values. */
static bool is_off(const cJSON *value)
{
    return cJSON_IsNull(value) || cJSON_IsFalse(value) || (cJSON_IsArray(value) && !value->child);
}

static const struct field *find_field(const char *name, enum adapter_type type)
{
    for (size_t i = 0; i < COUNT(fields); i++) {
        if (strcmp(fields[i].name, name) == 0)
            return fields[i].types & (1u << type) ? &fields[i] : NULL;
    }
    return NULL;
}

int config_check_fields(const cJSON *root, enum adapter_type type, const struct log *log,
                        struct error *err)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, root)
    {
        const struct field *field = find_field(item->string, type);
        char name[QUOTED_BYTES];

        if (!field)
            log_say(log, LOG_DETAIL, "adapter_config.json: field '%s' is not known and is ignored",
                    error_quote(name, sizeof(name), item->string, strlen(item->string)));
        else if (field->kind == FIELD_REFUSED && !is_off(item))
            return config_refuse(item, field->why, err);
    }
    return type == ADAPTER_LORA ? check_initialisation(root, err) : 0;
}
