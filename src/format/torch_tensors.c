#include "base/bytes.h"
#include "base/text.h"
#include "format/safetensors_layout.h"
#include "format/torch_internal.h"

#include <inttypes.h>
#include <stdlib.h>

/* Rows one after another; a dimension of one element may have any stride, as in torch. */
static bool is_contiguous(const uint64_t *shape, const uint64_t *strides, size_t count)
{
    uint64_t expected = 1;

    for (size_t i = count; i > 0; i--) {
        if (shape[i - 1] != 1 && strides[i - 1] != expected)
            return false;
        expected *= shape[i - 1]; /* the product of all was checked */
    }
    return true;
}

/* Where the elements of a tensor are in the file. */
static int place_tensor(struct st_tensor *out, const struct torch_tensor *tensor,
                        const struct torch_state *state, const struct torch_zip *zip,
                        struct error *err)
{
    const struct torch_storage *storage = &state->storages[tensor->storage];
    const uint64_t *shape = state->numbers + tensor->numbers;
    const struct torch_entry *entry;
    uint64_t unit = dtype_bytes(tensor->dtype);
    uint64_t storage_bytes, begin, end;
    uint64_t elements = 1;
    char quoted[QUOTED_BYTES];

    if (torch_zip_find(&entry, zip, "data/", storage->key, storage->key_bytes, err))
        return err->code;
    error_quote(quoted, sizeof(quoted), storage->key, storage->key_bytes);
    if (!entry)
        return error_set(err, ERR_FORMAT, "its storage 'data/%s' is not in the archive", quoted);
    if (!mul_u64(storage->element_count, storage->untyped ? 1 : unit, &storage_bytes) ||
        storage_bytes != entry->data_bytes)
        return error_set(err, ERR_FORMAT,
                         "its storage 'data/%s' has %" PRIu64 " bytes, which is not %" PRIu64
                         " elements",
                         quoted, entry->data_bytes, storage->element_count);
    for (size_t i = 0; i < tensor->shape_count; i++) {
        if (!mul_u64(elements, shape[i], &elements))
            return error_set(err, ERR_FORMAT, "the product of its shape is 2^64 or more");
    }
    if (elements && !is_contiguous(shape, shape + tensor->shape_count, tensor->shape_count))
        return error_set(err, ERR_FORMAT,
                         "its elements do not lie one after another (a transposed or cut view); "
                         "make it contiguous() and " TORCH_RESAVE);
    begin = elements ? tensor->element_offset : 0;
    if (!add_u64(begin, elements, &end) || !mul_u64(end, unit, &end) || end > storage_bytes)
        return error_set(err, ERR_FORMAT,
                         "%" PRIu64 " elements of %s from element %" PRIu64
                         " do not fit into its storage 'data/%s' of %" PRIu64 " bytes",
                         elements, dtype_name(tensor->dtype), begin, quoted, storage_bytes);
    out->data_offset = entry->data_offset + begin * unit;
    out->data_bytes = elements * unit;
    out->element_count = elements;
    return 0;
}

static int fill_header(struct st_header *header, struct text *names,
                       const struct torch_state *state, const struct torch_zip *zip,
                       struct error *err)
{
    size_t dimensions = 1; /* so that shapes is not NULL */
    char quoted[QUOTED_BYTES];

    for (size_t i = 0; i < state->tensor_count; i++)
        dimensions += state->tensors[i].shape_count;
    header->tensors = calloc(state->tensor_count + 1, sizeof(*header->tensors));
    header->shapes = calloc(dimensions, sizeof(*header->shapes));
    if (!header->tensors || !header->shapes)
        return error_no_memory(err, "the tensors of a file");
    for (size_t i = 0; i < state->tensor_count; i++) {
        const struct torch_tensor *tensor = &state->tensors[i];
        struct st_tensor *place = &header->tensors[i];

        if (place_tensor(place, tensor, state, zip, err)) {
            error_prefix(err, "tensor '%s'",
                         error_quote(quoted, sizeof(quoted), tensor->name, tensor->name_bytes));
            return err->code;
        }
        place->name_offset = names->bytes;
        place->name_bytes = tensor->name_bytes;
        place->dtype = (uint16_t)tensor->dtype;
        place->shape_count = tensor->shape_count;
        place->shape_offset = header->shapes_count;
        for (size_t d = 0; d < tensor->shape_count; d++)
            header->shapes[header->shapes_count++] = state->numbers[tensor->numbers + d];
        text_add(names, tensor->name, tensor->name_bytes);
        text_add(names, "", 1);
        header->tensor_count++;
    }
    text_add(names, "", 0); /* so that names is not NULL */
    header->names_bytes = names->bytes;
    header->names = text_take(names);
    return header->names ? 0 : error_no_memory(err, "the names of a file");
}

int torch_place_tensors(struct st_header *out, const struct torch_state *state,
                        const struct torch_zip *zip, struct error *err)
{
    struct text names = { 0 };
    int status = fill_header(out, &names, state, zip, err);

    text_release(&names);
    return status ? status : st_layout_sort(out, err);
}
