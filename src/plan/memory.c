/*
 * How the budget is spent.  Fixed costs come first, then at least SLOTS_MIN slots and one
 * worker; what is left goes to resident factors, then to more slots, up to what keeps a fast disk
 * busy (docs/BENCHMARKS.md), because budgets are ceilings and not targets.
 */
#include "plan/plan_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SLOTS_MIN 2u
#define SLOTS_ENOUGH 4u /* before factors get memory */
#define SLOTS_MAX 12u
/* Code, libraries, ring, stacks and allocator of the program, measured and rounded up. */
#define PROGRAM_BYTES (8 * MIB)
#define THREAD_BYTES (128 * KIB) /* stack that a worker touches, and its bookkeeping */
#define THREADS_MAX 256u
/* Streams: a transfer each way and kernels are under way, and others are fetched for and hashed. */
#define LANES 6u
#define LANE_SLOTS_MAX 16u /* some for the disk while all of those are computed */

/* A factor that few blocks need is loaded by the worker that needs it. */
#define RESIDENT_BLOCKS_MIN 3u

static uint64_t packed_bytes(const struct plan_target *target)
{
    return fold_packed_floats(target->rank_sum, target->cols) * sizeof(float);
}

static uint64_t plan_bytes(const struct plan *plan)
{
    return plan->tensor_count * sizeof(*plan->tensors) +
           plan->target_count * sizeof(*plan->targets) + plan->delta_count * sizeof(*plan->deltas) +
           plan->file_count * sizeof(*plan->files) + plan->clone_count * sizeof(*plan->clones) +
           plan->patch_count * sizeof(*plan->patches) +
           plan->repack_count * sizeof(*plan->repacks) +
           plan->input_count * (sizeof(*plan->inputs) + 64) + plan->headers_bytes +
           plan->kept_bytes + plan->target_count * sizeof(*plan->residents) +
           plan->block_count * 16 + (plan->torch ? plan->tensor_count * 12 : 0);
}

/* Is there no way but panels, wherever A lies? */
static bool exceeds_fold(const struct plan_target *target)
{
    return target->rank_sum + target->delta_count > PLAN_B_FLOATS ||
           target->delta_count > PLAN_DELTAS_MAX;
}

bool plan_needs_panels(const struct plan_target *target)
{
    return exceeds_fold(target) || (target->resident == PLAN_NO_TARGET &&
                                    packed_bytes(target) > PLAN_A_FLOATS * sizeof(float));
}

/* A target that many blocks need, whose factors both regions could hold. */
static bool may_be_resident(const struct plan *plan, const struct plan_target *target)
{
    const struct plan_tensor *tensor = &plan->tensors[target->tensor];
    uint64_t elements = target->rows * target->cols;
    uint64_t bytes = tensor->action == PLAN_ENCODE
                         ? elements / (tensor->encoding->same ? plan_codes_per_byte(tensor) : 2)
                         : elements * dtype_bytes((enum dtype)tensor->dtype_out);

    return bytes >= RESIDENT_BLOCKS_MIN * PLAN_BLOCK_BYTES && !exceeds_fold(target);
}

/* The largest packed factor of a resident candidate that is not larger than `limit_bytes`. */
static uint64_t largest_packed(const struct plan *plan, uint64_t limit_bytes)
{
    uint64_t largest = 0;

    for (size_t i = 0; i < plan->target_count; i++) {
        uint64_t bytes = packed_bytes(&plan->targets[i]);

        if (may_be_resident(plan, &plan->targets[i]) && bytes <= limit_bytes)
            largest = max_u64(largest, bytes);
    }
    return largest;
}

static int set_residents(struct plan *plan, uint64_t region_bytes, struct error *err)
{
    free(plan->residents);
    plan->resident_count = 0;
    plan->residents = calloc(plan->target_count + 1, sizeof(*plan->residents));
    if (!plan->residents)
        return error_no_memory(err, "the list of resident factors");
    for (size_t i = 0; i < plan->target_count; i++) {
        struct plan_target *target = &plan->targets[i];

        target->resident = PLAN_NO_TARGET;
        if (may_be_resident(plan, target) && packed_bytes(target) <= region_bytes) {
            target->resident = (uint32_t)plan->resident_count;
            plan->residents[plan->resident_count++] = (uint32_t)i;
        }
    }
    return 0;
}

