#include "edits_case.h"

/* delta[i][j] is scale * the sum over k of B[o][k] A[k][n], where (o, n) is (i, j) or (j, i). */
static void check_product(const struct made_edits *made, const char *base_name, const char *module,
                          bool transposed)
{
    const struct adapter_edit *edit = find_edit(made, base_name, EDIT_DELTA, EDIT_UNTIED);
    bool embedding = made->adapter.pairs[0].layer == ADAPTER_LAYER_EMBEDDING;
    const struct st_tensor *tensor;
    uint64_t in;
    char names[2][128];
    const float *a;
    const float *b;
    double *delta;
    double seen = 0;

    if (!edit)
        fail_msg("no edit of %s", base_name);
    snprintf(names[0], 128, "%s.%s", module, embedding ? "lora_embedding_A" : "lora_A.weight");
    snprintf(names[1], 128, "%s.%s", module, embedding ? "lora_embedding_B" : "lora_B.weight");
    a = factor(made, names[0]);
    b = factor(made, names[1]);
    tensor = model_tensor(&made->model, edit->tensor);
    assert_int_equal(edit->rows, st_shape(model_header(&made->model, edit->tensor), tensor)[0]);
    assert_int_equal(edit->rows * edit->cols, tensor->element_count);
    assert_int_equal(edit->row_first, 0);
    assert_int_equal(edit->row_count, edit->rows);
    assert_int_equal(edit->rank, 2);
    in = transposed ? edit->rows : edit->cols;
    delta = expand(made, edit);
    for (uint64_t i = 0; i < edit->rows; i++) {
        for (uint64_t j = 0; j < edit->cols; j++) {
            uint64_t n = transposed ? i : j;
            uint64_t o = transposed ? j : i;
            double sum = b[o * 2] * a[n] + b[o * 2 + 1] * a[in + n];

            seen += sum != 0;
            if (delta[i * edit->cols + j] != 3 * sum)
                fail_msg("%s: (%d, %d) is %g and not %g", base_name, (int)i, (int)j,
                         delta[i * edit->cols + j], 3 * sum);
        }
    }
    assert_true(seen > 0);
    free(delta);
}

