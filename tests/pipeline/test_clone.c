/*
 * Outputs that share the storage of their base, on any file system: the kernel's call is replaced
 * by one that keeps the kernel's rules, copies, and fails, cancels or kills as it is told.  What is
 * cloned is counted, the output is the one that is written in full, and lorafold_verify() knows the
 * difference.
 */
#include "check.h"
#include "lorafold.h"
#include "pipeline/made_model.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK (UINT64_C(4) << 20)
#define PAGE UINT64_C(4096)
#define MERGES_MAX 30u /* more than any merge here has calls */

enum act { ACT_CLONE, ACT_FAIL, ACT_CANCEL, ACT_KILL, ACT_CHANGE_BASE };

/* What happens at the call of this number; before and behind it cloning works. */
static struct {
    enum act act;
    unsigned number;
    int error;           /* of ACT_FAIL */
    bool lasting;        /* ACT_FAIL: also all calls behind it */
    unsigned until;      /* ...up to this one, if it is not 0 */
    bool base_elsewhere; /* all from it are refused as well, and not counted */
    unsigned then;       /* this one fails as well, if it is not 0 */
    int then_error;
    struct lorafold_merge *job;
} plot;
static atomic_uint calls;       /* workers share what outputs have alike */
static _Atomic uint64_t copied; /* by calls that worked */

static uint64_t size_of(int fd)
{
    struct stat st;

    CHECK(fstat(fd, &st) == 0, "fstat");
    return (uint64_t)st.st_size;
}

/* As the kernel has it, for a file system with blocks of a page. */
static bool is_allowed(const struct file_clone_range *range, int to_fd)
{
    uint64_t end = range->src_offset + range->src_length;
    uint64_t from_bytes = size_of((int)range->src_fd);

    if (range->src_offset % PAGE || range->dest_offset % PAGE || range->src_length == 0 ||
        end > from_bytes)
        return false;
    return range->src_length % PAGE == 0 ||
           (end == from_bytes && size_of(to_fd) <= range->dest_offset + range->src_length);
}

static int copy_range(const struct file_clone_range *range, int to_fd)
{
    static _Thread_local uint8_t buffer[1 << 20];
    uint64_t done = 0;

    while (done < range->src_length) {
        uint64_t rest = range->src_length - done;
        size_t bytes = rest < sizeof(buffer) ? (size_t)rest : sizeof(buffer);

        CHECK(pread((int)range->src_fd, buffer, bytes, (off_t)(range->src_offset + done)) ==
                  (ssize_t)bytes,
              "the source ends");
        CHECK(pwrite(to_fd, buffer, bytes, (off_t)(range->dest_offset + done)) == (ssize_t)bytes,
              "the copy");
        done += bytes;
    }
    copied += done;
    return 0;
}

static char base[600];

/* Is the base on another file system, and this a file of it? */
static bool is_elsewhere(int fd)
{
    char link[64], path[1024];
    ssize_t bytes;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    bytes = readlink(link, path, sizeof(path) - 1);
    CHECK(bytes > 0, "%s", link);
    path[bytes] = '\0';
    return plot.base_elsewhere && strstr(path, strrchr(base, '/') + 1) && strstr(path, "/base/");
}

static void change_source(int fd)
{
    char path[64];
    int writable;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    writable = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(writable >= 0 && pwrite(writable, "x", 1, 5000000) == 1, "the base");
    close(writable);
}

int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...)
{
    const struct file_clone_range *range;
    unsigned number;
    va_list args;

    va_start(args, request);
    range = va_arg(args, const struct file_clone_range *);
    va_end(args);
    CHECK(request == FICLONERANGE, "ioctl %lu", request);
    if (is_elsewhere((int)range->src_fd)) {
        errno = EXDEV;
        return -1;
    }
    number = atomic_fetch_add(&calls, 1) + 1;
    if (plot.then && number == plot.then) {
        errno = plot.then_error;
        return -1;
    }
    if (plot.act != ACT_CLONE &&
        (number == plot.number || (plot.lasting && number > plot.number)) &&
        (!plot.until || number <= plot.until)) {
        switch (plot.act) {
        case ACT_FAIL:
            errno = plot.error;
            return -1;
        case ACT_CANCEL:
            lorafold_merge_cancel(plot.job);
            break;
        case ACT_KILL:
            kill(getpid(), SIGKILL);
            break;
        case ACT_CHANGE_BASE:
            change_source((int)range->src_fd);
            break;
        case ACT_CLONE:
            break;
        }
    }
    if (!is_allowed(range, fd)) {
        errno = EINVAL;
        return -1;
    }
    return copy_range(range, fd);
}

