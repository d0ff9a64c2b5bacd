#include "format/config_text.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

/* Objects that hold the configuration of a text model inside that of a larger one. */
static const char *const text_configs[] = { "text_config", "language_config", "llm_config" };

static bool key_is(const struct json_token *key, const char *name)
{
    return key->kind == JSON_KEY && json_string_is(key, name);
}

static void copy_string(char *out, size_t out_bytes, const struct json_token *token)
{
    if (token->kind == JSON_STRING && !token->escaped && token->bytes - 2 < out_bytes)
        snprintf(out, out_bytes, "%.*s", (int)(token->bytes - 2), token->begin + 1);
}

/* The outermost level decides; an inner one counts where no outer one speaks. */
static void note_tied(struct config_facts *facts, unsigned *depth, const struct json_token *value)
{
    if (value->kind != JSON_TRUE && value->kind != JSON_FALSE)
        return;
    if (facts->tied >= 0 && value->depth >= *depth)
        return;
    facts->tied = value->kind == JSON_TRUE;
    *depth = value->depth;
}

int config_read_facts(struct config_facts *out, const char *json, size_t bytes, struct error *err)
{
    struct config_facts facts = { .tied = -1 };
    struct json_reader reader;
    struct json_token key = { 0 };
    struct json_token token;
    unsigned tied_depth = 0;
    bool list_of_architectures = false;

    if (json_check(json, bytes, JSON_PYTHON, err))
        return err->code;
    json_reader_init(&reader, json, bytes, JSON_PYTHON);
    if (json_next(&reader, &token, err))
        return err->code;
    if (token.kind != JSON_OBJECT_BEGIN)
        return error_set(err, ERR_FORMAT, "it is not a JSON object");
    while (token.kind != JSON_END) {
        if (json_next(&reader, &token, err))
            return err->code;
        if (key_is(&key, "tie_word_embeddings"))
            note_tied(&facts, &tied_depth, &token);
        if (key_is(&key, "quantization_config") && token.kind == JSON_OBJECT_BEGIN)
            facts.quantised = true;
        if (key_is(&key, "model_type") && token.depth == 1)
            copy_string(facts.model_type, sizeof(facts.model_type), &token);
        if (list_of_architectures && token.kind == JSON_STRING)
            copy_string(facts.architecture, sizeof(facts.architecture), &token);
        list_of_architectures = key_is(&key, "architectures") && token.kind == JSON_ARRAY_BEGIN &&
                                token.depth == 1;
        key = token;
    }
    *out = facts;
    return 0;
}

struct editor {
    struct text *out;
    const char *copied; /* the input is in the output up to here */
    const struct config_edits *edits;
};

static void replace(struct editor *editor, const struct json_token *value, const char *with)
{
    text_add(editor->out, editor->copied, (size_t)(value->begin - editor->copied));
    text_adds(editor->out, with);
    editor->copied = value->begin + value->bytes;
}

static void edit_value(struct editor *editor, const struct json_token *key,
                       const struct json_token *value)
{
    char dtype[32];

    /* Whatever else stands there (a string, null) might be read as true. */
    if (editor->edits->untie && key_is(key, "tie_word_embeddings") &&
        (value->kind == JSON_TRUE || value->kind == JSON_NULL || value->kind == JSON_STRING ||
         value->kind == JSON_NUMBER))
        replace(editor, value, "false");
    if (editor->edits->dtype && (key_is(key, "dtype") || key_is(key, "torch_dtype")) &&
        (value->kind == JSON_STRING || value->kind == JSON_NULL)) {
        snprintf(dtype, sizeof(dtype), "\"%s\"", editor->edits->dtype);
        replace(editor, value, dtype);
    }
}

/* Does the object that begins with `token` hold the key `name` itself (not deeper)? */
static int object_holds(const struct json_reader *at, const struct json_token *object,
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
        if (token.depth == object->depth + 1 && key_is(&token, name))
            *holds = true;
    }
}

/* A member that an object lacks. */
struct member {
    const char *name;
    const char *value; /* JSON */
};

/* Put members in front of those of an object, spaced as its first member is. */
static void put_in(struct editor *editor, const struct json_token *object, const char *end,
                   const struct member *members, size_t count, bool empty)
{
    const char *behind = object->begin + 1;
    const char *space = behind;

    while (space < end && strchr(" \t\r\n", *space))
        space++;
    text_add(editor->out, editor->copied, (size_t)(behind - editor->copied));
    for (size_t i = 0; i < count; i++) {
        if (!empty)
            text_add(editor->out, behind, (size_t)(space - behind));
        text_addf(editor->out, "\"%s\": %s", members[i].name, members[i].value);
        if (!empty || i + 1 < count)
            text_adds(editor->out, empty || space == behind ? ", " : ",");
    }
    editor->copied = behind;
}

static int complete_object(struct editor *editor, const struct json_reader *reader,
                           const struct json_token *key, const struct json_token *object,
                           const char *end, struct error *err)
{
    struct member members[2];
    size_t count = 0;
    bool wanted = object->depth == 0;
    bool tied;
    bool dtype;
    bool torch_dtype;
    bool empty;
    char value[32];

    for (size_t i = 0; i < sizeof(text_configs) / sizeof(text_configs[0]); i++)
        wanted |= key_is(key, text_configs[i]);
    if (!wanted)
        return 0;
    if (object_holds(reader, object, "tie_word_embeddings", &tied, &empty, err) ||
        object_holds(reader, object, "dtype", &dtype, &empty, err) ||
        object_holds(reader, object, "torch_dtype", &torch_dtype, &empty, err))
        return err->code;
    if (editor->edits->untie && !tied)
        members[count++] = (struct member){ "tie_word_embeddings", "false" };
    if (editor->edits->dtype && object->depth == 0 && !dtype && !torch_dtype) {
        snprintf(value, sizeof(value), "\"%s\"", editor->edits->dtype);
        members[count++] = (struct member){ "torch_dtype", value };
    }
    if (count)
        put_in(editor, object, end, members, count, empty);
    return 0;
}

int config_apply(struct text *out, const char *json, size_t bytes, const struct config_edits *edits,
                 struct error *err)
{
    struct editor editor = { .out = out, .copied = json, .edits = edits };
    struct json_reader reader;
    struct json_token key = { .kind = JSON_NULL };
    struct json_token token;

    json_reader_init(&reader, json, bytes, JSON_PYTHON);
    do {
        if (json_next(&reader, &token, err))
            return err->code;
        edit_value(&editor, &key, &token);
        if (token.kind == JSON_OBJECT_BEGIN &&
            complete_object(&editor, &reader, &key, &token, json + bytes, err))
            return err->code;
        key = token;
    } while (token.kind != JSON_END);
    text_add(out, editor.copied, (size_t)(json + bytes - editor.copied));
    return out->failed ? error_no_memory(err, "config.json") : 0;
}
