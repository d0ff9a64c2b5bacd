#include "scheme/config.h"

#include "base/json.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

/* Sizes of groups and blocks; a matrix has far fewer rows. */
#define SIZE_MAX_ALLOWED 2147483647.0

static const cJSON *get(const cJSON *object, const char *name)
{
    const cJSON *field = cJSON_GetObjectItemCaseSensitive(object, name);

    return field && !cJSON_IsNull(field) ? field : NULL;
}

static int refuse(const char *name, const char *what, struct error *err)
{
    return error_set(err, ERR_FORMAT, "the quantisation's '%s' %s", name, what);
}

/* A positive integer; -1 (all columns) and null leave *out as it is. */
static int read_size(uint64_t *out, const cJSON *field, const char *name, struct error *err)
{
    double value;

    if (!field)
        return 0;
    if (!cJSON_IsNumber(field))
        return refuse(name, "is not a number", err);
    value = field->valuedouble;
    if (value == -1.0)
        return 0;
    if (!(value >= 1.0 && value <= SIZE_MAX_ALLOWED) || value != (double)(uint64_t)value)
        return refuse(name, "is not an integer from 1 to 2147483647, or -1", err);
    *out = (uint64_t)value;
    return 0;
}

/* Cut where it is too long: such a word is none that is known. */
static int read_word(char *out, size_t out_bytes, const cJSON *field, const char *name,
                     struct error *err)
{
    if (!field)
        return 0;
    if (!cJSON_IsString(field))
        return refuse(name, "is not a string", err);
    snprintf(out, out_bytes, "%s", field->valuestring);
    return 0;
}

/* [rows, columns], or "128x128" as older files have it */
static int read_block(struct scheme_group *group, const cJSON *field, const char *name,
                      struct error *err)
{
    unsigned rows, cols;
    char more;

    if (!field)
        return 0;
    if (cJSON_IsString(field) && strlen(field->valuestring) < 16 &&
        sscanf(field->valuestring, "%5ux%5u%c", &rows, &cols, &more) == 2 && rows && cols) {
        group->block_rows = rows;
        group->block_cols = cols;
        return 0;
    }
    if (!cJSON_IsArray(field) || cJSON_GetArraySize(field) != 2)
        return refuse(name, "is not a list of two sizes", err);
    if (read_size(&group->block_rows, cJSON_GetArrayItem(field, 0), name, err) ||
        read_size(&group->block_cols, cJSON_GetArrayItem(field, 1), name, err))
        return err->code;
    if (group->block_rows == 0 || group->block_cols == 0)
        return refuse(name, "is not a list of two sizes", err);
    return 0;
}

static int add_group(struct scheme_config *config, const struct scheme_group *group,
                     struct error *err)
{
    for (size_t i = 0; i < config->group_count; i++) {
        if (memcmp(&config->groups[i], group, sizeof(*group)) == 0)
            return 0;
    }
    if (config->group_count == SCHEME_GROUPS_MAX)
        return refuse("config_groups", "has more than 32 different kinds of groups", err);
    config->groups[config->group_count++] = *group;
    return 0;
}

/* What bits and groups are called where the weights are described, in any of the methods. */
static int read_group(struct scheme_config *config, const cJSON *object, struct error *err)
{
    const char *block = get(object, "weight_block_size") ? "weight_block_size" : "block_structure";
    const char *bits = get(object, "num_bits") ? "num_bits" : "bits";
    struct scheme_group group = { 0 };

    if (read_size(&group.bits, get(object, bits), bits, err) ||
        read_size(&group.group_size, get(object, "group_size"), "group_size", err) ||
        read_block(&group, get(object, block), block, err))
        return err->code;
    return add_group(config, &group, err);
}

static int read_groups(struct scheme_config *config, const cJSON *quantization, struct error *err)
{
    const cJSON *groups = get(quantization, "config_groups");
    const cJSON *group;

    if (!groups)
        return read_group(config, quantization, err);
    if (!cJSON_IsObject(groups))
        return refuse("config_groups", "is not an object", err);
    cJSON_ArrayForEach(group, groups)
    {
        const cJSON *weights = get(group, "weights");

        if (!cJSON_IsObject(group) || (weights && !cJSON_IsObject(weights)))
            return refuse("config_groups", "has a group that is not an object", err);
        if (weights && read_group(config, weights, err))
            return err->code;
    }
    return 0;
}

/* MLX: as much for all modules, and for some of them again under their names. */
static int read_mlx(struct scheme_config *config, const cJSON *quantization, struct error *err)
{
    const cJSON *module;

    config->quantised = true;
    if (read_group(config, quantization, err))
        return err->code;
    cJSON_ArrayForEach(module, quantization)
    {
        if (cJSON_IsObject(module) && read_group(config, module, err))
            return err->code;
    }
    return 0;
}

static int read_quantization(struct scheme_config *config, const cJSON *quantization,
                             struct error *err)
{
    static const char *const formats[] = { "checkpoint_format", "format", "version" };
    const cJSON *transforms = get(quantization, "transform_config");
    const cJSON *sparsity = get(quantization, "sparsity_config");

