#include "base/bytes.h"
#include "base/text.h"
#include "format/torch_file.h"
#include "format/torch_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define GOLDEN SOURCE_DIR "/tests/golden/torch/"

/* ---- made archives ---- */

#define STORED 0u
#define DEFLATED 8u

struct part {
    const char *name;
    const char *data;
    size_t bytes;
    unsigned method;
};

static void add_number(struct text *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        char byte = i < 8 ? (char)(value >> (8 * i)) : 0;

        text_add(out, &byte, 1);
    }
}

/* A local header (no `directory`) or an entry of the directory. */
static void add_header(struct text *out, const struct part *part, uint64_t offset, bool directory)
{
    size_t name_bytes = strlen(part->name);

    text_add(out, directory ? "PK\1\2" : "PK\3\4", 4);
    if (directory)
        add_number(out, 0, 2);
    add_number(out, 0, 4);
    add_number(out, part->method, 2);
    add_number(out, 0, 8);
    add_number(out, part->bytes, 4);
    add_number(out, part->bytes, 4);
    add_number(out, name_bytes, 2);
    add_number(out, 0, 2);
    if (directory) {
        add_number(out, 0, 10);
        add_number(out, offset, 4);
    }
    text_add(out, part->name, name_bytes);
}

static void add_end(struct text *out, size_t count, uint64_t begin)
{
    uint64_t bytes = out->bytes - begin;

    text_add(out, "PK\5\6\0\0\0\0", 8);
    add_number(out, count, 2);
    add_number(out, count, 2);
    add_number(out, bytes, 4);
    add_number(out, begin, 4);
    add_number(out, 0, 2);
}

static void make_archive(struct text *out, const struct part *parts, size_t count)
{
    uint64_t offsets[16];
    uint64_t begin;

    assert_true(count <= COUNT(offsets));
    for (size_t i = 0; i < count; i++) {
        offsets[i] = out->bytes;
        add_header(out, &parts[i], 0, false);
        text_add(out, parts[i].data, parts[i].bytes);
    }
    begin = out->bytes;
    for (size_t i = 0; i < count; i++)
        add_header(out, &parts[i], offsets[i], true);
    add_end(out, count, begin);
    assert_false(out->failed);
}

/* From memory of exactly its size, so that ASan sees a read behind it. */
static int parse(struct st_header *out, const struct text *bytes, struct error *err)
{
    uint8_t *copy = malloc(bytes->bytes ? bytes->bytes : 1);
    struct torch_source source = { NULL, copy, bytes->bytes };
    int status;

    assert_non_null(copy);
    memcpy(copy, bytes->data ? bytes->data : "", bytes->bytes);
    *err = (struct error){ 0 };
    *out = (struct st_header){ 0 };
    status = torch_parse(out, &source, err);
    assert_int_equal(status, err->code);
    free(copy);
    return status;
}

static int parse_parts(struct st_header *out, const struct part *parts, size_t count,
                       struct error *err)
{
    struct text bytes = { 0 };
    int status;

    make_archive(&bytes, parts, count);
    status = parse(out, &bytes, err);
    text_release(&bytes);
    return status;
}

static void assert_says(const struct error *err, const char *part)
{
    if (!strstr(err->text, part))
        fail_msg("'%s' is not in: %s", part, err->text);
}

/* ---- pickles by hand ---- */

#define LITERAL(text) text, sizeof(text) - 1
#define STR(length, text) "X" length "\0\0\0" text
#define STORAGE_OF(type, key, count)                                                               \
    "((" STR("\7", "storage") "ctorch\n" type "\n" STR("\1", key) STR("\3", "cpu") count "tQ"
#define FLOATS(count) STORAGE_OF("FloatStorage", "0", count)
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"
#define HOOKS                                                                                      \
    "\x89"                                                                                         \
    "ccollections\nOrderedDict\n)RtR"
