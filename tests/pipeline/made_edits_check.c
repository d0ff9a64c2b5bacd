/* The definition of every edit, element by element: slow and obvious. */
#include "pipeline/made_codes.h"

#include "check.h"
#include "compute/fold.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One tensor while it is made, as fp32. */
struct work {
    const struct made_edits *made;
    unsigned adapter;
    float *original; /* W */
    float *x;
    uint64_t rows;
    uint64_t cols;
};

static float decode_at(const struct made_tensor *tensor, uint64_t element)
{
    float value;

    fold_scalar.decode(&value, tensor->data + element * dtype_bytes(tensor->dtype), tensor->dtype,
                       1);
    return value;
}

/* The factor as [rank][count], by the definition of factor_view. */
static float *expand(const struct made_model *heap, const struct factor_view *view, uint64_t count,
                     uint32_t rank)
{
    float *out = calloc(count * rank + 1, sizeof(*out));

    CHECK(out, "memory");
    for (uint64_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < rank; k++) {
            uint64_t element;

            if (view->blocks > 1) {
                uint64_t n = count / view->blocks;
                uint32_t q = rank / view->blocks;

                if (i / n != k / q)
                    continue;
                element = view->offset + i / n * n * q + i % n * view->index_stride +
                          k % q * view->rank_stride;
            } else {
                uint64_t j = i < view->first ? 0 : (i - view->first) / view->step;

                if (i < view->first || (i - view->first) % view->step || j >= view->count)
                    continue;
                element = view->offset + j * view->index_stride + k * view->rank_stride;
            }
            out[k * count + i] = decode_at(&heap->tensors[view->tensor], element);
        }
    }
    return out;
}

/* delta[row][col] of an edit, for its rows. */
static float *make_delta(const struct work *work, const struct adapter_edit *edit)
{
    const struct made_model *heap = &work->made->heaps[work->adapter];
    float *left = expand(heap, &edit->left, edit->row_count, edit->rank);
    float *right = expand(heap, &edit->right, edit->cols, edit->rank);
    float scale = (float)edit->scale;
    float *delta = calloc(edit->row_count * edit->cols + 1, sizeof(*delta));

    CHECK(delta, "memory");
    for (uint64_t r = 0; r < edit->row_count; r++) {
        for (uint32_t k = 0; k < edit->rank; k += FOLD_PANEL) {
            for (uint64_t c = 0; c < edit->cols; c++) {
                float acc = 0;

                for (uint32_t p = k; p < k + FOLD_PANEL && p < edit->rank; p++)
                    acc = fmaf(left[p * edit->row_count + r], right[p * edit->cols + c], acc);
                delta[r * edit->cols + c] = k == 0 ? acc : delta[r * edit->cols + c] + acc;
            }
        }
        for (uint64_t c = 0; c < edit->cols; c++) {
            volatile float scaled = scale * delta[r * edit->cols + c];

            delta[r * edit->cols + c] = scaled;
        }
    }
    free(left);
    free(right);
    return delta;
}

static void scale_rows(struct work *work, const struct adapter_edit *edit, const float *delta)
{
    const struct made_tensor *m = &work->made->heaps[work->adapter].tensors[edit->magnitude];

    for (uint64_t r = 0; r < edit->row_count; r++) {
        uint64_t first = (edit->row_first + r) * work->cols;
        double lanes[32] = { 0 };
        float factor;

        for (uint64_t c = 0; c < work->cols; c++) {
            float x = work->original[first + c] + delta[r * work->cols + c];

            lanes[c % 32] += (double)x * x;
        }
        for (unsigned half = 16; half; half /= 2) {
            for (unsigned l = 0; l < half; l++)
                lanes[l] += lanes[l + half];
        }
        factor = decode_at(m, r) / (float)sqrt(lanes[0]);
        for (uint64_t c = 0; c < work->cols; c++)
            work->x[first + c] *= factor;
    }
}

