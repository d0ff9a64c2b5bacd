/*
 * make_model.c - synthetic Llama-shaped bases and adapters of any size, made at disk speed
 *
 * For measurements and demonstrations: valid files, finite random weights, no meaning.  The values
 * come from one table of random numbers that is written again and again from random places in it.
 * With --sparse the weights are holes, so that a base of any size costs no disk.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "base/bytes.h"
#include "base/dtype.h"
#include "base/text.h"
#include "format/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES (4 * MIB) /* of one write */
#define TABLE_ELEMENTS (UINT64_C(1) << 19)
#define RUN_ELEMENTS (TABLE_ELEMENTS / 2) /* copied from one place of the table */
#define NAME_BYTES 160u
#define EXPERTS 100u /* of a layer in a base of many tiny tensors */

struct shape {
    uint64_t layers, hidden, intermediate, vocab, kv_hidden, shards;
    bool tied;
};

struct options {
    const char *base;    /* directory; also what the adapter names */
    const char *adapter; /* directory or NULL */
    struct shape shape;
    uint64_t tiny_tensors; /* 0: a Llama */
    uint64_t rank;
    uint64_t seed;
    enum dtype dtype;
    bool query_value_only;
    bool sparse;
    bool adapter_only;
};

struct tensor {
    char name[NAME_BYTES];
    uint64_t shape[2];
    unsigned shape_count;
    uint64_t bytes;
};

struct tensors {
    struct tensor *items;
    size_t count, capacity;
};

static const char usage[] =
    "usage: make_model BASE_DIR [--preset 1b|2b|8b|70b] [--layers N] [--hidden H]\n"
    "                  [--intermediate I] [--vocab V] [--kv-hidden K] [--tied] [--shards S]\n"
    "                  [--dtype bf16|f16|f32] [--tensors N] [--seed N] [--sparse]\n"
    "                  [--adapter DIR [--rank R] [--targets all|qv] [--adapter-only]]\n"
    "A preset sets the sizes; options behind it change them.  --tensors N makes N tiny tensors\n"
    "instead.  --adapter-only leaves the base as it is and adds an adapter of the same shape.\n";

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
    va_list args;

    fputs("make_model: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

/* ---- random weights ---- */

static uint64_t random_state;

static uint64_t random_next(void)
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Nearly Gaussian with the spread of a trained weight: a sum of four uniform numbers. */
static float random_weight(void)
{
    uint64_t bits = random_next();
    float sum = 0.0f;

    for (unsigned i = 0; i < 4; i++)
        sum += (float)(bits >> (16 * i) & 0xffff) / 65536.0f - 0.5f;
    return 0.035f * sum;
}

/* Truncating is good enough to make values up; fp16 numbers too small to be normal become zero. */
static void store_element(uint8_t *dst, enum dtype dtype, float value)
{
    uint32_t bits;
    uint16_t half;

    memcpy(&bits, &value, sizeof(bits));
    if (dtype == DTYPE_F32) {
        memcpy(dst, &bits, sizeof(bits));
        return;
    }
    if (dtype == DTYPE_BF16)
        half = (uint16_t)(bits >> 16);
    else if (fabsf(value) < 0x1p-14f)
        half = 0;
    else
        half = (uint16_t)((bits >> 16 & 0x8000u) | ((bits & 0x7fffffffu) - 0x38000000u) >> 13);
    memcpy(dst, &half, sizeof(half));
}

/* Weights of matrices are around 0, those of norms around 1. */
static uint8_t *make_table(enum dtype dtype, float middle)
{
    size_t width = dtype_bytes(dtype);
    uint8_t *table = malloc(TABLE_ELEMENTS * width);

    if (!table)
        fail("out of memory");
    for (uint64_t i = 0; i < TABLE_ELEMENTS; i++)
        store_element(table + i * width, dtype, middle + random_weight());
    return table;
}

/* ---- lists of tensors ---- */

static void __attribute__((format(printf, 5, 6)))
add_tensor(struct tensors *list, enum dtype dtype, uint64_t rows, uint64_t cols, const char *format,
           ...)
{
    struct tensor *tensor;
    uint64_t elements;
    va_list args;

    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 512;
        list->items = realloc(list->items, list->capacity * sizeof(*list->items));
        if (!list->items)
            fail("out of memory");
    }
    tensor = &list->items[list->count++];
    tensor->shape_count = rows ? 2 : 1;
    tensor->shape[0] = rows ? rows : cols;
    tensor->shape[1] = cols;
    if (!mul_u64(rows ? rows : 1, cols, &elements) ||
        !mul_u64(elements, dtype_bytes(dtype), &tensor->bytes))
        fail("a tensor of %" PRIu64 " x %" PRIu64 " is too large", rows, cols);
    va_start(args, format);
    vsnprintf(tensor->name, sizeof(tensor->name), format, args);
    va_end(args);
}

