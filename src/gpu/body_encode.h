/*
 * body_encode.h - fp32 to codes, with the largest magnitudes of blocks or given scales
 *
 * A team of threads, a power of two, takes a block of quantisation: each thread eight elements at a
 * time.  Blocks of 64 have teams of 8, so that neighbouring threads read neighbouring memory.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef GPU_BODY_ENCODE_H
#define GPU_BODY_ENCODE_H

#include "compute/encode_element.h"
#include "gpu/body.h"

enum encode_kind { ENCODE_BNB4, ENCODE_ROUND_TRIP };

struct encode_work {
    enum encode_kind kind;
    struct device_blocks task;
    float table[16]; /* of its codes */
    unsigned team;   /* threads, a power of two, at most GPU_THREADS */
    uint64_t blocks;
};

struct encode_shared {
    float largest[GPU_THREADS];
    float table[16];
};

/* Where a thread works: on block `number`, from element `first` to `end`, as member of the team. */
struct encode_place {
    uint64_t number;
    uint64_t first;
    uint64_t end; /* == first: on none */
    unsigned member;
};

COMPUTE_SHARED struct encode_place encode_place_of(const struct encode_work *work, uint64_t block,
                                                   unsigned thread)
{
    struct encode_place place;

    place.number = block * (GPU_THREADS / work->team) + thread / work->team;
    place.member = thread % work->team;
    place.first = place.end = 0;
    if (place.number < work->blocks) {
        place.first = place.number * work->task.block;
        place.end = work->task.count - place.first < work->task.block
                        ? work->task.count
                        : place.first + work->task.block;
    }
    return place;
}

/* Up to eight elements from `at` on; what is not there is 0. */
COMPUTE_SHARED unsigned encode_load_eight(float x[GPU_EIGHT], const float *src, uint64_t at,
                                          uint64_t end)
{
    const unsigned count = gpu_lesser(end - at, GPU_EIGHT);

    if (count == GPU_EIGHT && gpu_alignment((unsigned)(uintptr_t)(src + at)) == 16) {
        const struct gpu_floats low = gpu_load_floats(src + at);
        const struct gpu_floats high = gpu_load_floats(src + at + 4);

        GPU_UNROLL
        for (unsigned i = 0; i < 4; i++) {
            x[i] = low.lane[i];
            x[i + 4] = high.lane[i];
        }
        return count;
    }
    GPU_UNROLL
    for (unsigned i = 0; i < GPU_EIGHT; i++)
        x[i] = i < count ? src[at + i] : 0.0f;
    return count;
}

/* The largest magnitude of a thread's elements. */
COMPUTE_SHARED float encode_find_largest(const struct encode_work *work,
                                         const struct encode_place *place)
{
    float largest = 0.0f;
    float x[GPU_EIGHT];

    for (uint64_t at = place->first + place->member * GPU_EIGHT; at < place->end;
         at += work->team * GPU_EIGHT) {
        encode_load_eight(x, work->task.src, at, place->end);
        GPU_UNROLL
        for (unsigned i = 0; i < GPU_EIGHT; i++)
            largest = encode_larger(largest, x[i]);
    }
    return largest;
}

/*
 * Codes of up to eight elements from an even one on, two in a byte, the first in the high half.
 * Behind an odd end x is 0, whose code is what has to stand there.
 */
COMPUTE_SHARED void encode_bnb4_eight(const struct encode_work *work, uint64_t at,
                                      const float x[GPU_EIGHT], unsigned count, float inverse)
{
    uint8_t *out = (uint8_t *)work->task.out + at / 2;

    GPU_UNROLL
    for (unsigned i = 0; i < GPU_EIGHT; i += 2) {
        unsigned high = encode_bnb4_code(work->task.codes, x[i], inverse);
        unsigned low = encode_bnb4_code(work->task.codes, x[i + 1], inverse);

        if (i < count)
            out[i / 2] = (uint8_t)(high << 4 | low);
    }
}

COMPUTE_SHARED void encode_round_trip_eight(const struct encode_work *work,
                                            const struct encode_shared *shared, uint64_t at,
                                            const float x[GPU_EIGHT], unsigned count, float largest,
                                            uint64_t *bad)
{
    float *out = (float *)work->task.out + at;
    const float inverse = f32_div(1.0f, largest);

    GPU_UNROLL
    for (unsigned i = 0; i < GPU_EIGHT; i++) {
        unsigned code = encode_bnb4_code(work->task.codes, x[i], inverse);
        uint32_t bits = element_round(work->task.result_dtype,
                                      f32_bits(f32_mul(shared->table[code], largest)));

        if (i >= count)
            continue;
        out[i] = f32_from_bits(bits);
        if (!element_is_finite(x[i]))
            gpu_report(bad, at + i, f32_bits(x[i]));
        else if (!element_is_finite(out[i]))
            gpu_report(bad, at + i, bits);
    }
}

