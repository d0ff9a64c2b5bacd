/*
 * The golden cases without Python: each tests/golden/CASE is merged with its
 * arguments, and every tensor must have the bytes of expected.safetensors, which
 * make_golden.py computed by the definition of docs/NUMERICS.md.
 */
#include "check.h"
#include "format/model.h"
#include "lorafold.h"
#include "pipeline/made_model.h"

#include <dirent.h>
#include <string.h>

#define ADAPTERS_MAX 4

/* The arguments file holds "-a NAME[:WEIGHT]" for each adapter. */
static size_t read_adapters(const char *directory, struct lorafold_adapter *adapters,
                            char paths[ADAPTERS_MAX][900])
{
    char path[700];
    char word[128];
    size_t count = 0;
    FILE *file;

    snprintf(path, sizeof(path), "%s/arguments", directory);
    file = fopen(path, "r");
    CHECK(file, "%s", path);
    while (fscanf(file, "%127s", word) == 1) {
        char *colon = strchr(word, ':');

        if (strcmp(word, "-a") == 0)
            continue;
        CHECK(word[0] != '-' && count < ADAPTERS_MAX, "'%s' in %s", word, path);
        adapters[count].weight = colon ? strtod(colon + 1, NULL) : 1.0;
        if (colon)
            *colon = '\0';
        snprintf(paths[count], sizeof(paths[count]), "%s/%s", directory, word);
        adapters[count].path = paths[count];
        count++;
    }
    fclose(file);
    return count;
}

static void merge(const char *directory, const char *output, const char *kernels,
                  const char *device)
{
    struct lorafold_merge_options options;
    struct lorafold_adapter adapters[ADAPTERS_MAX];
    struct lorafold_merge *job = NULL;
    struct lorafold_error err = { 0 };
    char paths[ADAPTERS_MAX][900];
    char base[700];

    lorafold_merge_options_init(&options);
    snprintf(base, sizeof(base), "%s/base", directory);
    options.base = base;
    options.adapter_count = read_adapters(directory, adapters, paths);
    options.adapters = adapters;
    options.output = output;
    options.kernels = kernels;
    options.device = device;
    CHECK(lorafold_merge_open(&job, &options, &err) == 0, "%s", err.text);
    CHECK(lorafold_merge_run(job, &err) == 0, "%s", err.text);
    lorafold_merge_close(job);
}

static uint8_t *read_tensor(const struct model *model, struct model_ref ref)
{
    const struct st_tensor *tensor = model_tensor(model, ref);
    struct file file = FILE_CLOSED;
    struct error err = { 0 };
    uint8_t *bytes = malloc(tensor->data_bytes + 1);

    CHECK(bytes, "memory");
    CHECK(file_open_input(&file, model->shards[ref.shard].path, FILE_DIRECT_OFF, &err) == 0, "%s",
          err.text);
    CHECK(tensor->data_bytes == 0 ||
              file_pread(&file, bytes, tensor->data_bytes,
                         model_header(model, ref)->data_start + tensor->data_offset, &err) == 0,
          "%s", err.text);
    file_close(&file);
    return bytes;
}

static void compare(const char *expected_path, const char *output)
{
    struct model expected = { 0 };
    struct model actual = { 0 };
    struct error err = { 0 };

    CHECK(model_open(&expected, expected_path, NULL, &err) == 0, "%s", err.text);
    CHECK(model_open(&actual, output, NULL, &err) == 0, "%s", err.text);
    CHECK(expected.tensor_count == actual.tensor_count && expected.tensor_count > 0, "tensors");
    for (uint32_t t = 0; t < expected.shards[0].header.tensor_count; t++) {
        struct model_ref want = { 0, t };
        struct model_ref have;
        const struct st_tensor *tensor = model_tensor(&expected, want);
        const char *name = st_name(model_header(&expected, want), tensor);
        uint8_t *one;
        uint8_t *other;

        CHECK(model_find(&actual, name, tensor->name_bytes, &have), "%s", name);
        CHECK(model_tensor(&actual, have)->data_bytes == tensor->data_bytes, "%s", name);
        one = read_tensor(&expected, want);
        other = read_tensor(&actual, have);
        CHECK(memcmp(one, other, tensor->data_bytes) == 0, "%s of %s differs", name, output);
        free(one);
        free(other);
    }
    model_release(&expected);
    model_release(&actual);
}

static void check_case(const char *name, const char *scratch)
{
    static const char *const kernels[] = { NULL, "scalar", NULL };
    static const char *const devices[] = { "cpu", "cpu", "sim" };
    char directory[600];
    char expected[700];
    char output[600];

    snprintf(directory, sizeof(directory), "%s/tests/golden/%s", SOURCE_DIR, name);
    snprintf(expected, sizeof(expected), "%s/expected.safetensors", directory);
    for (size_t i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++) {
        snprintf(output, sizeof(output), "%s/%s-%zu", scratch, name, i);
        merge(directory, output, kernels[i], devices[i]);
        compare(expected, output);
    }
    printf("%s: as expected\n", name);
}

int main(void)
{
    DIR *dir = opendir(SOURCE_DIR "/tests/golden");
    struct dirent *entry;
    char scratch[64];
    int count = 0;

    CHECK(dir, "tests/golden");
    made_directory(scratch, sizeof(scratch));
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.' || strchr(entry->d_name, '.') ||
            strcmp(entry->d_name, "__pycache__") == 0 || strcmp(entry->d_name, "torch") == 0 ||
            strcmp(entry->d_name, "quant") == 0 || strcmp(entry->d_name, "encode") == 0)
            continue;
        check_case(entry->d_name, scratch);
        count++;
    }
    closedir(dir);
    made_remove(scratch);
    CHECK(count > 0, "there are no cases");
    return 0;
}
