/* The names that PEFT writes, from those of careless programs.  Everything is made from headers. */
#include "adapter/spelling.h"

#include "adapter/pairs.h"
#include "made_header.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define P "base_model.model."
#define TENSORS_MAX 8

/* The configuration stays the caller's: adapter_release() must not free it. */
static void build(struct adapter *adapter, const struct adapter_config *config,
                  const struct made *tensors)
{
    struct error err = { 0 };

    *adapter = (struct adapter){ .config = *config, .name = strdup("a") };
    adapter->config.rank = 2;
    adapter->config.alpha = 4;
    made_parse(&adapter->header, tensors, made_count(tensors, TENSORS_MAX));
    if (adapter_build_pairs(adapter, true, NULL, &err))
        fail_msg("%s", err.text);
}

static void release(struct adapter *adapter)
{
    adapter->config = (struct adapter_config){ 0 };
    adapter_release(adapter);
}

#define NAMES(...)                                                                                 \
    {                                                                                              \
        .names = (char *[]){ __VA_ARGS__ },                                                        \
        .name_count = sizeof((char *[]){ __VA_ARGS__ }) / sizeof(char *), .present = true          \
    }

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

static uint64_t rows[] = { 5, 3 };
static struct token_rows tokens[] = { { NULL, rows, 2 } };

/* The tensors of an adapter, and their names in the order of the file; NULL: left out. */
static const struct {
    const char *what;
    struct adapter_config config;
    struct made tensors[TENSORS_MAX];
    const char *names[TENSORS_MAX];
} cases[] = {
    { "as PEFT writes it",
      { .lora_bias = true },
      { { P "q.lora_A.weight", { 2, 4 } },
        { P "q.lora_B.bias", { 6 } },
        { P "q.lora_B.weight", { 6, 2 } } },
      { P "q.lora_A.weight", P "q.lora_B.bias", P "q.lora_B.weight" } },
    { "prefixes",
      { 0 },
      { { "q.lora_A.weight", { 2, 4 } },
        { P P "q.lora_B.weight", { 6, 2 } },
        { "module." P "_orig_mod.k.lora_A.weight", { 2, 4 } },
        { "_fsdp_wrapped_module." P "k._checkpoint_wrapped_module.lora_B.weight", { 6, 2 } } },
      { P "q.lora_A.weight", P "q.lora_B.weight", P "k.lora_A.weight", P "k.lora_B.weight" } },
    { "names of the adapter",
      { .dora = true },
      { { P "q.lora_A.default.weight", { 2, 4 } },
        { P "q.lora_B.default.weight", { 6, 2 } },
        { P "q.lora_magnitude_vector.default.weight", { 6 } } },
      { P "q.lora_A.weight", P "q.lora_B.weight", P "q.lora_magnitude_vector" } },
    { "another name, which is also that of a module",
      { .modules_to_save = NAMES("head") },
      { { P "german.q.lora_A.german.weight", { 2, 4 } },
        { P "german.q.lora_B.german.weight", { 6, 2 } },
        { P "german.head.modules_to_save.german.weight", { 4 } } },
      { P "german.q.lora_A.weight", P "german.q.lora_B.weight", P "german.head.weight" } },
    { "forms of saved modules",
      { .modules_to_save = NAMES("head") },
      { { P "head.modules_to_save.default.weight", { 4 } },
        { P "head.original_module.weight", { 4 } },
        { P "head.modules_to_save.bias", { 4 } } },
      { P "head.weight", NULL, P "head.bias" } },
    { "wrapped layers",
      { .bias = ADAPTER_BIAS_ALL },
      { { P "lm_head.lora_A.weight", { 2, 4 } },
        { P "lm_head.lora_B.weight", { 6, 2 } },
        { P "lm_head.weight", { 6, 4 } },
        { P "lm_head.base_layer.bias", { 6 } },
        { P "k.bias", { 6 } },
        { P "mha.base_layer.out.base_layer.bias", { 6 } } },
      { P "lm_head.lora_A.weight", P "lm_head.lora_B.weight", P "lm_head.base_layer.weight",
        P "lm_head.base_layer.bias", P "k.bias", P "mha.base_layer.out.base_layer.bias" } },
    { "an embedding",
      { 0 },
      { { P "e.lora_embedding_A.default", { 2, 9 } }, { P "e.lora_embedding_B", { 6, 2 } } },
      { P "e.lora_embedding_A", P "e.lora_embedding_B" } },
    { "tokens inside LoRA",
      { .token_rows = tokens, .token_rows_count = 1 },
      { { P "a.trainable_tokens_delta", { 2, 4 } },
        { P "b.token_adapter.trainable_tokens_delta.default", { 2, 4 } },
        { P "lm_head.token_adapter.base_layer.weight", { 9, 4 } } },
      { P "a.token_adapter.trainable_tokens_delta", P "b.token_adapter.trainable_tokens_delta",
        P "lm_head.token_adapter.base_layer.weight" } },
    { "tokens alone",
      { .type = ADAPTER_TRAINABLE_TOKENS, .token_rows = tokens, .token_rows_count = 1 },
      { { P "a.trainable_tokens_delta.default", { 2, 4 } },
        { P "b.token_adapter.trainable_tokens_delta", { 2, 4 } } },
      { P "a.trainable_tokens_delta", P "b.trainable_tokens_delta" } },
    { "what means something in training only, and what is not understood",
      { 0 },
      { { P "q.lora_A.weight", { 2, 4 } },
        { P "q.lora_B.weight", { 6, 2 } },
        { P "q.lora_velora_embed.default", { 3 } },
        { P "q.lora_monteclora_sampler.default.std", { 0 } },
        { P "q.lora_diag", { 2 } },
        { P "k.weight", { 6, 2 } } },
      { P "q.lora_A.weight", P "q.lora_B.weight", P "q.lora_velora_embed",
        P "q.lora_monteclora_sampler.std", NULL, NULL } },
};

