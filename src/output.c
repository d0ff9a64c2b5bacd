/* output.c - small files of the output, and the list of all its files */
#include "merge.h"

#include "base/array.h"
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct output_file *output_add(struct output_files *files, const char *name, uint64_t bytes,
                               struct output_clone *clones, size_t clone_count)
{
    size_t blocks;
    uint64_t cloned = 0;
    struct output_file *more = array_next(files->list, files->count, &files->capacity,
                                          sizeof(*more));
    struct output_file *file;

    if (!more) {
        free(clones);
        return NULL;
    }
    files->list = more;
    for (size_t i = 0; i < clone_count; i++) {
        clones[i].blocks_before = cloned;
        cloned += blocks_of(clones[i].bytes);
    }
    blocks = (size_t)(blocks_of(bytes) - cloned);
    file = &files->list[files->count++];
    *file = (struct output_file){
        .bytes = bytes, .block_count = blocks, .clones = clones, .clone_count = clone_count
    };
    snprintf(file->name, sizeof(file->name), "%s", name);
    file->blocks = calloc(blocks + 1, sizeof(*file->blocks));
    return file->blocks ? file : NULL;
}

void output_files_release(struct output_files *files)
{
    for (size_t i = 0; i < files->count; i++) {
        free(files->list[i].blocks);
        free(files->list[i].clones);
    }
    for (size_t i = 0; i < files->shard_count; i++)
        free(files->shards[i].name);
    free(files->shards);
    free(files->base_name);
    free(files->base_revision);
    free(files->list);
    *files = (struct output_files){ 0 };
}

const struct output_clone *output_block(const struct output_file *file, uint64_t number,
                                        uint64_t *digest)
{
    uint64_t offset = number * PLAN_BLOCK_BYTES;
    const struct output_clone *last;
    size_t low = 0;
    size_t high = file->clone_count;

    while (low < high) { /* the clones that begin at or before the block */
        size_t middle = low + (high - low) / 2;

        if (file->clones[middle].offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    *digest = number;
    if (low == 0)
        return NULL;
    last = &file->clones[low - 1];
    if (offset < last->offset + last->bytes)
        return last;
    *digest -= last->blocks_before + blocks_of(last->bytes);
    return NULL;
}

static int list_bytes(struct lorafold_merge *merge, const char *name, const char *bytes,
                      size_t count, struct error *err)
{
    struct output_file *file = output_add(&merge->files, name, count, NULL, 0);

    if (!file)
        return error_no_memory(err, "the list of files");
    for (size_t i = 0; i < file->block_count; i++) {
        size_t offset = i * PLAN_BLOCK_BYTES;

        file->blocks[i] = digest_bytes(bytes + offset, min_u64(count - offset, PLAN_BLOCK_BYTES));
    }
    file->digest = digest_of_blocks(file->blocks, file->block_count);
    return 0;
}

/* Side directories are at most one level deep. */
static int make_parent(const struct outdir *outdir, const char *name, struct error *err)
{
    const char *slash = strchr(name, '/');
    char parent[256];

    if (!slash)
        return 0;
    snprintf(parent, sizeof(parent), "%.*s", (int)(slash - name), name);
    if (mkdirat(outdir_fd(outdir), parent, 0777) < 0 && errno != EEXIST)
        return error_set_errno(err, "cannot make '%s' in the output", parent);
    return 0;
}

int output_write(struct lorafold_merge *merge, struct outdir *outdir, const char *name,
                 const char *bytes, size_t count, struct error *err)
{
    if (make_parent(outdir, name, err) || outdir_write_file(outdir, name, bytes, count, err))
        return err->code;
    return list_bytes(merge, name, bytes, count, err);
}

/* One file, a block at a time: a tokenizer may be larger than what is left of the budget. */
static int copy_blocks(const struct file *from, const struct file *to, struct output_file *file,
                       uint8_t *buffer, struct error *err)
{
    for (size_t i = 0; i < file->block_count; i++) {
        uint64_t offset = i * PLAN_BLOCK_BYTES;
        size_t bytes = min_u64(file->bytes - offset, PLAN_BLOCK_BYTES);

        if (file_pread(from, buffer, bytes, offset, err) ||
            file_pwrite(to, buffer, bytes, offset, err))
            return err->code;
        file->blocks[i] = digest_bytes(buffer, bytes);
    }
    file->digest = digest_of_blocks(file->blocks, file->block_count);
    return file_sync(to, err);
}

static int copy_file(struct lorafold_merge *merge, const struct outdir *outdir,
                     const struct side_file *side, uint8_t *buffer, struct error *err)
{
    struct output_file *file = output_add(&merge->files, side->name, side->bytes, NULL, 0);
    struct file from = FILE_CLOSED;
    struct file to = FILE_CLOSED;
    int status;

    if (!file)
        return error_no_memory(err, "the list of files");
    status = make_parent(outdir, side->name, err);
    if (!status)
        status = file_open_input(&from, side->path, FILE_DIRECT_OFF, err);
    if (!status && from.identity.bytes != side->bytes)
        status = error_set(
            err, ERR_FAILED, "it changed since the merge was planned: it had %llu bytes, now %llu",
            (unsigned long long)side->bytes, (unsigned long long)from.identity.bytes);
    if (!status)
        status = file_create_output(outdir_fd(outdir), side->name, side->bytes, err);
    if (!status)
        status = file_open_output(&to, outdir_fd(outdir), side->name, FILE_DIRECT_OFF, err);
    if (!status)
        status = copy_blocks(&from, &to, file, buffer, err);
    if (status)
        error_prefix(err, "cannot copy '%s'", side->path);
    file_close(&from);
    file_close(&to);
    return status;
}

/* The side directories; the one that holds them is synced when it is published. */
static int sync_parents(const struct lorafold_merge *merge, const struct outdir *outdir,
                        struct error *err)
{
    for (size_t i = 0; i < merge->side_files.count; i++) {
        const char *name = merge->side_files.list[i].name;
        const char *slash = strchr(name, '/');
        char parent[256];
        int fd;
        int status;

        if (!slash)
            continue;
        snprintf(parent, sizeof(parent), "%.*s", (int)(slash - name), name);
        fd = openat(outdir_fd(outdir), parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        status = fd < 0 ? -1 : fsync(fd);
        if (status < 0)
            error_set_errno(err, "cannot sync '%s' in the output", parent);
        if (fd >= 0)
            close(fd);
        if (status < 0)
            return err->code;
    }
    return 0;
}

int side_files_copy(struct lorafold_merge *merge, struct outdir *outdir, struct error *err)
{
    uint8_t *buffer = malloc(PLAN_BLOCK_BYTES);
    int status = 0;

    if (!buffer)
        return error_no_memory(err, "a copy buffer");
    for (size_t i = 0; i < merge->side_files.count && !status; i++)
        status = copy_file(merge, outdir, &merge->side_files.list[i], buffer, err);
    free(buffer);
    return status ? status : sync_parents(merge, outdir, err);
}
