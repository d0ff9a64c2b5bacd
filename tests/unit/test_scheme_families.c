#include "scheme_case.h"

#define METHOD(name) "{\"quantization_config\": {\"quant_method\": \"" name "\"}}"
#define FP8_BLOCKS                                                                                 \
    "{\"text_config\": {\"dtype\": \"float16\"}, \"quantization_config\": {\"quant_method\": "     \
    "\"fp8\", \"weight_block_size\": [128, 128]}}"

static const float one = 1.0f;
static const uint32_t not_a_number = 0x7fc00000;

static struct made_base fp8(const char *config, const char *scale, enum dtype dtype, int rank,
                            uint64_t rows, uint64_t cols)
{
    struct made_base base = { .config = config };

    made_add(&base, (struct made){ "m.q.weight", DTYPE_F8_E4M3, 2, { 192, 300 }, NULL, 0 });
    made_add(&base, (struct made){ scale, dtype, rank, { rows, cols }, NULL, 1 });
    return base;
}

static void blocks_are(const struct made_base *base, enum scheme_kind kind, uint64_t rows,
                       uint64_t cols, enum dtype scale, enum dtype result)
{
    struct scheme_base got = made_opens(base);
    const struct scheme_tensor *tensor = made_tensor(&got, "m.q.weight", NULL);

    assert_int_equal(tensor->kind, kind);
    assert_int_equal(tensor->matrix.block_rows, rows);
    assert_int_equal(tensor->matrix.block_cols, cols);
    assert_int_equal(tensor->matrix.scale_dtype, scale);
    made_shape_is(&got, "m.q.weight", result, 2, 192, 300);
    scheme_release(&got);
}

static void test_fp8__blocks(void **state)
{
    static const char mx[] =
        "{\"quantization_config\": {\"quant_method\": \"x\", \"group_size\": 32}}";
    struct made_base base = fp8(FP8_BLOCKS, "m.q.weight_scale_inv", DTYPE_F32, 2, 2, 3);

    (void)state;
    blocks_are(&base, SCHEME_FP8_BLOCK, 128, 128, DTYPE_F32, DTYPE_F16);
    base.config = NULL; /* 128 is usual */
    base.tensors[1].dtype = DTYPE_BF16;
    blocks_are(&base, SCHEME_FP8_BLOCK, 128, 128, DTYPE_BF16, DTYPE_BF16);
    base.tensors[1].dtype = DTYPE_U8;
    base.tensors[1].name = "m.q.scale";
    blocks_are(&base, SCHEME_FP8_BLOCK, 128, 128, DTYPE_F8_E8M0, DTYPE_BF16);
    base.tensors[1].rank = 3; /* one matrix, written as such */
    base.tensors[1].shape[0] = 1;
    base.tensors[1].shape[1] = 2;
    base.tensors[1].shape[2] = 3;
    blocks_are(&base, SCHEME_FP8_BLOCK, 128, 128, DTYPE_F8_E8M0, DTYPE_BF16);
    base.tensors[1].shape[0] = 2;
    made_refuses(&base, "'m.q.scale'", "[2, 2, 3]", "makes no blocks", NULL);
    base = fp8(mx, "m.q.weight_scale", DTYPE_F8_E8M0, 2, 192, 10);
    blocks_are(&base, SCHEME_FP8_BLOCK, 1, 32, DTYPE_F8_E8M0, DTYPE_BF16);
    base = fp8(NULL, "m.q.weight_scale", DTYPE_BF16, 2, 192, 20);
    blocks_are(&base, SCHEME_FP8_BLOCK, 1, 15, DTYPE_BF16, DTYPE_BF16);
}

static void test_fp8__rows_and_tensors(void **state)
{
    struct made_base base = fp8(NULL, "m.q.weight_scale", DTYPE_F32, 2, 192, 1);

    (void)state;
    blocks_are(&base, SCHEME_FP8_CHANNEL, 1, 300, DTYPE_F32, DTYPE_BF16);
    base.tensors[1].rank = 1;
    blocks_are(&base, SCHEME_FP8_CHANNEL, 1, 300, DTYPE_F32, DTYPE_BF16);
    base.tensors[1].shape[0] = 1;
    blocks_are(&base, SCHEME_FP8_CHANNEL, 192, 300, DTYPE_F32, DTYPE_BF16);
    base.tensors[1].rank = 0;
    blocks_are(&base, SCHEME_FP8_CHANNEL, 192, 300, DTYPE_F32, DTYPE_BF16);
}

