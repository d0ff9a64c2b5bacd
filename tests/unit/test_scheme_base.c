#include "scheme_case.h"

#define METHOD(name) "{\"quantization_config\": {\"quant_method\": \"" name "\"}}"

static struct made_base one(const char *config, const char *name, enum dtype dtype,
                            const char *sibling, enum dtype sibling_dtype)
{
    struct made_base base = { .config = config };

    made_add(&base, (struct made){ name, dtype, 2, { 4, 4 }, NULL, 0 });
    if (sibling)
        made_add(&base, (struct made){ sibling, sibling_dtype, 2, { 4, 4 }, NULL, 1 });
    return base;
}

static void test_refused__by_name(void **state)
{
    static const struct {
        const char *codes;
        enum dtype dtype;
        const char *sibling;
        enum dtype sibling_dtype;
        const char *word;
    } cases[] = {
        { "m.q.codes", DTYPE_I8, "m.q.codebooks", DTYPE_F16, "AQLM" },
        { "m.q.dense_weights", DTYPE_I32, "m.q.row_offsets", DTYPE_I32, "SpQR" },
        { "m.q.indices", DTYPE_I32, "m.q.centroids.weight", DTYPE_F16, "VPTQ" },
        { "m.q.Qidxs", DTYPE_I16, NULL, DTYPE_F16, "QuIP#" },
        { "m.q.weight", DTYPE_I8, "m.q.weight_scales", DTYPE_F16, "EETQ" },
        { "m.q.weight", DTYPE_U32, "m.q.scales", DTYPE_F16, "MLX" },
        { "m.q.qweight", DTYPE_U8, "m.q.qweight_type", DTYPE_U8, "GGUF" },
        { "m.q.weight._data", DTYPE_I8, "m.q.weight._scale", DTYPE_F16, "quanto" },
        { "block.0.mlp.mlp1_weight.blocks", DTYPE_U8, "block.0.mlp.mlp1_weight.scales", DTYPE_U8,
          "OpenAI" },
        { "m.q.compressed", DTYPE_BF16, "m.q.bitmask", DTYPE_U8, "sparse" },
        { "m.q._weight_qdata", DTYPE_I32, "m.q._weight_scale", DTYPE_F16, "torchao" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct made_base base = one(NULL, cases[i].codes, cases[i].dtype, cases[i].sibling,
                                    cases[i].sibling_dtype);

        made_refuses(&base, "m", cases[i].word, "16-bit model", NULL);
    }
}

static void test_refused__codes_that_are_not_known(void **state)
{
    static const enum dtype codes[] = { DTYPE_U8,  DTYPE_I8,  DTYPE_I32,
                                        DTYPE_U32, DTYPE_I16, DTYPE_F8_E5M2 };
    struct scheme_base got;
    struct made_base base;

    (void)state;
    for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++) {
        base = one(METHOD("newest"), "m.q.thing", codes[i], NULL, DTYPE_BF16);
        made_refuses(&base, "'m.q.thing'", "newest", NULL);
        base = one(METHOD("gptq"), "m.q.weight", codes[i], NULL, DTYPE_BF16);
        made_refuses(&base, "'m.q.weight'", "gptq", NULL);
        base.config = NULL; /* somebody's numbers */
        got = made_opens(&base);
        assert_false(got.quantised);
        scheme_release(&got);
    }
    base = one(METHOD("fp8"), "m.table", DTYPE_I32, NULL, DTYPE_BF16); /* a buffer */
    got = made_opens(&base);
    scheme_release(&got);
}

