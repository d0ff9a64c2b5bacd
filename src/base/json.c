#include "base/json.h"

#include "base/text.h"

#include <string.h>

/* What may come next. */
enum {
    STATE_VALUE,      /* a value */
    STATE_FIRST_ITEM, /* a value or ']' */
    STATE_KEY,        /* a member's name */
    STATE_FIRST_KEY,  /* a member's name or '}' */
    STATE_AFTER,      /* ',' or the end of the container */
    STATE_END         /* nothing but white space */
};

void json_reader_init(struct json_reader *reader, const char *text, size_t bytes, unsigned flags)
{
    *reader = (struct json_reader){ .text = text, .bytes = bytes, .flags = flags };
}

/* The byte at the offset, or -1 at the end. */
static int peek(const struct json_reader *reader)
{
    return reader->offset < reader->bytes ? (unsigned char)reader->text[reader->offset] : -1;
}

static void skip_space(struct json_reader *reader)
{
    int c;

    while ((c = peek(reader)) == ' ' || c == '\n' || c == '\t' || c == '\r')
        reader->offset++;
}

static int bad(const struct json_reader *reader, const char *what, struct error *err)
{
    return error_set(err, ERR_FORMAT, "not valid JSON at byte %zu: %s", reader->offset, what);
}

static int bad_expected(const struct json_reader *reader, const char *expected, struct error *err)
{
    char quoted[16];

    if (reader->offset >= reader->bytes)
        return error_set(err, ERR_FORMAT,
                         "not valid JSON at byte %zu: expected %s, found the end of the text",
                         reader->offset, expected);
    error_quote(quoted, sizeof(quoted), reader->text + reader->offset, 1);
    return error_set(err, ERR_FORMAT, "not valid JSON at byte %zu: expected %s, found '%s'",
                     reader->offset, expected, quoted);
}

static bool in_object(const struct json_reader *reader)
{
    unsigned level = reader->depth - 1;

    return reader->object_bits[level / 64] >> (level % 64) & 1;
}

static void value_is_complete(struct json_reader *reader)
{
    reader->state = reader->depth ? STATE_AFTER : STATE_END;
}

static void token_begin(const struct json_reader *reader, struct json_token *token,
                        enum json_kind kind)
{
    *token = (struct json_token){ .kind = kind,
                                  .begin = reader->text + reader->offset,
                                  .depth = reader->depth };
}

/* Length of the UTF-8 sequence that begins with the byte >= 0x80 at `p` (RFC 3629), or 0. */
static size_t utf8_sequence(const unsigned char *p, size_t bytes)
{
    unsigned low = 0x80; /* limits of the second byte: no overlong form, no surrogate, no more
                            than U+10FFFF */
    unsigned high = 0xbf;
    size_t length;

    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        length = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        length = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        length = 4;
    else
        return 0;
    if (length > bytes)
        return 0;
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++) {
        if (p[i] < 0x80 || p[i] > 0xbf)
            return 0;
    }
    return length;
}

/* The value of four hexadecimal digits, or -1. */
static int hex4(const char *p, size_t bytes)
{
    int value = 0;

    if (bytes < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];

        if (c >= '0' && c <= '9')
            value = value << 4 | (c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (c - 'a' + 10);
        else if (c >= 'A' && c <= 'F')
            value = value << 4 | (c - 'A' + 10);
        else
            return -1;
    }
    return value;
}

/* Step over the escape whose backslash is at the offset. */
static int read_escape(struct json_reader *reader, struct error *err)
{
    const char *p = reader->text + reader->offset;
    size_t left = reader->bytes - reader->offset;
    int unit;

    if (left < 2 || !p[1] || !strchr("\"\\/bfnrtu", p[1]))
        return bad(reader, "unknown escape in a string", err);
    if (p[1] != 'u') {
        reader->offset += 2;
        return 0;
    }
    unit = hex4(p + 2, left - 2);
    if (unit < 0)
        return bad(reader, "\\u needs four hexadecimal digits", err);
    if (unit < 0xd800 || unit > 0xdfff) {
        reader->offset += 6;
        return 0;
    }
    if (unit < 0xdc00 && left >= 12 && p[6] == '\\' && p[7] == 'u') {
        int second = hex4(p + 8, left - 8);

        if (second >= 0xdc00 && second <= 0xdfff) {
            reader->offset += 12;
            return 0;
        }
    }
    return bad(reader, "a surrogate without its partner", err);
}

