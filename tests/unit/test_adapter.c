#include "adapter/adapter.h"
#include "base/bytes.h"
#include "base/text.h"
#include "scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define P "base_model.model."
#define CONFIG(fields) "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4" fields "}"

/* A tensor of a made file: up to two dimensions, data all zero. */
struct made {
    const char *name;
    enum dtype dtype;
    uint64_t shape[3];
    size_t shape_count;
};

#define A(name, r, in)                                                                             \
    {                                                                                              \
        P name ".lora_A.weight", DTYPE_F32, { r, in }, 2                                           \
    }
#define B(name, out, r)                                                                            \
    {                                                                                              \
        P name ".lora_B.weight", DTYPE_F32, { out, r }, 2                                          \
    }
#define TENSOR(name, dtype, ...)                                                                   \
    {                                                                                              \
        name, dtype, { __VA_ARGS__ }, sizeof((uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t)       \
    }

static void write_tensors(const char *name, const struct made *tensors, size_t count)
{
    struct text json = { 0 };
    struct text bytes = { 0 };
    uint8_t prefix[ST_PREFIX_BYTES];
    uint64_t offset = 0;

    st_emit_begin(&json, NULL, 0);
    for (size_t i = 0; i < count; i++) {
        uint64_t size = dtype_bytes(tensors[i].dtype);

        for (size_t d = 0; d < tensors[i].shape_count; d++)
            size *= tensors[i].shape[d];
        st_emit_tensor(&json, tensors[i].name, strlen(tensors[i].name), tensors[i].dtype,
                       tensors[i].shape, tensors[i].shape_count, offset, size);
        offset += size;
    }
    st_emit_end(&json, 0, 8);
    store_le64(prefix, json.bytes);
    text_add(&bytes, (const char *)prefix, sizeof(prefix));
    text_add(&bytes, json.data, json.bytes);
    for (uint64_t i = 0; i < offset; i++)
        text_add(&bytes, "", 1);
    assert_false(bytes.failed);
    scratch_write(name, bytes.data, bytes.bytes);
    text_release(&json);
    text_release(&bytes);
}

static void make_adapter(const char *config, const struct made *tensors, size_t count)
{
    scratch_text("a/adapter_config.json", config);
    write_tensors("a/adapter_model.safetensors", tensors, count);
}

static int open_adapter(struct adapter *adapter, bool allow_unused, struct error *err)
{
    *err = (struct error){ 0 };
    return adapter_open(adapter, in_scratch("a"), allow_unused, NULL, err);
}

static void test_adapter__damaged_files(void **state)
{
    static const struct made good[] = { A("q", 2, 4), B("q", 6, 2) };
    struct adapter adapter;
    struct error err;
    char huge[] = "\377\377\377\377\377\377\377\177{}";

    (void)state;
    make_adapter(CONFIG(""), good, COUNT(good));
    scratch_text("a/adapter_model.safetensors", "\3");
    assert_int_equal(open_adapter(&adapter, false, &err), ERR_FORMAT);
    scratch_write("a/adapter_model.safetensors", huge, sizeof(huge));
    assert_int_equal(open_adapter(&adapter, false, &err), ERR_FORMAT);
    scratch_text("a/adapter_model.safetensors", "version https://git-lfs.github.com/spec/v1\n");
    assert_int_equal(open_adapter(&adapter, false, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "git lfs pull"));
    assert_int_equal(unlink(in_scratch("a/adapter_model.safetensors")), 0);
    assert_int_equal(symlink("nowhere", in_scratch("a/adapter_model.safetensors")), 0);
    assert_int_equal(open_adapter(&adapter, false, &err), ERR_FORMAT);
    assert_int_equal(unlink(in_scratch("a/adapter_model.safetensors")), 0);

    make_adapter(CONFIG(",\"use_dora\":1"), good, COUNT(good));
    assert_int_equal(open_adapter(&adapter, false, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "adapter_config.json: 'use_dora' is 1: it must be"));
}

static const struct {
    const char *config;
    struct made tensors[4];
    int code;
    const char *part;
} refused[] = {
    { CONFIG(""), { A("q", 2, 4) }, ERR_FORMAT, "has no partner lora_B of module 'q'" },
    { CONFIG(""), { B("q", 6, 2) }, ERR_FORMAT, "has no partner lora_A of module 'q'" },
    { CONFIG(""), { A("q", 2, 4), B("k", 6, 2) }, ERR_FORMAT, "of module 'k'" },
    { CONFIG(""),
      { A("q", 2, 4), TENSOR(P "q.lora_A.default.weight", DTYPE_F32, 2, 4), B("q", 6, 2) },
      ERR_FORMAT,
      "module 'q' has two tensors for lora_A" },
    { CONFIG(""),
      { A("q", 2, 4), B("q", 6, 2), TENSOR(P "q.lora_B.default.weight", DTYPE_F32, 6, 2) },
      ERR_FORMAT,
      "module 'q' has two tensors for lora_B" },
    { CONFIG(""), { A("q", 2, 4), B("q", 6, 3) }, ERR_FORMAT, "rank 2 and a B factor of rank 3" },
    { CONFIG(""), { A("q", 3, 4), B("q", 6, 3) }, ERR_FORMAT, "factors of rank 3, but r and" },
    { CONFIG(",\"rank_pattern\":{\"q\":3}"),
      { A("q", 2, 4), B("q", 6, 2) },
      ERR_FORMAT,
      "rank 2, but r and rank_pattern of adapter_config.json give 3" },
    { CONFIG(""),
      { TENSOR(P "q.lora_A.weight", DTYPE_F8_E4M3, 2, 4), B("q", 6, 2) },
      ERR_FORMAT,
      "is F8_E4M3; factors are BF16, F16 or F32" },
    { CONFIG(""),
      { TENSOR(P "q.lora_A.weight", DTYPE_F32, 2, 4, 1), B("q", 6, 2) },
      ERR_FORMAT,
      "has 3 dimensions" },
    { CONFIG(""),
      { A("q", 2, 4), TENSOR(P "q.lora_B.weight", DTYPE_F32, 6) },
      ERR_FORMAT,
      "has 2 dimensions, but 'base_model.model.q.lora_B.weight' has 1" },
    { CONFIG(""), { A("q", 2, 0), B("q", 6, 2) }, ERR_FORMAT, "is empty" },
    { CONFIG(",\"target_modules\":[\"v\"]"),
      { A("q", 2, 4), B("q", 6, 2) },
      ERR_MISMATCH,
      "belongs to module 'q', which adapter_config.json does not target" },
    { CONFIG(",\"exclude_modules\":[\"q\"]"),
      { A("q", 2, 4), B("q", 6, 2) },
      ERR_MISMATCH,
      "does not target" },

    { CONFIG(""),
      { TENSOR(P "e.lora_embedding_A", DTYPE_F32, 2, 4) },
      ERR_FORMAT,
      "'base_model.model.e.lora_embedding_A' has no partner lora_B of module 'e'" },
    { CONFIG(""),
      { TENSOR(P "e.lora_embedding_A.default", DTYPE_F32, 2, 4), B("e", 6, 2) },
      ERR_FORMAT,
      "module 'e' has one factor of an embedding and one of another layer" },
    { CONFIG(""),
      { A("q", 2, 4), B("q", 6, 2), TENSOR(P "q.lora_magnitude_vector", DTYPE_F32, 6) },
      ERR_FORMAT,
      "has a lora_magnitude_vector, but 'use_dora' of adapter_config.json is not true" },
    { CONFIG(""),
      { TENSOR(P "q.lora_magnitude_vector.weight", DTYPE_F32, 4) },
      ERR_FORMAT,
      "has no partner lora_A of module 'q'" },
    { CONFIG(""),
      { A("q", 2, 4), B("q", 6, 2), TENSOR(P "q.lora_B.bias", DTYPE_F32, 6) },
      ERR_FORMAT,
      "has a lora_B.bias, but 'lora_bias' of adapter_config.json is not true" },
    { CONFIG(""), { TENSOR(P "q.lora_diag", DTYPE_F32, 4) }, ERR_FORMAT, "KaSA" },
    { CONFIG(""),
      { TENSOR(P "s.modules_to_save.weight", DTYPE_F32, 4) },
      ERR_MISMATCH,
      "names it neither in modules_to_save nor with bias" },
    { CONFIG(""), { TENSOR(P "s.weight", DTYPE_F32, 4) }, ERR_MISMATCH, "neither in modules" },
    { CONFIG(""), { TENSOR(P "q.bias", DTYPE_F32, 4) }, ERR_MISMATCH, "neither in modules" },
    { CONFIG(""),
      { TENSOR(P "s.original_module.weight", DTYPE_F32, 4) },
      ERR_FORMAT,
      "is a copy of the base's own, and the trained one is not in the file" },
    { CONFIG(""),
      { TENSOR(P "e.token_adapter.trainable_tokens_delta", DTYPE_F32, 4) },
      ERR_MISMATCH,
      "holds rows of tokens, but adapter_config.json does not say which" },
    { CONFIG(""),
      { TENSOR(P "e.base_layer.lora_A.weight", DTYPE_F32, 2, 4),
        TENSOR(P "e.base_layer.lora_B.weight", DTYPE_F32, 6, 2) },
      ERR_MISMATCH,
      "belongs to a parameter of module 'e', which adapter_config.json does not target" },
    { CONFIG(""),
      { TENSOR(P "e.base_layer.weight", DTYPE_F32, 2, 4) },
      ERR_MISMATCH,
      "the file has no factors for it" },
    { CONFIG(""), { TENSOR(P "q.hada_w1_a", DTYPE_F32, 2, 4) }, ERR_FORMAT, "that is understood" },

    { CONFIG(""),
      { A("q", 2, 4), B("q", 6, 2), TENSOR("q.lora_A.weight", DTYPE_F32, 2, 4) },
      ERR_FORMAT,
      "two tensors for lora_A, 'base_model.model.q.lora_A.weight' and 'q.lora_A.weight'" },
    { CONFIG(""),
      { A("q", 2, 4), B("q", 6, 2), TENSOR(P "_orig_mod.q.lora_B.weight", DTYPE_F32, 6, 2) },
      ERR_FORMAT,
      "and 'base_model.model._orig_mod.q.lora_B.weight'" },
    { CONFIG(""),
      { TENSOR(P "lm_head.weight", DTYPE_F32, 2, 4), TENSOR("lm_head.weight", DTYPE_F32, 2, 4) },
      ERR_FORMAT,
      "both 'base_model.model.lm_head.weight' and 'lm_head.weight' stand for 'lm_head.weight'" },
    { CONFIG(""),
      { TENSOR(P "lm_head.base_layer.weight", DTYPE_F32, 2, 4),
        TENSOR(P "lm_head.weight", DTYPE_F32, 2, 4) },
      ERR_FORMAT,
      "stand for 'lm_head.weight'" },
    { CONFIG(""),
      { TENSOR(P "q.lora_A.other.weight", DTYPE_F32, 2, 4), B("q", 6, 2) },
      ERR_FORMAT,
      "understood is 'base_model.model.q.lora_A.weight'" },
    { CONFIG(""),
      { TENSOR(P "q.lora_down.weight", DTYPE_F32, 2, 4) },
      ERR_FORMAT,
      "understood is 'base_model.model.q.lora_A.weight'" },
    { CONFIG(""), { TENSOR(P "lora_A.weight", DTYPE_F32, 2, 4) }, ERR_FORMAT, "not spelled" },
    { CONFIG(""), { TENSOR(P ".lora_A.weight", DTYPE_F32, 2, 4) }, ERR_FORMAT, "not spelled" },
    { CONFIG(""), { TENSOR(P "a..q.lora_A.weight", DTYPE_F32, 2, 4) }, ERR_FORMAT, "not spelled" },
    { CONFIG(""),
      { TENSOR(P "q.lora_embedding_A.weight", DTYPE_F32, 2, 4) },
      ERR_FORMAT,
      "q.lora_embedding_A'" },
    { CONFIG(""), { TENSOR(P "q.base_layer", DTYPE_F32, 2, 4) }, ERR_FORMAT, "not spelled" },
    { CONFIG(""),
      { TENSOR(P "q.trainable_tokens_delta.x", DTYPE_F32, 4) },
      ERR_FORMAT,
      "not spelled" },
    { CONFIG(""), { TENSOR("", DTYPE_F32, 2, 4) }, ERR_FORMAT, "that is understood" },
};

static size_t tensor_count(const struct made *tensors, size_t limit)
{
    size_t count = 0;

    while (count < limit && tensors[count].name)
        count++;
    return count;
}

static void test_adapter__refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        struct adapter adapter = { .pair_count = 77 };
        struct error err;
        int code;

        make_adapter(refused[i].config, refused[i].tensors,
                     tensor_count(refused[i].tensors, COUNT(refused[i].tensors)));
        code = open_adapter(&adapter, false, &err);
        if (code != refused[i].code || !strstr(err.text, refused[i].part))
            fail_msg("case %zu: %d %s", i, code, err.text);
        assert_int_equal(adapter.pair_count, 77);
    }
}

