#include "edits_case.h"

#define EMBED(vocab) T("model.embed_tokens.weight", vocab, 4)
#define ROWS(module, n) T(P module ".token_adapter.trainable_tokens_delta", n, 4)

static const struct adapter_edit *the_edit(const struct made_edits *made, const char *name,
                                           enum edit_kind kind, enum edit_side side)
{
    const struct adapter_edit *edit = find_edit(made, name, kind, side);

    if (made->status || !edit)
        fail_msg("%s, %d, %d: %s", name, kind, side, made->err.text);
    return edit;
}

static void test_tied__factors_of_both_sides(void **state)
{
    const struct given given = {
        .config = "",
        ADAPTER(A("lm_head", 2, 4), B("lm_head", 7, 2),
                T(P "model.embed_tokens.lora_embedding_A", 2, 7),
                T(P "model.embed_tokens.lora_embedding_B", 4, 2)),
        BASE(EMBED(7)),
        .tied = 1,
    };
    const struct adapter_edit *head;
    const struct adapter_edit *embedding;
    struct made_edits made;
    double *delta;

    (void)state;
    make(&made, &given);
    head = the_edit(&made, "model.embed_tokens.weight", EDIT_DELTA, EDIT_HEAD);
    embedding = the_edit(&made, "model.embed_tokens.weight", EDIT_DELTA, EDIT_EMBEDDING);
    assert_int_equal(made.edits.count, 2);
    assert_string_equal(head->new_name, "lm_head.weight");
    assert_string_equal(embedding->new_name, "lm_head.weight");
    delta = expand(&made, head);
    for (int i = 0; i < 28; i++)
        assert_true(delta[i] == 3 * (factor(&made, "lm_head.lora_B.weight")[i / 4 * 2] *
                                         factor(&made, "lm_head.lora_A.weight")[i % 4] +
                                     factor(&made, "lm_head.lora_B.weight")[i / 4 * 2 + 1] *
                                         factor(&made, "lm_head.lora_A.weight")[4 + i % 4]));
    free(delta);
    forget(&made);
}

/* The use of the embedding of a base, and the name that its head would get. */
static const struct {
    const char *base[2];
    int tied;
    const char *model_type;
    const char *architecture;
    const char *head; /* NULL: not tied */
} names[] = {
    { { "model.embed_tokens.weight" }, 1, NULL, NULL, "lm_head.weight" },
    { { "model.embed_tokens.weight" }, -1, NULL, NULL, "lm_head.weight" },
    { { "model.embed_tokens.weight" }, 0, NULL, NULL, NULL },
    { { "model.embed_tokens.weight", "lm_head.weight" }, 1, NULL, NULL, NULL },
    { { "model.embed_tokens.weight" }, 1, NULL, "LlamaModel", NULL },
    { { "model.embed_tokens.weight" }, 1, NULL, "LlamaForSequenceClassification", NULL },
    { { "transformer.wte.weight" }, 1, "gpt2", "GPT2LMHeadModel", "lm_head.weight" },
    { { "wte.weight" }, 1, "gpt2", "GPT2DoubleHeadsModel", "lm_head.weight" },
    { { "gpt_neox.embed_in.weight" }, 1, "gpt_neox", NULL, "embed_out.weight" },
    { { "model.language_model.embed_tokens.weight" }, 1, "gemma3", NULL, "lm_head.weight" },
    { { "language_model.model.embed_tokens.weight" },
      1,
      "llava",
      NULL,
      "language_model.lm_head.weight" },
    { { "thinker.model.embed_tokens.weight", "talker.lm_head.weight" },
      1,
      "qwen2_5_omni",
      NULL,
      "thinker.lm_head.weight" },
    { { "model.decoder.embed_tokens.weight" }, 1, "opt", NULL, "lm_head.weight" },
    { { "model.decoder.embed_tokens.weight" }, 1, "whisper", NULL, "proj_out.weight" },
    { { "roberta.embeddings.word_embeddings.weight" },
      1,
      "roberta",
      NULL,
      "lm_head.decoder.weight" },
    { { "model.tok_embeddings.weight" }, 1, "internlm2", NULL, "output.weight" },
    /* of two embeddings of one shape nothing tells which one the head uses */
    { { "encoder.embed_tokens.weight", "decoder.embed_tokens.weight" }, 1, NULL, NULL, NULL },
};

