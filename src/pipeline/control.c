#include "pipeline/control.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PROGRESS_SECONDS 0.1
#define WAIT_FAILURES_MAX 100u

/* Book the time since the last call to the stages that the slots were in. */
static void book_time(struct control *control)
{
    double now = clock_seconds();
    double passed = now - control->booked;

    control->booked = now;
    for (unsigned i = 0; i < control->slot_count; i++) {
        switch (control->slots[i].state) {
        case SLOT_FREE:
            break;
        case SLOT_READING:
            control->stage_seconds[STAGE_READ] += passed;
            break;
        case SLOT_WAITING:
        case SLOT_COMPUTING:
            control->stage_seconds[STAGE_COMPUTE] += passed;
            break;
        case SLOT_WRITING:
            control->stage_seconds[STAGE_WRITE] += passed;
            break;
        }
    }
}

static void report_progress(struct control *control, bool last)
{
    const struct pipeline_options *options = control->options;
    struct pipeline_progress progress = { .bytes_done = control->result->bytes_written,
                                          .file = control->newest_file };
    double most = -1;

    if (!options->progress || (!last && control->booked - control->shown < PROGRESS_SECONDS))
        return;
    control->shown = control->booked;
    for (int i = 0; i < STAGE_COUNT; i++) {
        double lately = control->stage_seconds[i] - control->stage_shown[i];

        if (lately > most) {
            most = lately;
            progress.limit = (enum pipeline_stage)i;
        }
        progress.stage_seconds[i] = control->stage_shown[i] = control->stage_seconds[i];
    }
    options->progress(options->context, &progress);
}

/* The first error wins; no new block is started after it. */
static void keep_error(struct control *control, const struct error *err)
{
    if (control->error->code == 0)
        *control->error = *err;
    control->failed = true;
}

static void request_failed(struct control *control, const struct ring_request *request,
                           const char *verb, const char *name)
{
    struct error err = { 0 };
    char reason[128];

    if (request->status == ENODATA)
        error_set(&err, ERR_FAILED, "'%s' became shorter while it was read", name);
    else
        error_set(&err, ERR_FAILED, "cannot %s %zu bytes at %" PRIu64 " of '%s': %s", verb,
                  request->bytes, request->offset, name,
                  strerror_r(request->status, reason, sizeof(reason)));
    keep_error(control, &err);
}

static void submit(struct control *control, struct ring_request *request)
{
    ring_submit(control->ring, request);
    control->in_flight++;
}

/* ---- resident factors ---- */

/* Load the next resident target into its region, if its predecessor there is done with. */
static void load_regions(struct control *control)
{
    const struct plan *plan = control->plan;

    while (control->next_resident < plan->resident_count) {
        uint32_t resident = control->next_resident;
        struct region *region = &control->job.regions[resident % 2];
        const struct plan_target *target = &plan->targets[plan->residents[resident]];
        uint64_t first, last;

        if (region->resident != PLAN_NO_TARGET)
            return;
        plan_target_blocks(plan, target, &first, &last);
        region->resident = resident;
        region->ready = false;
        region->blocks_left = last - first + 1;
        crew_give_region(&control->crew, region);
        control->tasks++;
        control->next_resident++;
    }
}

/* Are there all codes, but for those in this block, whose companions the block holds? */
static bool codes_ready(const struct control *control, const struct plan_block *block)
{
    const struct plan_tensor *tensors = control->plan->tensors;

    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &tensors[block->tensor_first + i];
        bool own;

        if (tensor->action != PLAN_COMPANION || tensor->encoding->same)
            continue;
        own = tensor->encoding->tensor >= block->tensor_first;
        if (control->codes_left[tensor->encoding->number] > own)
            return false;
    }
    return true;
}

static void count_codes(struct control *control, const struct plan_block *block)
{
    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &control->plan->tensors[block->tensor_first + i];
        struct plan_part part = plan_block_part(block, tensor);

        if (tensor->action == PLAN_ENCODE && part.first < part.end)
            control->codes_left[tensor->encoding->number]--;
    }
}

static bool factors_ready(const struct control *control, const struct plan_block *block)
{
    if (control->codes_left && !codes_ready(control, block))
        return false;
    for (uint32_t i = 0; i < block->resident_count; i++) {
        const struct region *region = &control->job.regions[(block->resident_first + i) % 2];

        if (region->resident != block->resident_first + i || !region->ready)
            return false;
    }
    return true;
}

static void start_computing(struct control *control, struct slot *slot)
{
    slot->state = SLOT_COMPUTING;
    crew_give(&control->crew, slot);
    control->tasks++;
}

/* Blocks that waited for factors which are there now, in the order of the output. */
static void start_waiting(struct control *control)
{
    for (;;) {
        struct slot *next = NULL;

        for (unsigned i = 0; i < control->slot_count; i++) {
            struct slot *slot = &control->slots[i];

            if (slot->state == SLOT_WAITING && factors_ready(control, &slot->block) &&
                (!next || slot->block.number < next->block.number))
                next = slot;
        }
        if (!next)
            return;
        start_computing(control, next);
    }
}

static void release_factors(struct control *control, const struct plan_block *block)
{
    for (uint32_t i = 0; i < block->resident_count; i++) {
        struct region *region = &control->job.regions[(block->resident_first + i) % 2];

        if (--region->blocks_left == 0)
            region->resident = PLAN_NO_TARGET;
    }
    load_regions(control);
}

/* ---- slots ---- */

static void release_slot(struct control *control, struct slot *slot)
{
    slot->state = SLOT_FREE;
    control_release_inputs(control, &slot->block);
}

static void reads_finished(struct control *control, struct slot *slot)
{
    slot->state = SLOT_WAITING;
    if (factors_ready(control, &slot->block))
        start_computing(control, slot);
}

