#include "scheme_case.h"

#include "scheme/bnb_state.h"

#define STATE(quant) "m.q.weight.quant_state.bitsandbytes__" quant

/* 96 x 128 in NF4, plain: companions in the other shard. */
static struct made_base plain(void)
{
    static const char json[] = BNB("[96, 128]");
    struct made_base base = { 0 };

    made_add(&base, (struct made){ "m.norm.weight", DTYPE_BF16, 1, { 128 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.weight", DTYPE_U8, 2, { 6144, 1 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.weight.absmax", DTYPE_F32, 1, { 192 }, NULL, 1 });
    made_add(&base, (struct made){ "m.q.weight.quant_map", DTYPE_F32, 1, { 16 }, NULL, 1 });
    made_add(&base, (struct made){ STATE("nf4"), DTYPE_U8, 1, { sizeof(json) - 1 }, json, 1 });
    return base;
}

#define NESTED                                                                                     \
    "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [96, 128], "  \
    "\"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": 0.045761927}   "

static void set_state(struct made_base *base, const char *json)
{
    struct made *state = made_find(base, STATE("nf4"));

    state->data = json;
    state->shape[0] = strlen(json);
}

static struct made_base nested(void)
{
    struct made_base base = plain();

    set_state(&base, NESTED);
    made_find(&base, "m.q.weight.absmax")->dtype = DTYPE_U8;
    made_add(&base, (struct made){ "m.q.weight.nested_absmax", DTYPE_F32, 1, { 1 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.weight.nested_quant_map", DTYPE_F32, 1, { 256 }, NULL, 1 });
    return base;
}

static void test_bnb4__plain(void **state)
{
    struct made_base base = plain();
    struct scheme_base got = made_opens(&base);
    const struct scheme_tensor *tensor = made_tensor(&got, "m.q.weight", NULL);

    (void)state;
    assert_true(got.quantised);
    assert_int_equal(got.quantised_count, 1);
    assert_int_equal(got.companion_count, 3);
    assert_int_equal(got.view.tensor_count, 2);
    assert_int_equal(got.view.shard_count, 2);
    assert_int_equal(got.view.shards[1].header.tensor_count, 0);
    assert_string_equal(got.summary, "bitsandbytes nf4, 1 tensor");
    made_shape_is(&got, "m.q.weight", DTYPE_BF16, 2, 96, 128);
    made_shape_is(&got, "m.norm.weight", DTYPE_BF16, 1, 128);
    assert_int_equal(made_tensor(&got, "m.norm.weight", NULL)->kind, SCHEME_PLAIN);
    assert_int_equal(tensor->kind, SCHEME_BNB4);
    assert_int_equal(tensor->matrix.scale, QUANT_SCALE_PLAIN);
    assert_int_equal(tensor->parts[QUANT_PART_SCALES].shard, 1);
    assert_int_equal(tensor->parts[QUANT_PART_SCALES].bytes, 192 * 4);
    assert_int_equal(tensor->block_elements, 64);
    scheme_release(&got);
}

static void test_bnb4__nested(void **state)
{
    struct made_base base = nested();
    struct scheme_base got = made_opens(&base);
    const struct scheme_tensor *tensor = made_tensor(&got, "m.q.weight", NULL);

    (void)state;
    made_shape_is(&got, "m.q.weight", DTYPE_F16, 2, 96, 128);
    assert_int_equal(tensor->matrix.scale, QUANT_SCALE_NESTED);
    assert_int_equal(tensor->map.bytes, 1024);
    assert_int_equal(tensor->map.shard, 1);
    assert_int_equal(tensor->nested.bytes, 4);
    assert_true(tensor->nested_offset == 0.045761927f);
    assert_int_equal(got.companion_count, 5);
    scheme_release(&got);
}

static void test_bnb4__storage_and_shapes(void **state)
{
    static const struct {
        enum dtype dtype;
        uint64_t shape;
    } storages[] = {
        { DTYPE_I8, 6144 }, { DTYPE_BF16, 3072 }, { DTYPE_F16, 3072 }, { DTYPE_F32, 1536 }
    };

    (void)state;
    for (size_t i = 0; i < sizeof(storages) / sizeof(*storages); i++) {
        struct made_base base = plain();
        struct made *codes = made_find(&base, "m.q.weight");
        struct scheme_base got;

        codes->dtype = storages[i].dtype;
        codes->shape[0] = storages[i].shape;
        codes->rank = i % 2 ? 1 : 2;
        got = made_opens(&base);
        made_shape_is(&got, "m.q.weight", DTYPE_BF16, 2, 96, 128);
        scheme_release(&got);
    }
}

static void test_bnb4__refuses_missing_companions(void **state)
{
    static const char *const names[] = {
        "m.q.weight.absmax",           "m.q.weight.quant_map", "m.q.weight.nested_absmax",
        "m.q.weight.nested_quant_map", STATE("nf4"),           "m.q.weight"
    };

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct made_base base = nested();

        made_drop(&base, names[i]);
        made_refuses(&base, "missing", NULL);
    }
}

static void test_bnb4__refuses_other_shapes_and_dtypes(void **state)
{
    struct made_base base = plain();

    (void)state;
    made_find(&base, "m.q.weight.absmax")->dtype = DTYPE_BF16;
    made_refuses(&base, "'m.q.weight'", "absmax", "forward pass on a processor", NULL);
    base = plain();
    *made_find(&base, "m.q.weight.absmax") = (struct made){ "m.q.weight.absmax", DTYPE_F32, 2,
                                                            { 2, 96 },           NULL,      1 };
    made_refuses(&base, "'m.q.weight'", "absmax", "[2, 96]", "[192]", NULL);
    base = plain();
    made_find(&base, "m.q.weight.absmax")->dtype = DTYPE_U8;
    made_refuses(&base, "nested absmax", NULL);
    base = nested();
    set_state(&base, BNB("[96, 128]"));
    made_refuses(&base, "not the fields of nested absmax", NULL);
    base = plain();
    made_find(&base, "m.q.weight.quant_map")->shape[0] = 15;
    made_refuses(&base, "m.q.weight.quant_map", "[15]", "[16]", NULL);
    base = plain();
    *made_find(&base,
               "m.q.weight") = (struct made){ "m.q.weight", DTYPE_U8, 2, { 1, 6144 }, NULL, 0 };
    made_refuses(&base, "'m.q.weight'", "transposed", NULL);
    base = plain();
    made_find(&base, "m.q.weight")->shape[0] = 6143;
    made_refuses(&base, "'m.q.weight'", "6143 bytes", NULL);
    base = nested();
    made_find(&base, "m.q.weight.nested_absmax")->shape[0] = 2;
    made_refuses(&base, "m.q.weight.nested_absmax", "[2]", "[1]", NULL);
}

static void test_bnb4__refuses_other_states(void **state)
{
    static const struct {
        const char *json;
        const char *word;
    } cases[] = {
        { "", "quant_state" },
        { "{", "quant_state" },
        { "[]", "object" },
        { BNB("[96, 128]") "x", "quant_state" },
        { BNB("null"), "shape" },
        { BNB("[]"), "shape" },
        { BNB("[96, 0]"), "shape" },
        { BNB("[96, -128]"), "shape" },
        { BNB("[96, 128.5]"), "shape" },
        { BNB("[96, NaN]"), "shape" },
        { BNB("[96, \"128\"]"), "shape" },
        { BNB("[9007199254740992, 9007199254740992]"), "overflows" },
        { BNB("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"), "dimensions" },
        { BNB("[96, 64]"), "absmax" },
        { BNB("[96, 128], \"shape\": [96, 128]"), "shape" },
        { BNB("[96, 128], \"more\": 1"), "more" },
        { "{\"quant_type\": \"fp4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": [96, "
          "128]}",
          "another quant_type" },
        { "{\"quant_type\": \"int4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": [96, "
          "128]}",
          "quant_type" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": 0, \"dtype\": \"bfloat16\", \"shape\": [96, "
          "128]}",
          "blocksize" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": 128, \"dtype\": \"bfloat16\", \"shape\": [96, "
          "128]}",
          "absmax" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"int8\", \"shape\": [96, 128]}",
          "dtype" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"shape\": [96, 128]}", "dtype" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct made_base base = plain();

        set_state(&base, cases[i].json);
        made_refuses(&base, "m.q.weight", cases[i].word, NULL);
    }
}

static void test_bnb4__refuses_other_nested_states(void **state)
{
    static const struct {
        const char *fields;
        const char *word;
    } cases[] = {
        { "\"nested_blocksize\": 128, \"nested_dtype\": \"float32\", \"nested_offset\": 0.5",
          "nested_blocksize" },
        { "\"nested_blocksize\": 256, \"nested_dtype\": \"bfloat16\", \"nested_offset\": 0.5",
          "forward pass on a processor" },
        { "\"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": NaN",
          "nested_offset" },
        { "\"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": 1e39",
          "nested_offset" },
        { "\"nested_blocksize\": 256, \"nested_dtype\": \"float32\"", "nested_offset" },
        { "\"nested_blocksize\": 256, \"nested_offset\": 0.5", "nested_dtype" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct made_base base = nested();
        char json[512];

        snprintf(json, sizeof(json), "%.*s, %s}", (int)strlen(BNB("[96, 128]")) - 1,
                 BNB("[96, 128]"), cases[i].fields);
        set_state(&base, json);
        made_refuses(&base, "m.q.weight", cases[i].word, NULL);
    }
}

static void test_bnb8(void **state)
{
    static const uint8_t format[1] = { 1 };
    struct made_base base = { .config = "{\"torch_dtype\": \"bfloat16\"}" };
    struct scheme_base got;

    (void)state;
    made_add(&base, (struct made){ "m.q.weight", DTYPE_I8, 2, { 8, 12 }, NULL, 0 });
    made_add(&base, (struct made){ "m.q.SCB", DTYPE_F32, 1, { 8 }, NULL, 1 });
    made_add(&base, (struct made){ "m.q.weight_format", DTYPE_U8, 0, { 0 }, NULL, 1 });
    got = made_opens(&base);
    made_shape_is(&got, "m.q.weight", DTYPE_BF16, 2, 8, 12);
    assert_int_equal(made_tensor(&got, "m.q.weight", NULL)->matrix.scale, QUANT_SCALE_ROW_127);
    scheme_release(&got);
    made_find(&base, "m.q.weight_format")->data = format;
    made_refuses(&base, "'m.q.weight'", "weight_format is 1", NULL);
    made_drop(&base, "m.q.weight_format");
    made_find(&base, "m.q.SCB")->shape[0] = 7;
    made_refuses(&base, "'m.q.weight'", "'m.q.SCB'", "[7]", "[8]", NULL);
}

/* The weights of GPT-2 were transposed, and are turned back. */
static void test_bnb__conv1d(void **state)
{
    static const char json[] = BNB("[96, 128]"), cut[] = BNB("[128, 96]");
    struct made_base base = { .config = "{\"model_type\": \"gpt2\"}" };
    struct scheme_base got;

    (void)state;
    made_add(&base, (struct made){ "h.0.c_fc.weight", DTYPE_I8, 2, { 8, 12 }, NULL, 0 });
    made_add(&base, (struct made){ "h.0.c_fc.SCB", DTYPE_F32, 1, { 8 }, NULL, 1 });
    got = made_opens(&base);
    made_shape_is(&got, "h.0.c_fc.weight", DTYPE_F16, 2, 12, 8);
    assert_true(made_tensor(&got, "h.0.c_fc.weight", NULL)->matrix.transposed);
    scheme_release(&got);
    base.count = 0;
    made_add(&base, (struct made){ "h.c_fc.weight", DTYPE_U8, 2, { 6144, 1 }, NULL, 0 });
    made_add(&base, (struct made){ "h.c_fc.weight.absmax", DTYPE_F32, 1, { 192 }, NULL, 1 });
    made_add(&base, (struct made){ "h.c_fc.weight.quant_map", DTYPE_F32, 1, { 16 }, NULL, 1 });
    made_add(&base, (struct made){ "h.c_fc.weight.quant_state.bitsandbytes__nf4",
                                   DTYPE_U8,
                                   1,
                                   { sizeof(json) - 1 },
                                   json,
                                   1 });
    got = made_opens(&base);
    made_shape_is(&got, "h.c_fc.weight", DTYPE_BF16, 2, 128, 96);
    assert_true(made_tensor(&got, "h.c_fc.weight", NULL)->matrix.transposed);
    assert_int_equal(made_tensor(&got, "h.c_fc.weight", NULL)->matrix.block_rows, 1);
    scheme_release(&got);
    made_find(&base, "h.c_fc.weight.quant_state.bitsandbytes__nf4")->data = cut;
    made_refuses(&base, "'h.c_fc.weight'", "Conv1D", "96 inputs", NULL);
}

/* What is read of a companion must be of the file whose header was read. */
static void test_bnb4__refuses_a_shard_that_changes(void **state)
{
    struct made_base base = plain();
    struct scheme_base out = { 0 };
    struct error err = { 0 };

    (void)state;
    base.grows = true;
    assert_int_equal(made_read(&out, &base, &err), ERR_FAILED);
    assert_non_null(strstr(err.text, "b.safetensors' changed while it was read"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bnb4__plain),
        cmocka_unit_test(test_bnb4__nested),
        cmocka_unit_test(test_bnb4__storage_and_shapes),
        cmocka_unit_test(test_bnb4__refuses_missing_companions),
        cmocka_unit_test(test_bnb4__refuses_other_shapes_and_dtypes),
        cmocka_unit_test(test_bnb4__refuses_other_states),
        cmocka_unit_test(test_bnb4__refuses_other_nested_states),
        cmocka_unit_test(test_bnb8),
        cmocka_unit_test(test_bnb__conv1d),
        cmocka_unit_test(test_bnb4__refuses_a_shard_that_changes),
    };

    return cmocka_run_group_tests(tests, made_set_up, made_tear_down);
}
