/*
 * A small base in two schemes, written back in them with norms and scales that are made before the
 * first block: the same bytes with any number of threads, a clean error whichever call fails, and
 * an end wherever it is cancelled.
 *
 * usage: test_same
 */
#include "base/bytes.h"
#include "check.h"
#include "lorafold.h"
#include "pipeline/faults.h"
#include "pipeline/made_model.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CALLS_MAX 20000u
#define Q "model.layers.0.self_attn.q_proj"
#define DOWN "model.layers.0.mlp.down_proj"
#define PEFT "base_model.model."

struct stored {
    const char *name;
    const char *dtype;
    unsigned width; /* bytes of an element */
    uint64_t shape[2];
    unsigned shape_count;
};

/* A scale before its codes, and one behind. */
static const struct stored base_tensors[] = {
    { Q ".weight_scale_inv", "F32", 4, { 3, 2 }, 2 },
    { Q ".weight", "F8_E4M3", 1, { 300, 192 }, 2 },
    { DOWN ".weight", "I8", 1, { 160, 300 }, 2 },
    { DOWN ".SCB", "F32", 4, { 160 }, 1 },
    { "model.norm.weight", "BF16", 2, { 300 }, 1 },
};

static const struct stored factors[] = {
    { PEFT Q ".lora_A.weight", "F32", 4, { 3, 192 }, 2 },
    { PEFT Q ".lora_B.weight", "F32", 4, { 300, 3 }, 2 },
    { PEFT Q ".lora_magnitude_vector", "F32", 4, { 300 }, 1 },
    { PEFT DOWN ".lora_A.weight", "F32", 4, { 3, 300 }, 2 },
    { PEFT DOWN ".lora_B.weight", "F32", 4, { 160, 3 }, 2 },
    { PEFT DOWN ".lora_magnitude_vector", "F32", 4, { 160 }, 1 },
};

static char directory[64];
static struct lorafold_merge *running;

static char *path_of(const char *name)
{
    static char path[4][200];
    static unsigned next;

    next = (next + 1) % 4;
    snprintf(path[next], sizeof(path[next]), "%s/%s", directory, name);
    return path[next];
}

static uint64_t bytes_of(const struct stored *tensor)
{
    return tensor->width * tensor->shape[0] * (tensor->shape_count > 1 ? tensor->shape[1] : 1);
}

static void put_element(uint8_t *out, const struct stored *tensor, uint64_t *rng)
{
    uint32_t random = (uint32_t)made_random(rng);
    float value = (float)(1 + random % 1000) / 4096;

    if (tensor->width == 4)
        memcpy(out, &value, sizeof(value));
    else if (tensor->width == 2)
        memcpy(out, (uint8_t *)&value + 2, 2);
    else /* no NaN of E4M3 */
        *out = (uint8_t)((random & 0x7f) == 0x7f ? 0 : random);
}

static void write_text(const char *name, const char *text)
{
    FILE *file = fopen(path_of(name), "wb");

    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0, "cannot write %s", name);
}

static void write_tensors(const char *name, const struct stored *tensors, size_t count)
{
    uint64_t offset = 0, rng = 5;
    char header[4096] = "{";
    uint8_t prefix[8];
    FILE *file = fopen(path_of(name), "wb");

    for (size_t i = 0; i < count; i++) {
        size_t at = strlen(header);
        char second[32] = "";

        if (tensors[i].shape_count > 1)
            snprintf(second, sizeof(second), ",%llu", (unsigned long long)tensors[i].shape[1]);
        snprintf(header + at, sizeof(header) - at,
                 "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%llu%s],\"data_offsets\":[%llu,%llu]}",
                 i ? "," : "", tensors[i].name, tensors[i].dtype,
                 (unsigned long long)tensors[i].shape[0], second, (unsigned long long)offset,
                 (unsigned long long)(offset + bytes_of(&tensors[i])));
        offset += bytes_of(&tensors[i]);
    }
    strcat(header, "}");
    store_le64(prefix, strlen(header));
    CHECK(file && fwrite(prefix, 1, 8, file) == 8 && fputs(header, file) >= 0, "%s", name);
    for (size_t i = 0; i < count; i++) {
        for (uint64_t done = 0; done < bytes_of(&tensors[i]); done += tensors[i].width) {
            uint8_t element[4];

            put_element(element, &tensors[i], &rng);
            CHECK(fwrite(element, tensors[i].width, 1, file) == 1, "%s", name);
        }
    }
    CHECK(fclose(file) == 0, "%s", name);
}