static void test_tied__names(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct given given = {
            .config = "",
            .tied = names[i].tied,
            .model_type = names[i].model_type,
            .architecture = names[i].architecture,
        };
        const struct adapter_edit *edit;
        struct made_edits made;
        char keys[2][128];

        for (size_t t = 0; t < 2; t++) {
            size_t bytes = strlen(names[i].base[0]) - strlen(".weight");

            snprintf(keys[t], sizeof(keys[t]), P "%.*s.lora_embedding_%c", (int)bytes,
                     names[i].base[0], t ? 'B' : 'A');
            given.adapter[t] = (struct made){ keys[t], DTYPE_F32, { t ? 4 : 2, t ? 2 : 7 }, 2 };
            given.base[t] = (struct made){ names[i].base[t], DTYPE_F32, { 7, 4 }, 2 };
        }
        make(&made, &given);
        if (made.status || made.edits.count != 1)
            fail_msg("case %zu: %s", i, made.err.text);
        edit = &made.edits.list[0];
        if (edit->side != (names[i].head ? EDIT_EMBEDDING : EDIT_UNTIED) ||
            strcmp(edit->new_name ? edit->new_name : "", names[i].head ? names[i].head : ""))
            fail_msg("case %zu: %d %s", i, edit->side, edit->new_name ? edit->new_name : "");
        forget(&made);
    }
}

static void test_tied__rows(void **state)
{
    const struct given given = {
        .config = ",\"trainable_token_indices\":[5,0,3]",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), ROWS("model.embed_tokens", 3)),
        BASE(EMBED(7), T("q.weight", 3, 4)),
        .tied = 1,
    };
    const enum edit_side sides[] = { EDIT_EMBEDDING, EDIT_HEAD };
    struct made_edits made;

    (void)state;
    make(&made, &given);
    for (size_t i = 0; i < COUNT(sides); i++) {
        const struct adapter_edit *edit = the_edit(&made, "model.embed_tokens.weight", EDIT_ROWS,
                                                   sides[i]);

        assert_string_equal(edit->new_name, "lm_head.weight");
        assert_int_equal(
            edit->source,
            tensor_index(&made, "model.embed_tokens.token_adapter.trainable_tokens_delta"));
        assert_int_equal(edit->rows, 7);
        assert_int_equal(edit->cols, 4);
        assert_int_equal(edit->row_list_count, 3);
        assert_memory_equal(edit->row_list, ((uint64_t[]){ 0, 3, 5 }), 3 * sizeof(uint64_t));
        assert_memory_equal(edit->row_source, ((uint64_t[]){ 1, 2, 0 }), 3 * sizeof(uint64_t));
    }
    assert_int_equal(made.edits.count, 3);
    forget(&made);
}

