#include "pipeline/internal.h"

#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Next thing to do: a region first, since blocks wait for it.  Blocks until there is one. */
static bool next_task(struct crew *crew, struct region **region, struct slot **slot)
{
    pthread_mutex_lock(&crew->mutex);
    while (!crew->load && !crew->first && !crew->ending)
        pthread_cond_wait(&crew->wanted, &crew->mutex);
    *region = crew->load;
    *slot = NULL;
    if (*region) {
        crew->load = (*region)->next;
    } else if (crew->first) {
        *slot = crew->first;
        crew->first = crew->first->next;
        if (!crew->first)
            crew->last = NULL;
    }
    pthread_mutex_unlock(&crew->mutex);
    return *region || *slot;
}

static void load_region(struct crew *crew, const struct scratch *scratch, struct region *region)
{
    const struct plan *plan = region->job->plan;
    const struct plan_target *target = &plan->targets[plan->residents[region->resident]];
    double began = clock_seconds();

    lane_begin(scratch->lane, region->job, NULL);
    region->status = factors_pack(region->job, scratch, target, region->packed, &region->error);
    if (!region->status)
        region->status = lane_upload(
            scratch->lane, region->packed,
            fold_packed_floats(target->rank_sum, target->cols) * sizeof(float), &region->error);
    if (!region->status)
        region->status = lane_finish(scratch->lane, &region->error);
    if (region->status)
        lane_abandon(scratch->lane);
    trace_add(scratch->lane->trace, TRACE_FACTORS, scratch->lane->number, TRACE_NO_BLOCK, began,
              clock_seconds());
    pthread_mutex_lock(&crew->mutex);
    region->next = crew->loaded;
    crew->loaded = region;
    pthread_mutex_unlock(&crew->mutex);
    ring_wake(crew->ring);
}

static void compute(const struct scratch *scratch, struct slot *slot)
{
    for (unsigned i = 0; i < slot->piece_count && slot->step == BLOCK_TENSORS; i++)
        memcpy(slot->memory + slot->pieces[i].position, slot->pieces[i].from,
               slot->pieces[i].bytes);
    slot->status = block_compute(scratch, slot, &slot->error);
}

static void compute_slot(struct crew *crew, const struct scratch *scratch, struct slot *slot)
{
    if (slot->is_shared)
        share_block(slot);
    else
        compute(scratch, slot);
    pthread_mutex_lock(&crew->mutex);
    slot->next = crew->finished;
    crew->finished = slot;
    pthread_mutex_unlock(&crew->mutex);
    ring_wake(crew->ring);
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct fold_environment environment;
    struct region *region;
    struct slot *slot;

    fold_environment_enter(&environment);
    while (next_task(worker->crew, &region, &slot)) {
        if (region)
            load_region(worker->crew, &worker->scratch, region);
        else
            compute_slot(worker->crew, &worker->scratch, slot);
    }
    fold_environment_leave(&environment);
    return NULL;
}

/* Give a worker its share of the memory. */
static float *cut_scratch(struct worker *worker, const struct plan_memory *needs, float *memory)
{
    struct scratch *scratch = &worker->scratch;
    struct decoder *decoder = &worker->decoder;

    scratch->lane = &worker->lane;
    scratch->held = &worker->held;
    scratch->cut = (uint8_t *)memory;
    memory += PLAN_CUT_BYTES / sizeof(float);
    scratch->a = memory;
    memory += PLAN_A_FLOATS;
    scratch->b = memory;
    memory += PLAN_B_FLOATS;
    scratch->raw = (uint8_t *)memory;
    memory += PLAN_RAW_BYTES / sizeof(float);
    if (needs->tiles) {
        scratch->tile_w = memory;
        scratch->tile_sum = memory + PLAN_TILE_FLOATS;
        memory += 2 * PLAN_TILE_FLOATS;
    }
    if (needs->encoders) {
        struct encoder *encoder = &scratch->encoder;

        encoder->middle = (uint8_t *)memory;
        encoder->values = memory + PLAN_ENCODED_ELEMENTS;
        encoder->absmax = encoder->values + PLAN_ENCODED_ELEMENTS;
        encoder->codes = (uint8_t *)(encoder->absmax + PLAN_ENCODED_ELEMENTS / PLAN_ENCODING_BLOCK);
        encoder->amax = (float *)(encoder->codes + PLAN_ENCODED_ELEMENTS / 2);
        memory = encoder->amax + align_up(needs->scale_count, PLAN_SCALES_UNIT);
    }
    if (needs->decoders) {
        scratch->decoder = decoder;
        decoder->decoded = memory;
        decoder->nested = decoder->decoded + PLAN_DECODED_FLOATS;
        decoder->groups = (uint32_t *)(decoder->nested + PLAN_WHOLE_FLOATS);
        decoder->scales = (uint8_t *)(decoder->groups + PLAN_GROUPS_MAX);
        decoder->zeros = decoder->scales + PLAN_COMPANION_BYTES;
        memory = (float *)(decoder->zeros + PLAN_COMPANION_BYTES);
    }
    return memory;
}