static void list_llama(struct tensors *list, const struct shape *s, enum dtype dtype)
{
    add_tensor(list, dtype, s->vocab, s->hidden, "model.embed_tokens.weight");
    for (uint64_t i = 0; i < s->layers; i++) {
        char layer[40];

        snprintf(layer, sizeof(layer), "model.layers.%" PRIu64, i);
        add_tensor(list, dtype, 0, s->hidden, "%s.input_layernorm.weight", layer);
        add_tensor(list, dtype, s->hidden, s->intermediate, "%s.mlp.down_proj.weight", layer);
        add_tensor(list, dtype, s->intermediate, s->hidden, "%s.mlp.gate_proj.weight", layer);
        add_tensor(list, dtype, s->intermediate, s->hidden, "%s.mlp.up_proj.weight", layer);
        add_tensor(list, dtype, 0, s->hidden, "%s.post_attention_layernorm.weight", layer);
        add_tensor(list, dtype, s->kv_hidden, s->hidden, "%s.self_attn.k_proj.weight", layer);
        add_tensor(list, dtype, s->hidden, s->hidden, "%s.self_attn.o_proj.weight", layer);
        add_tensor(list, dtype, s->hidden, s->hidden, "%s.self_attn.q_proj.weight", layer);
        add_tensor(list, dtype, s->kv_hidden, s->hidden, "%s.self_attn.v_proj.weight", layer);
    }
    add_tensor(list, dtype, 0, s->hidden, "model.norm.weight");
    if (!s->tied)
        add_tensor(list, dtype, s->vocab, s->hidden, "lm_head.weight");
}

static void list_base(struct tensors *list, const struct options *o)
{
    if (!o->tiny_tensors) {
        list_llama(list, &o->shape, o->dtype);
        return;
    }
    for (uint64_t i = 0; i < o->tiny_tensors; i++)
        add_tensor(list, o->dtype, 8, 16,
                   "model.layers.%" PRIu64 ".mlp.experts.%" PRIu64 ".down_proj.weight", i / EXPERTS,
                   i % EXPERTS);
}

static bool is_target(const struct options *o, const struct tensor *tensor)
{
    if (o->tiny_tensors) /* "qv" of a base without q and v: the first layer */
        return !o->query_value_only || strstr(tensor->name, "model.layers.0.");
    if (o->query_value_only)
        return strstr(tensor->name, ".q_proj.") || strstr(tensor->name, ".v_proj.");
    return strstr(tensor->name, "_proj.") != NULL;
}

static int compare_tensors(const void *x, const void *y)
{
    return strcmp(((const struct tensor *)x)->name, ((const struct tensor *)y)->name);
}

/* Names and order as PEFT and the safetensors library write them. */
static void list_adapter(struct tensors *list, const struct options *o)
{
    struct tensors base = { 0 };

    list_base(&base, o);
    for (size_t i = 0; i < base.count; i++) {
        const struct tensor *target = &base.items[i];
        int module = (int)(strlen(target->name) - strlen(".weight"));

        if (!is_target(o, target))
            continue;
        add_tensor(list, DTYPE_F32, o->rank, target->shape[1],
                   "base_model.model.%.*s.lora_A.weight", module, target->name);
        add_tensor(list, DTYPE_F32, target->shape[0], o->rank,
                   "base_model.model.%.*s.lora_B.weight", module, target->name);
    }
    if (list->count)
        qsort(list->items, list->count, sizeof(*list->items), compare_tensors);
    free(base.items);
}

