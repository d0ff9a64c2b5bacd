#include "pipeline/control.h"

#include "io/clone.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int create(const struct output *output, const struct plan_file *file, bool cloned,
                  struct error *err)
{
    uint64_t bytes = align_up(file->bytes, PAGE_BYTES);
    const struct plan_clone *clones;
    struct file_range *spared;
    int status;

    if (!cloned)
        return file_create_output(output->order->directory_fd, file->name, bytes, err);
    clones = &output->order->plan->clones[file->clone_first];
    spared = calloc(file->clone_count, sizeof(*spared));
    if (!spared)
        return error_no_memory(err, "the parts of a file");
    for (size_t i = 0; i < file->clone_count; i++)
        spared[i] = (struct file_range){ clones[i].offset, clones[i].bytes };
    /* Part of a page is cloned only as the end of the file, which then is where it will stay. */
    if (clones[file->clone_count - 1].bytes % PAGE_BYTES)
        bytes = file->bytes;
    status = file_create_sparing(output->order->directory_fd, file->name, bytes, spared,
                                 file->clone_count, err);
    free(spared);
    return status;
}

/* A failure of clone_range(), or a refusal that is not to be put up with, as an error. */
static int clone_failed(const struct output *output, const struct plan_file *file,
                        const struct plan_clone *clone, int status, struct error *err)
{
    char reason[128];

    if (status == ECANCELED)
        return error_set(err, ERR_CANCELLED, "cancelled");
    return error_set(err, ERR_FAILED,
                     "cannot clone %" PRIu64 " bytes at %" PRIu64 " of '%s' into '%s': %s%s",
                     clone->bytes, clone->in_offset, output->order->plan->inputs[clone->input].path,
                     file->name, strerror_r(status, reason, sizeof(reason)),
                     clone_is_refused(status) ? "; --clone auto copies instead" : "");
}

/* All runs of a file; *refused: an errno value, if one of them cannot be cloned and need not be. */
static int clone_runs(const struct output *output, const struct plan_file *file,
                      const struct file *to, int *refused, struct error *err)
{
    const struct plan *plan = output->order->plan;
    struct file from = FILE_CLOSED;
    uint32_t opened = 0;
    int status = 0;

    *refused = 0;
    for (size_t i = 0; i < file->clone_count && !status && !*refused; i++) {
        const struct plan_clone *clone = &plan->clones[file->clone_first + i];
        int result;

        if (from.fd < 0 || clone->input != opened) {
            file_close(&from);
            opened = clone->input;
            status = file_open_input(&from, plan->inputs[opened].path, FILE_DIRECT_OFF, err);
            if (status)
                return err->code = ERR_FAILED; /* it was there when it was planned with */
        }
        result = clone_range(from.fd, clone->in_offset, to->fd, clone->offset, clone->bytes,
                             output->cancelled);
        if (clone_is_refused(result) && !output->order->clone_always)
            *refused = result;
        else if (result)
            status = clone_failed(output, file, clone, result, err);
    }
    file_close(&from);
    return status;
}

/* A file whose untouched runs are cloned; *refused as above, then it is as before. */
static int create_cloned(const struct output *output, const struct plan_file *file, int *refused,
                         struct error *err)
{
    struct file to = FILE_CLOSED;
    int status;

    if (create(output, file, true, err) ||
        file_open_output(&to, output->order->directory_fd, file->name, FILE_DIRECT_OFF, err))
        return err->code;
    status = clone_runs(output, file, &to, refused, err);
    file_close(&to);
    if (!status && *refused && unlinkat(output->order->directory_fd, file->name, 0) < 0)
        status = error_set_errno(err, "cannot remove '%s'", file->name);
    return status;
}

/* The file is there with its runs: these have no blocks. */
static void count_clones(struct output *output, struct open_file *open,
                         const struct plan_file *file)
{
    open->cloned = true;
    for (size_t i = 0; i < file->clone_count; i++) {
        const struct plan_clone *clone = &output->order->plan->clones[file->clone_first + i];

        open->blocks_left -= clone->block_count;
        output->order->bytes_cloned += clone->bytes;
    }
}

int output_create_file(struct output *output, uint32_t index, struct error *err)
{
    const struct plan_file *file = &output->order->plan->files[index];
    struct open_file *open = &output->files[index];
    char reason[128];
    int refused = 0;

    if (open->created)
        return 0;
    open->created = true;
    if (file->clone_count == 0)
        return create(output, file, false, err);
    if (create_cloned(output, file, &refused, err))
        return err->code;
    if (refused) {
        log_say(output->log, LOG_DETAIL,
                "nothing of '%s' is cloned from the base, it is copied: %s", file->name,
                strerror_r(refused, reason, sizeof(reason)));
        return create(output, file, false, err);
    }
    count_clones(output, open, file);
    output->order->cloned[index] = true;
    return 0;
}

int output_create_files(struct output *output, struct error *err)
{
    struct pipeline_output *order = output->order;
    const struct plan *plan = order->plan;
    bool one_by_one = order->outlet && order->outlet->may_begin;

    output->inputs = calloc(plan->input_count + 1, sizeof(*output->inputs));
    output->files = calloc(plan->file_count + 1, sizeof(*output->files));
    order->cloned = calloc(plan->file_count + 1, sizeof(*order->cloned));
    for (size_t i = 0; output->inputs && i < plan->input_count; i++)
        output->inputs[i].file = FILE_CLOSED;
    for (size_t i = 0; output->files && i < plan->file_count; i++)
        output->files[i] = (struct open_file){ .file = FILE_CLOSED,
                                               .blocks_left = plan->files[i].block_count,
                                               .output = output };
    if (!output->inputs || !output->files || !order->cloned)
        return error_no_memory(err, "the open files");
    output->files_left = (uint32_t)plan->file_count;
    /* Files that leave while others are made take the space of one before. */
    for (uint32_t i = 0; i < plan->file_count && !one_by_one; i++) {
        if (output_create_file(output, i, err))
            return err->code;
    }
    return 0;
}
