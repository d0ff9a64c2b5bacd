#include "adapter/naming.h"
#include "base/bytes.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char path[] = "/tmp/test_naming.XXXXXX";
static struct text header;
static size_t tensor_count;
static size_t look_ups; /* binary searches in the base */

bool __real_model_find(const struct model *model, const char *name, size_t bytes,
                       struct model_ref *out);
bool __wrap_model_find(const struct model *model, const char *name, size_t bytes,
                       struct model_ref *out);
size_t __real_naming_lower_bound(const struct model *model, size_t low, size_t high,
                                 const char *name, size_t bytes);
size_t __wrap_naming_lower_bound(const struct model *model, size_t low, size_t high,
                                 const char *name, size_t bytes);

bool __wrap_model_find(const struct model *model, const char *name, size_t bytes,
                       struct model_ref *out)
{
    look_ups++;
    return __real_model_find(model, name, bytes, out);
}

size_t __wrap_naming_lower_bound(const struct model *model, size_t low, size_t high,
                                 const char *name, size_t bytes)
{
    look_ups++;
    return __real_naming_lower_bound(model, low, high, name, bytes);
}

static void begin_base(void)
{
    text_clear(&header);
    tensor_count = 0;
    st_emit_begin(&header, NULL, 0);
}

static void add_tensor(const char *name)
{
    uint64_t shape = 1;

    st_emit_tensor(&header, name, strlen(name), DTYPE_U8, &shape, 1, tensor_count++, 1);
}

static struct model open_base(void)
{
    struct model model = { 0 };
    struct error err = { 0 };
    uint8_t prefix[ST_PREFIX_BYTES];
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    st_emit_end(&header, 0, 8);
    assert_false(header.failed);
    store_le64(prefix, header.bytes);
    assert_int_equal(fwrite(prefix, 1, sizeof(prefix), file), sizeof(prefix));
    assert_int_equal(fwrite(header.data, 1, header.bytes, file), header.bytes);
    for (size_t i = 0; i < tensor_count; i++)
        assert_int_equal(fputc(0, file), 0);
    assert_int_equal(fclose(file), 0);
    if (model_open(&model, path, NULL, &err))
        fail_msg("%s", err.text);
    return model;
}

static struct model base_of(const char *const *names)
{
    begin_base();
    for (; *names; names++)
        add_tensor(*names);
    return open_base();
}

/* "1 name name ...", sorted as found, or "-" */
static const char *answer(char *out, size_t out_bytes, const struct model *model, const char *name,
                          size_t bytes)
{
    struct naming_found found[NAMING_FOUND_MAX];
    struct error err = { 0 };
    size_t count;
    int used;

    assert_int_equal(naming_find(found, &count, model, name, bytes, &err), 0);
    assert_true(count <= NAMING_FOUND_MAX);
    used = snprintf(out, out_bytes, count ? "%u" : "-", count ? found[0].tier : 0);
    for (size_t i = 0; i < count; i++) {
        const struct st_tensor *tensor = model_tensor(model, found[i].ref);

        assert_int_equal(found[i].tier, found[0].tier);
        used += snprintf(out + used, out_bytes - (size_t)used, " %.*s", (int)tensor->name_bytes,
                         st_name(model_header(model, found[i].ref), tensor));
        assert_true((size_t)used < out_bytes);
    }
    return out;
}

#define P "layers.0.self_attn.q_proj.weight"
#define V "encoder.layers.0.mlp.fc1.weight"

