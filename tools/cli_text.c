#include "cli_text.h"

#include <stdlib.h>
#include <string.h>

#define NAME_BYTES_MAX 64

/*
 * Length of the UTF-8 character at `p`, or 0 if there is none.  Overlong forms, surrogates, values
 * past U+10FFFF and the control characters U+0080 to U+009F are none: a terminal may act on them.
 */
static size_t utf8_length(const unsigned char *p)
{
    if (p[0] < 0x80)
        return p[0] >= 0x20 && p[0] != 0x7f;
    if (p[0] < 0xc2 || p[0] > 0xf4 || (p[1] & 0xc0) != 0x80)
        return 0;
    if (p[0] < 0xe0)
        return p[0] == 0xc2 && p[1] < 0xa0 ? 0 : 2;
    if ((p[2] & 0xc0) != 0x80)
        return 0;
    if (p[0] < 0xf0)
        return (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ? 0 : 3;
    if ((p[3] & 0xc0) != 0x80)
        return 0;
    return (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f) ? 0 : 4;
}

/* The safe form of the character at *text, at most 4 bytes; steps *text over it. */
static size_t safe_character(char out[5], const char **text)
{
    const unsigned char *p = (const unsigned char *)*text;
    size_t length = utf8_length(p);

    if (length) {
        memcpy(out, p, length);
        *text += length;
        return length;
    }
    snprintf(out, 5, "\\x%02x", p[0]);
    *text += 1;
    return 4;
}

const char *cli_quote(char *buf, size_t buf_bytes, const char *text)
{
    static const char more[] = "...";
    size_t used = 0;

    while (*text) {
        char piece[5];
        size_t length = safe_character(piece, &text);

        if (used + length + sizeof(more) > buf_bytes) {
            memcpy(buf + used, more, sizeof(more));
            return buf;
        }
        memcpy(buf + used, piece, length);
        used += length;
    }
    buf[used] = '\0';
    return buf;
}

void cli_print_safe(FILE *file, const char *text)
{
    char piece[5];

    while (*text)
        fwrite(piece, 1, safe_character(piece, &text), file);
}

void cli_print_json(FILE *file, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;

    fputc('"', file);
    while (*p) {
        size_t length = utf8_length(p);

        if (*p == '"' || *p == '\\')
            fprintf(file, "\\%c", *p);
        else if (length)
            fwrite(p, 1, length, file);
        else if (*p < 0x80)
            fprintf(file, "\\u%04x", *p);
        else
            fputs("\\ufffd", file);
        p += length ? length : 1;
    }
    fputc('"', file);
}

const char *cli_format_bytes(char *buf, size_t buf_bytes, double bytes)
{
    static const char *const units[] = { "kB", "MB", "GB", "TB", "PB", "EB" };
    double value = bytes / 1000;
    size_t unit = 0;

    if (bytes < 999.5) {
        snprintf(buf, buf_bytes, "%.0f bytes", bytes);
        return buf;
    }
    while (value >= 999.95 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1000;
        unit++;
    }
    snprintf(buf, buf_bytes, "%.*f %s", value < 99.995 ? 2 : 1, value, units[unit]);
    return buf;
}

static char same_dash(char c)
{
    if (c == '_')
        return '-';
    return c;
}

bool cli_name_equal(const char *name, const char *text, size_t text_bytes)
{
    for (size_t i = 0; i < text_bytes; i++)
        if (!name[i] || same_dash(name[i]) != same_dash(text[i]))
            return false;
    return !name[text_bytes];
}

static size_t min_size(size_t x, size_t y)
{
    return x < y ? x : y;
}

/* Edit distance: insert, delete, replace, or exchange two neighbours, each at a cost of 1. */
static size_t edit_distance(const char *x, size_t x_bytes, const char *y, size_t y_bytes)
{
    size_t rows[3][NAME_BYTES_MAX + 1];
    size_t *older = rows[0];
    size_t *old = rows[1];
    size_t *now = rows[2];

    for (size_t j = 0; j <= y_bytes; j++)
        old[j] = older[j] = j;
    for (size_t i = 1; i <= x_bytes; i++) {
        size_t *free_row = older;

        now[0] = i;
        for (size_t j = 1; j <= y_bytes; j++) {
            bool same = same_dash(x[i - 1]) == same_dash(y[j - 1]);

            now[j] = min_size(min_size(old[j], now[j - 1]) + 1, old[j - 1] + !same);
            if (i > 1 && j > 1 && x[i - 1] == y[j - 2] && x[i - 2] == y[j - 1])
                now[j] = min_size(now[j], older[j - 2] + 1);
        }
        older = old;
        old = now;
        now = free_row;
    }
    return old[y_bytes];
}

size_t cli_nearest_limit(const char *typed)
{
    return strlen(typed) / 3 + 2;
}

bool cli_nearer(const char *name, const char *typed, size_t *best_distance)
{
    size_t name_bytes = strlen(name);
    size_t typed_bytes = strlen(typed);
    size_t distance;

    if (name_bytes > NAME_BYTES_MAX || typed_bytes > NAME_BYTES_MAX)
        return false;
    if (typed_bytes >= 3 && typed_bytes < name_bytes && cli_name_equal(typed, name, typed_bytes))
        distance = 1; /* an abbreviation is as near as one slip of the finger */
    else
        distance = edit_distance(name, name_bytes, typed, typed_bytes);
    if (distance >= *best_distance)
        return false;
    *best_distance = distance;
    return true;
}
