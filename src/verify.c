/*
 * verify.c - re-reading an output at disk speed
 *
 * Workers take the next block from a counter, read it with direct I/O into a
 * page-aligned buffer of their own and hash it, or compare it with the block of the
 * base that it was cloned from.  The first difference is the error, in the order of
 * the manifest; every other one is told.
 */
#include "merge.h"

#include "io/file.h"
#include "io/pool.h"
#include "io/usage.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MANIFEST_BYTES_MAX (64 * MIB)
#define BLOCKS_BYTES_MAX (GIB)
#define THREADS_DEFAULT 4u /* reads in flight: docs/BENCHMARKS.md */
#define THREADS_MAX 64u

enum block_state { BLOCK_UNREAD, BLOCK_SAME, BLOCK_DIFFERENT, BLOCK_FAILED };

struct verify {
    const struct lorafold_verify_options *options;
    const char *directory;
    struct output_files files;
    struct verify_base base; /* if deep, and anything is cloned */
    bool compares;           /* with that */
    enum file_direct direct;
    bool *readable;        /* one per file: it is there and has the size that is said */
    uint64_t *block_first; /* number of each file's first block */
    uint8_t *states;       /* enum block_state of every block */
    uint64_t block_count;

    pthread_mutex_t mutex;
    uint64_t next; /* block to be read */
    uint64_t bytes_done;
    uint64_t bytes_total;
    uint64_t bytes_cloned; /* of all files */
    unsigned running;
    struct error error; /* of reading */
    pthread_cond_t changed;
};

/* The file of the last block: an output, or its base, may have very many. */
struct last_file {
    struct file file;
    uint64_t index;
};

struct verify_worker {
    struct verify *verify;
    uint8_t *buffer;
    uint8_t *base_buffer; /* if it compares */
    struct last_file last;
    struct last_file last_shard;
    pthread_t thread;
    bool started;
};

void lorafold_verify_options_init(struct lorafold_verify_options *options)
{
    *options = (struct lorafold_verify_options){ .memory_bytes = 128 * MIB };
}

static bool cancelled(const struct verify *verify)
{
    return verify->options->cancel && *verify->options->cancel;
}

/* The file that holds a block: the last one whose first block is not behind it. */
static size_t file_of(const struct verify *verify, uint64_t block)
{
    size_t low = 0;
    size_t high = verify->files.count;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (verify->block_first[middle] <= block)
            low = middle;
        else
            high = middle;
    }
    return low;
}

