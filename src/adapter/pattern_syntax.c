#include "adapter/pattern_syntax.h"

#include <string.h>

/* Ours: PEFT's patterns nest two or three deep and never repeat by number. */
#define GROUP_DEPTH_MAX 100
#define REPEAT_MAX 1000

struct scanner {
    const char *text;
    size_t bytes;
    size_t at;
    struct text *out; /* the same expression in PCRE2's spelling */
    struct error *err;
    bool repeatable; /* the last item may take a quantifier */
    bool has_classes;
    unsigned depth;
    bool lookahead[GROUP_DEPTH_MAX]; /* per open group */
};

static int refuse(const struct scanner *scan, size_t at, const char *why)
{
    char quoted[QUOTED_BYTES];

    return error_set(scan->err, ERR_FORMAT, "pattern '%s', character %zu: %s",
                     error_quote(quoted, sizeof(quoted), scan->text, scan->bytes), at + 1, why);
}

/* The byte `ahead` of the present one, or -1 behind the end. */
static int peek(const struct scanner *scan, size_t ahead)
{
    if (scan->at >= scan->bytes || ahead >= scan->bytes - scan->at)
        return -1;
    return (unsigned char)scan->text[scan->at + ahead];
}

static bool is_letter_or_digit(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_printable_ascii(int c)
{
    return c >= 0x20 && c <= 0x7e;
}

/* Letters, digits and '_' stand for themselves; behind a backslash all else does. */
static void emit_literal(struct scanner *scan, int c)
{
    char spelling[2] = { '\\', (char)c };

    if (is_letter_or_digit(c) || c == '_')
        text_add(scan->out, spelling + 1, 1);
    else
        text_add(scan->out, spelling, 2);
}

/*
 * An escape; scan->at is on the backslash.  *literal is the character it stands for, or -1 for a
 * class or a word border, which `classes` must list and which is emitted here.
 */
static int scan_escape(struct scanner *scan, const char *classes, int *literal)
{
    int c = peek(scan, 1);

    if (c < 0)
        return refuse(scan, scan->at, "a backslash at the end");
    if (!is_printable_ascii(c))
        return refuse(scan, scan->at, "only printable ASCII may follow a backslash");
    *literal = c;
    if (is_letter_or_digit(c)) {
        if (!strchr(classes, c))
            return refuse(scan, scan->at,
                          "this escape is not admitted (\\d \\D \\w \\W \\s \\S, outside sets also "
                          "\\b, and escaped punctuation are)");
        text_add(scan->out, scan->text + scan->at, 2);
        scan->has_classes = true;
        *literal = -1;
    }
    scan->at += 2;
    return 0;
}

/* One member of a set that is not a hyphen between two: a character, or -1 for a class. */
static int scan_set_member(struct scanner *scan, int *literal)
{
    int c = peek(scan, 0);

    if (c < 0)
        return refuse(scan, scan->at, "the set is not closed");
    if (c == '\\')
        return scan_escape(scan, "dDwWsS", literal);
    if (!is_printable_ascii(c))
        return refuse(scan, scan->at, "only printable ASCII is admitted");
    if (c == '[')
        return refuse(scan, scan->at, "a '[' in a set must be escaped");
    if ((c == '-' || c == '&' || c == '~' || c == '|') && peek(scan, 1) == c)
        return refuse(scan, scan->at, "two of these in a set may become an operator in Python");
    *literal = c;
    scan->at++;
    return 0;
}

/* A set; scan->at is on its '['. */
static int scan_set(struct scanner *scan)
{
    size_t begin = scan->at++;
    size_t first;

    text_adds(scan->out, "[");
    if (peek(scan, 0) == '^') {
        text_adds(scan->out, "^");
        scan->at++;
    }
    if (peek(scan, 0) == ']')
        return refuse(scan, scan->at, "a ']' at the start of a set must be escaped");
    first = scan->at;
    while (peek(scan, 0) != ']') {
        size_t at = scan->at;
        int low = -1;
        int high = -1;
        int status;

        if (peek(scan, 0) < 0)
            return refuse(scan, begin, "the set is not closed");
        if (peek(scan, 0) == '-' && at != first && peek(scan, 1) != ']')
            return refuse(scan, at, "a '-' in a set stands between two characters, first or last");
        status = scan_set_member(scan, &low);
        if (status)
            return status;
        if (low >= 0)
            emit_literal(scan, low);
        if (peek(scan, 0) != '-' || peek(scan, 1) == ']')
            continue;
        scan->at++;
        if (peek(scan, 0) == '-')
            return refuse(scan, scan->at, "a '-' as the end of a range must be escaped");
        status = scan_set_member(scan, &high);
        if (status)
            return status;
        if (low < 0 || high < low)
            return refuse(scan, at, "this is not a range of characters");
        text_adds(scan->out, "-");
        emit_literal(scan, high);
    }
    scan->at++;
    text_adds(scan->out, "]");
    scan->repeatable = true;
    return 0;
}

/* The start of a group; scan->at is on its '('. */
static int scan_group(struct scanner *scan)
{
    bool lookahead = false;
    size_t bytes = 1;

    if (peek(scan, 1) == '?') {
        int kind = peek(scan, 2);

        if (kind != ':' && kind != '=' && kind != '!')
            return refuse(scan, scan->at,
                          "of the '(?' constructs only (?:...), (?=...) and (?!...) are admitted");
        lookahead = kind != ':';
        bytes = 3;
    }
    if (scan->depth == GROUP_DEPTH_MAX)
        return refuse(scan, scan->at, "groups are nested more than 100 deep");
    scan->lookahead[scan->depth++] = lookahead;
    text_add(scan->out, scan->text + scan->at, bytes);
    scan->at += bytes;
    scan->repeatable = false;
    return 0;
}

static int scan_group_end(struct scanner *scan)
{
    if (scan->depth == 0)
        return refuse(scan, scan->at, "this ')' closes nothing");
    scan->depth--;
    scan->repeatable = !scan->lookahead[scan->depth];
    text_adds(scan->out, ")");
    scan->at++;
    return 0;
}

/* Digits at scan->at; false if there are none or the number is over REPEAT_MAX. */
static bool scan_count(struct scanner *scan, unsigned *out)
{
    size_t begin = scan->at;
    unsigned value = 0;

    while (peek(scan, 0) >= '0' && peek(scan, 0) <= '9') {
        value = value * 10 + (unsigned)(peek(scan, 0) - '0');
        if (value > REPEAT_MAX)
            return false;
        scan->at++;
    }
    *out = value;
    return scan->at > begin;
}

/* {m} {m,} {m,n} {,n}; PCRE2 before 10.43 takes {,n} literally, so it is spelled {0,n}. */
static int scan_counts(struct scanner *scan)
{
    size_t begin = scan->at++;
    unsigned low = 0;
    unsigned high = 0;
    bool has_low = scan_count(scan, &low);
    bool has_high;

    if (has_low && peek(scan, 0) == '}') {
        text_addf(scan->out, "{%u}", low);
    } else {
        if (peek(scan, 0) != ',')
            goto refused;
        scan->at++;
        has_high = scan_count(scan, &high);
        if (peek(scan, 0) != '}' || (!has_low && !has_high) || (has_high && high < low))
            goto refused;
        if (has_high)
            text_addf(scan->out, "{%u,%u}", low, high);
        else
            text_addf(scan->out, "{%u,}", low);
    }
    scan->at++;
    return 0;

refused:
    return refuse(scan, begin,
                  "a '{' begins {m}, {m,}, {m,n} or {,n} with numbers up to 1000, or is escaped");
}

static int scan_quantifier(struct scanner *scan)
{
    size_t begin = scan->at;
    int status;

    if (!scan->repeatable)
        return refuse(scan, begin, "there is nothing here that can be repeated");
    if (peek(scan, 0) == '{') {
        status = scan_counts(scan);
        if (status)
            return status;
    } else {
        text_add(scan->out, scan->text + begin, 1);
        scan->at++;
    }
    if (peek(scan, 0) == '+')
        return refuse(scan, begin, "possessive quantifiers are not admitted");
    if (peek(scan, 0) == '?') {
        text_adds(scan->out, "?");
        scan->at++;
    }
    scan->repeatable = false;
    return 0;
}

static int scan_item(struct scanner *scan)
{
    int c = peek(scan, 0);
    int literal = -1;
    int status;

    if (!is_printable_ascii(c))
        return refuse(scan, scan->at, "only printable ASCII is admitted");
    switch (c) {
    case '\\':
        status = scan_escape(scan, "dDwWsSb", &literal);
        if (status)
            return status;
        if (literal >= 0)
            emit_literal(scan, literal);
        /* \b is a place, not a character: Python refuses to repeat it. */
        scan->repeatable = literal >= 0 || scan->text[scan->at - 1] != 'b';
        return 0;
    case '[':
        return scan_set(scan);
    case '(':
        return scan_group(scan);
    case ')':
        return scan_group_end(scan);
    case '*':
    case '+':
    case '?':
    case '{':
        return scan_quantifier(scan);
    case ']':
    case '}':
        return refuse(scan, scan->at, "a bracket that closes nothing must be escaped");
    case '^':
    case '$':
    case '|':
    case '.':
        text_add(scan->out, scan->text + scan->at, 1);
        scan->repeatable = c == '.';
        break;
    default:
        emit_literal(scan, c);
        scan->repeatable = true;
        break;
    }
    scan->at++;
    return 0;
}

int pattern_translate(struct text *out, const char *text, size_t bytes, bool *has_classes,
                      struct error *err)
{
    struct scanner scan = { .text = text, .bytes = bytes, .out = out, .err = err };

    while (scan.at < bytes) {
        int status = scan_item(&scan);

        if (status)
            return status;
    }
    if (scan.depth)
        return refuse(&scan, bytes, "a group is not closed");
    *has_classes = scan.has_classes;
    return 0;
}
