#include "pipeline/made_kinds.h"

#include "check.h"
#include "pipeline/made_model.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define OUTPUTS 1100u /* with INPUTS in F32 a little more than a block */
#define INPUTS 1000u

static void write_base(const char *directory, uint64_t *rng)
{
    struct made_model base = { .shard_count = 1 };

    snprintf(base.directory, sizeof(base.directory), "%s", directory);
    made_add(&base, rng, "embed_tokens.weight", DTYPE_BF16, 2, (uint64_t[]){ 60, 40 }, 0, 0,
             DTYPE_F32);
    made_add(&base, rng, "up.weight", DTYPE_F32, 2, (uint64_t[]){ OUTPUTS, INPUTS }, 0, 0,
             DTYPE_F32);
    made_add(&base, rng, "norm.weight", DTYPE_BF16, 1, (uint64_t[]){ 40 }, 0, 0, DTYPE_F32);
    made_add(&base, rng, "tokens.weight", DTYPE_F16, 2, (uint64_t[]){ 30, 40 }, 0, 0, DTYPE_F32);
    made_add(&base, rng, "lm_head.weight", DTYPE_BF16, 2, (uint64_t[]){ 60, 40 }, 0, 0, DTYPE_F32);
    made_write(&base);
    made_release(&base);
}

/* A model whose tensors have the names of an adapter, with the files renamed. */
static void write_adapter(const char *directory, uint64_t *rng)
{
    static const struct {
        const char *name;
        unsigned shape_count;
        uint64_t shape[2];
    } tensors[] = { { "up.lora_A.weight", 2, { 4, INPUTS } },
                    { "up.lora_B.weight", 2, { OUTPUTS, 4 } },
                    { "up.lora_magnitude_vector", 1, { OUTPUTS } },
                    { "embed_tokens.lora_embedding_A", 2, { 4, 60 } },
                    { "embed_tokens.lora_embedding_B", 2, { 40, 4 } },
                    { "embed_tokens.lora_magnitude_vector", 1, { 40 } },
                    { "norm.weight", 1, { 40 } },
                    { "tokens.token_adapter.trainable_tokens_delta", 2, { 3, 40 } } };
    struct made_model adapter = { .shard_count = 1 };
    char path[2][700];
    FILE *file;

    snprintf(adapter.directory, sizeof(adapter.directory), "%.400s/kinds", directory);
    CHECK(mkdir(adapter.directory, 0777) == 0, "%s", adapter.directory);
    for (size_t i = 0; i < sizeof(tensors) / sizeof(tensors[0]); i++) {
        char name[64];

        snprintf(name, sizeof(name), "base_model.model.%s", tensors[i].name);
        made_add(&adapter, rng, name, DTYPE_F32, tensors[i].shape_count, tensors[i].shape, 0, 0,
                 DTYPE_F32);
    }
    made_write(&adapter);
    snprintf(path[0], sizeof(path[0]), "%s/base/model.safetensors", adapter.directory);
    snprintf(path[1], sizeof(path[1]), "%s/base/adapter_model.safetensors", adapter.directory);
    CHECK(rename(path[0], path[1]) == 0, "%s", path[1]);
    snprintf(path[0], sizeof(path[0]), "%s/base/config.json", adapter.directory);
    snprintf(path[1], sizeof(path[1]), "%s/base/adapter_config.json", adapter.directory);
    CHECK(rename(path[0], path[1]) == 0, "%s", path[1]);
    file = fopen(path[1], "w");
    CHECK(file, "%s", path[1]);
    fputs("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"use_dora\": true,"
          " \"target_modules\": [\"up\", \"embed_tokens\"], \"modules_to_save\": [\"norm\"],"
          " \"trainable_token_indices\": {\"tokens\": [4, 3, 9]}}",
          file);
    CHECK(fclose(file) == 0, "%s", path[1]);
    made_release(&adapter);
}

void made_kinds_write(const char *directory)
{
    uint64_t rng = 23;

    write_base(directory, &rng);
    write_adapter(directory, &rng);
}
