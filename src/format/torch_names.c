#include "format/torch_machine.h"

#include <string.h>

static const struct {
    const char *module;
    const char *name;
    enum torch_global global;
    enum dtype dtype; /* of a storage type or a dtype */
} globals[] = {
    { "collections", "OrderedDict", TORCH_ORDERED_DICT, 0 },
    { "torch._utils", "_rebuild_tensor_v2", TORCH_REBUILD_TENSOR, 0 },
    { "torch._utils", "_rebuild_tensor_v3", TORCH_REBUILD_TENSOR_DTYPE, 0 },
    { "torch._utils", "_rebuild_parameter", TORCH_REBUILD_PARAMETER, 0 },
    { "torch", "Size", TORCH_SIZE, 0 },
    { "torch.storage", "UntypedStorage", TORCH_UNTYPED_STORAGE, 0 },
    { "torch", "BFloat16Storage", TORCH_STORAGE_TYPE, DTYPE_BF16 },
    { "torch", "HalfStorage", TORCH_STORAGE_TYPE, DTYPE_F16 },
    { "torch", "FloatStorage", TORCH_STORAGE_TYPE, DTYPE_F32 },
    { "torch", "DoubleStorage", TORCH_STORAGE_TYPE, DTYPE_F64 },
    { "torch", "ComplexFloatStorage", TORCH_STORAGE_TYPE, DTYPE_C64 },
    { "torch", "LongStorage", TORCH_STORAGE_TYPE, DTYPE_I64 },
    { "torch", "IntStorage", TORCH_STORAGE_TYPE, DTYPE_I32 },
    { "torch", "ShortStorage", TORCH_STORAGE_TYPE, DTYPE_I16 },
    { "torch", "CharStorage", TORCH_STORAGE_TYPE, DTYPE_I8 },
    { "torch", "ByteStorage", TORCH_STORAGE_TYPE, DTYPE_U8 },
    { "torch", "BoolStorage", TORCH_STORAGE_TYPE, DTYPE_BOOL },
    { "torch", "float8_e4m3fn", TORCH_DTYPE, DTYPE_F8_E4M3 },
    { "torch", "float8_e5m2", TORCH_DTYPE, DTYPE_F8_E5M2 },
    { "torch", "float8_e8m0fnu", TORCH_DTYPE, DTYPE_F8_E8M0 },
    { "torch", "float8_e4m3fnuz", TORCH_DTYPE, DTYPE_F8_E4M3FNUZ },
    { "torch", "float8_e5m2fnuz", TORCH_DTYPE, DTYPE_F8_E5M2FNUZ },
    { "torch", "uint16", TORCH_DTYPE, DTYPE_U16 },
    { "torch", "uint32", TORCH_DTYPE, DTYPE_U32 },
    { "torch", "uint64", TORCH_DTYPE, DTYPE_U64 },
};

/* Every instruction of pickle protocols 0 to 5 that torch does not need, for the sentence. */
static const struct {
    uint8_t opcode;
    const char *name;
} strange_opcodes[] = {
    { '0', "POP" },
    { '1', "POP_MARK" },
    { '2', "DUP" },
    { 'F', "FLOAT" },
    { 'I', "INT" },
    { 'L', "LONG" },
    { 'P', "PERSID" },
    { 'S', "STRING" },
    { 'T', "BINSTRING" },
    { 'U', "SHORT_BINSTRING" },
    { 'V', "UNICODE" },
    { 'd', "DICT" },
    { 'g', "GET" },
    { 'i', "INST" },
    { 'l', "LIST" },
    { 'o', "OBJ" },
    { 'p', "PUT" },
    { 0x81, "NEWOBJ" },
    { 0x82, "EXT1" },
    { 0x83, "EXT2" },
    { 0x84, "EXT4" },
    { 0x8b, "LONG4" },
    { 'B', "BINBYTES" },
    { 'C', "SHORT_BINBYTES" },
    { 0x8d, "BINUNICODE8" },
    { 0x8e, "BINBYTES8" },
    { 0x8f, "EMPTY_SET" },
    { 0x90, "ADDITEMS" },
    { 0x91, "FROZENSET" },
    { 0x92, "NEWOBJ_EX" },
    { 0x96, "BYTEARRAY8" },
    { 0x97, "NEXT_BUFFER" },
    { 0x98, "READONLY_BUFFER" },
};

static bool same(const char *text, size_t bytes, const char *known)
{
    return strlen(known) == bytes && memcmp(text, known, bytes) == 0;
}

int torch_global_find(struct torch_value *out, const char *module, size_t module_bytes,
                      const char *name, size_t name_bytes, struct error *err)
{
    char quoted_module[QUOTED_BYTES];
    char quoted_name[QUOTED_BYTES];

    for (size_t i = 0; i < sizeof(globals) / sizeof(globals[0]); i++) {
        if (same(module, module_bytes, globals[i].module) &&
            same(name, name_bytes, globals[i].name)) {
            *out = (struct torch_value){ TORCH_GLOBAL, (uint32_t)globals[i].dtype,
                                         globals[i].global };
            return 0;
        }
    }
    return error_set(
        err, ERR_FORMAT,
        "the pickle asks for '%s.%s', which is refused: a plain dict of dense tensors "
        "does not need it; if you trust the file, load it with torch and " TORCH_RESAVE,
        error_quote(quoted_module, sizeof(quoted_module), module, module_bytes),
        error_quote(quoted_name, sizeof(quoted_name), name, name_bytes));
}

const char *torch_opcode_name(uint8_t opcode)
{
    for (size_t i = 0; i < sizeof(strange_opcodes) / sizeof(strange_opcodes[0]); i++) {
        if (strange_opcodes[i].opcode == opcode)
            return strange_opcodes[i].name;
    }
    return "unknown";
}

const char *torch_kind_name(uint32_t kind)
{
    static const char *const names[] = {
        [TORCH_MARK] = "a mark",      [TORCH_NONE] = "None",         [TORCH_BOOL] = "a truth value",
        [TORCH_INTEGER] = "a number", [TORCH_FLOAT] = "a number",    [TORCH_STRING] = "a string",
        [TORCH_TUPLE] = "a tuple",    [TORCH_LIST] = "a list",       [TORCH_DICT] = "a dict",
        [TORCH_GLOBAL] = "a name",    [TORCH_STORAGE] = "a storage", [TORCH_TENSOR] = "a tensor",
    };

    return names[kind];
}
