#include "base/bytes.h"
#include "base/checksum.h"
#include "base/text.h"
#include "format/torch_emit.h"
#include "format/torch_file.h"
#include "format/torch_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define RECORDS_MAX 32u

struct layout {
    struct torch_record records[RECORDS_MAX];
    struct torch_frame frame;
    struct text head;
    uint64_t bytes;
};

static struct torch_record get_record(const void *context, uint64_t number)
{
    return ((const struct layout *)context)->records[number];
}

/* Storages of these sizes behind a pickle. */
static void lay_out(struct layout *out, const struct text *pickle, const uint64_t *bytes,
                    size_t count, uint64_t residue, uint64_t modulus)
{
    uint64_t end;

    *out = (struct layout){ 0 };
    torch_emit_head(&out->head, pickle->data, pickle->bytes);
    out->frame = (struct torch_frame){ .pickle_bytes = pickle->bytes,
                                       .pickle_checksum = checksum_bytes(pickle->data,
                                                                         pickle->bytes),
                                       .record_count = count,
                                       .record = get_record,
                                       .context = out };
    end = out->head.bytes;
    for (size_t i = 0; i < count; i++) {
        out->records[i].bytes = bytes[i];
        out->records[i].offset = torch_record_offset(i, bytes[i], end, i ? bytes[i - 1] : 0,
                                                     residue, modulus);
        assert_int_equal(out->records[i].offset % modulus, residue);
        end = out->records[i].offset + bytes[i];
    }
    out->bytes = end + torch_tail_bytes(&out->frame);
}

static void frame_window(const struct layout *layout, uint64_t first, uint64_t end, uint8_t *out)
{
    for (uint64_t i = 0; i < layout->frame.record_count; i++)
        torch_emit_seam(&layout->frame, i, first, end, out);
    torch_emit_tail(&layout->frame, first, end, out);
}

/* The whole file in memory, data included. */
static uint8_t *make_file(struct layout *layout)
{
    uint8_t *file = calloc(layout->bytes, 1);

    assert_non_null(file);
    memcpy(file, layout->head.data, layout->head.bytes);
    for (uint64_t i = 0; i < layout->frame.record_count; i++) {
        struct torch_record *record = &layout->records[i];

        for (uint64_t k = 0; k < record->bytes; k++)
            file[record->offset + k] = (uint8_t)(i * 37 + k * 11 + 5);
        record->checksum = checksum_bytes(file + record->offset, record->bytes);
    }
    frame_window(layout, 0, layout->bytes, file);
    return file;
}

static void test_every_dtype_comes_back(void **state)
{
    uint64_t shapes[][3] = { { 3, 5, 2 }, { 7 }, { 0, 4 }, { 1 } };
    size_t dims[] = { 3, 1, 2, 0 };
    uint64_t bytes[RECORDS_MAX];
    enum dtype dtypes[RECORDS_MAX];
    struct text pickle = { 0 };
    struct torch_pickle emit;
    struct st_header header = { 0 };
    struct error err = { 0 };
    struct layout layout;
    size_t count = 0;
    uint8_t *file;

    (void)state;
    torch_emit_begin(&emit, &pickle);
    for (int d = 0; d < DTYPE_COUNT; d++) {
        size_t s = count % 4;
        uint64_t elements = 1;
        char name[32];

        if (!torch_emit_knows((enum dtype)d))
            continue;
        for (size_t i = 0; i < dims[s]; i++)
            elements *= shapes[s][i];
        snprintf(name, sizeof(name), "tensor \xc3\xa9 %02zu", count);
        dtypes[count] = (enum dtype)d;
        bytes[count] = elements * dtype_bytes((enum dtype)d);
        torch_emit_tensor(&emit, name, strlen(name), (enum dtype)d, shapes[s], dims[s], count);
        count++;
    }
    torch_emit_tensor(&emit, "twin", 4, dtypes[0], shapes[0], dims[0], 0);
    torch_emit_end(&emit);
    assert_true(count >= 19); /* all but the ones of less than a byte */
    lay_out(&layout, &pickle, bytes, count, 0, TORCH_ALIGNMENT);
    file = make_file(&layout);
    if (torch_parse(&header, &(struct torch_source){ .memory = file, .bytes = layout.bytes }, &err))
        fail_msg("%s", err.text);
    assert_int_equal(header.tensor_count, count + 1);
    for (size_t i = 0; i < header.tensor_count; i++) {
        const struct st_tensor *tensor = &header.tensors[i];
        const char *name = st_name(&header, tensor);
        size_t number = strcmp(name, "twin") == 0 ? 0 : strtoul(name + 10, NULL, 10);

        assert_int_equal(tensor->dtype, dtypes[number]);
        assert_int_equal(tensor->data_bytes, bytes[number]);
        assert_int_equal(tensor->data_offset, layout.records[number].offset);
        assert_int_equal(tensor->shape_count, dims[number % 4]);
        assert_memory_equal(st_shape(&header, tensor), shapes[number % 4],
                            tensor->shape_count * sizeof(uint64_t));
    }
    st_header_release(&header);
    free(file);
    text_release(&pickle);
    text_release(&layout.head);
}

