/*
 * bench_copy.c - the yardstick: copy safetensors files as fast as this disk can, and do nothing
 * else
 *
 * The same ring, pool and block size as a merge, direct I/O on both sides, outputs allocated first,
 * everything synced before the clock stops.  Blocks are read and written in the order of the
 * files; each of the slots goes read -> write -> next block, across the borders of files.
 *
 * usage: bench_copy SOURCE DESTINATION_DIR [BYTES [ADAPTER]]
 *
 * With BYTES so many are written in the place of what was read, shared among the files by their
 * sizes: what a merge moves whose output is larger or smaller than the base.  A block is then
 * 4 MiB on the larger side.  The files of ADAPTER are read as well, and nothing is written for
 * them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "base/bytes.h"
#include "base/error.h"
#include "io/file.h"
#include "io/pool.h"
#include "io/ring.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SLOT_COUNT 8u
#define SLOT_BYTES (4 * MIB)
#define FILES_MAX 1024u
#define PATH_BYTES 4096u

struct job {
    char path[PATH_BYTES];
    char name[256];
    struct file in, out;
    bool only_read;
    uint64_t out_bytes;
    uint64_t in_step, out_step; /* of a block, multiples of PAGE_BYTES */
};

struct slot {
    struct ring_request request; /* a read or a write, in turn */
    uint8_t *memory;
    struct job *job;
    uint64_t number; /* of the block in its file */
};

struct copy {
    struct job *jobs; /* FILES_MAX */
    size_t job_count;
    size_t next_job;
    uint64_t next_block;
    uint64_t bytes_in, bytes_out;
    uint64_t wanted; /* bytes to write; 0: as many as are read */
    struct slot slots[SLOT_COUNT];
    struct pool pool;
    struct ring *ring;
    int directory;
};

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int compare_jobs(const void *x, const void *y)
{
    return strcmp(((const struct job *)x)->name, ((const struct job *)y)->name);
}

static int add_job(struct copy *copy, const char *directory, const char *name, struct error *err)
{
    struct job *job = &copy->jobs[copy->job_count];
    int path_bytes, name_bytes;

    if (copy->job_count == FILES_MAX)
        return error_set(err, ERR_USAGE, "more than %u files", FILES_MAX);
    path_bytes = snprintf(job->path, sizeof(job->path), "%s/%s", directory, name);
    name_bytes = snprintf(job->name, sizeof(job->name), "%s", name);
    if (path_bytes >= (int)sizeof(job->path) || name_bytes >= (int)sizeof(job->name))
        return error_set(err, ERR_USAGE, "'%s' is too long", name);
    job->in = job->out = FILE_CLOSED;
    copy->job_count++;
    return 0;
}

/* The safetensors files of a directory in the order of their names, or one file. */
static int find_jobs(struct copy *copy, const char *source, struct error *err)
{
    static const char suffix[] = ".safetensors";
    size_t before = copy->job_count;
    struct dirent *entry;
    struct stat st;
    DIR *directory;
    int status = 0;

    if (stat(source, &st))
        return error_set_errno(err, "cannot stat '%s'", source);
    if (!S_ISDIR(st.st_mode)) {
        const char *slash = strrchr(source, '/');
        char parent[PATH_BYTES] = ".";

        if (slash)
            snprintf(parent, sizeof(parent), "%.*s", (int)(slash - source), source);
        return add_job(copy, slash == source ? "/" : parent, slash ? slash + 1 : source, err);
    }
    directory = opendir(source);
    if (!directory)
        return error_set_errno(err, "cannot read '%s'", source);
    while (!status && (entry = readdir(directory))) {
        size_t bytes = strlen(entry->d_name);

        if (bytes >= sizeof(suffix) && !strcmp(entry->d_name + bytes - strlen(suffix), suffix))
            status = add_job(copy, source, entry->d_name, err);
    }
    closedir(directory);
    if (!status && copy->job_count == before)
        status = error_set(err, ERR_USAGE, "'%s' has no safetensors files", source);
    qsort(copy->jobs + before, copy->job_count - before, sizeof(*copy->jobs), compare_jobs);
    return status;
}

