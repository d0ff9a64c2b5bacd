/*
 * lane_device.c - the stream of a lane: what goes in and out, and what is found out at the end
 */
#include "pipeline/lane_internal.h"

#include "base/clock.h"
#include "pipeline/internal.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

static_assert(PLAN_LANE_DEVICE_BYTES == LANE_CHECKS_MAX * sizeof(uint64_t), "one word each");

static_assert(PLAN_ENCODED_ELEMENTS / PLAN_ENCODING_BLOCK * sizeof(float) <= LANE_STAGING_BYTES,
              "absmax of a piece, the most that lane_write() is called with");

#define MARK_END 0u /* of everything; the marks behind it are those of the trace */

static int take_mirror(struct lane *lane, struct device *device, enum lane_memory which,
                       const void *host, size_t bytes, struct error *err)
{
    void *memory;

    if (lane->ops->take(device, &memory, bytes, err))
        return err->code;
    lane->mirrors[which] = (struct lane_mirror){ .host = host, .bytes = bytes, .device = memory };
    return 0;
}

int lane_open(struct lane *lane, const struct device_ops *ops, struct device *device,
              const struct plan_memory *memory, const void *scratch, struct error *err)
{
    uint64_t *finite;
    void *host;
    void *words;

    *lane = (struct lane){ .ops = ops };
    if (ops->stream(device, &lane->stream, err) ||
        ops->take_pinned(device, &host, PLAN_LANE_HOST_BYTES, err) ||
        ops->take(device, &words, PLAN_LANE_DEVICE_BYTES, err) ||
        take_mirror(lane, device, LANE_SLOT, NULL, memory->slot_bytes, err) ||
        take_mirror(lane, device, LANE_SCRATCH, scratch, memory->scratch_bytes, err))
        return err->code;
    lane->staging = host;
    lane->found = (uint64_t *)(lane->staging + LANE_STAGING_BYTES);
    lane->finite = finite = lane->found + LANE_CHECKS_MAX;
    lane->words = words;
    for (unsigned i = 0; i < LANE_CHECKS_MAX; i++)
        finite[i] = DEVICE_FINITE;
    if (ops->upload(lane->stream, words, finite, PLAN_LANE_DEVICE_BYTES, err) ||
        ops->mark(lane->stream, MARK_END, err))
        return err->code;
    return ops->wait(lane->stream, MARK_END, err);
}

void lane_begin(struct lane *lane, const struct job *job, const struct slot *slot)
{
    lane->job = job;
    lane->slot = slot;
    if (!lane->ops)
        return;
    lane->mirrors[LANE_SLOT].host = slot ? slot->memory : NULL;
    for (int i = 0; i < 2; i++)
        lane->mirrors[LANE_REGION_0 + i] = (struct lane_mirror){
            .host = (const uint8_t *)job->regions[i].packed,
            .bytes = job->plan->memory.region_bytes,
            .device = job->regions[i].device
        };
    lane->mirrors[LANE_NORMS] = (struct lane_mirror){ .host = (const uint8_t *)job->norms,
                                                      .bytes = job->plan->norm_count *
                                                               sizeof(float),
                                                      .device = job->device_norms };
}

/* Say where a call of the device failed. */
static int failed(const struct lane *lane, struct error *err)
{
    const struct slot *slot = lane->slot;
    char name[QUOTED_BYTES];

    if (slot && slot->tensor)
        error_prefix(err, "tensor '%s', block %" PRIu64,
                     error_quote(name, sizeof(name), slot->tensor->name, slot->tensor->name_bytes),
                     slot->block.number);
    else if (slot)
        error_prefix(err, "block %" PRIu64, slot->block.number);
    else
        error_prefix(err, "factors of an adapter");
    return err->code;
}

void *lane_at(const struct lane *lane, const void *host)
{
    const uint8_t *at = host;

    for (int i = 0; host && i < LANE_MEMORIES; i++) {
        const struct lane_mirror *mirror = &lane->mirrors[i];

        if (mirror->host && at >= mirror->host && at < mirror->host + mirror->bytes)
            return mirror->device + (at - mirror->host);
    }
    return NULL;
}

/* ---- the trace ---- */

/* A step of this kind is put into the stream: mark the end of those before it if they were others.
 */
static int trace_step(struct lane *lane, enum trace_kind kind, struct error *err)
{
    unsigned count = lane->step_count;

    if (!lane->trace || lane->steps_cut || (count && lane->steps[count - 1] == kind))
        return 0;
    lane->steps_cut = count == LANE_STEPS_MAX; /* this mark ends the last one */
    if (!lane->steps_cut) {
        lane->steps[count] = kind;
        lane->step_count = count + 1;
    }
    return lane->ops->mark(lane->stream, MARK_END + 1 + count, err);
}

/* The stream has been waited for just now: each step ends where the next begins. */
static void trace_steps(struct lane *lane)
{
    double now = clock_seconds();
    uint64_t block = lane->slot ? lane->slot->block.number : TRACE_NO_BLOCK;

    for (unsigned i = 0; i < lane->step_count; i++) {
        bool is_last = i + 1 == lane->step_count && !lane->steps_cut;
        unsigned next = is_last ? MARK_END : MARK_END + 2 + i;

        trace_add(lane->trace, lane->steps[i], lane->number, block,
                  now - lane->ops->seconds(lane->stream, MARK_END + 1 + i, MARK_END),
                  now - (next == MARK_END ? 0 : lane->ops->seconds(lane->stream, next, MARK_END)));
    }
    lane->step_count = 0;
    lane->steps_cut = false;
}

/* ---- waiting ---- */