static void scale_cols(struct work *work, const struct adapter_edit *edit, const float *delta)
{
    const struct made_tensor *m = &work->made->heaps[work->adapter].tensors[edit->magnitude];

    for (uint64_t c = 0; c < work->cols; c++) {
        double sum = 0;
        float factor;

        for (uint64_t r = 0; r < work->rows; r++) {
            float x = work->original[r * work->cols + c] + delta[r * work->cols + c];

            sum += (double)x * x;
        }
        factor = decode_at(m, c) / (float)sqrt(sum);
        for (uint64_t r = 0; r < work->rows; r++)
            work->x[r * work->cols + c] *= factor;
    }
}

static void apply_delta(struct work *work, const struct adapter_edit *edit)
{
    float *delta = make_delta(work, edit);

    for (uint64_t i = 0; i < edit->row_count * work->cols; i++)
        work->x[edit->row_first * work->cols + i] += delta[i];
    if (edit->norm == EDIT_NORM_OF_ROWS)
        scale_rows(work, edit, delta);
    else if (edit->norm == EDIT_NORM_OF_COLS)
        scale_cols(work, edit, delta);
    free(delta);
}

static bool is_of(const struct made_edits *made, const struct adapter_edit *edit,
                  const struct made_tensor *tensor)
{
    struct model_ref ref;

    CHECK(model_find(&made->base, tensor->name, strlen(tensor->name), &ref), "%s", tensor->name);
    return edit->tensor.shard == ref.shard && edit->tensor.tensor == ref.tensor;
}

/* Elements that no edit touches keep their bytes. */
struct expected {
    uint8_t *bytes;
    uint64_t count; /* elements */
    enum dtype dtype;
};

static struct expected unchanged(const struct made_tensor *tensor, enum dtype dtype)
{
    uint64_t width = dtype_bytes(tensor->dtype);
    struct expected out = { .count = tensor->bytes / width, .dtype = dtype };

    out.bytes = malloc(out.count * dtype_bytes(dtype) + 1);
    CHECK(out.bytes, "memory");
    if (dtype == tensor->dtype) {
        memcpy(out.bytes, tensor->data, tensor->bytes);
        return out;
    }
    for (uint64_t i = 0; i < out.count; i++) {
        float value = decode_at(tensor, i);

        fold_scalar.encode(out.bytes + i * dtype_bytes(dtype), dtype, &value, 1);
    }
    return out;
}

/* `base` is the tensor, with new rows in it where it has some, or what replaces it. */
static void fold_deltas(const struct made_edits *made, const struct made_tensor *tensor,
                        const struct made_tensor *base, struct expected *out)
{
    uint64_t cols = tensor->shape[tensor->shape_count - 1];
    struct work work = { .made = made, .cols = cols, .rows = out->count / cols };
    bool *touched = calloc(work.rows, sizeof(*touched));

    work.original = malloc(out->count * sizeof(float) + 1);
    work.x = malloc(out->count * sizeof(float) + 1);
    for (uint64_t i = 0; i < out->count; i++)
        work.original[i] = work.x[i] = decode_at(base, i);
    for (work.adapter = 0; work.adapter < made->adapter_count; work.adapter++) {
        const struct adapter_edits *edits = &made->edits[work.adapter];

        for (size_t e = 0; e < edits->count; e++) {
            const struct adapter_edit *edit = &edits->list[e];

            if (edit->kind != EDIT_DELTA || !is_of(made, edit, tensor))
                continue;
            apply_delta(&work, edit);
            for (uint64_t r = 0; r < edit->row_count; r++)
                touched[edit->row_first + r] = true;
        }
    }
    for (uint64_t i = 0; i < out->count; i++) {
        if (touched[i / cols])
            fold_scalar.encode(out->bytes + i * dtype_bytes(out->dtype), out->dtype, &work.x[i], 1);
    }
    free(touched);
    free(work.original);
    free(work.x);
}

static void put_rows(const struct made_edits *made, unsigned adapter,
                     const struct adapter_edit *edit, uint8_t *out, enum dtype dtype)
{
    const struct made_tensor *source = &made->heaps[adapter].tensors[edit->source];

    for (size_t i = 0; i < edit->row_list_count; i++) {
        for (uint64_t c = 0; c < edit->cols; c++) {
            float value = decode_at(source, edit->row_source[i] * edit->cols + c);
            uint64_t element = edit->row_list[i] * edit->cols + c;

            fold_scalar.encode(out + element * dtype_bytes(dtype), dtype, &value, 1);
        }
    }
}