#define FOUR FLOATS("K\4")
/* A tensor of the four floats of storage 0: offset, then shape and strides. */
#define TENSOR(numbers) REBUILD FOUR numbers HOOKS
#define PLAIN TENSOR("K\0K\4\x85K\1\x85")
#define DICT(items) "\x80\2}(" items "u."
#define NAME(text) STR("\1", text)

static const char floats[] = "\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40";

static int parse_pickle(struct st_header *out, const char *pickle, size_t bytes, struct error *err)
{
    const struct part parts[] = {
        { "m/data.pkl", pickle, bytes, STORED },
        { "m/byteorder", LITERAL("little"), STORED },
        { "m/data/0", floats, 16, STORED },
        { "m/version", LITERAL("3\n"), STORED },
    };

    return parse_parts(out, parts, COUNT(parts), err);
}

static void test_torch_file__pickle_by_hand(void **state)
{
    struct st_header header;
    struct error err;

    (void)state;
    if (parse_pickle(&header,
                     LITERAL(DICT(NAME("b") PLAIN NAME("a")
                                      TENSOR("K\1K\3K\1\x86K\1J\377\377\377\177\x86"))),
                     &err))
        fail_msg("%s", err.text);
    assert_int_equal(header.tensor_count, 2);
    assert_string_equal(st_name(&header, &header.tensors[0]), "b");
    assert_string_equal(st_name(&header, &header.tensors[1]), "a");
    assert_int_equal(header.tensors[1].data_offset, header.tensors[0].data_offset + 4);
    assert_int_equal(header.tensors[1].data_bytes, 12);
    assert_int_equal(header.tensors[1].shape_count, 2);
    assert_int_equal(st_shape(&header, &header.tensors[1])[0], 3);
    assert_int_equal(header.data_start, 0);
    st_header_release(&header);
}

