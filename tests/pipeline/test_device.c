/*
 * What a device may do to a merge, on the simulated one: the n-th of its calls fails, for
 * every n, alone or with all behind it, as when it is lost; and a wait that is left out,
 * for every wait of a block: the bytes are then not those of the processor, which proves that these
 * tests would see such a mistake.
 *
 * usage: test_device [n]
 */
#include "check.h"
#include "lorafold.h"
#include "pipeline/made_model.h"

#include "gpu/gpu.h"
#include "merge.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CALLS_MAX 20000u

enum fault { FAULT_NONE, FAULT_ONE, FAULT_LOST, FAULT_NO_WAIT };

static enum fault fault;
static unsigned fault_number;
static atomic_uint calls; /* of the device; with FAULT_NO_WAIT waits alone */

static char base[600];
static char adapter_path[600];
static char output[600];
static char reference[600];

static bool fails(const char *name, struct error *err)
{
    unsigned number;

    if (fault == FAULT_NO_WAIT)
        return false;
    number = atomic_fetch_add(&calls, 1) + 1;
    if (fault == FAULT_NONE || number < fault_number ||
        (fault == FAULT_ONE && number > fault_number))
        return false;
    error_set(err, ERR_FAILED, "sim: %s failed: as the test asks", name);
    return true;
}

static int take(struct device *device, void **memory, size_t bytes, struct error *err)
{
    return fails("take", err) ? err->code : gpu_sim.take(device, memory, bytes, err);
}

static int take_pinned(struct device *device, void **host, size_t bytes, struct error *err)
{
    return fails("take_pinned", err) ? err->code : gpu_sim.take_pinned(device, host, bytes, err);
}

static bool pin(struct device *device, void *host, size_t bytes)
{
    struct error ignored = { 0 };

    return !fails("pin", &ignored) && gpu_sim.pin(device, host, bytes);
}

static int stream_of(struct device *device, struct device_stream **out, struct error *err)
{
    return fails("stream", err) ? err->code : gpu_sim.stream(device, out, err);
}

static int upload(struct device_stream *stream, void *memory, const void *host, size_t bytes,
                  struct error *err)
{
    return fails("upload", err) ? err->code : gpu_sim.upload(stream, memory, host, bytes, err);
}

static int download(struct device_stream *stream, void *host, const void *memory, size_t bytes,
                    struct error *err)
{
    return fails("download", err) ? err->code : gpu_sim.download(stream, host, memory, bytes, err);
}

static int run(struct device_stream *stream, const struct device_task *task, struct error *err)
{
    return fails("run", err) ? err->code : gpu_sim.run(stream, task, err);
}

static int mark(struct device_stream *stream, unsigned number, struct error *err)
{
    return fails("mark", err) ? err->code : gpu_sim.mark(stream, number, err);
}

static int wait_for(struct device_stream *stream, unsigned number, struct error *err)
{
    if (fault == FAULT_NO_WAIT && atomic_fetch_add(&calls, 1) + 1 == fault_number)
        return 0;
    return fails("wait", err) ? err->code : gpu_sim.wait(stream, number, err);
}

static struct device_ops watched;