static void write_model(void)
{
    CHECK(mkdir(path_of("base"), 0777) == 0 && mkdir(path_of("adapter"), 0777) == 0, "mkdir");
    write_text("base/config.json", "{\"model_type\": \"llama\", \"dtype\": \"bfloat16\"}");
    write_text("adapter/adapter_config.json",
               "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"use_dora\": true, "
               "\"target_modules\": [\"q_proj\", \"down_proj\"]}");
    write_tensors("base/model.safetensors", base_tensors,
                  sizeof(base_tensors) / sizeof(*base_tensors));
    write_tensors("adapter/adapter_model.safetensors", factors, sizeof(factors) / sizeof(*factors));
}

static int merge(const char *name, unsigned threads, struct lorafold_error *err)
{
    const struct lorafold_adapter adapter = { path_of("adapter"), 1.0 };
    struct lorafold_merge_options options;
    int status;

    lorafold_merge_options_init(&options);
    options.base = path_of("base");
    options.adapters = &adapter;
    options.adapter_count = 1;
    options.output = path_of(name);
    options.threads = threads;
    options.io_engine = "threads";
    options.save_method = LORAFOLD_SAME;
    running = NULL;
    status = lorafold_merge_open(&running, &options, err);
    if (!status)
        status = lorafold_merge_run(running, err);
    lorafold_merge_close(running);
    return status;
}

static bool exists(const char *name)
{
    struct stat st;

    return lstat(path_of(name), &st) == 0;
}

static void check_threads(void)
{
    struct lorafold_error err = { 0 };

    CHECK(merge("reference", 1, &err) == 0, "%s", err.text);
    for (unsigned threads = 2; threads < 6; threads++) {
        CHECK(merge("out", threads, &err) == 0, "%u threads: %s", threads, err.text);
        made_check_same(path_of("reference"), path_of("out"));
        made_remove(path_of("out"));
    }
}

/* What a merge that ended in the middle of something has left, or made. */
static void check_end(int status, const struct lorafold_error *err, const char *what,
                      unsigned number)
{
    if (status) {
        CHECK(err->text[0] && !strchr(err->text, '\n'), "%s %u: '%s'", what, number, err->text);
        CHECK(!exists("out"), "%s %u (%s): something is left", what, number, err->text);
    } else {
        remove(path_of("out/.lorafold-work")); /* it stays, spent, if its removal was the fault */
        made_check_same(path_of("reference"), path_of("out"));
    }
    made_remove(path_of("out.partial")); /* a removal that failed is a fault too */
    made_remove(path_of("out"));
}

static void check_faults(enum fault_kind kind)
{
    unsigned number = 0;
    int reached, status;

    do {
        struct lorafold_error err = { 0 };

        number += 1 + number / 50;
        fault_arm(kind, number);
        status = merge("out", 3, &err);
        reached = fault_disarm();
        CHECK(reached || status == 0, "%s %u: not reached, but %s", fault_names[kind], number,
              err.text);
        CHECK(status >= 0 && status <= LORAFOLD_MISMATCH, "code %d", status);
        check_end(status, &err, fault_names[kind], number);
    } while (reached && number < CALLS_MAX);
    printf("%s: of %u calls one failed in turn\n", fault_names[kind], number - 1);
    CHECK(number > 1 && number < CALLS_MAX, "%s: %u calls", fault_names[kind], number);
}

static void cancel(void)
{
    if (running)
        lorafold_merge_cancel(running);
}

/* At every read, of which nearly all come before the first block. */
static void check_cancelled(void)
{
    unsigned number = 0, cancelled = 0;
    int reached, status;

    do {
        struct lorafold_error err = { 0 };

        number += 1 + number / 50;
        fault_call(FAULT_READ, number, cancel);
        status = merge("out", 3, &err);
        reached = fault_disarm();
        CHECK(status == 0 || status == LORAFOLD_CANCELLED, "read %u: %d, %s", number, status,
              err.text);
        cancelled += status != 0;
        check_end(status, &err, "cancelled at read", number);
    } while (reached && number < CALLS_MAX);
    printf("cancelled at %u of %u reads\n", cancelled, number - 1);
    CHECK(cancelled > 20, "cancelled at %u reads only", cancelled);
}

int main(void)
{
    if (chdir("/dev/shm") < 0) /* thousands of merges that sync: memory is the place */
        printf("no /dev/shm: this takes longer\n");
    made_directory(directory, sizeof(directory));
    write_model();
    check_threads();
    check_cancelled();
    for (int kind = 0; kind < FAULT_KINDS; kind++)
        check_faults((enum fault_kind)kind);
    made_remove(directory);
    return 0;
}
