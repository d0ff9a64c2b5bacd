#include "base/text.h"
#include "format/torch_machine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool is_global(struct torch_value value, enum torch_global global)
{
    return value.kind == TORCH_GLOBAL && value.at == global;
}

/* A size that a pickle holds as an integer; a negative one is huge and fails every limit. */
static bool is_size(struct torch_value value)
{
    return value.kind == TORCH_INTEGER && value.at <= INT64_MAX;
}

int torch_new_dict(struct torch_machine *machine, struct torch_value *out, struct error *err)
{
    struct torch_dict *dicts = torch_reserve(machine->dicts, machine->dict_count,
                                             &machine->dict_capacity, sizeof(*dicts), err);

    if (!dicts)
        return err->code;
    machine->dicts = dicts;
    dicts[machine->dict_count] = (struct torch_dict){ .kind = TORCH_MARK };
    *out = (struct torch_value){ TORCH_DICT, 0, machine->dict_count++ };
    return 0;
}

int torch_set_item(struct torch_machine *machine, struct torch_value dict, struct torch_value key,
                   struct torch_value value, struct error *err)
{
    struct torch_dict *target = &machine->dicts[dict.at];
    struct torch_item *items;

    if (key.kind == TORCH_STRING && value.kind == TORCH_TENSOR) {
        items = torch_reserve(machine->items, machine->item_count, &machine->item_capacity,
                              sizeof(*items), err);
        if (!items)
            return err->code;
        machine->items = items;
        items[machine->item_count++] = (struct torch_item){ dict.at, key, value.at };
    } else if (target->kind == TORCH_MARK) {
        *target = (struct torch_dict){ key, value.kind };
    }
    return 0;
}

static int add_number(struct torch_machine *machine, uint64_t number, struct error *err)
{
    uint64_t *numbers = torch_reserve(machine->numbers, machine->number_count,
                                      &machine->number_capacity, sizeof(*numbers), err);

    if (!numbers)
        return err->code;
    machine->numbers = numbers;
    numbers[machine->number_count++] = number;
    return 0;
}

/* (storage, offset, shape, strides, requires_grad, hooks), then the dtype of an untyped storage. */
static int make_tensor(struct torch_machine *machine, struct torch_value *out,
                       struct torch_value arguments, bool dtyped, struct error *err)
{
    const struct torch_value *part = machine->parts.list + arguments.at;
    struct torch_tensor tensor = { .numbers = machine->number_count };
    struct torch_tensor *tensors;

    if (arguments.count == 7u + dtyped)
        return error_set(
            err, ERR_FORMAT,
            "a tensor with the bits conj or neg is not what its bytes say; " TORCH_RESAVE);
    if (arguments.count != 6u + dtyped || part[0].kind != TORCH_STORAGE || !is_size(part[1]) ||
        part[2].kind != TORCH_TUPLE || part[3].kind != TORCH_TUPLE ||
        part[2].count != part[3].count || (dtyped && !is_global(part[6], TORCH_DTYPE)) ||
        machine->storages[part[0].at].untyped != dtyped)
        return error_set(err, ERR_FORMAT, "a tensor is not described as torch does it");
    if (part[2].count > ST_RANK_MAX)
        return error_set(err, ERR_FORMAT, "a tensor has %" PRIu32 " dimensions, the limit is %u",
                         part[2].count, ST_RANK_MAX);
    tensor.storage = (uint32_t)part[0].at;
    tensor.element_offset = part[1].at;
    tensor.shape_count = (uint16_t)part[2].count;
    tensor.dtype = dtyped ? (enum dtype)part[6].count : machine->storages[part[0].at].dtype;
    for (int list = 2; list < 4; list++) {
        for (size_t i = 0; i < part[list].count; i++) {
            struct torch_value number = machine->parts.list[part[list].at + i];

            if (!is_size(number))
                return error_set(err, ERR_FORMAT,
                                 "a dimension or stride of a tensor is not a whole number");
            if (add_number(machine, number.at, err))
                return err->code;
        }
    }
    tensors = torch_reserve(machine->tensors, machine->tensor_count, &machine->tensor_capacity,
                            sizeof(*tensors), err);
    if (!tensors)
        return err->code;
    machine->tensors = tensors;
    *out = (struct torch_value){ TORCH_TENSOR, 0, machine->tensor_count };
    tensors[machine->tensor_count++] = tensor;
    return 0;
}

int torch_call(struct torch_machine *machine, struct torch_value *out, struct torch_value function,
               struct torch_value arguments, struct error *err)
{
    const struct torch_value *part = machine->parts.list;