static int merge(struct lorafold_error *err)
{
    const struct lorafold_adapter adapter = { adapter_path, 1.0 };
    struct lorafold_merge_options options = made_options(base, &adapter, output);
    struct lorafold_merge *job = NULL;
    int status;

    options.device = "sim";
    status = lorafold_merge_open(&job, &options, err);
    if (!status) {
        CHECK(job->machine.ops == &gpu_sim, "not simulated");
        job->machine.ops = &watched;
        status = lorafold_merge_run(job, err);
    }
    lorafold_merge_close(job);
    return status;
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static bool is_reference(void)
{
    char command[1400];

    snprintf(command, sizeof(command), "diff -r '%s' '%s' > /dev/null", reference, output);
    return system(command) == 0;
}

/* false once the fault lies behind the last call. */
static bool check_fault(enum fault kind, unsigned number)
{
    struct lorafold_error err = { 0 };
    char partial[700];
    bool reached;
    int status;

    snprintf(partial, sizeof(partial), "%s.partial", output);
    fault = kind;
    fault_number = number;
    atomic_store(&calls, 0);
    status = merge(&err);
    fault = FAULT_NONE;
    reached = atomic_load(&calls) >= number;
    if (status == 0) { /* a call that is not fatal: what cannot be pinned is slow */
        CHECK(is_reference(), "call %u of the device failed, and the bytes are others", number);
    } else {
        CHECK(status == LORAFOLD_FAILED, "code %d", status);
        CHECK(strstr(err.text, "sim: ") && strstr(err.text, " failed"), "'%s'", err.text);
        CHECK(!exists(output) && !exists(partial), "call %u: something is left", number);
    }
    made_remove(output);
    return reached;
}

static void check_faults(enum fault kind, const char *name)
{
    unsigned number = 1;

    while (number < CALLS_MAX && check_fault(kind, number))
        number++;
    printf("%s: of %u calls one failed in turn\n", name, number - 1);
    CHECK(number > 40 && number < CALLS_MAX, "%u calls", number);
}

/* Where in a block a call fails is said. */
static void check_sentence(void)
{
    struct lorafold_error err = { 0 };
    bool found = false;

    for (unsigned number = 1; number < 80 && !found; number++) {
        fault = FAULT_LOST;
        fault_number = number;
        atomic_store(&calls, 0);
        (void)merge(&err);
        fault = FAULT_NONE;
        found = strstr(err.text, "tensor '") && strstr(err.text, "', block ") &&
                strstr(err.text, ": sim: run failed");
        made_remove(output);
    }
    CHECK(found, "no error names tensor, block, device and call; the last: %s", err.text);
}

static void check_removed_waits(void)
{
    const unsigned of_opening = 2; /* one for each lane: nothing is read of what they wait for */
    struct lorafold_error err = { 0 };
    unsigned waits;

    fault = FAULT_NO_WAIT;
    fault_number = CALLS_MAX;
    atomic_store(&calls, 0);
    CHECK(merge(&err) == 0 && is_reference(), "%s", err.text);
    waits = atomic_load(&calls);
    made_remove(output);
    CHECK(waits > of_opening + 2, "%u waits", waits);
    for (unsigned number = of_opening + 1; number <= waits; number++) {
        char partial[700];

        fault_number = number;
        atomic_store(&calls, 0);
        CHECK(merge(&err) != 0 || !is_reference(), "nobody sees that wait %u was left out", number);
        made_remove(output);
        snprintf(partial, sizeof(partial), "%s.partial", output);
        made_remove(partial);
    }
    fault = FAULT_NONE;
    printf("%u waits were left out in turn\n", waits - of_opening);
}

int main(int argc, char **argv)
{
    struct made_model model = { 0 };
    struct lorafold_error err = { 0 };

    watched = gpu_sim;
    watched.take = take;
    watched.take_pinned = take_pinned;
    watched.pin = pin;
    watched.stream = stream_of;
    watched.upload = upload;
    watched.download = download;
    watched.run = run;
    watched.mark = mark;
    watched.wait = wait_for;
    if (chdir("/dev/shm") < 0) /* hundreds of merges that sync: memory is the place */
        printf("no /dev/shm: this takes longer\n");
    made_directory(model.directory, sizeof(model.directory));
    made_small(&model);
    made_write(&model);
    snprintf(base, sizeof(base), "%s/base", model.directory);
    snprintf(adapter_path, sizeof(adapter_path), "%s/adapter", model.directory);
    snprintf(output, sizeof(output), "%s/out", model.directory);
    snprintf(reference, sizeof(reference), "%s/reference", model.directory);
    CHECK(merge(&err) == 0, "%s", err.text);
    CHECK(rename(output, reference) == 0, "%s", reference);
    made_check(&model, reference, false, DTYPE_BF16);
    if (argc > 1) {
        check_fault(FAULT_ONE, (unsigned)atoi(argv[1]));
    } else {
        check_faults(FAULT_ONE, "one call");
        check_faults(FAULT_LOST, "lost device");
        check_sentence();
        check_removed_waits();
    }
    made_remove(model.directory);
    made_release(&model);
    return 0;
}
