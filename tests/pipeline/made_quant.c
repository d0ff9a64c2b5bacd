/* Some tensors of a made base, stored as codes and companions instead. */
#include "pipeline/made_edits.h"

#include "check.h"
#include "compute/fold.h"
#include "compute/quant_layout.h"

#include <stdlib.h>
#include <string.h>

static const struct quant_matrix schemes[] = {
    { .codes = QUANT_NF4,
      .packing = QUANT_HIGH_FLAT,
      .bits = 4,
      .scale = QUANT_SCALE_PLAIN,
      .scale_dtype = DTYPE_F32,
      .block_cols = 64 },
    { .codes = QUANT_FP4_BNB,
      .packing = QUANT_HIGH_FLAT,
      .bits = 4,
      .scale = QUANT_SCALE_NESTED,
      .scale_dtype = DTYPE_U8,
      .block_cols = 128 },
    { .codes = QUANT_E4M3,
      .packing = QUANT_BYTES,
      .bits = 8,
      .scale = QUANT_SCALE_PLAIN,
      .scale_dtype = DTYPE_BF16,
      .block_rows = 128,
      .block_cols = 128 },
    { .codes = QUANT_E2M1,
      .packing = QUANT_LOW_FIRST,
      .bits = 4,
      .scale = QUANT_SCALE_TIMES_WHOLE,
      .scale_dtype = DTYPE_F8_E4M3,
      .block_rows = 1,
      .block_cols = 16 },
    { .codes = QUANT_SIGNED,
      .packing = QUANT_BYTES,
      .bits = 8,
      .scale = QUANT_SCALE_ROW_127,
      .scale_dtype = DTYPE_F32,
      .block_rows = 1,
      .block_cols = 1 << 20 },
    { .codes = QUANT_UNSIGNED,
      .packing = QUANT_WORDS,
      .bits = 4,
      .scale = QUANT_SCALE_PLAIN,
      .scale_dtype = DTYPE_F16,
      .block_rows = 1,
      .block_cols = 32,
      .zeros = QUANT_ZEROS_MIDDLE },
    { .codes = QUANT_UNSIGNED,
      .packing = QUANT_WORDS_DOWN,
      .bits = 4,
      .transposed = true,
      .scale = QUANT_SCALE_PLAIN,
      .scale_dtype = DTYPE_F16,
      .block_rows = 64,
      .block_cols = 1,
      .zeros = QUANT_ZEROS_WORDS_1 },
    { .codes = QUANT_UNSIGNED,
      .packing = QUANT_WORDS_AWQ,
      .bits = 4,
      .transposed = true,
      .scale = QUANT_SCALE_PLAIN,
      .scale_dtype = DTYPE_F16,
      .block_rows = 64,
      .block_cols = 1,
      .zeros = QUANT_ZEROS_AWQ },
    { .codes = QUANT_E2M1,
      .packing = QUANT_LOW_FIRST,
      .bits = 4,
      .transposed = true,
      .scale = QUANT_SCALE_PLAIN,
      .scale_dtype = DTYPE_F8_E8M0,
      .block_rows = 1,
      .block_cols = 32 },
};
#define SCHEME_COUNT (sizeof(schemes) / sizeof(schemes[0]))

/* A scale of a sane size, so that nothing overflows F16. */
static void put_scale(struct made_edits *made, enum dtype dtype, uint8_t *out)
{
    float value = (float)made_random_in(&made->rng, 1, 1000) / 65536;

    if (dtype_is_computed(dtype))
        fold_scalar.encode(out, dtype, &value, 1);
    else if (dtype == DTYPE_F8_E8M0)
        *out = (uint8_t)made_random_in(&made->rng, 110, 128);
    else if (dtype == DTYPE_F8_E4M3)
        *out = (uint8_t)made_random_in(&made->rng, 1, 0x60);
    else
        *out = (uint8_t)made_random(&made->rng);
}

static uint8_t *random_part(struct made_edits *made, const struct quant_matrix *matrix,
                            enum quant_part part, uint64_t *bytes)
{
    uint64_t width = part == QUANT_PART_SCALES ? dtype_bytes(matrix->scale_dtype) : 1;
    struct quant_plane plane;
    uint8_t *out;

    CHECK(quant_plane_of(&plane, matrix, part), "plane");
    *bytes = plane.lines * plane.line_bytes;
    out = malloc(*bytes + 1);
    CHECK(out, "memory");
    for (uint64_t i = 0; i < *bytes; i += width) {
        if (part == QUANT_PART_SCALES)
            put_scale(made, matrix->scale_dtype, out + i);
        else
            out[i] = (uint8_t)made_random(&made->rng);
        if (matrix->codes == QUANT_E4M3 && part == QUANT_PART_CODES && (out[i] & 0x7f) > 0x70)
            out[i] = 1;
    }
    return out;
}

/* Append to the file of codes; where it went. */
static struct scheme_part append(struct made_edits *made, FILE *file, const void *data,
                                 uint64_t bytes)
{
    struct scheme_part part = { .shard = (uint32_t)made->base.shard_count,
                                .offset = (uint64_t)ftell(file),
                                .bytes = bytes };

    CHECK(fwrite(data, 1, bytes, file) == bytes, "codes");
    return part;
}