static void test_fp8__refuses(void **state)
{
    struct made_base base = fp8(FP8_BLOCKS, "m.q.weight_scale_inv", DTYPE_F32, 2, 3, 3);

    (void)state;
    made_refuses(&base, "'m.q.weight'", "'m.q.weight_scale_inv'", "[3, 3]", "[192, 300]", NULL);
    base.config = "{\"quantization_config\": {\"quant_method\": \"fp8\", "
                  "\"weight_block_size\": [64, 64]}}";
    base.tensors[1].shape[0] = 2;
    made_refuses(&base, "m.q.weight_scale_inv", "[2, 3]", NULL);
    base.config = FP8_BLOCKS;
    base.tensors[1].dtype = DTYPE_F64;
    made_refuses(&base, "m.q.weight_scale_inv", "F64", NULL);
    base.tensors[1].dtype = DTYPE_F32;
    base.tensors[0].dtype = DTYPE_F8_E5M2;
    made_refuses(&base, "'m.q.weight'", "F8_E5M2", NULL);
    base.tensors[0].dtype = DTYPE_F8_E4M3FNUZ;
    made_refuses(&base, "'m.q.weight'", "F8_E4M3FNUZ", NULL);
    base.tensors[0].dtype = DTYPE_BF16;
    made_refuses(&base, "m.q.weight_scale_inv", "companion", NULL);
    made_drop(&base, "m.q.weight_scale_inv");
    base.tensors[0].dtype = DTYPE_F8_E4M3;
    made_refuses(&base, "'m.q.weight'", "F8_E4M3", NULL);
    base = fp8(NULL, "m.q.weight_scale", DTYPE_F32, 0, 0, 0);
    base.tensors[1].data = &not_a_number;
    made_refuses(&base, "'m.q.weight'", "'m.q.weight_scale'", "nan", NULL);
}

/* Alone, without a configuration: somebody's bytes. */
static void test_fp8__without_scales_is_copied(void **state)
{
    struct made_base base = { 0 };
    struct scheme_base got;

    (void)state;
    made_add(&base, (struct made){ "m.q.weight", DTYPE_F8_E4M3, 2, { 4, 4 }, NULL, 0 });
    made_add(&base, (struct made){ "m.layer_scale", DTYPE_F32, 1, { 4 }, NULL, 1 });
    got = made_opens(&base);
    assert_false(got.quantised);
    scheme_release(&got);
}

static void test_inputs__are_dropped(void **state)
{
    struct made_base base = fp8(METHOD("modelopt"), "m.q.weight_scale", DTYPE_F32, 0, 0, 0);
    struct scheme_base got;

    (void)state;
    made_add(&base, (struct made){ "m.q.input_scale", DTYPE_F32, 0, { 0 }, NULL, 1 });
    made_add(&base, (struct made){ "m.attn.k_scale", DTYPE_F32, 1, { 1 }, NULL, 1 });
    made_add(&base, (struct made){ "m.attn.v_scale", DTYPE_F32, 1, { 1 }, NULL, 1 });
    made_add(&base, (struct made){ "m.gate.input_scale", DTYPE_F32, 0, { 0 }, NULL, 1 });
    got = made_opens(&base);
    assert_int_equal(got.companion_count, 4);
    assert_int_equal(got.view.tensor_count, 2);
    assert_int_equal(made_tensor(&got, "m.gate.input_scale", NULL)->kind, SCHEME_PLAIN);
    scheme_release(&got);
}