/* ---- merges ---- */

static char adapter_path[600];
static char output[600];
static char written[600]; /* the same output without clones */
static enum lorafold_dtype dtype = LORAFOLD_DTYPE_KEEP;
static uint64_t max_shard_bytes = 5000000000;

static int merge(const char *out, enum lorafold_clone clone, struct lorafold_report *report,
                 struct lorafold_error *err)
{
    struct lorafold_merge_options options;
    const struct lorafold_adapter adapter = { adapter_path, 1.0 };
    struct lorafold_merge *job = NULL;
    int status;

    *err = (struct lorafold_error){ 0 };
    calls = 0;
    copied = 0;
    lorafold_merge_options_init(&options);
    options.base = base;
    options.adapters = &adapter;
    options.adapter_count = 1;
    options.output = out;
    options.threads = 2;
    options.clone = clone;
    options.dtype = dtype;
    options.max_shard_bytes = max_shard_bytes;
    status = lorafold_merge_open(&job, &options, err);
    plot.job = job;
    if (!status)
        status = lorafold_merge_run(job, err);
    if (!status && report)
        lorafold_merge_report(job, report);
    lorafold_merge_close(job);
    plot.job = NULL;
    return status;
}

static void merge_well(const char *out, enum lorafold_clone clone, struct lorafold_report *report)
{
    struct lorafold_error err;

    CHECK(merge(out, clone, report, &err) == 0, "%s", err.text);
}