static int take_memory(struct crew *crew, const struct plan_memory *memory, struct error *err)
{
    float *next;

    crew->memory_bytes = memory->thread_count * memory->scratch_bytes;
    next = mmap(NULL, crew->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                0);
    if (next == MAP_FAILED)
        return error_set_errno(err, "cannot take %zu bytes for the workers", crew->memory_bytes);
    crew->memory = next;
    crew->workers = calloc(memory->thread_count, sizeof(*crew->workers));
    if (!crew->workers)
        return error_no_memory(err, "the workers");
    crew->worker_count = memory->thread_count;
    for (unsigned i = 0; i < crew->worker_count; i++) {
        crew->workers[i].crew = crew;
        next = cut_scratch(&crew->workers[i], memory, next);
    }
    return 0;
}

/* Signals are for the threads of the host program. */
static int start_workers(struct crew *crew, struct error *err)
{
    sigset_t all;
    sigset_t before;
    int failed = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 0; i < crew->worker_count && !failed; i++) {
        struct worker *worker = &crew->workers[i];

        failed = pthread_create(&worker->thread, NULL, worker_main, worker);
        worker->started = failed == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        errno = failed;
        return error_set_errno(err, "cannot start %u workers", crew->worker_count);
    }
    return 0;
}

int crew_open(struct crew *crew, const struct plan_memory *memory, struct ring *ring,
              struct error *err)
{
    *crew = (struct crew){ .ring = ring, .opened = true };
    pthread_mutex_init(&crew->mutex, NULL);
    pthread_cond_init(&crew->wanted, NULL);
    if (take_memory(crew, memory, err))
        return err->code;
    return start_workers(crew, err);
}

void crew_close(struct crew *crew)
{
    if (!crew->opened)
        return;
    pthread_mutex_lock(&crew->mutex);
    crew->ending = true;
    pthread_cond_broadcast(&crew->wanted);
    pthread_mutex_unlock(&crew->mutex);
    for (unsigned i = 0; i < crew->worker_count; i++) {
        if (crew->workers[i].started)
            pthread_join(crew->workers[i].thread, NULL);
    }
    free(crew->workers);
    if (crew->memory)
        munmap(crew->memory, crew->memory_bytes);
    pthread_cond_destroy(&crew->wanted);
    pthread_mutex_destroy(&crew->mutex);
    *crew = (struct crew){ 0 };
}

void crew_give(struct crew *crew, struct slot *slot)
{
    slot->next = NULL;
    pthread_mutex_lock(&crew->mutex);
    if (crew->last)
        crew->last->next = slot;
    else
        crew->first = slot;
    crew->last = slot;
    pthread_cond_signal(&crew->wanted);
    pthread_mutex_unlock(&crew->mutex);
}

void crew_give_region(struct crew *crew, struct region *region)
{
    pthread_mutex_lock(&crew->mutex);
    region->next = crew->load; /* at most two, in whichever order: both are wanted soon */
    crew->load = region;
    pthread_cond_signal(&crew->wanted);
    pthread_mutex_unlock(&crew->mutex);
}

void crew_take(struct crew *crew, struct slot **slots, struct region **regions)
{
    pthread_mutex_lock(&crew->mutex);
    *slots = crew->finished;
    crew->finished = NULL;
    *regions = crew->loaded;
    crew->loaded = NULL;
    pthread_mutex_unlock(&crew->mutex);
}