/* One base and one name in each line. */
static const struct {
    const char *base[4];
    const char *name;
    const char *expected;
} cases[] = {
    /* Itself, and then nothing else */
    { { "model." P, "language_model.model." P }, "model." P, "0 model." P },
    { { "a" }, "a", "0 a" },

    /* Rules: three generations of adapters, two of files */
    { { "language_model.model." P }, "model.language_model." P, "1 language_model.model." P },
    { { "model.language_model." P }, "language_model.model." P, "1 model.language_model." P },
    { { "language_model.model." P }, "language_model." P, "1 language_model.model." P },
    { { "model.language_model." P }, "model.language_model.model." P, "1 model.language_model." P },
    { { "language_model.lm_head.weight" }, "lm_head.weight", "1 language_model.lm_head.weight" },
    { { "lm_head.weight" }, "language_model.lm_head.weight", "1 lm_head.weight" },
    { { "model." P }, "model.language_model." P, "1 model." P },
    { { "model.language_model." P }, "model." P, "1 model.language_model." P },
    { { "language_model.model." P }, "model." P, "1 language_model.model." P },
    { { "vision_tower.vision_model." V },
      "model.vision_tower." V,
      "1 vision_tower.vision_model." V },
    { { "model.vision_tower." V }, "vision_tower.vision_model." V, "1 model.vision_tower." V },
    { { "vision_tower.vision_model." V }, "vision_tower." V, "1 vision_tower.vision_model." V },
    { { "model.vision_tower.vision_model." V },
      "model.vision_tower." V,
      "1 model.vision_tower.vision_model." V },
    { { "visual.blocks.0.attn.qkv.weight" },
      "model.visual.blocks.0.attn.qkv.weight",
      "1 visual.blocks.0.attn.qkv.weight" },
    { { "embed_out.weight" }, "lm_head.weight", "1 embed_out.weight" },
    { { "backbone." P }, "model." P, "1 backbone." P },
    { { "model.layers.0.block_sparse_moe.gate.weight" },
      "model.layers.0.mlp.gate.weight",
      "1 model.layers.0.block_sparse_moe.gate.weight" },
    { { "model.layers.0.mlp.gate.weight" },
      "model.layers.0.block_sparse_moe.gate.weight",
      "1 model.layers.0.mlp.gate.weight" },
    { { "bert.LayerNorm.gamma" }, "bert.LayerNorm.weight", "1 bert.LayerNorm.gamma" },
    { { "bert.LayerNorm.beta" }, "bert.LayerNorm.bias", "1 bert.LayerNorm.beta" },
    { { "conv.weight_g" }, "conv.parametrizations.weight.original0", "1 conv.weight_g" },
    { { "conv.parametrizations.weight.original1" },
      "conv.weight_v",
      "1 conv.parametrizations.weight.original1" },

    /* Two rules in one name, a number, what wraps modules */
    { { "vit.encoder.layer.11.attention.attention.query.weight" },
      "vit.layers.11.attention.q_proj.weight",
      "1 vit.encoder.layer.11.attention.attention.query.weight" },
    { { "segformer.encoder.block.2.1.attention.self.query.weight" },
      "segformer.stages.2.blocks.1.attention.q_proj.weight",
      "1 segformer.encoder.block.2.1.attention.self.query.weight" },
    { { "model." P },
      "_fsdp_wrapped_module.model.layers.0._checkpoint_wrapped_module.self_attn."
      "_orig_mod.q_proj.weight",
      "1 model." P },
    /* kimi_k25 counts from 0 on disk and from 1 in Python. */
    { { "vision_tower.encoder.blocks.3.mlp.fc0.weight",
        "vision_tower.encoder.blocks.3.mlp.fc1.weight" },
      "model.vision_tower.layers.3.mlp.fc1.weight",
      "1 vision_tower.encoder.blocks.3.mlp.fc0.weight" },

    /* Prefixes */
    { { "model." P }, P, "2 model." P },
    { { P }, "model." P, "2 " P },
    { { "model." P }, "model.model." P, "2 model." P },
    { { "model." P }, "base_model.model." P, "1 model." P },
    { { "model." P }, "base_model.model.model." P, "2 model." P },
    { { "language_model.model." P }, P, "2 language_model.model." P },
    { { "transformer.h.0.attn.c_attn.weight" },
      "h.0.attn.c_attn.weight",
      "2 transformer.h.0.attn.c_attn.weight" },
    { { "h.0.attn.c_attn.weight" },
      "transformer.h.0.attn.c_attn.weight",
      "2 h.0.attn.c_attn.weight" },
    { { "bert.embeddings.word_embeddings.weight" },
      "embeddings.word_embeddings.weight",
      "2 bert.embeddings.word_embeddings.weight" },
    { { "thinker.model." P }, "model.language_model." P, "2 thinker.model." P },
    { { "vit.encoder.layer.0.output.dense.weight" },
      "layers.0.mlp.fc2.weight",
      "2 vit.encoder.layer.0.output.dense.weight" },

    /* Ends of names */
    { { "strange.place.model." P }, "model." P, "3 strange.place.model." P },
    { { "model." P }, "strange.place.model." P, "3 model." P },
    { { "strange.layers.0.weight" }, "layers.0.weight", "-" },         /* three components */
    { { "strange.layers.1.mlp.weight" }, "layers.0.mlp.weight", "-" }, /* another layer */
    { { "strange.layers.0.mlp.weight" }, "odd.layers.0.mlp.weight", "-" },
    { { "strangelayers.0.mlp.weight" }, "layers.0.mlp.weight", "-" }, /* not at a dot */
    { { "x.3.layers.0.mlp.weight" }, "layers.0.mlp.weight", "-" },    /* a number before it */

    /* A tower is no other tower. */
    { { "vision_model." V }, "text_model." V, "-" },
    { { "layers.0.self_attn.q_proj.weight" }, "model.vision_tower." P, "-" },
    { { "audio_tower." P }, "model." P, "-" },
    { { "language_model.model." P }, "model.encoder." P, "-" },
    { { "bert.encoder.layer.0.attention.self.query.weight" },
      "vit.layers.0.attention.q_proj.weight",
      "-" },
    { { "vit.encoder.layer.0.output.dense.weight" },
      "bert.encoder.layer.0.output.dense.weight",
      "-" },
    { { "decoder." P }, P, "-" },

    /* Several */
    { { "text_model." V, "vision_model." V }, V, "1 vision_model." V " text_model." V },
    { { "one.model." P, "two.model." P }, "model." P, "3 one.model." P " two.model." P },
    { { "model.language_model." P, "backbone." P },
      "model." P,
      "1 model.language_model." P " backbone." P },

    { { "model." P }, "model.layers.0.self_attn.x_proj.weight", "-" },
    { { "model." P }, "model.layers.0.self_attn.q_proj", "-" },
    { { "model.layers.0.self_attn.q_proj" }, "model." P, "-" },
};