static void test_adapter__no_factors_at_all(void **state)
{
    static const struct made bias[] = { TENSOR(P "q.bias", DTYPE_F32, 4) };
    struct adapter adapter;
    struct error err;

    (void)state;
    make_adapter(CONFIG(""), bias, 1);
    assert_int_equal(open_adapter(&adapter, true, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "none of its 1 tensors is a low-rank factor or stands for"));
}

static const struct made several[] = {
    B("model.v", 6, 3),
    A("model.q", 2, 4),
    { P "model.q.lora_B.default.weight", DTYPE_BF16, { 6, 2 }, 2 },
    A("model.v", 3, 4),
    A("model.q.x", 2, 4),
    B("model.q.x", 6, 2),
};

static void test_adapter__pairs(void **state)
{
    struct adapter adapter;
    struct error err;

    (void)state;
    make_adapter(CONFIG(",\"rank_pattern\":{\"v\":3},\"alpha_pattern\":{\"x\":5}"), several,
                 COUNT(several));
    assert_int_equal(open_adapter(&adapter, false, &err), 0);
    assert_string_equal(adapter.name, "a");
    assert_int_equal(adapter.pair_count, 3);
    assert_string_equal(adapter.pairs[0].module, "model.q");
    assert_string_equal(adapter.pairs[1].module, "model.q.x");
    assert_string_equal(adapter.pairs[2].module, "model.v");
    assert_int_equal(adapter.pairs[0].tensor_a, 1);
    assert_int_equal(adapter.pairs[0].tensor_b, 2);
    assert_int_equal(adapter.pairs[2].rank, 3);
    assert_true(adapter.pairs[2].scale == 4.0 / 3);
    assert_true(adapter.pairs[1].scale == 2.5);
    assert_true(adapter.header_digest[0] != 0 && adapter.config_digest[0] != 0);
    assert_int_equal(adapter.weights_bytes, adapter.identity.bytes);
    assert_int_equal(adapter.config_bytes, strlen(adapter.config_text));
    adapter_release(&adapter);
}