/* Layers whose delta is one product: what lies where. */
static const struct {
    struct given given;
    const char *base_name;
    const char *module;
    bool transposed;
    const char *said;
} products[] = {
    { { .config = "", ADAPTER(A("x.q", 2, 4), B("x.q", 3, 2)), BASE(T("x.q.weight", 3, 4)) },
      "x.q.weight",
      "x.q",
      false,
      NULL },
    /* Conv1D: by shape, if architecture or configuration admit it */
    { { .config = "",
        ADAPTER(A("h.0.c_fc", 2, 4), B("h.0.c_fc", 6, 2)),
        BASE(T("h.0.c_fc.weight", 4, 6)),
        .model_type = "gpt2" },
      "h.0.c_fc.weight",
      "h.0.c_fc",
      true,
      NULL },
    { { .config = ",\"fan_in_fan_out\":true",
        ADAPTER(A("h.0.c_fc", 2, 4), B("h.0.c_fc", 6, 2)),
        BASE(T("h.0.c_fc.weight", 4, 6)),
        .model_type = "mine" },
      "h.0.c_fc.weight",
      "h.0.c_fc",
      true,
      NULL },
    { { .config = ",\"fan_in_fan_out\":true",
        ADAPTER(A("x.q", 2, 4), B("x.q", 3, 2)),
        BASE(T("x.q.weight", 3, 4)) },
      "x.q.weight",
      "x.q",
      false,
      NULL },
    /* square: by architecture, else by fan_in_fan_out */
    { { .config = "",
        ADAPTER(A("x.c_proj", 2, 4), B("x.c_proj", 4, 2)),
        BASE(T("x.c_proj.weight", 4, 4)),
        .model_type = "gpt2" },
      "x.c_proj.weight",
      "x.c_proj",
      true,
      NULL },
    { { .config = ",\"fan_in_fan_out\":true",
        ADAPTER(A("x.proj", 2, 4), B("x.proj", 4, 2)),
        BASE(T("x.proj.weight", 4, 4)),
        .model_type = "gpt2" },
      "x.proj.weight",
      "x.proj",
      false,
      NULL },
    { { .config = ",\"fan_in_fan_out\":true",
        ADAPTER(A("x.c_proj", 2, 4), B("x.c_proj", 4, 2)),
        BASE(T("x.c_proj.weight", 4, 4)),
        .model_type = "gpt_bigcode" },
      "x.c_proj.weight",
      "x.c_proj",
      false,
      NULL },
    { { .config = "",
        ADAPTER(A("x.c_attn", 2, 4), B("x.c_attn", 4, 2)),
        BASE(T("x.c_attn.weight", 4, 4)),
        .model_type = "clvp" },
      "x.c_attn.weight",
      "x.c_attn",
      false,
      NULL },
    { { .config = ",\"fan_in_fan_out\":true",
        ADAPTER(A("x.c_proj", 2, 4), B("x.c_proj", 4, 2)),
        BASE(T("x.c_proj.weight", 4, 4)),
        .model_type = "mine" },
      "x.c_proj.weight",
      "x.c_proj",
      true,
      "1 square weights" },
    { { .config = "",
        ADAPTER(A("x.c_proj", 2, 4), B("x.c_proj", 4, 2)),
        BASE(T("x.c_proj.weight", 4, 4)),
        .model_type = "mine" },
      "x.c_proj.weight",
      "x.c_proj",
      false,
      NULL },
    /* convolutions of one, two and three dimensions */
    { { .config = "", ADAPTER(A("c", 2, 3, 2), B("c", 4, 2, 1)), BASE(T("c.weight", 4, 3, 2)) },
      "c.weight",
      "c",
      false,
      NULL },
    { { .config = "",
        ADAPTER(A("c", 2, 3, 2, 2), B("c", 4, 2, 1, 1)),
        BASE(T("c.weight", 4, 3, 2, 2)) },
      "c.weight",
      "c",
      false,
      NULL },
    { { .config = "",
        ADAPTER(A("c", 2, 3, 1, 2, 2), B("c", 4, 2, 1, 1, 1)),
        BASE(T("c.weight", 4, 3, 1, 2, 2)) },
      "c.weight",
      "c",
      false,
      NULL },
    /* embeddings, square too */
    { { .config = "",
        ADAPTER(T(P "e.lora_embedding_A", 2, 7), T(P "e.lora_embedding_B", 4, 2)),
        BASE(T("e.weight", 7, 4)) },
      "e.weight",
      "e",
      true,
      NULL },
    { { .config = "",
        ADAPTER(T(P "shared.lora_embedding_A", 2, 7), T(P "shared.lora_embedding_B", 4, 2)),
        BASE(T("shared.weight", 7, 4)) },
      "shared.weight",
      "shared",
      true,
      "change all uses of that embedding" },
    { { .config = "",
        ADAPTER(T(P "e.lora_embedding_A", 2, 4), T(P "e.lora_embedding_B", 4, 2)),
        BASE(T("e.weight", 4, 4)) },
      "e.weight",
      "e",
      true,
      NULL },
    /* attention */
    { { .config = ",\"target_modules\":[\"m\"]",
        ADAPTER(A("m", 2, 4), B("m", 12, 2), A("m.base_layer.out_proj", 2, 4),
                B("m.base_layer.out_proj", 4, 2)),
        BASE(T("m.in_proj_weight", 12, 4), T("m.out_proj.weight", 4, 4)) },
      "m.in_proj_weight",
      "m",
      false,
      "twice" },
    { { .config = ",\"target_modules\":[\"out_proj\"]",
        ADAPTER(A("m.out_proj", 2, 4), B("m.out_proj", 4, 2)),
        BASE(T("m.in_proj_weight", 12, 4), T("m.out_proj.weight", 4, 4)) },
      "m.out_proj.weight",
      "m.out_proj",
      false,
      NULL },
};

