#include "merge_push.h"

#include "push.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARDS_AT_ONCE 2u /* one is made while the one before is sent */

struct merge_push {
    struct push *push;
    struct remote remote;
    struct pipeline_outlet outlet;
    struct digest *blocks; /* of the plan, as far as they are made */
    struct error error;    /* of handing a shard over */
};

static bool has_no_output(const struct lorafold_merge *merge)
{
    return merge->options.no_local;
}

int merge_push_check(struct lorafold_merge *merge, struct error *err)
{
    const struct lorafold_destination *to = &merge->options.push_to;
    const char *slash;

    if (!to->repo)
        return merge->options.no_local
                   ? error_set(err, ERR_USAGE, "--no-local is for a push: give --push-to-hub")
                   : 0;
    if (push_check_destination(to, &merge->options.hub, err))
        return err->code;
    if (!has_no_output(merge) || merge->options.output)
        return 0;
    slash = strchr(to->repo, '/');
    if (asprintf(&merge->work_path, "lorafold-%s", slash ? slash + 1 : to->repo) < 0) {
        merge->work_path = NULL;
        return error_no_memory(err, "a path");
    }
    merge->options.output = merge->work_path;
    return 0;
}

uint64_t merge_push_disk_bytes(const struct lorafold_merge *merge)
{
    const struct plan *plan = &merge->plan;
    uint64_t largest[SHARDS_AT_ONCE] = { 0 };

    if (!has_no_output(merge))
        return plan->bytes_out - plan->bytes_cloned;
    for (size_t i = 0; i < plan->file_count; i++) {
        uint64_t bytes = plan->files[i].bytes;

        if (bytes > largest[0]) {
            largest[1] = largest[0];
            largest[0] = bytes;
        } else if (bytes > largest[1]) {
            largest[1] = bytes;
        }
    }
    return largest[0] + largest[1];
}

uint64_t merge_push_memory(const struct lorafold_merge *merge)
{
    if (!merge->options.push_to.repo)
        return 0;
    return PLAN_BLOCK_BYTES + MIB + merge->plan.block_count * sizeof(struct digest);
}

int merge_push_open(struct lorafold_merge *merge, struct error *err)
{
    struct merge_push *self = calloc(1, sizeof(*self));

    if (!self)
        return error_no_memory(err, "a push");
    merge->push = self;
    self->remote = (struct remote){ .hub = &merge->options.hub,
                                    .log = &merge->log,
                                    .stop = &merge->stop.cancelled,
                                    .progress = merge->options.progress,
                                    .context = merge->options.context };
    self->blocks = calloc(merge->plan.block_count + 1, sizeof(*self->blocks));
    if (!self->blocks)
        return error_no_memory(err, "the digests");
    return push_open(&self->push, &merge->options.push_to,
                     merge->options.save_method == LORAFOLD_LORA, &self->remote, err);
}

/* On the thread of the push: a shard has left, or none ever will. */
static void wake(void *context)
{
    struct lorafold_merge *merge = context;

    if (has_no_output(merge) && push_has_failed(merge->push->push))
        pipeline_cancel(&merge->stop);
    else
        pipeline_wake(&merge->stop);
}

static bool may_begin(void *context, uint32_t file)
{
    struct lorafold_merge *merge = context;

    push_tell(merge->push->push);
    return file < push_left(merge->push->push) + SHARDS_AT_ONCE;
}

static void shard_finished(void *context, uint32_t index, const uint64_t (*digests)[2])
{
    struct lorafold_merge *merge = context;
    struct merge_push *self = merge->push;
    const struct plan_file *file = &merge->plan.files[index];
    struct digest *blocks = self->blocks + file->block_first;
    const struct push_file shard = { .name = file->name,
                                     .bytes = file->bytes,
                                     .blocks = blocks,
                                     .moves = !has_no_output(merge),
                                     .leaves = has_no_output(merge) };

    for (uint64_t i = 0; i < file->block_count; i++)
        memcpy(blocks[i].half, digests[i], sizeof(blocks[i].half));
    if (!self->error.code)
        push_add(self->push, &shard, &self->error);
    push_tell(self->push);
}

int merge_push_begin(struct lorafold_merge *merge, const struct outdir *outdir, struct error *err)
{
    struct merge_push *self = merge->push;
    bool local = !has_no_output(merge);

    self->outlet = (struct pipeline_outlet){ .may_begin = local ? NULL : may_begin,
                                             .finished = shard_finished,
                                             .context = merge };
    merge->outlet = &self->outlet;
    return push_begin(self->push, outdir_fd(outdir), local ? outdir_final_fd(outdir) : -1, wake,
                      merge, err);
}

int merge_push_explain(struct lorafold_merge *merge, struct error *err)
{
    struct lorafold_push_report ignored;
    struct error inner = { 0 };

    if (err->code != ERR_CANCELLED || !has_no_output(merge) || !push_has_failed(merge->push->push))
        return err->code;
    *err = inner;
    push_end(merge->push->push, &merge->push->remote, &ignored, err);
    return err->code;
}

static int send_side_files(struct lorafold_merge *merge, struct error *err)
{
    static const char *const records[] = { BLOCKS_NAME, MANIFEST_NAME };
    struct push *push = merge->push->push;

    for (size_t i = merge->plan.file_count; i < merge->files.count; i++) {
        const struct output_file *of = &merge->files.list[i];
        const struct push_file file = { .name = of->name,
                                        .bytes = of->bytes,
                                        .blocks = of->blocks };

        if (push_add(push, &file, err))
            return err->code;
    }
    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
        struct push_file file = { .name = records[i] };

        if (push_size_of(push, records[i], &file.bytes, err) || push_add(push, &file, err))
            return err->code;
    }
    return 0;
}

/* The output stands: only the push is to be made again. */
static void add_advice(const struct lorafold_merge *merge, struct error *err)
{
    const struct lorafold_merge_options *options = &merge->options;
    struct text command = { 0 };
    struct text sentence = { 0 };

    push_add_command(&command, options->output, &options->push_to, &options->hub);
    if (command.failed)
        text_adds(&sentence, err->text);
    else if (has_no_output(merge))
        text_addf(&sentence,
                  "%s; what the Hub has of it stays there, and the same command sends the rest",
                  err->text);
    else if (err->code == ERR_DIFFERENT)
        text_addf(&sentence,
                  "'%s' is written, but not as it was computed, and nothing was pushed: %s; the "
                  "storage may be failing, make it again",
                  options->output, err->text);
    else
        text_addf(&sentence, "'%s' is complete, but it was not pushed: %s; push it with: %s",
                  options->output, err->text, command.data);
    if (!sentence.failed)
        error_set(err, err->code, "%s", sentence.data);
    text_release(&command);
    text_release(&sentence);
}

int merge_push_end(struct lorafold_merge *merge, struct error *err)
{
    struct merge_push *self = merge->push;
    int status = self->error.code;

    if (status)
        *err = self->error;
    else
        status = send_side_files(merge, err);
    if (!status)
        status = push_end(self->push, &self->remote, &merge->report.pushed, err);
    if (status)
        add_advice(merge, err);
    return status;
}

void merge_push_close(struct lorafold_merge *merge)
{
    if (!merge->push)
        return;
    push_close(merge->push->push);
    free(merge->push->blocks);
    free(merge->push);
    merge->push = NULL;
    merge->outlet = NULL;
}