static void test_adapter__paths(void **state)
{
    static const char *const forms[] = { "a/", "a//", "a/.", "a/../a",
                                         "a/adapter_model.safetensors" };
    struct adapter adapter;
    struct error err = { 0 };

    (void)state;
    make_adapter(CONFIG(",\"rank_pattern\":{\"v\":3}"), several, COUNT(several));
    for (size_t i = 0; i < COUNT(forms); i++) {
        if (adapter_open(&adapter, in_scratch(forms[i]), false, NULL, &err))
            fail_msg("%s: %s", forms[i], err.text);
        assert_string_equal(adapter.name, "a");
        adapter_release(&adapter);
    }
}

static void test_adapter__allow_unused(void **state)
{
    static const struct made tensors[] = {
        A("q", 2, 4),
        B("q", 6, 2),
        TENSOR(P "q.lora_magnitude_vector", DTYPE_F32, 6),
        A("w", 2, 4),
        B("w", 6, 2),
        TENSOR("x.lora_down.weight", DTYPE_F32, 2, 4),
        TENSOR(P "x.weight", DTYPE_F32, 6),
    };
    struct adapter adapter;
    struct error err;

    (void)state;
    make_adapter(CONFIG(",\"target_modules\":[\"q\"]"), tensors, COUNT(tensors));
    assert_int_equal(open_adapter(&adapter, true, &err), 0);
    assert_int_equal(adapter.pair_count, 1);
    assert_int_equal(adapter.pairs[0].tensor_magnitude, ADAPTER_NO_TENSOR);
    assert_int_equal(adapter.saved_count, 0);
    assert_int_equal(adapter.unused_count, 5);
    assert_string_equal(adapter.unused[0], "x.lora_down.weight");
    assert_string_equal(adapter.unused[1], P "q.lora_magnitude_vector");
    assert_string_equal(adapter.unused[2], P "w.lora_A.weight");
    assert_string_equal(adapter.unused[3], P "w.lora_B.weight");
    assert_string_equal(adapter.unused[4], P "x.weight");
    adapter_release(&adapter);
}