/* ---- one safetensors file ---- */

struct writer {
    const char *path;
    int fd;
    uint8_t *buffer; /* CHUNK_BYTES, page-aligned */
    size_t used;
    uint64_t bytes; /* of the file, buffered ones too */
};

static uint8_t *writer_memory(void)
{
    static uint8_t *memory;

    if (!memory) {
        memory = aligned_alloc(2 * MIB, CHUNK_BYTES);
        if (!memory)
            fail("out of memory");
        madvise(memory, CHUNK_BYTES, MADV_HUGEPAGE); /* a hint */
    }
    return memory;
}

/* Whole chunks go out by direct I/O where the file system knows it, else through the page cache. */
static void writer_open(struct writer *w, const char *path)
{
    *w = (struct writer){ .path = path, .buffer = writer_memory() };
    w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_DIRECT, 0644);
    if (w->fd < 0 && errno == EINVAL)
        w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (w->fd < 0)
        fail("cannot create '%s': %s", path, strerror(errno));
}

static void writer_flush(struct writer *w)
{
    uint64_t offset = w->bytes - w->used;
    size_t want = (size_t)align_up(w->used, PAGE_BYTES);
    size_t done = 0;

    memset(w->buffer + w->used, 0, want - w->used);
    while (done < want) {
        ssize_t got = pwrite(w->fd, w->buffer + done, want - done, (off_t)(offset + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EINVAL && (fcntl(w->fd, F_GETFL) & O_DIRECT)) {
            fcntl(w->fd, F_SETFL, fcntl(w->fd, F_GETFL) & ~O_DIRECT);
            continue;
        }
        if (got < 0)
            fail("cannot write '%s': %s", w->path, strerror(errno));
        done += (size_t)got;
    }
    w->used = 0;
}

static void writer_add(struct writer *w, const uint8_t *bytes, uint64_t count)
{
    while (count) {
        size_t part = (size_t)min_u64(count, CHUNK_BYTES - w->used);

        memcpy(w->buffer + w->used, bytes, part);
        w->used += part;
        w->bytes += part;
        bytes += part;
        count -= part;
        if (w->used == CHUNK_BYTES)
            writer_flush(w);
    }
}

static void writer_close(struct writer *w, uint64_t file_bytes)
{
    if (w->used)
        writer_flush(w);
    if (ftruncate(w->fd, (off_t)file_bytes) || close(w->fd))
        fail("cannot finish '%s': %s", w->path, strerror(errno));
}

static void write_weights(struct writer *w, const uint8_t *table, size_t width, uint64_t bytes)
{
    while (bytes) {
        uint64_t first = random_next() % (TABLE_ELEMENTS - RUN_ELEMENTS);
        uint64_t run = min_u64(bytes, RUN_ELEMENTS * width);

        writer_add(w, table + first * width, run);
        bytes -= run;
    }
}

static void write_file(const char *path, const struct tensor *tensors, size_t count,
                       enum dtype dtype, bool sparse)
{
    uint8_t *matrix = sparse ? NULL : make_table(dtype, 0.0f);
    uint8_t *norm = sparse ? NULL : make_table(dtype, 1.0f);
    struct text header = { 0 };
    struct writer writer;
    uint8_t prefix[ST_PREFIX_BYTES];
    uint64_t offset = 0;

    st_emit_begin(&header, NULL, 0);
    for (size_t i = 0; i < count; i++) {
        st_emit_tensor(&header, tensors[i].name, strlen(tensors[i].name), dtype, tensors[i].shape,
                       tensors[i].shape_count, offset, tensors[i].bytes);
        offset += tensors[i].bytes;
    }
    st_emit_end(&header, 0, 8);
    if (header.failed)
        fail("out of memory");
    store_le64(prefix, header.bytes);

    writer_open(&writer, path);
    writer_add(&writer, prefix, sizeof(prefix));
    writer_add(&writer, (const uint8_t *)header.data, header.bytes);
    for (size_t i = 0; i < count && !sparse; i++)
        write_weights(&writer, tensors[i].shape_count == 2 ? matrix : norm, dtype_bytes(dtype),
                      tensors[i].bytes);
    writer_close(&writer, sizeof(prefix) + header.bytes + offset);
    text_release(&header);
    free(matrix);
    free(norm);
}

/* ---- directories ---- */

static char *join(const char *directory, const char *name)
{
    struct text path = { 0 };
    char *joined;

    text_addf(&path, "%s/%s", directory, name);
    joined = text_take(&path);
    if (!joined)
        fail("out of memory");
    return joined;
}

static void write_text(const char *directory, const char *name, struct text *text)
{
    char *path = join(directory, name);
    FILE *file = fopen(path, "w");

    if (text->failed)
        fail("out of memory");
    if (!file || fwrite(text->data, 1, text->bytes, file) != text->bytes || fclose(file))
        fail("cannot write '%s': %s", path, strerror(errno));
    text_release(text);
    free(path);
}

static void make_directory(const char *path)
{
    if (mkdir(path, 0755) && errno != EEXIST)
        fail("cannot make '%s': %s", path, strerror(errno));
}

static const char *torch_dtype(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? "bfloat16" : dtype == DTYPE_F16 ? "float16" : "float32";
}

static void write_configs(const struct options *o)
{
    const struct shape *s = &o->shape;
    uint64_t head = 128;
    struct text text = { 0 };

    while (head > 64 && (s->hidden < 4096 || s->hidden % head || s->kv_hidden % head))
        head /= 2;
    while (head > 1 && (s->hidden % head || s->kv_hidden % head))
        head /= 2;
    text_adds(&text, "{\n  \"architectures\": [\n    \"LlamaForCausalLM\"\n  ],\n");
    text_adds(&text, "  \"attention_bias\": false,\n  \"bos_token_id\": 1,\n");
    text_addf(&text, "  \"dtype\": \"%s\",\n", torch_dtype(o->dtype));
    text_addf(&text, "  \"eos_token_id\": 2,\n  \"head_dim\": %" PRIu64 ",\n", head);
    text_adds(&text, "  \"hidden_act\": \"silu\",\n");
    text_addf(&text, "  \"hidden_size\": %" PRIu64 ",\n", s->hidden);
    text_addf(&text, "  \"intermediate_size\": %" PRIu64 ",\n", s->intermediate);
    text_adds(&text, "  \"max_position_embeddings\": 2048,\n  \"model_type\": \"llama\",\n");
    text_addf(&text, "  \"num_attention_heads\": %" PRIu64 ",\n", s->hidden / head);
    text_addf(&text, "  \"num_hidden_layers\": %" PRIu64 ",\n", s->layers);
    text_addf(&text, "  \"num_key_value_heads\": %" PRIu64 ",\n", s->kv_hidden / head);
    text_addf(&text, "  \"rms_norm_eps\": 1e-05,\n  \"tie_word_embeddings\": %s,\n",
              s->tied ? "true" : "false");
    text_addf(&text, "  \"vocab_size\": %" PRIu64 "\n}\n", s->vocab);
    write_text(o->base, "config.json", &text);
    text_adds(&text,
              "{\n  \"bos_token_id\": 1,\n  \"do_sample\": false,\n  \"eos_token_id\": 2\n}\n");
    write_text(o->base, "generation_config.json", &text);
}

static void shard_name(char *name, size_t bytes, uint64_t shard, uint64_t shards)
{
    if (shards == 1)
        snprintf(name, bytes, "model.safetensors");
    else
        snprintf(name, bytes, "model-%05" PRIu64 "-of-%05" PRIu64 ".safetensors", shard + 1,
                 shards);
}

/* ends[k] is one past the last tensor of shard k; shards of about the same size, none empty. */
static uint64_t cut_shards(const struct tensors *list, uint64_t wanted, size_t *ends,
                           uint64_t *total_bytes)
{
    uint64_t total = 0, before = 0, shards = 0;

    for (size_t i = 0; i < list->count; i++)
        total += list->items[i].bytes;
    for (size_t i = 0; i < list->count; i++) {
        before += list->items[i].bytes;
        if (i + 1 == list->count || before >= total / wanted * (shards + 1))
            ends[shards++] = i + 1;
        if (shards == wanted)
            ends[shards - 1] = list->count;
        if (shards && ends[shards - 1] == list->count)
            break;
    }
    *total_bytes = total;
    return shards;
}

static void write_base(const struct options *o)
{
    struct tensors list = { 0 };
    struct text index = { 0 };
    size_t *ends = calloc(o->shape.shards, sizeof(*ends));
    uint64_t shards, total_bytes;
    char name[64];

    list_base(&list, o);
    if (!ends)
        fail("out of memory");
    shards = cut_shards(&list, o->shape.shards, ends, &total_bytes);
    make_directory(o->base);
    text_addf(&index, "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64 "\n  },\n", total_bytes);
    text_adds(&index, "  \"weight_map\": {\n");
    for (uint64_t shard = 0; shard < shards; shard++) {
        size_t first = shard ? ends[shard - 1] : 0;
        char *path;

        shard_name(name, sizeof(name), shard, shards);
        path = join(o->base, name);
        write_file(path, list.items + first, ends[shard] - first, o->dtype, o->sparse);
        free(path);
        for (size_t i = first; i < ends[shard]; i++)
            text_addf(&index, "    \"%s\": \"%s\"%s\n", list.items[i].name, name,
                      i + 1 < list.count ? "," : "");
    }
    text_adds(&index, "  }\n}\n");
    if (shards > 1)
        write_text(o->base, "model.safetensors.index.json", &index);
    text_release(&index);
    write_configs(o);
    printf("%s: %zu tensors, %" PRIu64 " bytes, %" PRIu64 " files\n", o->base, list.count,
           total_bytes, shards);
    free(list.items);
    free(ends);
}

static void write_adapter(const struct options *o)
{
    static const char all[] = "\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", \"gate_proj\", "
                              "\"up_proj\", \"down_proj\"";
    struct tensors list = { 0 };
    struct text text = { 0 };
    char *path = join(o->adapter, "adapter_model.safetensors");

    list_adapter(&list, o);
    make_directory(o->adapter);
    write_file(path, list.items, list.count, DTYPE_F32, false);
    text_adds(&text, "{\n  \"auto_mapping\": null,\n  \"base_model_name_or_path\": ");
    text_add_json(&text, o->base, strlen(o->base));
    text_adds(&text, ",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n");
    text_adds(&text, "  \"inference_mode\": true,\n  \"init_lora_weights\": true,\n");
    text_addf(&text, "  \"lora_alpha\": %" PRIu64 ",\n  \"lora_dropout\": 0.0,\n", 2 * o->rank);
    text_addf(&text, "  \"peft_type\": \"LORA\",\n  \"r\": %" PRIu64 ",\n", o->rank);
    text_addf(&text, "  \"target_modules\": [%s],\n",
              o->tiny_tensors ? "\"down_proj\""
                              : (o->query_value_only ? "\"q_proj\", \"v_proj\"" : all));
    text_adds(&text, "  \"task_type\": \"CAUSAL_LM\",\n  \"use_dora\": false,\n"
                     "  \"use_rslora\": false\n}\n");
    write_text(o->adapter, "adapter_config.json", &text);
    printf("%s: %zu factors\n", o->adapter, list.count);
    free(list.items);
    free(path);
}

/* ---- options ---- */

static uint64_t parse_number(const char *option, const char *text, uint64_t max)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || value < 1 || value > max)
        fail("--%s '%s' is not in 1..%" PRIu64, option, text, max);
    return value;
}

