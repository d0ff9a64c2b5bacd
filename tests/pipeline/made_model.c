#include "pipeline/made_model.h"
#include "pipeline/made_torch.h"

#include "compute/fold.h"
#include "format/model.h"
#include "format/safetensors.h"

#include "check.h"
#include "io_temp.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

uint64_t made_random(uint64_t *state)
{
    return temp_random(state);
}

uint64_t made_random_in(uint64_t *state, uint64_t low, uint64_t high)
{
    return low + (made_random(state) >> 20) % (high - low + 1);
}

static float random_unit(uint64_t *state)
{
    return (float)(made_random(state) >> 40) / (1 << 23) - 1.0f;
}

/* Random bytes for dtypes we do not compute with, random values in [-1, 1) for the others. */
static void fill(struct made_tensor *tensor, uint64_t *rng)
{
    uint64_t width = dtype_bits(tensor->dtype) / 8;

    if (!dtype_is_computed(tensor->dtype)) {
        for (uint64_t i = 0; i < tensor->bytes; i++)
            tensor->data[i] = (uint8_t)made_random(rng);
        return;
    }
    for (uint64_t i = 0; i < tensor->bytes / width; i++) {
        float value = random_unit(rng);

        fold_scalar.encode(tensor->data + i * width, tensor->dtype, &value, 1);
    }
}

/* Values that `dtype` holds exactly. */
static float *random_factor(uint64_t *rng, enum dtype dtype, uint64_t count)
{
    float *values = malloc(count * sizeof(*values) + 1);

    CHECK(values, "memory");
    for (uint64_t i = 0; i < count; i++) {
        uint8_t encoded[8];
        float value = random_unit(rng);

        fold_scalar.encode(encoded, dtype, &value, 1);
        fold_scalar.decode(&values[i], encoded, dtype, 1);
    }
    return values;
}

struct made_tensor *made_add(struct made_model *model, uint64_t *rng, const char *name,
                             enum dtype dtype, unsigned shape_count, const uint64_t *shape,
                             unsigned shard, uint32_t rank, enum dtype factor_dtype)
{
    struct made_tensor *tensor = &model->tensors[model->tensor_count++];
    uint64_t count = 1;

    CHECK(model->tensor_count <= MADE_TENSORS_MAX, "too many tensors");
    memset(tensor, 0, sizeof(*tensor));
    snprintf(tensor->name, sizeof(tensor->name), "%s", name);
    tensor->dtype = dtype;
    tensor->shape_count = shape_count;
    for (unsigned i = 0; i < shape_count; i++) {
        tensor->shape[i] = shape[i];
        count *= shape[i];
    }
    tensor->bytes = count * dtype_bits(dtype) / 8;
    tensor->data = malloc(tensor->bytes + 1);
    CHECK(tensor->data, "memory");
    tensor->shard = shard;
    fill(tensor, rng);
    if (rank) {
        tensor->rank = rank;
        tensor->factor_dtype = factor_dtype;
        tensor->a = random_factor(rng, factor_dtype, rank * shape[1]);
        tensor->b = random_factor(rng, factor_dtype, rank * shape[0]);
    }
    return tensor;
}

void made_release(struct made_model *model)
{
    for (unsigned i = 0; i < model->tensor_count; i++) {
        free(model->tensors[i].data);
        free(model->tensors[i].a);
        free(model->tensors[i].b);
    }
    model->tensor_count = 0;
}

static FILE *create(const char *directory, const char *name)
{
    char path[1024];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    file = fopen(path, "wb");
    CHECK(file, "%s", path);
    return file;
}

static void write_text(const char *directory, const char *name, const char *text)
{
    FILE *file = create(directory, name);

    fputs(text, file);
    CHECK(fclose(file) == 0, "%s", name);
}

static void write_prefix(FILE *file, const struct text *json)
{
    uint64_t bytes = json->bytes;
    uint8_t prefix[8];

    for (int i = 0; i < 8; i++)
        prefix[i] = (uint8_t)(bytes >> (8 * i));
    fwrite(prefix, 1, 8, file);
    fwrite(json->data, 1, json->bytes, file);
}