/* PEFT saves the whole head beside its factors. */
static void test_adapter__copies_of_the_base(void **state)
{
    static const struct made fitting[] = {
        TENSOR(P "lm_head.base_layer.weight", DTYPE_BF16, 6, 4),
        A("lm_head", 2, 4),
        B("lm_head", 6, 2),
        A("lm", 2, 4),
        B("lm", 6, 2),
    };
    static const struct made strange[] = {
        TENSOR(P "q.base_layer.weight", DTYPE_F32, 4, 6),
        A("q", 2, 4),
        B("q", 6, 2),
        TENSOR(P "q.base_layer.weight", DTYPE_I8, 6, 4),
        TENSOR(P "k.base_layer.weight", DTYPE_F32, 6, 4),
    };
    const struct made quantised[] = { strange[3], strange[1], strange[2] };
    const struct made lonely[] = { strange[4], strange[1], strange[2] };
    struct adapter adapter;
    struct error err;

    (void)state;
    make_adapter(CONFIG(""), fitting, COUNT(fitting));
    assert_int_equal(open_adapter(&adapter, false, &err), 0);
    assert_int_equal(adapter.pair_count, 2);
    assert_string_equal(adapter.pairs[0].module, "lm");
    assert_int_equal(adapter.pairs[0].tensor_base, ADAPTER_NO_TENSOR);
    assert_int_equal(adapter.pairs[1].tensor_base, 0);
    adapter_release(&adapter);

    make_adapter(CONFIG(""), strange, 3);
    assert_int_equal(open_adapter(&adapter, false, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "does not have the shape [6, 4] of its factors"));
    make_adapter(CONFIG(""), quantised, 3);
    assert_int_equal(open_adapter(&adapter, false, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "is I8; weights that are folded are BF16, F16 or F32"));
    make_adapter(CONFIG(""), lonely, 3);
    assert_int_equal(open_adapter(&adapter, false, &err), ERR_MISMATCH);
    assert_non_null(strstr(err.text, "the file has no factors for it"));
    assert_int_equal(open_adapter(&adapter, true, &err), 0);
    assert_int_equal(adapter.unused_count, 1);
    assert_string_equal(adapter.unused[0], P "k.base_layer.weight");
    adapter_release(&adapter);
}