/* What the head has of its own counts; rows and a delta on top of them are possible there. */
static void test_tied__rows_of_the_head_alone(void **state)
{
    const struct given own = {
        .config = ",\"trainable_token_indices\":{\"embed_tokens\":[1],\"lm_head\":[2,4]}",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), ROWS("model.embed_tokens", 1), ROWS("lm_head", 2)),
        BASE(EMBED(7), T("q.weight", 3, 4)),
        .tied = 1,
    };
    const struct given delta = {
        .config = ",\"trainable_token_indices\":[1]",
        ADAPTER(A("lm_head", 2, 4), B("lm_head", 7, 2), ROWS("model.embed_tokens", 1)),
        BASE(EMBED(7)),
        .tied = 1,
    };
    const struct given untied = {
        .config = ",\"trainable_token_indices\":[1]",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), ROWS("model.embed_tokens", 1)),
        BASE(EMBED(7), T("q.weight", 3, 4), T("lm_head.weight", 7, 4)),
    };
    struct made_edits made;

    (void)state;
    make(&made, &own);
    assert_int_equal(
        the_edit(&made, "model.embed_tokens.weight", EDIT_ROWS, EDIT_HEAD)->row_list_count, 2);
    assert_int_equal(
        the_edit(&made, "model.embed_tokens.weight", EDIT_ROWS, EDIT_EMBEDDING)->row_list_count, 1);
    assert_int_equal(made.edits.count, 3);
    forget(&made);

    make(&made, &delta);
    the_edit(&made, "model.embed_tokens.weight", EDIT_ROWS, EDIT_EMBEDDING);
    the_edit(&made, "model.embed_tokens.weight", EDIT_ROWS, EDIT_HEAD);
    the_edit(&made, "model.embed_tokens.weight", EDIT_DELTA, EDIT_HEAD);
    assert_int_equal(made.edits.count, 3);
    forget(&made);

    make(&made, &untied);
    the_edit(&made, "model.embed_tokens.weight", EDIT_ROWS, EDIT_UNTIED);
    assert_int_equal(made.edits.count, 2);
    forget(&made);
}

static void test_tied__standalone_tokens(void **state)
{
    const struct given given = {
        .config = "\"peft_type\":\"TRAINABLE_TOKENS\",\"token_indices\":[6,2],"
                  "\"target_modules\":[\"embed_tokens\"]",
        ADAPTER(T(P "model.embed_tokens.trainable_tokens_delta", 2, 4),
                T(P "lm_head.trainable_tokens_delta", 2, 4)),
        BASE(EMBED(7)),
        .tied = 1,
    };
    struct made_edits made;

    (void)state;
    make(&made, &given);
    assert_int_equal(the_edit(&made, "model.embed_tokens.weight", EDIT_ROWS, EDIT_HEAD)->source,
                     tensor_index(&made, "lm_head.trainable_tokens_delta"));
    assert_int_equal(
        the_edit(&made, "model.embed_tokens.weight", EDIT_ROWS, EDIT_EMBEDDING)->source,
        tensor_index(&made, "model.embed_tokens.trainable_tokens_delta"));
    assert_int_equal(made.edits.count, 2);
    forget(&made);
}

static void test_tied__saved_sides(void **state)
{
    const struct given given = {
        .config = ",\"modules_to_save\":[\"lm_head\",\"embed_tokens\"]",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), T(P "lm_head.weight", 9, 4),
                T(P "model.embed_tokens.weight", 9, 4)),
        BASE(EMBED(7), T("q.weight", 3, 4)),
        .tied = 1,
    };
    struct made_edits made;

    (void)state;
    make(&made, &given);
    assert_int_equal(the_edit(&made, "model.embed_tokens.weight", EDIT_REPLACE, EDIT_HEAD)->source,
                     tensor_index(&made, "lm_head.weight"));
    assert_int_equal(
        the_edit(&made, "model.embed_tokens.weight", EDIT_REPLACE, EDIT_EMBEDDING)->source,
        tensor_index(&made, "model.embed_tokens.weight"));
    assert_int_equal(made.edits.count, 3);
    forget(&made);
}

