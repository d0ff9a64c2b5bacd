/*
 * body_quant.h - quantised elements, decoded
 *
 * Neighbouring threads take neighbouring elements of the result.  Where the codes lie transposed to
 * it a block takes a square of QUANT_SIDE x QUANT_SIDE, whose codes it finds in few pieces of
 * memory: what one row fetches the next ones find in the cache.  A decoded element is
 * 50 to 100 instructions; that is several times as fast as codes come over any PCIe.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef GPU_BODY_QUANT_H
#define GPU_BODY_QUANT_H

#include "compute/quant_element.h"
#include "gpu/body.h"

#define QUANT_EACH 16u /* elements of a thread, so that copying the tables is little of it */
#define QUANT_SIDE 32u
#define QUANT_SIDE_ROWS (GPU_THREADS / QUANT_SIDE) /* of a square, at a time */

/* A task with what is the same for all elements worked out (grid.c). */
struct quant_work {
    float *dst;
    struct quant_matrix matrix;
    struct quant_grid grid;
    struct quant_view views[QUANT_PART_COUNT];
    struct quant_whole whole; /* pointers to memory of the device */
    float table[16];
    uint64_t first;
    uint64_t count;
    uint64_t row_first; /* transposed: rows [row_first, row_first + rows) of the result */
    uint64_t rows;
    uint64_t squares_across; /* transposed; 0: not */
};

/* Tables are looked up at places that differ from thread to thread. */
struct quant_shared {
    float table[16];
    float map[256];
};

COMPUTE_SHARED void quant_copy_tables(struct quant_shared *shared, const struct quant_work *work,
                                      unsigned thread)
{
    if (thread < 16)
        shared->table[thread] = work->table[thread];
    if (work->matrix.scale == QUANT_SCALE_NESTED) {
        for (unsigned i = thread; i < 256; i += GPU_THREADS)
            shared->map[i] = work->whole.map[i];
    }
}

/* Element `index` of the result, counted from work->first. */
COMPUTE_SHARED void quant_decode_at(const struct quant_work *work,
                                    const struct quant_shared *shared,
                                    const struct quant_place *place, uint64_t index, uint64_t *bad)
{
    const struct quant_scaling scaling = quant_scaling_of(&work->matrix, work->views, &work->whole,
                                                          shared->map, place);
    const uint32_t code = quant_field(&work->views[QUANT_PART_CODES], place->matrix, place->row,
                                      place->col);
    const uint32_t bits = quant_weight(&work->matrix, shared->table, code, &scaling);

    work->dst[index] = f32_from_bits(bits);
    if ((bits & F32_MAGNITUDE) >= F32_INFINITY)
        gpu_report(bad, index, bits);
}

COMPUTE_SHARED void quant_decode_row(const struct quant_work *work,
                                     const struct quant_shared *shared, uint64_t index,
                                     uint64_t *bad)
{
    const struct quant_place place = quant_place_of(&work->matrix, &work->grid, &work->whole,
                                                    work->first + index);

    quant_decode_at(work, shared, &place, index, bad);
}

/* Element at row and column of the result's matrix, if it belongs to the range. */
COMPUTE_SHARED void quant_decode_transposed(const struct quant_work *work,
                                            const struct quant_shared *shared, uint64_t row,
                                            uint64_t col, uint64_t *bad)
{
    const uint64_t elements = work->matrix.rows * work->matrix.cols;
    const uint64_t matrix = element_divide(work->first, elements);
    const uint64_t element = matrix * elements + row * work->matrix.cols + col;
    struct quant_place place;

    /* Before the first it wraps round, and is beyond the last. */
    if (col >= work->matrix.cols || element - work->first >= work->count)
        return;
    place = quant_place_at(&work->grid, &work->whole, matrix, col, row);
    quant_decode_at(work, shared, &place, element - work->first, bad);
}

COMPUTE_SHARED void quant_block(const struct quant_work *work, struct quant_shared *shared,
                                uint64_t *bad, uint64_t block)
{
    GPU_PHASE(thread, GPU_THREADS)
    quant_copy_tables(shared, work, thread);
    GPU_PHASE(thread, GPU_THREADS)
    {
        if (work->squares_across) {
            const uint64_t down = element_divide(block, work->squares_across);
            const uint64_t across = block - down * work->squares_across;

            for (unsigned r = thread / QUANT_SIDE; r < QUANT_SIDE; r += QUANT_SIDE_ROWS)
                quant_decode_transposed(work, shared, work->row_first + down * QUANT_SIDE + r,
                                        across * QUANT_SIDE + thread % QUANT_SIDE, bad);
        } else {
            for (unsigned i = 0; i < QUANT_EACH; i++) {
                const uint64_t index = (block * QUANT_EACH + i) * GPU_THREADS + thread;

                if (index < work->count)
                    quant_decode_row(work, shared, index, bad);
            }
        }
    }
}

#endif
