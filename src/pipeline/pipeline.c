#include "pipeline/control.h"
#include "pipeline/prepare.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Through which outputs with a base read it, behind the slots. */
static int open_windows(struct control *control, uint8_t *memory, unsigned count, struct error *err)
{
    for (size_t i = 0; i < control->output_count; i++) {
        const struct pipeline_output *order = control->outputs[i].order;

        if (order->shares_base)
            return windows_open(&control->windows, memory, count, order->plan,
                                control->options->direct, err);
    }
    return 0;
}

/* Slots that a device reads and writes, in the pool if it may be pinned. */
static uint8_t *pin_slots(struct control *control)
{
    const struct pipeline_options *options = control->options;
    struct pool *pool = &control->pool;
    struct error why = { 0 };
    void *memory;

    control->pool_pinned = options->device_ops->pin(options->device, pool->memory, pool->bytes);
    if (control->pool_pinned)
        return pool->memory;
    if (options->device_ops->take_pinned(options->device, &memory, pool->bytes, &why)) {
        log_say(options->log, LOG_NOTICE,
                "the buffers cannot be pinned, so transfers to the device are slow: %s", why.text);
        return pool->memory;
    }
    pool_close(pool);
    return memory;
}

static int take_slots(struct control *control, const struct plan_memory *memory, struct error *err)
{
    size_t slot_bytes = memory->slot_count * memory->slot_bytes;
    size_t most = min_u64(control->output_count, CONTROL_DESTINATIONS_MAX);
    uint8_t *slots;

    if (pool_open(&control->pool, slot_bytes + memory->window_count * WINDOW_BYTES, true, err))
        return err->code;
    control->slots = calloc(memory->slot_count, sizeof(*control->slots));
    control->destinations = calloc(memory->slot_count * most, sizeof(*control->destinations));
    if (!control->slots || !control->destinations)
        return error_no_memory(err, "the slots");
    control->slot_count = memory->slot_count;
    slots = control->options->device_ops ? pin_slots(control) : control->pool.memory;
    for (unsigned i = 0; i < control->slot_count; i++) {
        control->slots[i].memory = slots + i * memory->slot_bytes;
        control->slots[i].destinations = &control->destinations[i * most];
    }
    if (memory->window_count &&
        open_windows(control, slots + slot_bytes, memory->window_count, err))
        return err->code;
    if (control->pool.huge_bytes < control->pool.bytes / 2)
        log_say(control->options->log, LOG_NOTICE,
                "only %zu of %zu MiB of buffers lie in huge pages, which can halve the disk rate: "
                "allow them with 'echo madvise > /sys/kernel/mm/transparent_hugepage/enabled'",
                (size_t)(control->pool.huge_bytes / MIB), (size_t)(control->pool.bytes / MIB));
    return 0;
}

static int open_ring(struct control *control, const struct plan_memory *memory, struct error *err)
{
    /* A block has its reads, then its write, then perhaps the sync of its file. */
    unsigned depth = memory->slot_count * (PLAN_READS_MAX + 1) + memory->window_count +
                     CONTROL_SYNCS_MAX;

    if (ring_open(&control->ring, control->options->ring, depth, err))
        return err->code;
    control->result->ring_name = ring_name(control->ring);
    snprintf(control->result->ring_reason, sizeof(control->result->ring_reason), "%s",
             ring_reason(control->ring));
    return 0;
}

static void close_all(struct control *control)
{
    const struct pipeline_options *options = control->options;

    crew_close(&control->crew); /* workers wake the ring: they end first */
    control->result->abandoned = control->abandoned;
    if (control->abandoned)
        return; /* rather leaked than written to by the kernel after it is freed */
    if (control->pool_pinned)
        options->device_ops->unpin(options->device, control->pool.memory);
    ring_close(control->ring);
    for (size_t i = 0; i < control->output_count; i++)
        output_close(&control->outputs[i]);
    windows_close(&control->windows);
    free(control->outputs);
    free(control->destinations);
    free(control->slots);
    pool_close(&control->pool);
}

/* What blocks of an output need and cannot make themselves. */
static int prepare(struct control *control, struct output *output, const atomic_int *cancelled,
                   struct error *err)
{
    const struct scratch *scratch = &control->crew.workers[0].scratch;
    struct fold_environment environment;
    struct job *job = &output->job;
    struct prepare_watch watch;
    int status;

