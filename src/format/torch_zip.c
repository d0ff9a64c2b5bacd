#include "base/bytes.h"
#include "base/text.h"
#include "format/names.h"
#include "format/torch_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* APPNOTE of the ZIP format, sections 4.3.7 and 4.3.12: sizes of the fixed parts. */
#define LOCAL_BYTES 30u
#define CENTRAL_BYTES 46u

#define SIGNATURE_LOCAL 0x04034b50u
#define SIGNATURE_CENTRAL 0x02014b50u

#define FLAG_ENCRYPTED 1u
#define FLAG_SIZES_BEHIND 8u /* the local header has no sizes: they follow the data */
#define EXTRA_ZIP64 1u

/* Sizes and offset that do not fit 32 bits stand in an extra field, in this order. */
static int read_zip64(uint64_t values[3], const uint8_t *extra, size_t extra_bytes,
                      struct error *err)
{
    while (extra_bytes >= 4) {
        size_t field_bytes = load_le16(extra + 2);
        bool wanted = load_le16(extra) == EXTRA_ZIP64;

        extra += 4;
        extra_bytes -= 4;
        if (field_bytes > extra_bytes)
            break;
        for (size_t i = 0; wanted && i < 3; i++) {
            if (values[i] != UINT32_MAX)
                continue;
            if (field_bytes < 8)
                return error_set(err, ERR_FORMAT, "its zip64 field is too short");
            values[i] = load_le64(extra);
            extra += 8;
            field_bytes -= 8;
        }
        if (wanted)
            return 0;
        extra += field_bytes;
        extra_bytes -= field_bytes;
    }
    return error_set(err, ERR_FORMAT, "its zip64 field is missing");
}

/* One entry of the central directory at `at`; returns its bytes through *entry_bytes. */
static int read_central(struct torch_entry *out, const uint8_t *at, size_t left_bytes,
                        size_t *entry_bytes, struct error *err)
{
    uint64_t values[3]; /* plain bytes, packed bytes, offset of the local header */
    size_t name_bytes;
    size_t extra_bytes;
    char quoted[QUOTED_BYTES];
    int status = 0;

    if (left_bytes < CENTRAL_BYTES || load_le32(at) != SIGNATURE_CENTRAL)
        return error_set(err, ERR_FORMAT, "damaged archive: its directory breaks off");
    name_bytes = load_le16(at + 28);
    extra_bytes = load_le16(at + 30);
    *entry_bytes = CENTRAL_BYTES + name_bytes + extra_bytes + load_le16(at + 32);
    if (*entry_bytes > left_bytes)
        return error_set(err, ERR_FORMAT, "damaged archive: its directory breaks off");
    values[0] = load_le32(at + 24);
    values[1] = load_le32(at + 20);
    values[2] = load_le32(at + 42);
    if (load_le16(at + 8) & FLAG_ENCRYPTED)
        status = error_set(err, ERR_FORMAT, "it is encrypted, which torch does not do");
    else if (values[0] == UINT32_MAX || values[1] == UINT32_MAX || values[2] == UINT32_MAX)
        status = read_zip64(values, at + CENTRAL_BYTES + name_bytes, extra_bytes, err);
    if (!status && load_le16(at + 10) == 0 && values[0] != values[1])
        status = error_set(err, ERR_FORMAT,
                           "it is stored, yet has %" PRIu64 " bytes packed and %" PRIu64 " plain",
                           values[1], values[0]);
    *out = (struct torch_entry){ .name = (const char *)at + CENTRAL_BYTES,
                                 .name_bytes = (uint32_t)name_bytes,
                                 .header_offset = values[2],
                                 .data_bytes = values[1],
                                 .method = load_le16(at + 10) };
    if (status)
        error_prefix(err, "entry '%s'",
                     error_quote(quoted, sizeof(quoted), out->name, out->name_bytes));
    return status;
}

/* The local header must tell of the same entry; it says where the data begins. */
static int read_local(struct torch_entry *entry, const struct torch_source *source, uint64_t limit,
                      struct error *err)
{
    uint8_t header[LOCAL_BYTES];
    char name[UINT16_MAX];
    uint64_t end;
    int status = torch_source_read(source, header, sizeof(header), entry->header_offset, err);

    if (status)
        return status;
    if (load_le32(header) != SIGNATURE_LOCAL || load_le16(header + 26) != entry->name_bytes)
        return error_set(err, ERR_FORMAT, "it has no local header at byte %" PRIu64,
                         entry->header_offset);
    status = torch_source_read(source, name, entry->name_bytes, entry->header_offset + LOCAL_BYTES,
                               err);
    if (status)
        return status;
    if (memcmp(name, entry->name, entry->name_bytes) != 0)
        return error_set(err, ERR_FORMAT, "its local header has another name");
    if (load_le16(header + 8) != entry->method ||
        (!(load_le16(header + 6) & FLAG_SIZES_BEHIND) && load_le32(header + 18) != UINT32_MAX &&
         load_le32(header + 18) != entry->data_bytes))
        return error_set(err, ERR_FORMAT, "its local header differs from the directory");
    /* No overflow: the header lies in the file, whose size is an off_t. */
    entry->data_offset = entry->header_offset + LOCAL_BYTES + entry->name_bytes +
                         load_le16(header + 28);
    if (!add_u64(entry->data_offset, entry->data_bytes, &end) || end > limit)
        return error_set(err, ERR_FORMAT,
                         "its %" PRIu64 " bytes from byte %" PRIu64
                         " reach into what begins at byte %" PRIu64,
                         entry->data_bytes, entry->data_offset, limit);
    return 0;
}

