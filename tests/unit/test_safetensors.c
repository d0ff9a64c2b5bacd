#include "base/bytes.h"
#include "base/error.h"
#include "base/text.h"
#include "format/safetensors.h"
#include "scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LITERAL(string) string, sizeof(string) - 1

/* A tensor of 4 bytes with another end, shape or dtype than it should have. */
#define ENTRY(fields) "{\"t\":{" fields "}}"

struct header_case {
    const char *json;
    size_t bytes;
    uint64_t data_bytes;
    const char *part; /* of the sentence */
};

static const struct header_case bad_cases[] = {
    { LITERAL(""), 0, "expected a value" },
    { LITERAL("[]"), 0, "the header is not a JSON object" },
    { LITERAL("null"), 0, "the header is not a JSON object" },
    { LITERAL("{}x"), 0, "nothing behind the value" },
    { LITERAL("{}\0"), 0, "nothing behind the value" },
    { LITERAL("\xef\xbb\xbf{}"), 0, "byte order mark" },
    { LITERAL("{\"t\":{}"), 0, "dtype is missing" },
    { LITERAL("{\"t\":1}"), 0, "tensor 't': the entry is not an object: '1'" },
    { LITERAL("{\"t\":[\"U8\",[4],[0,4]]}"), 4, "tensor 't': the entry is not an object" },
    { LITERAL(ENTRY("\"shape\":[4],\"data_offsets\":[0,4]")), 4, "dtype is missing" },
    { LITERAL(ENTRY("\"dtype\":\"U8\",\"data_offsets\":[0,4]")), 4, "shape is missing" },
    { LITERAL(ENTRY("\"dtype\":\"U8\",\"shape\":[4]")), 4, "data_offsets is missing" },
    { LITERAL(ENTRY("\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4],\"shape\":[4]")), 4,
      "tensor 't': shape appears twice" },
    { LITERAL(ENTRY("\"dtype\":\"U8\",\"\\u0064type\":\"U8\"")), 4, "dtype appears twice" },
    { LITERAL(ENTRY("\"dtype\":\"bf16\"")), 4, "dtype is not one that safetensors has" },
    { LITERAL(ENTRY("\"dtype\":\"\"")), 4, "dtype is not one that safetensors has" },
    { LITERAL(ENTRY("\"dtype\":\"U8\\u0000\"")), 4, "dtype is not one that safetensors has" },
    { LITERAL(ENTRY("\"dtype\":8")), 4, "dtype is not a string: '8'" },
    { LITERAL(ENTRY("\"shape\":4")), 4, "shape is not a list of whole numbers: '4'" },
    { LITERAL(ENTRY("\"shape\":[4.0]")), 4, "a dimension of shape is not a whole number" },
    { LITERAL(ENTRY("\"shape\":[-4]")), 4, "a dimension of shape is not a whole number" },
    { LITERAL(ENTRY("\"shape\":[4e0]")), 4, "a dimension of shape is not a whole number" },
    { LITERAL(ENTRY("\"shape\":[[4]]")), 4, "a dimension of shape is not a whole number" },
    { LITERAL(ENTRY("\"shape\":[18446744073709551616]")), 4, "a dimension of shape" },
    { LITERAL(ENTRY("\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]")), 4,
      "more than 16 dimensions" },
    { LITERAL(ENTRY("\"data_offsets\":4")), 4, "data_offsets is not a list of two" },
    { LITERAL(ENTRY("\"data_offsets\":[]")), 4, "data_offsets is not a list of two" },
    { LITERAL(ENTRY("\"data_offsets\":[0]")), 4, "data_offsets is not a list of two" },
    { LITERAL(ENTRY("\"data_offsets\":[0,4,8]")), 4, "data_offsets is not a list of two" },
    { LITERAL(ENTRY("\"data_offsets\":[0,4.0]")), 4, "data_offsets is not a list of two" },
    { LITERAL(ENTRY("\"data_offsets\":[-0,4]")), 4, "data_offsets is not a list of two" },
    { LITERAL(ENTRY("\"data_offsets\":[8,4]")), 4,
      "tensor 't': data_offsets end at 4, before they begin at 8" },
    { LITERAL(ENTRY("\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,5]")), 5,
      "tensor 't': its shape of U8 needs 4 bytes, but data_offsets span 5" },
    { LITERAL(ENTRY("\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,4]")), 4,
      "needs 8 bytes, but data_offsets span 4" },
    { LITERAL(ENTRY("\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,4]")), 4,
      "needs 0 bytes, but data_offsets span 4" },
    { LITERAL(ENTRY("\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]")),
      0, "the product of its shape is 2^64 or more" },
    { LITERAL(ENTRY("\"dtype\":\"U8\",\"shape\":[1099511627776,1099511627776,0],"
                    "\"data_offsets\":[0,0]")),
      0, "the product of its shape is 2^64 or more" },
    { LITERAL(ENTRY("\"dtype\":\"U8\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]")), 0,
      "2305843009213693952 elements of U8 are 2^64 bits or more" },
    { LITERAL(ENTRY("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]")), 2,
      "3 elements of F4 are not whole bytes" },
    { LITERAL(ENTRY("\"dtype\":\"F6_E2M3\",\"shape\":[2],\"data_offsets\":[0,2]")), 2,
      "2 elements of F6_E2M3 are not whole bytes" },
    { LITERAL("{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
              "\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}"),
      2, "tensor 't' appears twice" },
    { LITERAL("{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
              "\"\\u0074\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}"),
      2, "tensor 't' appears twice" },
    { LITERAL("{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}"), 1,
      "tensor 'a\\x00b': the name contains NUL" },
    { LITERAL("{\"\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}"), 1,
      "not UTF-8" },
    { LITERAL("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
              "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}"),
      3, "tensor 'b' begins at byte 1 of the data, but 'a' ends at byte 2: they overlap" },
    { LITERAL("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
              "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}"),
      2, "they overlap" },
    { LITERAL("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
              "\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}"),
      4, "they overlap" },
    { LITERAL("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
              "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}"),
      5, "tensor 'b' begins at byte 3 of the data, which leaves a hole from byte 2" },
    { LITERAL("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}"), 3,
      "leaves a hole from byte 0" },
    { LITERAL("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}"), 1,
      "truncated: the tensors need 2 bytes behind the header, there are 1" },
    { LITERAL("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}"), 5,
      "3 bytes behind the last tensor, which ends at byte 2 of the data" },
    { LITERAL("{}"), 1, "1 bytes behind the last tensor" },
    { LITERAL("{\"__metadata__\":1}"), 0, "'__metadata__' is not an object: '1'" },
    { LITERAL("{\"__metadata__\":[]}"), 0, "'__metadata__' is not an object" },
    { LITERAL("{\"__metadata__\":{\"a\":1}}"), 0, "a value of '__metadata__' is not a string" },
    { LITERAL("{\"__metadata__\":{\"a\":{}}}"), 0, "a value of '__metadata__' is not a string" },
    { LITERAL("{\"__metadata__\":{\"a\":null}}"), 0, "a value of '__metadata__' is not a string" },
    { LITERAL("{\"__metadata__\":{},\"__metadata__\":{}}"), 0, "'__metadata__' appears twice" },
    { LITERAL("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}"), 0,
      "'__metadata__': the JSON key 'a'" },
};