static const struct {
    const char *pickle;
    size_t bytes;
    const char *part;
} bad_pickles[] = {
    { LITERAL(""), "byte 0 of its pickle: truncated" },
    { LITERAL("}."), "byte 0 of its pickle: it does not begin as a pickle does" },
    { LITERAL("\x80\6}."), "pickle protocol 6 is not in 2..5" },
    { LITERAL("\x80\2}"), "byte 3 of its pickle: truncated" },
    { LITERAL("\x80\2."), "lacks a value" },
    { LITERAL("\x80\2(."), "lacks a value" },
    { LITERAL("\x80\2}}."), "ends with 1 values" },
    { LITERAL("\x80\2}.}"), "ends with 0 values and 1 bytes left" },
    { LITERAL("\x80\2N."), "the file holds None, not a dict" },
    { LITERAL("\x80\2]."), "the file holds a list, not a dict" },
    { LITERAL("\x80\2u."), "lacks its mark" },
    { LITERAL("\x80\2(u."), "without the list or dict" },
    { LITERAL("\x80\2}(Nu."), "without the list or dict" },
    { LITERAL("\x80\2}(NNe."), "without the list or dict" },
    { LITERAL("\x80\2}s."), "lacks a value" },
    { LITERAL("\x80\2}(N\x87."), "lacks a value" },
    { LITERAL("\x80\2\x85."), "lacks a value" },
    { LITERAL("\x80\2q\0."), "lacks a value" },
    { LITERAL("\x80\2}q\1."), "memo entry 1 comes before entry 0" },
    { LITERAL("\x80\2}r\377\377\377\377."), "memo entry 4294967295 comes before" },
    { LITERAL("\x80\2h\0."), "memo entry 0 is asked for, there are 0" },
    { LITERAL("\x80\2j\1\0\0\0."), "memo entry 1 is asked for" },
    { LITERAL("\x80\2X\377\377\377\377ab"), "truncated: 4294967295 bytes wanted, 2 are there" },
    { LITERAL("\x80\2\x8a\x09"
              "123456789."),
      "a number of 9 bytes" },
    { LITERAL("\x80\2\x95\0"), "truncated: 8 bytes wanted" },
    { LITERAL("\x80\2G\0"), "truncated: 8 bytes wanted" },
    { LITERAL("\x80\2NNb."), "BUILD is refused" },
    { LITERAL("\x80\2}Nb."), "BUILD is refused" },
    { LITERAL("\x80\2}}R."), "damaged: a dict is called" },
    { LITERAL("\x80\2})Q."), "a storage is not described as torch does it" },
    { LITERAL("\x80\2NQ."), "a storage is not described as torch does it" },
    { LITERAL("\x80\2"
              "cposix\nsystem\n(X\2\0\0\0lstR."),
      "byte 2 of its pickle: the pickle asks for "
      "'posix.system', which is refused" },
    { LITERAL("\x80\4\x8c\2os\x8c\6system\x93)R."), "asks for 'os.system'" },
    { LITERAL("\x80\2NN\x93."), "a name that is no string" },
    { LITERAL("\x80\2"
              "cbuiltins\neval\n)R."),
      "'builtins.eval'" },
    { LITERAL("\x80\2"
              "ctorch.storage\n_load_from_bytes\n)R."),
      "'torch.storage._load_from_bytes'" },
    { LITERAL("\x80\2"
              "ctorch"),
      "a name without its end" },
    { LITERAL("\x80\2"
              "c\033[31m\nx\n."),
      "'\\x1b[31m.x'" },
    { LITERAL("\x80\2"
              "ccollections\nOrderedDict\nN\x85R."),
      "called in a way" },
    { LITERAL("\x80\2"
              "ctorch\nFloatStorage\n)R."),
      "called in a way" },
    { LITERAL("\x80\2"
              "ctorch._utils\n_rebuild_parameter\nNNN\x87R."),
      "called in a way" },
    { LITERAL("\x80\2"
              "ccollections\nOrderedDict\n)\x81."),
      "instruction NEWOBJ (0x81) is refused" },
    { LITERAL("\x80\2(iposix\nsystem\n."), "instruction INST (0x69)" },
    { LITERAL("\x80\2\x82\1."), "instruction EXT1 (0x82)" },
    { LITERAL("\x80\2\377."), "instruction unknown (0xff)" },
    { LITERAL(DICT(NAME("a") "N")), "'a' is None, not a tensor" },
    { LITERAL(DICT(NAME("a") "}")), "'a' is a dict, not a tensor" },
    { LITERAL(DICT(NAME("a") "K\1")), "'a' is a number" },
    { LITERAL(DICT("K\1" PLAIN)), "its dict has a number as a key" },
    { LITERAL(DICT(NAME("a") PLAIN NAME("a") PLAIN)), "tensor 'a' appears twice" },
    { LITERAL(DICT(NAME("\377") PLAIN)), "tensor '\\xff': the name is not UTF-8" },
    { LITERAL(DICT(NAME("\0") PLAIN)), "tensor '\\x00': the name contains NUL" },
    { LITERAL(DICT(NAME("a") TENSOR("K\0K\5\x85K\1\x85"))), "5 elements of F32 from element 0" },
    { LITERAL(DICT(NAME("a") TENSOR("K\1K\4\x85K\1\x85"))), "4 elements of F32 from element 1" },
    { LITERAL(DICT(NAME("a") TENSOR("J\377\377\377\377K\4\x85K\1\x85"))), "not described as" },
    { LITERAL(DICT(NAME("a") TENSOR("\x8a\x08\377\377\377\377\377\377\377\177K\4\x85K\1\x85"))),
      "from element 9223372036854775807 do not fit" },
    { LITERAL(DICT(NAME("a") TENSOR("K\0J\377\377\377\377\x85K\1\x85"))), "not a whole number" },
    { LITERAL(DICT(NAME("a") TENSOR("K\0J\377\377\377\177J\377\377\377\177J\377\377\377\177\x87"
                                    "K\1K\1K\1\x87"))),
      "the product of its shape is 2^64 or more" },
    { LITERAL(DICT(NAME("a") TENSOR("K\0K\2K\2\x86K\1K\2\x86"))), "do not lie one after another" },
    { LITERAL(DICT(NAME("a") TENSOR("K\0K\2\x85K\2\x85"))), "do not lie one after another" },
    { LITERAL(DICT(NAME("a") TENSOR("K\0K\2\x85K\1K\1\x86"))), "not described as" },
    { LITERAL(DICT(NAME("a") TENSOR("K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1t"
                                    "(K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1K\1t"))),
      "17 dimensions, the limit is 16" },
    { LITERAL(DICT(NAME("a") REBUILD FLOATS("K\3") "K\0)) " HOOKS)), "instruction unknown (0x20)" },
    { LITERAL(DICT(NAME("a") REBUILD FLOATS("K\3") "K\0))" HOOKS)),
      "'data/0' has 16 bytes, which is not 3 elements" },
    { LITERAL(DICT(NAME("a") REBUILD STORAGE_OF("FloatStorage", "7", "K\4") "K\0))" HOOKS)),
      "tensor 'a': its storage 'data/7' is not in the archive" },
    { LITERAL(DICT(NAME("a") REBUILD STORAGE_OF("QInt8Storage", "0", "K\4") "K\0))" HOOKS)),
      "'torch.QInt8Storage'" },
    { LITERAL(DICT(NAME("a") REBUILD "((" STR("\7", "storage") "N" STR("\1", "0")
                       STR("\3", "cpu") "K\4tQ")),
      "a storage has None as its type" },
    { LITERAL(DICT(NAME("a") "ctorch._utils\n_rebuild_tensor_v3\n" FOUR "K\0))"
                             "\x89}"
                             "ctorch\nuint16\ntR")),
      "not described as" },
};

