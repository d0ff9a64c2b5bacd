/*
 * Any bytes as config.json: what is admitted can be edited, the result is admitted too and says
 * what was asked for, and an edit that changes nothing gives the same bytes.
 */

#include "format/config_text.h"
#include "fuzz/fuzz.h"

#include <string.h>

static void edit(const char *json, size_t size, bool untie, const char *dtype)
{
    const struct config_edits edits = { untie, dtype };
    struct config_facts facts;
    struct text out = { 0 };
    struct error err = { 0 };

    FUZZ_CHECK(config_apply(&out, json, size, &edits, &err) == 0);
    if (!untie && !dtype)
        FUZZ_CHECK(out.bytes == size && memcmp(out.data, json, size) == 0);
    FUZZ_CHECK(config_read_facts(&facts, out.data, out.bytes, &err) == 0);
    if (untie)
        FUZZ_CHECK(facts.tied != 1); /* -1: where an array or object stands */
    text_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *json = (const char *)data;
    struct config_facts facts;
    struct error err = { 0 };

    if (config_read_facts(&facts, json, size, &err)) {
        FUZZ_CHECK(err.code == ERR_FORMAT && err.text[0]);
        return 0;
    }
    edit(json, size, false, NULL);
    edit(json, size, true, NULL);
    edit(json, size, true, "bfloat16");
    return 0;
}
