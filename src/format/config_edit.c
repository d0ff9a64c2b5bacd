#include "base/json.h"
#include "format/config_internal.h"
#include "format/config_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The second is what a vocabulary is called that was padded for speed. */
static const char *const vocab_keys[] = { "vocab_size", "padded_vocab_size" };

void config_copy(struct config_editor *editor, const char *end, const char *resume)
{
    text_add(editor->out, editor->copied, (size_t)(end - editor->copied));
    editor->copied = resume;
}

void config_replace(struct config_editor *editor, const struct json_token *value, const char *with)
{
    config_copy(editor, value->begin, value->begin + value->bytes);
    text_adds(editor->out, with);
}

static void edit_value(struct config_editor *editor, const struct json_token *key,
                       const struct json_token *value)
{
    const struct config_edits *edits = editor->edits;
    uint64_t number;
    char text[32];

    /* Whatever else stands there (a string, null) might be read as true. */
    if (edits->untie && config_key_is(key, "tie_word_embeddings") &&
        (value->kind == JSON_TRUE || value->kind == JSON_NULL || value->kind == JSON_STRING ||
         value->kind == JSON_NUMBER))
        config_replace(editor, value, "false");
    if (edits->dtype && (config_key_is(key, "dtype") || config_key_is(key, "torch_dtype")) &&
        (value->kind == JSON_STRING || value->kind == JSON_NULL)) {
        snprintf(text, sizeof(text), "\"%s\"", edits->dtype);
        config_replace(editor, value, text);
    }
    if (edits->vocab_to && config_key_among(key, vocab_keys, COUNT_OF(vocab_keys)) &&
        json_number_u64(value, &number) && number == edits->vocab_from) {
        snprintf(text, sizeof(text), "%" PRIu64, edits->vocab_to);
        config_replace(editor, value, text);
    }
    if (edits->labels && value->depth == 1 && config_key_is(key, "num_labels") &&
        (value->kind == JSON_NUMBER || value->kind == JSON_NULL)) {
        snprintf(text, sizeof(text), "%" PRIu64, edits->labels);
        config_replace(editor, value, text);
    }
}

int config_object_holds(const struct json_reader *at, const struct json_token *object,
                        const char *name, bool *holds, bool *empty, struct error *err)
{
    struct json_reader reader = *at; /* a copy: looking ahead moves nothing */
    struct json_token token;

    *holds = false;
    *empty = true;
    for (;;) {
        if (json_next(&reader, &token, err))
            return err->code;
        if (token.kind == JSON_OBJECT_END && token.depth == object->depth)
            return 0;
        *empty = false;
        if (token.depth == object->depth + 1 && config_key_is(&token, name))
            *holds = true;
    }
}

void config_put_in(struct config_editor *editor, const struct json_token *object, const char *end,
                   const struct config_member *members, size_t count, bool empty)
{
    const char *behind = object->begin + 1;
    const char *space = behind;

    while (space < end && strchr(" \t\r\n", *space))
        space++;
    config_copy(editor, behind, behind);
    for (size_t i = 0; i < count; i++) {
        if (!empty)
            text_add(editor->out, behind, (size_t)(space - behind));
        text_addf(editor->out, "\"%s\": %s", members[i].name, members[i].value);
        if (!empty || i + 1 < count)
            text_adds(editor->out, empty || space == behind ? ", " : ",");
    }
}