static void test_safetensors__refuses_bad_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad_cases); i++) {
        const struct header_case *c = &bad_cases[i];
        char *copy = malloc(c->bytes + !c->bytes); /* ASan sees a read behind it */
        struct st_header header = { 0 };
        struct error err = { 0 };

        memcpy(copy, c->json, c->bytes);
        if (st_header_parse(&header, copy, c->bytes, c->data_bytes, &err) != ERR_FORMAT ||
            !strstr(err.text, c->part))
            fail_msg("case %zu (%s): %d '%s', wanted '%s'", i, c->json, err.code, err.text,
                     c->part);
        assert_null(header.tensors);
        free(copy);
    }
}

static const struct header_case good_cases[] = {
    { LITERAL("{}"), 0, "" },
    { LITERAL(" \t\r\n{ } \n"), 0, "" },
    { LITERAL("{\"__metadata__\":null}"), 0, "" },
    { LITERAL("{\"__metadata__\":{}}"), 0, "" },
    { LITERAL("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
              "\"__metadata__\":{\"x\":\"y\"}}      "),
      2, "a" },
    /* Order of names and fields, unknown fields and escapes are free. */
    { LITERAL("{\"b\":{\"data_offsets\":[2,4],\"new\":[{\"x\":1}],\"shape\":[2],\"dtype\":\"U8\"},"
              "\"a\":{\"\\u0064type\":\"\\u00558\",\"shape\":[2],\"data_offsets\":[0,2]}}"),
      4, "ab" },
    /* Scalars, empty tensors in any place, empty names, sizes that are odd. */
    { LITERAL("{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[1,5]},"
              "\"z\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[5,5]},"
              "\"y\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[5,5]},"
              "\"x\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]},"
              "\"e\":{\"dtype\":\"BOOL\",\"shape\":[0],\"data_offsets\":[0,0]}}"),
      5, "exszy" },
    { LITERAL("{\"\":{\"dtype\":\"U8\",\"shape\":[0,9223372036854775808],"
              "\"data_offsets\":[0,0]}}"),
      0, "" },
    { LITERAL("{\"f\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]},"
              "\"g\":{\"dtype\":\"F6_E3M2\",\"shape\":[4],\"data_offsets\":[1,4]},"
              "\"h\":{\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[4,12]}}"),
      12, "fgh" },
    { LITERAL("{\"d\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"
              "\"data_offsets\":[0,1]}}"),
      1, "d" },
};