/* Does some target go panel by panel, as factors are resident now, or have norms? */
static bool needs_tiles(const struct plan *plan)
{
    for (size_t i = 0; i < plan->target_count; i++) {
        if (plan_needs_panels(&plan->targets[i]) || plan->targets[i].norms != PLAN_NORMS_NONE)
            return true;
    }
    return false;
}

static uint64_t norm_bytes(const struct plan *plan)
{
    return plan->norm_count * sizeof(float) + plan->sum_count * sizeof(double) +
           plan->cut_count * sizeof(*plan->cuts);
}

static uint64_t worker_bytes(const struct plan_memory *memory)
{
    bool quants = memory->decoders;
    uint64_t floats = PLAN_A_FLOATS + PLAN_B_FLOATS + (memory->tiles ? 2 * PLAN_TILE_FLOATS : 0) +
                      (quants ? PLAN_DECODED_FLOATS + PLAN_WHOLE_FLOATS + PLAN_GROUPS_MAX : 0);

    if (memory->encoders)
        floats += 2 * PLAN_ENCODED_ELEMENTS + PLAN_ENCODED_ELEMENTS / PLAN_ENCODING_BLOCK +
                  PLAN_ENCODED_ELEMENTS / 8 + align_up(memory->scale_count, PLAN_SCALES_UNIT);
    return floats * sizeof(float) + PLAN_CUT_BYTES + PLAN_RAW_BYTES +
           (quants ? 2 * PLAN_COMPANION_BYTES : 0);
}

/* Of a budget that somebody has given. */
static const char *describe_budget(char out[32], uint64_t bytes)
{
    if (bytes < MIB)
        snprintf(out, 32, "%" PRIu64 " bytes", bytes);
    else
        snprintf(out, 32, "%.1f MiB", (double)bytes / (double)MIB);
    return out;
}

static int too_small(const struct plan_memory *memory, struct error *err)
{
    uint64_t least_mib = (memory->least_bytes + MIB - 1) / MIB;
    char windows[64] = "";
    char given[32];

    if (memory->window_count)
        snprintf(windows, sizeof(windows), "%u pieces of %.1f MiB of the base, ",
                 memory->window_count, (double)WINDOW_BYTES / (double)MIB);
    return error_set(err, ERR_USAGE,
                     "--memory of %s is too small for this merge: it needs at least "
                     "%" PRIu64 "MiB (%" PRIu64 " MiB for headers and the program, %u blocks of "
                     "%.1f MiB, %sone worker)",
                     describe_budget(given, memory->budget_bytes), least_mib,
                     (memory->fixed_bytes + MIB - 1) / MIB, SLOTS_MIN,
                     (double)memory->slot_bytes / (double)MIB, windows);
}

/* Windows of the base, through which several outputs read it. */
#define WINDOWS_MIN 3u
#define WINDOWS_ENOUGH 8u /* besides those that one block needs */

/* Workers that leave three quarters of what is free to blocks and factors. */
static unsigned choose_threads(uint64_t free_bytes, uint64_t thread_bytes, unsigned wanted,
                               unsigned processors)
{
    uint64_t most = free_bytes / 4 / thread_bytes;
    unsigned threads = wanted ? wanted : processors;

    if (most < 1)
        most = 1;
    if (threads > most)
        threads = (unsigned)most;
    return threads > THREADS_MAX ? THREADS_MAX : threads;
}

/* What a worker takes of the host. */
static uint64_t thread_bytes(const struct plan_memory *memory)
{
    return memory->scratch_bytes + THREAD_BYTES +
           (memory->device_budget_bytes ? PLAN_LANE_HOST_BYTES : 0);
}

