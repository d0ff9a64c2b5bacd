#include "adapter/pattern.h"

#include "adapter/pattern_syntax.h"
#include "base/text.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * Bounds of one match.  Names are a few dozen bytes and take some hundred steps; a pattern that
 * needs a thousand times that is one whose backtracking explodes.
 */
#define MATCH_STEPS_MAX 1000000
#define MATCH_DEPTH_MAX 100000
#define MATCH_HEAP_KIB_MAX 32768

#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_."

struct pattern {
    char *text; /* as given, for sentences */
    size_t bytes;
    pcre2_code *code;
    pcre2_match_context *limits;
    bool plain;       /* a suffix key of name characters and '.' only: matched without PCRE2 */
    bool has_classes; /* \d \w \s \b: the engines agree on printable ASCII only */
};

static int compile_code(pcre2_code **out, const struct text *spelled, uint32_t options,
                        struct error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    int number = 0;
    PCRE2_SIZE offset = 0;

    if (!context)
        return error_no_memory(err, "a pattern");
    /* The library's own default may be another newline; Python's is LF. */
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    *out = pcre2_compile((PCRE2_SPTR)spelled->data, spelled->bytes, options, &number, &offset,
                         context);
    pcre2_compile_context_free(context);
    if (!*out) {
        char reason[128] = "";

        pcre2_get_error_message(number, (PCRE2_UCHAR *)reason, sizeof(reason));
        return error_set(err, ERR_FORMAT, "the pattern cannot be compiled: %s", reason);
    }
    return 0;
}

int pattern_compile(struct pattern **out, const char *text, size_t bytes,
                    enum pattern_anchor anchor, struct error *err)
{
    /* Plain groups need not capture: nothing admitted can refer back to them. */
    uint32_t options = PCRE2_UTF | PCRE2_NO_AUTO_CAPTURE | PCRE2_ANCHORED;
    struct pattern *pattern = NULL;
    struct text spelled = { 0 };
    int status;

    if (bytes > PATTERN_BYTES_MAX)
        return error_set(err, ERR_FORMAT, "a pattern of %zu bytes is over the limit of %u", bytes,
                         PATTERN_BYTES_MAX);
    pattern = calloc(1, sizeof(*pattern));
    if (!pattern)
        return error_no_memory(err, "a pattern");

    text_adds(&spelled, anchor == PATTERN_SUFFIX_KEY ? "(.*\\.)?(" : "");
    status = pattern_translate(&spelled, text, bytes, &pattern->has_classes, err);
    if (status)
        goto out;
    if (anchor == PATTERN_SUFFIX_KEY)
        text_adds(&spelled, ")$");
    else
        options |= PCRE2_ENDANCHORED;
    pattern->text = malloc(bytes + 1);
    if (spelled.failed || !pattern->text) {
        status = error_no_memory(err, "a pattern");
        goto out;
    }
    memcpy(pattern->text, text, bytes);
    pattern->text[bytes] = '\0';
    pattern->bytes = bytes;
    pattern->plain = anchor == PATTERN_SUFFIX_KEY &&
                     strspn(pattern->text, NAME_CHARACTERS) == bytes;

    status = compile_code(&pattern->code, &spelled, options, err);
    if (status)
        goto out;
    pattern->limits = pcre2_match_context_create(NULL);
    if (!pattern->limits) {
        status = error_no_memory(err, "a pattern");
        goto out;
    }
    pcre2_set_match_limit(pattern->limits, MATCH_STEPS_MAX);
    pcre2_set_depth_limit(pattern->limits, MATCH_DEPTH_MAX);
    pcre2_set_heap_limit(pattern->limits, MATCH_HEAP_KIB_MAX);
    *out = pattern;
    pattern = NULL;

out:
    text_release(&spelled);
    pattern_free(pattern);
    return status;
}

static bool is_printable_ascii(const char *name, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (name[i] < 0x20 || name[i] > 0x7e)
            return false;
    }
    return true;
}

/*
 * (.*\.)?(KEY)$ on a printable name, by hand: adapters with a rank for every one of thousands of
 * modules have as many keys, and each is tried on each module.
 */
static bool match_plain_key(const struct pattern *pattern, const char *name, size_t name_bytes)
{
    size_t begin = name_bytes - pattern->bytes;

    if (name_bytes < pattern->bytes || (begin && name[begin - 1] != '.'))
        return false;
    for (size_t i = 0; i < pattern->bytes; i++) {
        if (pattern->text[i] != '.' && pattern->text[i] != name[begin + i])
            return false;
    }
    return true;
}

int pattern_match(const struct pattern *pattern, const char *name, size_t name_bytes, bool *matched,
                  struct error *err)
{
    char quoted_name[QUOTED_BYTES];
    char quoted[QUOTED_BYTES];
    char reason[128] = "";
    pcre2_match_data *data;
    bool printable = (pattern->plain || pattern->has_classes) &&
                     is_printable_ascii(name, name_bytes);
    int found;

    if (pattern->plain && printable) {
        *matched = match_plain_key(pattern, name, name_bytes);
        return 0;
    }
    if (pattern->has_classes && !printable)
        return error_set(err, ERR_FORMAT,
                         "the name '%s' is not plain ASCII, and pattern '%s' has \\d, \\w, \\s or "
                         "\\b, which Python may read otherwise there",
                         error_quote(quoted_name, sizeof(quoted_name), name, name_bytes),
                         error_quote(quoted, sizeof(quoted), pattern->text, pattern->bytes));
    /* Not kept with the pattern: it holds on to the 20 KiB and more that a match has needed. */
    data = pcre2_match_data_create(1, NULL);
    if (!data)
        return error_no_memory(err, "the match of a pattern");
    found = pcre2_match(pattern->code, (PCRE2_SPTR)name, name_bytes, 0, 0, data, pattern->limits);
    pcre2_match_data_free(data);
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH) {
        *matched = found >= 0;
        return 0;
    }
    if (found == PCRE2_ERROR_NOMEMORY)
        return error_no_memory(err, "the match of a pattern");
    pcre2_get_error_message(found, (PCRE2_UCHAR *)reason, sizeof(reason));
    return error_set(err, ERR_FORMAT, "pattern '%s' cannot be matched against '%s': %s",
                     error_quote(quoted, sizeof(quoted), pattern->text, pattern->bytes),
                     error_quote(quoted_name, sizeof(quoted_name), name, name_bytes), reason);
}

void pattern_free(struct pattern *pattern)
{
    if (!pattern)
        return;
    pcre2_match_context_free(pattern->limits);
    pcre2_code_free(pattern->code);
    free(pattern->text);
    free(pattern);
}
