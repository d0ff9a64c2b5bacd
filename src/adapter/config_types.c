#include "adapter/config_fields.h"

#include <cjson/cJSON.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define ACTS_ON_INPUTS                                                                             \
    "it trains inputs of the model and leaves its weights alone, so there is nothing to fold; "    \
    "use it with PEFT beside the base"
#define CHOOSES                                                                                    \
    "it chooses among its experts anew for every input, so no weight can hold it; use it with "    \
    "PEFT beside the base"
#define OTHER_FORMULA                                                                              \
    "its weights follow another formula than LoRA's and are not folded here; merge it with PEFT "  \
    "itself: merge_and_unload(), then save_pretrained()"

/* PEFT 0.21's other types, by whether its own merge_and_unload() takes them. */
static const struct other_type {
    const char *name;
    const char *why;
} other_types[] = {
    { "ADAPTION_PROMPT", ACTS_ON_INPUTS },
    { "CARTRIDGE", ACTS_ON_INPUTS },
    { "CPT", ACTS_ON_INPUTS },
    { "MULTITASK_PROMPT_TUNING", ACTS_ON_INPUTS },
    { "PREFIX_TUNING", ACTS_ON_INPUTS },
    { "PROMPT_TUNING", ACTS_ON_INPUTS },
    { "P_TUNING", ACTS_ON_INPUTS },

    { "LILY", CHOOSES },
    { "POLY", CHOOSES },
    { "XLORA", CHOOSES },
    { "SHADOW", "it runs a second network beside the base, which no weight of the base can hold; "
                "use it with PEFT beside the base" },

    { "ADALORA", OTHER_FORMULA },
    { "ADAMSS", OTHER_FORMULA },
    { "BEFT", OTHER_FORMULA },
    { "BOFT", OTHER_FORMULA },
    { "BONE", "its weights follow another formula than LoRA's and are not folded here; merge it "
              "with the release of PEFT that made it: merge_and_unload(), then save_pretrained()" },
    { "C3A", OTHER_FORMULA },
    { "DEFT", OTHER_FORMULA },
    { "DELORA", OTHER_FORMULA },
    { "FOURIERFT", OTHER_FORMULA },
    { "FROD", OTHER_FORMULA },
    { "GLORA", OTHER_FORMULA },
    { "GRALORA", OTHER_FORMULA },
    { "HIRA", OTHER_FORMULA },
    { "HRA", OTHER_FORMULA },
    { "IA3", OTHER_FORMULA },
    { "LN_TUNING", OTHER_FORMULA },
    { "LOHA", OTHER_FORMULA },
    { "LOKR", OTHER_FORMULA },
    { "MISS", OTHER_FORMULA },
    { "OFT", OTHER_FORMULA },
    { "OSF", OTHER_FORMULA },
    { "PEANUT", OTHER_FORMULA },
    { "PSOFT", OTHER_FORMULA },
    { "PVERA", OTHER_FORMULA },
    { "RANDLORA", OTHER_FORMULA },
    { "ROAD", OTHER_FORMULA },
    { "SHIRA", OTHER_FORMULA },
    { "SUPERTUNING", OTHER_FORMULA },
    { "TINYLORA", OTHER_FORMULA },
    { "UNILORA", OTHER_FORMULA },
    { "VBLORA", OTHER_FORMULA },
    { "VERA", OTHER_FORMULA },
    { "WAVEFT", OTHER_FORMULA },
};

int config_read_type(enum adapter_type *out, const cJSON *root, struct error *err)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(root, "peft_type");

    if (!type)
        return error_set(
            err, ERR_FORMAT,
            "there is no 'peft_type': this is not the configuration of a PEFT adapter");
    if (!cJSON_IsString(type))
        return config_refuse(type, "it must be a string", err);
    for (size_t i = 0; i < COUNT(other_types); i++) {
        if (strcmp(type->valuestring, other_types[i].name) == 0)
            return config_refuse(type, other_types[i].why, err);
    }
    if (strcmp(type->valuestring, "LORA") == 0)
        *out = ADAPTER_LORA;
    else if (strcmp(type->valuestring, "TRAINABLE_TOKENS") == 0)
        *out = ADAPTER_TRAINABLE_TOKENS;
    else
        return config_refuse(type,
                             "PEFT 0.21 has no such kind of adapter; LORA and TRAINABLE_TOKENS "
                             "are folded",
                             err);
    return 0;
}
