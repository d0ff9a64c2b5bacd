#include "scheme/bnb_state.h"

#include "base/json.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <string.h>

#define INTEGER_MAX                                                                                \
    9007199254740992.0 /* 2^53: up to here a double is the integer that was written */

static int refuse(const char *name, const char *what, struct error *err)
{
    return error_set(err, ERR_FORMAT, "'%s' %s", name, what);
}

static const cJSON *get(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static bool integer_of(uint64_t *out, const cJSON *field)
{
    double value = cJSON_IsNumber(field) ? field->valuedouble : 0.0;

    if (!(value >= 1.0 && value <= INTEGER_MAX) || value != (double)(uint64_t)value)
        return false;
    *out = (uint64_t)value;
    return true;
}

static bool is_word(const cJSON *field, const char *word)
{
    return cJSON_IsString(field) && strcmp(field->valuestring, word) == 0;
}

/* Fields that are not known may change what is meant; bitsandbytes refuses them too. */
static int check_names(const cJSON *object, struct error *err)
{
    static const char *const known[] = { "quant_type",      "blocksize",    "dtype",
                                         "shape",           "nested_dtype", "nested_offset",
                                         "nested_blocksize" };
    const cJSON *field;
    char quoted[QUOTED_BYTES];

    cJSON_ArrayForEach(field, object)
    {
        bool found = false;

        for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
            found = found || strcmp(field->string, known[i]) == 0;
        if (!found)
            return refuse(error_quote(quoted, sizeof(quoted), field->string, strlen(field->string)),
                          "is not a known field", err);
    }
    return 0;
}

static int read_shape(struct bnb_state *state, const cJSON *field, struct error *err)
{
    const cJSON *dimension;

    cJSON_ArrayForEach(dimension, field)
    {
        if (state->shape_count == ST_RANK_MAX)
            return refuse("shape", "has too many dimensions", err);
        if (!integer_of(&state->shape[state->shape_count++], dimension))
            return refuse("shape", "has a dimension that is not a positive integer", err);
    }
    if (!cJSON_IsArray(field) || state->shape_count == 0)
        return refuse("shape", "must be a list of dimensions", err);
    return 0;
}

static int read_dtype(struct bnb_state *state, const cJSON *field, struct error *err)
{
    if (is_word(field, "bfloat16"))
        state->dtype = DTYPE_BF16;
    else if (is_word(field, "float16"))
        state->dtype = DTYPE_F16;
    else if (is_word(field, "float32"))
        state->dtype = DTYPE_F32;
    else
        return refuse("dtype", "must be \"bfloat16\", \"float16\" or \"float32\"", err);
    return 0;
}

static int read_nested(struct bnb_state *state, const cJSON *object, struct error *err)
{
    const cJSON *offset = get(object, "nested_offset");
    const cJSON *dtype = get(object, "nested_dtype");
    uint64_t blocksize;

    state->nested = offset || dtype || get(object, "nested_blocksize");
    if (!state->nested)
        return 0;
    if (!integer_of(&blocksize, get(object, "nested_blocksize")) || blocksize != 256)
        return refuse("nested_blocksize", "must be 256", err);
    if (is_word(dtype, "bfloat16"))
        return refuse("nested_dtype",
                      "is \"bfloat16\": the model was saved after a forward pass on a processor, "
                      "which changes its scales; save it again before any forward pass",
                      err);
    if (!is_word(dtype, "float32"))
        return refuse("nested_dtype", "must be \"float32\"", err);
    if (!cJSON_IsNumber(offset))
        return refuse("nested_offset", "must be a number", err);
    state->nested_offset = (float)offset->valuedouble;
    if (!isfinite(state->nested_offset))
        return refuse("nested_offset", "must be a finite number of fp32", err);
    return 0;
}

static int read_object(struct bnb_state *state, const cJSON *object, struct error *err)
{
    const cJSON *type = get(object, "quant_type");

    if (!cJSON_IsObject(object))
        return error_set(err, ERR_FORMAT, "it is not a JSON object");
    if (check_names(object, err))
        return err->code;
    state->fp4 = is_word(type, "fp4");
    if (!state->fp4 && !is_word(type, "nf4"))
        return refuse("quant_type", "must be \"nf4\" or \"fp4\"", err);
    if (!integer_of(&state->blocksize, get(object, "blocksize")))
        return refuse("blocksize", "must be a positive integer", err);
    if (read_dtype(state, get(object, "dtype"), err) ||
        read_shape(state, get(object, "shape"), err))
        return err->code;
    return read_nested(state, object, err);
}

int bnb_state_read(struct bnb_state *out, const char *json, size_t bytes, struct error *err)
{
    struct bnb_state state = { 0 };
    cJSON *object = NULL;
    int status = json_parse(&object, json, bytes, JSON_PYTHON, err);

    if (!status)
        status = read_object(&state, object, err);
    cJSON_Delete(object);
    if (!status)
        *out = state;
    return status;
}
