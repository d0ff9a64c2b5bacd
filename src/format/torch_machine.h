/*
 * torch_machine.h - the machine that follows a pickle: its values, and what torch's names do to
 * them
 *
 * torch_pickle.c has the instructions, torch_values.c the values that they read, torch_objects.c
 * what torch's names do, torch_names.c their spelling.
 * A value is 16 bytes, and every instruction of a pickle makes at most one (a tuple's parts move),
 * so memory is proportional to the pickle and has TORCH_VALUES_MAX as its ceiling.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_TORCH_MACHINE_H
#define FORMAT_TORCH_MACHINE_H

#include "format/torch_internal.h"

/* Of each kind of thing; a tensor takes about 10 memo entries and 16 parts of tuples. */
#define TORCH_VALUES_MAX (UINT32_C(1) << 23)

enum torch_kind {
    TORCH_MARK,
    TORCH_NONE,
    TORCH_BOOL,
    TORCH_INTEGER, /* at: two's complement */
    TORCH_FLOAT,
    TORCH_STRING,  /* at, count: bytes of the pickle */
    TORCH_TUPLE,   /* at, count: in parts */
    TORCH_LIST,    /* what it holds is not kept */
    TORCH_DICT,    /* at: in dicts */
    TORCH_GLOBAL,  /* at: enum torch_global; count: its dtype where it has one */
    TORCH_STORAGE, /* at: in storages */
    TORCH_TENSOR   /* at: in tensors */
};

enum torch_global {
    TORCH_ORDERED_DICT,
    TORCH_REBUILD_TENSOR,       /* _rebuild_tensor_v2 */
    TORCH_REBUILD_TENSOR_DTYPE, /* _rebuild_tensor_v3: the storage is untyped */
    TORCH_REBUILD_PARAMETER,
    TORCH_SIZE,
    TORCH_STORAGE_TYPE,
    TORCH_UNTYPED_STORAGE,
    TORCH_DTYPE
};

struct torch_value {
    uint32_t kind;
    uint32_t count;
    uint64_t at;
};

struct torch_values {
    struct torch_value *list;
    size_t count;
    size_t capacity;
};

/* A dict keeps only what is wrong with it if it is the one that the file is about. */
struct torch_dict {
    struct torch_value key; /* of the first value that is no tensor */
    uint32_t kind;          /* of that value; TORCH_MARK: there is none */
};

/* A tensor put into a dict. */
struct torch_item {
    uint64_t dict;
    struct torch_value name;
    uint64_t tensor;
};

struct torch_machine {
    const uint8_t *pickle;
    size_t bytes;
    size_t at;        /* of the next byte */
    size_t opcode_at; /* of the instruction at hand */
    struct torch_values stack;
    struct torch_values memo;
    struct torch_values parts;
    struct torch_dict *dicts;
    size_t dict_count, dict_capacity;
    struct torch_item *items;
    size_t item_count, item_capacity;
    struct torch_tensor *tensors; /* without names */
    size_t tensor_count, tensor_capacity;
    struct torch_storage *storages;
    size_t storage_count, storage_capacity;
    uint64_t *numbers;
    size_t number_count, number_capacity;
};

/*
 * The array with room for one more element, which may have moved, or NULL with a sentence in *err.
 */
void *torch_reserve(void *array, size_t count, size_t *capacity, size_t element_bytes,
                    struct error *err);
int torch_push(struct torch_values *values, struct torch_value value, struct error *err);

/* The next `bytes` of the pickle; NULL with ERR_FORMAT where it has fewer. */
const uint8_t *torch_take(struct torch_machine *machine, uint64_t bytes, struct error *err);

/* On the stack and off it; popping a mark or nothing is ERR_FORMAT. */
int torch_push_new(struct torch_machine *machine, uint32_t kind, uint64_t at, uint32_t count,
                   struct error *err);
int torch_pop(struct torch_machine *machine, struct torch_value *out, struct error *err);

/* Read from the pickle and push: an integer of `bytes` (0: a length byte comes first), a string
 * behind a length of `length_bytes` (1 or 4), a name; or a name from two strings on the stack. */
int torch_push_integer(struct torch_machine *machine, size_t bytes, bool is_signed,
                       struct error *err);
int torch_push_string(struct torch_machine *machine, size_t length_bytes, struct error *err);
int torch_push_global(struct torch_machine *machine, struct error *err);
int torch_push_stack_global(struct torch_machine *machine, struct error *err);

/* The memo, which torch numbers from 0 without a gap: keep what is on the stack, and bring it back.
 */
int torch_memo_put(struct torch_machine *machine, uint64_t index, struct error *err);
int torch_memo_get(struct torch_machine *machine, uint64_t index, struct error *err);

/* A name of Python that is known; ERR_FORMAT otherwise. */
int torch_global_find(struct torch_value *out, const char *module, size_t module_bytes,
                      const char *name, size_t name_bytes, struct error *err);
const char *torch_opcode_name(uint8_t opcode); /* "BINGET", or "unknown" */
const char *torch_kind_name(uint32_t kind);    /* "a list" */

/* What the instructions REDUCE, BINPERSID and SETITEM do; *out may be an argument. */
int torch_call(struct torch_machine *machine, struct torch_value *out, struct torch_value function,
               struct torch_value arguments, struct error *err);
int torch_find_storage(struct torch_machine *machine, struct torch_value *out,
                       struct torch_value id, struct error *err);
int torch_new_dict(struct torch_machine *machine, struct torch_value *out, struct error *err);
int torch_set_item(struct torch_machine *machine, struct torch_value dict, struct torch_value key,
                   struct torch_value value, struct error *err);

/* The tensors of the dict that the pickle ends with; storages and numbers move into *out. */
int torch_finish(struct torch_machine *machine, struct torch_state *out, struct torch_value root,
                 struct error *err);

#endif