/* What it takes of a device. */
static uint64_t lane_bytes(const struct plan_memory *memory)
{
    return memory->slot_bytes + memory->scratch_bytes + PLAN_LANE_DEVICE_BYTES;
}

/* What the outputs take of it, without regions. */
static uint64_t device_norm_bytes(struct plan *const *plans, size_t count)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < count; i++)
        bytes += align_up(plans[i]->norm_count * sizeof(float), PAGE_BYTES);
    return bytes;
}

static int check_device(struct plan_memory *memory, struct plan *const *plans, size_t count,
                        struct error *err)
{
    char given[32];

    memory->device_least_bytes = device_norm_bytes(plans, count) + lane_bytes(memory);
    if (memory->device_budget_bytes == 0 ||
        memory->device_budget_bytes >= memory->device_least_bytes)
        return 0;
    return error_set(err, ERR_USAGE,
                     "--gpu-memory of %s is too small for this merge: it needs at least "
                     "%" PRIu64 "MiB (one block of %.1f MiB, and %.1f MiB to work on it)",
                     describe_budget(given, memory->device_budget_bytes),
                     (memory->device_least_bytes + MIB - 1) / MIB,
                     (double)memory->slot_bytes / (double)MIB,
                     (double)(memory->device_least_bytes - memory->slot_bytes) / (double)MIB);
}

/* Of the host's memory for regions, what fits a device too and leaves it two workers if it can. */
static uint64_t limit_regions(const struct plan_memory *memory, struct plan *const *plans,
                              size_t count, uint64_t host_bytes)
{
    uint64_t left = memory->device_budget_bytes;

    if (left == 0)
        return host_bytes;
    left -= device_norm_bytes(plans, count);
    left -= min_u64(2, left / lane_bytes(memory)) * lane_bytes(memory);
    left -= min_u64(left, 2 * count * PAGE_BYTES); /* each region begins at a page */
    return min_u64(host_bytes, left);
}

/* As many workers as the device has room for, once all else is known. */
static void fit_device(struct plan_memory *memory, struct plan *const *plans, size_t count)
{
    uint64_t shared = device_norm_bytes(plans, count);
    uint64_t most;

    memory->device_bytes = 0;
    if (memory->device_budget_bytes == 0)
        return;
    for (size_t i = 0; i < count; i++)
        shared += 2 * align_up(plans[i]->memory.region_bytes, PAGE_BYTES);
    most = max_u64((memory->device_budget_bytes - shared) / lane_bytes(memory), 1);
    memory->thread_count = (uint32_t)min_u64(memory->thread_count, most);
    memory->device_bytes = shared + memory->thread_count * lane_bytes(memory);
}

/* What planning took. */
static uint64_t planning_bytes(const struct plan_memory *memory)
{
    return memory->fixed_bytes + memory->passing_bytes;
}

int plan_add_memory(struct plan_memory *memory, struct plan *plan, uint64_t extra_bytes,
                    struct error *err)
{
    if (set_residents(plan, 0, err) || plan_set_norms(plan, err))
        return err->code;
    if (memory->slot_bytes > 0) /* there is one plan already */
        memory->window_count = WINDOWS_MIN;
    else
        memory->fixed_bytes += PROGRAM_BYTES;
    memory->tiles |= needs_tiles(plan);
    memory->decoders |= plan->decoded > 0;
    memory->encoders |= plan->encoded || plan->roundtrips;
    memory->scale_count = max_u64(memory->scale_count, plan->scale_count);
    memory->fixed_bytes += extra_bytes + plan_bytes(plan) + norm_bytes(plan);
    memory->slot_bytes = max_u64(memory->slot_bytes, plan->slot_bytes);
    memory->in_bytes_max = max_u64(memory->in_bytes_max, plan->in_bytes_max);
    memory->passing_bytes = max_u64(memory->passing_bytes, plan->passing_bytes);
    memory->scratch_bytes = worker_bytes(memory);
    /* The pool is rounded up to huge pages of 2 MiB. */
    memory->least_bytes = memory->fixed_bytes + SLOTS_MIN * memory->slot_bytes +
                          memory->window_count * WINDOW_BYTES + 2 * MIB + thread_bytes(memory);
    memory->least_bytes = max_u64(memory->least_bytes, planning_bytes(memory));
    return 0;
}

