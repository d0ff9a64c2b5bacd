#include "base/bytes.h"
#include "base/checksum.h"
#include "format/torch_emit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* APPNOTE of the ZIP format, sections 4.3.7 to 4.3.16 and 4.5.3. */
#define LOCAL_BYTES 30u
#define CENTRAL_BYTES 46u
#define DESCRIPTOR_BYTES 16u
#define DESCRIPTOR64_BYTES 24u
#define LOCAL64_BYTES 20u /* the zip64 field with two sizes */
#define END64_BYTES 56u
#define LOCATOR_BYTES 20u
#define END_BYTES 22u

#define SIGNATURE_LOCAL 0x04034b50u
#define SIGNATURE_DESCRIPTOR 0x08074b50u
#define SIGNATURE_CENTRAL 0x02014b50u
#define SIGNATURE_END64 0x06064b50u
#define SIGNATURE_LOCATOR 0x07064b50u
#define SIGNATURE_END 0x06054b50u

#define FLAG_BEHIND 8u /* checksum and sizes follow the data */
#define FLAG_UTF8 0x800u
#define EXTRA_ZIP64 1u
#define EXTRA_PADDING 0x4246u /* "FB", as torch pads */
#define EXTRA_HEAD_BYTES 4u
#define VERSION 20u
#define VERSION_ZIP64 45u
#define DATE_1980 0x21u /* 1 January: the first that the format has */

/* torch names this folder after the file, or so where it has no name. */
#define FOLDER "archive/"
#define NAME_BYTES_MAX 40u

static const char PICKLE_NAME[] = FOLDER "data.pkl";
static const char ORDER_NAME[] = FOLDER "byteorder";
static const char ORDER[] = "little";
static const char VERSION_NAME[] = FOLDER "version";
static const char VERSION_DATA[] = "3\n";
static const char ID_NAME[] = FOLDER ".data/serialization_id";
#define ID_BYTES 40u

/* Bytes that go to `at` and on in the file, of which those in [first, end) are kept. */
struct window {
    uint64_t at;
    uint64_t first;
    uint64_t end;
    uint8_t *out; /* where `first` goes */
};

static void put(struct window *window, const void *bytes, uint64_t count)
{
    uint64_t begin = max_u64(window->at, window->first);
    uint64_t end = min_u64(window->at + count, window->end);

    if (begin < end)
        memcpy(window->out + (begin - window->first), (const uint8_t *)bytes + (begin - window->at),
               end - begin);
    window->at += count;
}

static void put_padding(struct window *window, uint64_t count)
{
    static const char letters[] = "ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ"; /* as torch pads */

    for (; count > sizeof(letters) - 1; count -= sizeof(letters) - 1)
        put(window, letters, sizeof(letters) - 1);
    put(window, letters, count);
}

/* An entry of the archive. */
struct entry {
    char name[NAME_BYTES_MAX];
    bool behind; /* its checksum stands behind its data */
    uint64_t header_offset;
    uint64_t bytes;
    uint32_t checksum;
};

static bool is_large(const struct entry *entry)
{
    return entry->bytes >= UINT32_MAX;
}

/* Without its padding. */
static uint64_t local_bytes(const struct entry *entry)
{
    return LOCAL_BYTES + strlen(entry->name) + (is_large(entry) ? LOCAL64_BYTES : 0) +
           EXTRA_HEAD_BYTES;
}

static uint64_t descriptor_bytes(const struct entry *entry)
{
    if (!entry->behind)
        return 0;
    return is_large(entry) ? DESCRIPTOR64_BYTES : DESCRIPTOR_BYTES;
}

static void fill_common(uint8_t *at, const struct entry *entry)
{
    store_le16(at, is_large(entry) ? VERSION_ZIP64 : VERSION);
    store_le16(at + 2, (uint16_t)(FLAG_UTF8 | (entry->behind ? FLAG_BEHIND : 0)));
    store_le16(at + 8, DATE_1980);
}

