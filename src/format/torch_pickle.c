#include "base/bytes.h"
#include "format/torch_machine.h"

#include <inttypes.h>
#include <stdlib.h>

/* The values since the last mark: their place in the stack, without the mark. */
static int find_mark(const struct torch_machine *machine, size_t *out, struct error *err)
{
    size_t at = machine->stack.count;

    while (at > 0 && machine->stack.list[at - 1].kind != TORCH_MARK)
        at--;
    if (at == 0)
        return error_set(err, ERR_FORMAT, "damaged: an instruction lacks its mark");
    *out = at;
    return 0;
}

/* The last `count` values of the stack become a tuple. */
static int make_tuple(struct torch_machine *machine, size_t count, bool marked, struct error *err)
{
    uint64_t at = machine->parts.count;
    struct torch_value *values;

    if (count > machine->stack.count)
        return error_set(err, ERR_FORMAT, "damaged: an instruction lacks a value");
    values = machine->stack.list + machine->stack.count - count;
    for (size_t i = 0; i < count; i++) {
        if (values[i].kind == TORCH_MARK)
            return error_set(err, ERR_FORMAT, "damaged: an instruction lacks a value");
        if (torch_push(&machine->parts, values[i], err))
            return err->code;
    }
    machine->stack.count -= count + marked;
    return torch_push_new(machine, TORCH_TUPLE, at, (uint32_t)count, err);
}

static int make_marked_tuple(struct torch_machine *machine, struct error *err)
{
    size_t begin = 0;
    int status = find_mark(machine, &begin, err);

    return status ? status : make_tuple(machine, machine->stack.count - begin, true, err);
}

/* APPENDS and SETITEMS: the values since the mark go into what stands before it. */
static int fill(struct torch_machine *machine, uint32_t kind, size_t begin, bool marked,
                struct error *err)
{
    size_t target = begin - marked;
    const struct torch_value *list = machine->stack.list;
    size_t count = machine->stack.count - begin;
    int status = 0;

    if (target == 0 || list[target - 1].kind != kind || (kind == TORCH_DICT && count % 2))
        return error_set(err, ERR_FORMAT,
                         "damaged: values without the list or dict they belong to");
    for (size_t i = begin; i < machine->stack.count && kind == TORCH_DICT && !status; i += 2)
        status = torch_set_item(machine, list[target - 1], list[i], list[i + 1], err);
    machine->stack.count = target;
    return status;
}

static int fill_marked(struct torch_machine *machine, uint32_t kind, struct error *err)
{
    size_t begin = 0;
    int status = find_mark(machine, &begin, err);

    return status ? status : fill(machine, kind, begin, true, err);
}

static int fill_one(struct torch_machine *machine, uint32_t kind, size_t count, struct error *err)
{
    if (machine->stack.count <= count)
        return error_set(err, ERR_FORMAT, "damaged: an instruction lacks a value");
    return fill(machine, kind, machine->stack.count - count, false, err);
}

/* Attributes of a dict, such as the _metadata of a state dict: nothing that tensors need. */
static int build(struct torch_machine *machine, struct error *err)
{
    struct torch_value state;
    int status = torch_pop(machine, &state, err);

    if (status)
        return status;
    if (state.kind != TORCH_DICT || machine->stack.count == 0 ||
        machine->stack.list[machine->stack.count - 1].kind != TORCH_DICT)
        return error_set(err, ERR_FORMAT,
                         "BUILD is refused but for the attributes of a dict; " TORCH_RESAVE);
    return 0;
}

static int reduce(struct torch_machine *machine, struct error *err)
{
    struct torch_value function;
    struct torch_value arguments;
    struct torch_value result;
    int status = torch_pop(machine, &arguments, err);

    if (!status)
        status = torch_pop(machine, &function, err);
    if (!status)
        status = torch_call(machine, &result, function, arguments, err);
    return status ? status : torch_push(&machine->stack, result, err);
}

static int persistent(struct torch_machine *machine, struct error *err)
{
    struct torch_value id;
    struct torch_value result;
    int status = torch_pop(machine, &id, err);

    if (!status)
        status = torch_find_storage(machine, &result, id, err);
    return status ? status : torch_push(&machine->stack, result, err);
}

static int memo(struct torch_machine *machine, size_t index_bytes,
                int (*use)(struct torch_machine *, uint64_t, struct error *), struct error *err)
{
    const uint8_t *at = torch_take(machine, index_bytes, err);

    if (!at)
        return err->code;
    return use(machine, index_bytes == 1 ? *at : load_le32(at), err);
}

static int check_protocol(struct torch_machine *machine, struct error *err)
{
    const uint8_t *at = torch_take(machine, 1, err);

    if (!at)
        return err->code;
    if (*at < 2 || *at > 5)
        return error_set(err, ERR_FORMAT, "pickle protocol %u is not in 2..5", *at);
    return 0;
}

