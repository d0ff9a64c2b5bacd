#include "adapter/config.h"
#include "adapter/matcher.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* PEFT's get_pattern_key(): the first key that matches, else the key that is the name itself. */
static int find_value(const struct pattern_value *patterns, size_t count, const char *name,
                      double *value, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        bool matched;
        int status = pattern_match(patterns[i].pattern, name, strlen(name), &matched, err);

        if (status)
            return status;
        if (matched) {
            *value = patterns[i].value;
            return 0;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(patterns[i].text, name) == 0)
            *value = patterns[i].value;
    }
    return 0;
}

int adapter_config_module(const struct adapter_config *config, const char *name, uint32_t *rank,
                          double *scale, struct error *err)
{
    double r = config->rank;
    double alpha = config->alpha;
    double result;
    char quoted[QUOTED_BYTES];

    if (find_value(config->rank_pattern, config->rank_pattern_count, name, &r, err) ||
        find_value(config->alpha_pattern, config->alpha_pattern_count, name, &alpha, err))
        return err->code;
    result = alpha / (config->rslora ? sqrt(r) : r);
    if (fabs(result) > FLT_MAX)
        return error_set(err, ERR_FORMAT, "module '%s': the scale %g is beyond what fp32 can hold",
                         error_quote(quoted, sizeof(quoted), name, strlen(name)), result);
    *rank = (uint32_t)r;
    *scale = result;
    return 0;
}

/* Does `at` read "<digits>." with one of the chosen numbers? */
static bool is_chosen_layer(const struct adapter_config *config, const char *at, bool *is_number)
{
    size_t digits = strspn(at, "0123456789");
    int64_t number = 0;

    *is_number = digits && at[digits] == '.';
    if (!*is_number)
        return false;
    for (size_t i = 0; i < digits && number <= INT32_MAX; i++)
        number = number * 10 + (at[i] - '0');
    for (size_t i = 0; i < config->layers_to_transform_count; i++) {
        if (config->layers_to_transform[i] == number)
            return true;
    }
    return false;
}

/* The first number behind "<anything>.<component>.": re.match(r".*?\.[^.]*\.(\d+)\.", name). */
static bool layer_of_any(const struct adapter_config *config, const char *name)
{
    const char *dot = strchr(name, '.');

    while (dot) {
        const char *next = strchr(dot + 1, '.');
        bool is_number;
        bool chosen = next && is_chosen_layer(config, next + 1, &is_number);

        if (next && is_number)
            return chosen;
        dot = next;
    }
    return false;
}

/* re.match(r"(?:^|.*?\.)PATTERN\.(\d+)\.", name); *found: there is such a number. */
static bool layer_of_pattern(const struct adapter_config *config, const char *pattern,
                             const char *name, bool *found)
{
    size_t bytes = strlen(pattern);
    const char *at = name;

    while (at) {
        if (strncmp(at, pattern, bytes) == 0 && at[bytes] == '.') {
            bool chosen = is_chosen_layer(config, at + bytes + 1, found);

            if (*found)
                return chosen;
        }
        at = strchr(at, '.');
        if (at)
            at++;
    }
    return false;
}

static bool is_in_layers(const struct adapter_config *config, const char *name)
{
    if (!config->layers_pattern_count)
        return layer_of_any(config, name);
    for (size_t i = 0; i < config->layers_pattern_count; i++) {
        bool found = false;
        bool chosen = layer_of_pattern(config, config->layers_pattern[i], name, &found);

        if (found)
            return chosen;
    }
    return false;
}

/* Without this, "." and \d would have to know Python's line ends and Unicode digits. */
static bool is_printable_ascii(const char *name)
{
    for (; *name; name++) {
        if (*name < 0x20 || *name > 0x7e)
            return false;
    }
    return true;
}

/* Does `path` begin with `name`, whose dots stand for any character? */
static bool begins_with(const char *path, const char *name)
{
    while (*name && *path && (*name == *path || *name == '.')) {
        name++;
        path++;
    }
    return *name == '\0' && (*path == '\0' || *path == '.');
}