static void shard_name(const struct made_model *model, unsigned shard, char *out, size_t bytes)
{
    if (model->shard_count == 1)
        snprintf(out, bytes, "model.safetensors");
    else
        snprintf(out, bytes, "model-%05u-of-%05u.safetensors", shard + 1, model->shard_count);
}

static void emit_header(const struct made_model *model, unsigned shard, struct text *json)
{
    uint64_t offset = 0;

    st_emit_begin(json, NULL, 0);
    for (unsigned i = 0; i < model->tensor_count; i++) {
        const struct made_tensor *tensor = &model->tensors[i];

        if (tensor->shard != shard)
            continue;
        st_emit_tensor(json, tensor->name, strlen(tensor->name), tensor->dtype, tensor->shape,
                       tensor->shape_count, offset, tensor->bytes);
        offset += tensor->bytes;
    }
    st_emit_end(json, 0, 8);
}

unsigned made_spaces_to(const struct made_model *model, unsigned shard, unsigned alignment)
{
    struct text json = { 0 };
    size_t bytes;

    emit_header(model, shard, &json);
    bytes = ST_PREFIX_BYTES + json.bytes;
    text_release(&json);
    return (unsigned)((alignment - bytes % alignment) % alignment);
}

static void write_shard(const struct made_model *model, unsigned shard, const char *directory)
{
    struct text json = { 0 };
    char name[64];
    FILE *file;

    emit_header(model, shard, &json);
    for (unsigned i = 0; i < model->header_spaces[shard]; i++)
        text_add(&json, " ", 1);
    shard_name(model, shard, name, sizeof(name));
    file = create(directory, name);
    write_prefix(file, &json);
    for (unsigned i = 0; i < model->tensor_count; i++) {
        if (model->tensors[i].shard == shard)
            fwrite(model->tensors[i].data, 1, model->tensors[i].bytes, file);
    }
    CHECK(fclose(file) == 0, "%s", name);
    text_release(&json);
}

static void write_index(const struct made_model *model, const char *directory)
{
    struct text text = { 0 };
    char name[64];

    if (model->shard_count == 1)
        return;
    text_adds(&text, "{\"metadata\":{},\"weight_map\":{");
    for (unsigned i = 0; i < model->tensor_count; i++) {
        shard_name(model, model->tensors[i].shard, name, sizeof(name));
        text_addf(&text, "%s\"%s\":\"%s\"", i ? "," : "", model->tensors[i].name, name);
    }
    text_adds(&text, "}}");
    write_text(directory, "model.safetensors.index.json", text.data);
    text_release(&text);
}

static void write_factor(FILE *file, const float *values, uint64_t count, enum dtype dtype)
{
    for (uint64_t i = 0; i < count; i++) {
        uint8_t encoded[8];

        fold_scalar.encode(encoded, dtype, &values[i], 1);
        fwrite(encoded, 1, dtype_bytes(dtype), file);
    }
}

/* Module name of a target: without ".weight". */
static int module_bytes(const struct made_tensor *tensor)
{
    return (int)strlen(tensor->name) - 7;
}

static void write_adapter_config(const struct made_model *model, const char *directory)
{
    struct text text = { 0 };
    const char *comma = "";

    text_adds(&text, "{\"peft_type\":\"LORA\",\"r\":8,\"lora_alpha\":4,\"target_modules\":\".*\","
                     "\"rank_pattern\":{");
    for (unsigned i = 0; i < model->tensor_count; i++) {
        const struct made_tensor *tensor = &model->tensors[i];

        if (!tensor->rank)
            continue;
        text_addf(&text, "%s\"^%.*s\":%u", comma, module_bytes(tensor), tensor->name, tensor->rank);
        comma = ",";
    }
    comma = "";
    text_adds(&text, "},\"alpha_pattern\":{");
    for (unsigned i = 0; i < model->tensor_count; i++) {
        const struct made_tensor *tensor = &model->tensors[i];

        if (!tensor->rank)
            continue;
        text_addf(&text, "%s\"^%.*s\":%.9g", comma, module_bytes(tensor), tensor->name,
                  (double)tensor->rank * model->scale);
        comma = ",";
    }
    text_adds(&text, "}}");
    write_text(directory, "adapter_config.json", text.data);
    text_release(&text);
}

