/*
 * Any bytes as a torch.save() file; bytes that do not begin as an archive are the pickle of one, so
 * that the machine is reached without a sound directory.  What is accepted lies in the file.
 */

#include "format/torch_internal.h"
#include "fuzz/fuzz.h"

#include <string.h>

static void check_header(const struct st_header *header, uint64_t file_bytes)
{
    FUZZ_CHECK(header->data_start == 0 && header->data_bytes == file_bytes);
    for (size_t i = 0; i < header->tensor_count; i++) {
        const struct st_tensor *tensor = &header->tensors[i];
        const uint64_t *shape = st_shape(header, tensor);
        uint64_t elements = 1;

        FUZZ_CHECK(tensor->dtype < DTYPE_COUNT && tensor->shape_count <= ST_RANK_MAX);
        FUZZ_CHECK(tensor->shape_offset + tensor->shape_count <= header->shapes_count);
        for (size_t d = 0; d < tensor->shape_count; d++)
            elements *= shape[d];
        FUZZ_CHECK(elements == tensor->element_count);
        FUZZ_CHECK(elements * dtype_bytes((enum dtype)tensor->dtype) == tensor->data_bytes);
        FUZZ_CHECK(tensor->data_offset <= file_bytes);
        FUZZ_CHECK(tensor->data_bytes <= file_bytes - tensor->data_offset);
        FUZZ_CHECK(tensor->name_offset + tensor->name_bytes < header->names_bytes);
        FUZZ_CHECK(strlen(st_name(header, tensor)) == tensor->name_bytes);
    }
}

static void check_pickle(const uint8_t *data, size_t size)
{
    struct torch_state state = { 0 };
    struct error err = { 0 };

    if (torch_pickle_read(&state, data, size, &err)) {
        FUZZ_CHECK(err.code == ERR_FORMAT && err.text[0] && !state.tensors);
        return;
    }
    for (size_t i = 0; i < state.tensor_count; i++) {
        const struct torch_tensor *tensor = &state.tensors[i];

        FUZZ_CHECK(tensor->storage < state.storage_count && tensor->shape_count <= ST_RANK_MAX);
        FUZZ_CHECK((const uint8_t *)tensor->name >= data);
        FUZZ_CHECK((const uint8_t *)tensor->name + tensor->name_bytes <= data + size);
    }
    torch_state_release(&state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct torch_source source = { NULL, data, size };
    struct st_header header = { 0 };
    struct error err = { 0 };

    if (size == 0 || data[0] != 'P') {
        check_pickle(data, size);
        return 0;
    }
    if (torch_parse(&header, &source, &err)) {
        FUZZ_CHECK(err.code == ERR_FORMAT && err.text[0] && !header.tensors);
        return 0;
    }
    check_header(&header, size);
    st_header_release(&header);
    return 0;
}
