/*
 * scheme_probe.c - the model that a quantised base stands for, decoded by the scalar kernel
 *
 * usage: scheme_probe BASE OUT: writes OUT, a safetensors file with every tensor of the view, and
 * prints the summary.  Ends with the exit status of the error, whose sentence goes to stderr.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "base/bytes.h"
#include "check.h"
#include "compute/convert.h"
#include "compute/quant.h"
#include "scheme/scheme.h"

#include <inttypes.h>
#include <string.h>

#define CONFIG_BYTES_MAX (64u << 20)

static void *need(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);

    CHECK(memory, "no memory");
    return memory;
}

static void *read_part(const struct model *model, const struct scheme_part *part)
{
    void *bytes = need((size_t)part->bytes);
    struct file file = FILE_CLOSED;
    struct error err = { 0 };

    if (part->bytes == 0)
        return bytes;
    CHECK(!file_open_input(&file, model->shards[part->shard].path, FILE_DIRECT_OFF, &err) &&
              !file_pread(&file, bytes, (size_t)part->bytes, part->offset, &err),
          "%s", err.text);
    file_close(&file);
    return bytes;
}

static void put(FILE *out, enum dtype dtype, float value)
{
    uint32_t bits = f32_bits(value);
    uint16_t half = dtype == DTYPE_BF16 ? bf16_encode(bits) : f16_encode(bits);

    if (dtype == DTYPE_F32)
        fwrite(&bits, sizeof(bits), 1, out);
    else
        fwrite(&half, sizeof(half), 1, out);
}

static void decode(FILE *out, const struct model *model, const struct scheme_tensor *tensor)
{
    const struct quant_matrix *matrix = &tensor->matrix;
    struct quant_whole whole = { .offset = tensor->nested_offset };
    void *parts[QUANT_PART_COUNT];
    void *map = read_part(model, &tensor->map);
    void *nested = read_part(model, &tensor->nested);
    void *group_of = read_part(model, &tensor->group_of);
    uint8_t *wholes = read_part(model, &tensor->whole);
    uint64_t matrices = matrix->block_rows ? matrix->matrices : 1;
    uint64_t elements = matrix->matrices * matrix->rows * matrix->cols / matrices;
    float *values = need((size_t)elements * sizeof(*values));

    memcpy(whole.map, map, (size_t)tensor->map.bytes);
    whole.nested = nested;
    whole.group_of = tensor->group_of.bytes ? group_of : NULL;
    for (int i = 0; i < QUANT_PART_COUNT; i++)
        parts[i] = read_part(model, &tensor->parts[i]);
    for (uint64_t m = 0; m < matrices; m++) {
        struct quant_source source = { .whole = &whole, .first = m * elements, .count = elements };
        struct quant_reads reads[QUANT_PART_COUNT];
        struct error err = { 0 };

        quant_reads_of(reads, matrix, source.first, source.count);
        for (int i = 0; i < QUANT_PART_COUNT; i++) {
            CHECK(reads[i].count <= 1, "a whole matrix is one piece");
            source.parts[i] = (uint8_t *)parts[i] + reads[i].offset;
        }
        if (tensor->whole.bytes)
            whole.whole = f32_from_bits(load_le32(wholes + 4 * m));
        CHECK(!quant_check_whole(matrix, &whole, &err), "%s", err.text);
        quant_scalar.decode(values, matrix, &source, source.first, (size_t)elements);
        for (uint64_t i = 0; i < elements; i++)
            put(out, matrix->result_dtype, values[i]);
    }
    for (int i = 0; i < QUANT_PART_COUNT; i++)
        free(parts[i]);
    free(map);
    free(nested);
    free(group_of);
    free(wholes);
    free(values);
}

static void write_view(const char *path, const struct scheme_base *base)
{
    struct text json = { 0 };
    uint8_t prefix[8];
    uint64_t offset = 0;
    size_t next = 0;
    FILE *out = fopen(path, "wb");

    CHECK(out, "%s", path);
    st_emit_begin(&json, NULL, 0);
    for (size_t i = 0; i < base->view.shard_count; i++) {
        const struct st_header *header = &base->view.shards[i].header;

        for (size_t j = 0; j < header->tensor_count; j++) {
            const struct st_tensor *tensor = &header->tensors[j];

            st_emit_tensor(&json, st_name(header, tensor), tensor->name_bytes,
                           (enum dtype)tensor->dtype, st_shape(header, tensor), tensor->shape_count,
                           offset, tensor->data_bytes);
            offset += tensor->data_bytes;
        }
    }
    st_emit_end(&json, 0, 8);
    CHECK(!json.failed, "no memory");
    store_le64(prefix, json.bytes);
    fwrite(prefix, 1, sizeof(prefix), out);
    fwrite(json.data, 1, json.bytes, out);
    for (size_t i = 0; i < base->view.shard_count; i++) {
        const struct st_header *header = &base->view.shards[i].header;

        for (size_t j = 0; j < header->tensor_count; j++, next++) {
            const struct st_tensor *tensor = &header->tensors[j];
            const struct scheme_part plain = { .shard = (uint32_t)i,
                                               .offset = header->data_start + tensor->data_offset,
                                               .bytes = tensor->data_bytes };
            void *bytes;

            if (base->tensors[next].kind != SCHEME_PLAIN) {
                decode(out, &base->view, &base->tensors[next]);
                continue;
            }
            bytes = read_part(&base->view, &plain);
            fwrite(bytes, 1, (size_t)plain.bytes, out);
            free(bytes);
        }
    }
    CHECK(fclose(out) == 0, "%s", path);
    text_release(&json);
}

static char *read_file(const char *directory, const char *name, size_t *bytes)
{
    char path[4096];
    char *text = NULL;
    struct error err;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return file_read_all(&text, bytes, path, CONFIG_BYTES_MAX, &err) ? NULL : text;
}

int main(int argc, char **argv)
{
    struct error err = { 0 };
    struct model model = { 0 };
    struct scheme_base base = { 0 };
    size_t config_bytes = 0, extra_bytes = 0;
    char *config, *extra;
    int status;

    CHECK(argc == 3, "usage: scheme_probe BASE OUT");
    config = read_file(argv[1], "config.json", &config_bytes);
    extra = read_file(argv[1], "hf_quant_config.json", &extra_bytes);
    status = model_open(&model, argv[1], NULL, &err);
    if (!status)
        status = scheme_read_base(&base, &model, config, config_bytes, extra, extra_bytes, NULL,
                                  &err);
    model_release(&model);
    if (status) {
        fprintf(stderr, "%s\n", err.text);
    } else {
        printf("%s\n", base.quantised ? base.summary : "not quantised");
        if (base.quantised)
            write_view(argv[2], &base);
    }
    scheme_release(&base);
    free(config);
    free(extra);
    return status;
}
