#include "format/config_internal.h"

#include <string.h>

/* The second stands in older files of compressed-tensors, the third is MLX's. */
static const char *const quantisation_keys[] = { "quantization_config", "compression_config",
                                                 "quantization" };

/*
 * Take away a member: with the comma before it, or, if no member before it stays, with the comma
 * and the space behind it, so that the next one stands where it stood.
 */
static void remove_member(struct config_editor *editor, const struct json_reader *behind,
                          const struct json_token *key, const char *stays_end)
{
    const char *resume = behind->text + behind->offset;
    const char *end = behind->text + behind->bytes;
    const char *next = resume;

    while (next < end && strchr(" \t\r\n", *next))
        next++;
    if (stays_end) {
        if (stays_end > editor->copied)
            config_copy(editor, stays_end, resume);
        editor->copied = resume;
        return;
    }
    if (next < end && *next == ',') {
        resume = next + 1;
        while (resume < end && strchr(" \t\r\n", *resume))
            resume++;
    }
    config_copy(editor, key->begin, resume);
}

int config_unquantise(struct text *out, const char *json, size_t bytes, bool keep_outermost,
                      struct error *err)
{
    struct config_editor editor = { .out = out, .copied = json };
    /* By depth: the end of the last member or element that stays, of the container that is open. */
    const char *stays_end[JSON_DEPTH_MAX + 2] = { NULL };
    struct json_reader reader;
    struct json_token key;
    struct json_token token;

    json_reader_init(&reader, json, bytes, JSON_PYTHON);
    for (;;) {
        if (json_next(&reader, &token, err))
            return err->code;
        if (token.kind == JSON_END)
            break;
        if (token.kind == JSON_OBJECT_BEGIN || token.kind == JSON_ARRAY_BEGIN) {
            stays_end[token.depth + 1] = NULL;
        } else if (token.kind != JSON_KEY) {
            stays_end[token.depth] = token.begin + token.bytes;
        } else if (config_key_among(&token, quantisation_keys, COUNT_OF(quantisation_keys)) &&
                   !(keep_outermost && token.depth == 1 &&
                     config_key_is(&token, quantisation_keys[0]))) {
            key = token;
            if (json_next(&reader, &token, err) || json_skip(&reader, &token, err))
                return err->code;
            remove_member(&editor, &reader, &key, stays_end[key.depth]);
        }
    }
    config_copy(&editor, json + bytes, json + bytes);
    return out->failed ? error_no_memory(err, "config.json") : 0;
}