static void test_torch_file__bad_pickles(void **state)
{
    struct st_header header;
    struct error err;

    (void)state;
    for (size_t i = 0; i < COUNT(bad_pickles); i++) {
        if (parse_pickle(&header, bad_pickles[i].pickle, bad_pickles[i].bytes, &err) != ERR_FORMAT)
            fail_msg("%zu: not refused: %s", i, bad_pickles[i].part);
        if (!strstr(err.text, bad_pickles[i].part))
            fail_msg("%zu: '%s' is not in: %s", i, bad_pickles[i].part, err.text);
        assert_null(header.tensors);
    }
}

/* More memo entries than two bytes count, as a file of many tensors has. */
static void test_torch_file__many_tensors(void **state)
{
    struct text pickle = { 0 };
    struct st_header header;
    struct error err;
    uint64_t memo = 0;

    (void)state;
    text_add(&pickle, LITERAL("\x80\2}q\0("));
    for (unsigned i = 0; i < 40000; i++) {
        text_adds(&pickle, "X");
        add_number(&pickle, 6, 4);
        text_addf(&pickle, "t%05u", i);
        text_add(&pickle, "r", 1);
        add_number(&pickle, ++memo, 4);
        text_add(&pickle, LITERAL(PLAIN));
        text_add(&pickle, "r", 1);
        add_number(&pickle, ++memo, 4);
    }
    text_adds(&pickle, "uj");
    add_number(&pickle, 0, 4);
    text_add(&pickle, LITERAL("}b0"));
    pickle.data[pickle.bytes - 1] = '.';
    /* The dict is on the stack twice: that is one value too many. */
    assert_int_equal(parse_pickle(&header, pickle.data, pickle.bytes, &err), ERR_FORMAT);
    assert_says(&err, "ends with 1 values");
    pickle.bytes -= 8;
    text_adds(&pickle, ".");
    if (parse_pickle(&header, pickle.data, pickle.bytes, &err))
        fail_msg("%s", err.text);
    assert_int_equal(header.tensor_count, 40000);
    assert_string_equal(st_name(&header, &header.tensors[39999]), "t39999");
    st_header_release(&header);
    text_release(&pickle);
}

