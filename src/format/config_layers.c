#include "base/json.h"
#include "format/config_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Lists with one element for each layer. */
static const char *const list_keys[] = {
    "activation_sparsity_pattern",
    "attention_layers",
    "attention_window",
    "attn_layers",
    "attn_type_list",
    "block_configs",
    "ffn_multipliers",
    "hybrid_layer_pattern",
    "intermediate_size",
    "layer_rope_theta",
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "moe_intermediate_size",
    "moe_layer_freq",
    "moe_topk",
    "no_rope_layers",
    "num_attention_heads",
    "num_attention_heads_per_layer",
    "num_experts",
    "num_key_value_heads",
    "num_key_value_heads_per_layer",
    "num_kv_heads",
    "num_query_heads",
    "num_shared_expert",
    "sliding_window",
    "sliding_window_pattern",
};

/* Lists of the numbers of the layers that have something. */
static const char *const number_keys[] = {
    "attn_layer_indices",  "cross_attention_layers", "full_attn_idxs",
    "local_layer_ids",     "mlp_only_layers",        "moe_layers",
    "rope_scaling_layers",
};

struct item {
    const char *begin;
    size_t bytes;
};

struct list {
    const char *begin; /* behind the bracket */
    const char *end;   /* the closing bracket */
    struct item *items;
    size_t count;
};

/*
 * Count the elements of the array, and put them into list->items unless that is NULL.  The reader
 * moves on behind the array.
 */
static int walk(struct list *list, struct json_reader *reader, const struct json_token *array,
                struct error *err)
{
    struct json_token token;

    list->begin = array->begin + 1;
    list->count = 0;
    for (;;) {
        if (json_next(reader, &token, err))
            return err->code;
        if (token.kind == JSON_ARRAY_END && token.depth == array->depth)
            break;
        if (json_skip(reader, &token, err))
            return err->code;
        if (list->items)
            list->items[list->count] = (struct item){
                token.begin, (size_t)(reader->text + reader->offset - token.begin)
            };
        list->count++;
    }
    list->end = token.begin;
    return 0;
}

/* An element of the new list, spaced as those of the old one are. */
static int put_item(struct config_editor *editor, const struct list *list, bool first,
                    struct item item, struct error *err)
{
    const char *first_end = list->items[0].begin + list->items[0].bytes;

    if (!first && list->count > 1)
        text_add(editor->out, first_end, (size_t)(list->items[1].begin - first_end));
    else if (!first)
        text_adds(editor->out, ", ");
    text_add(editor->out, item.begin, item.bytes);
    if (editor->out->bytes > JSON_DOCUMENT_BYTES_MAX)
        return error_set(err, ERR_FORMAT,
                         "with the lists of %" PRIu64 " layers config.json would have more than "
                         "%u bytes",
                         editor->edits->base_layer_count, JSON_DOCUMENT_BYTES_MAX);
    return 0;
}

/* Element j of the new list is element base_layers[j]. */
static int put_picked(struct config_editor *editor, const struct list *list, struct error *err)
{
    const struct config_edits *edits = editor->edits;

    for (uint64_t j = 0; j < edits->base_layer_count; j++) {
        if (put_item(editor, list, j == 0, list->items[edits->base_layers[j]], err))
            return err->code;
    }
    return 0;
}

static int compare_numbers(const void *x, const void *y)
{
    uint64_t left = *(const uint64_t *)x;
    uint64_t right = *(const uint64_t *)y;

    return left < right ? -1 : left > right;
}

/* Number j is in the new list if base_layers[j] is in the old one. */
static int put_numbers(struct config_editor *editor, const struct list *list, struct error *err)
{
    const struct config_edits *edits = editor->edits;
    uint64_t *listed = calloc(list->count, sizeof(*listed));
    size_t count = 0;
    bool first = true;
    char text[24];
    int status = 0;

    if (!listed)
        return error_no_memory(err, "config.json");
    for (size_t i = 0; i < list->count; i++) {
        struct json_token token = { .kind = JSON_NUMBER,
                                    .begin = list->items[i].begin,
                                    .bytes = list->items[i].bytes };

        count += json_number_u64(&token, &listed[count]);
    }
    qsort(listed, count, sizeof(*listed), compare_numbers);
    for (uint64_t j = 0; !status && j < edits->base_layer_count; j++) {
        if (!bsearch(&edits->base_layers[j], listed, count, sizeof(*listed), compare_numbers))
            continue;
        snprintf(text, sizeof(text), "%" PRIu64, j);
        status = put_item(editor, list, first, (struct item){ text, strlen(text) }, err);
        first = false;
    }
    free(listed);
    return status;
}

/* `per_layer`: a list with an element for each layer, else one of numbers of layers. */
static int edit_list(struct config_editor *editor, struct json_reader *reader,
                     const struct json_token *array, bool per_layer, struct error *err)
{
    struct json_reader ahead = *reader; /* a copy: looking ahead moves nothing */
    struct list list = { 0 };
    int status;

    if (walk(&list, &ahead, array, err))
        return err->code;
    if (list.count == 0 || (per_layer && list.count != editor->survey.facts.num_hidden_layers))
        return 0;
    list.items = calloc(list.count, sizeof(*list.items));
    if (!list.items)
        return error_no_memory(err, "config.json");
    status = walk(&list, reader, array, err);
    if (!status) {
        const struct item *last = &list.items[list.count - 1];

        config_copy(editor, list.items[0].begin, last->begin + last->bytes);
        status = per_layer ? put_picked(editor, &list, err) : put_numbers(editor, &list, err);
    }
    free(list.items);
    return status;
}

/* A string with one letter for each layer.  Letter j of the new string is letter base_layers[j]. */
static void edit_string(struct config_editor *editor, const struct json_token *value)
{
    const struct config_edits *edits = editor->edits;
    const char *letters = value->begin + 1;

    if (value->escaped || value->bytes - 2 != editor->survey.facts.num_hidden_layers)
        return;
    for (size_t i = 0; i < value->bytes - 2; i++) {
        if (text_utf8_length(letters + i, 1) != 1)
            return;
    }
    config_copy(editor, letters, letters + value->bytes - 2);
    for (uint64_t j = 0; j < edits->base_layer_count; j++)
        text_add(editor->out, letters + edits->base_layers[j], 1);
}

int config_edit_layers(struct config_editor *editor, struct json_reader *reader,
                       const struct json_token *key, const struct json_token *value,
                       struct error *err)
{
    bool per_layer = config_key_among(key, list_keys, COUNT_OF(list_keys));
    char text[24];
    uint64_t number;

    if (value->kind == JSON_ARRAY_BEGIN &&
        (per_layer || config_key_among(key, number_keys, COUNT_OF(number_keys))))
        return edit_list(editor, reader, value, per_layer, err);
    if (value->kind == JSON_STRING && config_key_is(key, "hybrid_override_pattern"))
        edit_string(editor, value);
    /* The layers from max_window_layers on see a window: none, if it is their number. */
    if ((config_key_of_layers(key) || config_key_is(key, "max_window_layers")) &&
        json_number_u64(value, &number) && number == editor->survey.facts.num_hidden_layers) {
        snprintf(text, sizeof(text), "%" PRIu64, editor->edits->base_layer_count);
        config_replace(editor, value, text);
    }
    return 0;
}
