#include "pipeline/made_edits.h"

#include "check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MADE_COPIES 20u
#define MADE_WIDE_ROWS 3u /* of each expert of "wide.weight" */

static const struct made_edits *current; /* what the replaced functions hand out */

/* In the place of the functions of src/adapter (linked with --wrap). */
int __wrap_adapter_make_edits(struct adapter_edits *out, struct adapter *adapter,
                              const struct model *model, const struct edit_options *options,
                              const struct log *log, struct error *err);
int __wrap_adapter_make_edits(struct adapter_edits *out, struct adapter *adapter,
                              const struct model *model, const struct edit_options *options,
                              const struct log *log, struct error *err)
{
    (void)model;
    (void)options;
    (void)log;
    (void)err;
    *out = current->edits[adapter - current->adapters];
    return 0;
}

void __wrap_adapter_edits_release(struct adapter_edits *edits);
void __wrap_adapter_edits_release(struct adapter_edits *edits)
{
    (void)edits; /* they are the test's */
}

static uint64_t pick(struct made_edits *made, uint64_t low, uint64_t high)
{
    return made_random_in(&made->rng, low, high);
}

/* A factor of `count` by `rank` somewhere in a heap, in one of the ways that factors lie. */
static struct factor_view random_view(struct made_edits *made, uint64_t count, uint32_t rank,
                                      bool is_right)
{
    struct factor_view view = {
        .tensor = (uint32_t)pick(made, 0, MADE_HEAPS - 1), .blocks = 1, .step = 1, .count = count
    };
    uint64_t way = pick(made, 0, 4);
    uint64_t experts = pick(made, 1, 5);

    switch (way) {
    case 0: /* as it is needed */
    case 1: /* transposed */
        if ((way == 0) == is_right) {
            view.index_stride = 1;
            view.rank_stride = count;
        } else {
            view.index_stride = rank;
            view.rank_stride = 1;
        }
        break;
    case 2: /* rank-major among experts */
        view.index_stride = rank * experts;
        view.rank_stride = experts;
        break;
    case 3: /* every other one, from somewhere on */
        view.index_stride = is_right ? 1 : rank;
        view.rank_stride = is_right ? count : 1;
        view.step = pick(made, 1, 2);
        view.first = pick(made, 0, count - 1);
        view.count = (count - view.first + view.step - 1) / view.step;
        view.count -= pick(made, 0, 1) && view.count > 1;
        break;
    default: /* block-diagonal, if the sizes allow it */
        view.blocks = rank % 2 == 0 && count % 2 == 0 ? 2 : 1;
        view.index_stride = is_right ? 1 : rank / view.blocks;
        view.rank_stride = is_right ? count / view.blocks : 1;
        break;
    }
    view.offset = pick(made, 0, 1000);
    CHECK(view.offset + (view.count - 1) * view.index_stride + (rank - 1) * view.rank_stride +
                  count * rank / view.blocks <
              MADE_HEAP_ELEMENTS,
          "the heap is too small");
    return view;
}

static struct adapter_edit *add_edit(struct made_edits *made, unsigned adapter, unsigned tensor,
                                     enum edit_kind kind)
{
    struct adapter_edits *edits = &made->edits[adapter];
    const struct made_tensor *target = &made->model.tensors[tensor];
    struct adapter_edit *edit = &edits->list[edits->count++];

    CHECK(edits->count <= edits->capacity, "too many edits");
    memset(edit, 0, sizeof(*edit));
    edit->kind = kind;
    edit->pair = ADAPTER_NO_TENSOR;
    edit->source = ADAPTER_NO_TENSOR;
    CHECK(model_find(&made->base, target->name, strlen(target->name), &edit->tensor), "%s",
          target->name);
    edit->cols = target->shape[target->shape_count - 1];
    edit->rows = target->bytes / dtype_bytes(target->dtype) / edit->cols;
    return edit;
}

static void add_delta(struct made_edits *made, unsigned adapter, unsigned tensor, uint64_t first,
                      uint64_t count, enum edit_norm norm)
{
    struct adapter_edit *edit = add_edit(made, adapter, tensor, EDIT_DELTA);
    uint64_t most = MADE_HEAP_ELEMENTS / 6 / (edit->cols > count ? edit->cols : count);

    edit->row_first = first;
    edit->row_count = count;
    edit->rank = (uint32_t)pick(made, 1, most < 90 ? most : 90);
    edit->scale = (double)pick(made, 1, 8) / 16;
    edit->left = random_view(made, count, edit->rank, false);
    edit->right = random_view(made, edit->cols, edit->rank, true);
    edit->norm = norm;
    edit->magnitude = (uint32_t)pick(made, 0, MADE_HEAPS - 1);
}

