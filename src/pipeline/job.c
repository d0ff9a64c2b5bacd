/* job.c - what one output is computed from: files that workers read, regions, norms, digests */
#include "pipeline/internal.h"

#include <stdlib.h>
#include <sys/mman.h>

static int take_regions(struct job *job, struct error *err)
{
    uint64_t region_bytes = align_up(job->plan->memory.region_bytes, 64);
    float *next = NULL;

    if (region_bytes) {
        next = mmap(NULL, 2 * region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0);
        if (next == MAP_FAILED)
            return error_set_errno(err, "cannot take %zu bytes for factors",
                                   (size_t)(2 * region_bytes));
        job->memory = next;
        job->memory_bytes = 2 * region_bytes;
    }
    for (int i = 0; i < 2; i++)
        job->regions[i] = (struct region){
            .job = job,
            .packed = next ? next + (size_t)i * region_bytes / sizeof(float) : NULL,
            .resident = PLAN_NO_TARGET,
        };
    return 0;
}

static int open_adapters(struct job *job, struct error *err)
{
    const struct plan *plan = job->plan;
    size_t count = plan->input_count - job->shard_count;

    job->adapters = calloc(count + 1, sizeof(*job->adapters));
    if (!job->adapters)
        return error_no_memory(err, "the adapters");
    for (size_t i = 0; i < count; i++)
        job->adapters[i] = FILE_CLOSED;
    for (size_t i = 0; i < count; i++) {
        if (file_open_input(&job->adapters[i], plan->inputs[job->shard_count + i].path,
                            FILE_DIRECT_OFF, err))
            return err->code = ERR_FAILED; /* it was there when it was planned with */
    }
    return 0;
}

/* Of a quantised base, for what workers read themselves. */
static int open_shards(struct job *job, struct error *err)
{
    if (job->plan->decoded == 0)
        return 0;
    job->shards = calloc(job->shard_count + 1, sizeof(*job->shards));
    if (!job->shards)
        return error_no_memory(err, "the shards");
    for (uint32_t i = 0; i < job->shard_count; i++)
        job->shards[i] = FILE_CLOSED;
    for (uint32_t i = 0; i < job->shard_count; i++) {
        if (file_open_input(&job->shards[i], job->plan->inputs[i].path, FILE_DIRECT_OFF, err))
            return err->code = ERR_FAILED; /* it was there when it was planned with */
    }
    return 0;
}

int job_open(struct job *job, const struct pipeline_output *order,
             const struct pipeline_options *options, struct error *err)
{
    const struct plan *plan = order->plan;

    *job = (struct job){ .plan = plan,
                         .ops = options->ops,
                         .quant = options->quant,
                         .encode = options->encode,
                         .allow_nonfinite = order->allow_nonfinite,
                         .shares_base = order->shares_base,
                         .shard_count = plan->shard_count };
    job->repacked = FILE_CLOSED;
    job->digests = calloc(plan->block_count + 1, sizeof(*job->digests));
    job->norms = calloc(plan->norm_count + 1, sizeof(*job->norms));
    if (!job->digests || !job->norms)
        return error_no_memory(err, "the digests and norms");
    if (plan->torch) {
        job->checksums = calloc(plan->tensor_count, sizeof(*job->checksums));
        if (!job->checksums)
            return error_no_memory(err, "the checksums");
    }
    if (take_regions(job, err) || open_adapters(job, err))
        return err->code;
    return open_shards(job, err);
}

void job_close(struct job *job)
{
    if (!job->plan)
        return;
    for (size_t i = 0; job->adapters && i < job->plan->input_count - job->shard_count; i++)
        file_close(&job->adapters[i]);
    free(job->adapters);
    for (uint32_t i = 0; job->shards && i < job->shard_count; i++)
        file_close(&job->shards[i]);
    free(job->shards);
    free(job->digests);
    free(job->checksums);
    free(job->norms);
    file_close(&job->repacked);
    if (job->pinned)
        job->pinned->unpin(job->device, job->memory);
    if (job->memory)
        munmap(job->memory, job->memory_bytes);
    *job = (struct job){ 0 };
}
