/* crew_device.c - workers that compute on a device */
#include "pipeline/internal.h"

void crew_trace(struct crew *crew, struct trace *trace)
{
    for (unsigned i = 0; i < crew->worker_count; i++) {
        crew->workers[i].lane.trace = trace;
        crew->workers[i].lane.number = i;
    }
}

void crew_begin(struct crew *crew, const struct job *job)
{
    for (unsigned i = 0; i < crew->worker_count; i++)
        lane_begin(&crew->workers[i].lane, job, NULL);
}

int crew_use_device(struct crew *crew, const struct plan_memory *memory,
                    const struct pipeline_options *options, struct error *err)
{
    for (unsigned i = 0; i < crew->worker_count; i++) {
        struct worker *worker = &crew->workers[i];

        /* What was read for the processor is not on the device. */
        worker->held = NULL;
        worker->decoder.tensor = NULL;
        if (lane_open(&worker->lane, options->device_ops, options->device, memory,
                      (uint8_t *)crew->memory + i * memory->scratch_bytes, err))
            return err->code;
    }
    return 0;
}

int job_use_device(struct job *job, struct crew *crew, const struct pipeline_options *options,
                   struct error *err)
{
    struct lane *lane = &crew->workers[0].lane;
    uint64_t norm_bytes = job->plan->norm_count * sizeof(float);
    void *memory;

    if (job->memory && options->device_ops->pin(options->device, job->memory, job->memory_bytes)) {
        job->pinned = options->device_ops;
        job->device = options->device;
    }
    for (int i = 0; i < 2 && job->memory; i++) {
        if (options->device_ops->take(options->device, &memory, job->memory_bytes / 2, err))
            return err->code;
        job->regions[i].device = memory;
    }
    if (norm_bytes == 0)
        return 0;
    if (options->device_ops->take(options->device, &memory, norm_bytes, err))
        return err->code;
    job->device_norms = memory;
    lane_begin(lane, job, NULL);
    if (lane_send(lane, job->norms, norm_bytes, err)) {
        lane_abandon(lane);
        return err->code;
    }
    return lane_finish(lane, err);
}