static void test_edits__products(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(products); i++) {
        struct made_edits made;

        make(&made, &products[i].given);
        if (made.status)
            fail_msg("case %zu: %s", i, made.err.text);
        check_product(&made, products[i].base_name, products[i].module, products[i].transposed);
        if (products[i].said ? !made.said.data || !strstr(made.said.data, products[i].said)
                             : made.said.data != NULL)
            fail_msg("case %zu: said '%s'", i, made.said.data ? made.said.data : "");
        forget(&made);
    }
}

static void test_edits__attention_output_counts_twice(void **state)
{
    const struct given given = {
        .config = ",\"target_modules\":[\"m\"],\"lora_bias\":true",
        ADAPTER(A("m", 2, 4), B("m", 12, 2), T(P "m.lora_B.bias", 12),
                A("m.base_layer.out_proj", 2, 4), B("m.base_layer.out_proj", 4, 2),
                T(P "m.base_layer.out_proj.lora_B.bias", 4)),
        BASE(T("m.in_proj_weight", 12, 4), T("m.out_proj.weight", 4, 4), T("m.in_proj_bias", 12),
             T("m.out_proj.bias", 4)),
    };
    struct made_edits made;

    (void)state;
    make(&made, &given);
    assert_int_equal(made.status, 0);
    assert_int_equal(made.edits.count, 4);
    assert_true(find_edit(&made, "m.out_proj.weight", EDIT_DELTA, EDIT_UNTIED)->scale == 6);
    assert_true(find_edit(&made, "m.in_proj_weight", EDIT_DELTA, EDIT_UNTIED)->scale == 3);
    /* but not its bias: PEFT adds that once */
    assert_true(find_edit(&made, "m.out_proj.bias", EDIT_DELTA, EDIT_UNTIED)->scale == 3);
    assert_true(find_edit(&made, "m.in_proj_bias", EDIT_DELTA, EDIT_UNTIED)->scale == 3);
    forget(&made);
}

static void test_edits__bias_of_b(void **state)
{
    const struct given given = {
        .config = ",\"lora_bias\":true",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), T(P "q.lora_B.bias", 3)),
        BASE(T("q.weight", 3, 4), T("q.bias", 3)),
    };
    const struct adapter_edit *edit;
    struct made_edits made;
    double *delta;

    (void)state;
    make(&made, &given);
    assert_int_equal(made.status, 0);
    assert_int_equal(made.edits.count, 2);
    edit = find_edit(&made, "q.bias", EDIT_DELTA, EDIT_UNTIED);
    assert_non_null(edit);
    assert_int_equal(edit->rows, 1);
    assert_int_equal(edit->cols, 3);
    assert_int_equal(edit->source, ADAPTER_NO_TENSOR);
    delta = expand(&made, edit);
    for (int i = 0; i < 3; i++)
        assert_true(delta[i] == 3 * factor(&made, "q.lora_B.bias")[i]);
    free(delta);
    forget(&made);
}

static void test_edits__dora(void **state)
{
    const struct given given = {
        .config = ",\"use_dora\":true",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), T(P "q.lora_magnitude_vector", 3), A("c", 2, 3, 2),
                B("c", 5, 2, 1), T(P "c.lora_magnitude_vector", 1, 5, 1)),
        BASE(T("q.weight", 3, 4), T("c.weight", 5, 3, 2)),
    };
    const struct given other = {
        .config = ",\"use_dora\":true",
        ADAPTER(A("c_fc", 2, 4), B("c_fc", 6, 2), T(P "c_fc.lora_magnitude_vector", 6),
                T(P "e.lora_embedding_A", 2, 7), T(P "e.lora_embedding_B", 4, 2),
                T(P "e.lora_magnitude_vector", 4)),
        BASE(T("c_fc.weight", 4, 6), T("e.weight", 7, 4)),
        .model_type = "gpt2"
    };
    const struct adapter_edit *edit;
    struct made_edits made;

    (void)state;
    make(&made, &given);
    assert_int_equal(made.status, 0);
    edit = find_edit(&made, "q.weight", EDIT_DELTA, EDIT_UNTIED);
    assert_int_equal(edit->norm, EDIT_NORM_OF_ROWS);
    assert_int_equal(edit->magnitude, tensor_index(&made, "q.lora_magnitude_vector"));
    edit = find_edit(&made, "c.weight", EDIT_DELTA, EDIT_UNTIED);
    assert_int_equal(edit->norm, EDIT_NORM_OF_ROWS);
    forget(&made);

    make(&made, &other);
    assert_int_equal(made.status, 0);
    edit = find_edit(&made, "c_fc.weight", EDIT_DELTA, EDIT_UNTIED);
    assert_int_equal(edit->norm, EDIT_NORM_OF_COLS);
    edit = find_edit(&made, "e.weight", EDIT_DELTA, EDIT_UNTIED);
    assert_int_equal(edit->norm, EDIT_NORM_OF_COLS);
    assert_int_equal(edit->magnitude, tensor_index(&made, "e.lora_magnitude_vector"));
    forget(&made);
}

