/*
 * Every allocation, read, write and other call of a batch fails in turn.  Whatever happens, each
 * output is there with the bytes that it has without a fault, or it is not there at all; and what
 * the batch says of it is true.
 *
 * usage: test_batch_faults [kind number]
 */
#include "check.h"
#include "pipeline/faults.h"
#include "pipeline/made_model.h"

#include "lorafold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OUTPUTS 3
#define NUMBER_MAX 5000u

static char base[600];
static char adapter_path[600];
static char output[600];
static char reference[600]; /* what a batch without a fault gave */

static const char *const names[OUTPUTS] = { "keep", "wide", "lora" };

static int add_all(struct lorafold_batch *batch, const struct lorafold_merge_options *common,
                   struct lorafold_error *err)
{
    for (int i = 0; i < OUTPUTS; i++) {
        struct lorafold_merge_options options = *common;

        options.dtype = i == 1 ? LORAFOLD_DTYPE_F32 : LORAFOLD_DTYPE_KEEP;
        options.save_method = i == 2 ? LORAFOLD_LORA : LORAFOLD_MERGED_16BIT;
        if (lorafold_batch_add(batch, names[i], &options, err))
            return err->code;
    }
    return 0;
}

static int run(const char *engine, enum lorafold_output_state states[OUTPUTS],
               struct lorafold_error *err)
{
    const struct lorafold_adapter adapter = { adapter_path, 1.0 };
    struct lorafold_merge_options options = made_options(base, &adapter, output);
    struct lorafold_batch *batch = NULL;
    int status;

    options.io_engine = engine;
    status = lorafold_batch_create(&batch, &options, 0, err);
    if (!status)
        status = add_all(batch, &options, err);
    if (!status)
        status = lorafold_batch_open(batch, err);
    if (!status)
        status = lorafold_batch_run(batch, err);
    for (size_t i = 0; batch && i < lorafold_batch_count(batch); i++) {
        struct lorafold_batch_output one;

        lorafold_batch_output(batch, i, &one);
        states[i] = one.state;
    }
    lorafold_batch_close(batch);
    return status;
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

/* One batch with one fault; false once the fault is behind the last call. */
static bool check_one(enum fault_kind kind, unsigned number, const char *engine,
                      unsigned *survivors)
{
    enum lorafold_output_state states[OUTPUTS] = { 0 };
    struct lorafold_error err = { 0 };
    bool reached;
    int status;

    fault_arm(kind, number);
    status = run(engine, states, &err);
    reached = fault_disarm();
    CHECK(reached || status == 0, "%s %u: not reached, but %s", fault_names[kind], number,
          err.text);
    CHECK(status >= 0 && status <= LORAFOLD_MISMATCH, "code %d", status);
    CHECK(!status || (err.text[0] && !strchr(err.text, '\n')), "sentence '%s'", err.text);
    for (int i = 0; i < OUTPUTS; i++) {
        char made[700], wanted[700], mark[800];

        snprintf(made, sizeof(made), "%s/%s", output, names[i]);
        snprintf(wanted, sizeof(wanted), "%s/%s", reference, names[i]);
        CHECK(exists(made) == (states[i] == LORAFOLD_OUTPUT_COMPLETE), "%s %u (%s): '%s' is %d",
              fault_names[kind], number, err.text, made, (int)states[i]);
        CHECK(status || exists(made), "%s %u: '%s' is not there", fault_names[kind], number, made);
        if (!exists(made))
            continue;
        snprintf(mark, sizeof(mark), "%s/.lorafold-work", made);
        remove(mark); /* it stays, spent, if its removal was the fault */
        made_check_same(wanted, made);
        *survivors += status != 0;
    }
    made_remove(output);
    return reached;
}

static void check_kind(enum fault_kind kind, const char *engine)
{
    unsigned survivors = 0;
    unsigned number = 1;

    while (number < NUMBER_MAX && check_one(kind, number, engine, &survivors))
        number++;
    printf("%s, %s: of %u calls one failed in turn, %u outputs were made beside one that failed\n",
           fault_names[kind], engine, number - 1, survivors);
    fflush(stdout);
    CHECK(number > 1, "no call of this kind was made");
    CHECK(number < NUMBER_MAX, "there is no end");
    CHECK(kind != FAULT_WRITE || survivors > 0, "a failed write stops everybody");
}

int main(int argc, char **argv)
{
    enum lorafold_output_state states[OUTPUTS];
    struct made_model model = { 0 };
    struct lorafold_error err = { 0 };
    unsigned survivors = 0;

    if (chdir("/dev/shm") < 0) /* thousands of merges that sync: memory is the place */
        printf("no /dev/shm: this takes longer\n");
    made_directory(model.directory, sizeof(model.directory));
    made_small(&model);
    made_write(&model);
    snprintf(base, sizeof(base), "%s/base", model.directory);
    snprintf(adapter_path, sizeof(adapter_path), "%s/adapter", model.directory);
    snprintf(output, sizeof(output), "%s/out", model.directory);
    snprintf(reference, sizeof(reference), "%s/reference", model.directory);
    CHECK(run("threads", states, &err) == 0, "%s", err.text);
    CHECK(rename(output, reference) == 0, "%s", reference);
    if (argc > 2) {
        check_one((enum fault_kind)atoi(argv[1]), (unsigned)atoi(argv[2]), "threads", &survivors);
    } else {
        for (int kind = 0; kind < FAULT_KINDS; kind++)
            check_kind((enum fault_kind)kind, "threads");
        check_kind(FAULT_READ, "uring");
        check_kind(FAULT_WRITE, "uring");
    }
    made_remove(model.directory);
    made_release(&model);
    return 0;
}
