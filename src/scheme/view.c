#include "scheme/view.h"

#include "base/bytes.h"
#include "format/model_names.h"

#include <stdlib.h>
#include <string.h>

/* Metadata of torchao describes parts that the view does not have, that of MLX its library. */
static bool keeps_metadata(const struct scheme_find *find)
{
    for (size_t i = 0; i < find->item_count; i++) {
        enum scheme_kind kind = find->items[i].tensor.kind;

        if (kind == SCHEME_TORCHAO || kind == SCHEME_MLX)
            return false;
    }
    return true;
}

/* A tensor as the view has it. */
struct entry {
    const char *name;
    size_t name_bytes;
    const uint64_t *shape;
    size_t shape_count;
    enum dtype dtype;
    const struct scheme_item *item; /* or NULL: as it is stored */
};

static struct entry entry_of(const struct scheme_find *find, const struct st_header *from,
                             const struct st_tensor *tensor, uint32_t index)
{
    struct entry entry = { st_name(from, tensor), tensor->name_bytes,        st_shape(from, tensor),
                           tensor->shape_count,   (enum dtype)tensor->dtype, NULL };

    if (index == FIND_FREE)
        return entry;
    entry.item = &find->items[index];
    entry.name = find->names.data + entry.item->name_offset;
    entry.name_bytes = entry.item->name_bytes;
    entry.shape = find->shapes + entry.item->shape_offset;
    entry.shape_count = entry.item->shape_count;
    entry.dtype = entry.item->dtype;
    return entry;
}

/* The sizes are those of items that passed quant_check(), or of the file. */
static int add_tensor(struct st_header *to, const struct st_tensor *from, const struct entry *entry,
                      struct error *err)
{
    struct st_tensor tensor = *from;

    tensor.name_offset = to->names_bytes;
    tensor.name_bytes = (uint32_t)entry->name_bytes;
    tensor.shape_offset = to->shapes_count;
    tensor.shape_count = (uint16_t)entry->shape_count;
    tensor.dtype = (uint16_t)entry->dtype;
    memcpy(to->names + to->names_bytes, entry->name, entry->name_bytes + 1);
    to->names_bytes += entry->name_bytes + 1;
    if (entry->shape_count)
        memcpy(to->shapes + to->shapes_count, entry->shape,
               entry->shape_count * sizeof(*entry->shape));
    to->shapes_count += entry->shape_count;
    if (entry->item && entry->item->tensor.kind != SCHEME_PLAIN) {
        tensor.element_count = 1;
        for (size_t i = 0; i < entry->shape_count; i++)
            tensor.element_count *= entry->shape[i];
        if (!mul_u64(tensor.element_count, dtype_bytes(entry->dtype), &tensor.data_bytes))
            return error_set(err, ERR_FORMAT, "a decoded tensor has 2^64 bytes or more");
    }
    if (!add_u64(to->data_bytes, tensor.data_bytes, &to->data_bytes))
        return error_set(err, ERR_FORMAT, "the decoded tensors have 2^64 bytes or more");
    to->tensors[to->tensor_count++] = tensor;
    return 0;
}

/* Room for all tensors of a shard, of which the view has no more. */
static int allocate(struct st_header *to, const struct scheme_find *find,
                    const struct st_header *from, size_t place, bool metadata)
{
    size_t names = 0;
    size_t shapes = 0;

    for (size_t i = 0; i < from->tensor_count; i++) {
        uint32_t index = find->item_of[place + i];
        struct entry entry;

        if (index == FIND_COMPANION)
            continue;
        entry = entry_of(find, from, &from->tensors[i], index);
        names += entry.name_bytes + 1;
        shapes += entry.shape_count;
    }
    *to = (struct st_header){ .data_start = from->data_start, .identity = from->identity };
    memcpy(to->digest, from->digest, sizeof(to->digest));
    to->tensors = calloc(from->tensor_count + 1, sizeof(*to->tensors));
    to->names = malloc(names + 1);
    to->shapes = calloc(shapes + 1, sizeof(*to->shapes));
    if (metadata && from->metadata) {
        to->metadata = strdup(from->metadata);
        to->metadata_bytes = from->metadata_bytes;
        if (!to->metadata)
            return ERR_FAILED;
    }
    return to->tensors && to->names && to->shapes ? 0 : ERR_FAILED;
}

static int make_shard(struct scheme_base *base, const struct scheme_find *find, size_t index,
                      bool metadata, struct error *err)
{
    const struct model_shard *from = &find->model->shards[index];
    struct model_shard *to = &base->view.shards[index];
    size_t place = find->first[index];

    base->view.shard_count = index + 1;
    to->name = strdup(from->name);
    to->path = strdup(from->path);
    to->identity = from->identity;
    memcpy(to->header_digest, from->header_digest, sizeof(to->header_digest));
    if (!to->name || !to->path || allocate(&to->header, find, &from->header, place, metadata))
        return error_no_memory(err, "the headers of the decoded model");
    for (size_t i = 0; i < from->header.tensor_count; i++) {
        const struct st_tensor *tensor = &from->header.tensors[i];
        struct entry entry;

        if (find->item_of[place + i] == FIND_COMPANION)
            continue;
        entry = entry_of(find, &from->header, tensor, find->item_of[place + i]);
        if (add_tensor(&to->header, tensor, &entry, err))
            return err->code;
        if (entry.item)
            base->tensors[base->view.tensor_count] = entry.item->tensor;
        base->stored[base->view.tensor_count] = (uint32_t)i;
        base->view.tensor_count++;
    }
    if (!add_u64(base->view.data_bytes, to->header.data_bytes, &base->view.data_bytes))
        return error_set(err, ERR_FORMAT, "the decoded shards together have 2^64 bytes or more");
    return 0;
}

static int copy_ignored(struct model *view, const struct model *model, struct error *err)
{
    view->ignored = calloc(model->ignored_count + 1, sizeof(*view->ignored));
    if (!view->ignored)
        return error_no_memory(err, "the names of files");
    for (size_t i = 0; i < model->ignored_count; i++) {
        view->ignored[i] = strdup(model->ignored[i]);
        if (!view->ignored[i])
            return error_no_memory(err, "the names of files");
        view->ignored_count++;
    }
    return 0;
}

int view_make(struct scheme_base *base, const struct scheme_find *find, struct error *err)
{
    const struct model *model = find->model;
    struct model *view = &base->view;
    bool metadata = keeps_metadata(find);

    base->tensors = calloc(model->tensor_count + 1, sizeof(*base->tensors));
    base->stored = calloc(model->tensor_count + 1, sizeof(*base->stored));
    view->shards = calloc(model->shard_count + 1, sizeof(*view->shards));
    view->directory = model->directory ? strdup(model->directory) : NULL;
    view->has_index = model->has_index;
    if (!base->tensors || !base->stored || !view->shards || (model->directory && !view->directory))
        return error_no_memory(err, "the decoded model");
    for (size_t i = 0; i < model->shard_count; i++) {
        if (make_shard(base, find, i, metadata, err))
            return err->code;
    }
    if (copy_ignored(view, model, err))
        return err->code;
    if (model_sort_tensors(view, err)) {
        error_prefix(err, "with quantised tensors under their decoded names");
        return err->code;
    }
    return 0;
}