ssize_t verify_read(const struct file *file, uint8_t *buffer, size_t bytes, uint64_t offset)
{
    size_t done = 0;
    size_t asked = file->direct ? align_up(bytes, PAGE_BYTES) : bytes;

    while (done < bytes) {
        ssize_t got = pread(file->fd, buffer + done, asked - done, (off_t)(offset + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
        if (file->direct && done < bytes)
            done = align_down(done, PAGE_BYTES);
        if (file->direct && got < (ssize_t)PAGE_BYTES && done < bytes)
            break;
    }
    return (ssize_t)done;
}

static int open_file(const struct verify *verify, size_t index, struct file *out, struct error *err)
{
    char path[4096];

    if (snprintf(path, sizeof(path), "%s/%s", verify->directory, verify->files.list[index].name) >=
        (int)sizeof(path))
        return error_set(err, ERR_USAGE, "'%s' is too long a path", verify->directory);
    return file_open_input(out, path, verify->direct, err);
}

/* The file of the worker's next block; the one before is closed. */
static int change_file(const struct verify *verify, struct last_file *last, uint64_t index,
                       bool shard, struct error *err)
{
    if (last->file.fd >= 0 && last->index == index)
        return 0;
    file_close(&last->file);
    last->index = index;
    return shard ? file_open_input(&last->file, verify->base.paths[index], verify->direct, err)
                 : open_file(verify, index, &last->file, err);
}

/* All of a block into `buffer`; *state if that says it all. */
static bool fetch(const struct last_file *last, const char *name, uint8_t *buffer, size_t bytes,
                  uint64_t offset, enum block_state *state, struct error *err)
{
    ssize_t got = verify_read(&last->file, buffer, bytes, offset);

    if (got < 0)
        error_set_errno(err, "cannot read '%s' at %" PRIu64, name, offset);
    *state = got < 0 ? BLOCK_FAILED : BLOCK_DIFFERENT;
    if (got < (ssize_t)bytes)
        return false;
    if (!last->file.direct)
        file_drop_cache(&last->file, offset, bytes);
    return true;
}

/* The block in the buffer and where it was cloned from. */
static enum block_state compare_block(struct verify_worker *worker,
                                      const struct output_clone *clone, uint64_t offset,
                                      size_t bytes, struct error *err)
{
    const struct verify *verify = worker->verify;
    enum block_state state;

    if (change_file(verify, &worker->last_shard, clone->shard, true, err))
        return BLOCK_FAILED;
    if (!fetch(&worker->last_shard, verify->base.paths[clone->shard], worker->base_buffer, bytes,
               clone->shard_offset + (offset - clone->offset), &state, err))
        return state;
    return memcmp(worker->buffer, worker->base_buffer, bytes) == 0 ? BLOCK_SAME : BLOCK_DIFFERENT;
}

static enum block_state check_block(struct verify_worker *worker, uint64_t number, size_t *bytes,
                                    struct error *err)
{
    const struct verify *verify = worker->verify;
    size_t index = file_of(verify, number);
    const struct output_file *file = &verify->files.list[index];
    uint64_t block = number - verify->block_first[index];
    uint64_t offset = block * PLAN_BLOCK_BYTES;
    const struct output_clone *clone;
    enum block_state state;
    struct digest digest;
    uint64_t written;

    clone = output_block(file, block, &written);
    *bytes = min_u64(PLAN_BLOCK_BYTES, file->bytes - offset);
    if (clone && !verify->compares) {
        *bytes = 0;
        return BLOCK_SAME;
    }
    if (!verify->readable[index])
        return BLOCK_DIFFERENT; /* missing or of another size: told before */
    if (change_file(verify, &worker->last, index, false, err))
        return BLOCK_FAILED;
    if (!fetch(&worker->last, file->name, worker->buffer, *bytes, offset, &state, err))
        return state;
    if (clone)
        return compare_block(worker, clone, offset, *bytes, err);
    digest = digest_bytes(worker->buffer, *bytes);
    return digest.half[0] == file->blocks[written].half[0] &&
                   digest.half[1] == file->blocks[written].half[1]
               ? BLOCK_SAME
               : BLOCK_DIFFERENT;
}

static void *worker_main(void *argument)
{
    struct verify_worker *worker = argument;
    struct verify *verify = worker->verify;

    pthread_mutex_lock(&verify->mutex);
    while (verify->next < verify->block_count && !verify->error.code && !cancelled(verify)) {
        uint64_t number = verify->next++;
        struct error err = { 0 };
        enum block_state state;
        size_t bytes;

        pthread_mutex_unlock(&verify->mutex);
        state = check_block(worker, number, &bytes, &err);
        pthread_mutex_lock(&verify->mutex);
        verify->states[number] = (uint8_t)state;
        verify->bytes_done += bytes;
        if (state == BLOCK_FAILED && !verify->error.code)
            verify->error = err;
        pthread_cond_signal(&verify->changed);
    }
    verify->running--;
    pthread_cond_signal(&verify->changed);
    pthread_mutex_unlock(&verify->mutex);
    return NULL;
}

static void tell(const struct verify *verify, enum lorafold_level level, const char *sentence)
{
    if (verify->options->message)
        verify->options->message(verify->options->context, level, sentence);
}

int manifest_load(struct output_files *out, const char *directory, struct error *err)
{
    char path[4096];
    char *json = NULL;
    char *blocks = NULL;
    size_t json_bytes = 0;
    size_t blocks_bytes = 0;
    struct stat st;
    int status = 0;

    if (stat(directory, &st) < 0) {
        error_set_errno(err, "'%s'", directory);
        return err->code = ERR_USAGE;
    }
    if (snprintf(path, sizeof(path), "%s/%s", directory, MANIFEST_NAME) >= (int)sizeof(path) - 64)
        return error_set(err, ERR_USAGE, "'%s' is too long a path", directory);
    if (stat(path, &st) < 0)
        return error_set(err, ERR_FORMAT,
                         "'%s' holds no %s: it is not a finished output of lorafold", directory,
                         MANIFEST_NAME);
    status = file_read_all(&json, &json_bytes, path, MANIFEST_BYTES_MAX, err);
    snprintf(path, sizeof(path), "%s/%s", directory, BLOCKS_NAME);
    if (!status && stat(path, &st) < 0)
        status = error_set(err, ERR_FORMAT, "'%s' holds no %s", directory, BLOCKS_NAME);
    if (!status)
        status = file_read_all(&blocks, &blocks_bytes, path, BLOCKS_BYTES_MAX, err);
    if (!status) {
        status = manifest_read(out, json, json_bytes, blocks, blocks_bytes, err);
        if (status)
            error_prefix(err, "'%s/%s'", directory, MANIFEST_NAME);
    }
    free(json);
    free(blocks);
    return status;
}

/* Look at every file; one that is missing or has another size counts as different. */
static int find_files(struct verify *verify, struct error *err)
{
    char sentence[1200];

    if (verify->options->io_direct)
        verify->direct = strcmp(verify->options->io_direct, "on") == 0 ? FILE_DIRECT_ON
                                                                       : FILE_DIRECT_OFF;
    verify->readable = calloc(verify->files.count, sizeof(*verify->readable));
    verify->block_first = calloc(verify->files.count, sizeof(*verify->block_first));
    if (!verify->readable || !verify->block_first)
        return error_no_memory(err, "the list of files");
    for (size_t i = 0; i < verify->files.count; i++) {
        const struct output_file *file = &verify->files.list[i];
        struct file opened = FILE_CLOSED;
        struct error inner = { 0 };
        uint64_t bytes;

        verify->block_first[i] = verify->block_count;
        verify->block_count += blocks_of(file->bytes);
        verify->bytes_total += file->bytes;
        for (size_t c = 0; c < file->clone_count; c++)
            verify->bytes_cloned += file->clones[c].bytes;
        if (open_file(verify, i, &opened, &inner)) {
            if (inner.code == ERR_FAILED) {
                *err = inner;
                return err->code;
            }
            snprintf(sentence, sizeof(sentence), "'%s' is missing or not a file", file->name);
        } else {
            bytes = opened.identity.bytes;
            file_close(&opened);
            verify->readable[i] = bytes == file->bytes;
            if (verify->readable[i])
                continue;
            snprintf(sentence, sizeof(sentence), "'%s' has %" PRIu64 " bytes, %s says %" PRIu64,
                     file->name, bytes, MANIFEST_NAME, file->bytes);
        }
        if (verify->error.code == 0) /* the first difference, if nothing worse happens */
            error_set(&verify->error, ERR_DIFFERENT, "%s", sentence);
        else
            tell(verify, LORAFOLD_WARNING, sentence);
    }
    verify->states = calloc(verify->block_count + 1, 1);
    return verify->states ? 0 : error_no_memory(err, "the blocks");
}

static int find_base(struct verify *verify, struct error *err)
{
    verify->compares = verify->options->deep && verify->bytes_cloned > 0;
    if (verify->options->base && !verify->compares)
        tell(verify, LORAFOLD_NOTICE,
             "nothing was cloned from the base, so it is not compared with it");
    if (verify->compares)
        return verify_base_open(&verify->base, &verify->files, verify->directory,
                                verify->options->base, err);
    verify->bytes_total -= verify->bytes_cloned;
    return 0;
}

static void show(const struct verify *verify, double started, uint64_t done)
{
    const struct lorafold_progress progress = {
        .bytes_done = done,
        .bytes_total = verify->bytes_total,
        .seconds = clock_seconds() - started,
        .limit = LORAFOLD_LIMIT_READ,
        .file = "",
    };

    if (verify->options->progress)
        verify->options->progress(verify->options->context, &progress);
}

/* Wait for the workers and show how far they are, without the lock. */
static void watch(struct verify *verify, double started)
{
    double shown = started;

    pthread_mutex_lock(&verify->mutex);
    while (verify->running > 0) {
        uint64_t done;

        pthread_cond_wait(&verify->changed, &verify->mutex);
        done = verify->bytes_done;
        if (clock_seconds() - shown < 0.1)
            continue;
        pthread_mutex_unlock(&verify->mutex);
        shown = clock_seconds();
        show(verify, started, done);
        pthread_mutex_lock(&verify->mutex);
    }
    pthread_mutex_unlock(&verify->mutex);
    show(verify, started, verify->bytes_done);
}

static int run_workers(struct verify *verify, double started, struct error *err)
{
    unsigned count = verify->options->threads ? verify->options->threads : THREADS_DEFAULT;
    uint64_t buffers = verify->compares ? 2 : 1;
    uint64_t most = verify->options->memory_bytes / (2 * buffers * PLAN_BLOCK_BYTES);
    struct verify_worker *workers;
    struct pool pool = { 0 };

    count = (unsigned)min_u64(min_u64(count, THREADS_MAX), max_u64(most, 1));
    workers = calloc(count, sizeof(*workers));
    if (!workers || pool_open(&pool, count * buffers * PLAN_BLOCK_BYTES, true, err)) {
        if (!workers)
            error_no_memory(err, "the workers");
        free(workers);
        return err->code;
    }
    verify->running = count;
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct verify_worker){ .verify = verify,
                                             .buffer = pool.memory + i * buffers * PLAN_BLOCK_BYTES,
                                             .last = { .file = FILE_CLOSED },
                                             .last_shard = { .file = FILE_CLOSED } };
        workers[i].base_buffer = workers[i].buffer + (buffers - 1) * PLAN_BLOCK_BYTES;
        workers[i].started = pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) ==
                             0;
        if (!workers[i].started) {
            pthread_mutex_lock(&verify->mutex);
            verify->running--;
            pthread_mutex_unlock(&verify->mutex);
        }
    }
    watch(verify, started);
    for (unsigned i = 0; i < count; i++) {
        if (workers[i].started)
            pthread_join(workers[i].thread, NULL);
        file_close(&workers[i].last.file);
        file_close(&workers[i].last_shard.file);
    }
    free(workers);
    pool_close(&pool);
    return 0;
}