/* What a thread has to do once the largest magnitude of its block is known. */
COMPUTE_SHARED void encode_finish(const struct encode_work *work,
                                  const struct encode_shared *shared,
                                  const struct encode_place *place, float largest, uint64_t *bad)
{
    float x[GPU_EIGHT];

    if (work->kind == ENCODE_BNB4 && place->member == 0 && place->first < place->end)
        work->task.absmax[place->number] = largest;
    for (uint64_t at = place->first + place->member * GPU_EIGHT; at < place->end;
         at += work->team * GPU_EIGHT) {
        unsigned count = encode_load_eight(x, work->task.src, at, place->end);

        if (work->kind == ENCODE_ROUND_TRIP) {
            encode_round_trip_eight(work, shared, at, x, count, largest, bad);
            continue;
        }
        encode_bnb4_eight(work, at, x, count, f32_div(1.0f, largest));
        GPU_UNROLL
        for (unsigned i = 0; i < GPU_EIGHT; i++) {
            if (i < count && !element_is_finite(x[i]))
                gpu_report(bad, at + i, f32_bits(x[i]));
        }
    }
}

COMPUTE_SHARED void encode_block(const struct encode_work *work, struct encode_shared *shared,
                                 uint64_t *bad, uint64_t block)
{
    GPU_PHASE(thread, GPU_THREADS)
    {
        const struct encode_place place = encode_place_of(work, block, thread);

        shared->largest[thread] = encode_find_largest(work, &place);
        if (thread < 16)
            shared->table[thread] = work->table[thread];
    }
    for (unsigned half = work->team / 2; half; half /= 2) {
        GPU_PHASE(thread, GPU_THREADS)
        {
            if (thread % work->team < half)
                shared->largest[thread] = encode_larger(shared->largest[thread],
                                                        shared->largest[thread + half]);
        }
    }
    GPU_PHASE(thread, GPU_THREADS)
    {
        const struct encode_place place = encode_place_of(work, block, thread);

        encode_finish(work, shared, &place, shared->largest[thread / work->team * work->team], bad);
    }
}

/* With given scales: eight elements of a thread, of which a pair makes a byte of E2M1. */

/* The scale of an element of the matrix; `across` and `down` count its blocks. */
COMPUTE_SHARED float encode_scale_at(const struct device_scaled *task, uint64_t down,
                                     uint64_t across, uint64_t row, uint64_t col)
{
    const uint64_t matrix = element_divide(row, task->rows);
    const uint64_t line = matrix * down +
                          element_divide(row - matrix * task->rows, task->block_rows);

    return task->scales[line * across + element_divide(col, task->block_cols) - task->scale_first];
}

COMPUTE_SHARED void encode_scaled_eight(const struct device_scaled *task, uint64_t *bad,
                                        uint64_t at)
{
    const uint64_t down = gpu_ceil(task->rows, task->block_rows);
    const uint64_t across = gpu_ceil(task->cols, task->block_cols);
    uint64_t row = element_divide(task->first + at, task->cols);
    uint64_t col = task->first + at - row * task->cols;
    uint64_t block_end = col; /* of the block whose scale is at hand */
    float scale = 0.0f;
    float x[GPU_EIGHT];
    const unsigned count = encode_load_eight(x, task->src, at, task->count);
    unsigned low = 0;

    GPU_UNROLL
    for (unsigned i = 0; i < GPU_EIGHT; i++) {
        const float taken = task->integers ? x[i] : encode_taken(task->codes, x[i]);
        unsigned code;

        if (i >= count)
            continue;
        if (col == block_end) {
            scale = encode_scale_at(task, down, across, row, col);
            block_end = (element_divide(col, task->block_cols) + 1) * task->block_cols;
        }
        code = task->integers ? encode_int8_code(x[i], scale)
                              : encode_scaled_code(task->codes, taken, scale);
        if (task->codes != QUANT_E2M1)
            task->out[at + i] = (uint8_t)code;
        else if (i % 2 == 0 && i + 1 == count)
            task->out[(at + i) / 2] = (uint8_t)code;
        else if (i % 2 == 0)
            low = code;
        else
            task->out[(at + i) / 2] = (uint8_t)(low | code << 4);
        if (!task->integers && !element_is_finite(taken))
            gpu_report(bad, at + i, f32_bits(taken));
        if (++col == task->cols) {
            col = block_end = 0;
            row++;
        }
    }
}

COMPUTE_SHARED void encode_scaled_block(const struct device_scaled *task, uint64_t *bad,
                                        uint64_t block)
{
    GPU_PHASE(thread, GPU_THREADS)
    {
        const uint64_t at = (block * GPU_THREADS + thread) * GPU_EIGHT;

        if (at < task->count)
            encode_scaled_eight(task, bad, at);
    }
}

#endif