static void test_experts__of_gpt_oss(void **state)
{
    struct made_base base = { .config = METHOD("mxfp4") };
    struct scheme_base got;
    const struct scheme_tensor *tensor;

    (void)state;
    made_add(&base,
             (struct made){ "m.experts.down_proj_blocks", DTYPE_U8, 4, { 3, 6, 2, 16 }, NULL, 0 });
    made_add(&base,
             (struct made){ "m.experts.down_proj_scales", DTYPE_U8, 3, { 3, 6, 2 }, NULL, 1 });
    made_add(&base,
             (struct made){ "m.experts.gate_up_proj_blocks", DTYPE_BF16, 3, { 3, 4, 5 }, NULL, 1 });
    made_add(&base, (struct made){ "m.experts.down_proj_bias", DTYPE_BF16, 2, { 3, 6 }, NULL, 1 });
    got = made_opens(&base);
    made_shape_is(&got, "m.experts.down_proj", DTYPE_BF16, 3, 3, 64, 6);
    made_shape_is(&got, "m.experts.gate_up_proj", DTYPE_BF16, 3, 3, 4, 5);
    assert_int_equal(made_tensor(&got, "m.experts.gate_up_proj", NULL)->kind, SCHEME_PLAIN);
    assert_int_equal(got.quantised_count, 1);
    tensor = made_tensor(&got, "m.experts.down_proj", NULL);
    assert_true(tensor->matrix.transposed);
    assert_int_equal(tensor->matrix.matrices, 3);
    scheme_release(&got);
    base.tensors[1].shape[1] = 5;
    made_refuses(&base, "down_proj_blocks", "down_proj_scales", "[3, 5, 2]", "[3, 6, 2]", NULL);
    made_drop(&base, "m.experts.down_proj_scales");
    made_refuses(&base, "down_proj_blocks", "down_proj_scales", "missing", NULL);
}

static void test_experts__of_llama_4(void **state)
{
    struct made_base base = { .config = METHOD("fbgemm_fp8") };
    struct scheme_base got;
    const struct scheme_tensor *tensor;

    (void)state;
    made_add(&base, (struct made){ "m.experts.down_proj", DTYPE_F8_E4M3, 3, { 2, 8, 8 }, NULL, 0 });
    made_add(&base,
             (struct made){ "m.experts.down_proj_scale", DTYPE_F32, 3, { 2, 8, 1 }, NULL, 1 });
    got = made_opens(&base);
    tensor = made_tensor(&got, "m.experts.down_proj", NULL);
    assert_int_equal(tensor->matrix.block_rows, 8);
    assert_int_equal(tensor->matrix.block_cols, 1);
    scheme_release(&got);
    base.config = NULL; /* elsewhere a scale of this shape is that of a row */
    got = made_opens(&base);
    tensor = made_tensor(&got, "m.experts.down_proj", NULL);
    assert_int_equal(tensor->matrix.block_rows, 1);
    assert_int_equal(tensor->matrix.block_cols, 8);
    scheme_release(&got);
}

static struct made_base nvfp4(void)
{
    struct made_base base = { .config = METHOD("modelopt") };

