#include "pipeline/control.h"

#include "base/clock.h"
#include "base/slice.h"

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

void control_enter(struct control *control, struct slot *slot, enum slot_state state)
{
    static const enum trace_kind kinds[] = {
        [SLOT_READING] = TRACE_READ, [SLOT_WAITING] = TRACE_WAIT, [SLOT_WRITING] = TRACE_WRITE
    };
    struct trace *trace = control->trace;
    double now = trace ? clock_seconds() : 0;

    /* What a worker does is in its own row. */
    if (trace && slot->state != SLOT_FREE && slot->state != SLOT_COMPUTING)
        trace_add(trace, kinds[slot->state], (unsigned)(slot - control->slots), slot->block.number,
                  slot->entered, now);
    slot->state = state;
    slot->entered = now;
}

static void report_progress(struct control *control, bool last)
{
    const struct pipeline_options *options = control->options;
    struct pipeline_progress progress = { .bytes_done = control->result->bytes_written,
                                          .output = control->newest_output,
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

void control_fail(struct control *control, struct output *output, const struct error *err)
{
    if (control->error->code == 0)
        *control->error = *err;
    if (!output) {
        control->failed = true;
        return;
    }
    if (output->order->error.code == 0)
        output->order->error = *err;
    output->failed = true;
}

static void request_failed(struct control *control, struct output *output,
                           const struct ring_request *request, const char *verb, const char *name)
{
    struct error err = { 0 };
    char reason[128];

    if (request->status == ENODATA)
        error_set(&err, ERR_FAILED, "'%s' became shorter while it was read", name);
    else
        error_set(&err, ERR_FAILED, "cannot %s %zu bytes at %" PRIu64 " of '%s': %s", verb,
                  request->bytes, request->offset, name,
                  strerror_r(request->status, reason, sizeof(reason)));
    control_fail(control, output, &err);
}

void control_submit(struct control *control, struct ring_request *request)
{
    ring_submit(control->ring, request);
    control->in_flight++;
}

static bool is_ready(const struct slot *slot)
{
    return ready_step(slot->job->output, &slot->block, slot->step);
}

static void start_computing(struct control *control, struct slot *slot)
{
    control_enter(control, slot, SLOT_COMPUTING);
    crew_give(&control->crew, slot);
    control->tasks++;
}

/* Blocks that waited for what is there now, in the order in which they were started. */
static void start_waiting(struct control *control)
{
    for (;;) {
        struct slot *next = NULL;

        for (unsigned i = 0; i < control->slot_count; i++) {
            struct slot *slot = &control->slots[i];

            if (slot->state == SLOT_WAITING && is_ready(slot) && (!next || slot->turn < next->turn))
                next = slot;
        }
        if (!next)
            return;
        start_computing(control, next);
    }
}

/* ---- slots ---- */

bool control_slot_is_vain(const struct control *control, const struct slot *slot)
{
    for (unsigned i = 0; i < slot->destination_count; i++) {
        if (!control_gave_up(control, slot->destinations[i].output))
            return false;
    }
    return true;
}

void control_release_slot(struct control *control, struct slot *slot)
{
    control_enter(control, slot, SLOT_FREE);
    windows_give_back(slot);
    control_release_inputs(slot->job->output, slot);
    for (unsigned i = 0; i < slot->destination_count; i++) {
        struct output *output = slot->destinations[i].output;

        output->busy--;
        output_check(control, output);
    }
}

void control_reads_finished(struct control *control, struct slot *slot)
{
    if (control_slot_is_vain(control, slot)) {
        control_release_slot(control, slot);
        return;
    }
    control_enter(control, slot, SLOT_WAITING);
    if (is_ready(slot))
        start_computing(control, slot);
}

static void read_finished(struct control *control, struct slot *slot,
                          const struct ring_request *request)
{
    const struct plan_read *read = &slot->block.reads[request - slot->reads];
    struct output *output = slot->job->output;

    if (request->status)
        request_failed(control, output, request, "read",
                       output->order->plan->inputs[read->input].path);
    else
        control->result->bytes_read += read->needed;
    control_drop_input(output, read);
    if (--slot->reads_left == 0)
        control_reads_finished(control, slot);
}

/* A window of the base is there, for every slot that has it. */
static void window_finished(struct control *control, struct window *window)
{
    const struct ring_request *request = &window->request;

    if (request->status)
        request_failed(control, NULL, request, "read", window->shard->path);
    else
        control->result->bytes_read += request->bytes_needed;
    control->result->direct_in &= window->shard->file.direct;
    if (!window->shard->file.direct)
        file_drop_cache(&window->shard->file, request->offset, request->bytes);
    window->loaded = true;
    for (unsigned i = 0; i < control->slot_count; i++) {
        struct slot *slot = &control->slots[i];

        if (slot->state == SLOT_READING && windows_has(slot, window) && --slot->reads_left == 0)
            control_reads_finished(control, slot);
    }
}

void control_write_to(struct control *control, struct destination *to)
{
    to->write = (struct ring_request){ .operation = RING_WRITE,
                                       .file = &to->output->files[to->file].file,
                                       .memory = to->slot->memory,
                                       .bytes = align_up(to->bytes, PAGE_BYTES),
                                       .offset = to->offset,
                                       .user = to };
    to->slot->writes_left++;
    control_submit(control, &to->write);
}

static void start_writing(struct control *control, struct slot *slot)
{
    const struct plan_block *block = &slot->block;
    struct output *output = slot->job->output;
    const uint64_t *digest = output->job.digests[block->number];

    slot->writes_left = 0;
    control->result->bytes_alike += (slot->destination_count - 1) * block->bytes;
    control_enter(control, slot, SLOT_WRITING);
    for (unsigned i = 0; i < slot->destination_count; i++) {
        const struct destination *to = &slot->destinations[i];

        if (!control_gave_up(control, to->output))
            memmove(to->output->job.digests[to->number], digest, 2 * sizeof(*digest));
    }
    share_begin(control, slot);
}

/* The next step of a block that has to be waited for; false: it is complete. */
static bool next_step(struct slot *slot)
{
    const struct job *job = slot->job;

    if (slot->step == BLOCK_TENSORS && block_has_companions(job->plan, &slot->block))
        slot->step = BLOCK_COMPANIONS;
    else if (slot->step != BLOCK_SEAL && job->checksums)
        slot->step = BLOCK_SEAL;
    else
        return false;
    return true;
}

static void tensors_computed(struct control *control, struct slot *slot)
{
    windows_give_back(slot);
    ready_computed(control, slot->job->output, &slot->block);
    for (unsigned i = 1; i < slot->destination_count; i++) {
        const struct plan_block block = share_block_of(&slot->destinations[i]);

        ready_computed(control, slot->destinations[i].output, &block);
    }
}

static void block_computed(struct control *control, struct slot *slot)
{
    enum block_step done = slot->step;

    if (slot->is_shared) {
        share_finished(control, slot);
        return;
    }
    for (unsigned i = 0; i < slot->destination_count && slot->status; i++)
        control_fail(control, slot->destinations[i].output, &slot->error);
    if (done == BLOCK_TENSORS)
        tensors_computed(control, slot);
    if (!next_step(slot) || control_slot_is_vain(control, slot)) {
        start_writing(control, slot);
        return;
    }
    if (slot->step == BLOCK_SEAL)
        ready_summed(slot->job->output, &slot->block);
    control_enter(control, slot, SLOT_WAITING); /* start_waiting() is next */
}

void control_count_block(struct control *control, struct destination *to)
{
    struct error err = { 0 };

    control->newest_file = to->file;
    control->newest_output = (size_t)(to->output - control->outputs);
    if (control_block_written(control, to, &err))
        control_fail(control, to->output, &err);
}

static void write_finished(struct control *control, struct destination *to)
{
    struct output *output = to->output;

    if (to->write.status) {
        request_failed(control, output, &to->write, "write",
                       output->order->plan->files[to->file].name);
    } else {
        if (control->result->bytes_written == 0)
            control->result->first_write_time = clock_seconds();
        control->result->bytes_written += to->bytes;
        output->order->bytes_written += to->bytes;
        if (!share_is_due(to->slot))
            control_count_block(control, to);
    }
    if (--to->slot->writes_left == 0)
        share_written(control, to->slot);
}

static void region_loaded(struct control *control, struct region *region)
{
    struct output *output = region->job->output;

    control->tasks--;
    output->busy--;
    region->ready = region->status == 0;
    if (region->status)
        control_fail(control, output, &region->error);
    output_check(control, output);
}

static void take_from_crew(struct control *control)
{
    struct slot *slot;
    struct region *region;

    crew_take(&control->crew, &slot, &region);
    while (region) {
        struct region *next = region->next;

        region_loaded(control, region);
        region = next;
    }
    while (slot) {
        struct slot *next = slot->next;

        control->tasks--;
        block_computed(control, slot);
        slot = next;
    }
    start_waiting(control);
}

static void file_synced(struct control *control, struct ring_request *request)
{
    const struct open_file *file = request->user;
    struct output *output = file->output;
    struct error err = { 0 };

    if (control_file_synced(control, request, &err))
        control_fail(control, output, &err);
    output_check(control, output);
}

static void request_finished(struct control *control, struct ring_request *request)
{
    struct window *window = windows_find(&control->windows, request);

    control->in_flight--;
    switch (request->operation) {
    case RING_READ:
        if (window)
            window_finished(control, window);
        else
            read_finished(control, request->user, request);
        break;
    case RING_WRITE:
        write_finished(control, request->user);
        break;
    case RING_SYNC:
        file_synced(control, request);
        break;
    }
}

/* After an error, blocks that wait for something will not get it. */
static void drop_waiting(struct control *control)
{
    for (unsigned i = 0; i < control->slot_count; i++) {
        struct slot *slot = &control->slots[i];

        if (slot->state == SLOT_WAITING && control_slot_is_vain(control, slot))
            control_release_slot(control, slot);
    }
}

static void go_on(struct control *control, const atomic_int *cancelled)
{
    struct error err = { 0 };

    if (atomic_load(cancelled)) {
        error_set(&err, ERR_CANCELLED, "cancelled");
        control_fail(control, NULL, &err);
    }
    drop_waiting(control);
    start_blocks(control);
}

/* Nothing may be in flight, but an outlet will let another file begin. */
static bool is_held(const struct control *control)
{
    bool held = false;

    for (size_t i = 0; i < control->output_count && !control->failed; i++)
        held |= control->outputs[i].held && !control->outputs[i].failed;
    return held;
}

static int take_turns(struct control *control, const atomic_int *cancelled)
{
    struct ring_request *request;
    struct error err = { 0 };
    unsigned wait_failures = 0;

    control->booked = control->shown = clock_seconds();
    for (size_t i = 0; i < control->output_count; i++) {
        if (!control->outputs[i].failed)
            ready_load(control, &control->outputs[i]);
    }
    go_on(control, cancelled);
    while (control->in_flight > 0 || control->tasks > 0 || is_held(control)) {
        if (ring_wait(control->ring, &request, &err)) {
            control_fail(control, NULL, &err);
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
        go_on(control, cancelled);
        report_progress(control, false);
    }
    report_progress(control, true);
    return control->error->code;
}

int control_loop(struct control *control, const atomic_int *cancelled)
{
    uint64_t slice = slice_shorten(); /* workers have started, and keep theirs */
    int status = take_turns(control, cancelled);

    slice_restore(slice);
    return status;
}
