#include "scheme_case.h"

#define MLX(more) "{\"quantization\": {\"group_size\": 64, \"bits\": 4" more "}}"

static const uint8_t zero, one = 1;
static const int32_t four = 4, thirty_two = 32, axis_0, axis_1 = 1;
static const int64_t shape[2] = { 16, 64 };

static struct made_base hqq(void)
{
    static const char packing[] = "4bit_u8";
    static const char dtype[] = "torch.bfloat16";
    struct made_base base = { .config = "{\"quantization_config\": {\"quant_method\": \"hqq\"}}" };

    made_add(&base, (struct made){ "m.q.W_q", DTYPE_U8, 2, { 16, 32 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.scale", DTYPE_BF16, 2, { 32, 1 }, NULL, 1 });
    made_add(&base, (struct made){ "m.q.zero", DTYPE_BF16, 2, { 32, 1 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.nbits", DTYPE_I32, 0, { 0 }, &four, 1 });
    made_add(&base, (struct made){ "m.q.group_size", DTYPE_I32, 0, { 0 }, &thirty_two, 1 });
    made_add(&base, (struct made){ "m.q.axis", DTYPE_I32, 0, { 0 }, &axis_1, 1 });
    made_add(&base, (struct made){ "m.q.view_as_float", DTYPE_U8, 0, { 0 }, &zero, 1 });
    made_add(&base, (struct made){ "m.q.quant_scale", DTYPE_U8, 0, { 0 }, &zero, 1 });
    made_add(&base, (struct made){ "m.q.quant_zero", DTYPE_U8, 0, { 0 }, &zero, 1 });
    made_add(&base, (struct made){ "m.q.packing", DTYPE_U8, 1, { 7 }, packing, 1 });
    made_add(&base, (struct made){ "m.q.compute_dtype", DTYPE_U8, 1, { 14 }, dtype, 1 });
    made_add(&base, (struct made){ "m.q.shape", DTYPE_I64, 1, { 2 }, shape, 1 });
    made_add(&base, (struct made){ "m.q.round_zero", DTYPE_U8, 0, { 0 }, &one, 1 });
    return base;
}

static void test_hqq(void **state)
{
    struct made_base base = hqq();
    struct scheme_base got = made_opens(&base);
    const struct scheme_tensor *tensor = made_tensor(&got, "m.q.weight", NULL);

    (void)state;
    made_shape_is(&got, "m.q.weight", DTYPE_BF16, 2, 16, 64);
    assert_int_equal(tensor->kind, SCHEME_HQQ);
    assert_int_equal(tensor->matrix.packing, QUANT_BANDS);
    assert_int_equal(tensor->matrix.zeros, QUANT_ZEROS_NUMBERS);
    assert_int_equal(tensor->matrix.block_cols, 32);
    assert_int_equal(got.companion_count, base.count - 1);
    scheme_release(&got);
}

/* Rows of codes that are not those of the weight, though elements keep their order. */
static void test_hqq__other_rows(void **state)
{
    static const int32_t three = 3, sixteen = 16, wide = 128;
    struct made_base base = hqq();
    struct scheme_base got;
    const struct quant_matrix *matrix;

    (void)state;
    made_find(&base, "m.q.axis")->data = &axis_0;
    made_refuses(&base, "'m.q.W_q'", "'m.q.scale'", "[32, 1]", "[1, 32]", NULL);
    made_find(&base, "m.q.scale")->shape[0] = made_find(&base, "m.q.zero")->shape[0] = 1;
    made_find(&base, "m.q.scale")->shape[1] = made_find(&base, "m.q.zero")->shape[1] = 32;
    got = made_opens(&base);
    matrix = &made_tensor(&got, "m.q.weight", NULL)->matrix;
    made_shape_is(&got, "m.q.weight", DTYPE_BF16, 2, 16, 64);
    assert_true(matrix->rows == 32 && matrix->cols == 32);
    assert_true(matrix->block_rows == 32 && matrix->block_cols == 1);
    scheme_release(&got);

    base = hqq(); /* groups of two rows */
    made_find(&base, "m.q.group_size")->data = &wide;
    made_find(&base, "m.q.scale")->shape[0] = made_find(&base, "m.q.zero")->shape[0] = 8;
    got = made_opens(&base);
    matrix = &made_tensor(&got, "m.q.weight", NULL)->matrix;
    assert_true(matrix->rows == 8 && matrix->cols == 128 && matrix->block_cols == 128);
    scheme_release(&got);

    base = hqq(); /* 64 rows of 16 in ten bands of 7, with 6 rows that are not used */
    made_find(&base, "m.q.nbits")->data = &three;
    made_find(&base, "m.q.packing")->data = "3bit_32";
    made_find(&base, "m.q.group_size")->data = &sixteen;
    made_find(&base, "m.q.scale")->shape[0] = made_find(&base, "m.q.zero")->shape[0] = 64;
    made_find(&base, "m.q.W_q")->dtype = DTYPE_I32;
    made_find(&base, "m.q.W_q")->shape[0] = 7;
    made_find(&base, "m.q.W_q")->shape[1] = 16;
    got = made_opens(&base);
    matrix = &made_tensor(&got, "m.q.weight", NULL)->matrix;
    assert_true(matrix->rows == 64 && matrix->cols == 16 && matrix->bits == 3);
    scheme_release(&got);
    made_find(&base, "m.q.W_q")->shape[0] = 8;
    made_refuses(&base, "'m.q.W_q'", "512 bytes", "448", NULL);
}

/* Each companion that decoding asks for: gone, and with another value. */
static void test_hqq__refuses(void **state)
{
    static const char *const needed[] = { "scale",   "zero",          "nbits",       "group_size",
                                          "axis",    "view_as_float", "quant_scale", "quant_zero",
                                          "packing", "compute_dtype", "shape" };
    static const int64_t odd_shape[2] = { 15, 32 }, huge_shape[2] = { INT64_MAX, INT64_MAX };
    static const int32_t two = 2, three = 3, seven = 7, forty = 40, none = 0;
    static const struct {
        const char *name;
        const void *data;
        const char *word;
    } values[] = {
        { "m.q.nbits", &three, "only as I32" },
        { "m.q.nbits", &seven, "7 bits" },
        { "m.q.nbits", &none, "0 bits" },
        { "m.q.group_size", &forty, "groups of 40" },
        { "m.q.group_size", &none, "groups of 0" },
        { "m.q.axis", &two, "axis 2" },
        { "m.q.view_as_float", &one, "U8" },
        { "m.q.quant_scale", &one, "quantised themselves" },
        { "m.q.quant_zero", &one, "quantised themselves" },
        { "m.q.packing", "2bit_u8", "packing" },
        { "m.q.compute_dtype", "torch.float16 ", "torch.bfloat16" },
        { "m.q.shape", odd_shape, "[15, 32]" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++) {
        struct made_base base = hqq();
        char name[64];

        snprintf(name, sizeof(name), "m.q.%s", needed[i]);
        made_drop(&base, name);
        made_refuses(&base, "'m.q.W_q'", needed[i], "missing", NULL);
    }
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        struct made_base base = hqq();

        made_find(&base, values[i].name)->data = values[i].data;
        made_refuses(&base, "'m.q.W_q'", values[i].word, "16-bit model", NULL);
    }
    for (int i = 0; i < 4; i++) {
        struct made_base base = hqq();

        if (i == 0)
            made_find(&base, "m.q.shape")->data = huge_shape;
        else if (i == 1)
            made_find(&base, "m.q.scale")->shape[0] = 31;
        else if (i == 2)
            made_find(&base, "m.q.zero")->dtype = DTYPE_F16;
        else
            made_find(&base, "m.q.W_q")->shape[0] = 15;
        made_refuses(&base, "'m.q.W_q'", NULL);
    }
}

static struct made_base mlx(const char *config, enum dtype dtype)
{
    struct made_base base = { .config = config };

    made_add(&base, (struct made){ "m.q.weight", DTYPE_U32, 2, { 6, 16 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.scales", dtype, 2, { 6, 2 }, NULL, 1 });
    made_add(&base, (struct made){ "m.q.biases", dtype, 2, { 6, 2 }, NULL, 0 });
    return base;
}

static void test_mlx(void **state)
{
    struct made_base base = mlx(MLX(""), DTYPE_F16);
    struct scheme_base got = made_opens(&base);
    const struct scheme_tensor *tensor = made_tensor(&got, "m.q.weight", NULL);

    (void)state;
    made_shape_is(&got, "m.q.weight", DTYPE_F16, 2, 6, 128);
    assert_int_equal(tensor->kind, SCHEME_MLX);
    assert_int_equal(tensor->matrix.zeros, QUANT_ZEROS_BIASES);
    assert_int_equal(tensor->matrix.bits, 4);
    assert_int_equal(tensor->matrix.block_cols, 64);
    scheme_release(&got);
    /* Of several sizes, the only ones that fit. */
    base.config = MLX(", \"m.o\": {\"group_size\": 64, \"bits\": 8}, \"m.v\": false");
    made_find(&base, "m.q.weight")->shape[1] = 32;
    got = made_opens(&base);
    tensor = made_tensor(&got, "m.q.weight", NULL);
    assert_int_equal(tensor->matrix.bits, 8);
    made_shape_is(&got, "m.q.weight", DTYPE_F16, 2, 6, 128);
    scheme_release(&got);
}

static void test_mlx__refuses(void **state)
{
    struct made_base base = mlx(MLX(""), DTYPE_BF16);

    (void)state;
    base.config = NULL;
    made_refuses(&base, "'m.q.weight'", "MLX", "bits", "16-bit model", NULL);
    base.config = MLX(", \"m.o\": {\"group_size\": 32, \"bits\": 8}");
    made_refuses(&base, "'m.q.weight'", "2 pairs", "16-bit model", NULL);
    base.config = MLX(", \"m.o\": {\"group_size\": 32, \"bits\": \"8\"}");
    made_refuses(&base, "bits", NULL);
    base.config = "{\"quantization\": {\"group_size\": 128, \"bits\": 4}}";
    made_refuses(&base, "'m.q.weight'", "16 words", NULL);
    base = mlx(MLX(""), DTYPE_BF16);
    made_drop(&base, "m.q.biases");
    made_refuses(&base, "'m.q.weight'", "MLX", "affine", "16-bit model", NULL);
    base = mlx(MLX(""), DTYPE_BF16);
    made_drop(&base, "m.q.weight");
    made_refuses(&base, "'m.q.biases'", "missing", NULL);
    base = mlx(MLX(""), DTYPE_BF16);
    made_find(&base, "m.q.biases")->dtype = DTYPE_F16;
    made_refuses(&base, "'m.q.biases'", "F16", NULL);
    base = mlx(MLX(""), DTYPE_BF16);
    made_find(&base, "m.q.biases")->shape[1] = 1;
    made_refuses(&base, "'m.q.biases'", "[6, 1]", NULL);
    base = mlx(MLX(""), DTYPE_BF16);
    made_find(&base, "m.q.scales")->shape[0] = made_find(&base, "m.q.biases")->shape[0] = 5;
    made_refuses(&base, "'m.q.weight'", "[6, 16]", "[5, 2]", NULL);
    base = mlx(MLX(""), DTYPE_F8_E4M3);
    made_refuses(&base, "'m.q.scales'", "F8_E4M3", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hqq),          cmocka_unit_test(test_hqq__other_rows),
        cmocka_unit_test(test_hqq__refuses), cmocka_unit_test(test_mlx),
        cmocka_unit_test(test_mlx__refuses),
    };

    return cmocka_run_group_tests(tests, made_set_up, made_tear_down);
}