static void test_safetensors__accepts_good_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(good_cases); i++) {
        const struct header_case *c = &good_cases[i];
        char order[8] = "";
        struct st_header header = { 0 };
        struct error err = { 0 };
        uint64_t end = 0;

        if (st_header_parse(&header, c->json, c->bytes, c->data_bytes, &err))
            fail_msg("case %zu: %s", i, err.text);
        assert_true(header.data_start == 8 + c->bytes);
        assert_true(header.data_bytes == c->data_bytes);
        for (size_t t = 0; t < header.tensor_count; t++) {
            const struct st_tensor *tensor = &header.tensors[t];

            assert_true(tensor->data_offset == end);
            assert_int_equal(strlen(st_name(&header, tensor)), tensor->name_bytes);
            end += tensor->data_bytes;
            strcat(order, st_name(&header, tensor));
        }
        assert_string_equal(order, c->part);
        st_header_release(&header);
    }
}

static void test_safetensors__fields(void **state)
{
    static const char json[] =
        "{\"__metadata__\": {\"format\" : \"pt\"},"
        "\"model.\\u00e9\":{\"dtype\":\"BF16\",\"shape\":[3,5],\"data_offsets\":[4,34]},"
        "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}";
    struct st_header header = { 0 };
    const struct st_tensor *tensor;
    struct error err = { 0 };
    (void)state;

    assert_int_equal(st_header_parse(&header, json, sizeof(json) - 1, 34, &err), 0);
    assert_string_equal(header.metadata, "{\"format\" : \"pt\"}");
    assert_int_equal(header.metadata_bytes, strlen(header.metadata));
    assert_int_equal(header.tensor_count, 2);
    tensor = &header.tensors[0];
    assert_string_equal(st_name(&header, tensor), "s");
    assert_int_equal(tensor->shape_count, 0);
    assert_true(tensor->element_count == 1);
    tensor = &header.tensors[1];
    assert_string_equal(st_name(&header, tensor), "model.\xc3\xa9");
    assert_int_equal(tensor->dtype, DTYPE_BF16);
    assert_int_equal(tensor->shape_count, 2);
    assert_true(st_shape(&header, tensor)[0] == 3 && st_shape(&header, tensor)[1] == 5);
    assert_true(tensor->element_count == 15);
    assert_true(tensor->data_offset == 4 && tensor->data_bytes == 30);
    st_header_release(&header);
    st_header_release(&header);
}

