#include "adapter/config_fields.h"
#include "adapter/matcher.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_MAX UINT32_MAX

static int read_bias(struct adapter_config *out, const cJSON *root, struct error *err)
{
    static const struct {
        const char *word;
        enum adapter_bias bias;
    } words[] = { { "none", ADAPTER_BIAS_NONE },
                  { "all", ADAPTER_BIAS_ALL },
                  { "lora_only", ADAPTER_BIAS_LORA_ONLY } };
    const cJSON *field = config_get(root, "bias");

    if (!field)
        return 0;
    for (size_t i = 0; cJSON_IsString(field) && i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(field->valuestring, words[i].word) == 0) {
            out->bias = words[i].bias;
            return 0;
        }
    }
    return config_refuse(field, "it must be \"none\", \"all\" or \"lora_only\"", err);
}

/* PeftModelFor...'s constructors train these without being told; saved configurations of old
 * releases may not list them. */
static int add_heads_of_task(struct adapter_config *out, const cJSON *root, struct error *err)
{
    static const struct {
        const char *task;
        const char *name;
    } heads[] = {
        { "SEQ_CLS", "classifier" },      { "SEQ_CLS", "score" },
        { "TOKEN_CLS", "classifier" },    { "TOKEN_CLS", "score" },
        { "QUESTION_ANS", "qa_outputs" },
    };
    const cJSON *task = config_get(root, "task_type");

    if (!cJSON_IsString(task))
        return 0;
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        if (strcmp(task->valuestring, heads[i].task) == 0 &&
            matcher_add_name(&out->modules_to_save, heads[i].name, err))
            return err->code;
    }
    return 0;
}

static int compare_rows(const void *left, const void *right)
{
    const uint64_t *l = left;
    const uint64_t *r = right;

    return (*l > *r) - (*l < *r);
}

/* PEFT writes the rows one after the other: which of two for one token counts is left open. */
static int refuse_repeated(const struct token_rows *tokens, struct error *err)
{
    uint64_t *sorted = malloc(tokens->count * sizeof(*sorted));
    int status = 0;

    if (!sorted)
        return error_no_memory(err, "token indices");
    memcpy(sorted, tokens->rows, tokens->count * sizeof(*sorted));
    qsort(sorted, tokens->count, sizeof(*sorted), compare_rows);
    for (size_t i = 1; i < tokens->count && !status; i++) {
        if (sorted[i] == sorted[i - 1])
            status = error_set(err, ERR_FORMAT,
                               "token %" PRIu64 " is listed twice, and PEFT leaves open which of "
                               "its rows counts",
                               sorted[i]);
    }
    free(sorted);
    return status;
}

/* Append the rows of `list` for `module`; an empty list trains nothing and adds nothing. */
static int add_tokens(struct adapter_config *out, const char *module, const cJSON *list,
                      struct error *err)
{
    struct token_rows *tokens = &out->token_rows[out->token_rows_count];
    size_t count = (size_t)cJSON_GetArraySize(list);
    const cJSON *item;

    if (!cJSON_IsArray(list))
        return config_refuse(list, "it must be a list of whole numbers", err);
    if (!count)
        return 0;
    out->token_rows_count++;
    tokens->rows = calloc(count, sizeof(*tokens->rows));
    tokens->module = module ? strdup(module) : NULL;
    if (!tokens->rows || (module && !tokens->module))
        return error_no_memory(err, "token indices");
    cJSON_ArrayForEach(item, list)
    {
        if (!config_is_integer(item, 0, TOKEN_MAX))
            return config_refuse(list, "a token is a whole number from 0 to 4294967295", err);
        tokens->rows[tokens->count++] = (uint64_t)item->valuedouble;
    }
    if (refuse_repeated(tokens, err)) {
        error_prefix(err, "'%s'", list->string);
        return err->code;
    }
    return 0;
}

static int read_token_indices(struct adapter_config *out, const cJSON *root, struct error *err)
{
    const cJSON *field = config_get(root, "trainable_token_indices");
    const cJSON *item;
    bool alone = cJSON_IsArray(field);

    if (!field)
        return 0;
    if (!alone && !cJSON_IsObject(field))
        return config_refuse(field, "it must be a list, or an object of lists", err);
    if (!alone && cJSON_GetArraySize(field) > MATCHER_LIST_MAX)
        return config_refuse(field, "it has more than 4096 names", err);
    out->token_rows = calloc(alone ? 1 : (size_t)cJSON_GetArraySize(field) + 1,
                             sizeof(*out->token_rows));
    if (!out->token_rows)
        return error_no_memory(err, "token indices");
    if (alone)
        return add_tokens(out, NULL, field, err);
    cJSON_ArrayForEach(item, field)
    {
        int status = 0;

        if (item->string[0] == '\0')
            status = config_refuse(field, "a name in it is empty", err);
        else if (matcher_has_name(&out->modules_to_save, item->string))
            status = config_refuse(item,
                                   "PEFT does not allow a module both here and in "
                                   "'modules_to_save'",
                                   err);
        if (!status)
            status = add_tokens(out, item->string, item, err);
        if (status) {
            error_prefix(err, "'trainable_token_indices'");
            return status;
        }
    }
    return 0;
}

int config_read_saved(struct adapter_config *out, const cJSON *root, struct error *err)
{
    if (read_bias(out, root, err) ||
        matcher_read_list(&out->modules_to_save, root, "modules_to_save", err) ||
        add_heads_of_task(out, root, err))
        return err->code;
    return read_token_indices(out, root, err);
}

int config_read_tokens(struct adapter_config *out, const cJSON *root, struct error *err)
{
    const cJSON *field = config_get(root, "token_indices");

    if (!field || (cJSON_IsArray(field) && !field->child))
        return error_set(err, ERR_FORMAT, "'token_indices' lists no token: nothing was trained");
    out->token_rows = calloc(1, sizeof(*out->token_rows));
    if (!out->token_rows)
        return error_no_memory(err, "token indices");
    return add_tokens(out, NULL, field, err);
}
