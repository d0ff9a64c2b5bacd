#include "base/text.h"

#include <locale.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Make room for `count` more bytes and the NUL. */
static bool reserve(struct text *text, size_t count)
{
    size_t wanted;
    size_t capacity;
    char *data;

    if (text->failed)
        return false;
    if (__builtin_add_overflow(text->bytes, count, &wanted) || wanted >= SIZE_MAX / 2) {
        text->failed = true;
        return false;
    }
    if (wanted < text->capacity)
        return true;
    capacity = wanted + 1;
    if (capacity < text->capacity + text->capacity / 2)
        capacity = text->capacity + text->capacity / 2;
    if (capacity < 64)
        capacity = 64;
    data = realloc(text->data, capacity);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void text_release(struct text *text)
{
    free(text->data);
    *text = (struct text){ 0 };
}

void text_clear(struct text *text)
{
    text->bytes = 0;
    text->failed = false;
    if (text->data)
        text->data[0] = '\0';
}

void text_add(struct text *text, const char *bytes, size_t count)
{
    if (!reserve(text, count))
        return;
    if (count)
        memcpy(text->data + text->bytes, bytes, count);
    text->bytes += count;
    text->data[text->bytes] = '\0';
}

void text_adds(struct text *text, const char *string)
{
    text_add(text, string, strlen(string));
}

static locale_t c_locale;

static void make_c_locale(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

/*
 * The point of the C locale for this thread: a host program may have set one with a comma, and
 * numbers here are written and read by machines.  Returns what to give to leave_c_locale().
 */
static locale_t enter_c_locale(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, make_c_locale);
    return c_locale ? uselocale(c_locale) : (locale_t)0;
}

static void leave_c_locale(locale_t before)
{
    if (before)
        uselocale(before);
}

double text_to_number(const char *text, char **end)
{
    locale_t before = enter_c_locale();
    double value = strtod(text, end);

    leave_c_locale(before);
    return value;
}

bool text_ends_with(const char *text, const char *end)
{
    size_t bytes = strlen(text);
    size_t end_bytes = strlen(end);

    return bytes >= end_bytes && strcmp(text + bytes - end_bytes, end) == 0;
}

static int format_plain(char *out, size_t bytes, const char *format, va_list args)
{
    locale_t before = enter_c_locale();
    int length = vsnprintf(out, bytes, format, args);

    leave_c_locale(before);
    return length;
}

void text_addf(struct text *text, const char *format, ...)
{
    char small[256];
    va_list args;
    int length;

    va_start(args, format);
    length = format_plain(small, sizeof(small), format, args);
    va_end(args);
    if (length < 0) {
        text->failed = true;
        return;
    }
    if ((size_t)length < sizeof(small)) {
        text_add(text, small, (size_t)length);
        return;
    }
    if (!reserve(text, (size_t)length))
        return;
    va_start(args, format);
    format_plain(text->data + text->bytes, (size_t)length + 1, format, args);
    va_end(args);
    text->bytes += (size_t)length;
}

size_t text_utf8_length(const char *bytes, size_t count)
{
    const unsigned char *p = (const unsigned char *)bytes;
    size_t length = p[0] < 0x80       ? 1
                    : p[0] >> 5 == 6  ? 2
                    : p[0] >> 4 == 14 ? 3
                    : p[0] >> 3 == 30 ? 4
                                      : 0;

    if (length == 0 || length > count || p[0] == 0xc0 || p[0] == 0xc1 || p[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if (p[i] >> 6 != 2)
            return 0;
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return length;
}

void text_add_json(struct text *text, const char *bytes, size_t count)
{
    size_t length;

    text_add(text, "\"", 1);
    for (size_t i = 0; i < count; i += length ? length : 1) {
        unsigned char c = (unsigned char)bytes[i];

        length = text_utf8_length(bytes + i, count - i);
        if (c == '"' || c == '\\')
            text_addf(text, "\\%c", c);
        else if (c == '\n')
            text_add(text, "\\n", 2);
        else if (c < 0x20)
            text_addf(text, "\\u%04x", c);
        else if (length)
            text_add(text, bytes + i, length);
        else
            text_adds(text, "\\ufffd");
    }
    text_add(text, "\"", 1);
}

char *text_take(struct text *text)
{
    char *data = text->data;

    if (text->failed) {
        text_release(text);
        return NULL;
    }
    if (!data)
        data = calloc(1, 1);
    *text = (struct text){ 0 };
    return data;
}

void text_add_count(struct text *text, unsigned long long count, const char *word)
{
    text_addf(text, "%llu %s%s", count, word, count == 1 ? "" : "s");
}

void text_add_bytes(struct text *text, unsigned long long bytes)
{
    static const char *const units[] = { "kB", "MB", "GB", "TB", "PB", "EB" };
    double value = (double)bytes / 1000;
    size_t unit = 0;

    if (bytes < 1000) {
        text_addf(text, "%llu bytes", bytes);
        return;
    }
    while (value >= 999.95 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1000;
        unit++;
    }
    text_addf(text, "%.*f %s", value < 100 ? 2 : 1, value, units[unit]);
}
