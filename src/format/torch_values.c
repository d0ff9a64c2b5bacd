#include "base/array.h"
#include "base/bytes.h"
#include "format/torch_machine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void *torch_reserve(void *array, size_t count, size_t *capacity, size_t element_bytes,
                    struct error *err)
{
    void *more;

    if (count >= TORCH_VALUES_MAX) {
        error_set(err, ERR_FORMAT, "it makes more than %" PRIu32 " values, the limit",
                  TORCH_VALUES_MAX);
        return NULL;
    }
    if (count < *capacity)
        return array;
    more = array_grow(array, capacity, element_bytes);
    if (!more)
        error_no_memory(err, "the values of a pickle");
    return more;
}

int torch_push(struct torch_values *values, struct torch_value value, struct error *err)
{
    struct torch_value *list = torch_reserve(values->list, values->count, &values->capacity,
                                             sizeof(*list), err);

    if (!list)
        return err->code;
    values->list = list;
    list[values->count++] = value;
    return 0;
}

const uint8_t *torch_take(struct torch_machine *machine, uint64_t bytes, struct error *err)
{
    const uint8_t *begin = machine->pickle + machine->at;

    if (bytes > machine->bytes - machine->at) {
        error_set(err, ERR_FORMAT, "truncated: %" PRIu64 " bytes wanted, %zu are there", bytes,
                  machine->bytes - machine->at);
        return NULL;
    }
    machine->at += (size_t)bytes;
    return begin;
}

int torch_push_new(struct torch_machine *machine, uint32_t kind, uint64_t at, uint32_t count,
                   struct error *err)
{
    return torch_push(&machine->stack, (struct torch_value){ kind, count, at }, err);
}

int torch_pop(struct torch_machine *machine, struct torch_value *out, struct error *err)
{
    struct torch_values *stack = &machine->stack;

    if (stack->count == 0 || stack->list[stack->count - 1].kind == TORCH_MARK)
        return error_set(err, ERR_FORMAT, "damaged: an instruction lacks a value");
    *out = stack->list[--stack->count];
    return 0;
}

int torch_push_integer(struct torch_machine *machine, size_t bytes, bool is_signed,
                       struct error *err)
{
    const uint8_t *at = bytes ? NULL : torch_take(machine, 1, err);
    uint64_t value = 0;

    if (!bytes && !at)
        return err->code;
    if (at)
        bytes = *at;
    if (bytes > 8)
        return error_set(err, ERR_FORMAT, "a number of %zu bytes, at most 8 are accepted", bytes);
    at = torch_take(machine, bytes, err);
    if (!at)
        return err->code;
    for (size_t i = bytes; i > 0; i--)
        value = value << 8 | at[i - 1];
    if (is_signed && bytes > 0 && bytes < 8 && at[bytes - 1] >= 0x80)
        value |= UINT64_MAX << (8 * bytes);
    return torch_push_new(machine, TORCH_INTEGER, value, 0, err);
}

int torch_push_string(struct torch_machine *machine, size_t length_bytes, struct error *err)
{
    const uint8_t *at = torch_take(machine, length_bytes, err);
    uint32_t bytes;

    if (!at)
        return err->code;
    bytes = length_bytes == 1 ? *at : load_le32(at);
    at = torch_take(machine, bytes, err);
    if (!at)
        return err->code;
    return torch_push_new(machine, TORCH_STRING, (uint64_t)(at - machine->pickle), bytes, err);
}

int torch_push_global(struct torch_machine *machine, struct error *err)
{
    const char *text[2];
    size_t bytes[2];
    struct torch_value value;
    int status;

    for (int i = 0; i < 2; i++) {
        const uint8_t *begin = machine->pickle + machine->at;
        const uint8_t *end = memchr(begin, '\n', machine->bytes - machine->at);

        if (!end)
            return error_set(err, ERR_FORMAT, "truncated: a name without its end");
        text[i] = (const char *)begin;
        bytes[i] = (size_t)(end - begin);
        machine->at += bytes[i] + 1;
    }
    status = torch_global_find(&value, text[0], bytes[0], text[1], bytes[1], err);
    return status ? status : torch_push(&machine->stack, value, err);
}

int torch_push_stack_global(struct torch_machine *machine, struct error *err)
{
    const char *pickle = (const char *)machine->pickle;
    struct torch_value module = { 0 };
    struct torch_value name = { 0 };
    struct torch_value value;
    int status = torch_pop(machine, &name, err);

    if (!status)
        status = torch_pop(machine, &module, err);
    if (!status && (module.kind != TORCH_STRING || name.kind != TORCH_STRING))
        status = error_set(err, ERR_FORMAT, "damaged: a name that is no string");
    if (!status)
        status = torch_global_find(&value, pickle + module.at, module.count, pickle + name.at,
                                   name.count, err);
    return status ? status : torch_push(&machine->stack, value, err);
}

int torch_memo_put(struct torch_machine *machine, uint64_t index, struct error *err)
{
    struct torch_values *memo = &machine->memo;
    struct torch_value value;
    int status = torch_pop(machine, &value, err);

    if (status)
        return status;
    machine->stack.count++;
    if (index > memo->count)
        return error_set(err, ERR_FORMAT, "memo entry %" PRIu64 " comes before entry %zu", index,
                         memo->count);
    if (index == memo->count)
        return torch_push(memo, value, err);
    memo->list[index] = value;
    return 0;
}

int torch_memo_get(struct torch_machine *machine, uint64_t index, struct error *err)
{
    if (index >= machine->memo.count)
        return error_set(err, ERR_FORMAT, "memo entry %" PRIu64 " is asked for, there are %zu",
                         index, machine->memo.count);
    return torch_push(&machine->stack, machine->memo.list[index], err);
}
