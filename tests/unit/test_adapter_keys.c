/* Keys as PEFT 0.21 writes them for every kind of layer, and what careless programs make of them.
 */

#include "adapter/adapter.h"
#include "adapter/pairs.h"
#include "made_header.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define P "base_model.model."
#define NONE ADAPTER_NO_TENSOR

/* What has to come out of a set of tensors. */
struct wanted {
    struct adapter_pair pairs[5]; /* up to one without module */
    struct adapter_saved saved[8];
    size_t unused_count;
};

static void keep_sentence(void *context, enum log_level level, const char *sentence)
{
    if (level == LOG_NOTICE)
        text_addf(context, "%s\n", sentence);
}

/* The configuration belongs to the caller: adapter_release() must not free it. */
static int build(struct adapter *adapter, const struct adapter_config *config,
                 const struct made *tensors, size_t count, bool allow_unused, struct text *said,
                 struct error *err)
{
    struct log log = { keep_sentence, said };
    int status;

    *adapter = (struct adapter){ .config = *config };
    adapter->config.rank = config->rank ? config->rank : 2;
    adapter->config.alpha = config->alpha != 0 ? config->alpha : 4;
    adapter->name = strdup("a");
    *err = (struct error){ 0 };
    made_parse(&adapter->header, tensors, count);
    status = adapter_build_pairs(adapter, allow_unused, said ? &log : NULL, err);
    adapter->config = (struct adapter_config){ 0 };
    return status;
}

#define NAMES(...)                                                                                 \
    {                                                                                              \
        .names = (char *[]){ __VA_ARGS__ },                                                        \
        .name_count = sizeof((char *[]){ __VA_ARGS__ }) / sizeof(char *), .present = true          \
    }
#define STRINGS(...)                                                                               \
    (char *[])                                                                                     \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define PAIR(module_, a, b)                                                                        \
    .module = (char[]){ module_ }, .tensor_a = (a), .tensor_b = (b), .tensor_b_bias = NONE,        \
    .tensor_magnitude = NONE, .tensor_base = NONE, .rank = 2, .scale = 2

#define Q                                                                                          \
    { P "q.lora_A.weight", { 2, 4 } },                                                             \
    {                                                                                              \
        P "q.lora_B.weight",                                                                       \
        {                                                                                          \
            6, 2                                                                                   \
        }                                                                                          \
    }

