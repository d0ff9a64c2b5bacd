#include "format/index.h"

#include <inttypes.h>
#include <string.h>

/* The code point of the UTF-8 sequence at *p, which is stepped over; a stray byte is itself. */
static unsigned next_code_point(const unsigned char **p)
{
    static const unsigned char first_bits[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    const unsigned char *begin = *p;
    unsigned length = begin[0] < 0xc0 ? 1 : begin[0] < 0xe0 ? 2 : begin[0] < 0xf0 ? 3 : 4;
    unsigned code = length == 1 ? begin[0] : begin[0] & first_bits[length];

    for (unsigned i = 1; i < length; i++) {
        if (begin[i] >> 6 != 2) {
            length = 1;
            code = begin[0];
            break;
        }
        code = code << 6 | (begin[i] & 0x3f);
    }
    *p += length;
    return code;
}

/* As Python's json.dumps() with ensure_ascii writes a string. */
static void add_ascii_json(struct text *out, const char *string)
{
    static const char letters[] = "\"\\nrtfb";
    static const char values[] = "\"\\\n\r\t\f\b";
    const unsigned char *p = (const unsigned char *)string;

    text_add(out, "\"", 1);
    while (*p) {
        const unsigned char *begin = p;
        const char *value;
        unsigned code;

        while (*p >= 0x20 && *p < 0x7f && *p != '"' && *p != '\\')
            p++;
        text_add(out, (const char *)begin, (size_t)(p - begin));
        if (!*p)
            break;
        value = strchr(values, (char)*p);
        if (value) {
            text_add(out, "\\", 1);
            text_add(out, letters + (value - values), 1);
            p++;
            continue;
        }
        code = next_code_point(&p);
        if (code >= 0x10000)
            text_addf(out, "\\u%04x\\u%04x", 0xd800 + ((code - 0x10000) >> 10),
                      0xdc00 + (code & 0x3ff));
        else
            text_addf(out, "\\u%04x", code);
    }
    text_add(out, "\"", 1);
}

void index_emit(struct text *out, const struct index_line *lines, size_t line_count,
                uint64_t total_size_bytes, uint64_t total_parameters)
{
    text_addf(out,
              "{\n  \"metadata\": {\n    \"total_parameters\": %" PRIu64
              ",\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {",
              total_parameters, total_size_bytes);
    for (size_t i = 0; i < line_count; i++) {
        text_adds(out, i ? ",\n    " : "\n    ");
        add_ascii_json(out, lines[i].name);
        text_adds(out, ": ");
        add_ascii_json(out, lines[i].shard);
    }
    text_adds(out, line_count ? "\n  }\n}\n" : "}\n}\n");
}