static int find_adapter(struct copy *copy, const char *source, struct error *err)
{
    size_t before = copy->job_count;
    int status = find_jobs(copy, source, err);

    for (size_t i = before; i < copy->job_count; i++)
        copy->jobs[i].only_read = true;
    return status;
}

static int open_memory(struct copy *copy, struct error *err)
{
    int status = pool_open(&copy->pool, SLOT_COUNT * SLOT_BYTES, true, err);

    if (status)
        return status;
    if (copy->pool.huge_bytes < copy->pool.bytes)
        fprintf(stderr, "bench_copy: only %zu of %zu bytes lie in huge pages\n",
                copy->pool.huge_bytes, copy->pool.bytes);
    for (unsigned i = 0; i < SLOT_COUNT; i++)
        copy->slots[i].memory = copy->pool.memory + i * SLOT_BYTES;
    return ring_open(&copy->ring, RING_AUTO, SLOT_COUNT, err);
}

/* Blocks of both sides follow each other; the smaller side may have none left for the last ones. */
static void set_steps(struct job *job)
{
    uint64_t in = job->in.identity.bytes;
    uint64_t blocks = (max_u64(in, job->out_bytes) + SLOT_BYTES - 1) / SLOT_BYTES;

    job->in_step = job->out_step = SLOT_BYTES;
    if (job->only_read)
        return;
    if (in < job->out_bytes)
        job->in_step = align_up(max_u64(in / blocks, 1), PAGE_BYTES);
    else if (in > job->out_bytes)
        job->out_step = align_up(max_u64(job->out_bytes / blocks, 1), PAGE_BYTES);
}

static int open_jobs(struct copy *copy, struct error *err)
{
    uint64_t all = 0;

    for (size_t i = 0; i < copy->job_count; i++) {
        if (file_open_input(&copy->jobs[i].in, copy->jobs[i].path, FILE_DIRECT_AUTO, err))
            return err->code;
        if (!copy->jobs[i].only_read)
            all += copy->jobs[i].in.identity.bytes;
    }
    for (size_t i = 0; i < copy->job_count; i++) {
        struct job *job = &copy->jobs[i];
        uint64_t in = job->in.identity.bytes;
        int status;

        copy->bytes_in += in;
        if (job->only_read) {
            set_steps(job);
            continue;
        }
        job->out_bytes = in;
        if (copy->wanted) /* a double is exact to the byte up to 8 PiB */
            job->out_bytes = (uint64_t)((double)copy->wanted * ((double)in / (double)all));
        set_steps(job);
        status = file_create_output(copy->directory, job->name,
                                    align_up(job->out_bytes, PAGE_BYTES), err);
        if (!status)
            status = file_open_output(&job->out, copy->directory, job->name, FILE_DIRECT_AUTO, err);
        if (status)
            return status;
        copy->bytes_out += job->out_bytes;
    }
    return 0;
}

static uint64_t bytes_of_block(uint64_t number, uint64_t step, uint64_t all)
{
    return number * step < all ? min_u64(step, all - number * step) : 0;
}

static void submit(struct copy *copy, struct slot *slot, enum ring_operation operation,
                   const struct file *file, uint64_t offset, uint64_t bytes)
{
    slot->request = (struct ring_request){ .operation = operation,
                                           .file = file,
                                           .memory = slot->memory,
                                           .bytes = (size_t)align_up(bytes, PAGE_BYTES),
                                           .bytes_needed = (size_t)bytes,
                                           .offset = offset,
                                           .user = slot };
    ring_submit(copy->ring, &slot->request);
}

static bool write_back(struct copy *copy, struct slot *slot)
{
    const struct job *job = slot->job;
    uint64_t bytes = bytes_of_block(slot->number, job->out_step, job->out_bytes);

    if (bytes)
        submit(copy, slot, RING_WRITE, &job->out, slot->number * job->out_step, bytes);
    return bytes > 0;
}

/* Put the slot's next block under way; false if there is none left. */
static bool read_next(struct copy *copy, struct slot *slot)
{
    while (copy->next_job < copy->job_count) {
        struct job *job = &copy->jobs[copy->next_job];
        uint64_t number = copy->next_block++;
        uint64_t bytes = bytes_of_block(number, job->in_step, job->in.identity.bytes);

        slot->job = job;
        slot->number = number;
        if (bytes) {
            submit(copy, slot, RING_READ, &job->in, number * job->in_step, bytes);
            return true;
        }
        if (write_back(copy, slot))
            return true;
        copy->next_job++;
        copy->next_block = 0;
    }
    return false;
}