/* Everything but the manifest, which says what was cloned. */
static void check_same(const char *one, const char *other)
{
    char command[1400];

    snprintf(command, sizeof(command), "diff -r -x 'lorafold.*' '%s' '%s'", one, other);
    CHECK(system(command) == 0, "%s", command);
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static bool is_left(void)
{
    char partial[700];

    snprintf(partial, sizeof(partial), "%s.partial", output);
    return exists(output) || exists(partial);
}

static char told[1200];

static void keep_message(void *context, enum lorafold_level level, const char *sentence)
{
    (void)context;
    (void)level;
    snprintf(told, sizeof(told), "%s", sentence);
}

static int verify(const char *out, bool deep, const char *from,
                  struct lorafold_verify_report *report, struct lorafold_error *err)
{
    struct lorafold_verify_options options;

    *err = (struct lorafold_error){ 0 };
    told[0] = '\0';
    lorafold_verify_options_init(&options);
    options.deep = deep;
    options.base = from;
    options.message = keep_message;
    return lorafold_verify(out, &options, report, err);
}

/*
 * Shard 0: a target, two copies that span blocks, a target, and a copy to the end of the file,
 * which is in the middle of a page.  Shard 1: copies alone.
 */
static void make(struct made_model *model)
{
    uint64_t rng = 17;

    model->shard_count = 2;
    model->scale = 0.5f;
    made_add(model, &rng, "a.weight", DTYPE_BF16, 2, (uint64_t[]){ 90, 70 }, 0, 3, DTYPE_F32);
    made_add(model, &rng, "b", DTYPE_F32, 2, (uint64_t[]){ 1024, 2000 }, 0, 0, DTYPE_F32);
    made_add(model, &rng, "c", DTYPE_I64, 1, (uint64_t[]){ 600000 }, 0, 0, DTYPE_F32);
    made_add(model, &rng, "d.weight", DTYPE_F16, 2, (uint64_t[]){ 60, 80 }, 0, 2, DTYPE_F16);
    made_add(model, &rng, "e", DTYPE_U8, 1, (uint64_t[]){ 2 * BLOCK + 12345 }, 0, 0, DTYPE_F32);
    made_add(model, &rng, "f", DTYPE_U8, 1, (uint64_t[]){ BLOCK + 77 }, 1, 0, DTYPE_F32);
    made_add(model, &rng, "g", DTYPE_BF16, 2, (uint64_t[]){ 2048, 3000 }, 1, 0, DTYPE_F32);
}

static uint64_t file_bytes(const char *directory, const char *name)
{
    char path[700];
    struct stat st;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    CHECK(lstat(path, &st) == 0, "%s", path);
    return (uint64_t)st.st_size;
}

#define SHARD_0 "model-00001-of-00002.safetensors"
#define SHARD_1 "model-00002-of-00002.safetensors"

/* All blocks but the first of each file and the one of the target "d.weight", which is in block 3.
 */
static uint64_t expected_clones(void)
{
    return file_bytes(base, SHARD_0) - 2 * BLOCK + file_bytes(base, SHARD_1) - BLOCK;
}

static void check_clone(void)
{
    struct lorafold_report report;
    struct lorafold_verify_report seen;
    struct lorafold_error err;
    uint64_t all = file_bytes(written, SHARD_0) + file_bytes(written, SHARD_1);

    plot.act = ACT_CLONE;
    merge_well(output, LORAFOLD_CLONE_ALWAYS, &report);
    check_same(written, output);
    CHECK(report.bytes_cloned == expected_clones(), "%llu bytes are cloned, not %llu",
          (unsigned long long)report.bytes_cloned, (unsigned long long)expected_clones());
    CHECK(report.bytes_written + report.bytes_cloned == all, "%llu written",
          (unsigned long long)report.bytes_written);
    CHECK(copied == report.bytes_cloned + 2 * PAGE, "of each shard one page is tried: %llu",
          (unsigned long long)copied);
    CHECK(verify(output, false, NULL, &seen, &err) == 0, "%s", err.text);
    CHECK(seen.bytes_unread == report.bytes_cloned && seen.bytes_shared == 0, "unread");
    CHECK(verify(output, true, NULL, &seen, &err) == 0, "the base is beside: %s", err.text);
    CHECK(seen.bytes_unread == 0 && seen.bytes_shared == report.bytes_cloned, "shared");
    CHECK(seen.bytes > all, "all files: %llu", (unsigned long long)seen.bytes);
    CHECK(verify(output, true, base, &seen, &err) == 0, "%s", err.text);
    made_remove(output);

    merge_well(output, LORAFOLD_CLONE_NEVER, &report);
    CHECK(calls == 0 && report.bytes_cloned == 0 && report.bytes_written == all, "never");
    made_check_same(written, output);
    CHECK(verify(output, true, base, &seen, &err) == 0, "%s", err.text);
    CHECK(strstr(told, "nothing"), "a base that is of no use: '%s'", told);
    made_remove(output);
}

/* Other layouts: files that end in the middle of the base's, tensors that are converted. */
static void check_layout(enum lorafold_dtype to, uint64_t shard_bytes, uint64_t least)
{
    struct lorafold_report report;
    struct lorafold_verify_report seen;
    struct lorafold_error err;
    char full[700];

    dtype = to;
    max_shard_bytes = shard_bytes;
    snprintf(full, sizeof(full), "%s.full", output);
    plot.act = ACT_CLONE;
    merge_well(full, LORAFOLD_CLONE_NEVER, NULL);
    merge_well(output, LORAFOLD_CLONE_ALWAYS, &report);
    check_same(full, output);
    CHECK(report.bytes_cloned >= least, "%llu", (unsigned long long)report.bytes_cloned);
    CHECK(verify(output, true, base, &seen, &err) == 0, "%s", err.text);
    CHECK(seen.bytes_shared == report.bytes_cloned, "shared");
    printf("dtype %d, files of %llu: %llu bytes cloned in %u calls\n", (int)to,
           (unsigned long long)shard_bytes, (unsigned long long)report.bytes_cloned, calls);
    made_remove(full);
    made_remove(output);
    dtype = LORAFOLD_DTYPE_KEEP;
    max_shard_bytes = 5000000000;
}

static void flip(const char *directory, const char *name, off_t offset)
{
    char path[700];
    char byte;
    int fd;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && pread(fd, &byte, 1, offset) == 1, "%s", path);
    byte ^= 0x10;
    CHECK(pwrite(fd, &byte, 1, offset) == 1, "%s", path);
    close(fd);
}

/* verify --deep must end with this code and these words. */
static void check_deep(const char *from, int status, const char *words)
{
    struct lorafold_error err;
    int got = verify(output, true, from, NULL, &err);

    CHECK(got == status && strstr(err.text, words), "%d %s", got, err.text);
    printf("%s\n", err.text);
}

