#include "adapter/edits_find.h"
#include "adapter/tied.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What a saved tensor wants of the one it replaces. */
struct saved_shape {
    const struct st_header *header;
    const struct st_tensor *tensor;
    size_t free_dims; /* 1: but for its rows, the vocabulary or the classes, it must agree; or 0 */
};

/* A row of a list of tokens, and where in the file it is. */
struct row {
    uint64_t row;
    uint64_t source;
};

static const char *quote_saved(char buf[QUOTED_BYTES], const struct adapter_saved *saved)
{
    return error_quote(buf, QUOTED_BYTES, saved->name, strlen(saved->name));
}

/* Heads that a task puts on a base that lacks them: PEFT trains them from nothing and saves them.
 */
static bool is_task_head(const char *name)
{
    static const char *const heads[] = { "score",      "classifier", "classification_head",
                                         "qa_outputs", "v_head",     "pre_classifier" };
    size_t bytes = strcspn(name, ".");

    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        if (strlen(heads[i]) == bytes && memcmp(name, heads[i], bytes) == 0)
            return true;
    }
    return false;
}

/* How many of its dimensions may differ from those of the base: the first one, or none. */
static size_t count_free_dims(const char *name, const struct st_tensor *tensor)
{
    static const char bias[] = ".bias";
    size_t bytes = strlen(name);

    if (is_task_head(name))
        return tensor->shape_count > 1 || (tensor->shape_count == 1 && bytes > strlen(bias) &&
                                           strcmp(name + bytes - strlen(bias), bias) == 0);
    if (tied_is_head_bias(name, bytes))
        return tensor->shape_count == 1;
    return tensor->shape_count > 1 && adapter_tensor_use(name, bytes) != EDIT_UNTIED;
}

static bool tensor_fits(const void *wanted, const struct st_header *header,
                        const struct st_tensor *tensor)
{
    const struct saved_shape *saved = wanted;
    size_t count = tensor->shape_count;
    size_t first = saved->free_dims;

    return count == saved->tensor->shape_count &&
           memcmp(st_shape(header, tensor) + first, st_shape(saved->header, saved->tensor) + first,
                  (count - first) * sizeof(uint64_t)) == 0;
}

static bool rows_fit(const void *wanted, const struct st_header *header,
                     const struct st_tensor *tensor)
{
    const struct saved_shape *saved = wanted;

    return tensor->shape_count == 2 &&
           st_shape(header, tensor)[1] == st_shape(saved->header, saved->tensor)[1];
}

static int refuse_shape(const struct edits_context *context, const struct adapter_saved *saved,
                        struct model_ref ref, struct error *err)
{
    const struct st_header *own = &context->adapter->header;
    struct text theirs = edits_shape_text(model_header(context->model, ref),
                                          model_tensor(context->model, ref));
    struct text ours = edits_shape_text(own, &own->tensors[saved->tensor]);
    char quoted[2][QUOTED_BYTES];

    error_set(err, ERR_MISMATCH,
              "the adapter's '%s' has shape %s, which does not fit tensor '%s' %s of the base",
              quote_saved(quoted[0], saved), ours.failed ? "" : ours.data,
              edits_quote_ref(quoted[1], context->model, ref), theirs.failed ? "" : theirs.data);
    text_release(&theirs);
    text_release(&ours);
    return err->code;
}

static int add_new(struct adapter_edits *edits, const struct adapter_saved *saved,
                   const struct edits_place *place, struct error *err)
{
    struct adapter_edit edit = { .kind = EDIT_REPLACE,
                                 .new_name = strdup(saved->name),
                                 .replica = place->replica,
                                 .pair = ADAPTER_NO_TENSOR,
                                 .source = saved->tensor,
                                 .magnitude = ADAPTER_NO_TENSOR };

    if (!edit.new_name)
        return error_no_memory(err, "a tensor name");
    return edits_add(edits, &edit, err);
}

/*
 * BERT and its kin have one bias under two names, "x.bias" and "x.decoder.bias", of which the base
 * holds the first, and PEFT saves both.
 */