/* A tensor of an adapter that stands for one of the base, perhaps with another number of rows. */
static uint32_t add_copy(struct made_edits *made, unsigned adapter, unsigned tensor, uint64_t rows)
{
    static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };
    struct made_tensor *target = &made->model.tensors[tensor];
    uint64_t shape[3] = { rows, target->shape[1], target->shape[2] };
    char name[64];

    snprintf(name, sizeof(name), "z.%u", made->heaps[adapter].tensor_count); /* sorted behind */
    made_add(&made->heaps[adapter], &made->rng, name, dtypes[pick(made, 0, 2)], target->shape_count,
             shape, 0, 0, DTYPE_F32);
    return made->heaps[adapter].tensor_count - 1;
}

/* New rows, at most `gap` apart. */
static void add_rows(struct made_edits *made, unsigned adapter, unsigned tensor, uint64_t gap)
{
    struct adapter_edit *edit = add_edit(made, adapter, tensor, EDIT_ROWS);
    uint64_t row = 0;

    edit->row_list = calloc(edit->rows, sizeof(*edit->row_list));
    edit->row_source = calloc(edit->rows, sizeof(*edit->row_source));
    for (row = pick(made, 0, 5); row < edit->rows; row += pick(made, 1, gap)) {
        edit->row_list[edit->row_list_count] = row;
        edit->row_source[edit->row_list_count] = edit->row_list_count;
        edit->row_list_count++;
    }
    edit->source = add_copy(made, adapter, tensor, edit->rows);
}

/* Targets of rows [0, rows) by chance: all of them, or some slices, with holes. */
static void add_deltas(struct made_edits *made, unsigned adapter, unsigned tensor, uint64_t rows)
{
    enum edit_norm norm = (enum edit_norm)pick(made, 0, 2);
    uint64_t at = 0;

    /* Zeros, which a way through NF4 leaves, must not be all that a norm is made of. */
    if (rows < 16 ||
        made->model.tensors[tensor].shape[made->model.tensors[tensor].shape_count - 1] < 16)
        norm = EDIT_NO_NORM;
    if (tensor % 3) { /* in all adapters, because norms of columns need all rows at once */
        add_delta(made, adapter, tensor, 0, rows, norm);
        return;
    }
    while (at < rows) {
        uint64_t count = pick(made, 1, 1 + rows / 3);

        if (count > rows - at)
            count = rows - at;
        if (pick(made, 0, 3))
            add_delta(made, adapter, tensor, at, count,
                      norm == EDIT_NORM_OF_COLS ? EDIT_NO_NORM : norm);
        at += count;
    }
}

static void edit_tensor(struct made_edits *made, unsigned tensor)
{
    const struct made_tensor *target = &made->model.tensors[tensor];
    uint64_t cols = target->shape_count ? target->shape[target->shape_count - 1] : 0;
    uint64_t rows = cols ? target->bytes / dtype_bytes(target->dtype) / cols : 0;
    unsigned adapter = (unsigned)pick(made, 0, made->adapter_count - 1);
    uint64_t what = pick(made, 0, 9);

    if (!dtype_is_computed(target->dtype) || rows == 0 || target->shape_count == 0 || what == 0)
        return;
    if (what == 1) {
        uint64_t first = target->shape[0];

        if (target->shape_count == 2 && strncmp(target->name, "vocab", 5) == 0)
            first = 1234;
        add_edit(made, adapter, tensor, EDIT_REPLACE)->source = add_copy(made, adapter, tensor,
                                                                         first);
        if (first == target->shape[0] && pick(made, 0, 1))
            add_deltas(made, adapter, tensor, rows);
        return;
    }
    if (what == 2 && target->shape_count == 2 && strncmp(target->name, "even", 4) != 0)
        add_rows(made, adapter, tensor, 1 + rows / 7);
    if (what == 2 && pick(made, 0, 1)) {
        add_deltas(made, adapter, tensor, rows); /* others may not change what one replaces */
    } else if (what > 2) {
        for (unsigned i = 0; i < made->adapter_count; i++) {
            if (i == adapter || pick(made, 0, 2) == 0)
                add_deltas(made, i, tensor, rows);
        }
    }
}

/*
 * Fused experts whose rows in the adapter are longer than what is read at once, rank by rank or
 * expert by expert, as factors of either side.
 */
