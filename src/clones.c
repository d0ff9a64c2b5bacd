/* clones.c - what of an output can share the storage of the base */
#include "merge.h"

#include "io/clone.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Can this shard share its first page with a new file where the output will be?  0 or an errno
 * value.  Trying is the only way to know: two devices may be one file system (subvolumes of btrfs),
 * and one file system may not share between two of its files (blocks larger than pages).
 */
static int try_shard(const struct model_shard *shard, int fd)
{
    const atomic_int cancelled = 0;
    struct file from = FILE_CLOSED;
    struct error ignored = { 0 };
    int status;

    if (file_open_input(&from, shard->path, FILE_DIRECT_OFF, &ignored))
        return EACCES; /* the merge itself will say what is wrong with it */
    status = clone_range(from.fd, 0, fd, 0, PAGE_BYTES, &cancelled);
    file_close(&from);
    return status;
}

static void cannot_share(struct lorafold_merge *merge, const char *sentence)
{
    if (merge->clone_refusal.code)
        return; /* the first of many shards says it */
    log_say(&merge->log, LOG_DETAIL, "not cloned from the base: %s", sentence);
    error_set(&merge->clone_refusal, ERR_USAGE,
              "--clone always: '%s' cannot share the storage of the base: %s; --clone auto copies "
              "instead",
              merge->options.output, sentence);
}

/* Can two files where the output will be share a page?  0 or an errno value. */
static int try_outputs(const char *output)
{
    static const char page[PAGE_BYTES];
    const atomic_int cancelled = 0;
    struct error ignored = { 0 };
    int from = -1, to = -1;
    int status = EOPNOTSUPP;

    if (outdir_open_unnamed(&from, output, &ignored) == 0 &&
        outdir_open_unnamed(&to, output, &ignored) == 0 &&
        pwrite(from, page, sizeof(page), 0) == sizeof(page))
        status = clone_range(from, 0, to, 0, PAGE_BYTES, &cancelled);
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return status;
}

static int try_shards(struct lorafold_merge *merge, int fd, struct error *err)
{
    bool *shareable = calloc(merge->base->model.shard_count + 1, sizeof(*shareable));
    bool any = false;
    int status = 0;

    if (!shareable)
        return error_no_memory(err, "the shards");
    for (size_t i = 0; i < merge->base->model.shard_count; i++) {
        const struct model_shard *shard = &merge->base->model.shards[i];
        char quoted[QUOTED_BYTES];
        char sentence[2 * QUOTED_BYTES];
        char reason[128];
        int result;

        if (shard->identity.bytes < PAGE_BYTES)
            continue; /* it has no block to be cloned */
        result = try_shard(shard, fd);
        shareable[i] = result == 0;
        any |= shareable[i];
        if (result == 0)
            continue;
        merge->base_elsewhere = true;
        error_quote(quoted, sizeof(quoted), shard->name, strlen(shard->name));
        snprintf(sentence, sizeof(sentence), "'%s': %s", quoted,
                 strerror_r(result, reason, sizeof(reason)));
        cannot_share(merge, sentence);
    }
    if (any)
        status = plan_find_clones(&merge->plan, shareable, err);
    free(shareable);
    return status;
}

int clones_find(struct lorafold_merge *merge, struct error *err)
{
    struct error inner = { 0 };
    int status;
    int fd;

    if (!merge->options.output || merge->options.clone == LORAFOLD_CLONE_NEVER)
        return 0;
    if (writes_adapter(merge)) {
        cannot_share(merge, "an adapter is written");
        return 0;
    }
    if (merge->plan.torch) {
        cannot_share(merge, "files of torch hold a checksum of every tensor, for which it is read");
        return 0;
    }
    if (outdir_open_unnamed(&fd, merge->options.output, &inner)) {
        cannot_share(merge, inner.text);
        return 0;
    }
    status = try_shards(merge, fd, err);
    close(fd);
    return status;
}

int clones_check(const struct lorafold_merge *merge, struct error *err)
{
    if (merge->options.clone != LORAFOLD_CLONE_ALWAYS || !merge->clone_refusal.code)
        return 0;
    *err = merge->clone_refusal;
    return err->code;
}

int clones_check_several(const struct lorafold_merge *merge, struct error *err)
{
    if (clones_check(merge, err) == 0)
        return 0;
    if (merge->base_elsewhere && try_outputs(merge->options.output) == 0)
        *err = (struct error){ 0 };
    return err->code;
}

int clones_list(const struct lorafold_merge *merge, size_t index, struct output_clone **out,
                size_t *count, struct error *err)
{
    const struct plan *plan = &merge->plan;
    const struct plan_file *file = &plan->files[index];
    struct output_clone *list;

    *out = NULL;
    *count = 0;
    if (!merge->order.cloned[index])
        return 0;
    list = calloc(file->clone_count, sizeof(*list));
    if (!list)
        return error_no_memory(err, "the list of files");
    for (size_t i = 0; i < file->clone_count; i++) {
        const struct plan_clone *from = &plan->clones[file->clone_first + i];

        list[i] = (struct output_clone){ .offset = from->offset,
                                         .bytes = from->bytes,
                                         .shard = from->input,
                                         .shard_offset = from->in_offset };
    }
    *out = list;
    *count = file->clone_count;
    return 0;
}