static int look_at_checks(struct lane *lane, struct error *err)
{
    for (unsigned i = 0; i < lane->check_count; i++) {
        uint64_t found = lane->found[i];

        if (found == DEVICE_FINITE)
            continue;
        if (found % 4 > DEVICE_BAD_NAN) {
            error_set(err, ERR_FAILED, "it reported what no kernel reports: %" PRIx64, found);
            return failed(lane, err);
        }
        return lane_not_finite(&lane->checks[i], found / 4, (enum device_bad)(found % 4), err);
    }
    return 0;
}

static int do_writes(struct lane *lane, struct error *err)
{
    for (unsigned i = 0; i < lane->write_count; i++) {
        const struct lane_write *write = &lane->writes[i];

        if (file_pwrite(write->file, write->bytes, write->count, write->offset, err))
            return err->code;
    }
    return 0;
}

/* Wait for the stream, then do what was put off until then. */
static int drain(struct lane *lane, struct error *err)
{
    size_t bytes = lane->check_count * sizeof(uint64_t);
    int status = 0;

    if (lane->check_count &&
        lane->ops->download(lane->stream, lane->found, lane->words, bytes, err))
        return failed(lane, err);
    if (lane->check_count && lane->ops->upload(lane->stream, lane->words, lane->finite, bytes, err))
        return failed(lane, err);
    if (lane->ops->mark(lane->stream, MARK_END, err) ||
        lane->ops->wait(lane->stream, MARK_END, err))
        return failed(lane, err);
    trace_steps(lane);
    status = look_at_checks(lane, err);
    if (!status)
        status = do_writes(lane, err);
    lane->busy = false;
    lane->check_count = 0;
    lane->write_count = 0;
    lane->staging_used = 0;
    return status;
}

int lane_finish(struct lane *lane, struct error *err)
{
    return lane->busy ? drain(lane, err) : 0;
}

void lane_abandon(struct lane *lane)
{
    struct error ignored = { 0 };

    if (!lane->busy)
        return;
    lane->write_count = 0;
    (void)drain(lane, &ignored); /* a lost device has nothing under way any more */
    if (lane->busy) {            /* it ended before its wait: the stream may still use the slot */
        (void)lane->ops->mark(lane->stream, MARK_END, &ignored);
        (void)lane->ops->wait(lane->stream, MARK_END, &ignored);
    }
    lane->busy = false;
    lane->check_count = 0;
    lane->staging_used = 0;
    lane->step_count = 0;
    lane->steps_cut = false;
}

/* ---- transfers ---- */

/* Room of the staging area, after waiting for it if there is none. */
static int reserve(struct lane *lane, size_t bytes, uint8_t **out, struct error *err)
{
    if (lane->staging_used + bytes > LANE_STAGING_BYTES && drain(lane, err))
        return err->code;
    *out = lane->staging + lane->staging_used;
    lane->staging_used += align_up(bytes, 64);
    return 0;
}

static int upload(struct lane *lane, uint8_t *to, const void *host, size_t bytes, struct error *err)
{
    lane->busy = true;
    if (trace_step(lane, TRACE_UPLOAD, err) ||
        lane->ops->upload(lane->stream, to, host, bytes, err))
        return failed(lane, err);
    return 0;
}

static int download(struct lane *lane, void *out, const uint8_t *from, size_t bytes,
                    struct error *err)
{
    lane->busy = true;
    if (trace_step(lane, TRACE_DOWNLOAD, err) ||
        lane->ops->download(lane->stream, out, from, bytes, err))
        return failed(lane, err);
    return 0;
}

int lane_upload(struct lane *lane, const void *host, size_t bytes, struct error *err)
{
    if (!lane->ops || bytes == 0)
        return 0;
    return upload(lane, lane_at(lane, host), host, bytes, err);
}

int lane_send(struct lane *lane, const void *host, size_t bytes, struct error *err)
{
    const uint8_t *from = host;

    if (!lane->ops)
        return 0;
    for (size_t done = 0; done < bytes;) {
        size_t part = min_u64(bytes - done, LANE_STAGING_BYTES / 4);
        uint8_t *staged = NULL;

        if (reserve(lane, part, &staged, err))
            return err->code;
        memcpy(staged, from + done, part);
        if (upload(lane, lane_at(lane, from + done), staged, part, err))
            return err->code;
        done += part;
    }
    return 0;
}

int lane_fetch(struct lane *lane, void *out, const void *from, size_t bytes, struct error *err)
{
    if (bytes == 0)
        return 0;
    if (lane->ops)
        return download(lane, out, lane_at(lane, from), bytes, err);
    if (out != from)
        memcpy(out, from, bytes);
    return 0;
}

int lane_write(struct lane *lane, const struct file *file, const void *from, size_t bytes,
               uint64_t offset, struct error *err)
{
    uint8_t *staged = NULL;

    if (!lane->ops)
        return file_pwrite(file, from, bytes, offset, err);
    if (lane->write_count == LANE_WRITES_MAX && drain(lane, err))
        return err->code;
    if (reserve(lane, bytes, &staged, err))
        return err->code;
    lane->writes[lane->write_count++] = (struct lane_write){
        .file = file, .bytes = staged, .count = bytes, .offset = offset
    };
    return download(lane, staged, lane_at(lane, from), bytes, err);
}

/* ---- operations ---- */

int lane_run(struct lane *lane, struct device_task *task, const struct lane_check *check,
             struct error *err)
{
    task->bad = NULL;
    if (check && !lane->job->allow_nonfinite) {
        if (lane->check_count == LANE_CHECKS_MAX && drain(lane, err))
            return err->code;
        task->bad = lane->words + lane->check_count;
        lane->checks[lane->check_count++] = *check;
    }
    lane->busy = true;
    if (trace_step(lane, TRACE_KERNELS, err) || lane->ops->run(lane->stream, task, err))
        return failed(lane, err);
    return 0;
}