    made_add(&base, (struct made){ "m.q.weight", DTYPE_U8, 2, { 96, 40 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.weight_scale", DTYPE_F8_E4M3, 2, { 96, 5 }, NULL, 1 });
    made_add(&base, (struct made){ "m.q.weight_scale_2", DTYPE_F32, 0, { 0 }, &one, 1 });
    return base;
}

static void test_nvfp4(void **state)
{
    static const float zero = 0.0f;
    struct made_base base = nvfp4();
    struct scheme_base got = made_opens(&base);
    const struct scheme_tensor *tensor = made_tensor(&got, "m.q.weight", NULL);

    (void)state;
    made_shape_is(&got, "m.q.weight", DTYPE_BF16, 2, 96, 80);
    assert_int_equal(tensor->matrix.scale, QUANT_SCALE_TIMES_WHOLE);
    assert_int_equal(tensor->whole.bytes, 4);
    scheme_release(&got);
    base.tensors[2].data = &zero;
    made_refuses(&base, "'m.q.weight'", "global scale is 0", NULL);
    base.tensors[2].data = &not_a_number;
    made_refuses(&base, "m.q.weight_scale_2", "nan", NULL);
    base.tensors[1].shape[0] = 128;
    base.tensors[1].shape[1] = 8;
    made_refuses(&base, "'m.q.weight'", "swizzled", NULL);
    base = nvfp4();
    made_drop(&base, "m.q.weight_scale_2");
    made_refuses(&base, "'m.q.weight'", "'m.q.weight_scale_2'", "missing", NULL);
    base = nvfp4();
    made_add(&base, (struct made){ "m.q.pre_quant_scale", DTYPE_BF16, 1, { 80 }, NULL, 1 });
    made_refuses(&base, "'m.q.weight'", "pre_quant_scale", NULL);
    base = nvfp4();
    base.tensors[0].name = "m.q.weight_packed";
    base.tensors[2].name = "m.q.weight_global_scale";
    got = made_opens(&base);
    assert_int_equal(made_tensor(&got, "m.q.weight", NULL)->matrix.scale, QUANT_SCALE_OVER_WHOLE);
    scheme_release(&got);
    made_drop(&base, "m.q.weight_global_scale");
    made_refuses(&base, "'m.q.weight_packed'", "weight_global_scale", "missing", NULL);
}

#define CT(bits, size)                                                                             \
    "{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"config_groups\": {"    \
    "\"a\": {\"weights\": {\"num_bits\": " bits ", \"group_size\": " size "}}}}}"

static struct made_base packed(void)
{
    static const uint64_t shape[2] = { 8, 64 };
    struct made_base base = { .config = CT("4", "32") };

    made_add(&base, (struct made){ "m.q.weight_packed", DTYPE_I32, 2, { 8, 8 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.weight_scale", DTYPE_F16, 2, { 8, 2 }, NULL, 1 });
    made_add(&base, (struct made){ "m.q.weight_shape", DTYPE_I64, 1, { 2 }, shape, 1 });
    return base;
}

static void test_packed(void **state)
{
    static const uint64_t other[2] = { 8, 60 }, huge[2] = { 8, UINT64_MAX }, rows[2] = { 9, 64 };
    struct made_base base = packed();
    struct scheme_base got = made_opens(&base);
    const struct scheme_tensor *tensor = made_tensor(&got, "m.q.weight", NULL);

    (void)state;
    made_shape_is(&got, "m.q.weight", DTYPE_F16, 2, 8, 64);
    assert_int_equal(tensor->matrix.bits, 4);
    assert_int_equal(tensor->matrix.block_cols, 32);
    assert_int_equal(tensor->matrix.zeros, QUANT_ZEROS_MIDDLE);
    scheme_release(&got);
    base.config = CT("4", "16");
    made_refuses(&base, "'m.q.weight_packed'", "group_size is 16", NULL);
    base.config = CT("4", "32");
    base.tensors[2].data = other; /* 60 inputs take eight words of 4 bits too; 32 does not matter */
    got = made_opens(&base);
    made_shape_is(&got, "m.q.weight", DTYPE_F16, 2, 8, 60);
    scheme_release(&got);
    base.tensors[2].data = huge;
    made_refuses(&base, "'m.q.weight_packed'", NULL);
    base.tensors[2].data = rows;
    made_refuses(&base, "'m.q.weight_packed'", "9 rows", NULL);
    base = packed();
    base.config = CT("5", "32"); /* wrong here, and no other width fits but 4 */
    got = made_opens(&base);
    scheme_release(&got);
    base = packed();
    base.tensors[0].shape[1] = 10;
    base.config = CT("5", "32");
    made_refuses(&base, "'m.q.weight_packed'", "5 bits", NULL);
    base = packed();
    made_add(&base, (struct made){ "m.q.weight_g_idx", DTYPE_I32, 1, { 64 }, NULL, 1 });
    made_refuses(&base, "weight_g_idx", NULL);
    base = packed();
    made_add(&base, (struct made){ "m.q.weight_zero_point", DTYPE_I32, 2, { 2, 2 }, NULL, 1 });
    made_refuses(&base, "'m.q.weight_packed'", "m.q.weight_zero_point", NULL);
    made_drop(&base, "m.q.weight_shape");
    made_refuses(&base, "weight_shape", "missing", NULL);
}

#define GPTQ(format)                                                                               \
    "{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32, "     \
    "\"checkpoint_format\": \"" format "\"}}"

static struct made_base gptq(const char *config)
{
    struct made_base base = { .config = config };

    made_add(&base, (struct made){ "m.q.qweight", DTYPE_I32, 2, { 8, 16 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.scales", DTYPE_F16, 2, { 2, 16 }, NULL, 1 });
    made_add(&base, (struct made){ "m.q.qzeros", DTYPE_I32, 2, { 2, 2 }, NULL, 1 });
    made_add(&base, (struct made){ "m.q.g_idx", DTYPE_I32, 1, { 64 }, NULL, 1 });
    return base;
}

static void test_gptq(void **state)
{
    struct made_base base = gptq(GPTQ("gptq"));
    struct scheme_base got = made_opens(&base);
    const struct scheme_tensor *tensor = made_tensor(&got, "m.q.weight", NULL);

    (void)state;
    made_shape_is(&got, "m.q.weight", DTYPE_F16, 2, 16, 64);
    assert_int_equal(tensor->matrix.zeros, QUANT_ZEROS_WORDS_1);
    assert_int_equal(tensor->group_of.bytes, 256);
    scheme_release(&got);
    base.config = GPTQ("gptq_v2");
    made_drop(&base, "m.q.g_idx");
    got = made_opens(&base);
    tensor = made_tensor(&got, "m.q.weight", NULL);
    assert_int_equal(tensor->matrix.zeros, QUANT_ZEROS_WORDS);
    assert_int_equal(tensor->matrix.block_rows, 32);
    scheme_release(&got);
    base.config = GPTQ("marlin");
    made_refuses(&base, "'m.q.qweight'", "marlin", NULL);
    base.config = METHOD("auto-round");
    made_refuses(&base, "'m.q.qweight'", "auto-round", NULL);
    base.config = METHOD("gptq");
    made_refuses(&base, "'m.q.qweight'", "bits", NULL);
    base = gptq(GPTQ("gptq"));
    made_find(&base, "m.q.g_idx")->shape[0] = 63;
    got = made_opens(&base); /* the last field of the last word is free */
    scheme_release(&got);
    made_find(&base, "m.q.g_idx")->shape[0] = 128;
    made_refuses(&base, "'m.q.qweight'", "128 inputs of 4 bits", NULL);
    base = gptq(GPTQ("gptq"));
    made_find(&base, "m.q.qzeros")->shape[1] = 3;
    made_refuses(&base, "'m.q.qzeros'", "[2, 3]", "[2, 2]", NULL);
}

static void test_awq(void **state)
{
    struct made_base base = { .config = METHOD("awq") };
    struct scheme_base got;

    (void)state;
    made_add(&base, (struct made){ "m.q.qweight", DTYPE_I32, 2, { 64, 2 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.scales", DTYPE_F16, 2, { 2, 16 }, NULL, 1 });
    made_add(&base, (struct made){ "m.q.qzeros", DTYPE_I32, 2, { 2, 2 }, NULL, 1 });
    got = made_opens(&base);
    made_shape_is(&got, "m.q.weight", DTYPE_F16, 2, 16, 64);
    scheme_release(&got);
    base.config = "{\"quantization_config\": {\"quant_method\": \"awq\", \"version\": \"gemv\"}}";
    made_refuses(&base, "'m.q.qweight'", "gemv", NULL);
    base.config = METHOD("awq");
    base.tensors[0].shape[1] = 4;
    made_refuses(&base, "'m.q.qweight'", "[64, 4]", "[2, 16]", NULL);
}

static void test_companion__of_two_tensors(void **state)
{
    struct made_base base = { 0 };

    (void)state;
    made_add(&base, (struct made){ "m.q.weight", DTYPE_F8_E4M3, 2, { 16, 64 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.weight_packed", DTYPE_U8, 2, { 16, 32 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.weight_scale", DTYPE_U8, 2, { 16, 2 }, NULL, 1 });
    made_refuses(&base, "'m.q.weight_scale'", "belongs to another quantised tensor", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp8__blocks),
        cmocka_unit_test(test_fp8__rows_and_tensors),
        cmocka_unit_test(test_fp8__refuses),
        cmocka_unit_test(test_fp8__without_scales_is_copied),
        cmocka_unit_test(test_inputs__are_dropped),
        cmocka_unit_test(test_experts__of_gpt_oss),
        cmocka_unit_test(test_experts__of_llama_4),
        cmocka_unit_test(test_nvfp4),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_gptq),
        cmocka_unit_test(test_awq),
        cmocka_unit_test(test_companion__of_two_tensors),
    };

    return cmocka_run_group_tests(tests, made_set_up, made_tear_down);
}