static int read_string(struct json_reader *reader, struct json_token *token, struct error *err)
{
    const unsigned char *p = (const unsigned char *)reader->text;

    reader->offset++;
    for (;;) {
        unsigned char c;

        if (reader->offset >= reader->bytes)
            return bad(reader, "the text ends inside a string", err);
        c = p[reader->offset];
        if (c == '"')
            break;
        if (c == '\\') {
            int status = read_escape(reader, err);

            if (status)
                return status;
            token->escaped = true;
        } else if (c < 0x20) {
            return bad(reader, "a control character inside a string", err);
        } else if (c < 0x80) {
            reader->offset++;
        } else {
            size_t length = utf8_sequence(p + reader->offset, reader->bytes - reader->offset);

            if (length == 0)
                return bad(reader, "a string is not UTF-8", err);
            reader->offset += length;
        }
    }
    reader->offset++;
    token->bytes = (size_t)(reader->text + reader->offset - token->begin);
    return 0;
}

static bool skip_digits(struct json_reader *reader)
{
    size_t begin = reader->offset;
    int c;

    while ((c = peek(reader)) >= '0' && c <= '9')
        reader->offset++;
    return reader->offset > begin;
}

static int read_number(struct json_reader *reader, struct json_token *token, struct error *err)
{
    int c;

    if (peek(reader) == '-')
        reader->offset++;
    if (peek(reader) == '0') {
        reader->offset++;
        c = peek(reader);
        if (c >= '0' && c <= '9')
            return bad(reader, "a number begins with a needless zero", err);
    } else if (!skip_digits(reader)) {
        return bad_expected(reader, "a digit", err);
    }
    if (peek(reader) == '.') {
        reader->offset++;
        if (!skip_digits(reader))
            return bad_expected(reader, "a digit", err);
    }
    c = peek(reader);
    if (c == 'e' || c == 'E') {
        reader->offset++;
        c = peek(reader);
        if (c == '+' || c == '-')
            reader->offset++;
        if (!skip_digits(reader))
            return bad_expected(reader, "a digit", err);
    }
    token->bytes = (size_t)(reader->text + reader->offset - token->begin);
    value_is_complete(reader);
    return 0;
}

/* Take `word` if it stands at the offset. */
static bool read_word(struct json_reader *reader, struct json_token *token, const char *word,
                      enum json_kind kind)
{
    size_t length = strlen(word);

    if (reader->bytes - reader->offset < length ||
        memcmp(reader->text + reader->offset, word, length) != 0)
        return false;
    token->kind = kind;
    token->bytes = length;
    reader->offset += length;
    value_is_complete(reader);
    return true;
}

static int begin_container(struct json_reader *reader, struct json_token *token, bool object,
                           struct error *err)
{
    uint64_t bit = UINT64_C(1) << (reader->depth % 64);

    if (reader->depth >= JSON_DEPTH_MAX)
        return error_set(err, ERR_FORMAT,
                         "JSON at byte %zu is nested deeper than %d levels, the limit",
                         reader->offset, JSON_DEPTH_MAX);
    if (object)
        reader->object_bits[reader->depth / 64] |= bit;
    else
        reader->object_bits[reader->depth / 64] &= ~bit;
    token->kind = object ? JSON_OBJECT_BEGIN : JSON_ARRAY_BEGIN;
    token->bytes = 1;
    reader->offset++;
    reader->depth++;
    reader->state = object ? STATE_FIRST_KEY : STATE_FIRST_ITEM;
    return 0;
}

static int end_container(struct json_reader *reader, struct json_token *token, struct error *err)
{
    bool object = in_object(reader);

    if (peek(reader) != (object ? '}' : ']'))
        return bad_expected(reader, object ? "',' or '}'" : "',' or ']'", err);
    reader->depth--;
    token_begin(reader, token, object ? JSON_OBJECT_END : JSON_ARRAY_END);
    token->bytes = 1;
    reader->offset++;
    value_is_complete(reader);
    return 0;
}

static int read_key(struct json_reader *reader, struct json_token *token, struct error *err)
{
    int status;

    if (peek(reader) != '"')
        return bad_expected(reader, "a name in double quotes", err);
    token_begin(reader, token, JSON_KEY);
    status = read_string(reader, token, err);
    if (status)
        return status;
    skip_space(reader);
    if (peek(reader) != ':')
        return bad_expected(reader, "':'", err);
    reader->offset++;
    reader->state = STATE_VALUE;
    return 0;
}