#define BLOCKS                                                                                     \
    "\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":4,\"use_bdlora\":{\"nblocks\":2,"               \
    "\"target_modules_bd_a\":[\"qq\"],\"target_modules_bd_b\":[\"oo\"],\"match_strict\":false}"

static void test_edits__block_diagonal_factors(void **state)
{
    const struct given given = {
        .config = BLOCKS,
        ADAPTER(A("qq", 4, 3), B("qq", 5, 4), A("oo", 4, 5), B("oo", 6, 2)),
        BASE(T("qq.weight", 5, 6), T("oo.weight", 6, 5)),
    };
    struct made_edits made;
    double *delta;
    const float *a;
    const float *b;

    (void)state;
    make(&made, &given);
    if (made.status)
        fail_msg("%s", made.err.text);
    /* torch.block_diag(*A.chunk(2, 0)): rows 0, 1 reach columns 0 to 2, rows 2, 3 the rest */
    delta = expand(&made, find_edit(&made, "qq.weight", EDIT_DELTA, EDIT_UNTIED));
    a = factor(&made, "qq.lora_A.weight");
    b = factor(&made, "qq.lora_B.weight");
    for (int i = 0; i < 5; i++) {
        for (int j = 0; j < 6; j++) {
            int k = j / 3 * 2;

            assert_true(delta[i * 6 + j] ==
                        b[i * 4 + k] * a[k * 3 + j % 3] + b[i * 4 + k + 1] * a[k * 3 + 3 + j % 3]);
        }
    }
    free(delta);
    delta = expand(&made, find_edit(&made, "oo.weight", EDIT_DELTA, EDIT_UNTIED));
    a = factor(&made, "oo.lora_A.weight");
    b = factor(&made, "oo.lora_B.weight");
    for (int i = 0; i < 6; i++) {
        for (int j = 0; j < 5; j++) {
            int k = i / 3 * 2;

            assert_true(delta[i * 5 + j] ==
                        b[i * 2] * a[k * 5 + j] + b[i * 2 + 1] * a[k * 5 + 5 + j]);
        }
    }
    free(delta);
    forget(&made);
}