static void test_config__is_checked(void **state)
{
    static const struct {
        const char *config;
        const char *word;
    } cases[] = {
        { "{", "config.json" },
        { "[]", "config.json" },
        { "{\"a\": 1, \"a\": 2}", "config.json" },
        { "{\"quantization_config\": 3}", "quantization_config" },
        { "{\"text_config\": {\"quantization_config\": []}}", "quantization_config" },
        { "{\"quantization_config\": {\"quant_method\": 4}}", "quant_method" },
        { "{\"quantization_config\": {\"bits\": \"4\"}}", "bits" },
        { "{\"quantization_config\": {\"bits\": 0}}", "bits" },
        { "{\"quantization_config\": {\"group_size\": 1.5}}", "group_size" },
        { "{\"quantization_config\": {\"group_size\": -2}}", "group_size" },
        { "{\"quantization_config\": {\"group_size\": NaN}}", "group_size" },
        { "{\"quantization_config\": {\"group_size\": 4294967296}}", "group_size" },
        { "{\"quantization_config\": {\"weight_block_size\": [128]}}", "weight_block_size" },
        { "{\"quantization_config\": {\"weight_block_size\": [128, 0]}}", "weight_block_size" },
        { "{\"quantization_config\": {\"weight_block_size\": [128, -1]}}", "weight_block_size" },
        { "{\"quantization_config\": {\"weight_block_size\": \"128y128\"}}", "weight_block_size" },
        { "{\"quantization_config\": {\"config_groups\": []}}", "config_groups" },
        { "{\"quantization_config\": {\"config_groups\": {\"a\": 1}}}", "config_groups" },
        { "{\"quantization_config\": {\"config_groups\": {\"a\": {\"weights\": 1}}}}",
          "config_groups" },
        { "{\"quantization_config\": {\"transform_config\": {\"config_groups\": {\"u\": {}}}}}",
          "transform_config" },
        { "{\"quantization_config\": {\"sparsity_config\": {\"format\": \"sparse-24-bitmask\"}}}",
          "sparse-24-bitmask" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct made_base base = one(cases[i].config, "m.q.weight", DTYPE_BF16, NULL, DTYPE_BF16);

        made_refuses(&base, cases[i].word, NULL);
    }
}

static void test_config__extra(void **state)
{
    struct made_base base = { .extra = "{\"quantization\": {\"quant_algo\": \"FP8\"}}" };
    struct scheme_base got;

    (void)state;
    made_add(&base, (struct made){ "m.q.weight", DTYPE_F8_E4M3, 2, { 4, 4 }, NULL, 0 });
    made_refuses(&base, "'m.q.weight'", "modelopt", NULL);
    made_add(&base, (struct made){ "m.q.weight_scale", DTYPE_F32, 0, { 0 }, NULL, 1 });
    made_add(&base, (struct made){ "m.k_scale", DTYPE_F32, 0, { 0 }, NULL, 1 });
    got = made_opens(&base);
    assert_int_equal(got.companion_count, 2);
    scheme_release(&got);
    base.extra = "{\"quantization\": {\"group_size\": []}}";
    made_refuses(&base, "hf_quant_config.json", "group_size", NULL);
    base.extra = "3";
    made_refuses(&base, "hf_quant_config.json", NULL);
}

/* Codes under a name of their own, and the decoded name beside them. */
static void test_view__refuses_two_tensors_of_a_name(void **state)
{
    struct made_base base = { .config = METHOD("awq") };

    (void)state;
    made_add(&base, (struct made){ "m.q.qweight", DTYPE_I32, 2, { 64, 2 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.scales", DTYPE_F16, 2, { 2, 16 }, NULL, 1 });
    made_add(&base, (struct made){ "m.q.qzeros", DTYPE_I32, 2, { 2, 2 }, NULL, 1 });
    made_add(&base, (struct made){ "m.q.weight", DTYPE_F16, 2, { 16, 64 }, NULL, 0 });
    made_refuses(&base, "'m.q.weight'", NULL);
}

static void test_view__keeps_the_rest(void **state)
{
    static const uint8_t bytes[16] = { 1, 2, 3 };
    struct made_base base = { 0 };
    struct scheme_base got;
    const struct st_tensor *tensor;

    (void)state;
    made_add(&base, (struct made){ "z", DTYPE_U8, 1, { 16 }, bytes, 0 });
    made_add(&base, (struct made){ "m.q.weight", DTYPE_F8_E4M3, 2, { 6, 4 }, NULL, 0 });
    made_add(&base, (struct made){ "a", DTYPE_F32, 0, { 0 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.weight_scale_inv", DTYPE_F32, 0, { 0 }, NULL, 0 });
    made_add(&base, (struct made){ "b", DTYPE_I64, 1, { 2 }, NULL, 1 });
    got = made_opens(&base);
    assert_int_equal(got.view.shard_count, 2);
    assert_int_equal(got.view.tensor_count, 4);
    assert_string_equal(got.view.shards[0].name, "a.safetensors");
    assert_true(got.view.shards[0].identity.bytes > 0);
    assert_true(got.view.shards[0].header_digest[0] != 0);
    assert_true(got.view.has_index);
    assert_int_equal(got.view.data_bytes, 16 + 48 + 4 + 16);
    made_tensor(&got, "a", &tensor);
    assert_int_equal(tensor->data_offset, 16 + 24);
    made_tensor(&got, "m.q.weight", &tensor);
    assert_int_equal(tensor->data_offset, 16);
    assert_int_equal(tensor->data_bytes, 48);
    for (size_t i = 1; i < got.view.tensor_count; i++) { /* by_name is sorted */
        struct model_ref left = got.view.by_name[i - 1], right = got.view.by_name[i];

        assert_true(
            strcmp(st_name(model_header(&got.view, left), model_tensor(&got.view, left)),
                   st_name(model_header(&got.view, right), model_tensor(&got.view, right))) < 0);
    }
    scheme_release(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused__by_name),
        cmocka_unit_test(test_refused__codes_that_are_not_known),
        cmocka_unit_test(test_config__is_checked),
        cmocka_unit_test(test_config__extra),
        cmocka_unit_test(test_view__refuses_two_tensors_of_a_name),
        cmocka_unit_test(test_view__keeps_the_rest),
    };

    return cmocka_run_group_tests(tests, made_set_up, made_tear_down);
}