static int is_saved_twice(bool *twice, const struct adapter_edits *edits,
                          const struct adapter *adapter, const struct adapter_saved *saved,
                          struct model_ref ref, struct error *err)
{
    static const char end[] = ".decoder.bias";
    size_t bytes = strlen(saved->name);

    *twice = false;
    if (bytes < strlen(end) || strcmp(saved->name + bytes - strlen(end), end) != 0)
        return 0;
    for (size_t i = 0; i < edits->count && !*twice; i++) {
        const struct adapter_edit *edit = &edits->list[i];

        if (edit->kind == EDIT_REPLACE && edit->tensor.shard == ref.shard &&
            edit->tensor.tensor == ref.tensor && !edit->new_name &&
            st_same_data(twice, adapter->weights_path, &adapter->header, edit->source,
                         saved->tensor, err))
            return err->code;
    }
    return 0;
}

static int replace(struct adapter_edits *edits, bool *placed, const struct edits_context *context,
                   const struct adapter_saved *saved, struct error *err)
{
    const struct st_header *own = &context->adapter->header;
    const struct st_tensor *tensor = &own->tensors[saved->tensor];
    struct saved_shape wanted = { own, tensor, count_free_dims(saved->name, tensor) };
    struct adapter_edit edit;
    struct edits_place place;
    enum dtype dtype;
    bool twice;
    char quoted[2][QUOTED_BYTES];

    if (edits_find(&place, context, saved->name, tensor_fits, &wanted, err))
        return err->code;
    *placed = place.answer != EDITS_NOT_THERE || is_task_head(saved->name);
    if (place.answer == EDITS_NOT_THERE)
        return *placed ? add_new(edits, saved, &place, err) : 0;
    if (place.answer == EDITS_OTHER_SHAPE)
        return refuse_shape(context, saved, place.tensor, err);
    if (is_saved_twice(&twice, edits, context->adapter, saved, place.tensor, err) || twice) {
        free(place.new_name);
        return err->code;
    }
    dtype = (enum dtype)model_tensor(context->model, place.tensor)->dtype;
    if (dtype != (enum dtype)tensor->dtype &&
        !(dtype_is_computed(dtype) && dtype_is_computed((enum dtype)tensor->dtype))) {
        free(place.new_name);
        return error_set(err, ERR_FORMAT,
                         "the adapter's '%s' is %s, and tensor '%s' of the base is %s: such a "
                         "tensor is not converted",
                         quote_saved(quoted[0], saved), dtype_name((enum dtype)tensor->dtype),
                         edits_quote_ref(quoted[1], context->model, place.tensor),
                         dtype_name(dtype));
    }
    edit = (struct adapter_edit){ .kind = EDIT_REPLACE,
                                  .side = place.side,
                                  .tensor = place.tensor,
                                  .new_name = place.new_name,
                                  .replica = place.replica,
                                  .pair = ADAPTER_NO_TENSOR,
                                  .source = saved->tensor,
                                  .magnitude = ADAPTER_NO_TENSOR };
    return edits_add(edits, &edit, err);
}

static int compare_rows(const void *left, const void *right)
{
    const struct row *a = left;
    const struct row *b = right;

    return (a->row > b->row) - (a->row < b->row);
}

/* The indices of the configuration as the two lists of an edit. */
static int fill_rows(struct adapter_edit *edit, const struct token_rows *tokens,
                     const struct adapter_saved *saved, struct error *err)
{
    struct row *rows = calloc(tokens->count, sizeof(*rows));
    char quoted[QUOTED_BYTES];
    int status = 0;

    edit->row_list = calloc(tokens->count, sizeof(*edit->row_list));
    edit->row_source = calloc(tokens->count, sizeof(*edit->row_source));
    edit->row_list_count = tokens->count;
    if (!rows || !edit->row_list || !edit->row_source) {
        status = error_no_memory(err, "a list of tokens");
        goto out;
    }
    for (size_t i = 0; i < tokens->count; i++)
        rows[i] = (struct row){ tokens->rows[i], i };
    qsort(rows, tokens->count, sizeof(*rows), compare_rows);
    for (size_t i = 0; i < tokens->count && !status; i++) {
        edit->row_list[i] = rows[i].row;
        edit->row_source[i] = rows[i].source;
        if (rows[i].row >= edit->rows)
            status = error_set(err, ERR_MISMATCH,
                               "the adapter trained token %" PRIu64 " of '%s', but the base has "
                               "only %" PRIu64 " tokens",
                               rows[i].row, quote_saved(quoted, saved), edit->rows);
        else if (i && rows[i].row == rows[i - 1].row)
            status = error_set(err, ERR_FORMAT,
                               "token %" PRIu64 " of '%s' stands twice in the configuration",
                               rows[i].row, quote_saved(quoted, saved));
    }
out:
    free(rows);
    return status;
}

