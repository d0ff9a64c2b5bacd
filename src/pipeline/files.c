#include "pipeline/control.h"

#include <string.h>

static int open_input(struct control *control, uint32_t index, struct error *err)
{
    struct open_input *input = &control->inputs[index];

    if (input->file.fd < 0) {
        if (file_open_input(&input->file, control->plan->inputs[index].path,
                            control->options->direct, err))
            return err->code = ERR_FAILED; /* it was there when it was planned with */
        control->result->direct_in &= input->file.direct;
    }
    input->users++;
    return 0;
}

/* An input stays open while the newest block reads it, so that it is opened once. */
static void close_idle(struct control *control, uint32_t index)
{
    struct open_input *input = &control->inputs[index];

    if (input->users == 0 && index != control->newest_input)
        file_close(&input->file);
}

static void release_input(struct control *control, uint32_t index)
{
    control->inputs[index].users--;
    close_idle(control, index);
}

void control_release_inputs(struct control *control, const struct plan_block *block)
{
    for (uint32_t i = 0; i < block->read_count; i++)
        release_input(control, block->reads[i].input);
}

static int open_output(struct control *control, uint32_t index, struct error *err)
{
    struct open_output *output = &control->outputs[index];

    if (output->file.fd >= 0)
        return 0;
    if (file_open_output(&output->file, control->directory_fd, control->plan->files[index].name,
                         control->options->direct, err))
        return err->code;
    control->result->direct_out &= output->file.direct;
    return 0;
}

int control_open_block(struct control *control, const struct plan_block *block, struct error *err)
{
    uint32_t opened = 0;

    if (open_output(control, block->file, err))
        return err->code;
    for (; opened < block->read_count; opened++) {
        uint32_t before = control->newest_input;

        if (open_input(control, block->reads[opened].input, err))
            break;
        control->newest_input = block->reads[opened].input;
        if (before != control->newest_input)
            close_idle(control, before);
    }
    if (opened == block->read_count)
        return 0;
    while (opened > 0)
        release_input(control, block->reads[--opened].input);
    return err->code;
}

void control_drop_input(struct control *control, const struct plan_read *read)
{
    const struct file *file = &control->inputs[read->input].file;

    if (!file->direct)
        file_drop_cache(file, read->offset, read->bytes);
}

int control_block_written(struct control *control, const struct plan_block *block,
                          struct error *err)
{
    struct open_output *output = &control->outputs[block->file];
    const struct plan_file *file = &control->plan->files[block->file];

    if (!output->file.direct)
        file_drop_cache(&output->file, block->offset, block->bytes);
    if (--output->blocks_left > 0)
        return 0;
    if (file_truncate(&output->file, file->bytes, err)) {
        error_prefix(err, "cannot finish '%s'", file->name);
        return err->code;
    }
    output->sync = (struct ring_request){ .operation = RING_SYNC,
                                          .file = &output->file,
                                          .user = output };
    ring_submit(control->ring, &output->sync);
    control->in_flight++;
    control->syncs++;
    return 0;
}

int control_file_synced(struct control *control, struct ring_request *request, struct error *err)
{
    struct open_output *output = request->user;
    const struct plan_file *file = &control->plan->files[output - control->outputs];
    char reason[128];

    control->syncs--;
    if (request->status)
        return error_set(err, ERR_FAILED, "cannot sync '%s': %s", file->name,
                         strerror_r(request->status, reason, sizeof(reason)));
    file_close(&output->file);
    return 0;
}