static void add_wide(struct made_edits *made, unsigned tensor)
{
    uint64_t experts = made->model.tensors[tensor].shape[0] / MADE_WIDE_ROWS;
    bool by_rank = pick(made, 0, 1);
    bool is_right = pick(made, 0, 1);
    uint32_t heap = (uint32_t)pick(made, 0, MADE_HEAPS - 1);
    uint32_t rank = (uint32_t)(PLAN_B_FLOATS / experts) + (uint32_t)pick(made, 1, 40);

    for (uint64_t e = 0; e < experts; e++) {
        struct adapter_edit *edit = add_edit(made, 0, tensor, EDIT_DELTA);
        struct factor_view wide = { .tensor = heap,
                                    .blocks = 1,
                                    .offset = e * (by_rank ? 1 : rank),
                                    .index_stride = experts * rank,
                                    .rank_stride = by_rank ? experts : 1,
                                    .step = 1,
                                    .count = is_right ? edit->cols : MADE_WIDE_ROWS };

        edit->row_first = e * MADE_WIDE_ROWS;
        edit->row_count = MADE_WIDE_ROWS;
        edit->rank = rank;
        edit->scale = 0.25;
        edit->left = edit->right = wide;
        if (is_right)
            edit->left = random_view(made, MADE_WIDE_ROWS, rank, false);
        else
            edit->right = random_view(made, edit->cols, rank, true);
    }
}

/* Every other tensor is a copy with deltas on top: too many for a read of each. */
static void add_copies(struct made_edits *made, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i += 2) {
        const uint64_t *shape = made->model.tensors[i].shape;
        struct adapter_edit *edit = add_edit(made, 0, i, EDIT_REPLACE);
        uint64_t rows = edit->rows;

        edit->source = add_copy(made, 0, i, shape[0]);
        add_delta(made, 0, i, 0, rows - (rows > 2),
                  (enum edit_norm)pick(made, 0, rows > 2 ? 1 : 2));
    }
}

/* `in_phase`: what is not converted is changed where it was read. */
static void make_base(struct made_edits *made, bool in_phase)
{
    static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32, DTYPE_I64 };
    struct made_model *model = &made->model;
    unsigned count = (unsigned)pick(made, 10, 30);

    model->shard_count = (unsigned)pick(made, 1, 2);
    for (unsigned i = 0; i < model->shard_count; i++) {
        char name[64];

        snprintf(name, sizeof(name), "%u.odd", i); /* blocks cut elements behind it */
        made_add(model, &made->rng, name, DTYPE_U8, 1, (uint64_t[]){ pick(made, 0, 3) * 2 + 1 }, i,
                 0, DTYPE_F32);
    }
    for (unsigned i = 0; i < model->shard_count; i++)
        model->header_spaces[i] = (unsigned)(8 * pick(made, 0, 600) + pick(made, 0, !in_phase));
    for (unsigned i = 0; i < count; i++) {
        uint64_t shape[3] = { pick(made, 1, 9), pick(made, 1, 60), pick(made, 1, 90) };
        char name[64];

        if (i % 6 == 0) {
            shape[0] = pick(made, 100, 1500);
            shape[1] = pick(made, 200, 2500);
        }
        snprintf(name, sizeof(name), "layer.%u.weight", i);
        made_add(model, &made->rng, name, dtypes[pick(made, 0, 3)],
                 i % 6 == 0 ? 2 : (unsigned)pick(made, 1, 3), shape,
                 (unsigned)pick(made, 0, model->shard_count - 1), 0, DTYPE_F32);
    }
    for (unsigned i = 0; i < 6; i++) { /* for made_quantise() */
        uint64_t shape[2] = { 64 * pick(made, 1, i ? 4 : 40), 128 * pick(made, 1, i ? 4 : 20) };
        char name[64];

        snprintf(name, sizeof(name), "even.%u.weight", i);
        made_add(model, &made->rng, name, dtypes[pick(made, 0, 1)], 2, shape,
                 (unsigned)pick(made, 0, model->shard_count - 1), 0, DTYPE_F32);
    }
    for (unsigned i = 0; i < MADE_COPIES; i++) {
        char name[64];

        snprintf(name, sizeof(name), "copy.%02u", i); /* a vector or a matrix */
        made_add(model, &made->rng, name, dtypes[pick(made, 0, 2)], i % 3 ? 1 : 2,
                 (uint64_t[]){ pick(made, 1, 40), pick(made, 1, 40) }, 0, 0, DTYPE_F32);
    }
    made_add(model, &made->rng, "wide.weight", DTYPE_F32, 2,
             (uint64_t[]){ pick(made, 300, 400) * MADE_WIDE_ROWS, pick(made, 2, 5) }, 0, 0,
             DTYPE_F32);
    made_add(model, &made->rng, "sure.weight", DTYPE_BF16, 2, (uint64_t[]){ 11, 70 }, 0, 0,
             DTYPE_F32);
    made_add(model, &made->rng, "rows.weight", DTYPE_BF16, 2, (uint64_t[]){ 2500, 1000 }, 0, 0,
             DTYPE_F32);
    made_add(model, &made->rng, "vocab.weight", DTYPE_BF16, 2, (uint64_t[]){ 3001, 2300 },
             model->shard_count - 1, 0, DTYPE_F32);
    made_add(model, &made->rng, "long.weight", DTYPE_F16, 2, (uint64_t[]){ 5, 70001 }, 0, 0,
             DTYPE_F32);
}