/* The rows of the tensor that new rows go into: the base's, or those of a whole one saved with
 * them. */
static uint64_t count_rows(const struct edits_context *context, const struct adapter_saved *saved,
                           struct model_ref ref)
{
    const struct adapter *adapter = context->adapter;

    for (size_t i = 0; i < adapter->saved_count; i++) {
        const struct adapter_saved *other = &adapter->saved[i];
        const struct st_tensor *tensor = &adapter->header.tensors[other->tensor];

        if (other->kind == ADAPTER_SAVED_TENSOR && tensor->shape_count == 2 &&
            strcmp(other->name, saved->name) == 0)
            return st_shape(&adapter->header, tensor)[0];
    }
    return st_shape(model_header(context->model, ref), model_tensor(context->model, ref))[0];
}

static int replace_rows(struct adapter_edits *edits, bool *placed,
                        const struct edits_context *context, const struct adapter_saved *saved,
                        struct error *err)
{
    const struct st_header *own = &context->adapter->header;
    const struct st_tensor *tensor = &own->tensors[saved->tensor];
    const uint64_t *shape = st_shape(own, tensor);
    struct saved_shape wanted = { own, tensor, 1 };
    const struct token_rows *tokens;
    struct adapter_edit edit;
    struct edits_place place;
    const char *dot = strrchr(saved->name, '.');
    char *module = strndup(saved->name, (size_t)(dot ? dot - saved->name : 0));
    char quoted[QUOTED_BYTES];
    int status;

    if (!module)
        return error_no_memory(err, "a module name");
    tokens = adapter_config_tokens(&context->adapter->config, module);
    free(module);
    if (!tokens || !tokens->count || tensor->shape_count != 2 || shape[0] != tokens->count ||
        !dtype_is_computed((enum dtype)tensor->dtype))
        return error_set(err, ERR_FORMAT,
                         "the trained rows of '%s' are not a BF16, F16 or F32 matrix with one row "
                         "for each token of the configuration",
                         quote_saved(quoted, saved));
    if (edits_find(&place, context, saved->name, rows_fit, &wanted, err))
        return err->code;
    *placed = place.answer != EDITS_NOT_THERE;
    if (!*placed)
        return 0;
    if (place.answer == EDITS_OTHER_SHAPE)
        return refuse_shape(context, saved, place.tensor, err);
    edit = (struct adapter_edit){
        .kind = EDIT_ROWS,
        .side = place.side,
        .tensor = place.tensor,
        .new_name = place.new_name,
        .replica = place.replica,
        .pair = ADAPTER_NO_TENSOR,
        .source = saved->tensor,
        .rows = count_rows(context, saved, place.tensor),
        .cols = shape[1],
        .magnitude = ADAPTER_NO_TENSOR,
    };
    status = edits_check_dtype(context->model, place.tensor, err);
    if (!status)
        status = fill_rows(&edit, tokens, saved, err);
    if (!status)
        return edits_add(edits, &edit, err);
    free(edit.new_name);
    free(edit.row_list);
    free(edit.row_source);
    return status;
}

int edits_of_saved(struct adapter_edits *edits, bool *placed, const struct edits_context *context,
                   const struct adapter_saved *saved, struct error *err)
{
    *placed = true;
    return saved->kind == ADAPTER_SAVED_ROWS ? replace_rows(edits, placed, context, saved, err)
                                             : replace(edits, placed, context, saved, err);
}
