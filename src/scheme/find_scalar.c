#include "base/bytes.h"
#include "compute/convert.h"
#include "scheme/find.h"

#include <math.h>

int find_take_scalar(struct scheme_find *find, const struct scheme_anchor *anchor,
                     struct model_ref ref, uint32_t dtypes, struct scheme_part *out, float *value,
                     struct error *err)
{
    const struct st_tensor *tensor = model_tensor(find->model, ref);
    const struct st_header *header = model_header(find->model, ref);
    char quoted[QUOTED_BYTES];
    char shape[SHAPE_BYTES];
    uint8_t bytes[4] = { 0 };

    error_quote(quoted, sizeof(quoted), st_name(header, tensor), tensor->name_bytes);
    if (tensor->element_count != 1)
        return find_refuse(find, anchor->ref, err,
                           "its companion '%s' has shape %s and must be one number", quoted,
                           shape_print(shape, st_shape(header, tensor), tensor->shape_count));
    if (find_take(find, anchor, ref, dtypes, NULL, 0, out, err) ||
        find_read(find, ref, bytes, (size_t)tensor->data_bytes, err))
        return err->code;
    if (tensor->dtype == DTYPE_F32)
        *value = f32_from_bits(load_le32(bytes));
    else if (tensor->dtype == DTYPE_BF16)
        *value = f32_from_bits(bf16_decode(load_le16(bytes)));
    else
        *value = f32_from_bits(f16_decode(load_le16(bytes)));
    if (!isfinite(*value))
        return find_refuse(find, anchor->ref, err, "its companion '%s' is %g and must be finite",
                           quoted, (double)*value);
    return 0;
}
