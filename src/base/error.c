#include "base/error.h"

#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *err, int code, const char *format, ...)
{
    va_list args;

    err->code = code;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    return code;
}

int error_set_errno(struct error *err, const char *format, ...)
{
    int saved = errno;
    char reason[128];
    va_list args;
    size_t used;

    err->code = ERR_FAILED;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    used = strlen(err->text);
    snprintf(err->text + used, sizeof(err->text) - used, ": %s",
             strerror_r(saved, reason, sizeof(reason)));
    return ERR_FAILED;
}

int error_no_memory(struct error *err, const char *what)
{
    return error_set(err, ERR_FAILED, "out of memory for %s", what);
}

void error_prefix(struct error *err, const char *format, ...)
{
    char text[sizeof(err->text)];
    va_list args;
    size_t used;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    used = strlen(text);
    /* The precision is what fits behind ": ", so that a cut is meant and not an accident. */
    snprintf(text + used, sizeof(text) - used, ": %.*s",
             used + 3 < sizeof(text) ? (int)(sizeof(text) - used - 3) : 0, err->text);
    memcpy(err->text, text, sizeof(text));
}

const char *error_quote(char *buf, size_t buf_bytes, const char *text, size_t text_bytes)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t used = 0;

    for (size_t i = 0; i < text_bytes;) {
        size_t length = text_utf8_length(text + i, text_bytes - i);
        bool is_c1 = length == 2 && p[i] == 0xc2 && p[i + 1] < 0xa0; /* U+0080 to U+009F */
        bool plain = (length > 1 && !is_c1) || (length == 1 && p[i] >= 0x20 && p[i] != 0x7f);
        size_t needed = plain ? length : 4;

        if (used + needed + 4 > buf_bytes) { /* room for "..." and the NUL */
            memcpy(buf + used, "...", 4);
            return buf;
        }
        if (plain)
            memcpy(buf + used, p + i, length);
        else
            snprintf(buf + used, 5, "\\x%02x", p[i]);
        used += needed;
        i += plain ? length : 1;
    }
    buf[used] = '\0';
    return buf;
}
