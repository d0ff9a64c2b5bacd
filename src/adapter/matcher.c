#include "adapter/matcher.h"

#include "adapter/config_fields.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int compare_names(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

int matcher_read_names(char ***out, size_t *out_count, const struct cJSON *field, struct error *err)
{
    size_t count = cJSON_IsString(field) ? 1 : (size_t)cJSON_GetArraySize(field);
    const cJSON *item = cJSON_IsString(field) ? field : field->child;

    if (!cJSON_IsString(field) && !cJSON_IsArray(field))
        return config_refuse(field, "it must be a string or a list of strings", err);
    *out = calloc(count + 1, sizeof(**out));
    if (!*out)
        return error_no_memory(err, "a list of names");
    for (*out_count = 0; *out_count < count; item = item->next) {
        if (!cJSON_IsString(item))
            return config_refuse(field, "it must be a string or a list of strings", err);
        (*out)[*out_count] = strdup(item->valuestring);
        if (!(*out)[*out_count])
            return error_no_memory(err, "a list of names");
        (*out_count)++;
    }
    return 0;
}

int matcher_read(struct module_matcher *out, const struct cJSON *root, const char *name,
                 bool admits_all, struct error *err)
{
    const cJSON *field = config_get(root, name);
    int status;

    if (!field)
        return 0;
    out->present = true;
    if (!cJSON_IsString(field)) {
        status = matcher_read_names(&out->names, &out->name_count, field, err);
        if (!status)
            qsort(out->names, out->name_count, sizeof(*out->names), compare_names);
        return status;
    }
    /* PEFT compares this word in lower case (_maybe_include_all_linear_layers). */
    if (admits_all && (strcasecmp(field->valuestring, "all-linear") == 0 ||
                       strcasecmp(field->valuestring, "all_linear") == 0)) {
        out->all = true;
        return 0;
    }
    status = pattern_compile(&out->pattern, field->valuestring, strlen(field->valuestring),
                             PATTERN_FULLMATCH, err);
    if (status)
        error_prefix(err, "'%s'", name);
    return status;
}

int matcher_read_array(char ***out, size_t *out_count, const struct cJSON *field, struct error *err)
{
    const cJSON *item;
    bool fits = cJSON_IsArray(field);

    cJSON_ArrayForEach(item, field)
        fits = fits && cJSON_IsString(item) && item->valuestring[0] != '\0';
    if (!fits)
        return config_refuse(field, "it must be a list of strings, none of them empty", err);
    return matcher_read_names(out, out_count, field, err);
}

int matcher_read_list(struct module_matcher *out, const struct cJSON *root, const char *name,
                      struct error *err)
{
    const cJSON *field = config_get(root, name);

    if (!field)
        return 0;
    if (cJSON_GetArraySize(field) > MATCHER_LIST_MAX)
        return config_refuse(field, "it has more than 4096 names", err);
    out->present = true;
    return matcher_read_array(&out->names, &out->name_count, field, err);
}

int matcher_add_name(struct module_matcher *matcher, const char *name, struct error *err)
{
    char **names;

    if (matcher_has_name(matcher, name))
        return 0;
    names = realloc(matcher->names, (matcher->name_count + 1) * sizeof(*names));
    if (!names)
        return error_no_memory(err, "a list of names");
    matcher->names = names;
    names[matcher->name_count] = strdup(name);
    if (!names[matcher->name_count])
        return error_no_memory(err, "a list of names");
    matcher->name_count++;
    matcher->present = true;
    return 0;
}

bool matcher_has_name(const struct module_matcher *matcher, const char *name)
{
    for (size_t i = 0; i < matcher->name_count; i++) {
        if (strcmp(matcher->names[i], name) == 0)
            return true;
    }
    return false;
}

void matcher_release(struct module_matcher *matcher)
{
    for (size_t i = 0; i < matcher->name_count; i++)
        free(matcher->names[i]);
    free(matcher->names);
    pattern_free(matcher->pattern);
    *matcher = (struct module_matcher){ 0 };
}

int matcher_match(const struct module_matcher *matcher, const char *name, bool *matched,
                  bool *whole, struct error *err)
{
    const char *end = name;

    *matched = matcher->all;
    *whole = false;
    if (matcher->pattern)
        return pattern_match(matcher->pattern, name, strlen(name), matched, err);
    /* The names are sorted: look each end of `name` up instead of trying each name. */
    while (end && matcher->name_count) {
        if (bsearch(&end, matcher->names, matcher->name_count, sizeof(*matcher->names),
                    compare_names)) {
            *matched = true;
            *whole = end == name;
            return 0;
        }
        end = strchr(end, '.');
        if (end)
            end++;
    }
    return 0;
}