/* The tables leave fields out, and override some of PAIR. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

static const struct {
    const char *what;
    struct adapter_config config;
    struct made tensors[12];
    struct wanted wanted;
} understood[] = {
    { "convolutions, bias of B and lora_only",
      { .lora_bias = true, .bias = ADAPTER_BIAS_LORA_ONLY },
      { { P "c1.lora_A.weight", { 2, 4, 3 } },
        { P "c1.lora_B.weight", { 6, 2, 1 } },
        { P "c1.lora_B.bias", { 6 } },
        { P "c3.lora_A.weight", { 2, 4, 3, 3, 3 } },
        { P "c3.lora_B.weight", { 6, 2, 1, 1, 1 } },
        { P "c3.lora_B.default.bias", { 6 } },
        { P "c1.base_layer.bias", { 6 } } },
      { { { PAIR("c1", 0, 1), .tensor_b_bias = 2 }, { PAIR("c3", 3, 4), .tensor_b_bias = 5 } },
        { { ADAPTER_SAVED_TENSOR, "c1.bias", 6 } },
        0 } },
    { "three spellings of a magnitude, and its shapes",
      { .dora = true },
      { { P "a.lora_A.weight", { 2, 4 } },
        { P "a.lora_B.weight", { 6, 2 } },
        { P "a.lora_magnitude_vector", { 6 } },
        { P "c.lora_A.weight", { 2, 4, 3, 3 } },
        { P "c.lora_B.weight", { 6, 2, 1, 1 } },
        { P "c.lora_magnitude_vector.weight", { 1, 6, 1, 1 } },
        { P "e.lora_embedding_A", { 2, 11 } },
        { P "e.lora_embedding_B", { 8, 2 } },
        { P "e.lora_magnitude_vector.default.weight", { 8 } } },
      { { { PAIR("a", 0, 1), .tensor_magnitude = 2 },
          { PAIR("c", 3, 4), .tensor_magnitude = 5 },
          { PAIR("e", 6, 7), .layer = ADAPTER_LAYER_EMBEDDING, .tensor_magnitude = 8 } },
        { { 0 } },
        0 } },
    { "embedding and head, saved whole beside their factors",
      { 0 },
      { { P "embed_tokens.base_layer.weight", { 11, 8 } },
        { P "embed_tokens.lora_embedding_A.default", { 2, 11 } },
        { P "embed_tokens.lora_embedding_B.default", { 8, 2 } },
        { P "lm_head.base_layer.bias", { 11 } },
        { P "lm_head.base_layer.weight", { 11, 8 }, DTYPE_BF16 },
        { P "lm_head.lora_A.weight", { 2, 8 } },
        { P "lm_head.lora_B.weight", { 11, 2 } } },
      { { { PAIR("embed_tokens", 1, 2), .layer = ADAPTER_LAYER_EMBEDDING, .tensor_base = 0 },
          { PAIR("lm_head", 5, 6), .tensor_base = 4 } },
        { { ADAPTER_SAVED_TENSOR, "lm_head.bias", 3 } },
        0 } },
    { "head saved whole as before 0.7, and one stored transposed",
      { .fan_in_fan_out = true },
      { { P "lm_head.weight", { 11, 8 } },
        { P "lm_head.lora_A.weight", { 2, 8 } },
        { P "lm_head.lora_B.weight", { 11, 2 } },
        { P "q.weight", { 8, 11 } },
        { P "q.lora_A.weight", { 2, 8 } },
        { P "q.lora_B.weight", { 11, 2 } } },
      { { { PAIR("lm_head", 1, 2), .tensor_base = 0 }, { PAIR("q", 4, 5), .tensor_base = 3 } },
        { { 0 } },
        0 } },
    { "attention: the projection inside belongs to the layer, whose rank it has",
      { .target_modules = NAMES("mha"), .bias = ADAPTER_BIAS_ALL },
      { { P "x.mha.base_layer.out_proj.lora_A.weight", { 2, 8 } },
        { P "x.mha.base_layer.out_proj.lora_B.weight", { 8, 2 } },
        { P "x.mha.base_layer.out_proj.base_layer.bias", { 8 } },
        { P "x.mha.lora_A.weight", { 2, 8 } },
        { P "x.mha.lora_B.weight", { 24, 2 } },
        { P "x.rel_bias.weight", { 24 } } },
      { { { PAIR("x.mha", 3, 4) }, { PAIR("x.mha.out_proj", 0, 1) } },
        { { ADAPTER_SAVED_TENSOR, "x.mha.out_proj.bias", 2 },
          { ADAPTER_SAVED_TENSOR, "x.rel_bias.weight", 5 } },
        0 } },
    { "saved modules: with buffers, in all forms, and by ends of names without a dot",
      { .modules_to_save = NAMES("classifier", "orm"), .bias = ADAPTER_BIAS_ALL },
      { { P "classifier.dense.weight", { 8, 8 } },
        { P "classifier.pos", { 3 }, DTYPE_I64 },
        { P "classifier.dense.bias", { 8 } },
        { P "classifier.modules_to_save.default.dense.bias", { 8 } },
        { P "classifier.original_module.dense.bias", { 8 } },
        { P "x.norm.modules_to_save.weight", { 8 } },
        { P "x.norm.original_module.weight", { 8 } },
        { P "x.norm.modules_to_save.default.bias", { 8 } },
        { P "lm_head.token_adapter.base_layer.bias", { 8 } } },
      { { { 0 } },
        { { ADAPTER_SAVED_TENSOR, "classifier.dense.bias", 2 },
          { ADAPTER_SAVED_TENSOR, "classifier.dense.weight", 0 },
          { ADAPTER_SAVED_TENSOR, "classifier.pos", 1 },
          { ADAPTER_SAVED_TENSOR, "lm_head.bias", 8 },
          { ADAPTER_SAVED_TENSOR, "x.norm.bias", 7 },
          { ADAPTER_SAVED_TENSOR, "x.norm.weight", 5 } },
        0 } },
    { "trained tokens, with the whole embedding too",
      { .token_rows = (struct token_rows[]){ { "embed_tokens", NULL, 2 }, { "lm_head", NULL, 1 } },
        .token_rows_count = 2 },
      { { P "model.embed_tokens.token_adapter.trainable_tokens_delta", { 2, 8 } },
        { P "lm_head.token_adapter.trainable_tokens_delta.default", { 1, 8 } },
        { P "model.embed_tokens.token_adapter.base_layer.weight", { 11, 8 } } },
      { { { 0 } },
        { { ADAPTER_SAVED_ROWS, "lm_head.weight", 1 },
          { ADAPTER_SAVED_TENSOR, "model.embed_tokens.weight", 2 },
          { ADAPTER_SAVED_ROWS, "model.embed_tokens.weight", 0 } },
        0 } },
    { "trained tokens alone",
      { .type = ADAPTER_TRAINABLE_TOKENS,
        .token_rows = (struct token_rows[]){ { NULL, NULL, 2 } },
        .token_rows_count = 1 },
      { { P "wte.trainable_tokens_delta", { 2, 8 } } },
      { { { 0 } }, { { ADAPTER_SAVED_ROWS, "wte.weight", 0 } }, 0 } },
    { "parameters of experts, nested, beside a router and an ordinary layer",
      { .target_modules = NAMES("q"),
        .target_parameters = STRINGS("mlp.experts.gate_up_proj", "x.mlp.experts.down_proj",
                                     "gate.weight", "q.weight"),
        .target_parameters_count = 4 },
      { { P "x.mlp.experts.base_layer.lora_A.weight", { 6, 16 } },
        { P "x.mlp.experts.base_layer.lora_B.weight", { 64, 6 } },
        { P "x.mlp.experts.lora_A.weight", { 6, 32 } },
        { P "x.mlp.experts.lora_B.weight", { 16, 6 } },
        { P "x.mlp.gate.lora_A.weight", { 2, 16 } },
        { P "x.mlp.gate.lora_B.weight", { 3, 2 } },
        { P "x.q.lora_A.weight", { 2, 16 } },
        { P "x.q.lora_B.weight", { 16, 2 } } },
      { { { PAIR("x.mlp.experts", 2, 3), .parameter = true, .rank = 6, .scale = 0 },
          { PAIR("x.mlp.experts", 0, 1), .depth = 1, .parameter = true, .rank = 6, .scale = 0 },
          { PAIR("x.mlp.gate", 4, 5), .parameter = true, .scale = 0 },
          { PAIR("x.q", 6, 7) } },
        { { 0 } },
        0 } },
    { "a parameter without its module's name, a layer below a wrapped one",
      { .target_parameters = STRINGS("gate_up_proj"),
        .target_parameters_count = 1,
        .bias = ADAPTER_BIAS_LORA_ONLY },
      { { P "e.base_layer.base_layer.lora_A.weight", { 6, 6 } },
        { P "e.base_layer.base_layer.lora_B.weight", { 4, 6 } },
        { P "e.base_layer.base_layer.base_layer.bias", { 3 } },
        { P "e.base_layer.up.lora_A.weight", { 3, 16 } },
        { P "e.base_layer.up.lora_B.weight", { 3, 3 } } },
      { { { PAIR("e", 0, 1), .depth = 2, .parameter = true, .rank = 6, .scale = 0 },
          { PAIR("e.up", 3, 4), .parameter = true, .rank = 3, .scale = 0 } },
        { { ADAPTER_SAVED_TENSOR, "e.bias", 2 } },
        0 } },
    { "block-diagonal factors, by any part of the path",
      { .rank = 4,
        .bdlora = true,
        .bdlora_blocks = 2,
        .bdlora_a = NAMES("0"),
        .bdlora_b = NAMES("k_p") },
      { { P "x.k_proj.lora_A.weight", { 4, 6 } },
        { P "x.k_proj.lora_B.weight", { 8, 2 } },
        { P "x.0.q.lora_A.weight", { 4, 4 } },
        { P "x.0.q.lora_B.weight", { 6, 4 } },
        { P "x.0.q.base_layer.weight", { 6, 8 } } },
      { { { PAIR("x.0.q", 2, 3), .rank = 4, .scale = 1, .tensor_base = 4 },
          { PAIR("x.k_proj", 0, 1), .rank = 4, .scale = 1 } },
        { { 0 } },
        0 } },
    { "what is for training only",
      { 0 },
      { { P "q.lora_A.weight", { 2, 4 } },
        { P "q.lora_B.weight", { 6, 2 } },
        { P "q.lora_velora_embed", { 1 } },
        { P "q.lora_monteclora_sampler.std_prior", { 4 } } },
      { { { PAIR("q", 0, 1) } }, { { 0 } }, 0 } },
    { "another adapter's name, everywhere the same",
      { .modules_to_save = NAMES("norm") },
      { { P "q.lora_A.mine.weight", { 2, 4 } },
        { P "q.lora_B.mine.weight", { 6, 2 } },
        { P "e.lora_embedding_A.mine", { 2, 4 } },
        { P "e.lora_embedding_B.mine", { 6, 2 } },
        { P "norm.modules_to_save.mine.weight", { 6 } } },
      { { { PAIR("e", 2, 3), .layer = ADAPTER_LAYER_EMBEDDING }, { PAIR("q", 0, 1) } },
        { { ADAPTER_SAVED_TENSOR, "norm.weight", 4 } },
        0 } },
    { "names of what wrapped the model",
      { 0 },
      { { "module." P "a.lora_A.weight", { 2, 4 } },
        { "a.lora_B.weight", { 6, 2 } },
        { P P "_orig_mod.b._checkpoint_wrapped_module.c.lora_A.weight", { 2, 4 } },
        { "_fsdp_wrapped_module." P "module.b.c._orig_mod.lora_B.weight", { 6, 2 } } },
      { { { PAIR("a", 0, 1) }, { PAIR("b.c", 2, 3) } }, { { 0 } }, 0 } },
};
static void check_pair(const char *what, const struct adapter_pair *is,
                       const struct adapter_pair *wanted)
{
    if (strcmp(is->module, wanted->module) != 0)
        fail_msg("%s: '%s' where '%s' was expected", what, is->module, wanted->module);
    assert_int_equal(is->layer, wanted->layer);
    assert_int_equal(is->depth, wanted->depth);
    assert_int_equal(is->parameter, wanted->parameter);
    assert_int_equal(is->tensor_a, wanted->tensor_a);
    assert_int_equal(is->tensor_b, wanted->tensor_b);
    assert_int_equal(is->tensor_b_bias, wanted->tensor_b_bias);
    assert_int_equal(is->tensor_magnitude, wanted->tensor_magnitude);
    assert_int_equal(is->tensor_base, wanted->tensor_base);
    assert_int_equal(is->rank, wanted->rank);
    assert_true(is->scale == wanted->scale);
}

static void test_keys__understood(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(understood); i++) {
        const struct wanted *wanted = &understood[i].wanted;
        struct adapter adapter;
        struct error err;
        size_t pairs = 0;
        size_t saved = 0;

        if (build(&adapter, &understood[i].config, understood[i].tensors,
                  made_count(understood[i].tensors, COUNT(understood[i].tensors)), false, NULL,
                  &err))
            fail_msg("%s: %s", understood[i].what, err.text);
        for (; wanted->pairs[pairs].module; pairs++) {
            assert_true(pairs < adapter.pair_count);
            check_pair(understood[i].what, &adapter.pairs[pairs], &wanted->pairs[pairs]);
        }
        for (; wanted->saved[saved].name; saved++) {
            assert_true(saved < adapter.saved_count);
            assert_string_equal(adapter.saved[saved].name, wanted->saved[saved].name);
            assert_int_equal(adapter.saved[saved].kind, wanted->saved[saved].kind);
            assert_int_equal(adapter.saved[saved].tensor, wanted->saved[saved].tensor);
        }
        assert_int_equal(adapter.pair_count, pairs);
        assert_int_equal(adapter.saved_count, saved);
        assert_int_equal(adapter.unused_count, wanted->unused_count);
        adapter_release(&adapter);
    }
}

static const struct {
    struct adapter_config config;
    struct made tensors[6];
    int code;
    const char *part;
} refused[] = {
    { { .dora = true },
      { Q },
      ERR_FORMAT,
      "'use_dora' is true in adapter_config.json, but module" },
    { { .lora_bias = true }, { Q }, ERR_FORMAT, "but module 'q' has no lora_B.bias" },
    { { .dora = true },
      { Q, { P "q.lora_magnitude_vector", { 2, 3 } } },
      ERR_FORMAT,
      "does not have one element for each of the 6 outputs" },
    { { .dora = true },
      { Q, { P "q.lora_magnitude_vector", { 7 } } },
      ERR_FORMAT,
      "does not have one element for each" },
    { { .dora = true },
      { Q, { P "q.lora_magnitude_vector", { 6 }, DTYPE_I32 } },
      ERR_FORMAT,
      "is I32; factors are" },
    { { .dora = true },
      { Q, { P "q.lora_magnitude_vector", { 6 } }, { P "q.lora_magnitude_vector.weight", { 6 } } },
      ERR_FORMAT,
      "has two tensors for lora_magnitude_vector" },
    { { .lora_bias = true },
      { Q, { P "q.lora_B.bias", { 1, 6 } } },
      ERR_FORMAT,
      "does not have one element for each of the 6" },
    { { 0 },
      { { P "c.lora_A.weight", { 2, 4, 3, 3 } }, { P "c.lora_B.weight", { 6, 1, 1, 1 } } },
      ERR_FORMAT,
      "rank 2 and a B factor of rank 1, as a convolution with groups has" },
    { { 0 },
      { { P "c.lora_A.weight", { 2, 4, 3 } }, { P "c.lora_B.weight", { 6, 2, 3 } } },
      ERR_FORMAT,
      "has a kernel that is not 1" },
    { { 0 },
      { { P "c.lora_A.weight", { 2, 4, 3 } }, { P "c.lora_B.weight", { 6, 2 } } },
      ERR_FORMAT,
      "has 3 dimensions, but" },
    { { 0 },
      { { P "e.lora_embedding_A", { 2, 4, 1 } }, { P "e.lora_embedding_B", { 6, 2, 1 } } },
      ERR_FORMAT,
      "has 3 dimensions; factors of embeddings" },
    { { .target_parameters = STRINGS("e.w"), .target_parameters_count = 1 },
      { { P "e.lora_A.weight", { 6, 4 } }, { P "e.lora_B.weight", { 6, 4 } } },
      ERR_FORMAT,
      "rank 6 and a B factor of rank 4" },
    { { .target_parameters = STRINGS("e.w"), .target_parameters_count = 1 },
      { { P "xe.lora_A.weight", { 6, 4 } }, { P "xe.lora_B.weight", { 6, 6 } } },
      ERR_MISMATCH,
      "belongs to module 'xe', which" },
    { { .target_modules = NAMES("e") },
      { { P "e.base_layer.lora_A.weight", { 2, 4 } },
        { P "e.base_layer.lora_B.weight", { 6, 2 } } },
      ERR_MISMATCH,
      "belongs to a parameter of module 'e'" },
    { { .target_modules = NAMES("mha") },
      { { P "mha.out_proj.lora_A.weight", { 2, 4 } },
        { P "mha.out_proj.lora_B.weight", { 6, 2 } } },
      ERR_MISMATCH,
      "belongs to module 'mha.out_proj'" },
    { { .bdlora = true, .bdlora_blocks = 2, .bdlora_b = NAMES("q") },
      { Q },
      ERR_FORMAT,
      "rank 2 and a B factor of rank 4" },
    { { .rank = 3, .bdlora = true, .bdlora_blocks = 2, .bdlora_a = NAMES("q") },
      { { P "q.lora_A.weight", { 3, 4 } }, { P "q.lora_B.weight", { 6, 3 } } },
      ERR_FORMAT,
      "which do not make 2 blocks" },
    { { .bdlora = true, .bdlora_blocks = 2, .bdlora_a = NAMES("q"), .bdlora_b = NAMES("q") },
      { Q },
      ERR_FORMAT,
      "both in 'target_modules_bd_a'" },
    { { .bdlora = true, .bdlora_blocks = 2, .bdlora_a = NAMES("c") },
      { { P "c.lora_A.weight", { 2, 4, 3 } }, { P "c.lora_B.weight", { 6, 2, 1 } } },
      ERR_FORMAT,
      "is a convolution, which has no block-diagonal factors" },
    { { .type = ADAPTER_TRAINABLE_TOKENS }, { Q }, ERR_MISMATCH, "belongs to module 'q'" },
    { { .bias = ADAPTER_BIAS_LORA_ONLY },
      { Q, { P "k.bias", { 6 } } },
      ERR_MISMATCH,
      "'base_model.model.k.bias' would replace one of the base" },
    { { .modules_to_save = NAMES("norm") },
      { Q, { P "norm.original_module.weight", { 6 } } },
      ERR_FORMAT,
      "is a copy of the base's own" },
    { { .modules_to_save = NAMES("norm") },
      { Q,
        { P "norm.modules_to_save.weight", { 6 } },
        { P "norm.modules_to_save.default.weight", { 6 } } },
      ERR_FORMAT,
      "stand for 'norm.weight'" },
    { { .token_rows = (struct token_rows[]){ { "wte", NULL, 3 } }, .token_rows_count = 1 },
      { { P "wte.trainable_tokens_delta", { 2, 8 } } },
      ERR_FORMAT,
      "is not a matrix of 3 rows" },
    { { .token_rows = (struct token_rows[]){ { "wte", NULL, 3 } }, .token_rows_count = 1 },
      { { P "lm_head.trainable_tokens_delta", { 3, 8 } } },
      ERR_MISMATCH,
      "does not say which (trainable_token_indices)" },
    { { 0 },
      { { P "q.lora_A.one.weight", { 2, 4 } }, { P "q.lora_B.two.weight", { 6, 2 } } },
      ERR_FORMAT,
      "is not spelled as PEFT writes it" },
    { { 0 },
      { { P "mha.base_layer.out_proj.lora_A.weight", { 2, 4 } },
        { P "mha.base_layer.out_proj.lora_B.weight", { 6, 2 } },
        { P "mha.out_proj.lora_A.weight", { 2, 4 } } },
      ERR_FORMAT,
      "module 'mha.out_proj' has two tensors for lora_A" },
};

static void test_keys__refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        struct adapter adapter;
        struct error err;
        int code = build(&adapter, &refused[i].config, refused[i].tensors,
                         made_count(refused[i].tensors, COUNT(refused[i].tensors)), false, NULL,
                         &err);

        if (code != refused[i].code || !strstr(err.text, refused[i].part))
            fail_msg("case %zu: %d %s", i, code, err.text);
        adapter_release(&adapter);
    }
}

/* What PEFT would ignore is listed, and what is left still has to be sound. */
static void test_keys__listed_where_that_is_allowed(void **state)
{
    const struct adapter_config config = { .modules_to_save = NAMES("norm") };
    static const struct made tensors[] = {
        Q,
        { P "q.lora_B.bias", { 6 } },
        { P "q.lora_magnitude_vector", { 6 } },
        { P "q.lora_diag", { 2 } },
        { P "norm.original_module.weight", { 6 } },
        { P "k.weight", { 6 } },
        { P "k.trainable_tokens_delta", { 6, 2 } },
        { P "e.base_layer.lora_A.weight", { 2, 4 } },
        { P "e.base_layer.lora_B.weight", { 6, 2 } },
        { P "e.base_layer.lora_B.bias", { 6 } },
    };
    struct adapter adapter;
    struct error err;

    (void)state;
    assert_int_equal(build(&adapter, &config, tensors, COUNT(tensors), true, NULL, &err), 0);
    assert_int_equal(adapter.pair_count, 1);
    assert_int_equal(adapter.pairs[0].tensor_b_bias, NONE);
    assert_int_equal(adapter.pairs[0].tensor_magnitude, NONE);
    assert_int_equal(adapter.saved_count, 0);
    assert_int_equal(adapter.unused_count, COUNT(tensors) - 2);
    adapter_release(&adapter);
}

static void test_keys__one_notice_of_odd_ones(void **state)
{
    static const struct adapter_config config = { .rank = 2 };
    static const struct made odd[] = {
        Q,
        { "k.lora_A.weight", { 2, 4 } },
        { P P "k.lora_B.weight", { 6, 2 } },
    };
    struct text said = { 0 };
    struct adapter adapter;
    struct error err;

    (void)state;
    assert_int_equal(build(&adapter, &config, odd, COUNT(odd), false, &said, &err), 0);
    assert_string_equal(said.data,
                        "adapter 'a': 2 of 4 tensors are not spelled as PEFT writes them; "
                        "'k.lora_A.weight', for one, is taken for 'k'\n");
    adapter_release(&adapter);
    text_clear(&said);
    assert_int_equal(build(&adapter, &config, odd, 2, false, &said, &err), 0);
    assert_int_equal(said.bytes, 0);
    adapter_release(&adapter);
    text_release(&said);
}

#pragma GCC diagnostic pop

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys__understood),
        cmocka_unit_test(test_keys__refused),
        cmocka_unit_test(test_keys__listed_where_that_is_allowed),
        cmocka_unit_test(test_keys__one_notice_of_odd_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