static const struct {
    struct given given;
    int code;
    const char *part;
} refused[] = {
    { { .config = "", ADAPTER(A("q", 2, 4), B("q", 3, 2)), BASE(T("k.weight", 3, 4)) },
      ERR_MISMATCH,
      "the base has no tensor 'q.weight'" },
    { { .config = "", ADAPTER(A("q", 2, 4), B("q", 3, 2)), BASE(T("q.weight", 3, 5)) },
      ERR_MISMATCH,
      "tensor 'q.weight' of the base has shape [3, 5], but the factors make [3, 4]" },
    { { .config = "",
        ADAPTER(A("q", 2, 4), B("q", 3, 2)),
        BASE(TENSOR("q.weight", DTYPE_F8_E4M3, 3, 4)) },
      ERR_FORMAT,
      "a quantised base is not supported" },
    { { .config = "",
        ADAPTER(A("q", 2, 4), B("q", 3, 2)),
        BASE(TENSOR("q.weight", DTYPE_U8, 6, 1)) },
      ERR_FORMAT,
      "stored as U8: a quantised base is not supported" },
    { { .config = "", ADAPTER(A("c", 2, 3, 2), B("c", 4, 2, 1)), BASE(T("c.weight", 5, 3, 2)) },
      ERR_MISMATCH,
      "has shape [5, 3, 2], but the factors make [4, 6] (outputs, inputs times kernel)" },
    { { .config = "",
        ADAPTER(A("q", 2, 4), B("q", 5, 2), T(P "q.base_layer.weight", 5, 4)),
        BASE(T("q.weight", 3, 4)) },
      ERR_MISMATCH,
      "has shape [3, 4], but the factors make [5, 4]" },
    /* two for one */
    { { .config = "",
        ADAPTER(A("model.layers.0.q", 2, 4), B("model.layers.0.q", 3, 2), A("layers.0.q", 2, 4),
                B("layers.0.q", 3, 2)),
        BASE(T("model.layers.0.q.weight", 3, 4)) },
      ERR_MISMATCH,
      "'layers.0.q' and 'model.layers.0.q' both change one tensor of the base" },
    { { .config = "", ADAPTER(A("c", 2, 4, 3), B("c", 6, 2, 1)), BASE(T("c.weight", 6, 2, 3)) },
      ERR_MISMATCH,
      "a convolution in groups" },
    { { .config = "",
        ADAPTER(T(P "e.lora_embedding_A", 2, 7), T(P "e.lora_embedding_B", 4, 2)),
        BASE(T("e.weight", 4, 7)) },
      ERR_MISMATCH,
      "but the factors make [7, 4]" },
    { { .config = ",\"lora_bias\":true",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), T(P "q.lora_B.bias", 3)),
        BASE(T("q.weight", 3, 4)) },
      ERR_MISMATCH,
      "the base has no 'q.bias' of 3 elements" },
    { { .config = ",\"modules_to_save\":[\"norm\"]",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), T(P "norm.weight", 4)),
        BASE(T("q.weight", 3, 4)) },
      ERR_MISMATCH,
      "the base has no tensor 'norm.weight'" },
    { { .config = ",\"modules_to_save\":[\"norm\"]",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), T(P "norm.weight", 4)),
        BASE(T("q.weight", 3, 4), T("norm.weight", 5)) },
      ERR_MISMATCH,
      "has shape [4], which does not fit tensor 'norm.weight' [5]" },
    { { .config = ",\"modules_to_save\":[\"norm\"]",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), T(P "norm.weight", 4)),
        BASE(T("q.weight", 3, 4), TENSOR("norm.weight", DTYPE_I8, 4)) },
      ERR_FORMAT,
      "such a tensor is not converted" },
    { { .config = ",\"trainable_token_indices\":{\"embed_tokens\":[7]}",
        ADAPTER(A("q", 2, 4), B("q", 3, 2),
                T(P "embed_tokens.token_adapter.trainable_tokens_delta", 1, 4)),
        BASE(T("q.weight", 3, 4), T("embed_tokens.weight", 7, 4)) },
      ERR_MISMATCH,
      "the adapter trained token 7 of 'embed_tokens.weight', but the base has only 7" },
    { { .config = ",\"layer_replication\":[[0,2],[1,3]]",
        ADAPTER(A("m.layers.0.q", 2, 4), B("m.layers.0.q", 3, 2)),
        BASE(T("m.layers.0.q.weight", 3, 4), T("m.layers.1.q.weight", 3, 4)) },
      ERR_MISMATCH,
      "repeats the layers 1 to 2, but the base has no layer 2" },
    { { .config = ",\"layer_replication\":[[0,1],[0,1]]",
        ADAPTER(A("m.layers.2.q", 2, 4), B("m.layers.2.q", 3, 2)),
        BASE(T("m.layers.0.q.weight", 3, 4)) },
      ERR_MISMATCH,
      "in a layer that the 2 layers that 'layer_replication' makes do not have" },
    /* resized, and the bias of the head was not saved, or nothing else was */
    { { .config = ",\"modules_to_save\":[\"lm_head\",\"embed_tokens\"]",
        ADAPTER(T(P "embed_tokens.weight", 9, 4), T(P "lm_head.weight", 9, 4)),
        BASE(T("embed_tokens.weight", 7, 4), T("lm_head.weight", 7, 4), T("lm_head.bias", 7)) },
      ERR_FORMAT,
      "the output head gets 9 rows, but its bias 'lm_head.bias' 7 elements" },
    { { .config = ",\"modules_to_save\":[\"lm_head\"]",
        ADAPTER(T(P "lm_head.bias", 9)),
        BASE(T("lm_head.weight", 7, 4), T("lm_head.bias", 7)) },
      ERR_FORMAT,
      "the output head gets 7 rows, but its bias 'lm_head.bias' 9 elements" },
    /* resized, and the factors are all that was saved of the head */
    { { .config = "",
        ADAPTER(A("lm_head", 2, 4), B("lm_head", 9, 2)),
        BASE(T("model.embed_tokens.weight", 7, 4)),
        .tied = 1 },
      ERR_MISMATCH,
      "the vocabulary was resized, and no copy of the tensor" },
    /* the two names of one bias, which differ */
    { { .config = ",\"bias\":\"all\"",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), T(P "cls.predictions.bias", 7),
                T(P "cls.predictions.decoder.bias", 7)),
        BASE(T("q.weight", 3, 4), T("cls.predictions.bias", 7)) },
      ERR_MISMATCH,
      "both change one tensor of the base" },
    /* resized, and the other side was not saved */
    { { .config = "",
        ADAPTER(A("lm_head", 2, 4), B("lm_head", 9, 2), T(P "lm_head.base_layer.weight", 9, 4)),
        BASE(T("model.embed_tokens.weight", 7, 4), T("lm_head.weight", 7, 4)) },
      ERR_FORMAT,
      "'lm_head' has 9 rows and the base 7: the vocabulary was resized, but the input "
      "embedding of that size was not saved" },
    { { .config = ",\"modules_to_save\":[\"embed_tokens\"]",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), T(P "model.embed_tokens.weight", 9, 4)),
        BASE(T("q.weight", 3, 4), T("model.embed_tokens.weight", 7, 4)),
        .tied = 1 },
      ERR_FORMAT,
      "but the output head of that size was not saved" },
};