static void keep_sentence(void *context, enum log_level level, const char *sentence)
{
    if (level == LOG_WARNING)
        text_addf(context, "%s\n", sentence);
}

static void test_adapter__warns_of_ambiguous_alphas(void **state)
{
    static const struct made tensors[] = { A("l.0.q", 2, 4), B("l.0.q", 6, 2) };
    struct text said = { 0 };
    struct log log = { keep_sentence, &said };
    struct adapter adapter;
    struct error err = { 0 };

    (void)state;
    make_adapter(CONFIG(",\"alpha_pattern\":{\"l.0.q\":20,\"q\":10}"), tensors, 2);
    assert_int_equal(adapter_open(&adapter, in_scratch("a"), false, &log, &err), 0);
    assert_true(adapter.pairs[0].scale == 10);
    assert_non_null(said.data);
    assert_non_null(strstr(said.data, "'l.0.q' is matched by 'l.0.q' and 'q' of alpha_pattern"));
    adapter_release(&adapter);
    text_clear(&said);

    make_adapter(CONFIG(",\"alpha_pattern\":{\"l.0.q\":20,\"q\":20}"), tensors, 2);
    assert_int_equal(adapter_open(&adapter, in_scratch("a"), false, &log, &err), 0);
    assert_int_equal(said.bytes, 0);
    adapter_release(&adapter);
    text_release(&said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adapter__damaged_files),
        cmocka_unit_test(test_adapter__refuses),
        cmocka_unit_test(test_adapter__no_factors_at_all),
        cmocka_unit_test(test_adapter__pairs),
        cmocka_unit_test(test_adapter__paths),
        cmocka_unit_test(test_adapter__allow_unused),
        cmocka_unit_test(test_adapter__copies_of_the_base),
        cmocka_unit_test(test_adapter__warns_of_ambiguous_alphas),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