static void test_naming__finds(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct model model = base_of((const char *const[5]){ cases[i].base[0], cases[i].base[1] });
        char found[512];

        answer(found, sizeof(found), &model, cases[i].name, strlen(cases[i].name));
        if (strcmp(found, cases[i].expected) != 0)
            fail_msg("%s: found %s, expected %s", cases[i].name, found, cases[i].expected);
        model_release(&model);
    }
}

static void test_naming__hostile_names(void **state)
{
    static const char with_nul[] = "model.vision_tower\0.encoder";
    static const char *const odd[] = { "",          ".",          "..",
                                       ".model",    "model.",     "model..x",
                                       "_orig_mod", "_orig_mod.", "language_model.model",
                                       "0.0.0" };
    struct model model = base_of((const char *const[]){ "model.x", "vision_tower.encoder", NULL });
    char long_name[4096];
    char found[512];

    (void)state;
    assert_string_equal(answer(found, sizeof(found), &model, with_nul, sizeof(with_nul) - 1), "-");
    for (size_t i = 0; i < COUNT(odd); i++)
        assert_string_equal(answer(found, sizeof(found), &model, odd[i], strlen(odd[i])), "-");
    for (size_t bytes = 240; bytes <= sizeof(long_name); bytes++) {
        memset(long_name, 'a', bytes);
        memcpy(long_name, "model.layers.0.", 15);
        assert_string_equal(answer(found, sizeof(found), &model, long_name, bytes), "-");
    }
    for (size_t i = 0; i < sizeof(long_name); i++)
        long_name[i] = "attn."[i % 5];
    for (size_t bytes = 1; bytes <= sizeof(long_name); bytes++)
        assert_string_equal(answer(found, sizeof(found), &model, long_name, bytes), "-");
    memset(long_name, '.', sizeof(long_name));
    assert_string_equal(answer(found, sizeof(found), &model, long_name, sizeof(long_name)), "-");
    model_release(&model);
}

/* Names at the limit of what is spelled: one byte more is not found, and nothing overflows. */
static void test_naming__longest_names(void **state)
{
    char name[300];
    char held[300];
    char found[700];

    (void)state;
    for (size_t tail = 225; tail < 240; tail++) {
        struct model model;

        snprintf(name, sizeof(name), "language_model.model.%0*d", (int)tail, 0);
        snprintf(held, sizeof(held), "model.language_model.%0*d", (int)tail, 0);
        model = base_of((const char *const[]){ held, NULL });
        answer(found, sizeof(found), &model, name, strlen(name));
        assert_int_equal(found[0], strlen(held) <= 256 ? '1' : '-');
        model_release(&model);
    }
}

static void add_numbered(const char *format, size_t count)
{
    char name[128];

    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), format, i);
        add_tensor(name);
    }
}

static void test_naming__many_found(void **state)
{
    struct naming_found found[NAMING_FOUND_MAX];
    struct error err = { 0 };
    struct model model;
    size_t count;

    (void)state;
    begin_base();
    add_numbered("place%zu.model." P, 40);
    model = open_base();
    assert_int_equal(naming_find(found, &count, &model, "model." P, strlen("model." P), &err), 0);
    assert_int_equal(count, NAMING_FOUND_MAX);
    model_release(&model);

    /* More places than are looked at: one of the others might be meant as well. */
    begin_base();
    add_numbered("other%zu.blocks.0.x.weight", 300);
    add_tensor("a.model." P);
    model = open_base();
    assert_int_equal(naming_find(found, &count, &model, "model." P, strlen("model." P), &err), 0);
    assert_int_equal(count, 0);
    model_release(&model);
}

