#include "cli_values.h"

#include "cli_lexer.h"
#include "cli_options.h"
#include "cli_text.h"
#include "lorafold.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define THREADS_MAX 1024

int cli_fail(struct lorafold_error *err, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    err->code = code;
    return code;
}

/* Decimal only: strtod() alone would also take "nan", "0x1p3" and leading blanks. */
static bool parse_weight(const char *text, double *out)
{
    char *end;

    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text))
        return false;
    errno = 0;
    *out = strtod(text, &end);
    return !*end && errno != ERANGE && isfinite(*out);
}

int cli_parse_adapter(struct lorafold_adapter *out, char *text, struct lorafold_error *err)
{
    char *colon = strrchr(text, ':');
    char quoted[CLI_QUOTED_BYTES];
    char quoted_weight[64];
    double weight = 1.0;
    struct stat st;

    if (colon && lstat(text, &st) != 0) {
        if (!parse_weight(colon + 1, &weight))
            return cli_fail(
                err, LORAFOLD_USAGE,
                "adapter '%s' does not exist, and '%s' behind its last ':' is not a weight "
                "(a finite number such as 0.5)",
                cli_quote(quoted, sizeof(quoted), text),
                cli_quote(quoted_weight, sizeof(quoted_weight), colon + 1));
        if (colon == text)
            return cli_fail(err, LORAFOLD_USAGE, "no adapter in front of the weight '%s'",
                            cli_quote(quoted, sizeof(quoted), text));
        *colon = '\0';
    }
    *out = (struct lorafold_adapter){ text, weight };
    return 0;
}

/* "bf16, f16, f32": the choices that are not refused. */
static void list_choices(char *buf, size_t buf_bytes, const struct cli_choice *choices)
{
    size_t used = 0;

    buf[0] = '\0';
    for (const struct cli_choice *choice = choices; choice->name; choice++)
        if (!choice->refusal && used < buf_bytes)
            used += (size_t)snprintf(buf + used, buf_bytes - used, "%s%s%s", used ? ", " : "",
                                     choice->name,
                                     choice->name[strlen(choice->name) - 1] == ':' ? "N" : "");
}

/* In any case and with '-' for '_'.  A name that ends in ':' stands for all that begins with it. */
static bool choice_matches(const char *name, const char *value)
{
    size_t name_bytes = strlen(name);
    size_t value_bytes = strlen(value);

    if (name[name_bytes - 1] == ':' && value_bytes > name_bytes)
        value_bytes = name_bytes;
    if (value_bytes != name_bytes)
        return false;
    for (size_t i = 0; i < name_bytes; i++) {
        int c = tolower((unsigned char)value[i]);

        if (name[i] != c && !(name[i] == '_' && c == '-'))
            return false;
    }
    return true;
}

static int parse_choice(const struct cli_choice **out, const struct cli_token *token,
                        struct lorafold_error *err)
{
    char quoted[CLI_QUOTED_BYTES];
    char known[160];

    for (const struct cli_choice *choice = token->option->choices; choice->name; choice++) {
        if (!choice_matches(choice->name, token->value))
            continue;
        if (choice->refusal && *choice->refusal)
            return cli_fail(err, LORAFOLD_USAGE, "'%s %s': %s", token->spelling,
                            cli_quote(quoted, sizeof(quoted), token->value), choice->refusal);
        *out = choice;
        return 0;
    }
    list_choices(known, sizeof(known), token->option->choices);
    return cli_fail(err, LORAFOLD_USAGE, "'%s %s': not one of: %s", token->spelling,
                    cli_quote(quoted, sizeof(quoted), token->value), known);
}

/* A number up to 1 is a fraction; with a unit, or larger, it is a size. */
static int parse_share(struct cli_share *out, const struct cli_token *token,
                       struct lorafold_error *err)
{
    char quoted[CLI_QUOTED_BYTES];
    double fraction;

    *out = (struct cli_share){ 0 };
    if (parse_weight(token->value, &fraction) && (fraction <= 1 || strchr(token->value, '.'))) {
        out->fraction = fraction;
        if (fraction > 0 && fraction <= 1)
            return 0;
    } else if (lorafold_parse_size(token->value, &out->bytes) && out->bytes) {
        return 0;
    }
    return cli_fail(err, LORAFOLD_USAGE,
                    "'%s %s': neither a size such as 2GiB nor a fraction such as 0.5",
                    token->spelling, cli_quote(quoted, sizeof(quoted), token->value));
}

static int parse_count(unsigned *out, const struct cli_token *token, struct lorafold_error *err)
{
    char quoted[CLI_QUOTED_BYTES];
    unsigned long value = 0;

    if (strspn(token->value, "0123456789") == strlen(token->value) && strlen(token->value) <= 9)
        value = strtoul(token->value, NULL, 10);
    if (value < 1 || value > THREADS_MAX)
        return cli_fail(err, LORAFOLD_USAGE, "'%s %s': not a whole number from 1 to %d",
                        token->spelling, cli_quote(quoted, sizeof(quoted), token->value),
                        THREADS_MAX);
    *out = (unsigned)value;
    return 0;
}

int cli_store_value(struct cli_arguments *out, const struct cli_token *token,
                    struct lorafold_error *err)
{
    const struct cli_option *option = token->option;
    void *member = (char *)out + option->member;
    const struct cli_choice *choice = NULL;
    char quoted[CLI_QUOTED_BYTES];
    int status;

    if (cli_option_takes_value(option) && !*token->value)
        return cli_fail(err, LORAFOLD_USAGE, "the value of '%s' is empty", token->spelling);
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)member = true;
        return 0;
    case CLI_STRING:
        *(const char **)member = token->value;
        return 0;
    case CLI_SIZE:
        if (lorafold_parse_size(token->value, member))
            return 0;
        return cli_fail(err, LORAFOLD_USAGE, "'%s %s': not a size such as 5GB, 200MB or 128MiB",
                        token->spelling, cli_quote(quoted, sizeof(quoted), token->value));
    case CLI_SHARE:
        return parse_share(member, token, err);
    case CLI_COUNT:
        return parse_count(member, token, err);
    case CLI_CHOICE:
    case CLI_WORD:
        status = parse_choice(&choice, token, err);
        if (!choice)
            return status;
        if (option->kind == CLI_CHOICE)
            *(int *)member = choice->value;
        else
            *(const char **)member = choice->name[strlen(choice->name) - 1] == ':' ? token->value
                                                                                   : choice->name;
        return 0;
    case CLI_ADAPTER:
        status = cli_parse_adapter(&out->adapters[out->adapter_count], token->value, err);
        out->adapter_count += !status;
        return status;
    case CLI_LIST:
        ((struct cli_list *)member)->items[((struct cli_list *)member)->count++] = token->value;
        return 0;
    case CLI_NOTED:
        out->note = option->help;
        return 0;
    }
    return 0;
}
