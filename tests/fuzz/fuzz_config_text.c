/*
 * Any bytes as config.json: what is admitted can be edited, the result is admitted too and says
 * what was asked for, and an edit that changes nothing gives the same bytes.
 */

#include "format/config_text.h"
#include "fuzz/fuzz.h"

#include <string.h>

static void edit(const char *json, size_t size, bool untie, const char *dtype)
{
    const struct config_edits edits = { .untie = untie, .dtype = dtype };
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

/* The new numbers are read back, and other facts are as they were. */
static void edit_numbers(const char *json, size_t size, const struct config_facts *before)
{
    static const uint64_t base_layers[] = { 1, 0, 1, 1 };
    const struct config_edits edits = {
        .vocab_from = before->vocab_size,
        .vocab_to = 1234567,
        .labels = 5,
        .base_layers = base_layers,
        .base_layer_count = before->num_hidden_layers > 1 ? 4 : 0,
    };
    struct config_facts facts;
    struct text out = { 0 };
    struct error err = { 0 };

    FUZZ_CHECK(config_apply(&out, json, size, &edits, &err) == 0);
    FUZZ_CHECK(config_read_facts(&facts, out.data, out.bytes, &err) == 0);
    if (before->vocab_size)
        FUZZ_CHECK(facts.vocab_size == 1234567);
    if (edits.base_layer_count)
        FUZZ_CHECK(facts.num_hidden_layers == 4);
    FUZZ_CHECK(facts.tied == before->tied && facts.quantised == before->quantised);
    text_release(&out);
}

/* No quantization_config is left, or the one that was given; doing it again changes nothing. */
static void edit_quantised(const char *json, size_t size, const char *quantise)
{
    const struct config_edits edits = { .unquantise = true, .quantise = quantise };
    struct config_facts facts;
    struct text once = { 0 };
    struct text again = { 0 };
    struct error err = { 0 };

    FUZZ_CHECK(config_apply(&once, json, size, &edits, &err) == 0);
    FUZZ_CHECK(config_read_facts(&facts, once.data, once.bytes, &err) == 0);
    FUZZ_CHECK(facts.quantised == (quantise != NULL));
    FUZZ_CHECK(config_apply(&again, once.data, once.bytes, &edits, &err) == 0);
    FUZZ_CHECK(again.bytes == once.bytes && memcmp(again.data, once.data, once.bytes) == 0);
    text_release(&once);
    text_release(&again);
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
    edit_numbers(json, size, &facts);
    edit_quantised(json, size, NULL);
    edit_quantised(json, size, "{\"bits\": 4}");
    return 0;
}
