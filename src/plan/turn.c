/*
 * turn.c - weights whose output lies transposed to the view of the base
 *
 * Folding is the same products in the same order whichever way a matrix lies, so what
 * is written transposed is folded as it is written: codes that lie transposed in the
 * base and are written back (experts of gpt-oss, Conv1D), and Conv1D layers that are
 * quantised, which bitsandbytes holds as [out, in].
 */
#include "plan/plan_internal.h"

#include "format/conv1d.h"

#include <string.h>

#define WEIGHT ".weight"

/* Does the output hold this tensor of the view [in, out] as codes of [out, in]? */
static bool is_encoded_conv1d(const struct plan_maker *maker, const struct plan_tensor *tensor)
{
    size_t bytes = strlen(WEIGHT);

    return plan_is_encoded(maker, tensor) && tensor->name_bytes > bytes &&
           conv1d_of(maker->facts->model_type, tensor->name, tensor->name_bytes - bytes) ==
               CONV1D_YES;
}

bool plan_is_turned(const struct plan_maker *maker, const struct plan_tensor *tensor,
                    const struct plan_match *list, size_t count)
{
    const struct scheme_tensor *quant = tensor->quant;

    for (size_t i = 0; i < count; i++) {
        if (list[i].edit->kind != EDIT_DELTA || list[i].edit->source != ADAPTER_NO_TENSOR)
            return false; /* which is refused, or stays in 16 bits, whatever way it lies */
    }
    if (maker->options->stored)
        return count && quant && quant->matrix.transposed && !plan_same_refusal(quant);
    return is_encoded_conv1d(maker, tensor);
}

/* The edit of one matrix of a tensor as one of the matrix transposed. */
static struct adapter_edit turned_edit(const struct adapter_edit *edit,
                                       const struct quant_matrix *matrix)
{
    struct adapter_edit turned = *edit;

    turned.rows = matrix->matrices * matrix->cols;
    turned.cols = matrix->rows;
    turned.row_first = edit->row_first / matrix->rows * matrix->cols;
    turned.row_count = matrix->cols;
    turned.left = edit->right;
    turned.right = edit->left;
    if (edit->norm != EDIT_NO_NORM)
        turned.norm = edit->norm == EDIT_NORM_OF_ROWS ? EDIT_NORM_OF_COLS : EDIT_NORM_OF_ROWS;
    return turned;
}

/* Numbers that are not quantised, as codes of a matrix [rows][cols] that lie in their order. */
static void describe_floats(struct scheme_tensor *out, const struct plan_tensor *tensor)
{
    const enum dtype dtype = (enum dtype)tensor->dtype_in;

    *out = (struct scheme_tensor){
        .kind = SCHEME_PLAIN,
        .matrix = { .matrices = 1,
                    .rows = tensor->shape[0],
                    .cols = tensor->shape[1],
                    .codes = QUANT_FLOATS,
                    .packing = QUANT_BYTES,
                    .bits = dtype_bits(dtype),
                    .scale_dtype = dtype,
                    .block_rows = 1,
                    .block_cols = 1,
                    .result_dtype = dtype },
        .parts[QUANT_PART_CODES] = { .shard = tensor->input,
                                     .dtype = dtype,
                                     .offset = tensor->in_offset,
                                     .bytes = tensor->in_bytes },
    };
}

int plan_turn(struct plan *plan, struct plan_tensor *tensor, struct plan_match *list, size_t count,
              struct error *err)
{
    struct scheme_tensor quant;
    struct quant_matrix *matrix = &quant.matrix;
    uint64_t shape[2];

    if (tensor->quant)
        quant = *tensor->quant;
    else
        describe_floats(&quant, tensor);
    for (size_t i = 0; i < count; i++) {
        struct adapter_edit edit = turned_edit(list[i].edit, matrix);

        list[i].edit = plan_keep(plan, &edit, sizeof(edit));
        if (!list[i].edit)
            return error_no_memory(err, "the edits of a tensor");
    }
    shape[0] = matrix->cols;
    shape[1] = matrix->rows;
    matrix->rows = shape[0];
    matrix->cols = shape[1];
    matrix->transposed = !matrix->transposed;
    if (matrix->packing == QUANT_HIGH_FLAT)
        matrix->block_rows = 0; /* blocks run through the rows again */
    if (tensor->shape_count == 2)
        tensor->shape = plan_keep(plan, shape, sizeof(shape));
    tensor->quant = plan_keep(plan, &quant, sizeof(quant));
    tensor->action = PLAN_CONVERT;
    return tensor->quant && tensor->shape ? 0 : error_no_memory(err, "the scheme of a tensor");
}
