#include "pipeline/internal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
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
    const struct plan *plan = crew->plan;
    const struct plan_target *target = &plan->targets[plan->residents[region->resident]];

    region->status = factors_pack(crew, scratch, target, region->packed, &region->error);
    pthread_mutex_lock(&crew->mutex);
    region->next = crew->loaded;
    crew->loaded = region;
    pthread_mutex_unlock(&crew->mutex);
    ring_wake(crew->ring);
}

static void compute_slot(struct crew *crew, const struct scratch *scratch, struct slot *slot)
{
    slot->status = block_compute(crew, scratch, slot, &slot->error);
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
static float *cut_scratch(struct worker *worker, float *memory, bool tiles, bool quants)
{
    struct scratch *scratch = &worker->scratch;
    struct decoder *decoder = &worker->decoder;

    scratch->held = &worker->held;
    scratch->a = memory;
    memory += PLAN_A_FLOATS;
    scratch->b = memory;
    memory += PLAN_B_FLOATS;
    scratch->raw = (uint8_t *)memory;
    memory += PLAN_RAW_BYTES / sizeof(float);
    if (tiles) {
        scratch->tile_w = memory;
        scratch->tile_sum = memory + PLAN_TILE_FLOATS;
        memory += 2 * PLAN_TILE_FLOATS;
    }
    if (worker->crew->plan->encoded || worker->crew->plan->roundtrips) {
        struct encoder *encoder = &scratch->encoder;

        encoder->middle = (uint8_t *)memory;
        encoder->values = memory + PLAN_ENCODED_ELEMENTS;
        encoder->absmax = encoder->values + PLAN_ENCODED_ELEMENTS;
        encoder->codes = (uint8_t *)(encoder->absmax + PLAN_ENCODED_ELEMENTS / PLAN_ENCODING_BLOCK);
        encoder->amax = (float *)(encoder->codes + PLAN_ENCODED_ELEMENTS / 2);
        memory = encoder->amax + align_up(worker->crew->plan->scale_count, PLAN_SCALES_UNIT);
    }
    if (quants) {
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

static int take_memory(struct crew *crew, struct error *err)
{
    const struct plan_memory *memory = &crew->plan->memory;
    uint64_t region_bytes = align_up(memory->region_bytes, 64);
    float *next;

    crew->memory_bytes = 2 * region_bytes + memory->thread_count * memory->scratch_bytes;
    next = mmap(NULL, crew->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                0);
    if (next == MAP_FAILED)
        return error_set_errno(err, "cannot take %zu bytes for factors", crew->memory_bytes);
    crew->memory = next;
    for (int i = 0; i < 2; i++) {
        crew->regions[i] = (struct region){ .packed = next, .resident = PLAN_NO_TARGET };
        next += region_bytes / sizeof(float);
    }
    crew->workers = calloc(memory->thread_count, sizeof(*crew->workers));
    if (!crew->workers)
        return error_no_memory(err, "the workers");
    crew->worker_count = memory->thread_count;
    for (unsigned i = 0; i < crew->worker_count; i++) {
        crew->workers[i].crew = crew;
        next = cut_scratch(&crew->workers[i], next, memory->tiles, crew->plan->decoded > 0);
    }
    return 0;
}

static int open_adapters(struct crew *crew, struct error *err)
{
    const struct plan *plan = crew->plan;
    size_t count = plan->input_count - crew->shard_count;

    crew->adapters = calloc(count + 1, sizeof(*crew->adapters));
    if (!crew->adapters)
        return error_no_memory(err, "the adapters");
    for (size_t i = 0; i < count; i++)
        crew->adapters[i] = FILE_CLOSED;
    for (size_t i = 0; i < count; i++) {
        if (file_open_input(&crew->adapters[i], plan->inputs[crew->shard_count + i].path,
                            FILE_DIRECT_OFF, err))
            return err->code = ERR_FAILED; /* it was there when it was planned with */
    }
    return 0;
}

/* Of a quantised base, for what workers read themselves. */
static int open_shards(struct crew *crew, struct error *err)
{
    if (crew->plan->decoded == 0)
        return 0;
    crew->shards = calloc(crew->shard_count + 1, sizeof(*crew->shards));
    if (!crew->shards)
        return error_no_memory(err, "the shards");
    for (uint32_t i = 0; i < crew->shard_count; i++)
        crew->shards[i] = FILE_CLOSED;
    for (uint32_t i = 0; i < crew->shard_count; i++) {
        if (file_open_input(&crew->shards[i], crew->plan->inputs[i].path, FILE_DIRECT_OFF, err))
            return err->code = ERR_FAILED; /* it was there when it was planned with */
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

int crew_open(struct crew *crew, const struct plan *plan, const struct pipeline_options *options,
              struct ring *ring, struct error *err)
{
    *crew = (struct crew){ .plan = plan,
                           .ops = options->ops,
                           .quant = options->quant,
                           .encode = options->encode,
                           .allow_nonfinite = options->allow_nonfinite,
                           .shard_count = plan->shard_count,
                           .ring = ring };
    pthread_mutex_init(&crew->mutex, NULL);
    pthread_cond_init(&crew->wanted, NULL);
    crew->repacked = FILE_CLOSED;
    crew->digests = calloc(plan->block_count + 1, sizeof(*crew->digests));
    crew->norms = calloc(plan->norm_count + 1, sizeof(*crew->norms));
    if (!crew->digests || !crew->norms)
        return error_no_memory(err, "the digests and norms");
    if (take_memory(crew, err) || open_adapters(crew, err) || open_shards(crew, err))
        return err->code;
    return start_workers(crew, err);
}

void crew_close(struct crew *crew)
{
    if (!crew->plan)
        return;
    pthread_mutex_lock(&crew->mutex);
    crew->ending = true;
    pthread_cond_broadcast(&crew->wanted);
    pthread_mutex_unlock(&crew->mutex);
    for (unsigned i = 0; i < crew->worker_count; i++) {
        if (crew->workers[i].started)
            pthread_join(crew->workers[i].thread, NULL);
    }
    for (size_t i = 0; crew->adapters && i < crew->plan->input_count - crew->shard_count; i++)
        file_close(&crew->adapters[i]);
    free(crew->adapters);
    for (uint32_t i = 0; crew->shards && i < crew->shard_count; i++)
        file_close(&crew->shards[i]);
    free(crew->shards);
    free(crew->workers);
    free(crew->digests);
    free(crew->norms);
    file_close(&crew->repacked);
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