static void open_adapter(struct made_edits *made, unsigned i)
{
    struct adapter *adapter = &made->adapters[i];
    struct error err = { 0 };
    char path[640];

    made_write(&made->heaps[i]);
    snprintf(path, sizeof(path), "%s/base/model.safetensors", made->heaps[i].directory);
    CHECK(st_header_read(&adapter->header, path, &adapter->weights_bytes, &err) == 0, "%s",
          err.text);
    adapter->weights_path = strdup(path);
    adapter->identity = adapter->header.identity;
    adapter->name = strdup("heap");
    made->plan_adapters[i] = (struct plan_adapter){ adapter, 1.0 };
}

void made_edits_create(struct made_edits *made, uint64_t seed)
{
    static const enum dtype dtypes[MADE_HEAPS] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };
    struct error err = { 0 };
    unsigned sure; /* the tensor of this name, between "copy", "wide" and "rows", "vocab", "long" */
    char path[640];

    made->rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 77;
    made_directory(made->model.directory, sizeof(made->model.directory));
    make_base(made, seed % 4 == 0);
    made_write(&made->model);
    snprintf(path, sizeof(path), "%s/base", made->model.directory);
    CHECK(model_open(&made->base, path, NULL, &err) == 0, "%s", err.text);
    if (seed % 2 == 0)
        made_quantise(made);
    made->adapter_count = (unsigned)pick(made, 1, MADE_ADAPTERS_MAX);
    for (unsigned i = 0; i < made->adapter_count; i++) {
        struct made_model *heap = &made->heaps[i];

        snprintf(path, sizeof(path), "%s/heap%u", made->model.directory, i);
        CHECK(strlen(path) < sizeof(heap->directory) && mkdir(path, 0777) == 0, "%s", path);
        memcpy(heap->directory, path, strlen(path) + 1);
        heap->shard_count = 1;
        heap->header_spaces[0] = i;
        made->edits[i].capacity = 1000;
        made->edits[i].list = calloc(made->edits[i].capacity, sizeof(*made->edits[i].list));
        for (unsigned h = 0; h < MADE_HEAPS; h++)
            made_add(heap, &made->rng, (const char *[]){ "a", "b", "c" }[h], dtypes[h], 1,
                     (uint64_t[]){ MADE_HEAP_ELEMENTS }, 0, 0, DTYPE_F32);
    }
    sure = made->model.tensor_count - 4;
    for (unsigned i = 0; i < made->model.tensor_count; i++) {
        if (i < sure - 1 - MADE_COPIES || i > sure + 1)
            edit_tensor(made, i);
    }
    add_copies(made, sure - 1 - MADE_COPIES, sure - 1);
    add_wide(made, sure - 1);
    add_delta(made, 0, sure, 2, 5, EDIT_NORM_OF_ROWS);
    add_rows(made, 0, sure + 1, 2);
    for (unsigned i = 0; i < made->adapter_count; i++)
        open_adapter(made, i);
    current = made;
}

void made_edits_release(struct made_edits *made)
{
    made_remove(made->model.directory);
    for (unsigned i = 0; i < made->adapter_count; i++) {
        for (size_t e = 0; e < made->edits[i].count; e++) {
            free(made->edits[i].list[e].row_list);
            free(made->edits[i].list[e].row_source);
        }
        free(made->edits[i].list);
        adapter_release(&made->adapters[i]);
        made_release(&made->heaps[i]);
    }
    free(made->scheme.tensors);
    model_release(&made->base);
    made_release(&made->model);
}
