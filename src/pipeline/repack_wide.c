/*
 * repack_wide.c - fused factors whose rows are longer than what is read at once
 *
 * A row holds elements of all experts.  It is read in windows, and each window is
 * put to all experts that it holds something of.
 */
#include "pipeline/prepare.h"

#include <string.h>

/*
 * A left factor is written row by row, so a window is as long as it can be; a right one rank by
 * rank, so that windows of several rows (64) make longer pieces.
 */
#define RIGHT_WINDOW_FLOATS UINT64_C(1024)

struct window {
    uint64_t row; /* rows [row, row + rows) */
    uint64_t rows;
    uint64_t first; /* elements [first, first + width), counted from the first one of each row */
    uint64_t width;
};

/* The elements of the window, [rows][width], into scratch->a; rows that are not there are zero. */
static int read_window(const struct job *job, const struct scratch *scratch,
                       const struct plan_repack *repack, const struct window *window,
                       struct error *err)
{
    const struct factor_view *view = &repack->view;
    const struct plan_factor factor = { repack->input, repack->tensor_offset, repack->dtype };

    for (uint64_t r = 0; r < window->rows; r++) {
        uint64_t i = window->row + r;
        uint64_t index = i < view->first ? 0 : (i - view->first) / view->step;
        bool there = i >= view->first && (i - view->first) % view->step == 0 && index < view->count;
        float *out = scratch->a + r * window->width;

        memset(out, 0, window->width * sizeof(*out));
        if (there && factors_fetch_at(job, scratch, &factor,
                                      view->offset + index * view->index_stride + window->first,
                                      out, window->width, err))
            return err->code;
    }
    return 0;
}

/* How many ranks lie before element `end` of a row, where that of rank 0 is element `begin`. */
static uint32_t count_ranks(const struct plan_repack *repack, uint64_t begin, uint64_t end)
{
    uint64_t stride = max_u64(repack->view.rank_stride, 1);

    return end <= begin ? 0 : (uint32_t)min_u64((end - begin - 1) / stride + 1, repack->rank);
}

/* What the window holds of one factor, whose rows begin `begin` elements behind the first one's. */
static int write_window(const struct job *job, const struct scratch *scratch,
                        const struct plan_repack *repack, uint64_t begin,
                        const struct window *window, struct error *err)
{
    uint32_t k = count_ranks(repack, begin, window->first);
    uint32_t end = count_ranks(repack, begin, window->first + window->width);
    float *out = scratch->b;

    for (uint32_t rank = k; rank < end; rank++) {
        uint64_t from = begin + rank * repack->view.rank_stride - window->first;

        for (uint64_t r = 0; r < window->rows; r++)
            out[(rank - k) * window->rows + r] = scratch->a[r * window->width + from];
    }
    if (!repack->is_right)
        return file_pwrite(&job->repacked, out, (end - k) * sizeof(*out),
                           repack->offset + (window->row * repack->rank + k) * sizeof(*out), err);
    for (uint32_t rank = k; rank < end; rank++) {
        if (file_pwrite(&job->repacked, out + (rank - k) * window->rows,
                        window->rows * sizeof(*out),
                        repack->offset + (rank * repack->count + window->row) * sizeof(*out), err))
            return err->code;
    }
    return 0;
}

int repack_wide(struct job *job, const struct scratch *scratch, const struct plan_repack *repacks,
                size_t count, uint64_t row_floats, struct prepare_watch *watch, struct error *err)
{
    uint64_t width = repacks[0].is_right ? RIGHT_WINDOW_FLOATS : PLAN_B_FLOATS;
    struct window window = { .rows = PLAN_B_FLOATS / width };

    for (; window.row < repacks[0].count; window.row += window.rows) {
        window.rows = min_u64(window.rows, repacks[0].count - window.row);
        for (window.first = 0; window.first < row_floats; window.first += width) {
            window.width = min_u64(width, row_floats - window.first);
            if (prepare_step(watch, window.rows * window.width * sizeof(float), err) ||
                read_window(job, scratch, &repacks[0], &window, err))
                return err->code;
            for (size_t r = 0; r < count; r++) {
                if (write_window(job, scratch, &repacks[r],
                                 repacks[r].view.offset - repacks[0].view.offset, &window, err))
                    return err->code;
            }
        }
    }
    return 0;
}
