/*
 * outputs.c - outputs begin, take turns, and end
 *
 * Outputs go through the base together: the next block is one of the output that has
 * come least far in it, and of several the one whose turn was longest ago.
 */
#include "pipeline/control.h"

#include <stdlib.h>

/* More than a shard may have: the shard's number lies above. */
#define POSITION_SHARD_BITS 44

static int count_codes(struct output *output, struct error *err)
{
    const struct plan *plan = output->order->plan;

    if (plan->encoding_count == 0)
        return 0;
    output->codes_left = calloc(plan->encoding_count, sizeof(*output->codes_left));
    if (!output->codes_left)
        return error_no_memory(err, "the encodings");
    for (size_t i = 0; i < plan->encoding_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[plan->encodings[i]->tensor];

        output->codes_left[i] = plan_tensor_blocks(tensor);
    }
    return 0;
}

static int count_blocks(struct output *output, struct error *err)
{
    const struct plan *plan = output->order->plan;

    if (!plan->torch)
        return 0;
    output->blocks_left = calloc(plan->tensor_count, sizeof(*output->blocks_left));
    if (!output->blocks_left)
        return error_no_memory(err, "the tensors");
    for (uint64_t i = 0; i < plan->tensor_count; i++)
        output->blocks_left[i] = plan_tensor_blocks(&plan->tensors[i]);
    return 0;
}

/* The run that begins with the next block, or NULL: that block is to be made. */
static const struct plan_clone *next_clone(const struct output *output)
{
    const struct plan *plan = output->order->plan;
    const struct plan_file *file = &plan->files[output->next_file];
    const struct plan_clone *clone;

    if (!output->files[output->next_file].cloned || output->next_clone == file->clone_count)
        return NULL;
    clone = &plan->clones[file->clone_first + output->next_clone];
    return clone->block_first == output->next_block ? clone : NULL;
}

/* Go on to the next block that is to be made; false: there is none. */
static bool find_block(struct output *output)
{
    const struct plan *plan = output->order->plan;

    while (output->blocks_started < plan->block_count) {
        const struct plan_clone *clone;

        while (output->next_block == plan->files[output->next_file].block_count) {
            output->next_file++;
            output->next_block = 0;
            output->next_clone = 0;
        }
        clone = next_clone(output);
        if (!clone)
            return true;
        output->next_block += clone->block_count;
        output->blocks_started += clone->block_count;
        output->next_clone++;
    }
    return false;
}

/* Where in the base the next block is; where it reads nothing of it, where the last one was. */
static void find_position(struct output *output)
{
    const struct plan *plan = output->order->plan;
    struct plan_block block;

    if (!find_block(output))
        return;
    plan_block(plan, output->next_file, output->next_block, &block);
    for (uint32_t i = 0; i < block.read_count; i++) {
        const struct plan_read *read = &block.reads[i];

        if (read->input >= plan->shard_count || !output->order->shares_base)
            continue;
        output->position = max_u64(output->position,
                                   ((uint64_t)read->input << POSITION_SHARD_BITS) + read->offset);
        return;
    }
}

int output_open(struct output *output, struct pipeline_output *order,
                const struct pipeline_options *options, const atomic_int *cancelled,
                struct error *err)
{
    output->order = order;
    output->log = options->log;
    output->cancelled = cancelled;
    if (order->error.code) {
        *err = order->error; /* it is given up already */
        return err->code;
    }
    if (job_open(&output->job, order, options, err))
        return err->code;
    output->job.output = output;
    if (output_create_files(output, err) || count_codes(output, err) || count_blocks(output, err))
        return err->code;
    find_position(output);
    return 0;
}

bool output_has_blocks(struct output *output)
{
    const struct pipeline_outlet *outlet = output->order->outlet;

    output->held = false;
    if (output->failed || output->blocks_started == output->order->plan->block_count)
        return false;
    output->held = !output->files[output->next_file].created &&
                   !outlet->may_begin(outlet->context, output->next_file);
    return !output->held;
}

struct output *output_next(struct control *control)
{
    struct output *next = NULL;

    for (size_t i = 0; i < control->output_count; i++) {
        struct output *output = &control->outputs[i];

        if (!output_has_blocks(output))
            continue;
        if (!next || output->position < next->position ||
            (output->position == next->position && output->turn < next->turn))
            next = output;
    }
    return next;
}

void output_next_block(const struct output *output, struct plan_block *block)
{
    plan_block(output->order->plan, output->next_file, output->next_block, block);
}

void output_advance(struct control *control, struct output *output)
{
    output->next_block++;
    output->blocks_started++;
    output->turn = ++control->turns;
    find_position(output);
}

void output_check(struct control *control, struct output *output)
{
    if (output->busy == 0 && (output->files_left == 0 || control_gave_up(control, output)))
        output_end(control, output);
}

void output_end(struct control *control, struct output *output)
{
    const struct pipeline_options *options = control->options;
    struct pipeline_output *order = output->order;
    size_t index = (size_t)(output - control->outputs);

    if (output->ended)
        return;
    output->ended = true;
    if (order->error.code == 0 && control->failed)
        order->error = *control->error;
    if (order->error.code == 0) {
        order->digests = output->job.digests;
        output->job.digests = NULL;
    }
    output_close(output);
    if (options->ended)
        options->ended(options->context, index, &order->error);
    if (order->error.code)
        control_fail(control, output, &order->error);
}

void output_close(struct output *output)
{
    const struct plan *plan = output->order->plan;

    for (size_t i = 0; output->inputs && i < plan->input_count; i++)
        file_close(&output->inputs[i].file);
    for (size_t i = 0; output->files && i < plan->file_count; i++)
        file_close(&output->files[i].file);
    free(output->inputs);
    free(output->files);
    free(output->codes_left);
    free(output->blocks_left);
    output->inputs = NULL;
    output->files = NULL;
    output->codes_left = NULL;
    output->blocks_left = NULL;
    job_close(&output->job);
}
