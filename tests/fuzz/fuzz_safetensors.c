/*
 * The first eight bytes are the number of data bytes, the rest is the JSON of a header.  What is
 * accepted is contiguous and sorted, and its header written anew is read as the same.
 */

#include "base/bytes.h"
#include "base/error.h"
#include "base/text.h"
#include "format/safetensors.h"
#include "fuzz/fuzz.h"

#include <string.h>

static void check_tensors(const struct st_header *header)
{
    uint64_t end = 0;

    for (size_t i = 0; i < header->tensor_count; i++) {
        const struct st_tensor *tensor = &header->tensors[i];
        const uint64_t *shape = st_shape(header, tensor);
        uint64_t elements = 1;

        FUZZ_CHECK(tensor->data_offset == end);
        end += tensor->data_bytes;
        FUZZ_CHECK(tensor->dtype < DTYPE_COUNT && tensor->shape_count <= ST_RANK_MAX);
        for (size_t d = 0; d < tensor->shape_count; d++)
            elements *= shape[d];
        FUZZ_CHECK(elements == tensor->element_count);
        FUZZ_CHECK(elements * dtype_bits((enum dtype)tensor->dtype) == tensor->data_bytes * 8);
        FUZZ_CHECK(tensor->name_bytes <= ST_NAME_BYTES_MAX);
        FUZZ_CHECK(tensor->name_offset + tensor->name_bytes < header->names_bytes);
        FUZZ_CHECK(strlen(st_name(header, tensor)) == tensor->name_bytes);
    }
    FUZZ_CHECK(end == header->data_bytes);
}

static void emit(struct text *out, const struct st_header *header, uint64_t residue)
{
    st_emit_begin(out, header->metadata, header->metadata_bytes);
    for (size_t i = 0; i < header->tensor_count; i++) {
        const struct st_tensor *tensor = &header->tensors[i];

        st_emit_tensor(out, st_name(header, tensor), tensor->name_bytes, (enum dtype)tensor->dtype,
                       st_shape(header, tensor), tensor->shape_count, tensor->data_offset,
                       tensor->data_bytes);
    }
    st_emit_end(out, residue, 4096);
    FUZZ_CHECK(!out->failed && (ST_PREFIX_BYTES + out->bytes) % 4096 == residue);
}

static void check_same(const struct st_header *x, const struct st_header *y)
{
    FUZZ_CHECK(x->tensor_count == y->tensor_count && x->data_bytes == y->data_bytes);
    for (size_t i = 0; i < x->tensor_count; i++) {
        const struct st_tensor *left = &x->tensors[i];
        const struct st_tensor *right = &y->tensors[i];

        FUZZ_CHECK(strcmp(st_name(x, left), st_name(y, right)) == 0);
        FUZZ_CHECK(left->dtype == right->dtype && left->shape_count == right->shape_count);
        FUZZ_CHECK(left->data_offset == right->data_offset);
        FUZZ_CHECK(left->data_bytes == right->data_bytes);
        for (size_t d = 0; d < left->shape_count; d++)
            FUZZ_CHECK(st_shape(x, left)[d] == st_shape(y, right)[d]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct st_header header = { 0 };
    struct st_header again = { 0 };
    struct text out = { 0 };
    struct error err = { 0 };
    uint64_t data_bytes;

    if (size < 8)
        return 0;
    data_bytes = load_le64(data);
    if (st_header_parse(&header, (const char *)data + 8, size - 8, data_bytes, &err)) {
        FUZZ_CHECK(err.code == ERR_FORMAT && err.text[0] && !header.tensors);
        return 0;
    }
    FUZZ_CHECK(header.data_start == size && header.data_bytes == data_bytes);
    check_tensors(&header);
    emit(&out, &header, data_bytes % 4096);
    FUZZ_CHECK(st_header_parse(&again, out.data, out.bytes, data_bytes, &err) == 0);
    FUZZ_CHECK(again.metadata);
    check_same(&header, &again);
    st_header_release(&again);
    st_header_release(&header);
    text_release(&out);
    return 0;
}
