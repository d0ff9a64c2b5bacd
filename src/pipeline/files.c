#include "pipeline/control.h"

#include <string.h>

static int open_input(struct control *control, struct output *output, uint32_t index,
                      struct error *err)
{
    struct open_input *input = &output->inputs[index];

    if (input->file.fd < 0) {
        if (file_open_input(&input->file, output->order->plan->inputs[index].path,
                            control->options->direct, err))
            return err->code = ERR_FAILED; /* it was there when it was planned with */
        control->result->direct_in &= input->file.direct;
    }
    input->users++;
    return 0;
}

/* An input stays open while the newest block reads it, so that it is opened once. */
static void close_idle(struct output *output, uint32_t index)
{
    struct open_input *input = &output->inputs[index];

    if (input->users == 0 && index != output->newest_input)
        file_close(&input->file);
}

static void release_input(struct output *output, uint32_t index)
{
    output->inputs[index].users--;
    close_idle(output, index);
}

bool control_reads_itself(const struct slot *slot, const struct plan_read *read)
{
    return !slot->windowed || !windows_serve(slot->job, read);
}

void control_release_inputs(struct output *output, const struct slot *slot)
{
    for (uint32_t i = 0; i < slot->block.read_count; i++) {
        if (control_reads_itself(slot, &slot->block.reads[i]))
            release_input(output, slot->block.reads[i].input);
    }
}

int control_open_output(struct control *control, struct output *output, uint32_t index,
                        struct error *err)
{
    struct file *file = &output->files[index].file;

    if (file->fd >= 0)
        return 0;
    if (output_create_file(output, index, err) ||
        file_open_output(file, output->order->directory_fd, output->order->plan->files[index].name,
                         control->options->direct, err))
        return err->code;
    control->result->direct_out &= file->direct;
    return 0;
}

int control_open_inputs(struct control *control, struct output *output, const struct slot *slot,
                        struct error *err)
{
    const struct plan_block *block = &slot->block;
    uint32_t done = 0;

    for (; done < block->read_count; done++) {
        uint32_t before = output->newest_input;

        if (!control_reads_itself(slot, &block->reads[done]))
            continue;
        if (open_input(control, output, block->reads[done].input, err))
            break;
        output->newest_input = block->reads[done].input;
        if (before != output->newest_input)
            close_idle(output, before);
    }
    if (done == block->read_count)
        return 0;
    while (done-- > 0) {
        if (control_reads_itself(slot, &block->reads[done]))
            release_input(output, block->reads[done].input);
    }
    return err->code;
}

void control_drop_input(struct output *output, const struct plan_read *read)
{
    const struct file *file = &output->inputs[read->input].file;

    if (!file->direct)
        file_drop_cache(file, read->offset, read->bytes);
}

int control_block_written(struct control *control, const struct destination *to, struct error *err)
{
    struct output *output = to->output;
    struct open_file *open = &output->files[to->file];
    const struct plan_file *file = &output->order->plan->files[to->file];

    if (!open->file.direct)
        file_drop_cache(&open->file, to->offset, to->bytes);
    if (--open->blocks_left > 0)
        return 0;
    if (file_truncate(&open->file, file->bytes, err)) {
        error_prefix(err, "cannot finish '%s'", file->name);
        return err->code;
    }
    open->sync = (struct ring_request){ .operation = RING_SYNC, .file = &open->file, .user = open };
    ring_submit(control->ring, &open->sync);
    control->in_flight++;
    control->syncs++;
    output->busy++;
    return 0;
}

int control_file_synced(struct control *control, struct ring_request *request, struct error *err)
{
    struct open_file *open = request->user;
    struct output *output = open->output;
    const struct pipeline_outlet *outlet = output->order->outlet;
    uint32_t index = (uint32_t)(open - output->files);
    const struct plan_file *file = &output->order->plan->files[index];
    char reason[128];

    control->syncs--;
    output->busy--;
    if (request->status)
        return error_set(err, ERR_FAILED, "cannot sync '%s': %s", file->name,
                         strerror_r(request->status, reason, sizeof(reason)));
    file_close(&open->file);
    output->files_left--;
    if (outlet && !control_gave_up(control, output))
        outlet->finished(outlet->context, index,
                         (const uint64_t(*)[2])(output->job.digests + file->block_first));
    return 0;
}