static void write_adapter(const struct made_model *model, const char *directory)
{
    struct text json = { 0 };
    uint64_t offset = 0;
    FILE *file;

    st_emit_begin(&json, NULL, 0);
    for (unsigned i = 0; i < model->tensor_count; i++) {
        const struct made_tensor *tensor = &model->tensors[i];
        uint64_t shape_a[2] = { tensor->rank, tensor->shape[1] };
        uint64_t shape_b[2] = { tensor->shape[0], tensor->rank };
        uint64_t width = dtype_bytes(tensor->factor_dtype);
        char name[160];

        if (!tensor->rank)
            continue;
        snprintf(name, sizeof(name), "base_model.model.%.*s.lora_A.weight", module_bytes(tensor),
                 tensor->name);
        st_emit_tensor(&json, name, strlen(name), tensor->factor_dtype, shape_a, 2, offset,
                       shape_a[0] * shape_a[1] * width);
        offset += shape_a[0] * shape_a[1] * width;
        snprintf(name, sizeof(name), "base_model.model.%.*s.lora_B.weight", module_bytes(tensor),
                 tensor->name);
        st_emit_tensor(&json, name, strlen(name), tensor->factor_dtype, shape_b, 2, offset,
                       shape_b[0] * shape_b[1] * width);
        offset += shape_b[0] * shape_b[1] * width;
    }
    st_emit_end(&json, 0, 8);
    file = create(directory, "adapter_model.safetensors");
    write_prefix(file, &json);
    for (unsigned i = 0; i < model->tensor_count; i++) {
        const struct made_tensor *tensor = &model->tensors[i];

        if (!tensor->rank)
            continue;
        write_factor(file, tensor->a, tensor->rank * tensor->shape[1], tensor->factor_dtype);
        write_factor(file, tensor->b, tensor->rank * tensor->shape[0], tensor->factor_dtype);
    }
    CHECK(fclose(file) == 0, "adapter");
    text_release(&json);
}

void made_write(const struct made_model *model)
{
    char path[600];

    snprintf(path, sizeof(path), "%s/base", model->directory);
    CHECK(mkdir(path, 0777) == 0, "%s", path);
    for (unsigned i = 0; i < model->shard_count; i++)
        write_shard(model, i, path);
    write_index(model, path);
    write_text(path, "config.json", "{\"model_type\": \"llama\"}\n");
    snprintf(path, sizeof(path), "%s/adapter", model->directory);
    CHECK(mkdir(path, 0777) == 0, "%s", path);
    write_adapter_config(model, path);
    write_adapter(model, path);
}

/* The bytes that a tensor must have, by the scalar definition; the caller frees. */
static uint8_t *expected_bytes(const struct made_model *model, const struct made_tensor *tensor,
                               bool convert, enum dtype dtype, enum dtype *dtype_out,
                               uint64_t *bytes)
{
    struct fold_delta delta = { .rank = tensor->rank, .scale = model->scale, .b = tensor->b };
    uint64_t width = dtype_bits(tensor->dtype) / 8;
    uint64_t count = tensor->bytes / width;
    struct fold_segment segment = { .src = tensor->data,
                                    .src_dtype = tensor->dtype,
                                    .cols = tensor->shape_count == 2 && tensor->shape[1]
                                                ? tensor->shape[1]
                                                : count,
                                    .count = count,
                                    .deltas = &delta,
                                    .delta_count = tensor->rank ? 1 : 0 };
    float *packed = NULL;
    uint8_t *out;

    *dtype_out = convert && dtype_is_computed(tensor->dtype) ? dtype : tensor->dtype;
    *bytes = count * dtype_bits(*dtype_out) / 8;
    out = malloc(*bytes + 1);
    CHECK(out, "memory");
    if (*dtype_out == tensor->dtype && !tensor->rank) {
        memcpy(out, tensor->data, tensor->bytes);
        return out;
    }
    if (tensor->rank) {
        packed = aligned_alloc(64, fold_packed_floats(tensor->rank, tensor->shape[1]) * 4);
        CHECK(packed, "memory");
        for (uint32_t k = 0; k < tensor->rank; k++)
            fold_pack_row(packed, tensor->rank, k, tensor->a + k * tensor->shape[1],
                          tensor->shape[1]);
        delta.a = packed;
    }
    segment.dst = out;
    segment.dst_dtype = *dtype_out;
    if (count)
        fold_scalar.fold(&segment);
    free(packed);
    return out;
}

