/*
 * Input: 'F' or 'S' for the anchor, a pattern, a line feed, a name.
 */

#include "adapter/pattern.h"
#include "fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;
    struct pattern *pattern = NULL;
    struct error err = { 0 };
    const char *end;
    size_t bytes;
    bool matched;
    int status;

    if (size < 2)
        return 0;
    end = memchr(text, '\n', size - 1);
    bytes = end ? (size_t)(end - text) : size - 1;
    status = pattern_compile(&pattern, text, bytes,
                             data[0] == 'S' ? PATTERN_SUFFIX_KEY : PATTERN_FULLMATCH, &err);
    FUZZ_CHECK(status == 0 || (status == ERR_FORMAT && err.code == status && err.text[0]));
    FUZZ_CHECK((pattern != NULL) == (status == 0));
    if (pattern && end) {
        status = pattern_match(pattern, end + 1, size - bytes - 2, &matched, &err);
        FUZZ_CHECK(status == 0 || status == ERR_FORMAT);
    }
    pattern_free(pattern);
    return 0;
}