/* The local header of an entry whose data begin at `data_offset`. */
static void put_local(struct window *window, const struct entry *entry, uint64_t data_offset)
{
    uint8_t header[LOCAL_BYTES] = { 0 };
    uint8_t zip64[LOCAL64_BYTES] = { 0 };
    uint8_t padding[EXTRA_HEAD_BYTES];
    uint64_t padded = data_offset - window->at - local_bytes(entry);
    uint16_t extra_bytes = (uint16_t)((is_large(entry) ? LOCAL64_BYTES : 0) + EXTRA_HEAD_BYTES +
                                      padded);

    store_le32(header, SIGNATURE_LOCAL);
    fill_common(header + 4, entry);
    if (!entry->behind) {
        store_le32(header + 14, entry->checksum);
        store_le32(header + 18, (uint32_t)entry->bytes);
        store_le32(header + 22, (uint32_t)entry->bytes);
    } else if (is_large(entry)) {
        store_le32(header + 18, UINT32_MAX);
        store_le32(header + 22, UINT32_MAX);
    }
    store_le16(header + 26, (uint16_t)strlen(entry->name));
    store_le16(header + 28, extra_bytes);
    put(window, header, sizeof(header));
    put(window, entry->name, strlen(entry->name));
    if (is_large(entry)) {
        store_le16(zip64, EXTRA_ZIP64);
        store_le16(zip64 + 2, LOCAL64_BYTES - EXTRA_HEAD_BYTES);
        put(window, zip64, sizeof(zip64));
    }
    store_le16(padding, EXTRA_PADDING);
    store_le16(padding + 2, (uint16_t)padded);
    put(window, padding, sizeof(padding));
    put_padding(window, padded);
}

static void put_descriptor(struct window *window, const struct entry *entry)
{
    uint8_t descriptor[DESCRIPTOR64_BYTES];

    store_le32(descriptor, SIGNATURE_DESCRIPTOR);
    store_le32(descriptor + 4, entry->checksum);
    if (is_large(entry)) {
        store_le64(descriptor + 8, entry->bytes);
        store_le64(descriptor + 16, entry->bytes);
    } else {
        store_le32(descriptor + 8, (uint32_t)entry->bytes);
        store_le32(descriptor + 12, (uint32_t)entry->bytes);
    }
    put(window, descriptor, descriptor_bytes(entry));
}

static void put_central(struct window *window, const struct entry *entry)
{
    uint8_t header[CENTRAL_BYTES] = { 0 };
    uint8_t zip64[EXTRA_HEAD_BYTES + 24];
    size_t zip64_bytes = EXTRA_HEAD_BYTES;
    uint32_t sizes = (uint32_t)entry->bytes;
    uint32_t offset = (uint32_t)entry->header_offset;

    if (is_large(entry)) {
        sizes = UINT32_MAX;
        store_le64(zip64 + zip64_bytes, entry->bytes);
        store_le64(zip64 + zip64_bytes + 8, entry->bytes);
        zip64_bytes += 16;
    }
    if (entry->header_offset >= UINT32_MAX) {
        offset = UINT32_MAX;
        store_le64(zip64 + zip64_bytes, entry->header_offset);
        zip64_bytes += 8;
    }
    if (zip64_bytes == EXTRA_HEAD_BYTES)
        zip64_bytes = 0;
    store_le16(zip64, EXTRA_ZIP64);
    store_le16(zip64 + 2, (uint16_t)(zip64_bytes - EXTRA_HEAD_BYTES));
    store_le32(header, SIGNATURE_CENTRAL);
    fill_common(header + 6, entry);
    store_le16(header + 4, zip64_bytes ? VERSION_ZIP64 : VERSION); /* made by */
    store_le16(header + 6, zip64_bytes ? VERSION_ZIP64 : VERSION); /* needed */
    store_le32(header + 16, entry->checksum);
    store_le32(header + 20, sizes);
    store_le32(header + 24, sizes);
    store_le16(header + 28, (uint16_t)strlen(entry->name));
    store_le16(header + 30, (uint16_t)zip64_bytes);
    store_le32(header + 42, offset);
    put(window, header, sizeof(header));
    put(window, entry->name, strlen(entry->name));
    put(window, zip64, zip64_bytes);
}