static int read_value(struct json_reader *reader, struct json_token *token, struct error *err)
{
    int c = peek(reader);
    int status;

    token_begin(reader, token, JSON_NUMBER);
    if (c == '{' || c == '[')
        return begin_container(reader, token, c == '{', err);
    if (c == '"') {
        token->kind = JSON_STRING;
        status = read_string(reader, token, err);
        if (!status)
            value_is_complete(reader);
        return status;
    }
    if (read_word(reader, token, "true", JSON_TRUE) ||
        read_word(reader, token, "false", JSON_FALSE) ||
        read_word(reader, token, "null", JSON_NULL))
        return 0;
    if (reader->flags & JSON_PYTHON && (read_word(reader, token, "NaN", JSON_NUMBER) ||
                                        read_word(reader, token, "Infinity", JSON_NUMBER) ||
                                        read_word(reader, token, "-Infinity", JSON_NUMBER)))
        return 0;
    if (c == '-' || (c >= '0' && c <= '9'))
        return read_number(reader, token, err);
    if (reader->offset == 0 && reader->bytes >= 3 && memcmp(reader->text, "\xef\xbb\xbf", 3) == 0)
        return bad(reader, "it begins with a byte order mark, which must be removed", err);
    return bad_expected(reader, "a value", err);
}

int json_next(struct json_reader *reader, struct json_token *out, struct error *err)
{
    skip_space(reader);
    if (reader->state == STATE_AFTER) {
        if (peek(reader) != ',')
            return end_container(reader, out, err);
        reader->offset++;
        skip_space(reader);
        reader->state = in_object(reader) ? STATE_KEY : STATE_VALUE;
    }
    switch (reader->state) {
    case STATE_FIRST_KEY:
        if (peek(reader) == '}')
            return end_container(reader, out, err);
        return read_key(reader, out, err);
    case STATE_KEY:
        return read_key(reader, out, err);
    case STATE_FIRST_ITEM:
        if (peek(reader) == ']')
            return end_container(reader, out, err);
        return read_value(reader, out, err);
    case STATE_VALUE:
        return read_value(reader, out, err);
    default:
        if (reader->offset < reader->bytes)
            return bad_expected(reader, "nothing behind the value", err);
        token_begin(reader, out, JSON_END);
        return 0;
    }
}

int json_skip(struct json_reader *reader, const struct json_token *token, struct error *err)
{
    struct json_token next = *token;
    unsigned depth = token->depth;
    int status;

    if (token->kind != JSON_OBJECT_BEGIN && token->kind != JSON_ARRAY_BEGIN)
        return 0;
    do {
        status = json_next(reader, &next, err);
        if (status)
            return status;
    } while (next.depth > depth);
    return 0;
}

static size_t encode_utf8(char out[4], unsigned code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

/* Step over the escape at *p, which read_escape() has checked; returns the bytes that it means. */
static size_t decode_escape(const char **p, char out[4])
{
    static const char letters[] = "bfnrt";
    static const char values[] = "\b\f\n\r\t";
    char c = (*p)[1];
    unsigned code;

    *p += 2;
    if (c != 'u') {
        const char *letter = strchr(letters, c);

        if (letter)
            c = values[letter - letters];
        out[0] = c;
        return 1;
    }
    code = (unsigned)hex4(*p, 4);
    *p += 4;
    if (code >= 0xd800 && code <= 0xdbff) {
        code = 0x10000 + ((code & 0x3ff) << 10) + ((unsigned)hex4(*p + 2, 4) & 0x3ff);
        *p += 6;
    }
    return encode_utf8(out, code);
}

void json_string_decode(const struct json_token *token, struct text *out)
{
    const char *p = token->begin + 1;
    const char *end = token->begin + token->bytes - 1;

    text_add(out, p, 0); /* an empty string has memory, too */
    while (p < end) {
        const char *stop = token->escaped ? memchr(p, '\\', (size_t)(end - p)) : NULL;
        char decoded[4];

        text_add(out, p, (size_t)((stop ? stop : end) - p));
        if (!stop)
            return;
        p = stop;
        text_add(out, decoded, decode_escape(&p, decoded));
    }
}

bool json_string_is(const struct json_token *token, const char *word)
{
    const char *p = token->begin + 1;
    const char *end = token->begin + token->bytes - 1;
    size_t left = strlen(word);

    if (!token->escaped)
        return token->bytes == left + 2 && memcmp(p, word, left) == 0;
    while (p < end) {
        char decoded[4] = { *p };
        size_t bytes = 1;

        if (*p == '\\')
            bytes = decode_escape(&p, decoded);
        else
            p++;
        if (bytes > left || memcmp(word, decoded, bytes) != 0)
            return false;
        word += bytes;
        left -= bytes;
    }
    return left == 0;
}

bool json_number_u64(const struct json_token *token, uint64_t *out)
{
    uint64_t value = 0;

    if (token->kind != JSON_NUMBER)
        return false;
    for (size_t i = 0; i < token->bytes; i++) {
        char c = token->begin[i];

        if (c < '0' || c > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(c - '0'), &value))
            return false;
    }
    *out = value;
    return true;
}
