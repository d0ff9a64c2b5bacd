#include "adapter/config_fields.h"

#include <math.h>
#include <string.h>

const cJSON *config_get(const cJSON *root, const char *name)
{
    const cJSON *field = cJSON_GetObjectItemCaseSensitive(root, name);

    return field && !cJSON_IsNull(field) ? field : NULL;
}

int config_read_flag(bool *out, const cJSON *root, const char *name, struct error *err)
{
    const cJSON *field = config_get(root, name);

    if (!field)
        return 0;
    if (!cJSON_IsBool(field))
        return config_refuse(field, "it must be true or false", err);
    *out = cJSON_IsTrue(field);
    return 0;
}

int config_read_string(char **out, const cJSON *root, const char *name, struct error *err)
{
    const cJSON *field = config_get(root, name);

    if (!field)
        return 0;
    if (!cJSON_IsString(field))
        return config_refuse(field, "it must be a string or null", err);
    if (field->valuestring[0] == '\0')
        return 0;
    *out = strdup(field->valuestring);
    return *out ? 0 : error_no_memory(err, "a configuration");
}

bool config_is_integer(const cJSON *value, double low, double high)
{
    return cJSON_IsNumber(value) && value->valuedouble >= low && value->valuedouble <= high &&
           value->valuedouble == floor(value->valuedouble);
}

int config_refuse(const cJSON *field, const char *why, struct error *err)
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
