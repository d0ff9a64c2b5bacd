#include "format/safetensors.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (256 * KIB)

/* Bytes at two places of one file. */
static int compare(bool *same, const struct file *file, uint64_t x, uint64_t y, uint64_t bytes,
                   struct error *err)
{
    uint8_t *pieces = malloc(2 * PIECE_BYTES);
    int status = 0;

    *same = true;
    if (!pieces)
        return error_no_memory(err, "two pieces of a file");
    for (uint64_t done = 0; done < bytes && *same && !status;) {
        uint64_t part = min_u64(bytes - done, PIECE_BYTES);

        status = file_pread(file, pieces, part, x + done, err);
        if (!status)
            status = file_pread(file, pieces + PIECE_BYTES, part, y + done, err);
        *same = !status && memcmp(pieces, pieces + PIECE_BYTES, part) == 0;
        done += part;
    }
    free(pieces);
    return status;
}

int st_same_data(bool *same, const char *path, const struct st_header *header, uint32_t one,
                 uint32_t other, struct error *err)
{
    const struct st_tensor *x = &header->tensors[one];
    const struct st_tensor *y = &header->tensors[other];
    struct file file = FILE_CLOSED;
    char quoted[QUOTED_BYTES];
    int status;

    *same = x->dtype == y->dtype && x->shape_count == y->shape_count &&
            x->data_bytes == y->data_bytes &&
            memcmp(st_shape(header, x), st_shape(header, y), x->shape_count * sizeof(uint64_t)) ==
                0;
    if (!*same || one == other)
        return 0;
    status = file_open_input(&file, path, FILE_DIRECT_OFF, err);
    if (!status)
        status = compare(same, &file, header->data_start + x->data_offset,
                         header->data_start + y->data_offset, x->data_bytes, err);
    file_close(&file);
    if (status)
        error_prefix(err, "'%s'", error_quote(quoted, sizeof(quoted), path, strlen(path)));
    return status;
}
