/* prepare.c - how far the preparation is, and whether it is to go on */
#include "pipeline/prepare.h"

#include "base/clock.h"

#define PROGRESS_SECONDS 0.1

void prepare_watch(struct prepare_watch *watch, const struct plan *plan, size_t output,
                   const struct pipeline_options *options, const atomic_int *cancelled)
{
    *watch = (struct prepare_watch){ .options = options,
                                     .cancelled = cancelled,
                                     .output = output,
                                     .thread = pthread_self(),
                                     .bytes = plan->bytes_read_twice + plan->bytes_rescaled,
                                     .shown = clock_seconds() };
    for (size_t i = 0; i < plan->repack_count; i++)
        watch->bytes += plan->repacks[i].count * plan->repacks[i].rank * sizeof(float);
}

int prepare_step(struct prepare_watch *watch, uint64_t bytes, struct error *err)
{
    uint64_t done = atomic_fetch_add(&watch->done, bytes) + bytes;
    double now;

    if (atomic_load(watch->cancelled))
        return error_set(err, ERR_CANCELLED, "cancelled");
    if (!watch->options->progress || !pthread_equal(watch->thread, pthread_self()))
        return 0;
    now = clock_seconds();
    if (now - watch->shown >= PROGRESS_SECONDS) {
        const struct pipeline_progress progress = { .bytes_done = min_u64(done, watch->bytes),
                                                    .bytes_prepared = watch->bytes,
                                                    .output = watch->output };

        watch->shown = now;
        watch->options->progress(watch->options->context, &progress);
    }
    return 0;
}