static void test_edits__refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        struct made_edits made;

        make(&made, &refused[i].given);
        if (made.status != refused[i].code || !strstr(made.err.text, refused[i].part))
            fail_msg("case %zu: %d %s", i, made.status, made.err.text);
        assert_int_equal(made.edits.count, 0);
        forget(&made);
    }
}

static void test_edits__unused_is_listed(void **state)
{
    const struct given given = {
        .config = ",\"modules_to_save\":[\"norm\"]",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), A("k", 2, 4), B("k", 3, 2), T(P "norm.weight", 4)),
        BASE(T("k.weight", 3, 4)),
        .allow_unused = true,
    };
    struct made_edits made;

    (void)state;
    make(&made, &given);
    assert_int_equal(made.status, 0);
    assert_int_equal(made.edits.count, 1);
    assert_int_equal(made.adapter.unused_count, 3);
    assert_string_equal(made.adapter.unused[0], P "q.lora_A.weight");
    assert_string_equal(made.adapter.unused[1], P "q.lora_B.weight");
    assert_string_equal(made.adapter.unused[2], P "norm.weight");
    forget(&made);
}

static void test_edits__saved_tensors(void **state)
{
    const struct given given = {
        .config = ",\"modules_to_save\":[\"norm\",\"score\",\"lm_head\",\"embed_tokens\"],\"bias\":"
                  "\"lora_only\"",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), T(P "q.base_layer.bias", 3), T(P "norm.weight", 4),
                T(P "score.weight", 3, 4), T(P "lm_head.weight", 9, 4),
                T(P "embed_tokens.weight", 9, 4)),
        BASE(T("q.weight", 3, 4), T("q.bias", 3), TENSOR("norm.weight", DTYPE_BF16, 4),
             T("lm_head.weight", 7, 4), T("embed_tokens.weight", 7, 4)),
        .tied = 1,
    };
    static const struct {
        const char *base;
        const char *own;
    } pairs[] = {
        { "norm.weight", "norm.weight" },
        { "q.bias", "q.base_layer.bias" },
        { "score.weight", "score.weight" },
        { "lm_head.weight", "lm_head.weight" },
        { "embed_tokens.weight", "embed_tokens.weight" },
    };
    struct made_edits made;

    (void)state;
    make(&made, &given);
    if (made.status)
        fail_msg("%s", made.err.text);
    assert_int_equal(made.edits.count, 6);
    for (size_t i = 0; i < COUNT(pairs); i++) {
        const struct adapter_edit *edit = find_edit(&made, pairs[i].base, EDIT_REPLACE,
                                                    EDIT_UNTIED);

        if (!edit)
            fail_msg("no edit of %s", pairs[i].base);
        assert_int_equal(edit->source, tensor_index(&made, pairs[i].own));
        assert_int_equal(edit->new_name != NULL, strcmp(pairs[i].base, "score.weight") == 0);
    }
    forget(&made);
}