/* A search never costs more than some hundred look-ups in the base, found or not. */
static void test_naming__few_look_ups(void **state)
{
    static const struct {
        const char *name;
        const char *expected;
        size_t limit;
    } names[] = {
        { "language_model.model.layers.7.self_attn.q_proj.weight",
          "0 language_model.model.layers.7.self_attn.q_proj.weight", 1 },
        { "model.language_model.layers.7.self_attn.q_proj.weight",
          "1 language_model.model.layers.7.self_attn.q_proj.weight", 100 },
        { "model.vision_tower.encoder.layers.7.mlp.fc1.weight",
          "1 vision_tower.vision_model.encoder.layers.7.mlp.fc1.weight", 100 },
        { "model.language_model.layers.7.self_attn.odd.weight", "-", 600 },
        { "nothing.layers.7.here.at.all.weight", "-", 600 },
    };
    struct model model;
    char found[512];

    (void)state;
    begin_base();
    add_numbered("language_model.model.layers.%zu.self_attn.q_proj.weight", 10000);
    add_numbered("language_model.model.layers.%zu.mlp.up_proj.weight", 10000);
    add_numbered("vision_tower.vision_model.encoder.layers.%zu.mlp.fc1.weight", 10000);
    model = open_base();
    for (size_t i = 0; i < COUNT(names); i++) {
        look_ups = 0;
        answer(found, sizeof(found), &model, names[i].name, strlen(names[i].name));
        assert_string_equal(found, names[i].expected);
        assert_in_range(look_ups, 1, names[i].limit);
    }
    model_release(&model);
}

/* A base in which every spelling of a hostile name exists ends the search, and nothing is found. */
static void add_spellings(struct text *name, unsigned left)
{
    size_t bytes = name->bytes;

    if (left == 0) {
        add_tensor(name->data);
        return;
    }
    for (size_t i = 0; i < 2; i++) {
        text_adds(name, i ? ".attn" : ".self_attn");
        add_spellings(name, left - 1);
        name->bytes = bytes;
        name->data[bytes] = '\0';
    }
}

static void test_naming__bounded(void **state)
{
    struct text name = { 0 };
    struct model model;
    char found[16];

    (void)state;
    begin_base();
    text_adds(&name, "a");
    add_spellings(&name, 14);
    model = open_base();
    text_clear(&name);
    text_adds(&name, "a");
    for (size_t i = 0; i < 14; i++)
        text_adds(&name, ".attn");
    text_adds(&name, ".b");
    look_ups = 0;
    assert_string_equal(answer(found, sizeof(found), &model, name.data, name.bytes), "-");
    assert_in_range(look_ups, 1000, 20000);
    text_release(&name);
    model_release(&model);
}

static void test_naming__refuses(void **state)
{
    struct model model = base_of((const char *const[]){ "a." P, "b." P, "c." P, "d." P, NULL });
    struct naming_found found[4];
    struct error err = { 0 };

    (void)state;
    assert_int_equal(naming_refuse_unknown(&model, "a.layers.0.self_attn.q_pro.weight", 33, &err),
                     ERR_MISMATCH);
    assert_non_null(strstr(err.text, "the base has no tensor 'a.layers.0.self_attn.q_pro.weight'; "
                                     "the nearest names are 'a." P "', "));
    assert_int_equal(naming_refuse_unknown(&model, "\0\n", 2, &err), ERR_MISMATCH);
    assert_non_null(strstr(err.text, "the base has no tensor '\\x00\\x0a'"));
    for (size_t i = 0; i < COUNT(found); i++)
        found[i] = (struct naming_found){ model.by_name[i], 3 };
    assert_int_equal(naming_refuse_several(&model, "x", 1, found, 2, &err), ERR_MISMATCH);
    assert_string_equal(err.text,
                        "'x' may be any of several tensors of the base: 'a." P "', 'b." P "'");
    assert_int_equal(naming_refuse_several(&model, "x", 1, found, 4, &err), ERR_MISMATCH);
    assert_non_null(strstr(err.text, "'c." P "', ..."));
    model_release(&model);
}

static int set_up(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    text_release(&header);
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_naming__finds),         cmocka_unit_test(test_naming__hostile_names),
        cmocka_unit_test(test_naming__longest_names), cmocka_unit_test(test_naming__many_found),
        cmocka_unit_test(test_naming__few_look_ups),  cmocka_unit_test(test_naming__bounded),
        cmocka_unit_test(test_naming__refuses),
    };

    return cmocka_run_group_tests_name("naming", tests, set_up, tear_down);
}