static int copy_blocks(struct copy *copy, struct error *err)
{
    struct ring_request *done;
    unsigned busy = 0;
    int status = 0;

    for (unsigned i = 0; i < SLOT_COUNT; i++)
        busy += read_next(copy, &copy->slots[i]);
    while (busy) {
        struct slot *slot;
        int wait_status = ring_wait(copy->ring, &done, err);

        if (wait_status)
            return wait_status;
        if (!done)
            continue;
        slot = done->user;
        if (done->status && !status)
            status = error_set(err, ERR_FAILED, "cannot %s block %" PRIu64 " of '%s': %s",
                               done->operation == RING_READ ? "read" : "write", slot->number,
                               slot->job->path, strerror(done->status));
        if (!status && done->operation == RING_READ && write_back(copy, slot))
            continue;
        if (status || !read_next(copy, slot))
            busy--; /* after a failure the others only run out */
    }
    return status;
}

static int finish_jobs(struct copy *copy, struct error *err)
{
    for (size_t i = 0; i < copy->job_count; i++) {
        struct job *job = &copy->jobs[i];
        int status;

        if (job->only_read)
            continue;
        status = file_truncate(&job->out, job->out_bytes, err);
        if (!status)
            status = file_sync(&job->out, err);
        if (status)
            return status;
    }
    return fsync(copy->directory) ? error_set_errno(err, "cannot sync the directory") : 0;
}

static void report(const struct copy *copy, double seconds)
{
    struct rusage usage;
    bool direct = true;

    for (size_t i = 0; i < copy->job_count; i++)
        direct = direct && copy->jobs[i].in.direct &&
                 (copy->jobs[i].only_read || copy->jobs[i].out.direct);
    getrusage(RUSAGE_SELF, &usage);
    printf("%" PRIu64 " bytes in, %" PRIu64 " out, %.3f s, %.3f GB/s read, peak RSS %.1f MiB, %s, "
           "%s\n",
           copy->bytes_in, copy->bytes_out, seconds, (double)copy->bytes_in / 1e9 / seconds,
           (double)usage.ru_maxrss / 1024, ring_name(copy->ring),
           direct ? "direct" : "through the page cache");
}

int main(int argc, char **argv)
{
    struct copy copy = { .directory = -1 };
    struct error err = { 0 };
    double start;
    int status;

    if (argc > 3)
        copy.wanted = strtoull(argv[3], NULL, 10);
    if (argc < 3 || argc > 5 || (argc > 3 && copy.wanted == 0)) {
        fputs("usage: bench_copy SOURCE DESTINATION_DIR [BYTES [ADAPTER]]\n", stderr);
        return 2;
    }
    copy.jobs = calloc(FILES_MAX, sizeof(*copy.jobs));
    status = copy.jobs ? find_jobs(&copy, argv[1], &err) : error_no_memory(&err, "the files");
    if (!status && argc > 4)
        status = find_adapter(&copy, argv[4], &err);
    if (!status && mkdir(argv[2], 0777) && errno != EEXIST)
        status = error_set_errno(&err, "cannot make '%s'", argv[2]);
    if (!status) {
        copy.directory = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (copy.directory < 0)
            status = error_set_errno(&err, "cannot open '%s'", argv[2]);
    }
    if (!status)
        status = open_memory(&copy, &err);
    start = seconds_now();
    if (!status)
        status = open_jobs(&copy, &err);
    if (!status)
        status = copy_blocks(&copy, &err);
    if (!status)
        status = finish_jobs(&copy, &err);
    if (status)
        fprintf(stderr, "bench_copy: %s\n", err.text);
    else
        report(&copy, seconds_now() - start);
    for (size_t i = 0; copy.jobs && i < copy.job_count; i++) {
        file_close(&copy.jobs[i].in);
        file_close(&copy.jobs[i].out);
    }
    ring_close(copy.ring);
    pool_close(&copy.pool);
    if (copy.directory >= 0)
        close(copy.directory);
    free(copy.jobs);
    return status;
}
