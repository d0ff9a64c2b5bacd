/*
 * Any bytes as config.json and as hf_quant_config.json: sizes that are read can be divided by.
 */

#include "fuzz/fuzz.h"
#include "scheme/config.h"

#include <string.h>

static void check(const struct scheme_config *config)
{
    FUZZ_CHECK(config->group_count <= SCHEME_GROUPS_MAX);
    FUZZ_CHECK(memchr(config->method, 0, sizeof(config->method)) &&
               memchr(config->format, 0, sizeof(config->format)) &&
               memchr(config->sparsity, 0, sizeof(config->sparsity)));
    for (size_t i = 0; i < config->group_count; i++) {
        const struct scheme_group *group = &config->groups[i];

        FUZZ_CHECK((group->block_rows == 0) == (group->block_cols == 0));
        FUZZ_CHECK(group->group_size <= INT32_MAX && group->bits <= INT32_MAX);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *json = (const char *)data;

    for (int extra = 0; extra < 2; extra++) {
        struct scheme_config config = { 0 };
        struct error err = { 0 };

        if (scheme_config_read(&config, extra ? NULL : json, size, extra ? json : NULL, size, &err))
            FUZZ_CHECK(err.code == ERR_FORMAT && err.text[0]);
        else
            check(&config);
    }
    return 0;
}
