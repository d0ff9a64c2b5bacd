/*
 * repack.c - factors that do not lie as they are needed, put in order before the work
 *
 * They go, as fp32, to a file beside the output that has no name, so that it ends
 * with the process.  Transposed factors (embeddings, Conv1D) and the rank-major
 * factor B of fused experts come here; one reading serves all experts of a tensor.
 */
#include "pipeline/prepare.h"

#include <string.h>
#include <unistd.h>

#define FACTORS_NAME ".lorafold-factors"

/* Where in the tensor the element of (i, k) is; false: it is zero. */
static bool locate(const struct plan_repack *repack, uint64_t i, uint32_t k, uint64_t *element)
{
    const struct factor_view *view = &repack->view;

    if (view->blocks > 1) {
        uint64_t n = view->count / view->blocks;
        uint32_t q = repack->rank / view->blocks;

        if (i / n != k / q)
            return false;
        *element = view->offset + i / n * n * q + i % n * view->index_stride +
                   k % q * view->rank_stride;
        return true;
    }
    if (i < view->first || (i - view->first) % view->step != 0 ||
        (i - view->first) / view->step >= view->count)
        return false;
    *element = view->offset + (i - view->first) / view->step * view->index_stride +
               k * view->rank_stride;
    return true;
}

/* The range of elements that rows [i, i + n) of the factor need for the ranks [k, k + ranks). */
static bool find_range(const struct plan_repack *repack, uint64_t i, uint64_t n, uint32_t k,
                       uint32_t ranks, uint64_t *first, uint64_t *end)
{
    *first = UINT64_MAX;
    *end = 0;
    for (uint64_t row = i; row < i + n; row++) {
        for (uint32_t rank = k; rank<k + ranks; rank += ranks> 1 ? ranks - 1 : 1) {
            uint64_t element;

            if (!locate(repack, row, rank, &element))
                continue;
            *first = min_u64(*first, element);
            *end = max_u64(*end, element + 1);
        }
    }
    return *first < *end;
}

static float *place(const struct plan_repack *repack, float *out, uint64_t n, uint64_t row,
                    uint32_t k)
{
    return repack->is_right ? out + k * n + row : out + row * repack->rank + k;
}

/* Put what was read, elements [first, end), to rows [i, i + n) and the ranks [k, k + ranks). */
static void scatter(const struct plan_repack *repack, const float *in, uint64_t first, uint64_t end,
                    float *out, uint64_t i, uint64_t n, uint32_t k, uint32_t ranks)
{
    const struct factor_view *view = &repack->view;

    if (factor_view_is_plain(view, repack->count)) {
        for (uint64_t row = 0; row < n; row++) {
            uint64_t from = view->offset + (i + row) * view->index_stride;

            for (uint32_t rank = k; rank < k + ranks; rank++)
                *place(repack, out, n, row, rank) = in[from + rank * view->rank_stride - first];
        }
        return;
    }
    for (uint64_t row = 0; row < n; row++) {
        for (uint32_t rank = k; rank < k + ranks; rank++) {
            uint64_t element;
            bool found = locate(repack, i + row, rank, &element);

            *place(repack, out, n, row,
                   rank) = found && element >= first && element < end ? in[element - first] : 0.0f;
        }
    }
}

static int write_rows(const struct file *file, const struct plan_repack *repack, const float *out,
                      uint64_t i, uint64_t n, struct error *err)
{
    if (!repack->is_right)
        return file_pwrite(file, out, n * repack->rank * sizeof(*out),
                           repack->offset + i * repack->rank * sizeof(*out), err);
    for (uint32_t k = 0; k < repack->rank; k++) {
        if (file_pwrite(file, out + k * n, n * sizeof(*out),
                        repack->offset + (k * repack->count + i) * sizeof(*out), err))
            return err->code;
    }
    return 0;
}

/* Do both lie in the same rows of one tensor, as the experts of a fused factor do? */
static bool share_rows(const struct plan_repack *x, const struct plan_repack *y)
{
    return x->input == y->input && x->tensor_offset == y->tensor_offset && x->dtype == y->dtype &&
           x->count == y->count && x->rank == y->rank && x->is_right == y->is_right &&
           x->view.tensor == y->view.tensor && x->view.blocks == 1 && y->view.blocks == 1 &&
           x->view.index_stride == y->view.index_stride &&
           x->view.rank_stride == y->view.rank_stride && x->view.first == y->view.first &&
           x->view.step == y->view.step && x->view.count == y->view.count;
}

static int fetch(const struct job *job, const struct scratch *scratch,
                 const struct plan_repack *repack, uint64_t first, uint64_t end, struct error *err)
{
    const struct plan_factor factor = { repack->input,
                                        repack->tensor_offset + first * dtype_bytes(repack->dtype),
                                        repack->dtype };

    return factors_fetch(job, scratch, &factor, scratch->b, end - first, err);
}

/* Rows [i, i + n) of factors whose elements for these rows are read in one piece. */
static int repack_shared(struct job *job, const struct scratch *scratch,
                         const struct plan_repack *repacks, size_t count, uint64_t i, uint64_t n,
                         uint64_t first, uint64_t end, struct error *err)
{
    if (fetch(job, scratch, &repacks[0], first, end, err))
        return err->code;
    for (size_t r = 0; r < count; r++) {
        scatter(&repacks[r], scratch->b, first, end, scratch->a, i, n, 0, repacks[r].rank);
        if (write_rows(&job->repacked, &repacks[r], scratch->a, i, n, err))
            return err->code;
    }
    return 0;
}

