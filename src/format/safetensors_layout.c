#include "format/safetensors_layout.h"

#include "format/names.h"

#include <inttypes.h>
#include <stdlib.h>

static int check_duplicates(const struct st_header *header, struct error *err)
{
    size_t count = header->tensor_count;
    struct name_key *keys = calloc(count + 1, sizeof(*keys));
    char quoted[QUOTED_BYTES];
    size_t place;
    int status = 0;

    if (!keys)
        return error_no_memory(err, "the names of a header");
    for (size_t i = 0; i < count; i++)
        keys[i] = (struct name_key){ st_name(header, &header->tensors[i]),
                                     header->tensors[i].name_bytes, (uint32_t)i };
    name_keys_sort(keys, count);
    place = name_keys_duplicate(keys, count);
    if (place)
        status = error_set(
            err, ERR_FORMAT, "tensor '%s' appears twice",
            error_quote(quoted, sizeof(quoted), keys[place].name, keys[place].bytes));
    free(keys);
    return status;
}

static int compare_data(const void *left, const void *right)
{
    const struct st_tensor *x = left;
    const struct st_tensor *y = right;

    if (x->data_offset != y->data_offset)
        return x->data_offset < y->data_offset ? -1 : 1;
    if (x->data_bytes != y->data_bytes)
        return x->data_bytes < y->data_bytes ? -1 : 1;
    return x->name_offset < y->name_offset ? -1 : x->name_offset > y->name_offset;
}

/* The data must be the tensors one after another, and nothing else. */
static int check_layout(const struct st_header *header, uint64_t data_bytes, struct error *err)
{
    char quoted[QUOTED_BYTES];
    char before[QUOTED_BYTES];
    uint64_t end = 0;

    for (size_t i = 0; i < header->tensor_count; i++) {
        const struct st_tensor *tensor = &header->tensors[i];

        if (tensor->data_offset != end)
            error_quote(quoted, sizeof(quoted), st_name(header, tensor), tensor->name_bytes);
        if (tensor->data_offset > end)
            return error_set(err, ERR_FORMAT,
                             "tensor '%s' begins at byte %" PRIu64
                             " of the data, which leaves a hole from byte %" PRIu64,
                             quoted, tensor->data_offset, end);
        if (tensor->data_offset < end) {
            const struct st_tensor *other = tensor - 1;

            error_quote(before, sizeof(before), st_name(header, other), other->name_bytes);
            return error_set(err, ERR_FORMAT,
                             "tensor '%s' begins at byte %" PRIu64
                             " of the data, but '%s' ends at byte %" PRIu64 ": they overlap",
                             quoted, tensor->data_offset, before, end);
        }
        end = tensor->data_offset + tensor->data_bytes; /* the sum was data_offsets[1] */
    }
    if (end > data_bytes)
        return error_set(err, ERR_FORMAT,
                         "truncated: the tensors need %" PRIu64
                         " bytes behind the header, there are %" PRIu64,
                         end, data_bytes);
    if (end < data_bytes)
        return error_set(err, ERR_FORMAT,
                         "%" PRIu64 " bytes behind the last tensor, which ends at "
                         "byte %" PRIu64 " of the data",
                         data_bytes - end, end);
    return 0;
}

int st_layout_sort(struct st_header *header, struct error *err)
{
    if (check_duplicates(header, err))
        return err->code;
    if (header->tensor_count > 1)
        qsort(header->tensors, header->tensor_count, sizeof(*header->tensors), compare_data);
    return 0;
}

int st_layout_check(struct st_header *header, uint64_t data_bytes, struct error *err)
{
    int status = st_layout_sort(header, err);

    return status ? status : check_layout(header, data_bytes, err);
}
