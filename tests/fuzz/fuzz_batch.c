/*
 * Any bytes as the file of --jobs, and as the list in the directory for several outputs: what is
 * admitted has names that stay in that directory, each once, and adapters.
 */

#include "batch.h"
#include "fuzz/fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static char directory[] = "/tmp/lorafold-fuzz-XXXXXX";
static char path[sizeof(directory) + sizeof(BATCH_LIST_NAME)];

static void remove_all(void)
{
    unlink(path);
    rmdir(directory);
}

static void put(const uint8_t *data, size_t size)
{
    int fd;

    if (!path[0]) {
        FUZZ_CHECK(mkdtemp(directory));
        snprintf(path, sizeof(path), "%s/%s", directory, BATCH_LIST_NAME);
        atexit(remove_all);
    }
    fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666);
    FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
}

static void check_jobs(void)
{
    struct lorafold_merge_options options;
    struct lorafold_batch *batch = NULL;
    struct lorafold_error err = { 0 };
    struct error ignored = { 0 };
    int status;

    lorafold_merge_options_init(&options);
    FUZZ_CHECK(lorafold_batch_create(&batch, &options, 0, &err) == 0);
    status = lorafold_batch_add_jobs(batch, path, &err);
    FUZZ_CHECK(status == 0 ? batch->count > 0 : err.text[0] && err.code == (int)status);
    for (size_t i = 0; i < batch->count; i++) {
        const struct batch_output *output = &batch->outputs[i];

        FUZZ_CHECK(batch_check_name(output->name, &ignored) == 0);
        FUZZ_CHECK(output->options.adapter_count > 0);
        for (size_t k = 0; k < output->options.adapter_count; k++)
            FUZZ_CHECK(output->options.adapters[k].path[0]);
        for (size_t k = 0; k < output->options.skip_count; k++)
            FUZZ_CHECK(output->options.skip[k][0]);
        for (size_t k = 0; k < i; k++)
            FUZZ_CHECK(strcmp(output->name, batch->outputs[k].name) != 0);
    }
    lorafold_batch_close(batch);
}

static void check_list(void)
{
    struct batch_list list;
    struct error err = { 0 };
    int status = batch_list_read(&list, directory, &err);

    FUZZ_CHECK(status == 0 || (list.count == 0 && err.text[0]));
    for (size_t i = 0; i < list.count; i++) {
        FUZZ_CHECK(batch_check_name(list.items[i].name, &err) == 0);
        for (size_t k = 0; k < i; k++)
            FUZZ_CHECK(strcmp(list.items[i].name, list.items[k].name) != 0);
    }
    batch_list_release(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    put(data, size);
    check_jobs();
    check_list();
    return 0;
}
