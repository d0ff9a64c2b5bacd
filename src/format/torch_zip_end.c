#include "base/bytes.h"
#include "format/torch_internal.h"

#include <inttypes.h>
#include <stdlib.h>

/* APPNOTE of the ZIP format, sections 4.3.14 to 4.3.16: sizes of the fixed parts. */
#define END_BYTES 22u
#define END64_BYTES 56u
#define LOCATOR_BYTES 20u
#define COMMENT_BYTES_MAX 65535u

#define SIGNATURE_END 0x06054b50u
#define SIGNATURE_END64 0x06064b50u
#define SIGNATURE_LOCATOR 0x07064b50u

static int find_zip64(struct torch_zip_place *out, const struct torch_source *source,
                      uint64_t end_offset, struct error *err)
{
    uint8_t locator[LOCATOR_BYTES];
    uint8_t end[END64_BYTES];
    int status;

    if (end_offset < LOCATOR_BYTES)
        return error_set(err, ERR_FORMAT, "damaged archive: no zip64 locator before its end");
    status = torch_source_read(source, locator, sizeof(locator), end_offset - LOCATOR_BYTES, err);
    if (status)
        return status;
    if (load_le32(locator) != SIGNATURE_LOCATOR)
        return error_set(err, ERR_FORMAT, "damaged archive: no zip64 locator before its end");
    status = torch_source_read(source, end, sizeof(end), load_le64(locator + 8), err);
    if (status)
        return status;
    if (load_le32(end) != SIGNATURE_END64)
        return error_set(err, ERR_FORMAT, "damaged archive: its zip64 end is not where it says");
    *out = (struct torch_zip_place){ load_le64(end + 48), load_le64(end + 40),
                                     load_le64(end + 32) };
    return 0;
}

int torch_zip_locate(struct torch_zip_place *out, const struct torch_source *source,
                     struct error *err)
{
    size_t tail_bytes = (size_t)min_u64(source->bytes, END_BYTES + COMMENT_BYTES_MAX);
    uint64_t tail_offset = source->bytes - tail_bytes;
    uint8_t *tail;
    size_t at;
    int status;

    if (tail_bytes < END_BYTES)
        return error_set(err, ERR_FORMAT, "%" PRIu64 " bytes are too few for an archive",
                         source->bytes);
    tail = malloc(tail_bytes);
    if (!tail)
        return error_no_memory(err, "the end of an archive");
    status = torch_source_read(source, tail, tail_bytes, tail_offset, err);
    at = tail_bytes - END_BYTES;
    while (!status && at > 0 &&
           (load_le32(tail + at) != SIGNATURE_END ||
            load_le16(tail + at + 20) != tail_bytes - END_BYTES - at))
        at--;
    if (!status && load_le32(tail + at) != SIGNATURE_END)
        status = error_set(err, ERR_FORMAT,
                           "truncated or no archive: the end of a ZIP directory is missing");
    if (!status) {
        *out = (struct torch_zip_place){ load_le32(tail + at + 16), load_le32(tail + at + 12),
                                         load_le16(tail + at + 10) };
        if (out->offset == UINT32_MAX || out->bytes == UINT32_MAX || out->entries == UINT16_MAX)
            status = find_zip64(out, source, tail_offset + at, err);
    }
    free(tail);
    return status;
}
