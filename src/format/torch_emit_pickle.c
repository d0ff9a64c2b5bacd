#include "base/bytes.h"
#include "format/torch_emit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * What stands for a dtype: the type of a storage, or, where torch has none, a name of torch itself,
 * with a storage of bytes.
 */
static const struct {
    const char *storage;
    const char *dtype;
} types[DTYPE_COUNT] = {
    [DTYPE_BOOL] = { "BoolStorage", NULL },
    [DTYPE_U8] = { "ByteStorage", NULL },
    [DTYPE_I8] = { "CharStorage", NULL },
    [DTYPE_I16] = { "ShortStorage", NULL },
    [DTYPE_I32] = { "IntStorage", NULL },
    [DTYPE_I64] = { "LongStorage", NULL },
    [DTYPE_F16] = { "HalfStorage", NULL },
    [DTYPE_BF16] = { "BFloat16Storage", NULL },
    [DTYPE_F32] = { "FloatStorage", NULL },
    [DTYPE_F64] = { "DoubleStorage", NULL },
    [DTYPE_C64] = { "ComplexFloatStorage", NULL },
    [DTYPE_U16] = { NULL, "uint16" },
    [DTYPE_U32] = { NULL, "uint32" },
    [DTYPE_U64] = { NULL, "uint64" },
    [DTYPE_F8_E5M2] = { NULL, "float8_e5m2" },
    [DTYPE_F8_E4M3] = { NULL, "float8_e4m3fn" },
    [DTYPE_F8_E8M0] = { NULL, "float8_e8m0fnu" },
    [DTYPE_F8_E4M3FNUZ] = { NULL, "float8_e4m3fnuz" },
    [DTYPE_F8_E5M2FNUZ] = { NULL, "float8_e5m2fnuz" },
};

/* What is said more than once; behind these one for each dtype. */
enum word {
    WORD_REBUILD,
    WORD_REBUILD_DTYPE,
    WORD_STORAGE,
    WORD_CPU,
    WORD_UNTYPED,
    WORD_ORDERED_DICT,
    WORD_DTYPES
};
_Static_assert(WORD_DTYPES + DTYPE_COUNT == TORCH_WORDS, "a word for each dtype");

bool torch_emit_knows(enum dtype dtype)
{
    return types[dtype].storage || types[dtype].dtype;
}

static void add_string(struct text *out, const char *string, size_t bytes)
{
    uint8_t head[5] = { 'X' }; /* BINUNICODE */

    store_le32(head + 1, (uint32_t)bytes);
    text_add(out, (const char *)head, sizeof(head));
    text_add(out, string, bytes);
}

static void add_integer(struct text *out, uint64_t value)
{
    uint8_t code[10];
    size_t bytes;

    if (value <= UINT8_MAX) {
        code[0] = 'K'; /* BININT1 */
        bytes = 1;
    } else if (value <= INT32_MAX) {
        code[0] = 'J'; /* BININT */
        bytes = 4;
    } else {
        code[0] = 0x8a; /* LONG1: 8 bytes; no size in a file has the sign's bit */
        code[1] = 8;
        store_le64(code + 2, value);
        text_add(out, (const char *)code, sizeof(code));
        return;
    }
    store_le64(code + 1, value);
    text_add(out, (const char *)code, 1 + bytes);
}

/* From the memo, if it is there; then true. */
static bool recall(struct torch_pickle *pickle, unsigned word)
{
    char get[2] = { 'h', (char)(pickle->memo[word] - 1) }; /* BINGET */

    if (!pickle->memo[word])
        return false;
    text_add(pickle->out, get, sizeof(get));
    return true;
}

static void remember(struct torch_pickle *pickle, unsigned word)
{
    char put[2] = { 'q', (char)pickle->memo_count }; /* BINPUT */

    text_add(pickle->out, put, sizeof(put));
    pickle->memo[word] = ++pickle->memo_count;
}

static void add_word(struct torch_pickle *pickle, enum word word, const char *string)
{
    if (recall(pickle, word))
        return;
    add_string(pickle->out, string, strlen(string));
    remember(pickle, word);
}

static void add_global(struct torch_pickle *pickle, unsigned word, const char *module,
                       const char *name)
{
    if (recall(pickle, word))
        return;
    text_addf(pickle->out, "c%s\n%s\n", module, name);
    remember(pickle, word);
}

static void add_tuple(struct text *out, const uint64_t *values, size_t count)
{
    if (count == 0) {
        text_adds(out, ")"); /* EMPTY_TUPLE */
        return;
    }
    text_adds(out, "(");
    for (size_t i = 0; i < count; i++)
        add_integer(out, values[i]);
    text_adds(out, "t");
}

/* In elements, as torch counts them: a dimension of nothing counts as one. */
static void add_strides(struct text *out, const uint64_t *shape, size_t count)
{
    if (count)
        text_adds(out, "(");
    for (size_t i = 0; i < count; i++) {
        uint64_t stride = 1;

        for (size_t k = i + 1; k < count; k++)
            stride *= max_u64(shape[k], 1);
        add_integer(out, stride);
    }
    text_adds(out, count ? "t" : ")");
}

void torch_emit_begin(struct torch_pickle *pickle, struct text *out)
{
    *pickle = (struct torch_pickle){ .out = out };
    text_adds(out, "\x80\x02}("); /* PROTO 2, EMPTY_DICT, MARK */
}

void torch_emit_tensor(struct torch_pickle *pickle, const char *name, size_t name_bytes,
                       enum dtype dtype, const uint64_t *shape, size_t shape_count,
                       uint64_t storage)
{
    struct text *out = pickle->out;
    bool typed = types[dtype].storage;
    uint64_t elements = 1;
    char key[24];

    for (size_t i = 0; i < shape_count; i++)
        elements *= shape[i];
    add_string(out, name, name_bytes);
    if (typed)
        add_global(pickle, WORD_REBUILD, "torch._utils", "_rebuild_tensor_v2");
    else
        add_global(pickle, WORD_REBUILD_DTYPE, "torch._utils", "_rebuild_tensor_v3");
    text_adds(out, "((");
    add_word(pickle, WORD_STORAGE, "storage");
    if (typed)
        add_global(pickle, WORD_DTYPES + dtype, "torch", types[dtype].storage);
    else
        add_global(pickle, WORD_UNTYPED, "torch.storage", "UntypedStorage");
    snprintf(key, sizeof(key), "%" PRIu64, storage);
    add_string(out, key, strlen(key));
    add_word(pickle, WORD_CPU, "cpu");
    add_integer(out, typed ? elements : elements * dtype_bytes(dtype));
    text_adds(out, "tQK"); /* TUPLE, BINPERSID; its first element: BININT1 */
    text_add(out, "\0", 1);
    add_tuple(out, shape, shape_count);
    add_strides(out, shape, shape_count);
    text_adds(out, "\x89"); /* NEWFALSE: requires_grad */
    add_global(pickle, WORD_ORDERED_DICT, "collections", "OrderedDict");
    text_adds(out, ")R"); /* EMPTY_TUPLE, REDUCE: hooks */
    if (!typed)
        add_global(pickle, WORD_DTYPES + dtype, "torch", types[dtype].dtype);
    text_adds(out, "tR");
}

void torch_emit_end(struct torch_pickle *pickle)
{
    text_adds(pickle->out, "u."); /* SETITEMS, STOP */
}