/* Each window holds what the whole has there, wherever blocks cut. */
static void test_windows_are_parts_of_the_whole(void **state)
{
    static const uint64_t bytes[] = { 100, 0, 1, 4096, 63, 7000 };
    const struct text pickle = { .data = "p", .bytes = 1 };
    struct layout layout;
    uint8_t *file;

    (void)state;
    for (uint64_t modulus = TORCH_ALIGNMENT; modulus <= PAGE_BYTES; modulus *= 64) {
        lay_out(&layout, &pickle, bytes, 6, modulus == PAGE_BYTES ? 192 : 0, modulus);
        file = make_file(&layout);
        for (uint64_t step = 1; step < 400; step = step * 3 + 1) {
            for (uint64_t first = 0; first < layout.bytes; first += step) {
                uint64_t end = min_u64(first + step, layout.bytes);
                uint8_t *part = malloc(step + 1);

                assert_non_null(part);
                memcpy(part, file + first, end - first);
                part[end - first] = 0xee;
                for (uint64_t i = first; i < end; i++) { /* what the frame has to fill in */
                    bool data = i < layout.head.bytes;

                    for (size_t k = 0; k < 6; k++)
                        data = data || (i >= layout.records[k].offset &&
                                        i < layout.records[k].offset + layout.records[k].bytes);
                    if (!data)
                        part[i - first] = 0xdd;
                }
                frame_window(&layout, first, end, part);
                assert_memory_equal(part, file + first, end - first);
                assert_int_equal(part[end - first], 0xee);
                free(part);
            }
        }
        free(file);
        text_release(&layout.head);
    }
}

/* Sizes and places above 4 GiB, in a file of holes. */
static void test_large_files_are_zip64(void **state)
{
    static const uint64_t bytes[] = { 16, UINT64_C(0xffffffff), 24, UINT64_C(5000000000), 8 };
    char path[] = "/tmp/lorafold-torch-XXXXXX";
    struct text pickle = { 0 };
    struct torch_pickle emit;
    struct st_header header = { 0 };
    struct error err = { 0 };
    struct layout layout;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    torch_emit_begin(&emit, &pickle);
    for (uint64_t i = 0; i < 5; i++) {
        char name[2] = { (char)('a' + i), 0 };

        torch_emit_tensor(&emit, name, 1, DTYPE_U8, &bytes[i], 1, i);
    }
    torch_emit_end(&emit);
    lay_out(&layout, &pickle, bytes, 5, 0, TORCH_ALIGNMENT);
    if (ftruncate(fd, (off_t)layout.bytes) < 0) {
        print_message("no file of %llu bytes can be made here\n", (unsigned long long)layout.bytes);
        unlink(path);
        skip();
    }
    assert_int_equal(pwrite(fd, layout.head.data, layout.head.bytes, 0), layout.head.bytes);
    for (uint64_t i = 0; i <= 5; i++) {
        uint64_t first = i ? layout.records[i - 1].offset + bytes[i - 1] : layout.head.bytes;
        uint64_t end = i < 5 ? layout.records[i].offset : layout.bytes;
        uint8_t *part = calloc(end - first, 1);

        frame_window(&layout, first, end, part);
        assert_int_equal(pwrite(fd, part, end - first, (off_t)first), end - first);
        free(part);
    }
    if (torch_file_read(&header, path, NULL, &err))
        fail_msg("%s", err.text);
    assert_int_equal(header.tensor_count, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(header.tensors[i].data_offset, layout.records[i].offset);
        assert_int_equal(header.tensors[i].data_bytes, bytes[i]);
    }
    st_header_release(&header);
    text_release(&pickle);
    text_release(&layout.head);
    close(fd);
    unlink(path);
}

static void test_checksums_of_pieces(void **state)
{
    uint8_t data[1000];
    uint32_t all = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * i + 3 * i);
    assert_int_equal(checksum_bytes("123456789", 9), 0xcbf43926u); /* the check value of CRC-32 */
    for (size_t first = 900, end = sizeof(data); end > 0; end = first, first = first * 2 / 3)
        all ^= checksum_shift(checksum_bytes(data + first, end - first), sizeof(data) - end);
    assert_int_equal(all, checksum_bytes(data, sizeof(data)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_dtype_comes_back),
        cmocka_unit_test(test_windows_are_parts_of_the_whole),
        cmocka_unit_test(test_large_files_are_zip64),
        cmocka_unit_test(test_checksums_of_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