static void test_edits__missing_modules(void **state)
{
    static const struct {
        const char *config;
        size_t missing;
        const char *first;
    } cases[] = {
        { ",\"target_modules\":[\"q\"]", 0, NULL },
        { ",\"target_modules\":[\"q\",\"gate\",\"up\",\"norm\"]", 2, "x.gate.weight" },
        { ",\"target_modules\":\".*(q|up)\"", 1, "x.up.weight" },
        { ",\"target_modules\":[\"q\",\"up\",\"head\"],\"modules_to_save\":[\"head\"]", 1,
          "x.up.weight" },
        { ",\"target_modules\":\"all-linear\"", 0, NULL },
        { "", 0, NULL },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct given given = {
            .config = cases[i].config,
            ADAPTER(A("x.q", 2, 4), B("x.q", 6, 2)),
            BASE(T("x.gate.weight", 6, 4), T("x.head.weight", 5, 4), T("x.norm.weight", 6),
                 T("x.q.weight", 6, 4), T("x.up.weight", 5, 4)),
        };
        struct made_edits made;
        const char *name = NULL;
        size_t missing = 77;

        if (strstr(given.config, "modules_to_save"))
            given.adapter[2] = (struct made)T(P "x.head.weight", 5, 4);
        make(&made, &given);
        if (made.status || adapter_count_missing(&made.adapter, &made.edits, &made.model, &name, 1,
                                                 &missing, &made.err))
            fail_msg("case %zu: %s", i, made.err.text);
        assert_int_equal(missing, cases[i].missing);
        if (cases[i].first)
            assert_string_equal(name, cases[i].first);
        forget(&made);
    }
}

/* The base has the layout before transformers 4.52, the adapter the names since. */
static void test_edits__names_of_another_layout(void **state)
{
    static const struct given given = {
        .config = ",\"target_modules\":[\"q_proj\"]",
        ADAPTER(A("model.language_model.layers.0.self_attn.q_proj", 2, 4),
                B("model.language_model.layers.0.self_attn.q_proj", 6, 2)),
        BASE(T("language_model.model.layers.0.self_attn.q_proj.weight", 6, 4)),
        .model_type = "llava",
    };
    struct made_edits made;
    size_t missing = 77;

    (void)state;
    make(&made, &given);
    if (made.status)
        fail_msg("%s", made.err.text);
    assert_int_equal(made.edits.count, 1);
    assert_int_equal(adapter_count_missing(&made.adapter, &made.edits, &made.model, NULL, 0,
                                           &missing, &made.err),
                     0);
    assert_int_equal(missing, 0);
    forget(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edits__products),
        cmocka_unit_test(test_edits__attention_output_counts_twice),
        cmocka_unit_test(test_edits__bias_of_b),
        cmocka_unit_test(test_edits__dora),
        cmocka_unit_test(test_edits__block_diagonal_factors),
        cmocka_unit_test(test_edits__refuses),
        cmocka_unit_test(test_edits__unused_is_listed),
        cmocka_unit_test(test_edits__saved_tensors),
        cmocka_unit_test(test_edits__missing_modules),
        cmocka_unit_test(test_edits__names_of_another_layout),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