static void describe_difference(const struct verify *verify, size_t index, uint64_t block,
                                char sentence[1200])
{
    const struct output_file *file = &verify->files.list[index];
    uint64_t first = block * PLAN_BLOCK_BYTES;
    uint64_t last = min_u64(first + PLAN_BLOCK_BYTES, file->bytes) - 1;
    uint64_t written;
    const struct output_clone *clone = output_block(file, block, &written);

    if (clone)
        snprintf(sentence, 1200,
                 "'%s' differs in block %" PRIu64 " (bytes %" PRIu64 " to %" PRIu64
                 ") from '%.600s', from which it was cloned: one of the two was changed",
                 file->name, block, first, last, verify->base.paths[clone->shard]);
    else
        snprintf(sentence, 1200,
                 "'%s' is damaged in block %" PRIu64 " (bytes %" PRIu64 " to %" PRIu64 ")",
                 file->name, block, first, last);
}

/* The verdict: each different block is told, the first one is the error. */
static int judge(const struct verify *verify, const struct error *first, struct error *err)
{
    struct error found = *first;

    if (verify->error.code) {
        *err = verify->error;
        return err->code;
    }
    if (cancelled(verify))
        return error_set(err, ERR_CANCELLED, "cancelled");
    for (uint64_t i = 0; i < verify->block_count; i++) {
        size_t index = file_of(verify, i);
        char sentence[1200];

        if (verify->states[i] == BLOCK_UNREAD)
            return error_set(err, ERR_FAILED, "no worker could be started");
        if (verify->states[i] == BLOCK_SAME || !verify->readable[index])
            continue;
        describe_difference(verify, index, i - verify->block_first[index], sentence);
        if (found.code == 0)
            error_set(&found, ERR_DIFFERENT, "%s", sentence);
        else
            tell(verify, LORAFOLD_WARNING, sentence);
    }
    if (found.code)
        *err = found;
    return found.code;
}

