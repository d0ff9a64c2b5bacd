/*
 * The n-th allocation, read, write, file call and thread start fails, for every n
 * of two small merges, one with every kind of edit, this also through NF4 and into 4 bits, and of
 * an adapter that stays one: a clean error, nothing that looks finished, no leak (under
 * LeakSanitizer), and what existed before is as it was.
 *
 * usage: test_faults [kind number [kinds]]
 */
#include "check.h"
#include "lorafold.h"
#include "pipeline/faults.h"
#include "pipeline/made_kinds.h"
#include "pipeline/made_model.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NUMBER_MAX 20000u

static char base[600];
static char adapter_path[600];
static char output[600];
static char reference[600]; /* what a merge without a fault gave */
static enum lorafold_save_method save_method = LORAFOLD_MERGED_16BIT;
static bool torch; /* files of torch.save() */
static const char *const method_names[] = {
    [LORAFOLD_MERGED_16BIT] = "", [LORAFOLD_MERGED_4BIT] = ", 4 bits", [LORAFOLD_LORA] = ", lora"
};

static int merge(const char *engine, bool overwrite, struct lorafold_error *err)
{
    const struct lorafold_adapter adapter = { adapter_path, 1.0 };
    struct lorafold_merge_options options = made_options(base, &adapter, output);
    struct lorafold_merge *job = NULL;
    int status;

    options.io_engine = engine;
    options.overwrite = overwrite;
    options.save_method = save_method;
    options.safe_serialization = !torch;
    if (save_method == LORAFOLD_MERGED_4BIT)
        options.base_numerics = LORAFOLD_NUMERICS_NF4_ROUNDTRIP;
    options.dtype = save_method == LORAFOLD_LORA ? LORAFOLD_DTYPE_F32 : LORAFOLD_DTYPE_KEEP;
    status = lorafold_merge_open(&job, &options, err);
    if (!status)
        status = lorafold_merge_run(job, err);
    lorafold_merge_close(job);
    return status;
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

/* One merge with one fault; false once the fault is behind the last call. */
static bool check_one(enum fault_kind kind, unsigned number, const char *engine, bool overwrite)
{
    struct lorafold_error err = { 0 };
    char partial[700];
    int status;
    int reached;

    snprintf(partial, sizeof(partial), "%s.partial", output);
    fault_arm(kind, number);
    status = merge(engine, overwrite, &err);
    reached = fault_disarm();
    if (!reached)
        CHECK(status == 0, "%s %u: not reached, but %s", fault_names[kind], number, err.text);
    if (status) {
        /* Not every failed call is fatal; a fatal one has a code and one sentence. */
        CHECK(status >= LORAFOLD_FAILED && status <= LORAFOLD_MISMATCH, "code %d", status);
        CHECK(err.text[0] && !strchr(err.text, '\n'), "sentence '%s'", err.text);
        CHECK(kind != FAULT_READ || strchr(err.text, '/'), "no file is named: %s", err.text);
        CHECK(overwrite || !exists(output), "%s %u (%s): '%s' is left", fault_names[kind], number,
              err.text, output);
    }
    if (status == 0 || overwrite) {
        char mark[700];
        struct stat st;

        snprintf(mark, sizeof(mark), "%s/.lorafold-work", output);
        CHECK(status || lstat(mark, &st) < 0 || st.st_size, "%s %u: OUT is marked as unfinished",
              fault_names[kind], number);
        remove(mark);                       /* it stays if its removal was the fault */
        made_check_same(reference, output); /* the new one, or the old one */
    }
    made_remove(partial); /* a failed removal is a fault too: the next run would discard it */
    if (!overwrite)
        made_remove(output);
    return reached;
}

static void check_kind(enum fault_kind kind, const char *engine, bool overwrite)
{
    unsigned number = 1;

    /* Norms of what goes through NF4 are read row by row: of a thousand such reads, every few. */
    while (number < NUMBER_MAX && check_one(kind, number, engine, overwrite))
        number += save_method == LORAFOLD_MERGED_4BIT ? 1 + number / 50 : 1;
    printf("%s, %s%s%s%s: of %u calls one failed in turn\n", fault_names[kind], engine,
           overwrite ? ", overwrite" : "", method_names[save_method], torch ? ", torch" : "",
           number - 1);
    fflush(stdout);
    CHECK(number > 1, "no call of this kind was made");
    CHECK(number < NUMBER_MAX, "there is no end");
}

/* Files that end faster than they are synced must not pile up, nor their requests and descriptors.
 */
static void check_lazy_syncs(void)
{
    struct made_model many = { .shard_count = 1, .scale = 0.5f };
    struct lorafold_error err = { 0 };
    char before[2][600];
    uint64_t rng = 11;
    unsigned most;

    memcpy(before[0], base, sizeof(base));
    memcpy(before[1], adapter_path, sizeof(adapter_path));
    made_directory(many.directory, sizeof(many.directory));
    for (int i = 0; i < MADE_TENSORS_MAX; i++) { /* each larger than a file may be */
        char name[32];

        snprintf(name, sizeof(name), "%d.weight", i);
        made_add(&many, &rng, name, DTYPE_F32, 2, (uint64_t[]){ 80, 70 }, 0, i ? 0 : 3, DTYPE_F32);
    }
    made_write(&many);
    snprintf(base, sizeof(base), "%s/base", many.directory);
    snprintf(adapter_path, sizeof(adapter_path), "%s/adapter", many.directory);
    fault_make_syncs_lazy();
    CHECK(merge("threads", false, &err) == 0, "%s", err.text);
    most = fault_lazy_syncs();
    printf("%u files, at most %u syncs at one time\n", MADE_TENSORS_MAX, most);
    CHECK(most < 24, "syncs pile up: %u at one time", most);
    made_check(&many, output, false, DTYPE_BF16);
    made_remove(output);
    made_remove(many.directory);
    made_release(&many);
    memcpy(base, before[0], sizeof(base));
    memcpy(adapter_path, before[1], sizeof(adapter_path));
}

/* What is merged from now on, below a directory of its own. */
static void choose(const char *directory, const char *adapter)
{
    struct lorafold_error err = { 0 };

    snprintf(base, sizeof(base), "%s/base", directory);
    snprintf(adapter_path, sizeof(adapter_path), "%s/%s", directory, adapter);
    snprintf(output, sizeof(output), "%s/out", directory);
    CHECK(merge("threads", false, &err) == 0, "%s", err.text);
    snprintf(reference, sizeof(reference), "%s/reference", directory);
    CHECK(rename(output, reference) == 0, "%s", reference);
}

static void check_all_kinds(void)
{
    for (int kind = 0; kind < FAULT_KINDS; kind++)
        check_kind((enum fault_kind)kind, "threads", false);
    check_kind(FAULT_READ, "uring", false);
    check_kind(FAULT_WRITE, "uring", false);
}

int main(int argc, char **argv)
{
    struct made_model model = { 0 };
    struct lorafold_error err = { 0 };
    char kinds[64];

    if (chdir("/dev/shm") < 0) /* thousands of merges that sync: memory is the place */
        printf("no /dev/shm: this takes longer\n");
    made_directory(model.directory, sizeof(model.directory));
    made_directory(kinds, sizeof(kinds));
    made_small(&model);
    made_write(&model);
    made_kinds_write(kinds);
    choose(model.directory, "adapter");
    made_check(&model, reference, false, DTYPE_BF16);
    if (argc > 3)
        choose(kinds, "kinds/base");
    if (argc > 2) {
        check_one((enum fault_kind)atoi(argv[1]), (unsigned)atoi(argv[2]), "threads", false);
    } else {
        check_lazy_syncs();
        check_all_kinds();
        CHECK(merge("threads", false, &err) == 0, "%s", err.text);
        check_kind(FAULT_FILE, "threads", true);
        check_kind(FAULT_WRITE, "threads", true);
        printf("every kind of edit\n");
        choose(kinds, "kinds/base");
        check_all_kinds();
        made_remove(reference);
        save_method = LORAFOLD_MERGED_4BIT;
        choose(kinds, "kinds/base");
        check_all_kinds();
        made_remove(reference);
        save_method = LORAFOLD_LORA;
        choose(kinds, "kinds/base");
        check_all_kinds();
        made_remove(reference);
        torch = true;
        save_method = LORAFOLD_MERGED_16BIT;
        choose(kinds, "kinds/base");
        check_all_kinds();
        made_remove(reference);
    }
    made_remove(model.directory);
    made_remove(kinds);
    made_release(&model);
    return 0;
}