static void test_spelling__names(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct adapter_spelled *list = NULL;
        struct adapter adapter;
        struct error err = { 0 };
        size_t count = 0;
        size_t next = 0;

        build(&adapter, &cases[i].config, cases[i].tensors);
        if (adapter_spell(&list, &count, &adapter, &err))
            fail_msg("%s: %s", cases[i].what, err.text);
        for (size_t t = 0; t < made_count(cases[i].tensors, TENSORS_MAX); t++) {
            if (!cases[i].names[t])
                continue;
            if (next == count || strcmp(list[next].name, cases[i].names[t]) != 0)
                fail_msg("%s: '%s' instead of '%s'", cases[i].what,
                         next < count ? list[next].name : "(end)", cases[i].names[t]);
            assert_int_equal(list[next].tensor, t);
            next++;
        }
        assert_int_equal(next, count);
        adapter_free_spelled(list, count);
        release(&adapter);
    }
}

static void test_spelling__two_of_one_name(void **state)
{
    static const struct adapter_config config = { 0 };
    static const struct made tensors[TENSORS_MAX] = {
        { P "q.lora_A.weight", { 2, 4 } },
        { P "q.lora_B.weight", { 6, 2 } },
        { P "q.lora_velora_embed", { 3 } },
        { P "q.lora_velora_embed.default", { 3 } },
    };
    struct adapter_spelled *list = NULL;
    struct adapter adapter;
    struct error err = { 0 };
    size_t count = 0;

    (void)state;
    build(&adapter, &config, tensors);
    assert_int_equal(adapter_spell(&list, &count, &adapter, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "stand for '" P "q.lora_velora_embed'"));
    assert_null(list);
    release(&adapter);
}

/* A merge's plan lists what the base has no place for. */
static void test_spelling__unused_afterwards(void **state)
{
    static const struct adapter_config config = { 0 };
    static const struct made tensors[TENSORS_MAX] = {
        { P "q.lora_A.weight", { 2, 4 } },
        { P "q.lora_B.weight", { 6, 2 } },
        { P "k.lora_A.weight", { 2, 4 } },
        { P "k.lora_B.weight", { 6, 2 } },
    };
    struct adapter_spelled *list = NULL;
    struct adapter adapter;
    struct error err = { 0 };
    size_t count = 0;

    (void)state;
    build(&adapter, &config, tensors);
    assert_int_equal(adapter_add_unused(&adapter, 3, &err), 0);
    assert_int_equal(adapter_add_unused(&adapter, 2, &err), 0);
    assert_int_equal(adapter_spell(&list, &count, &adapter, &err), 0);
    assert_int_equal(count, 2);
    assert_string_equal(list[1].name, P "q.lora_B.weight");
    adapter_free_spelled(list, count);
    release(&adapter);
}

#pragma GCC diagnostic pop

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spelling__names),
        cmocka_unit_test(test_spelling__two_of_one_name),
        cmocka_unit_test(test_spelling__unused_afterwards),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