/* The tensor's data become what its codes mean. */
static void decode(struct made_tensor *tensor, const struct quant_matrix *matrix,
                   uint8_t *parts[QUANT_PART_COUNT], const struct quant_whole *whole)
{
    uint64_t count = matrix->rows * matrix->cols;
    const struct quant_source source = { .parts = { parts[0], parts[1], parts[2] },
                                         .whole = whole,
                                         .count = count };
    float *values = malloc(count * sizeof(*values));
    size_t bad;

    CHECK(values, "memory");
    bad = quant_scalar.decode(values, matrix, &source, 0, count);
    CHECK(bad == FOLD_FINITE, "element %zu is not finite", bad);
    fold_scalar.encode(tensor->data, tensor->dtype, values, count);
    free(values);
}

static void quantise(struct made_edits *made, struct made_tensor *tensor,
                     struct scheme_tensor *scheme, FILE *file)
{
    uint8_t *parts[QUANT_PART_COUNT];
    uint64_t bytes[QUANT_PART_COUNT];
    float nested[4096];
    uint32_t groups[4096];
    struct quant_whole whole = { .nested = nested, .offset = 0.01f, .whole = 0.125f };
    struct quant_matrix *matrix = &scheme->matrix;
    struct error err = { 0 };

    /* The pipeline asks the matrix. */
    scheme->kind = made->bnb4 && made_random_in(&made->rng, 0, 2) ? SCHEME_BNB4 : SCHEME_PACKED;
    if (made->bnb4 && strcmp(tensor->name, "even.0.weight") == 0)
        scheme->kind = SCHEME_BNB4;
    *matrix = schemes[made_random_in(&made->rng, 0, SCHEME_COUNT - 1)];
    matrix->matrices = 1;
    matrix->rows = tensor->shape[0];
    matrix->cols = tensor->shape[1];
    matrix->result_dtype = tensor->dtype;
    for (int p = 0; p < QUANT_PART_COUNT; p++) {
        parts[p] = random_part(made, matrix, (enum quant_part)p, &bytes[p]);
        fputc(0, file); /* nothing is aligned */
        scheme->parts[p] = append(made, file, parts[p], bytes[p]);
    }
    CHECK(quant_check(matrix, bytes, &err) == 0, "%s", err.text);
    scheme->nested_offset = whole.offset;
    scheme->whole = append(made, file, &whole.whole, sizeof(float));
    if (matrix->scale == QUANT_SCALE_NESTED) {
        for (int i = 0; i < 4096; i++)
            nested[i] = (float)(i % 7 + 1) / 512;
        for (int i = 0; i < 256; i++)
            whole.map[i] = (float)(i - 127) / 128;
        scheme->map = append(made, file, whole.map, sizeof(whole.map));
        scheme->nested = append(made, file, nested, (bytes[QUANT_PART_SCALES] + 255) / 256 * 4);
    }
    if (matrix->packing == QUANT_WORDS_DOWN && matrix->cols <= 4096) {
        for (uint64_t i = 0; i < matrix->cols; i++)
            groups[i] = (uint32_t)((matrix->cols - 1 - i) / 64);
        whole.group_of = groups;
        scheme->group_of = append(made, file, groups, matrix->cols * 4);
    }
    decode(tensor, matrix, parts, &whole);
    for (int p = 0; p < QUANT_PART_COUNT; p++)
        free(parts[p]);
}

/* Can any scheme store it?  Rows and columns of whole words and blocks. */
static bool may_quantise(const struct made_tensor *tensor)
{
    return tensor->shape_count == 2 && dtype_is_computed(tensor->dtype) &&
           strncmp(tensor->name, "even", 4) == 0;
}

void made_quantise(struct made_edits *made)
{
    struct model_shard *shards;
    struct error err = { 0 };
    struct file file = FILE_CLOSED;
    char path[700];
    FILE *codes;

    snprintf(path, sizeof(path), "%s/codes", made->model.directory);
    made->bnb4 = made_random_in(&made->rng, 0, 1);
    codes = fopen(path, "wb");
    CHECK(codes, "%s", path);
    made->scheme.tensors = calloc(made->base.tensor_count, sizeof(*made->scheme.tensors));
    for (unsigned i = 0; i < made->model.tensor_count; i++) {
        struct made_tensor *tensor = &made->model.tensors[i];
        struct model_ref ref;
        uint64_t number;

        CHECK(model_find(&made->base, tensor->name, strlen(tensor->name), &ref), "%s",
              tensor->name);
        number = ref.tensor;
        for (uint32_t s = 0; s < ref.shard; s++)
            number += made->base.shards[s].header.tensor_count;
        if (may_quantise(tensor))
            quantise(made, tensor, &made->scheme.tensors[number], codes);
    }
    CHECK(fclose(codes) == 0, "codes");
    shards = realloc(made->base.shards, (made->base.shard_count + 1) * sizeof(*shards));
    CHECK(shards, "memory");
    made->base.shards = shards;
    shards += made->base.shard_count++;
    *shards = (struct model_shard){ .name = strdup("codes"), .path = strdup(path) };
    CHECK(file_open_input(&file, path, FILE_DIRECT_OFF, &err) == 0, "%s", err.text);
    shards->identity = file.identity;
    file_close(&file);
    made->scheme.quantised = true;
    made->scheme.view.tensor_count = made->base.tensor_count; /* all that is asked of it */
}