static int compare_offsets(const void *left, const void *right)
{
    const struct torch_entry *x = left;
    const struct torch_entry *y = right;

    return x->header_offset < y->header_offset ? -1 : x->header_offset > y->header_offset;
}

static int compare_names(const void *left, const void *right)
{
    const struct torch_entry *x = left;
    const struct torch_entry *y = right;

    return name_compare(x->name, x->name_bytes, y->name, y->name_bytes);
}

static int read_entries(struct torch_zip *zip, const struct torch_source *source, struct error *err)
{
    const uint8_t *at = (const uint8_t *)zip->directory;
    size_t left_bytes = zip->directory_bytes;
    size_t entry_bytes = 0;
    char quoted[QUOTED_BYTES];
    int status = 0;

    for (size_t i = 0; i < zip->entry_count; i++, at += entry_bytes, left_bytes -= entry_bytes) {
        status = read_central(&zip->entries[i], at, left_bytes, &entry_bytes, err);
        if (status)
            return status;
    }
    if (left_bytes)
        return error_set(err, ERR_FORMAT,
                         "damaged archive: %zu bytes behind the last of %zu entries of its "
                         "directory",
                         left_bytes, zip->entry_count);
    qsort(zip->entries, zip->entry_count, sizeof(*zip->entries), compare_offsets);
    for (size_t i = 0; i < zip->entry_count && !status; i++) {
        struct torch_entry *entry = &zip->entries[i];

        status = read_local(
            entry, source,
            i + 1 < zip->entry_count ? entry[1].header_offset : zip->directory_offset, err);
        if (status)
            error_prefix(err, "entry '%s'",
                         error_quote(quoted, sizeof(quoted), entry->name, entry->name_bytes));
    }
    if (status)
        return status;
    qsort(zip->entries, zip->entry_count, sizeof(*zip->entries), compare_names);
    for (size_t i = 1; i < zip->entry_count; i++) {
        const struct torch_entry *entry = &zip->entries[i];

        if (compare_names(entry - 1, entry) == 0)
            return error_set(err, ERR_FORMAT, "damaged archive: entry '%s' appears twice",
                             error_quote(quoted, sizeof(quoted), entry->name, entry->name_bytes));
    }
    return 0;
}

int torch_zip_open(struct torch_zip *out, const struct torch_source *source, struct error *err)
{
    struct torch_zip zip = { 0 };
    struct torch_zip_place place = { 0 };
    uint64_t end;
    int status = torch_zip_locate(&place, source, err);

    if (status)
        return status;
    if (!add_u64(place.offset, place.bytes, &end) || end > source->bytes)
        return error_set(err, ERR_FORMAT,
                         "truncated: its directory has %" PRIu64 " bytes from byte %" PRIu64
                         ", the file has %" PRIu64,
                         place.bytes, place.offset, source->bytes);
    if (place.bytes > ST_HEADER_BYTES_MAX)
        return error_set(err, ERR_FORMAT,
                         "its directory has %" PRIu64 " bytes, at most %" PRIu64 " are accepted",
                         place.bytes, ST_HEADER_BYTES_MAX);
    if (place.entries == 0 || place.entries > place.bytes / CENTRAL_BYTES)
        return error_set(err, ERR_FORMAT,
                         "damaged archive: %" PRIu64 " entries in a directory of %" PRIu64 " bytes",
                         place.entries, place.bytes);
    zip.directory_bytes = (size_t)place.bytes;
    zip.directory_offset = place.offset;
    zip.entry_count = (size_t)place.entries;
    zip.directory = malloc(zip.directory_bytes);
    zip.entries = calloc(zip.entry_count, sizeof(*zip.entries));
    if (!zip.directory || !zip.entries)
        status = error_no_memory(err, "the directory of an archive");
    if (!status)
        status = torch_source_read(source, zip.directory, zip.directory_bytes, place.offset, err);
    if (!status)
        status = read_entries(&zip, source, err);
    if (status) {
        torch_zip_release(&zip);
        return status;
    }
    *out = zip;
    return 0;
}

void torch_zip_release(struct torch_zip *zip)
{
    free(zip->directory);
    free(zip->entries);
    *zip = (struct torch_zip){ 0 };
}

int torch_zip_find(const struct torch_entry **out, const struct torch_zip *zip, const char *folder,
                   const char *name, size_t name_bytes, struct error *err)
{
    struct text text = { 0 };
    struct torch_entry key = { 0 };
    char quoted[QUOTED_BYTES];

    text_add(&text, zip->prefix, zip->prefix_bytes);
    text_adds(&text, folder);
    text_add(&text, name, name_bytes);
    if (text.failed) {
        text_release(&text);
        return error_no_memory(err, "the name of an entry");
    }
    key.name = text.data;
    key.name_bytes = (uint32_t)text.bytes; /* a pickle has less than 2^32 bytes */
    *out = bsearch(&key, zip->entries, zip->entry_count, sizeof(*zip->entries), compare_names);
    if (*out && (*out)->method != 0)
        error_set(
            err, ERR_FORMAT,
            "entry '%s' is compressed (method %u), but torch stores entries as they are; this "
            "archive was packed again by something else: " TORCH_RESAVE,
            error_quote(quoted, sizeof(quoted), text.data, text.bytes), (*out)->method);
    text_release(&text);
    return *out && (*out)->method != 0 ? err->code : 0;
}