static int step_container(struct torch_machine *machine, uint8_t opcode, struct error *err)
{
    struct torch_value dict;
    int status;

    switch (opcode) {
    case '}': /* EMPTY_DICT */
        status = torch_new_dict(machine, &dict, err);
        return status ? status : torch_push(&machine->stack, dict, err);
    case ']': /* EMPTY_LIST */
        return torch_push_new(machine, TORCH_LIST, 0, 0, err);
    case ')': /* EMPTY_TUPLE */
        return make_tuple(machine, 0, false, err);
    case 0x85: /* TUPLE1, TUPLE2, TUPLE3 */
    case 0x86:
    case 0x87:
        return make_tuple(machine, opcode - 0x84u, false, err);
    case 't': /* TUPLE */
        return make_marked_tuple(machine, err);
    case 'a': /* APPEND */
        return fill_one(machine, TORCH_LIST, 1, err);
    case 'e': /* APPENDS */
        return fill_marked(machine, TORCH_LIST, err);
    case 's': /* SETITEM */
        return fill_one(machine, TORCH_DICT, 2, err);
    case 'u': /* SETITEMS */
        return fill_marked(machine, TORCH_DICT, err);
    case 'b': /* BUILD */
        return build(machine, err);
    case 'R': /* REDUCE */
        return reduce(machine, err);
    case 'Q': /* BINPERSID */
        return persistent(machine, err);
    default:
        return error_set(err, ERR_FORMAT,
                         "the pickle instruction %s (0x%02x) is refused: a plain dict of tensors "
                         "does not need it; if you trust the file, load it with torch "
                         "and " TORCH_RESAVE,
                         torch_opcode_name(opcode), opcode);
    }
}

static int step(struct torch_machine *machine, uint8_t opcode, struct error *err)
{
    switch (opcode) {
    case 0x80: /* PROTO */
        return check_protocol(machine, err);
    case 0x95: /* FRAME: how many bytes may be read at once */
        return torch_take(machine, 8, err) ? 0 : err->code;
    case '(': /* MARK */
        return torch_push_new(machine, TORCH_MARK, 0, 0, err);
    case 'N': /* NONE */
        return torch_push_new(machine, TORCH_NONE, 0, 0, err);
    case 0x88: /* NEWTRUE, NEWFALSE */
    case 0x89:
        return torch_push_new(machine, TORCH_BOOL, opcode == 0x88, 0, err);
    case 'K': /* BININT1, BININT2, BININT, LONG1 */
        return torch_push_integer(machine, 1, false, err);
    case 'M':
        return torch_push_integer(machine, 2, false, err);
    case 'J':
        return torch_push_integer(machine, 4, true, err);
    case 0x8a:
        return torch_push_integer(machine, 0, true, err);
    case 'G': /* BINFLOAT */
        if (!torch_take(machine, 8, err))
            return err->code;
        return torch_push_new(machine, TORCH_FLOAT, 0, 0, err);
    case 0x8c: /* SHORT_BINUNICODE, BINUNICODE */
        return torch_push_string(machine, 1, err);
    case 'X':
        return torch_push_string(machine, 4, err);
    case 'c': /* GLOBAL, STACK_GLOBAL */
        return torch_push_global(machine, err);
    case 0x93:
        return torch_push_stack_global(machine, err);
    case 'q': /* BINPUT, LONG_BINPUT, MEMOIZE */
        return memo(machine, 1, torch_memo_put, err);
    case 'r':
        return memo(machine, 4, torch_memo_put, err);
    case 0x94:
        return torch_memo_put(machine, machine->memo.count, err);
    case 'h': /* BINGET, LONG_BINGET */
        return memo(machine, 1, torch_memo_get, err);
    case 'j':
        return memo(machine, 4, torch_memo_get, err);
    default:
        return step_container(machine, opcode, err);
    }
}

static int run(struct torch_machine *machine, struct torch_state *out, struct error *err)
{
    struct torch_value root;
    const uint8_t *opcode;
    int status = 0;

    while (!status) {
        machine->opcode_at = machine->at;
        opcode = torch_take(machine, 1, err);
        if (!opcode || *opcode == '.')
            break;
        status = machine->opcode_at == 0 && *opcode != 0x80
                     ? error_set(err, ERR_FORMAT, "it does not begin as a pickle does")
                     : step(machine, *opcode, err);
    }
    if (!status && !opcode)
        status = err->code;
    if (!status)
        status = torch_pop(machine, &root, err);
    if (!status && (machine->stack.count || machine->at != machine->bytes))
        status = error_set(err, ERR_FORMAT, "damaged: it ends with %zu values and %zu bytes left",
                           machine->stack.count, machine->bytes - machine->at);
    if (status) {
        error_prefix(err, "byte %zu of its pickle", machine->opcode_at);
        return status;
    }
    return torch_finish(machine, out, root, err);
}

int torch_pickle_read(struct torch_state *out, const uint8_t *pickle, size_t bytes,
                      struct error *err)
{
    struct torch_machine machine = { .pickle = pickle, .bytes = bytes };
    int status = run(&machine, out, err);

    free(machine.stack.list);
    free(machine.memo.list);
    free(machine.parts.list);
    free(machine.dicts);
    free(machine.items);
    free(machine.tensors);
    free(machine.storages);
    free(machine.numbers);
    return status;
}

void torch_state_release(struct torch_state *state)
{
    free(state->tensors);
    free(state->storages);
    free(state->numbers);
    *state = (struct torch_state){ 0 };
}