static void set_preset(struct options *o, const char *name)
{
    static const struct {
        const char *name;
        struct shape shape;
    } presets[] = {
        { "1b", { 16, 2048, 8192, 128256, 512, 1, true } },
        { "2b", { 20, 2560, 8192, 32000, 640, 2, false } },
        { "8b", { 32, 4096, 14336, 128256, 1024, 4, false } },
        { "70b", { 80, 8192, 28672, 128256, 1024, 30, false } },
    };

    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
        if (!strcmp(name, presets[i].name)) {
            o->shape = presets[i].shape;
            return;
        }
    }
    fail("--preset '%s' is not 1b, 2b, 8b or 70b", name);
}

static void set_dtype(struct options *o, const char *name)
{
    if (!strcmp(name, "bf16"))
        o->dtype = DTYPE_BF16;
    else if (!strcmp(name, "f16"))
        o->dtype = DTYPE_F16;
    else if (!strcmp(name, "f32"))
        o->dtype = DTYPE_F32;
    else
        fail("--dtype '%s' is not bf16, f16 or f32", name);
}

static const struct option long_options[] = { { "preset", required_argument, NULL, 'p' },
                                              { "layers", required_argument, NULL, 'l' },
                                              { "hidden", required_argument, NULL, 'h' },
                                              { "intermediate", required_argument, NULL, 'i' },
                                              { "vocab", required_argument, NULL, 'v' },
                                              { "kv-hidden", required_argument, NULL, 'k' },
                                              { "shards", required_argument, NULL, 's' },
                                              { "dtype", required_argument, NULL, 'd' },
                                              { "tied", no_argument, NULL, 't' },
                                              { "tensors", required_argument, NULL, 'n' },
                                              { "seed", required_argument, NULL, 'e' },
                                              { "sparse", no_argument, NULL, 'z' },
                                              { "adapter", required_argument, NULL, 'a' },
                                              { "rank", required_argument, NULL, 'r' },
                                              { "targets", required_argument, NULL, 'q' },
                                              { "adapter-only", no_argument, NULL, 'o' },
                                              { NULL, 0, NULL, 0 } };

