#include "format/conv1d.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *model_type;
    const char *modules; /* " name name " */
} types[] = {
    { "gpt2", " c_attn q_attn c_proj c_fc " },
    { "gpt-sw3", " c_attn q_attn c_proj c_fc " },
    { "imagegpt", " c_attn q_attn c_proj c_fc " },
    { "decision_transformer", " c_attn q_attn c_proj c_fc " },
    { "openai-gpt", " c_attn c_proj c_fc " },
    { "clvp", " c_proj c_fc " },
    { "gpt_bigcode", "" }, /* the same names, but linear layers */
};

static const char *modules_of(const char *model_type)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(model_type, types[i].model_type) == 0)
            return types[i].modules;
    }
    return NULL;
}

bool conv1d_in_type(const char *model_type)
{
    const char *modules = modules_of(model_type);

    return modules && modules[0];
}

enum conv1d conv1d_of(const char *model_type, const char *module, size_t bytes)
{
    const char *modules = modules_of(model_type);
    const char *dot = memrchr(module, '.', bytes);
    const char *last = dot ? dot + 1 : module;
    char word[32];

    if (!modules)
        return CONV1D_UNKNOWN;
    if (snprintf(word, sizeof(word), " %.*s ", (int)(module + bytes - last), last) <
            (int)sizeof(word) &&
        strstr(modules, word))
        return CONV1D_YES;
    return CONV1D_NO;
}
