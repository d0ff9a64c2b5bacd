/*
 * Input: the text of an adapter_config.json.
 */

#include "adapter/config.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = { "model.layers.0.self_attn.q_proj", "lm_head", "",
                                         "h.12.attn.c_attn", "m\xc3\xa9.l.0.q" };
    struct adapter_config config;
    struct error err = { 0 };
    int status = adapter_config_parse(&config, (const char *)data, size, NULL, &err);

    FUZZ_CHECK(status == 0 || (status == ERR_FORMAT && err.code == status && err.text[0]));
    if (status)
        return 0;
    FUZZ_CHECK(config.rank >= 1);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        uint32_t rank;
        double scale;
        bool targeted;
        uint32_t blocks_a;
        uint32_t blocks_b;
        const struct token_rows *tokens = adapter_config_tokens(&config, names[i]);

        FUZZ_CHECK(!tokens || (tokens->count && tokens->rows[tokens->count - 1] <= UINT32_MAX));
        FUZZ_CHECK(adapter_config_blocks(&config, names[i], &blocks_a, &blocks_b, &err) ||
                   (blocks_a && blocks_b));
        adapter_config_saves(&config, names[i]);
        adapter_config_module(&config, names[i], &rank, &scale, &err);
        adapter_config_targets(&config, names[i], &targeted, &err);
    }
    adapter_config_release(&config);
    return 0;
}
