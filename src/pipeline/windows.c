#include "pipeline/windows.h"

#include "pipeline/internal.h"

#include <stdlib.h>

int windows_open(struct windows *windows, uint8_t *memory, unsigned count, const struct plan *plan,
                 enum file_direct direct, struct error *err)
{
    *windows = (struct windows){ .count = count,
                                 .shard_count = plan->shard_count,
                                 .direct = direct };
    windows->list = calloc(count, sizeof(*windows->list));
    windows->shards = calloc(plan->shard_count + 1, sizeof(*windows->shards));
    if (!windows->list || !windows->shards)
        return error_no_memory(err, "the windows of the base");
    for (unsigned i = 0; i < count; i++)
        windows->list[i].memory = memory + i * WINDOW_BYTES;
    for (uint32_t i = 0; i < plan->shard_count; i++)
        windows->shards[i] = (struct window_shard){ .file = FILE_CLOSED,
                                                    .path = plan->inputs[i].path,
                                                    .bytes = plan->inputs[i].identity.bytes };
    return 0;
}

void windows_close(struct windows *windows)
{
    for (uint32_t i = 0; windows->shards && i < windows->shard_count; i++)
        file_close(&windows->shards[i].file);
    free(windows->shards);
    free(windows->list);
    *windows = (struct windows){ 0 };
}

bool windows_serve(const struct job *job, const struct plan_read *read)
{
    return job->shares_base && read->input < job->plan->shard_count && !read->by_worker;
}

static struct window *find(const struct windows *windows, const struct window_shard *shard,
                           uint64_t number)
{
    for (unsigned i = 0; i < windows->count; i++) {
        struct window *window = &windows->list[i];

        if (window->shard == shard && window->number == number)
            return window;
    }
    return NULL;
}

/* Have it in the list of the slot, if it is not there; false: no more fit. */
static bool list_window(struct slot *slot, struct window *window)
{
    for (unsigned i = 0; i < slot->window_count; i++) {
        if (slot->windows[i] == window)
            return true;
    }
    if (slot->window_count == SLOT_WINDOWS_MAX)
        return false;
    slot->windows[slot->window_count++] = window;
    window->users++;
    return true;
}

static void empty(struct window *window)
{
    struct window_shard *shard = window->shard;

    if (shard && --shard->windows == 0)
        file_close(&shard->file);
    window->shard = NULL;
    window->loaded = false;
    window->request.file = NULL;
}

/* One that nobody has, in turn. */
static struct window *take_free(struct windows *windows)
{
    for (unsigned i = 0; i < windows->count; i++) {
        struct window *window = &windows->list[(windows->next + i) % windows->count];

        if (window->users > 0)
            continue;
        windows->next = (windows->next + i + 1) % windows->count;
        empty(window);
        return window;
    }
    return NULL;
}

/* How many windows the block needs, each read for itself. */
static uint64_t count_needed(const struct job *job, const struct plan_block *block)
{
    uint64_t needed = 0;

    for (uint32_t i = 0; i < block->read_count; i++) {
        const struct plan_read *read = &block->reads[i];

        if (windows_serve(job, read))
            needed += (read->offset + read->needed - 1) / WINDOW_BYTES -
                      read->offset / WINDOW_BYTES + 1;
    }
    return needed;
}

/* The windows of one read that are there (or, with `load`, all); false: one is not to be had. */
static bool take_read(struct windows *windows, const struct plan_read *read, struct slot *slot,
                      bool load)
{
    struct window_shard *shard = &windows->shards[read->input];
    uint64_t end = read->offset + read->needed;

    for (uint64_t at = read->offset; at < end; at = (at / WINDOW_BYTES + 1) * WINDOW_BYTES) {
        uint64_t number = at / WINDOW_BYTES;
        struct window *window = find(windows, shard, number);
        uint64_t skipped = at - number * WINDOW_BYTES;

        if (!window && !load)
            continue;
        if (!window) {
            window = take_free(windows);
            if (!window)
                return false;
            window->shard = shard;
            window->number = number;
            shard->windows++;
        }
        if (!list_window(slot, window))
            return false;
        if (load)
            slot->pieces[slot->piece_count++] = (struct slot_piece){
                .from = window->memory + skipped,
                .position = read->position + (at - read->offset),
                .bytes = min_u64(end - at, WINDOW_BYTES - skipped),
            };
    }
    return true;
}

enum windows_answer windows_take(struct windows *windows, struct slot *slot)
{
    const struct job *job = slot->job;
    const struct plan_block *block = &slot->block;
    uint64_t needed = count_needed(job, block);

    slot->window_count = 0;
    slot->piece_count = 0;
    if (needed > windows->count || needed > SLOT_WINDOWS_MAX)
        return WINDOWS_TOO_FEW;
    /* Those that are there first, so that none of them makes room for another. */
    for (int load = 0; load < 2; load++) {
        for (uint32_t i = 0; i < block->read_count; i++) {
            const struct plan_read *read = &block->reads[i];

            if (windows_serve(job, read) && !take_read(windows, read, slot, load == 1)) {
                windows_give_back(slot);
                return WINDOWS_BUSY;
            }
        }
    }
    return WINDOWS_TAKEN;
}

int windows_load(struct windows *windows, struct window *window, struct error *err)
{
    struct window_shard *shard = window->shard;
    uint64_t offset = window->number * WINDOW_BYTES;

    if (shard->file.fd < 0 && file_open_input(&shard->file, shard->path, windows->direct, err))
        return err->code = ERR_FAILED; /* it was there when it was planned with */
    window->request = (struct ring_request){ .operation = RING_READ,
                                             .file = &shard->file,
                                             .memory = window->memory,
                                             .bytes = WINDOW_BYTES,
                                             .bytes_needed = min_u64(shard->bytes - offset,
                                                                     WINDOW_BYTES),
                                             .offset = offset };
    return 0;
}

void windows_give_back(struct slot *slot)
{
    for (unsigned i = 0; i < slot->window_count; i++)
        slot->windows[i]->users--;
    slot->window_count = 0;
    slot->piece_count = 0;
}

struct window *windows_find(const struct windows *windows, const struct ring_request *request)
{
    for (unsigned i = 0; i < windows->count; i++) {
        if (&windows->list[i].request == request)
            return &windows->list[i];
    }
    return NULL;
}

bool windows_has(const struct slot *slot, const struct window *window)
{
    for (unsigned i = 0; i < slot->window_count; i++) {
        if (slot->windows[i] == window)
            return true;
    }
    return false;
}