static void release(struct verify *verify)
{
    free(verify->readable);
    free(verify->block_first);
    free(verify->states);
    verify_base_close(&verify->base);
    output_files_release(&verify->files);
    pthread_cond_destroy(&verify->changed);
    pthread_mutex_destroy(&verify->mutex);
}

int verify_one(const char *directory, const struct lorafold_verify_options *options,
               struct lorafold_verify_report *report, struct lorafold_error *err)
{
    struct verify verify = { .options = options, .directory = directory };
    double started = clock_seconds();
    struct error missing;
    struct error inner = { 0 };
    int status;

    pthread_mutex_init(&verify.mutex, NULL);
    pthread_cond_init(&verify.changed, NULL);
    status = manifest_load(&verify.files, directory, &inner);
    if (!status)
        status = find_files(&verify, &inner);
    missing = verify.error;
    verify.error = (struct error){ 0 };
    if (!status)
        status = find_base(&verify, &inner);
    if (!status)
        status = run_workers(&verify, started, &inner);
    if (!status)
        status = judge(&verify, &missing, &inner);
    if (report)
        *report = (struct lorafold_verify_report){
            .output_count = 1,
            .file_count = verify.files.count,
            .bytes = verify.bytes_total,
            .bytes_shared = verify.compares ? verify.bytes_cloned : 0,
            .bytes_unread = verify.compares ? 0 : verify.bytes_cloned,
            .seconds = clock_seconds() - started
        };
    release(&verify);
    return status ? give_error(err, &inner) : 0;
}