/* New rows, in the tensor's own dtype, into `base`; another tensor as `replaced`. */
static void replace(const struct made_edits *made, const struct made_tensor *tensor,
                    struct expected *base, const struct made_tensor **replaced)
{
    for (unsigned a = 0; a < made->adapter_count; a++) {
        for (size_t e = 0; e < made->edits[a].count; e++) {
            const struct adapter_edit *edit = &made->edits[a].list[e];

            if (edit->kind == EDIT_DELTA || !is_of(made, edit, tensor))
                continue;
            if (edit->kind == EDIT_REPLACE) {
                *replaced = &made->heaps[a].tensors[edit->source];
            } else {
                put_rows(made, a, edit, base->bytes, base->dtype);
            }
        }
    }
}

static struct expected make_expected(const struct made_edits *made,
                                     const struct made_tensor *tensor,
                                     const struct plan_options *options)
{
    enum dtype dtype = options->convert && dtype_is_computed(tensor->dtype) ? options->dtype
                                                                            : tensor->dtype;
    struct expected base = unchanged(tensor, tensor->dtype);
    struct made_tensor changed = *tensor;
    const struct made_tensor *replaced = NULL;
    struct expected out;

    if (made_goes_through(made, tensor, options)) {
        free(base.bytes);
        base.bytes = made_through_nf4(tensor);
    }
    replace(made, tensor, &base, &replaced);
    changed.data = base.bytes;
    out = unchanged(replaced ? replaced : &changed, dtype);
    if (dtype_is_computed(tensor->dtype))
        fold_deltas(made, tensor, replaced ? replaced : &changed, &out);
    free(base.bytes);
    return out;
}

/* Where a plan puts the tensor. */
static const struct plan_tensor *find(const struct plan *plan, const char *name,
                                      const struct plan_file **file)
{
    for (size_t f = 0; f < plan->file_count; f++) {
        *file = &plan->files[f];
        for (uint64_t t = 0; t < (*file)->tensor_count; t++) {
            const struct plan_tensor *tensor = &plan->tensors[(*file)->tensor_first + t];

            if (tensor->name_bytes == strlen(name) && memcmp(tensor->name, name, strlen(name)) == 0)
                return tensor;
        }
    }
    return NULL;
}

static void check_tensor(const struct made_edits *made, const struct made_tensor *tensor,
                         const struct plan *plan, const char *output,
                         const struct plan_options *options)
{
    struct expected expected = make_expected(made, tensor, options);
    uint64_t width = dtype_bytes(expected.dtype);
    struct file file = FILE_CLOSED;
    struct error err = { 0 };
    const struct plan_file *place = NULL;
    const struct plan_tensor *found = find(plan, tensor->name, &place);
    uint8_t *actual;
    char path[800];

    if (made_is_encoded(made, tensor, options)) {
        made_check_codes(plan, output, tensor->name, expected.bytes, expected.dtype, expected.count,
                         options);
        free(expected.bytes);
        return;
    }
    actual = malloc(expected.count * width + 1);
    CHECK(found, "%s is missing", tensor->name);
    CHECK(found->dtype_out == expected.dtype && found->out_bytes == expected.count * width,
          "%s: dtype or size", tensor->name);
    snprintf(path, sizeof(path), "%s/%s", output, place->name);
    CHECK(file_open_input(&file, path, FILE_DIRECT_OFF, &err) == 0 &&
              file_pread(&file, actual, found->out_bytes, found->out_offset, &err) == 0,
          "%s", err.text);
    file_close(&file);
    for (uint64_t i = 0; i < expected.count; i++)
        CHECK(memcmp(actual + i * width, expected.bytes + i * width, width) == 0,
              "%s: element %llu of %llu, columns %llu", tensor->name, (unsigned long long)i,
              (unsigned long long)expected.count,
              (unsigned long long)tensor->shape[tensor->shape_count - 1]);
    free(actual);
    free(expected.bytes);
}

void made_edits_check(const struct made_edits *made, const struct plan *plan, const char *output,
                      const struct plan_options *options)
{
    for (unsigned i = 0; i < made->model.tensor_count; i++)
        check_tensor(made, &made->model.tensors[i], plan, output, options);
}