/* A copy of a resized tensor that is tied has the rows of both its uses. */
static void test_tied__copies_of_resized(void **state)
{
    const struct given head = {
        .config = "",
        ADAPTER(A("lm_head", 2, 4), B("lm_head", 9, 2), T(P "lm_head.base_layer.weight", 9, 4)),
        BASE(EMBED(7)),
        .tied = 1,
    };
    const struct given embedding = {
        .config = "",
        ADAPTER(T(P "model.embed_tokens.lora_embedding_A", 2, 9),
                T(P "model.embed_tokens.lora_embedding_B", 4, 2),
                T(P "model.embed_tokens.base_layer.weight", 9, 4)),
        BASE(EMBED(7)),
        .tied = 1,
    };
    const struct given same = {
        .config = "",
        ADAPTER(A("lm_head", 2, 4), B("lm_head", 7, 2), T(P "lm_head.base_layer.weight", 7, 4)),
        BASE(EMBED(7)),
        .tied = 1,
    };
    const struct adapter_edit *edit;
    struct made_edits made;

    (void)state;
    make(&made, &head);
    edit = the_edit(&made, "model.embed_tokens.weight", EDIT_DELTA, EDIT_HEAD);
    assert_int_equal(edit->rows, 9);
    assert_int_equal(edit->row_count, 9);
    assert_int_equal(edit->source, tensor_index(&made, "lm_head.base_layer.weight"));
    edit = the_edit(&made, "model.embed_tokens.weight", EDIT_REPLACE, EDIT_EMBEDDING);
    assert_int_equal(edit->source, tensor_index(&made, "lm_head.base_layer.weight"));
    assert_string_equal(edit->new_name, "lm_head.weight");
    assert_int_equal(made.edits.count, 2);
    forget(&made);

    make(&made, &embedding);
    the_edit(&made, "model.embed_tokens.weight", EDIT_DELTA, EDIT_EMBEDDING);
    the_edit(&made, "model.embed_tokens.weight", EDIT_REPLACE, EDIT_HEAD);
    assert_int_equal(made.edits.count, 2);
    forget(&made);

    make(&made, &same);
    the_edit(&made, "model.embed_tokens.weight", EDIT_DELTA, EDIT_HEAD);
    assert_int_equal(made.edits.count, 1);
    forget(&made);
}

static void test_untied__copies_of_resized(void **state)
{
    const struct given given = {
        .config = "",
        ADAPTER(A("lm_head", 2, 4), B("lm_head", 9, 2), T(P "lm_head.base_layer.weight", 9, 4),
                T(P "model.embed_tokens.weight", 9, 4)),
        BASE(EMBED(7), T("lm_head.weight", 7, 4)),
    };
    struct made_edits made;

    (void)state;
    make(&made, &given);
    assert_int_equal(the_edit(&made, "lm_head.weight", EDIT_DELTA, EDIT_UNTIED)->rows, 9);
    the_edit(&made, "model.embed_tokens.weight", EDIT_REPLACE, EDIT_UNTIED);
    assert_int_equal(made.edits.count, 2);
    forget(&made);
}

/* A head that never had the rows of the embedding is resized alone. */
static void test_untied__sides_of_two_sizes(void **state)
{
    const struct given given = {
        .config = ",\"modules_to_save\":[\"lm_head\"]",
        ADAPTER(A("q", 2, 4), B("q", 3, 2), T(P "lm_head.weight", 9, 4)),
        BASE(EMBED(8), T("lm_head.weight", 7, 4), T("q.weight", 3, 4)),
    };
    struct made_edits made;

    (void)state;
    make(&made, &given);
    the_edit(&made, "lm_head.weight", EDIT_REPLACE, EDIT_UNTIED);
    assert_int_equal(made.edits.count, 2);
    forget(&made);
}

static void test_tied__head_of_one_of_two_embeddings(void **state)
{
    const struct given given = {
        .config = "",
        ADAPTER(A("lm_head", 2, 4), B("lm_head", 7, 2)),
        BASE(T("a.weight", 3, 4), EMBED(7), T("talker.model.embed_tokens.weight", 9, 4)),
        .tied = 1,
    };
    struct made_edits made;

    (void)state;
    make(&made, &given);
    assert_string_equal(
        the_edit(&made, "model.embed_tokens.weight", EDIT_DELTA, EDIT_HEAD)->new_name,
        "lm_head.weight");
    forget(&made);
}

