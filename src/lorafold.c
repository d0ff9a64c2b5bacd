#include "merge.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

int give_error(struct lorafold_error *out, const struct error *err)
{
    _Static_assert(sizeof(out->text) == sizeof(err->text), "one sentence, one length");
    _Static_assert(
        (int)LORAFOLD_FAILED == ERR_FAILED && (int)LORAFOLD_USAGE == ERR_USAGE &&
            (int)LORAFOLD_FORMAT == ERR_FORMAT && (int)LORAFOLD_MISMATCH == ERR_MISMATCH &&
            (int)LORAFOLD_DIFFERENT == ERR_DIFFERENT && (int)LORAFOLD_CANCELLED == ERR_CANCELLED,
        "codes are the same inside and outside");
    if (out) {
        out->code = err->code;
        memcpy(out->text, err->text, sizeof(out->text));
    }
    return err->code;
}

const char *lorafold_version(void)
{
    return LORAFOLD_VERSION;
}

void lorafold_free(char *text)
{
    free(text);
}

bool lorafold_parse_size(const char *text, uint64_t *out)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {
        { "", 1 },
        { "B", 1 },
        { "KB", 1000 },
        { "MB", 1000000 },
        { "GB", 1000000000 },
        { "TB", UINT64_C(1000000000000) },
        { "KIB", UINT64_C(1) << 10 },
        { "MIB", UINT64_C(1) << 20 },
        { "GIB", UINT64_C(1) << 30 },
        { "TIB", UINT64_C(1) << 40 },
    };
    double value;
    char *end;

    while (isspace((unsigned char)*text))
        text++;
    if (!isdigit((unsigned char)*text))
        return false;
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
        return false;
    value = text_to_number(text, &end);
    if (end > text && (end[-1] == '.' || strcspn(text, "eEpP") < (size_t)(end - text)))
        return false;
    while (isspace((unsigned char)*end))
        end++;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcasecmp(end, units[i].name) != 0)
            continue;
        value *= (double)units[i].bytes;
        if (!(value >= 1 && value < 9.0e18))
            return false;
        *out = (uint64_t)value;
        return true;
    }
    return false;
}