    prepare_watch(&watch, job->plan, (size_t)(output - control->outputs), control->options,
                  cancelled);
    fold_environment_enter(&environment);
    crew_begin(&control->crew, job);
    status = prepare_factors(job, scratch, output->order->directory_fd, &watch, err);
    if (!status)
        status = prepare_norms(job, scratch, &watch, err);
    if (!status)
        status = prepare_scales(job, &control->crew, scratch, &watch, err); /* deltas need norms */
    fold_environment_leave(&environment);
    return status;
}

/* Begin every output; one that cannot be is given up. */
static int open_outputs(struct control *control, struct pipeline_output *outputs, size_t count,
                        const atomic_int *cancelled, struct error *err)
{
    control->outputs = calloc(count, sizeof(*control->outputs));
    if (!control->outputs)
        return error_no_memory(err, "the outputs");
    control->output_count = count;
    for (size_t i = 0; i < count; i++) {
        struct error inner = { 0 };

        if (output_open(&control->outputs[i], &outputs[i], control->options, cancelled, &inner))
            control_fail(control, inner.code == ERR_CANCELLED ? NULL : &control->outputs[i],
                         &inner);
    }
    return 0;
}

static void prepare_outputs(struct control *control, const atomic_int *cancelled)
{
    for (size_t i = 0; i < control->output_count && !control->failed; i++) {
        struct output *output = &control->outputs[i];
        struct error inner = { 0 };

        if (!output->failed && prepare(control, output, cancelled, &inner))
            control_fail(control, inner.code == ERR_CANCELLED ? NULL : output, &inner);
        output_check(control, output);
    }
}

/* What was prepared is there: workers go over to the device, which all outputs share. */
static void use_device(struct control *control, const struct plan_memory *memory)
{
    const struct pipeline_options *options = control->options;
    struct error err = { 0 };
    int status;

    if (!options->device_ops || control->failed)
        return;
    status = crew_use_device(&control->crew, memory, options, &err);
    crew_trace(&control->crew, control->trace);
    for (size_t i = 0; i < control->output_count && !status; i++) {
        struct output *output = &control->outputs[i];

        if (!output->failed)
            status = job_use_device(&output->job, &control->crew, options, &err);
    }
    if (status)
        control_fail(control, NULL, &err);
}

void pipeline_wake(struct pipeline_stop *stop)
{
    struct ring *ring;

    atomic_fetch_add(&stop->waking, 1);
    ring = atomic_load(&stop->ring);
    if (ring)
        ring_wake(ring);
    atomic_fetch_sub(&stop->waking, 1);
}

void pipeline_cancel(struct pipeline_stop *stop)
{
    atomic_store(&stop->cancelled, 1);
    pipeline_wake(stop);
}

static void run_loop(struct control *control, struct pipeline_stop *stop)
{
    atomic_store(&stop->ring, control->ring);
    control_loop(control, &stop->cancelled);
    atomic_store(&stop->ring, NULL);
    while (atomic_load(&stop->waking) > 0)
        sched_yield(); /* another thread is inside ring_wake(), which does not block */
}

int pipeline_run(struct pipeline_output *outputs, size_t count, const struct plan_memory *memory,
                 const struct pipeline_options *options, struct pipeline_stop *stop,
                 struct pipeline_result *result, struct error *err)
{
    struct error first = { 0 };
    struct error inner = { 0 };
    struct control control = { .options = options, .result = result, .error = &first };

    control.shares = options->share && count > 1;
    *result = (struct pipeline_result){ .direct_in = true, .direct_out = true };
    if (options->trace && trace_open(&control.trace, options->trace, &inner))
        control_fail(&control, NULL, &inner);
    else if (open_outputs(&control, outputs, count, &stop->cancelled, &inner) ||
             take_slots(&control, memory, &inner) || open_ring(&control, memory, &inner) ||
             crew_open(&control.crew, memory, control.ring, &inner))
        control_fail(&control, NULL, &inner);
    if (!control.failed)
        crew_trace(&control.crew, control.trace);
    if (!control.failed)
        prepare_outputs(&control, &stop->cancelled);
    use_device(&control, memory);
    if (!control.failed)
        run_loop(&control, stop);
    for (size_t i = 0; i < control.output_count && !control.abandoned; i++)
        output_end(&control, &control.outputs[i]);
    for (size_t i = 0; i < count; i++) {
        if (outputs[i].error.code == 0 && (!control.outputs || !control.outputs[i].ended))
            outputs[i].error = first;
    }
    for (int i = 0; i < STAGE_COUNT; i++)
        result->stage_seconds[i] = control.stage_seconds[i];
    close_all(&control);
    inner = (struct error){ 0 };
    if (trace_close(control.trace, &inner) && !first.code)
        first = inner;
    if (first.code)
        *err = first;
    return first.code;
}