/* Values that only pile up: the limit holds before the memory is gone. */
static void test_torch_file__too_many_values(void **state)
{
    static const char bytes[][2] = { "(", "}", "N", ")" };
    size_t count = (8u << 20) + 3;
    char *pickle = malloc(count);
    struct st_header header;
    struct error err;

    (void)state;
    assert_non_null(pickle);
    for (size_t i = 0; i < COUNT(bytes); i++) {
        memset(pickle, bytes[i][0], count);
        memcpy(pickle, "\x80\2", 2);
        assert_int_equal(parse_pickle(&header, pickle, count, &err), ERR_FORMAT);
        assert_says(&err, "byte 8388610 of its pickle: it makes more than 8388608 values");
    }
    free(pickle);
}

/* ---- archives ---- */

static const char empty_dict[] = "\x80\2}.";

static void test_torch_file__bad_parts(void **state)
{
    static const struct {
        struct part parts[5];
        const char *says;
    } cases[] = {
        { { { "m/data.pkl", LITERAL(empty_dict), STORED } }, "entry 'version' of a torch archive" },
        { { { "m/data.pkl", LITERAL(empty_dict), STORED },
            { "m/version", LITERAL("11\n"), STORED } },
          "is not one of 1 to 10" },
        { { { "m/version", LITERAL("3\n"), STORED } }, "an archive, but not of torch.save()" },
        { { { "data.pkl", LITERAL(empty_dict), STORED } }, "it has no 'data.pkl'" },
        { { { "m/data.pkl", LITERAL(empty_dict), STORED },
            { "n/data.pkl", LITERAL(empty_dict), STORED } },
          "two pickles" },
        { { { "m/data.pkl", LITERAL(empty_dict), STORED },
            { "m/data.pkl", LITERAL(empty_dict), STORED } },
          "entry 'm/data.pkl' appears twice" },
        { { { "m/data.pkl", LITERAL(empty_dict), STORED },
            { "m/constants.pkl", LITERAL(empty_dict), STORED } },
          "a TorchScript archive, which holds a program" },
        { { { "m/data.pkl", LITERAL(empty_dict), STORED },
            { "m/version", LITERAL("3\n"), STORED },
            { "m/byteorder", LITERAL("big"), STORED } },
          "its numbers are not little-endian" },
        { { { "m/data.pkl", LITERAL(empty_dict), DEFLATED },
            { "m/version", LITERAL("3\n"), STORED } },
          "entry 'm/data.pkl' is compressed (method 8)" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct st_header header;
        struct error err;
        size_t count = 0;

        while (cases[i].parts[count].name)
            count++;
        assert_int_equal(parse_parts(&header, cases[i].parts, count, &err), ERR_FORMAT);
        assert_says(&err, cases[i].says);
    }
}

static const struct part sound_parts[] = {
    { "m/data.pkl", LITERAL(DICT(NAME("a") PLAIN)), STORED },
    { "m/version", LITERAL("3\n"), STORED },
    { "m/data/0", floats, 16, STORED },
};

/* Changes at a place from the end: 22 bytes of end, before it 46 bytes and a name per entry. */
static void test_torch_file__damaged_archives(void **state)
{
    static const struct {
        size_t before_end;
        const char *bytes;
        size_t count;
        const char *says;
    } cases[] = {
        { 22, LITERAL("PK\5\7"), "the end of a ZIP directory is missing" },
        { 12, LITERAL("\1\0"), "bytes behind the last of 1 entries" },
        { 12, LITERAL("\4\0"), "4 entries in a directory of 165 bytes" },
        { 12, LITERAL("\0\0"), "0 entries in a directory" },
        { 12, LITERAL("\377\377"), "no zip64 locator" },
        { 10, LITERAL("\0\0\0\x7f"), "truncated: its directory has" },
        { 6, LITERAL("\1\0"), "its directory breaks off" },
        { 22 + 54, LITERAL("PK\1\3"), "its directory breaks off" },
        { 22 + 54 - 8, LITERAL("\1"), "entry 'm/data/0': it is encrypted" },
        { 22 + 54 - 20, LITERAL("\17"), "it is stored, yet has 15 bytes packed and 16 plain" },
        { 22 + 54 - 20, LITERAL("\17\0\0\0\17"), "differs from the directory" },
        { 22 + 54 - 20, LITERAL("\377\377\377\177\377\377\377\177"), "differs from the directory" },
        { 22 + 54 - 20, LITERAL("\377\377\377\377\377\377\377\377"), "zip64 field is missing" },
        { 22 + 54 - 42, LITERAL("\1\0\0\0"), "reach into what begins at byte 1" },
        { 22 + 54 - 42, LITERAL("\0\0\0\0"), "reach into what begins at byte 0" },
        { 22 + 54 - 42, LITERAL("\0\0\0\x7f"), "truncated: 30 bytes wanted at byte" },
        { 22 + 8, LITERAL("n"), "its local header has another name" },
        { 22 + 54 - 30, LITERAL("\1"), "its directory breaks off" },
    };
    struct st_header header;
    struct error err;

    (void)state;
    assert_int_equal(parse_parts(&header, sound_parts, COUNT(sound_parts), &err), 0);
    st_header_release(&header);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct text bytes = { 0 };

        make_archive(&bytes, sound_parts, COUNT(sound_parts));
        memcpy(bytes.data + bytes.bytes - cases[i].before_end, cases[i].bytes, cases[i].count);
        if (parse(&header, &bytes, &err) != ERR_FORMAT || !strstr(err.text, cases[i].says))
            fail_msg("%zu: '%s' is not in: %s", i, cases[i].says, err.text);
        text_release(&bytes);
    }
}