static void check_verify_deep(void)
{
    const off_t cloned = (off_t)(BLOCK + 9);
    struct lorafold_error err;
    char away[700];
    char shard[700], kept[720];

    snprintf(away, sizeof(away), "%s.away", base);
    merge_well(output, LORAFOLD_CLONE_ALWAYS, NULL);
    flip(output, SHARD_0, cloned);
    CHECK(verify(output, false, NULL, NULL, &err) == 0, "what was cloned has no digest");
    check_deep(base, LORAFOLD_DIFFERENT, "block 1");
    flip(output, SHARD_0, cloned);
    flip(base, SHARD_1, cloned);
    check_deep(NULL, LORAFOLD_DIFFERENT, SHARD_1);
    flip(base, SHARD_1, cloned);
    flip(base, SHARD_0, 36); /* in its header: metadata */
    check_deep(base, LORAFOLD_USAGE, "another header");
    flip(base, SHARD_0, 36);
    flip(output, SHARD_0, 5);
    check_deep(base, LORAFOLD_DIFFERENT, "damaged in block 0");
    flip(output, SHARD_0, 5);

    snprintf(shard, sizeof(shard), "%s/%s", base, SHARD_1);
    snprintf(kept, sizeof(kept), "%s.kept", shard);
    CHECK(rename(shard, kept) == 0, "%s", shard);
    check_deep(base, LORAFOLD_FORMAT, SHARD_1);
    CHECK(rename(kept, shard) == 0, "%s", kept);
    check_deep(adapter_path, LORAFOLD_FORMAT, "adapter");
    check_deep("no/such/base/at/all", LORAFOLD_USAGE, "no such");
    CHECK(rename(base, away) == 0, "%s", base);
    check_deep(NULL, LORAFOLD_USAGE, "--deep BASE");
    CHECK(verify(output, true, away, NULL, &err) == 0, "its name does not matter: %s", err.text);
    CHECK(rename(away, base) == 0, "%s", away);
    made_remove(output);
}

/* Every call in turn is refused, alone or with all behind it. */
static void check_refusals(int error, bool lasting)
{
    unsigned number = 1;

    plot.error = error;
    plot.lasting = lasting;
    for (;; number++) {
        struct lorafold_report report;
        struct lorafold_error err;
        uint64_t most = expected_clones();
        int status;

        plot.act = ACT_FAIL;
        plot.number = number;
        merge_well(output, LORAFOLD_CLONE_AUTO, &report);
        if (calls < number)
            break;
        CHECK(report.bytes_cloned < most, "call %u: %llu", number,
              (unsigned long long)report.bytes_cloned);
        check_same(written, output);
        CHECK(verify(output, true, base, NULL, &err) == 0, "%s", err.text);
        made_remove(output);

        status = merge(output, LORAFOLD_CLONE_ALWAYS, NULL, &err);
        CHECK(status == (number <= 2 ? LORAFOLD_USAGE : LORAFOLD_FAILED), "call %u: %d %s", number,
              status, err.text);
        CHECK(strstr(err.text, "clone") && strstr(err.text, strerror(error)), "%s", err.text);
        CHECK(!is_left(), "call %u: something is left", number);
    }
    CHECK(number > 5, "two tries and three runs, not %u calls", number - 1);
    made_remove(output);
    printf("%s%s: %u calls\n", strerror(error), lasting ? ", from there on" : "", number - 1);
}

/* Every call of the work in turn fails, or the merge is cancelled in it. */
static void check_failures(enum act act, int error, int status, const char *words)
{
    plot.lasting = false;
    for (unsigned number = 3; number < MERGES_MAX; number++) {
        struct lorafold_error err;
        int got;

        plot.act = act;
        plot.number = number;
        plot.error = error;
        got = merge(output, LORAFOLD_CLONE_AUTO, NULL, &err);
        if (calls < number) {
            CHECK(got == 0 && number > 5, "%s", err.text);
            break;
        }
        CHECK(got == status && strstr(err.text, words), "call %u: %d %s", number, got, err.text);
        CHECK(!is_left(), "call %u: something is left", number);
    }
    made_remove(output);
}