/* Rows [i, i + n) of one factor, rank by rank. */
static int repack_ranks(struct job *job, const struct scratch *scratch,
                        const struct plan_repack *repack, uint64_t i, uint64_t n, struct error *err)
{
    for (uint32_t k = 0; k < repack->rank; k++) {
        uint64_t first = 0, end = 0;

        if (find_range(repack, i, n, k, 1, &first, &end) &&
            fetch(job, scratch, repack, first, end, err))
            return err->code;
        scatter(repack, scratch->b, first, end, scratch->a, i, n, k, 1);
    }
    return write_rows(&job->repacked, repack, scratch->a, i, n, err);
}

/* How many rows of a factor are made at once, so that what they need can be read in one piece. */
static uint64_t rows_at_once(const struct plan_repack *repack, uint64_t span)
{
    uint64_t stride = repack->view.index_stride ? repack->view.index_stride : 1;

    return min_u64(PLAN_A_FLOATS / repack->rank, (PLAN_B_FLOATS - span) / stride + 1);
}

static int repack_group(struct job *job, const struct scratch *scratch,
                        const struct plan_repack *repacks, size_t count,
                        struct prepare_watch *watch, struct error *err)
{
    const struct plan_repack *first = &repacks[0];
    uint64_t spread = repacks[count - 1].view.offset - first->view.offset;
    uint64_t span = (first->rank - 1) * first->view.rank_stride + 1 + spread;
    /* Elements of one row lie together, or those of one rank do. */
    bool by_row = first->view.blocks == 1 && first->view.index_stride >= first->view.rank_stride;
    uint64_t rows = 0;

    if (by_row && span > PLAN_B_FLOATS)
        return repack_wide(job, scratch, repacks, count, span, watch, err);
    if (by_row)
        rows = rows_at_once(first, span);
    for (size_t r = 0; rows == 0 && r < count; r++) {
        uint64_t stride = first->view.index_stride ? first->view.index_stride : 1;
        uint64_t n = min_u64(min_u64(first->count, PLAN_A_FLOATS / first->rank),
                             (PLAN_B_FLOATS - 1) / stride + 1);

        for (uint64_t i = 0; i < first->count; i += n) {
            uint64_t part = min_u64(n, first->count - i);

            if (prepare_step(watch, part * first->rank * sizeof(float), err) ||
                repack_ranks(job, scratch, &repacks[r], i, part, err))
                return err->code;
        }
    }
    for (uint64_t i = 0; rows && i < first->count; i += rows) {
        uint64_t n = min_u64(rows, first->count - i);
        uint64_t begin = 0, end = 0, unused;

        if (find_range(first, i, n, 0, first->rank, &begin, &end))
            find_range(&repacks[count - 1], i, n, 0, first->rank, &unused, &end);
        if (prepare_step(watch, count * n * first->rank * sizeof(float), err) ||
            repack_shared(job, scratch, repacks, count, i, n, begin, end, err))
            return err->code;
    }
    return 0;
}

static int repack_ones(struct job *job, const struct scratch *scratch,
                       const struct plan_repack *repack, struct prepare_watch *watch,
                       struct error *err)
{
    uint64_t floats = repack->count * repack->rank;

    for (uint64_t done = 0; done < floats;) {
        uint64_t part = min_u64(floats - done, PLAN_A_FLOATS);

        for (uint64_t i = 0; i < part; i++)
            scratch->a[i] = 1.0f;
        if (prepare_step(watch, part * sizeof(float), err) ||
            file_pwrite(&job->repacked, scratch->a, part * sizeof(float),
                        repack->offset + done * sizeof(float), err))
            return err->code;
        done += part;
    }
    return 0;
}

static int open_factors(struct job *job, int directory_fd, struct error *err)
{
    int status = file_create_output(directory_fd, FACTORS_NAME, job->plan->repack_bytes, err);

    if (status)
        return status;
    status = file_open_output(&job->repacked, directory_fd, FACTORS_NAME, FILE_DIRECT_OFF, err);
    /* With its name it would become part of the model. */
    if (unlinkat(directory_fd, FACTORS_NAME, 0) < 0 && !status)
        status = error_set_errno(err, "cannot remove '%s'", FACTORS_NAME);
    return status;
}

int prepare_factors(struct job *job, const struct scratch *scratch, int directory_fd,
                    struct prepare_watch *watch, struct error *err)
{
    const struct plan *plan = job->plan;
    int status = plan->repack_bytes ? open_factors(job, directory_fd, err) : 0;

    for (size_t i = 0; i < plan->repack_count && !status;) {
        const struct plan_repack *repacks = plan->repacks + i;
        size_t count = 1;

        while (i + count < plan->repack_count && share_rows(&repacks[0], &repacks[count]) &&
               repacks[count].view.offset > repacks[count - 1].view.offset &&
               repacks[count].view.offset - repacks[0].view.offset < repacks[0].view.index_stride)
            count++;
        if (repacks[0].view.tensor == EDIT_ALL_ONES)
            status = repack_ones(job, scratch, &repacks[0], watch, err);
        else
            status = repack_group(job, scratch, repacks, count, watch, err);
        if (status && status != ERR_CANCELLED)
            error_prefix(err, "repacking factors");
        i += count;
    }
    return status;
}
