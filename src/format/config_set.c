#include "format/config_internal.h"

/* Give the outermost object those members that it lacks. */
static int add_absent(struct config_editor *editor, const struct json_reader *reader,
                      const struct json_token *object, const char *end,
                      const struct config_member *members, size_t count, struct error *err)
{
    struct config_member absent[CONFIG_MEMBERS_MAX];
    size_t absent_count = 0;
    bool empty = true;

    for (size_t i = 0; i < count; i++) {
        bool holds;

        if (config_object_holds(reader, object, members[i].name, &holds, &empty, err))
            return err->code;
        if (!holds)
            absent[absent_count++] = members[i];
    }
    if (absent_count)
        config_put_in(editor, object, end, absent, absent_count, empty);
    return 0;
}

/* Put `with` in place of a value of any kind, which `reader` is behind afterwards. */
static int replace_value(struct config_editor *editor, struct json_reader *reader,
                         const struct json_token *value, const char *with, struct error *err)
{
    if (json_skip(reader, value, err))
        return err->code;
    config_copy(editor, value->begin, reader->text + reader->offset);
    text_adds(editor->out, with);
    return 0;
}

int config_set_members(struct text *out, const char *json, size_t bytes,
                       const struct config_member *members, size_t count, struct error *err)
{
    struct config_editor editor = { .out = out, .copied = json };
    struct json_reader reader;
    struct json_token token;

    json_reader_init(&reader, json, bytes, JSON_PYTHON);
    if (json_next(&reader, &token, err) ||
        add_absent(&editor, &reader, &token, json + bytes, members, count, err))
        return err->code;
    for (;;) {
        const struct config_member *member = NULL;

        if (json_next(&reader, &token, err))
            return err->code;
        if (token.kind == JSON_END)
            break;
        for (size_t i = 0; i < count && token.depth == 1; i++) {
            if (config_key_is(&token, members[i].name))
                member = &members[i];
        }
        if (member && (json_next(&reader, &token, err) ||
                       replace_value(&editor, &reader, &token, member->value, err)))
            return err->code;
    }
    config_copy(&editor, json + bytes, json + bytes);
    return out->failed ? error_no_memory(err, "a configuration") : 0;
}