/* Killed in every call in turn; the next run removes what is left and is as any other. */
static void check_kills(void)
{
    unsigned number = 1;
    int status = 0;

    for (; number < MERGES_MAX; number++) {
        pid_t child;

        plot.act = ACT_KILL;
        plot.number = number;
        fflush(NULL);
        child = fork();
        CHECK(child >= 0, "fork");
        if (child == 0) {
            struct lorafold_error err;

            _exit(merge(output, LORAFOLD_CLONE_AUTO, NULL, &err));
        }
        CHECK(waitpid(child, &status, 0) == child, "waitpid");
        if (WIFEXITED(status))
            break;
        CHECK(!exists(output), "killed in call %u: '%s' looks finished", number, output);
        plot.act = ACT_CLONE;
        merge_well(output, LORAFOLD_CLONE_ALWAYS, NULL);
        check_same(written, output);
        made_remove(output);
    }
    CHECK(number > 5 && WEXITSTATUS(status) == 0, "%u kills", number - 1);
    made_remove(output);
}

/* ---- several outputs, whose base is on another file system ---- */

#define OUTPUTS 3

static bool torch_files;

static int merge_batch(const char *out, enum lorafold_clone clone,
                       struct lorafold_batch_report *report, struct lorafold_error *err)
{
    struct lorafold_merge_options common;
    const struct lorafold_adapter adapter = { adapter_path, 1.0 };
    struct lorafold_batch *batch = NULL;
    int status;

    *err = (struct lorafold_error){ 0 };
    calls = 0;
    lorafold_merge_options_init(&common);
    common.base = base;
    common.output = out;
    common.threads = 2;
    common.clone = clone;
    common.safe_serialization = !torch_files;
    status = lorafold_batch_create(&batch, &common, 0, err);
    for (int i = 0; i < OUTPUTS && !status; i++) {
        struct lorafold_merge_options options = common;
        char name[8];

        snprintf(name, sizeof(name), "%c", 'a' + i);
        options.adapters = &adapter;
        options.adapter_count = 1;
        status = lorafold_batch_add(batch, name, &options, err);
    }
    if (!status)
        status = lorafold_batch_open(batch, err);
    if (!status)
        status = lorafold_batch_run(batch, err);
    if (batch)
        lorafold_batch_report(batch, report);
    lorafold_batch_close(batch);
    return status;
}

static void check_batch(const char *out, bool whole)
{
    for (int i = 0; i < OUTPUTS; i++) {
        char path[700];
        struct lorafold_error err;
        struct lorafold_verify_report seen;

        snprintf(path, sizeof(path), "%s/%c", out, 'a' + i);
        if (!whole && !exists(path))
            continue;
        made_check_same(written, path); /* also the manifest: what was shared has digests */
        CHECK(verify(path, false, NULL, &seen, &err) == 0 && seen.bytes_unread == 0, "%s",
              err.text);
    }
}

/*
 * The base's shards are refused in the two tries of each output; then call `number` between the
 * outputs fails in this way, or none does.
 */
static void check_sharing(void)
{
    const unsigned tries = 2 * OUTPUTS;
    const int errors[] = { 0, EXDEV, EIO };
    uint64_t all = expected_clones();

    for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
        for (unsigned number = tries + 1; number < MERGES_MAX; number += errors[e] ? 1 : 100) {
            struct lorafold_batch_report report;
            struct lorafold_error err;
            int status;

            plot.act = ACT_FAIL;
            plot.error = EXDEV;
            plot.number = 1;
            plot.lasting = true;
            plot.until = tries;
            plot.then = errors[e] ? number : 0;
            plot.then_error = errors[e];
            status = merge_batch(output, LORAFOLD_CLONE_AUTO, &report, &err);
            if (errors[e] == EIO && calls >= number) {
                CHECK(status == LORAFOLD_FAILED && report.complete == OUTPUTS - 1, "%s", err.text);
            } else {
                CHECK(status == 0, "%s", err.text);
                CHECK(report.bytes_cloned <= (OUTPUTS - 1) * all, "cloned");
                CHECK(errors[e] || report.bytes_cloned == (OUTPUTS - 1) * all,
                      "%llu bytes are shared, not %llu", (unsigned long long)report.bytes_cloned,
                      (unsigned long long)((OUTPUTS - 1) * all));
            }
            check_batch(output, status == 0);
            made_remove(output);
            if (calls < number)
                break;
        }
    }
    plot.until = 0;
    plot.then = 0;
}