static void test_replicas__layers(void **state)
{
    const struct given given = {
        .config = ",\"layer_replication\":[[0,2],[1,3],[1,2]],\"modules_to_save\":[\"norm\"]",
        ADAPTER(A("model.layers.4.q", 2, 4), B("model.layers.4.q", 3, 2),
                A("model.layers.1.q", 2, 4), B("model.layers.1.q", 3, 2),
                T(P "model.layers.2.norm.weight", 4), T(P "model.norm.weight", 4)),
        BASE(T("model.layers.0.q.weight", 3, 4), T("model.layers.1.q.weight", 3, 4),
             T("model.layers.2.q.weight", 3, 4), T("model.layers.1.norm.weight", 4),
             T("model.norm.weight", 4)),
    };
    struct adapter_replicas replicas;
    struct made_edits made;
    uint32_t seen = 0;

    (void)state;
    make(&made, &given);
    if (made.status)
        fail_msg("%s", made.err.text);
    assert_int_equal(made.edits.count, 4);
    for (size_t i = 0; i < made.edits.count; i++) {
        const struct adapter_edit *edit = &made.edits.list[i];
        const char *name = st_name(model_header(&made.model, edit->tensor),
                                   model_tensor(&made.model, edit->tensor));

        if (strcmp(name, "model.layers.1.q.weight") == 0)
            seen |= 1u << edit->replica; /* new layers 1 and 4 */
        else if (strcmp(name, "model.layers.1.norm.weight") == 0)
            assert_int_equal(edit->replica, 1);
        else
            assert_int_equal(edit->replica, 0);
    }
    assert_int_equal(seen, 1u << 0 | 1u << 2);
    assert_int_equal(adapter_find_replicas(&replicas, &made.adapter, &made.model, &made.err), 0);
    assert_int_equal(replicas.count, 5);
    assert_memory_equal(replicas.base_layer, ((uint64_t[]){ 0, 1, 1, 2, 1 }), 5 * sizeof(uint64_t));
    adapter_replicas_release(&replicas);
    forget(&made);
}

static void test_names__layers_and_uses(void **state)
{
    static const struct {
        const char *name;
        size_t begin;
        size_t end;
        enum edit_side use;
    } cases[] = {
        { "model.layers.12.mlp", 13, 15, EDIT_UNTIED },
        { "h.0.attn", 2, 3, EDIT_UNTIED },
        { "model.layers.7", 13, 14, EDIT_UNTIED },
        { "0.attn.weight", 0, 0, EDIT_UNTIED },
        { "model.w12.x", 0, 0, EDIT_UNTIED },
        { "a..1", 3, 4, EDIT_UNTIED },
        { "", 0, 0, EDIT_UNTIED },
        { "lm_head.weight", 0, 0, EDIT_HEAD },
        { "lm_head.bias", 0, 0, EDIT_UNTIED },
        { "xlm_head.weight", 0, 0, EDIT_UNTIED },
        { "model.embed_tokens.weight", 0, 0, EDIT_EMBEDDING },
        { "bert.encoder.layer.3.output.weight", 19, 20, EDIT_UNTIED },
        { ".weight", 0, 0, EDIT_UNTIED },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t begin = 0;
        size_t end = 0;
        bool found = adapter_name_layer(cases[i].name, strlen(cases[i].name), &begin, &end);

        if (found != (cases[i].end != 0) || begin != cases[i].begin || end != cases[i].end)
            fail_msg("'%s': %zu %zu", cases[i].name, begin, end);
        assert_int_equal(adapter_tensor_use(cases[i].name, strlen(cases[i].name)), cases[i].use);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tied__factors_of_both_sides),
        cmocka_unit_test(test_tied__names),
        cmocka_unit_test(test_tied__rows),
        cmocka_unit_test(test_tied__rows_of_the_head_alone),
        cmocka_unit_test(test_tied__standalone_tokens),
        cmocka_unit_test(test_tied__saved_sides),
        cmocka_unit_test(test_tied__copies_of_resized),
        cmocka_unit_test(test_untied__copies_of_resized),
        cmocka_unit_test(test_untied__sides_of_two_sizes),
        cmocka_unit_test(test_tied__head_of_one_of_two_embeddings),
        cmocka_unit_test(test_replicas__layers),
        cmocka_unit_test(test_names__layers_and_uses),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