/* Every prefix of a file is refused and every changed byte is refused or read without harm. */
static void test_torch_file__cut_and_changed_anywhere(void **state)
{
    struct text whole = { 0 };
    struct st_header header;
    struct error err;

    (void)state;
    make_archive(&whole, sound_parts, COUNT(sound_parts));
    for (size_t bytes = 0; bytes < whole.bytes; bytes++) {
        struct text cut = { .data = whole.data, .bytes = bytes };

        assert_int_equal(parse(&header, &cut, &err), ERR_FORMAT);
    }
    for (size_t at = 0; at < whole.bytes; at++) {
        char before = whole.data[at];

        for (unsigned change = 1; change < 256; change += 37) {
            whole.data[at] = (char)(before ^ (char)change);
            if (parse(&header, &whole, &err) == 0)
                st_header_release(&header);
            else
                assert_int_equal(err.code, ERR_FORMAT);
        }
        whole.data[at] = before;
    }
    text_release(&whole);
}

static void test_torch_file__zip64(void **state)
{
    static const struct part *part = &sound_parts[0];
    struct text bytes = { 0 };
    struct st_header header;
    struct error err;
    uint64_t offsets[COUNT(sound_parts)];
    uint64_t begin, end;

    (void)state;
    for (size_t i = 0; i < COUNT(sound_parts); i++) {
        offsets[i] = bytes.bytes;
        add_header(&bytes, &part[i], 0, false);
        text_add(&bytes, part[i].data, part[i].bytes);
    }
    begin = bytes.bytes;
    for (size_t i = 0; i < COUNT(sound_parts); i++) {
        size_t at = bytes.bytes;

        add_header(&bytes, &part[i], 0, true);
        memcpy(bytes.data + at + 20, "\377\377\377\377\377\377\377\377", 8);
        memcpy(bytes.data + at + 30, "\40", 1);
        memcpy(bytes.data + at + 42, "\377\377\377\377", 4);
        text_add(&bytes, LITERAL("\7\0\0\0\1\0\30\0")); /* another field, then zip64 */
        add_number(&bytes, part[i].bytes, 8);
        add_number(&bytes, part[i].bytes, 8);
        add_number(&bytes, offsets[i], 8);
    }
    end = bytes.bytes;
    text_add(&bytes, LITERAL("PK\6\6"));
    add_number(&bytes, 44, 8);
    add_number(&bytes, 0, 4);
    add_number(&bytes, 0, 8);
    add_number(&bytes, COUNT(sound_parts), 8);
    add_number(&bytes, COUNT(sound_parts), 8);
    add_number(&bytes, end - begin, 8);
    add_number(&bytes, begin, 8);
    text_add(&bytes, LITERAL("PK\6\7\0\0\0\0"));
    add_number(&bytes, end, 8);
    add_number(&bytes, 1, 4);
    text_add(&bytes, LITERAL("PK\5\6\0\0\0\0\377\377\377\377\377\377\377\377\377\377\377\377\0\0"));
    if (parse(&header, &bytes, &err))
        fail_msg("%s", err.text);
    assert_int_equal(header.tensor_count, 1);
    st_header_release(&header);
    bytes.data[end] = 'p';
    assert_int_equal(parse(&header, &bytes, &err), ERR_FORMAT);
    assert_says(&err, "its zip64 end is not where it says");
    bytes.data[end] = 'P';
    memset(bytes.data + end + 48, 0xff, 8);
    assert_int_equal(parse(&header, &bytes, &err), ERR_FORMAT);
    assert_says(&err, "truncated: its directory has");
    text_release(&bytes);
}

