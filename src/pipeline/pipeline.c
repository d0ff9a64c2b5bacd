#include "pipeline/control.h"
#include "pipeline/prepare.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int take_slots(struct control *control, struct error *err)
{
    const struct plan_memory *memory = &control->plan->memory;

    if (pool_open(&control->pool, memory->slot_count * memory->slot_bytes, true, err))
        return err->code;
    control->slots = calloc(memory->slot_count, sizeof(*control->slots));
    if (!control->slots)
        return error_no_memory(err, "the slots");
    control->slot_count = memory->slot_count;
    for (unsigned i = 0; i < control->slot_count; i++)
        control->slots[i].memory = control->pool.memory + i * memory->slot_bytes;
    control->result->pool_bytes = control->pool.bytes;
    control->result->huge_bytes = control->pool.huge_bytes;
    if (control->pool.huge_bytes < control->pool.bytes / 2)
        log_say(control->options->log, LOG_NOTICE,
                "only %zu of %zu MiB of buffers lie in huge pages, which can halve the disk rate: "
                "allow them with 'echo madvise > /sys/kernel/mm/transparent_hugepage/enabled'",
                (size_t)(control->pool.huge_bytes / MIB), (size_t)(control->pool.bytes / MIB));
    return 0;
}

/* Create every output in full: a disk that is too small is found before any work. */
static int create_outputs(struct control *control, struct error *err)
{
    const struct plan *plan = control->plan;

    control->inputs = calloc(plan->input_count + 1, sizeof(*control->inputs));
    control->outputs = calloc(plan->file_count + 1, sizeof(*control->outputs));
    if (!control->inputs || !control->outputs)
        return error_no_memory(err, "the open files");
    for (size_t i = 0; i < plan->input_count; i++)
        control->inputs[i].file = FILE_CLOSED;
    for (size_t i = 0; i < plan->file_count; i++) {
        control->outputs[i].file = FILE_CLOSED;
        control->outputs[i].blocks_left = plan->files[i].block_count;
    }
    for (size_t i = 0; i < plan->file_count; i++) {
        if (file_create_output(control->directory_fd, plan->files[i].name,
                               align_up(plan->files[i].bytes, PAGE_BYTES), err))
            return err->code;
    }
    return 0;
}

static int count_codes(struct control *control, struct error *err)
{
    const struct plan *plan = control->plan;

    if (plan->encoding_count == 0)
        return 0;
    control->codes_left = calloc(plan->encoding_count, sizeof(*control->codes_left));
    if (!control->codes_left)
        return error_no_memory(err, "the encodings");
    for (size_t i = 0; i < plan->encoding_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[plan->encodings[i]->tensor];

        control->codes_left[i] = (tensor->out_offset + tensor->out_bytes - 1) / PLAN_BLOCK_BYTES -
                                 tensor->out_offset / PLAN_BLOCK_BYTES + 1;
    }
    return 0;
}

static int open_ring(struct control *control, struct error *err)
{
    const struct plan *plan = control->plan;
    /* A block has its reads, then its write, then perhaps the sync of its file. */
    unsigned depth = plan->memory.slot_count * (PLAN_READS_MAX + 1) + CONTROL_SYNCS_MAX;

    if (ring_open(&control->ring, control->options->ring, depth, err))
        return err->code;
    control->result->ring_name = ring_name(control->ring);
    snprintf(control->result->ring_reason, sizeof(control->result->ring_reason), "%s",
             ring_reason(control->ring));
    return 0;
}

static void close_all(struct control *control)
{
    crew_close(&control->crew); /* workers wake the ring: they end first */
    job_close(&control->job);
    if (control->abandoned)
        return; /* rather leaked than written to by the kernel after it is freed */
    ring_close(control->ring);
    for (size_t i = 0; control->inputs && i < control->plan->input_count; i++)
        file_close(&control->inputs[i].file);
    for (size_t i = 0; control->outputs && i < control->plan->file_count; i++)
        file_close(&control->outputs[i].file);
    free(control->codes_left);
    free(control->inputs);
    free(control->outputs);
    free(control->slots);
    pool_close(&control->pool);
}

/* What blocks need and cannot make themselves. */
static int prepare(struct control *control, const atomic_int *cancelled, struct error *err)
{
    const struct scratch *scratch = &control->crew.workers[0].scratch;
    struct fold_environment environment;
    int status;

    fold_environment_enter(&environment);
    status = prepare_factors(&control->job, scratch, control->directory_fd, cancelled, err);
    if (!status)
        status = prepare_norms(&control->job, scratch, cancelled, err);
    if (!status)
        status = prepare_scales(&control->job, &control->crew, scratch, cancelled,
                                err); /* deltas need norms */
    fold_environment_leave(&environment);
    return status;
}

void pipeline_cancel(struct pipeline_stop *stop)
{
    struct ring *ring;

    atomic_store(&stop->cancelled, 1);
    atomic_fetch_add(&stop->waking, 1);
    ring = atomic_load(&stop->ring);
    if (ring)
        ring_wake(ring);
    atomic_fetch_sub(&stop->waking, 1);
}

int pipeline_run(const struct plan *plan, int directory_fd, const struct pipeline_options *options,
                 struct pipeline_stop *stop, struct pipeline_result *result, struct error *err)
{
    struct error first = { 0 };
    struct control control = { .plan = plan,
                               .options = options,
                               .result = result,
                               .error = &first,
                               .directory_fd = directory_fd,
                               .newest_input = 0 };
    int status;

    *result = (struct pipeline_result){ .direct_in = true, .direct_out = true };
    status = create_outputs(&control, err);
    if (!status)
        status = count_codes(&control, err);
    if (!status)
        status = take_slots(&control, err);
    if (!status)
        status = open_ring(&control, err);
    if (!status)
        status = job_open(&control.job, plan, options, err);
    if (!status)
        status = crew_open(&control.crew, plan, control.ring, err);
    if (!status)
        status = prepare(&control, &stop->cancelled, err);
    if (!status) {
        atomic_store(&stop->ring, control.ring);
        status = control_loop(&control, &stop->cancelled);
        atomic_store(&stop->ring, NULL);
        while (atomic_load(&stop->waking) > 0)
            sched_yield(); /* another thread is inside ring_wake(), which does not block */
        if (status)
            *err = first;
    }
    if (!status) {
        result->digests = control.job.digests;
        control.job.digests = NULL;
    }
    for (int i = 0; i < STAGE_COUNT; i++)
        result->stage_seconds[i] = control.stage_seconds[i];
    close_all(&control);
    return status;
}