    if (arguments.kind != TORCH_TUPLE || function.kind != TORCH_GLOBAL)
        return error_set(err, ERR_FORMAT, "damaged: %s is called", torch_kind_name(function.kind));
    if (function.at == TORCH_REBUILD_TENSOR || function.at == TORCH_REBUILD_TENSOR_DTYPE)
        return make_tensor(machine, out, arguments, function.at == TORCH_REBUILD_TENSOR_DTYPE, err);
    if (function.at == TORCH_ORDERED_DICT && arguments.count == 0)
        return torch_new_dict(machine, out, err);
    if (arguments.count > 0)
        part += arguments.at;
    if ((function.at == TORCH_REBUILD_PARAMETER && arguments.count == 3 &&
         part[0].kind == TORCH_TENSOR) ||
        (function.at == TORCH_SIZE && arguments.count == 1 && part[0].kind == TORCH_TUPLE)) {
        *out = part[0];
        return 0;
    }
    return error_set(err, ERR_FORMAT, "a name is called in a way that torch does not");
}

/* ("storage", type, key, location, elements): the bytes are the entry data/<key>. */
int torch_find_storage(struct torch_machine *machine, struct torch_value *out,
                       struct torch_value id, struct error *err)
{
    static const char word[] = "storage";
    const struct torch_value *part = machine->parts.list + (id.kind == TORCH_TUPLE ? id.at : 0);
    struct torch_storage *storages;
    bool untyped;

    if (id.kind != TORCH_TUPLE || id.count != 5 || part[0].kind != TORCH_STRING ||
        part[0].count != sizeof(word) - 1 ||
        memcmp(machine->pickle + part[0].at, word, sizeof(word) - 1) != 0 ||
        part[2].kind != TORCH_STRING || part[3].kind != TORCH_STRING || !is_size(part[4]))
        return error_set(err, ERR_FORMAT, "a storage is not described as torch does it");
    untyped = is_global(part[1], TORCH_UNTYPED_STORAGE);
    if (!untyped && !is_global(part[1], TORCH_STORAGE_TYPE))
        return error_set(err, ERR_FORMAT, "a storage has %s as its type",
                         torch_kind_name(part[1].kind));
    storages = torch_reserve(machine->storages, machine->storage_count, &machine->storage_capacity,
                             sizeof(*storages), err);
    if (!storages)
        return err->code;
    machine->storages = storages;
    storages[machine->storage_count] = (struct torch_storage){
        .key = (const char *)machine->pickle + part[2].at,
        .key_bytes = part[2].count,
        .untyped = untyped,
        .dtype = (enum dtype)part[1].count,
        .element_count = part[4].at,
    };
    *out = (struct torch_value){ TORCH_STORAGE, 0, machine->storage_count++ };
    return 0;
}

static int check_name(const char *name, size_t name_bytes, struct error *err)
{
    char quoted[QUOTED_BYTES];
    size_t at = 0;

    if (name_bytes > ST_NAME_BYTES_MAX)
        return error_set(err, ERR_FORMAT, "a tensor name of %zu bytes, at most %u are accepted",
                         name_bytes, ST_NAME_BYTES_MAX);
    while (at < name_bytes) {
        size_t length = name[at] ? text_utf8_length(name + at, name_bytes - at) : 0;

        if (length == 0)
            return error_set(err, ERR_FORMAT, "tensor '%s': the name %s",
                             error_quote(quoted, sizeof(quoted), name, name_bytes),
                             name[at] ? "is not UTF-8" : "contains NUL");
        at += length;
    }
    return 0;
}

static int check_root(const struct torch_machine *machine, struct torch_value root,
                      struct error *err)
{
    const struct torch_dict *dict;
    char quoted[QUOTED_BYTES];

    if (root.kind != TORCH_DICT)
        return error_set(err, ERR_FORMAT, "the file holds %s, not a dict of tensors",
                         torch_kind_name(root.kind));
    dict = &machine->dicts[root.at];
    if (dict->kind == TORCH_MARK)
        return 0;
    if (dict->key.kind != TORCH_STRING)
        return error_set(err, ERR_FORMAT, "its dict has %s as a key, where tensors have names",
                         torch_kind_name(dict->key.kind));
    return error_set(err, ERR_FORMAT, "'%s' is %s, not a tensor; save the dict of tensors alone",
                     error_quote(quoted, sizeof(quoted),
                                 (const char *)machine->pickle + dict->key.at, dict->key.count),
                     torch_kind_name(dict->kind));
}

int torch_finish(struct torch_machine *machine, struct torch_state *out, struct torch_value root,
                 struct error *err)
{
    struct torch_tensor *tensors;
    size_t count = 0;
    int status = check_root(machine, root, err);

    if (status)
        return status;
    tensors = malloc((machine->item_count + 1) * sizeof(*tensors));
    if (!tensors)
        return error_no_memory(err, "the tensors of a pickle");
    for (size_t i = 0; i < machine->item_count && !status; i++) {
        const struct torch_item *item = &machine->items[i];

        if (item->dict != root.at)
            continue;
        tensors[count] = machine->tensors[item->tensor];
        tensors[count].name = (const char *)machine->pickle + item->name.at;
        tensors[count].name_bytes = item->name.count;
        status = check_name(tensors[count].name, tensors[count].name_bytes, err);
        count++;
    }
    if (status) {
        free(tensors);
        return status;
    }
    *out = (struct torch_state){ tensors, count, machine->storages, machine->storage_count,
                                 machine->numbers };
    machine->storages = NULL;
    machine->numbers = NULL;
    return 0;
}
