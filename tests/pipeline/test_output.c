/*
 * An output as a whole: lorafold_verify() on very many files, side files that
 * change under a merge, and what the configuration says of a head that was changed.
 */
#include "check.h"
#include "lorafold.h"
#include "pipeline/made_model.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static unsigned messages;

static void count_message(void *context, enum lorafold_level level, const char *sentence)
{
    (void)context;
    (void)level;
    (void)sentence;
    messages++;
}

static void open_job(struct lorafold_merge **job, const struct made_model *model,
                     const char *output)
{
    struct lorafold_merge_options options;
    struct lorafold_adapter adapter = { .weight = 1.0 };
    struct lorafold_error err = { 0 };
    char base[600];
    char path[600];

    snprintf(base, sizeof(base), "%s/base", model->directory);
    snprintf(path, sizeof(path), "%s/adapter", model->directory);
    adapter.path = path;
    lorafold_merge_options_init(&options);
    options.base = base;
    options.adapters = &adapter;
    options.adapter_count = 1;
    options.output = output;
    options.max_shard_bytes = 2000;
    CHECK(lorafold_merge_open(job, &options, &err) == 0, "%s", err.text);
}

static int verify(const char *output)
{
    struct lorafold_verify_options options;
    struct lorafold_error err = { 0 };
    int status;

    lorafold_verify_options_init(&options);
    options.message = count_message;
    messages = 0;
    status = lorafold_verify(output, &options, NULL, &err);
    printf("verify: %d %s\n", status, status ? err.text : "");
    return status;
}

static void change(const char *directory, const char *name, const char *bytes, off_t offset)
{
    char path[700];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    CHECK(fd >= 0, "%s", path);
    CHECK(pwrite(fd, bytes, strlen(bytes), offset) == (ssize_t)strlen(bytes), "%s", path);
    close(fd);
}

static void check_many_files(const char *output)
{
    struct rlimit before;
    struct rlimit few;
    char path[700];

    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0, "the limit of open files");
    few = before;
    few.rlim_cur = 32;
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0, "the limit of open files");
    CHECK(verify(output) == 0, "an output of %d files", MADE_TENSORS_MAX);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0, "the limit of open files");

    change(output, "model-00007-of-00064.safetensors", "?", 5000);
    snprintf(path, sizeof(path), "%s/model-00009-of-00064.safetensors", output);
    CHECK(truncate(path, 100) == 0, "%s", path);
    snprintf(path, sizeof(path), "%s/tokenizer.json", output);
    CHECK(unlink(path) == 0, "%s", path);
    CHECK(verify(output) == LORAFOLD_DIFFERENT, "three damaged files");
    CHECK(messages == 2, "%u messages beside the error, for three damaged files", messages);
}

static void check_changed_side_file(const struct made_model *model, const char *output)
{
    struct lorafold_merge *job = NULL;
    struct lorafold_error err = { 0 };
    char base[600];

    snprintf(base, sizeof(base), "%s/base", model->directory);
    open_job(&job, model, output);
    change(base, "tokenizer.json", "{\"longer\": true}", 0);
    CHECK(lorafold_merge_run(job, &err) == LORAFOLD_FAILED, "a changed side file is copied");
    CHECK(strstr(err.text, "tokenizer.json") && strstr(err.text, "changed"), "%s", err.text);
    lorafold_merge_close(job);
    CHECK(access(output, F_OK) < 0, "an output is left");
}

/* The adapter means to bring a tokenizer: the one of the base would be the wrong one. */
static void check_dangling_tokenizer(const struct made_model *model, const char *output)
{
    struct lorafold_merge_options options;
    struct lorafold_adapter adapter = { .weight = 1.0 };
    struct lorafold_merge *job = NULL;
    struct lorafold_error err = { 0 };
    char base[600];
    char path[600];
    char link[700];

    snprintf(base, sizeof(base), "%s/base", model->directory);
    snprintf(path, sizeof(path), "%s/adapter", model->directory);
    snprintf(link, sizeof(link), "%s/tokenizer.json", path);
    CHECK(symlink("nowhere", link) == 0, "%s", link);
    adapter.path = path;
    lorafold_merge_options_init(&options);
    options.base = base;
    options.adapters = &adapter;
    options.adapter_count = 1;
    options.output = output;
    CHECK(lorafold_merge_open(&job, &options, &err) == LORAFOLD_FORMAT,
          "a dangling link is passed");
    CHECK(strstr(err.text, "is a link"), "%s", err.text);
    unlink(link);
}

/* Levels that disagree: libraries differ in which one counts, so all must say untied. */
static void check_untied(void)
{
    static const char config[] = "{\"tie_word_embeddings\": false, \"text_config\": "
                                 "{\"tie_word_embeddings\": true}}";
    static const char wanted[] = "{\"tie_word_embeddings\": false, \"text_config\": "
                                 "{\"tie_word_embeddings\": false}}";
    struct made_model model = { .shard_count = 1, .scale = 0.5f };
    struct lorafold_merge *job = NULL;
    struct lorafold_error err = { 0 };
    char path[700];
    char got[200] = "";
    uint64_t rng = 6;
    FILE *file;

    made_directory(model.directory, sizeof(model.directory));
    made_add(&model, &rng, "model.embed_tokens.weight", DTYPE_BF16, 2, (uint64_t[]){ 40, 30 }, 0, 0,
             DTYPE_F32);
    made_add(&model, &rng, "lm_head.weight", DTYPE_BF16, 2, (uint64_t[]){ 40, 30 }, 0, 3,
             DTYPE_F32);
    made_write(&model);
    snprintf(path, sizeof(path), "%s/base", model.directory);
    change(path, "config.json", config, 0);
    snprintf(path, sizeof(path), "%s/out", model.directory);
    open_job(&job, &model, path);
    CHECK(lorafold_merge_run(job, &err) == 0, "%s", err.text);
    lorafold_merge_close(job);
    snprintf(path, sizeof(path), "%s/out/config.json", model.directory);
    file = fopen(path, "r");
    CHECK(file && fread(got, 1, sizeof(got) - 1, file) > 0, "%s", path);
    fclose(file);
    CHECK(strcmp(got, wanted) == 0, "%s", got);
    made_remove(model.directory);
    made_release(&model);
}

int main(void)
{
    struct made_model model = { .shard_count = 1, .scale = 0.5f };
    struct lorafold_merge *job = NULL;
    struct lorafold_error err = { 0 };
    char output[2][600];
    char base[600];
    uint64_t rng = 5;

    made_directory(model.directory, sizeof(model.directory));
    for (int i = 0; i < MADE_TENSORS_MAX; i++) {
        char name[32];

        snprintf(name, sizeof(name), "%d.weight", i);
        made_add(&model, &rng, name, DTYPE_F32, 2, (uint64_t[]){ 40, 30 }, 0, i ? 0 : 3, DTYPE_F32);
    }
    made_write(&model);
    snprintf(base, sizeof(base), "%s/base", model.directory);
    snprintf(output[0], sizeof(output[0]), "%s/first", model.directory);
    snprintf(output[1], sizeof(output[1]), "%s/second", model.directory);
    change(base, "tokenizer.json", "{}", 0);
    open_job(&job, &model, output[0]);
    CHECK(lorafold_merge_run(job, &err) == 0, "%s", err.text);
    lorafold_merge_close(job);
    check_untied();
    check_many_files(output[0]);
    check_changed_side_file(&model, output[1]);
    check_dangling_tokenizer(&model, output[1]);
    made_remove(model.directory);
    made_release(&model);
    return 0;
}