/* Read the next block into a free slot. */
static int start_block(struct control *control, struct slot *slot, struct error *err)
{
    const struct plan *plan = control->plan;
    struct plan_block *block = &slot->block;

    while (control->next_block == plan->files[control->next_file].block_count) {
        control->next_file++;
        control->next_block = 0;
    }
    plan_block(plan, control->next_file, control->next_block, block);
    control->next_block++;
    control->blocks_started++;
    slot->job = &control->job;
    if (control_open_block(control, block, err))
        return err->code;
    slot->reads_left = 0;
    slot->state = SLOT_READING;
    for (uint32_t i = 0; i < block->read_count; i++) {
        const struct plan_read *read = &block->reads[i];

        if (read->by_worker)
            continue;
        slot->reads_left++;
        slot->reads[i] = (struct ring_request){ .operation = RING_READ,
                                                .file = &control->inputs[read->input].file,
                                                .memory = slot->memory + read->position,
                                                .bytes = read->bytes,
                                                .bytes_needed = read->needed,
                                                .offset = read->offset,
                                                .user = slot };
        submit(control, &slot->reads[i]);
    }
    if (slot->reads_left == 0) /* a header, or what workers read themselves */
        reads_finished(control, slot);
    return 0;
}

static void read_finished(struct control *control, struct slot *slot,
                          const struct ring_request *request)
{
    const struct plan_read *read = &slot->block.reads[request - slot->reads];

    if (request->status)
        request_failed(control, request, "read", control->plan->inputs[read->input].path);
    else
        control->result->bytes_read += read->needed;
    control_drop_input(control, read);
    if (--slot->reads_left > 0)
        return;
    if (control->failed) {
        release_slot(control, slot);
        return;
    }
    reads_finished(control, slot);
}

static void block_computed(struct control *control, struct slot *slot)
{
    const struct plan_block *block = &slot->block;

    release_factors(control, block);
    if (control->codes_left)
        count_codes(control, block);
    if (slot->status)
        keep_error(control, &slot->error);
    if (control->failed) {
        release_slot(control, slot);
        return;
    }
    slot->state = SLOT_WRITING;
    slot->write = (struct ring_request){ .operation = RING_WRITE,
                                         .file = &control->outputs[block->file].file,
                                         .memory = slot->memory,
                                         .bytes = align_up(block->bytes, PAGE_BYTES),
                                         .offset = block->offset,
                                         .user = slot };
    submit(control, &slot->write);
}

static void write_finished(struct control *control, struct slot *slot)
{
    const struct plan_block *block = &slot->block;
    struct error err = { 0 };

    if (slot->write.status) {
        request_failed(control, &slot->write, "write", control->plan->files[block->file].name);
    } else {
        if (control->result->bytes_written == 0)
            control->result->first_write_time = clock_seconds();
        control->result->bytes_written += block->bytes;
        control->newest_file = block->file;
        if (control_block_written(control, block, &err))
            keep_error(control, &err);
    }
    release_slot(control, slot);
}

static void take_from_crew(struct control *control)
{
    struct slot *slot;
    struct region *region;

    crew_take(&control->crew, &slot, &region);
    for (; region; region = region->next) {
        control->tasks--;
        region->ready = region->status == 0;
        if (region->status)
            keep_error(control, &region->error);
    }
    while (slot) {
        struct slot *next = slot->next;

        control->tasks--;
        block_computed(control, slot);
        slot = next;
    }
    start_waiting(control);
}

static void request_finished(struct control *control, struct ring_request *request)
{
    struct error err = { 0 };

    control->in_flight--;
    switch (request->operation) {
    case RING_READ:
        read_finished(control, request->user, request);
        break;
    case RING_WRITE:
        write_finished(control, request->user);
        break;
    case RING_SYNC:
        if (control_file_synced(control, request, &err))
            keep_error(control, &err);
        break;
    }
}

/* After an error, blocks that wait for factors will not get them. */
static void drop_waiting(struct control *control)
{
    for (unsigned i = 0; i < control->slot_count; i++) {
        if (control->slots[i].state == SLOT_WAITING)
            release_slot(control, &control->slots[i]);
    }
}

static void start_blocks(struct control *control, const atomic_int *cancelled)
{
    struct error err = { 0 };

    if (atomic_load(cancelled)) {
        error_set(&err, ERR_CANCELLED, "cancelled");
        keep_error(control, &err);
    }
    for (unsigned i = 0;
         i < control->slot_count && !control->failed && control->syncs < CONTROL_SYNCS_MAX &&
         control->blocks_started < control->plan->block_count;
         i++) {
        if (control->slots[i].state != SLOT_FREE)
            continue;
        if (start_block(control, &control->slots[i], &err)) {
            keep_error(control, &err);
            control->slots[i].state = SLOT_FREE;
        }
    }
    if (control->failed)
        drop_waiting(control);
}

int control_loop(struct control *control, const atomic_int *cancelled)
{
    struct ring_request *request;
    struct error err = { 0 };
    unsigned wait_failures = 0;

    control->booked = control->shown = clock_seconds();
    load_regions(control);
    start_blocks(control, cancelled);
    while (control->in_flight > 0 || control->tasks > 0) {
        if (ring_wait(control->ring, &request, &err)) {
            keep_error(control, &err);
            /* What is in flight still uses slots and files, so it is waited for if at all possible.
             */
            control->abandoned = ++wait_failures == WAIT_FAILURES_MAX;
            if (control->abandoned)
                return control->error->code;
            continue;
        }
        book_time(control);
        if (request)
            request_finished(control, request);
        else
            take_from_crew(control);
        start_blocks(control, cancelled);
        report_progress(control, false);
    }
    report_progress(control, true);
    return control->error->code;
}
