/*
 * Inputs that change between the plan and the end of the merge: an error that
 * names the file and may be retried, and nothing is left of the output.
 */
#include "check.h"
#include "lorafold.h"
#include "pipeline/made_model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BASE_FILE "base/model.safetensors"
#define ADAPTER_FILE "adapter/adapter_model.safetensors"

struct change {
    const char *file; /* below the directory of the model */
    int (*make)(const char *path);
    const char *sentence;
};

static int cut(const char *path)
{
    return truncate(path, 1500);
}

static int touch(const char *path)
{
    const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1 } };

    return utimensat(AT_FDCWD, path, times, 0);
}

static const struct change changes[] = {
    { BASE_FILE, unlink, "No such file" },
    { BASE_FILE, cut, "became shorter while it was read" },
    { BASE_FILE, touch, "was written or changed while it was read" },
    { ADAPTER_FILE, unlink, "No such file" },
    { ADAPTER_FILE, cut, "are wanted, but the file ends at 1500" },
    { ADAPTER_FILE, touch, "was written or changed while it was read" },
};

static void check_change(const struct change *change)
{
    struct made_model model = { .shard_count = 1, .scale = 0.5f };
    struct lorafold_adapter adapter = { .weight = 1.0 };
    struct lorafold_merge_options options;
    struct lorafold_merge *job = NULL;
    struct lorafold_error err = { 0 };
    uint64_t rng = 1;
    char base[600], path[600], output[600], changed[600], partial[700];

    made_directory(model.directory, sizeof(model.directory));
    made_add(&model, &rng, "layers.0.proj.weight", DTYPE_BF16, 2, (uint64_t[]){ 90, 70 }, 0, 4,
             DTYPE_BF16);
    made_write(&model);
    snprintf(base, sizeof(base), "%s/base", model.directory);
    snprintf(path, sizeof(path), "%s/adapter", model.directory);
    snprintf(output, sizeof(output), "%s/out", model.directory);
    snprintf(partial, sizeof(partial), "%s.partial", output);
    snprintf(changed, sizeof(changed), "%s/%s", model.directory, change->file);
    adapter.path = path;
    lorafold_merge_options_init(&options);
    options.base = base;
    options.adapters = &adapter;
    options.adapter_count = 1;
    options.output = output;

    CHECK(lorafold_merge_open(&job, &options, &err) == 0, "%s", err.text);
    CHECK(change->make(changed) == 0, "%s: %s", changed, strerror(errno));
    CHECK(lorafold_merge_run(job, &err) == LORAFOLD_FAILED, "%s: '%s'", change->file, err.text);
    CHECK(strstr(err.text, changed) && strstr(err.text, change->sentence), "'%s' lacks '%s'",
          err.text, change->sentence);
    CHECK(access(output, F_OK) < 0 && access(partial, F_OK) < 0, "something is left of the output");
    lorafold_merge_close(job);
    made_remove(model.directory);
    made_release(&model);
}

int main(void)
{
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
        check_change(&changes[i]);
    printf("%zu changes\n", sizeof(changes) / sizeof(changes[0]));
    return 0;
}