static void test_safetensors__limits_names(void **state)
{
    struct text json = { 0 };
    (void)state;

    for (size_t bytes = ST_NAME_BYTES_MAX; bytes <= ST_NAME_BYTES_MAX + 1; bytes++) {
        struct st_header header = { 0 };
        struct error err = { 0 };
        int wanted = bytes > ST_NAME_BYTES_MAX ? ERR_FORMAT : 0;

        text_clear(&json);
        text_adds(&json, "{\"");
        for (size_t i = 0; i < bytes; i++)
            text_adds(&json, "n");
        text_adds(&json, "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
        assert_int_equal(st_header_parse(&header, json.data, json.bytes, 1, &err), wanted);
        if (wanted)
            assert_non_null(strstr(err.text, "a tensor name of 4097 bytes, at most 4096"));
        st_header_release(&header);
    }
    text_release(&json);
}

/* Names in reverse, so that nothing is sorted by luck; with a duplicate in the second round. */
static void test_safetensors__many_tensors(void **state)
{
    enum { TENSORS = 100000 };
    struct text json = { 0 };
    (void)state;

    for (int round = 0; round < 2; round++) {
        struct st_header header = { 0 };
        struct error err = { 0 };
        int status;

        text_clear(&json);
        text_adds(&json, "{\"__metadata__\":{\"format\":\"pt\"}");
        for (int i = TENSORS - 1; i >= 0; i--)
            text_addf(&json,
                      ",\"model.layers.%d.mlp.experts.%d.down_proj.weight\":{\"dtype\":\"BF16\","
                      "\"shape\":[2,1],\"data_offsets\":[%d,%d]}",
                      i / 500, round && i == 77 ? 78 : i % 500, 4 * i, 4 * i + 4);
        text_adds(&json, "}");
        status = st_header_parse(&header, json.data, json.bytes, 4 * TENSORS, &err);
        if (round == 0) {
            assert_int_equal(status, 0);
            assert_int_equal(header.tensor_count, TENSORS);
            assert_string_equal(st_name(&header, &header.tensors[TENSORS - 1]),
                                "model.layers.199.mlp.experts.499.down_proj.weight");
        } else {
            assert_int_equal(status, ERR_FORMAT);
            assert_string_equal(
                err.text, "tensor 'model.layers.0.mlp.experts.78.down_proj.weight' appears twice");
        }
        st_header_release(&header);
    }
    text_release(&json);
}

static const struct {
    const char *bytes;
    size_t count;
    const char *part;
} bad_files[] = {
    { LITERAL(""), "0 bytes are too few for a safetensors file" },
    { LITERAL("\2\0\0\0\0\0\0"), "7 bytes are too few" },
    { LITERAL("\0\0\0\0\0\0\0\0"), "header length 0 is not in 2..100000000" },
    { LITERAL("\1\0\0\0\0\0\0\0{"), "header length 1 is not in 2..100000000" },
    { LITERAL("\3\0\0\0\0\0\0\0{}"), "truncated: the header has 3 bytes, the file has 2" },
    { LITERAL("\1\xe1\xf5\5\0\0\0\0{}"), "header length 100000001 is not in" },
    { LITERAL("\377\377\377\377\377\377\377\377{}"), "header length 18446744073709551615" },
    { LITERAL("\2\0\0\0\0\0\0\0no"), "expected a value, found 'n'" },
    { LITERAL("\2\0\0\0\0\0\0\0{}x"), "1 bytes behind the last tensor" },
    { LITERAL("PK\3\4\0\0\10\10abcdefgh"), "a PyTorch pickle (zip) is not a safetensors file" },
    { LITERAL("\x80\2\x8a\nl\xfc\x9c\x46\xf9 "), "a pickle is not a safetensors file" },
    { LITERAL("GGUF\3\0\0\0\0\0\0\0"), "a GGUF file is not a safetensors file" },
    { LITERAL("version https://git-lfs.github.com/spec/v1\noid sha256:"), "git-lfs pointer" },
};

static void test_safetensors__refuses_bad_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad_files); i++) {
        struct st_header header = { 0 };
        struct error err = { 0 };
        uint64_t bytes = 42;

        scratch_write("x.safetensors", bad_files[i].bytes, bad_files[i].count);
        if (st_header_read(&header, in_scratch("x.safetensors"), &bytes, &err) != ERR_FORMAT ||
            !strstr(err.text, bad_files[i].part))
            fail_msg("case %zu: %d '%s', wanted '%s'", i, err.code, err.text, bad_files[i].part);
        assert_non_null(strstr(err.text, in_scratch("x.safetensors")));
        assert_true(bytes == 42);
    }
    unlink(in_scratch("x.safetensors"));
}

static void test_safetensors__refuses_what_is_no_file(void **state)
{
    struct st_header header = { 0 };
    struct error err = { 0 };
    (void)state;

    assert_int_equal(st_header_read(&header, in_scratch("absent"), NULL, &err), ERR_USAGE);
    assert_int_equal(st_header_read(&header, scratch, NULL, &err), ERR_FORMAT);
    assert_int_equal(mkfifo(in_scratch("fifo"), 0600), 0);
    assert_int_equal(st_header_read(&header, in_scratch("fifo"), NULL, &err), ERR_FORMAT);
    unlink(in_scratch("fifo"));
    assert_int_equal(symlink("gone", in_scratch("dangling")), 0);
    assert_int_equal(st_header_read(&header, in_scratch("dangling"), NULL, &err), ERR_FORMAT);
    unlink(in_scratch("dangling"));
    assert_int_equal(symlink("loop", in_scratch("loop")), 0);
    assert_int_equal(st_header_read(&header, in_scratch("loop"), NULL, &err), ERR_FORMAT);
    unlink(in_scratch("loop"));
}