/* Regions of `limit` bytes at most for each output; *used: all of them. */
static int give_regions(struct plan_memory *memory, struct plan *const *plans, size_t count,
                        uint64_t limit, uint64_t *used, struct error *err)
{
    memory->tiles = false;
    *used = 0;
    for (size_t i = 0; i < count; i++) {
        struct plan *plan = plans[i];
        uint64_t bytes = largest_packed(plan, limit);

        if (set_residents(plan, bytes, err) || plan_set_norms(plan, err))
            return err->code;
        plan->memory.region_bytes = bytes;
        memory->region_bytes = max_u64(memory->region_bytes, bytes);
        memory->tiles |= needs_tiles(plan);
        *used += 2 * bytes;
    }
    return 0;
}

int plan_fit_memory_of(struct plan_memory *memory, struct plan *const *plans, size_t count,
                       const struct plan_budget *budget, struct error *err)
{
    uint64_t windows_wanted, regions, blocks = 0;
    uint64_t left, slots;

    *memory = (struct plan_memory){ .budget_bytes = budget->bytes,
                                    .fixed_bytes = budget->extra_bytes,
                                    .device_budget_bytes = budget->device_bytes };
    for (size_t i = 0; i < count; i++) {
        if (plan_add_memory(memory, plans[i], 0, err))
            return err->code;
    }
    if (budget->bytes < memory->least_bytes)
        return too_small(memory, err);
    if (check_device(memory, plans, count, err))
        return err->code;
    left = budget->bytes - memory->fixed_bytes - 2 * MIB - memory->window_count * WINDOW_BYTES;
    memory->thread_count = choose_threads(left - SLOTS_MIN * memory->slot_bytes,
                                          thread_bytes(memory), budget->threads,
                                          budget->device_bytes ? LANES : budget->processors);
    left -= memory->thread_count * thread_bytes(memory);

    slots = min_u64(SLOTS_ENOUGH, left / memory->slot_bytes);
    regions = limit_regions(memory, plans, count, left - slots * memory->slot_bytes);
    if (give_regions(memory, plans, count, regions / 2 / count, &regions, err))
        return err->code;
    left -= regions;
    if (count > 1) {
        windows_wanted = WINDOWS_ENOUGH + memory->in_bytes_max / WINDOW_BYTES - WINDOWS_MIN;
        windows_wanted = min_u64(windows_wanted,
                                 (left - slots * memory->slot_bytes) / WINDOW_BYTES);
        memory->window_count += (uint32_t)windows_wanted;
        left -= windows_wanted * WINDOW_BYTES;
    }
    slots = min_u64(left / memory->slot_bytes,
                    memory->device_budget_bytes ? LANE_SLOTS_MAX : SLOTS_MAX);
    for (size_t i = 0; i < count; i++)
        blocks += plans[i]->block_count;
    memory->slot_count = (uint32_t)min_u64(slots, max_u64(blocks, 1));
    memory->scratch_bytes = worker_bytes(memory);
    fit_device(memory, plans, count);
    memory->needed_bytes = memory->fixed_bytes + memory->slot_count * memory->slot_bytes +
                           memory->window_count * WINDOW_BYTES + regions + 2 * MIB +
                           memory->thread_count * thread_bytes(memory);
    memory->needed_bytes = max_u64(memory->needed_bytes, planning_bytes(memory));
    return 0;
}

int plan_fit_memory(struct plan *plan, uint64_t budget_bytes, unsigned threads, unsigned processors,
                    uint64_t extra_bytes, struct error *err)
{
    const struct plan_budget budget = { .bytes = budget_bytes,
                                        .threads = threads,
                                        .processors = processors,
                                        .extra_bytes = extra_bytes };
    struct plan_memory memory;
    int status = plan_fit_memory_of(&memory, &plan, 1, &budget, err);

    plan->memory = memory;
    return status;
}