/* A small entry, all of which is known. */
static struct entry small_entry(const char *name, const void *data, size_t bytes, uint64_t offset)
{
    struct entry entry = { .header_offset = offset,
                           .bytes = bytes,
                           .checksum = checksum_bytes(data, bytes) };

    snprintf(entry.name, sizeof(entry.name), "%s", name);
    return entry;
}

static void put_small(struct window *window, const struct entry *entry, const void *data)
{
    put_local(window, entry, align_up(window->at + local_bytes(entry), TORCH_ALIGNMENT));
    put(window, data, entry->bytes);
}

/* ---- head ---- */

static struct entry pickle_entry(const struct torch_frame *frame)
{
    struct entry entry = { .bytes = frame->pickle_bytes, .checksum = frame->pickle_checksum };

    snprintf(entry.name, sizeof(entry.name), "%s", PICKLE_NAME);
    return entry;
}

static uint64_t pickle_offset(const struct torch_frame *frame)
{
    struct entry entry = pickle_entry(frame);

    return align_up(local_bytes(&entry), TORCH_ALIGNMENT);
}

static struct entry order_entry(const struct torch_frame *frame)
{
    return small_entry(ORDER_NAME, ORDER, strlen(ORDER),
                       pickle_offset(frame) + frame->pickle_bytes);
}

void torch_emit_head(struct text *out, const char *pickle, size_t pickle_bytes)
{
    const struct torch_frame frame = { .pickle_bytes = pickle_bytes,
                                       .pickle_checksum = checksum_bytes(pickle, pickle_bytes) };
    uint8_t bytes[512];
    struct window window = { .end = sizeof(bytes), .out = bytes };
    struct entry entry = pickle_entry(&frame);

    put_local(&window, &entry, pickle_offset(&frame));
    text_add(out, (const char *)bytes, window.at);
    text_add(out, pickle, pickle_bytes);
    entry = order_entry(&frame);
    window = (struct window){ .at = entry.header_offset,
                              .first = entry.header_offset,
                              .end = entry.header_offset + sizeof(bytes),
                              .out = bytes };
    put_small(&window, &entry, ORDER);
    text_add(out, (const char *)bytes, window.at - entry.header_offset);
}

/* ---- storages ---- */

/* The entry of a storage, but for where it is. */
static struct entry record_entry(uint64_t number, uint64_t bytes, uint32_t checksum)
{
    struct entry entry = { .behind = bytes > 0, .bytes = bytes, .checksum = checksum };

    snprintf(entry.name, sizeof(entry.name), FOLDER "data/%" PRIu64, number);
    return entry;
}

static struct entry frame_entry(const struct torch_frame *frame, uint64_t number)
{
    struct torch_record record = frame->record(frame->context, number);

    return record_entry(number, record.bytes, record.checksum);
}

/* Where the seam of storage `number` begins; behind the last one, the tail. */
static uint64_t seam_offset(const struct torch_frame *frame, uint64_t number)
{
    struct entry order;
    struct torch_record before;

    if (number) {
        before = frame->record(frame->context, number - 1);
        return before.offset + before.bytes;
    }
    order = order_entry(frame);
    return align_up(order.header_offset + local_bytes(&order), TORCH_ALIGNMENT) + order.bytes;
}

uint64_t torch_record_offset(uint64_t number, uint64_t bytes, uint64_t end, uint64_t before_bytes,
                             uint64_t residue, uint64_t modulus)
{
    struct entry before = record_entry(number, before_bytes, 0);
    struct entry entry = record_entry(number, bytes, 0);
    uint64_t least = end + (number ? descriptor_bytes(&before) : 0) + local_bytes(&entry);

    return least + ((residue - least) & (modulus - 1));
}

/* The descriptor of the storage before `number`; then the place is that of the next header. */
static void put_end_of(struct window *window, const struct torch_frame *frame, uint64_t number)
{
    struct entry before;

    if (number == 0)
        return;
    before = frame_entry(frame, number - 1);
    put_descriptor(window, &before);
}