/*
 * --clone always: that outputs can share with each other is enough, which each of them tries first;
 * one that may not after all fails, and so do all if none may.
 */
static void check_sharing_always(void)
{
    const struct {
        unsigned then;
        size_t complete;
        int status;
    } cases[] = { { 0, OUTPUTS, 0 },
                  { OUTPUTS + 1, OUTPUTS - 1, LORAFOLD_FAILED },
                  { 1, OUTPUTS - 1, LORAFOLD_FAILED } };
    struct lorafold_batch_report report;
    struct lorafold_error err;

    plot.act = ACT_CLONE;
    plot.base_elsewhere = true;
    plot.then_error = EXDEV;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        plot.then = cases[i].then;
        CHECK(merge_batch(output, LORAFOLD_CLONE_ALWAYS, &report, &err) == cases[i].status,
              "case %zu: %s", i, err.text);
        CHECK(report.complete == cases[i].complete, "case %zu: %zu", i, report.complete);
        CHECK(i > 0 || report.bytes_cloned == (OUTPUTS - 1) * expected_clones(), "cloned");
        check_batch(output, false);
        made_remove(output);
    }
    plot.then = 0;
    plot.act = ACT_FAIL;
    plot.number = 1;
    plot.lasting = true;
    plot.error = EXDEV;
    CHECK(merge_batch(output, LORAFOLD_CLONE_ALWAYS, &report, &err) == LORAFOLD_USAGE &&
              strstr(err.text, "--clone always") && !is_left(),
          "%s", err.text);
    plot.act = ACT_CLONE;
    torch_files = true;
    CHECK(merge_batch(output, LORAFOLD_CLONE_ALWAYS, &report, &err) == LORAFOLD_USAGE &&
              strstr(err.text, "files of torch") && !is_left(),
          "they share with nothing: %s", err.text);
    torch_files = false;
    CHECK(merge(output, LORAFOLD_CLONE_ALWAYS, NULL, &err) == LORAFOLD_USAGE && !is_left(),
          "one output has nothing to share with: %s", err.text);
    plot.base_elsewhere = false;
}

static void check_changed_base(void)
{
    struct lorafold_error err;
    int status;

    plot.act = ACT_CHANGE_BASE;
    plot.number = 4;
    status = merge(output, LORAFOLD_CLONE_AUTO, NULL, &err);
    CHECK(status == LORAFOLD_FAILED && strstr(err.text, "while it was read"), "%s", err.text);
    CHECK(!is_left(), "something is left");
}

int main(void)
{
    struct made_model model = { 0 };

    if (chdir("/dev/shm") < 0) /* many merges that sync: memory is the place */
        printf("no /dev/shm: this takes longer\n");
    made_directory(model.directory, sizeof(model.directory));
    make(&model);
    made_write(&model);
    snprintf(base, sizeof(base), "%s/base", model.directory);
    snprintf(adapter_path, sizeof(adapter_path), "%s/adapter", model.directory);
    snprintf(output, sizeof(output), "%s/out", model.directory);
    snprintf(written, sizeof(written), "%s/written", model.directory);
    merge_well(written, LORAFOLD_CLONE_NEVER, NULL);
    made_check(&model, written, false, DTYPE_BF16);
    check_clone();
    check_layout(LORAFOLD_DTYPE_KEEP, 5000000, BLOCK);
    check_layout(LORAFOLD_DTYPE_KEEP, 9000000, BLOCK);
    check_layout(LORAFOLD_DTYPE_F32, 5000000000, 0);
    check_layout(LORAFOLD_DTYPE_BF16, 5000000, BLOCK);
    check_verify_deep();
    check_refusals(EOPNOTSUPP, true);
    check_refusals(EXDEV, false);
    check_refusals(EINVAL, false);
    check_failures(ACT_FAIL, EIO, LORAFOLD_FAILED, "Input/output error");
    check_failures(ACT_FAIL, ENOSPC, LORAFOLD_FAILED, "No space");
    check_failures(ACT_CANCEL, 0, LORAFOLD_CANCELLED, "stopped");
    check_kills();
    check_sharing();
    check_sharing_always();
    check_changed_base(); /* the last one: the base is another then */
    made_remove(model.directory);
    made_release(&model);
    return 0;
}