/* re.match(r"(^|.*\.)NAME($|\..*)", path), as PEFT does it without escaping the name. */
static bool lies_between_dots(const char *path, const char *name)
{
    while (path) {
        if (begins_with(path, name))
            return true;
        path = strchr(path, '.');
        if (path)
            path++;
    }
    return false;
}

/* PEFT puts nothing on a module that it saves whole, nor inside one. */
static bool is_inside_saved(const struct adapter_config *config, const char *name)
{
    for (size_t i = 0; i < config->modules_to_save.name_count; i++) {
        if (lies_between_dots(name, config->modules_to_save.names[i]))
            return true;
    }
    return false;
}

int adapter_config_targets(const struct adapter_config *config, const char *name, bool *targeted,
                           struct error *err)
{
    bool matched;
    bool whole;
    char quoted[QUOTED_BYTES];
    int status;

    *targeted = false;
    if (config->type != ADAPTER_LORA || is_inside_saved(config, name))
        return 0;
    status = matcher_match(&config->exclude_modules, name, &matched, &whole, err);
    if (status || matched)
        return status;
    if (!config->target_modules.present) {
        *targeted = !config->target_parameters_count;
        return 0;
    }
    status = matcher_match(&config->target_modules, name, &matched, &whole, err);
    if (status || !matched)
        return status;
    /* A name that stands whole in the list is not asked for its layer (PEFT does not either). */
    if (whole || !config->layers_to_transform_count) {
        *targeted = true;
        return 0;
    }
    if (!is_printable_ascii(name))
        return error_set(err, ERR_FORMAT,
                         "the name '%s' is not plain ASCII, which 'layers_to_transform' needs",
                         error_quote(quoted, sizeof(quoted), name, strlen(name)));
    *targeted = is_in_layers(config, name);
    return 0;
}

static bool ends_with(const char *path, size_t bytes, const char *name)
{
    size_t name_bytes = strlen(name);

    return name_bytes <= bytes && memcmp(path + bytes - name_bytes, name, name_bytes) == 0;
}

bool adapter_config_saves(const struct adapter_config *config, const char *name)
{
    for (size_t bytes = strcspn(name, ".");; bytes += 1 + strcspn(name + bytes + 1, ".")) {
        for (size_t i = 0; i < config->modules_to_save.name_count; i++) {
            if (ends_with(name, bytes, config->modules_to_save.names[i]))
                return true;
        }
        if (name[bytes] == '\0')
            return false;
    }
}

const struct token_rows *adapter_config_tokens(const struct adapter_config *config,
                                               const char *name)
{
    const struct token_rows *unnamed = NULL;

    for (size_t i = 0; i < config->token_rows_count; i++) {
        if (!config->token_rows[i].module)
            unnamed = &config->token_rows[i];
        else if (ends_with(name, strlen(name), config->token_rows[i].module))
            return &config->token_rows[i];
    }
    return unnamed;
}

static bool contains_any(const struct module_matcher *matcher, const char *name)
{
    for (size_t i = 0; i < matcher->name_count; i++) {
        if (strstr(name, matcher->names[i]))
            return true;
    }
    return false;
}

int adapter_config_blocks(const struct adapter_config *config, const char *name, uint32_t *blocks_a,
                          uint32_t *blocks_b, struct error *err)
{
    bool in_a = contains_any(&config->bdlora_a, name);
    bool in_b = contains_any(&config->bdlora_b, name);
    char quoted[QUOTED_BYTES];

    if (in_a && in_b)
        return error_set(err, ERR_FORMAT,
                         "'use_bdlora' names module '%s' both in 'target_modules_bd_a' and in "
                         "'target_modules_bd_b', which PEFT does not allow",
                         error_quote(quoted, sizeof(quoted), name, strlen(name)));
    *blocks_a = in_a ? config->bdlora_blocks : 1;
    *blocks_b = in_b ? config->bdlora_blocks : 1;
    return 0;
}