void torch_emit_seam(const struct torch_frame *frame, uint64_t number, uint64_t first, uint64_t end,
                     uint8_t *out)
{
    struct window window = { seam_offset(frame, number), first, end, out };
    struct entry entry = frame_entry(frame, number);

    put_end_of(&window, frame, number);
    put_local(&window, &entry, frame->record(frame->context, number).offset);
}

/* ---- tail ---- */

/*
 * torch has an id of names and data here, 40 digits that nothing reads back; ours is of the pickle
 * and of the checksums of all storages.
 */
static void fill_id(char id[ID_BYTES + 1], const struct torch_frame *frame)
{
    uint32_t checksum = 0;

    for (uint64_t i = 0; i < frame->record_count; i++) {
        uint8_t bytes[4];

        store_le32(bytes, frame->record(frame->context, i).checksum);
        checksum = checksum_shift(checksum, sizeof(bytes)) ^ checksum_bytes(bytes, sizeof(bytes));
    }
    snprintf(id, ID_BYTES + 1, "%020" PRIu32 "%020" PRIu32, frame->pickle_checksum, checksum);
}

static void put_directory(struct window *window, const struct torch_frame *frame)
{
    struct entry entry = pickle_entry(frame);

    put_central(window, &entry);
    entry = order_entry(frame);
    put_central(window, &entry);
    for (uint64_t i = 0; i < frame->record_count; i++) {
        struct window place = { .at = seam_offset(frame, i) };

        put_end_of(&place, frame, i);
        entry = frame_entry(frame, i);
        entry.header_offset = place.at;
        put_central(window, &entry);
    }
}

static void put_end(struct window *window, uint64_t entries, uint64_t offset)
{
    uint64_t end64_offset = window->at;
    uint64_t bytes = end64_offset - offset;
    uint8_t end64[END64_BYTES] = { 0 };
    uint8_t locator[LOCATOR_BYTES] = { 0 };
    uint8_t end[END_BYTES] = { 0 };

    store_le32(end64, SIGNATURE_END64);
    store_le64(end64 + 4, END64_BYTES - 12);
    store_le16(end64 + 12, VERSION_ZIP64);
    store_le16(end64 + 14, VERSION_ZIP64);
    store_le64(end64 + 24, entries);
    store_le64(end64 + 32, entries);
    store_le64(end64 + 40, bytes);
    store_le64(end64 + 48, offset);
    put(window, end64, sizeof(end64));
    store_le32(locator, SIGNATURE_LOCATOR);
    store_le64(locator + 8, end64_offset);
    store_le32(locator + 16, 1);
    put(window, locator, sizeof(locator));
    store_le32(end, SIGNATURE_END);
    store_le16(end + 8, (uint16_t)min_u64(entries, UINT16_MAX));
    store_le16(end + 10, (uint16_t)min_u64(entries, UINT16_MAX));
    store_le32(end + 12, (uint32_t)min_u64(bytes, UINT32_MAX));
    store_le32(end + 16, (uint32_t)min_u64(offset, UINT32_MAX));
    put(window, end, sizeof(end));
}

static uint64_t put_tail(struct window *window, const struct torch_frame *frame)
{
    uint64_t begin = window->at;
    struct entry version;
    struct entry id_entry;
    uint64_t directory;
    char id[ID_BYTES + 1];

    put_end_of(window, frame, frame->record_count);
    version = small_entry(VERSION_NAME, VERSION_DATA, strlen(VERSION_DATA), window->at);
    put_small(window, &version, VERSION_DATA);
    fill_id(id, frame);
    id_entry = small_entry(ID_NAME, id, ID_BYTES, window->at);
    put_small(window, &id_entry, id);
    directory = window->at;
    put_directory(window, frame);
    put_central(window, &version);
    put_central(window, &id_entry);
    put_end(window, frame->record_count + 4, directory);
    return window->at - begin;
}

void torch_emit_tail(const struct torch_frame *frame, uint64_t first, uint64_t end, uint8_t *out)
{
    struct window window = { seam_offset(frame, frame->record_count), first, end, out };

    (void)put_tail(&window, frame);
}

uint64_t torch_tail_bytes(const struct torch_frame *frame)
{
    struct window window = { .at = seam_offset(frame, frame->record_count) };

    return put_tail(&window, frame);
}
