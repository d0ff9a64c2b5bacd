#include "base/json.h"
#include "format/safetensors.h"

#include <inttypes.h>
#include <string.h>

/* How many members the object has, and whether "format" is one; false if it is not an object. */
static bool inspect_metadata(const char *metadata, size_t bytes, size_t *members, bool *has_format)
{
    struct json_reader reader;
    struct json_token token;
    struct error err;
    bool valid;

    *members = 0;
    *has_format = false;
    json_reader_init(&reader, metadata, bytes, 0);
    valid = json_next(&reader, &token, &err) == 0 && token.kind == JSON_OBJECT_BEGIN;
    while (valid && token.kind != JSON_END) {
        valid = json_next(&reader, &token, &err) == 0;
        if (!valid || token.kind != JSON_KEY || token.depth != 1)
            continue;
        (*members)++;
        if (json_string_is(&token, "format"))
            *has_format = true;
    }
    return valid;
}

void st_emit_begin(struct text *out, const char *metadata, size_t metadata_bytes)
{
    const char *brace = metadata ? memchr(metadata, '{', metadata_bytes) : NULL;
    size_t members;
    bool has_format;

    text_adds(out, "{\"__metadata__\":");
    if (!brace || !inspect_metadata(metadata, metadata_bytes, &members, &has_format) ||
        members == 0) {
        text_adds(out, "{\"format\":\"pt\"}");
    } else if (has_format) {
        text_add(out, metadata, metadata_bytes);
    } else {
        text_adds(out, "{\"format\":\"pt\",");
        text_add(out, brace + 1, metadata_bytes - (size_t)(brace + 1 - metadata));
    }
}

void st_emit_tensor(struct text *out, const char *name, size_t name_bytes, enum dtype dtype,
                    const uint64_t *shape, size_t shape_count, uint64_t data_offset,
                    uint64_t data_bytes)
{
    text_add(out, ",", 1);
    text_add_json(out, name, name_bytes);
    text_addf(out, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(dtype));
    for (size_t i = 0; i < shape_count; i++)
        text_addf(out, "%s%" PRIu64, i ? "," : "", shape[i]);
    text_addf(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", data_offset,
              data_offset + data_bytes);
}

void st_emit_end(struct text *out, uint64_t residue, uint64_t modulus)
{
    uint64_t missing;

    text_add(out, "}", 1);
    missing = (residue - ST_PREFIX_BYTES - out->bytes) & (modulus - 1);
    for (; missing; missing--)
        text_add(out, " ", 1);
}