    config->quantised = true;
    if (read_word(config->method, sizeof(config->method), get(quantization, "quant_method"),
                  "quant_method", err))
        return err->code;
    /* compressed-tensors has a version of the package besides the format */
    for (size_t i = 0; i < sizeof(formats) / sizeof(*formats) && !config->format[0]; i++) {
        const cJSON *format = get(quantization, formats[i]);

        if (cJSON_IsString(format) &&
            read_word(config->format, sizeof(config->format), format, formats[i], err))
            return err->code;
    }
    config->transforms = cJSON_GetArraySize(get(transforms, "config_groups")) > 0;
    if (read_word(config->sparsity, sizeof(config->sparsity), get(sparsity, "format"), "format",
                  err))
        return err->code;
    return read_groups(config, quantization, err);
}

/* In this object or, where it is silent, in the first object inside it that says it. */
static const cJSON *find_object(const cJSON *object, const char *name)
{
    const cJSON *found = get(object, name);
    const cJSON *child;

    if (found || !cJSON_IsObject(object))
        return found;
    cJSON_ArrayForEach(child, object)
    {
        if (cJSON_IsObject(child) && (found = find_object(child, name)) != NULL)
            return found;
    }
    return NULL;
}

static bool dtype_of(enum dtype *out, const cJSON *field)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } names[] = { { "bfloat16", DTYPE_BF16 }, { "float16", DTYPE_F16 }, { "float32", DTYPE_F32 } };
    const char *name = cJSON_IsString(field) ? field->valuestring : "";

    if (strncmp(name, "torch.", 6) == 0)
        name += 6;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if (strcmp(name, names[i].name) == 0) {
            *out = names[i].dtype;
            return true;
        }
    }
    return false;
}

static bool find_dtype(enum dtype *out, const cJSON *object)
{
    const cJSON *child;

    if (dtype_of(out, get(object, "dtype")) || dtype_of(out, get(object, "torch_dtype")))
        return true;
    cJSON_ArrayForEach(child, object)
    {
        if (cJSON_IsObject(child) && strcmp(child->string, "quantization_config") != 0 &&
            find_dtype(out, child))
            return true;
    }
    return false;
}

static void read_model_type(char *out, size_t out_bytes, const cJSON *root)
{
    const cJSON *type = get(root, "model_type");

    if (cJSON_IsString(type) && strlen(type->valuestring) < out_bytes)
        memcpy(out, type->valuestring, strlen(type->valuestring) + 1);
}

static int parse(cJSON **out, const char *json, size_t bytes, const char *what, struct error *err)
{
    if (json_parse(out, json, bytes, JSON_PYTHON, err)) {
        error_prefix(err, "%s", what);
        return err->code;
    }
    if (cJSON_IsObject(*out))
        return 0;
    cJSON_Delete(*out);
    *out = NULL;
    return error_set(err, ERR_FORMAT, "%s is not a JSON object", what);
}

static int read_config(struct scheme_config *config, const char *json, size_t bytes,
                       struct error *err)
{
    const cJSON *quantization, *mlx;
    cJSON *root = NULL;
    int status = parse(&root, json, bytes, "the base's config.json", err);

    if (status)
        return status;
    quantization = find_object(root, "quantization_config");
    if (!quantization)
        quantization = find_object(root, "compression_config");
    mlx = get(root, "quantization");
    config->has_dtype = find_dtype(&config->dtype, root);
    read_model_type(config->model_type, sizeof(config->model_type), root);
    if (quantization && !cJSON_IsObject(quantization))
        status = error_set(err, ERR_FORMAT, "the quantization_config is not a JSON object");
    else if (quantization)
        status = read_quantization(config, quantization, err);
    if (!status && cJSON_IsObject(mlx))
        status = read_mlx(config, mlx, err);
    cJSON_Delete(root);
    if (status)
        error_prefix(err, "the base's config.json");
    return status;
}

static int read_extra(struct scheme_config *config, const char *json, size_t bytes,
                      struct error *err)
{
    cJSON *root = NULL;
    const cJSON *quantization;
    int status = parse(&root, json, bytes, "the base's hf_quant_config.json", err);

    if (status)
        return status;
    config->quantised = true;
    if (!config->method[0])
        snprintf(config->method, sizeof(config->method), "modelopt");
    quantization = get(root, "quantization");
    if (cJSON_IsObject(quantization))
        status = read_group(config, quantization, err);
    cJSON_Delete(root);
    if (status)
        error_prefix(err, "the base's hf_quant_config.json");
    return status;
}

int scheme_config_read(struct scheme_config *out, const char *config, size_t config_bytes,
                       const char *extra, size_t extra_bytes, struct error *err)
{
    struct scheme_config read = { 0 };

    if (config && read_config(&read, config, config_bytes, err))
        return err->code;
    if (extra && read_extra(&read, extra, extra_bytes, err))
        return err->code;
    *out = read;
    return 0;
}