/* Give an object about the language model what it lacks. */
static int complete_object(struct config_editor *editor, const struct json_reader *reader,
                           const struct json_token *object, const char *end, struct error *err)
{
    const struct config_edits *edits = editor->edits;
    struct config_member members[4];
    size_t count = 0;
    bool tied;
    bool dtype;
    bool torch_dtype;
    bool vocab;
    bool labels;
    bool empty;
    char dtype_value[32];
    char vocab_value[32];
    char labels_value[32];

    if (config_object_holds(reader, object, "tie_word_embeddings", &tied, &empty, err) ||
        config_object_holds(reader, object, "dtype", &dtype, &empty, err) ||
        config_object_holds(reader, object, "torch_dtype", &torch_dtype, &empty, err) ||
        config_object_holds(reader, object, "vocab_size", &vocab, &empty, err) ||
        config_object_holds(reader, object, "num_labels", &labels, &empty, err))
        return err->code;
    if (edits->untie && !tied)
        members[count++] = (struct config_member){ "tie_word_embeddings", "false" };
    if (edits->dtype && object->depth == 0 && !dtype && !torch_dtype) {
        snprintf(dtype_value, sizeof(dtype_value), "\"%s\"", edits->dtype);
        members[count++] = (struct config_member){ "torch_dtype", dtype_value };
    }
    /* Without it model code takes a number of its own. */
    if (edits->vocab_to && !editor->survey.facts.vocab_size && !vocab &&
        object->depth == editor->survey.innermost) {
        snprintf(vocab_value, sizeof(vocab_value), "%" PRIu64, edits->vocab_to);
        members[count++] = (struct config_member){ "vocab_size", vocab_value };
    }
    if (edits->labels && object->depth == 0 && !labels) {
        snprintf(labels_value, sizeof(labels_value), "%" PRIu64, edits->labels);
        members[count++] = (struct config_member){ "num_labels", labels_value };
    }
    if (count)
        config_put_in(editor, object, end, members, count, empty);
    return 0;
}

static int check_layers(const struct config_editor *editor, struct error *err)
{
    const struct config_edits *edits = editor->edits;
    uint64_t layers = editor->survey.facts.num_hidden_layers;

    if (edits->base_layer_count && layers == 0)
        return error_set(err, ERR_FORMAT,
                         "config.json does not say how many layers the model has, so other layers "
                         "cannot be written into it");
    for (uint64_t i = 0; i < edits->base_layer_count; i++) {
        if (edits->base_layers[i] >= layers)
            return error_set(err, ERR_MISMATCH,
                             "layer %" PRIu64 " of the base is repeated, but config.json says that "
                             "it has %" PRIu64 " layers",
                             edits->base_layers[i], layers);
    }
    return 0;
}

/* All edits but those of what is quantised. */
static int edit(struct text *out, const char *json, size_t bytes, const struct config_edits *edits,
                struct error *err)
{
    struct config_editor editor = { .out = out, .copied = json, .edits = edits };
    struct json_reader reader;
    struct json_token key = { .kind = JSON_NULL };
    struct json_token token;

    if (config_survey_read(&editor.survey, json, bytes, err) || check_layers(&editor, err))
        return err->code;
    json_reader_init(&reader, json, bytes, JSON_PYTHON);
    do {
        if (json_next(&reader, &token, err))
            return err->code;
        config_path_follow(&editor.path, &key, &token);
        edit_value(&editor, &key, &token);
        if (edits->base_layer_count && config_path_holds(&editor.path, &token) &&
            config_edit_layers(&editor, &reader, &key, &token, err))
            return err->code;
        if (token.kind == JSON_OBJECT_BEGIN && editor.path.language[token.depth] &&
            complete_object(&editor, &reader, &token, json + bytes, err))
            return err->code;
        key = token;
    } while (token.kind != JSON_END);
    config_copy(&editor, json + bytes, json + bytes);
    return out->failed ? error_no_memory(err, "config.json") : 0;
}

/* Edit, and then set quantization_config. */
static int edit_and_quantise(struct text *out, const char *json, size_t bytes,
                             const struct config_edits *edits, struct error *err)
{
    const struct config_member member = { "quantization_config", edits->quantise };
    struct text edited = { 0 };
    int status = edit(&edited, json, bytes, edits, err);

    if (status == 0)
        status = config_set_members(out, edited.data, edited.bytes, &member, 1, err);
    text_release(&edited);
    return status;
}

int config_apply(struct text *out, const char *json, size_t bytes, const struct config_edits *edits,
                 struct error *err)
{
    struct text plain = { 0 };
    int status = 0;

    if (edits->unquantise) {
        status = config_unquantise(&plain, json, bytes, edits->quantise != NULL, err);
        json = plain.data;
        bytes = plain.bytes;
    }
    if (status == 0)
        status = edits->quantise ? edit_and_quantise(out, json, bytes, edits, err)
                                 : edit(out, json, bytes, edits, err);
    text_release(&plain);
    return status;
}