static void test_torch_file__strangers(void **state)
{
    static const struct {
        const char *bytes;
        size_t count;
        const char *says;
    } cases[] = {
        { LITERAL(""), "this is not a file of torch.save()" },
        { LITERAL("nothing of the kind"), "this is not a file of torch.save()" },
        { LITERAL("\x80\2}q\0."), "a pickle, but not of torch.save()" },
        { LITERAL("version https://git-lfs.github.com/spec/v1\n"), "a git-lfs pointer" },
        { LITERAL("PK\3\4"), "too few for an archive" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct text bytes = { .data = (char *)(uintptr_t)cases[i].bytes, .bytes = cases[i].count };
        struct st_header header;
        struct error err;

        assert_int_equal(parse(&header, &bytes, &err), ERR_FORMAT);
        assert_says(&err, cases[i].says);
    }
}

/* ---- files that torch wrote ---- */

static void assert_tensor(const struct st_header *header, const char *path, const char *name,
                          const char *dtype, const char *shape, const char *hex)
{
    const struct st_tensor *tensor = header->tensors;
    struct text found = { 0 };
    FILE *file = fopen(path, "rb");

    assert_non_null(file);
    while (strcmp(st_name(header, tensor), name) != 0)
        assert_true(++tensor < header->tensors + header->tensor_count);
    assert_string_equal(dtype_name((enum dtype)tensor->dtype), dtype);
    for (size_t d = 0; d < tensor->shape_count; d++)
        text_addf(&found, "%s%llu", d ? "," : "", (unsigned long long)st_shape(header, tensor)[d]);
    assert_string_equal(found.bytes ? found.data : "-", shape);
    text_clear(&found);
    assert_int_equal(fseek(file, (long)tensor->data_offset, SEEK_SET), 0);
    for (uint64_t i = 0; i < tensor->data_bytes; i++)
        text_addf(&found, "%02x", fgetc(file));
    assert_string_equal(found.bytes ? found.data : "-", hex);
    fclose(file);
    text_release(&found);
}

static void test_torch_file__golden(void **state)
{
    FILE *expected = fopen(GOLDEN "expected.txt", "r");
    char file[64], name[64], dtype[16], shape[64], hex[256];
    unsigned lines = 0;

    (void)state;
    assert_non_null(expected);
    while (fscanf(expected, "%63s %63s %15s %63s %255s", file, name, dtype, shape, hex) == 5) {
        struct st_header header = { 0 };
        struct error err = { 0 };
        uint64_t file_bytes = 0;
        char path[512];

        snprintf(path, sizeof(path), "%s%s", GOLDEN, file);
        if (torch_file_read(&header, path, &file_bytes, &err))
            fail_msg("%s", err.text);
        assert_int_equal(header.data_start, 0);
        assert_int_equal(header.data_bytes, file_bytes);
        assert_int_equal(header.identity.bytes, file_bytes);
        assert_true(header.digest[0] != 0);
        assert_tensor(&header, path, name, dtype, shape, hex);
        for (size_t i = 1; i < header.tensor_count; i++)
            assert_true(header.tensors[i - 1].data_offset <= header.tensors[i].data_offset);
        st_header_release(&header);
        lines++;
    }
    assert_true(feof(expected));
    assert_int_equal(lines, 85);
    fclose(expected);
}

static void test_torch_file__golden_refusals(void **state)
{
    static const char *const cases[][2] = {
        { "cut_columns", "tensor 'cut': its elements do not lie one after another" },
        { "expanded", "tensor 'wide': its elements do not lie one after another" },
        { "transposed", "tensor 'turned': its elements do not lie one after another" },
        { "list", "'things' is a list, not a tensor" },
        { "number", "'epoch' is a number, not a tensor" },
        { "nested", "'state_dict' is a dict, not a tensor" },
        { "key", "its dict has a number as a key" },
        { "tensor", "the file holds a tensor, not a dict of tensors" },
        { "sparse", "'torch._utils._rebuild_sparse_tensor'" },
        { "conj", "the bits conj or neg" },
        { "complex128", "'torch.ComplexDoubleStorage'" },
        { "quantised", "'torch._utils._rebuild_qtensor'" },
        { "malicious", "'posix.system', which is refused" },
        { "set", "refused" },
        { "legacy", "the format of torch before 1.6" },
        { "torchscript", "a TorchScript archive" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct st_header header = { 0 };
        struct error err = { 0 };
        char path[512];

        snprintf(path, sizeof(path), "%sbad_%s.bin", GOLDEN, cases[i][0]);
        assert_int_equal(torch_file_read(&header, path, NULL, &err), ERR_FORMAT);
        assert_says(&err, cases[i][1]);
        assert_says(&err, path);
    }
}

static void test_torch_file__empty_and_missing(void **state)
{
    struct st_header header = { 0 };
    struct error err = { 0 };

    (void)state;
    assert_int_equal(torch_file_read(&header, GOLDEN "nothing.bin", NULL, &err), 0);
    assert_int_equal(header.tensor_count, 0);
    assert_non_null(header.names);
    assert_non_null(header.shapes);
    st_header_release(&header);
    assert_int_equal(torch_file_read(&header, GOLDEN "none.bin", NULL, &err), ERR_USAGE);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch_file__pickle_by_hand),
        cmocka_unit_test(test_torch_file__bad_pickles),
        cmocka_unit_test(test_torch_file__many_tensors),
        cmocka_unit_test(test_torch_file__too_many_values),
        cmocka_unit_test(test_torch_file__bad_parts),
        cmocka_unit_test(test_torch_file__damaged_archives),
        cmocka_unit_test(test_torch_file__cut_and_changed_anywhere),
        cmocka_unit_test(test_torch_file__zip64),
        cmocka_unit_test(test_torch_file__strangers),
        cmocka_unit_test(test_torch_file__golden),
        cmocka_unit_test(test_torch_file__golden_refusals),
        cmocka_unit_test(test_torch_file__empty_and_missing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