static void set_option(struct options *o, int letter, const char *name, const char *value)
{
    static const char letters[] = "lhivksnre";
    uint64_t *const numbers[] = { &o->shape.layers,
                                  &o->shape.hidden,
                                  &o->shape.intermediate,
                                  &o->shape.vocab,
                                  &o->shape.kv_hidden,
                                  &o->shape.shards,
                                  &o->tiny_tensors,
                                  &o->rank,
                                  &o->seed };
    const char *at = strchr(letters, letter);

    if (at)
        *numbers[at - letters] = parse_number(name, value, letter == 's' ? 99999 : 100000000);
    else if (letter == 'p')
        set_preset(o, value);
    else if (letter == 'd')
        set_dtype(o, value);
    else if (letter == 't')
        o->shape.tied = true;
    else if (letter == 'z')
        o->sparse = true;
    else if (letter == 'a')
        o->adapter = value;
    else if (letter == 'o')
        o->adapter_only = true;
    else if (strcmp(value, "all") && strcmp(value, "qv"))
        fail("--targets '%s' is not all or qv", value);
    else
        o->query_value_only = !strcmp(value, "qv");
}

int main(int argc, char **argv)
{
    struct options o = {
        .shape = { 2, 64, 176, 1000, 32, 1, false }, .rank = 16, .seed = 1, .dtype = DTYPE_BF16
    };
    int letter, index;

    while ((letter = getopt_long(argc, argv, "", long_options, &index)) != -1) {
        if (letter == '?') {
            fputs(usage, stderr);
            return 2;
        }
        set_option(&o, letter, long_options[index].name, optarg);
    }
    if (argc - optind != 1 || (o.adapter_only && !o.adapter)) {
        fputs(usage, stderr);
        return 2;
    }
    o.base = argv[optind];
    random_state = o.seed;
    if (!o.adapter_only)
        write_base(&o);
    random_state = o.seed ^ UINT64_C(0xada97e12);
    if (o.adapter)
        write_adapter(&o);
    return 0;
}