static void test_safetensors__reads_a_file(void **state)
{
    static const char file[] = "\100\0\0\0\0\0\0\0"
                               "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}"
                               "           xyz";
    struct st_header header = { 0 };
    struct error err = { 0 };
    uint64_t bytes = 0;
    XXH128_hash_t digest = XXH3_128bits(file, 8 + 64);
    (void)state;

    scratch_write("x.safetensors", file, sizeof(file) - 1);
    if (st_header_read(&header, in_scratch("x.safetensors"), &bytes, &err))
        fail_msg("%s", err.text);
    assert_true(bytes == sizeof(file) - 1);
    assert_true(header.identity.bytes == bytes && header.identity.inode);
    assert_true(header.digest[0] == digest.low64 && header.digest[1] == digest.high64);
    assert_true(header.data_start == 8 + 64);
    st_header_release(&header);
    unlink(in_scratch("x.safetensors"));
}

static void test_safetensors__emits(void **state)
{
    static const struct {
        const char *metadata;
        const char *expected;
    } cases[] = {
        { NULL, "{\"format\":\"pt\"}" },
        { "{}", "{\"format\":\"pt\"}" },
        { "{ }", "{\"format\":\"pt\"}" },
        { "{\"format\":\"pt\"}", "{\"format\":\"pt\"}" },
        { "{\"a\":\"b\", \"form\\u0061t\":\"np\"}", "{\"a\":\"b\", \"form\\u0061t\":\"np\"}" },
        { "{ \"a\":\"format\"}", "{\"format\":\"pt\", \"a\":\"format\"}" },
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *metadata = cases[i].metadata;
        struct st_header header = { 0 };
        struct error err = { 0 };
        struct text out = { 0 };

        st_emit_begin(&out, metadata, metadata ? strlen(metadata) : 0);
        st_emit_end(&out, 0, 8);
        assert_int_equal((8 + out.bytes) % 8, 0);
        assert_int_equal(st_header_parse(&header, out.data, out.bytes, 0, &err), 0);
        assert_string_equal(header.metadata, cases[i].expected);
        st_header_release(&header);
        text_release(&out);
    }
}

static void test_safetensors__emits_as_python_does(void **state)
{
    /* safetensors.torch.save({"a": bfloat16[2, 3], "b\"é": float32[]}, {"format": "pt"}) */
    static const char expected[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\\\"\xc3\xa9\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]}}       ";
    static const uint64_t shape[] = { 2, 3 };
    struct text out = { 0 };
    (void)state;

    st_emit_begin(&out, NULL, 0);
    st_emit_tensor(&out, "b\"\xc3\xa9", 4, DTYPE_F32, NULL, 0, 0, 4);
    st_emit_tensor(&out, "a", 1, DTYPE_BF16, shape, 2, 4, 12);
    st_emit_end(&out, 0, 8);
    assert_string_equal(out.data, expected);
    text_release(&out);
}

static void test_safetensors__pads_to_a_residue(void **state)
{
    static const uint64_t residues[] = { 0, 1, 8, 100, 4095 };
    (void)state;
    for (size_t i = 0; i < COUNT(residues); i++) {
        struct text out = { 0 };

        st_emit_begin(&out, NULL, 0);
        st_emit_end(&out, residues[i], 4096);
        assert_true((8 + out.bytes) % 4096 == residues[i]);
        assert_true(out.bytes < 2 * 4096);
        text_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors__refuses_bad_headers),
        cmocka_unit_test(test_safetensors__accepts_good_headers),
        cmocka_unit_test(test_safetensors__fields),
        cmocka_unit_test(test_safetensors__limits_names),
        cmocka_unit_test(test_safetensors__many_tensors),
        cmocka_unit_test(test_safetensors__refuses_bad_files),
        cmocka_unit_test(test_safetensors__refuses_what_is_no_file),
        cmocka_unit_test(test_safetensors__reads_a_file),
        cmocka_unit_test(test_safetensors__emits),
        cmocka_unit_test(test_safetensors__emits_as_python_does),
        cmocka_unit_test(test_safetensors__pads_to_a_residue),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