static void check_tensor(const struct made_model *model, const struct made_tensor *tensor,
                         const struct model *output, bool convert, enum dtype dtype)
{
    struct error err = { 0 };
    struct file file = FILE_CLOSED;
    struct model_ref ref;
    enum dtype dtype_out;
    uint64_t bytes;
    uint8_t *expected = expected_bytes(model, tensor, convert, dtype, &dtype_out, &bytes);
    uint8_t *actual = malloc(bytes + 1);
    const struct st_header *header;
    const struct st_tensor *found;

    CHECK(model_find(output, tensor->name, strlen(tensor->name), &ref), "%s is missing",
          tensor->name);
    header = model_header(output, ref);
    found = model_tensor(output, ref);
    CHECK(found->dtype == dtype_out && found->data_bytes == bytes &&
              found->shape_count == tensor->shape_count,
          "%s: dtype, size or shape", tensor->name);
    CHECK(file_open_input(&file, output->shards[ref.shard].path, FILE_DIRECT_OFF, &err) == 0, "%s",
          err.text);
    CHECK(bytes == 0 ||
              file_pread(&file, actual, bytes, header->data_start + found->data_offset, &err) == 0,
          "%s", err.text);
    file_close(&file);
    for (uint64_t i = 0; i < bytes; i++)
        CHECK(actual[i] == expected[i], "%s: byte %llu of %llu is %02x, not %02x", tensor->name,
              (unsigned long long)i, (unsigned long long)bytes, actual[i], expected[i]);
    free(expected);
    free(actual);
}

void made_check(const struct made_model *model, const char *output, bool convert, enum dtype dtype)
{
    struct model opened = { 0 };

    made_open_output(&opened, output);
    CHECK(opened.tensor_count == model->tensor_count, "%zu tensors, not %u", opened.tensor_count,
          model->tensor_count);
    for (unsigned i = 0; i < model->tensor_count; i++)
        check_tensor(model, &model->tensors[i], &opened, convert, dtype);
    model_release(&opened);
}

void made_small(struct made_model *model)
{
    uint64_t rng = 7;

    model->shard_count = 2;
    model->scale = 0.5f;
    made_add(model, &rng, "a.weight", DTYPE_BF16, 2, (uint64_t[]){ 90, 70 }, 0, 3, DTYPE_F32);
    made_add(model, &rng, "b.weight", DTYPE_F32, 2, (uint64_t[]){ 50, 40 }, 1, 9, DTYPE_BF16);
    made_add(model, &rng, "c", DTYPE_I64, 1, (uint64_t[]){ 9 }, 1, 0, DTYPE_F32);
    made_add(model, &rng, "d.weight", DTYPE_F16, 2, (uint64_t[]){ 60, 80 }, 0, 2, DTYPE_F16);
}

struct lorafold_merge_options made_options(const char *base, const struct lorafold_adapter *adapter,
                                           const char *output)
{
    struct lorafold_merge_options options;

    lorafold_merge_options_init(&options);
    options.base = base;
    options.adapters = adapter;
    options.adapter_count = 1;
    options.output = output;
    options.threads = 2;
    options.max_shard_bytes = 20000;
    return options;
}

void made_check_same(const char *one, const char *other)
{
    char command[1400];

    snprintf(command, sizeof(command), "diff -r '%s' '%s'", one, other);
    CHECK(system(command) == 0, "%s", command);
}

void made_directory(char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "made-XXXXXX");
    CHECK(mkdtemp(out), "%s", out);
}

void made_remove(const char *directory)
{
    temp_remove_tree(directory);
}
