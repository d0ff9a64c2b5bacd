#include "pipeline/made_codes.h"

#include "check.h"
#include "compute/encode.h"
#include "compute/fold.h"
#include "compute/quant_layout.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK 64u

/* The tensor as the base holds it: is it stored as codes? */
static const struct scheme_tensor *stored(const struct made_edits *made,
                                          const struct made_tensor *tensor)
{
    struct model_ref ref;
    uint64_t number;

    CHECK(model_find(&made->base, tensor->name, strlen(tensor->name), &ref), "%s", tensor->name);
    number = ref.tensor;
    for (uint32_t s = 0; s < ref.shard; s++)
        number += made->base.shards[s].header.tensor_count;
    return made->scheme.quantised && made->scheme.tensors[number].kind != SCHEME_PLAIN
               ? &made->scheme.tensors[number]
               : NULL;
}

bool made_is_linear(const struct made_edits *made, const struct made_tensor *tensor)
{
    const char *end = strstr(tensor->name, ".weight");
    struct model_ref ref;

    if (!end || end[7] || tensor->shape_count != 2 || !dtype_is_computed(tensor->dtype))
        return false;
    CHECK(model_find(&made->base, tensor->name, strlen(tensor->name), &ref), "%s", tensor->name);
    for (unsigned a = 0; a < made->adapter_count; a++) {
        for (size_t e = 0; e < made->edits[a].count; e++) {
            const struct adapter_edit *edit = &made->edits[a].list[e];

            bool replaces = edit->kind == EDIT_REPLACE ||
                            (edit->kind == EDIT_ROWS && edit->row_list_count);

            if (replaces && edit->tensor.shard == ref.shard && edit->tensor.tensor == ref.tensor)
                return false;
        }
    }
    return true;
}

bool made_goes_through(const struct made_edits *made, const struct made_tensor *tensor,
                       const struct plan_options *options)
{
    return options->roundtrip && made_is_linear(made, tensor) && !stored(made, tensor);
}

bool made_is_encoded(const struct made_edits *made, const struct made_tensor *tensor,
                     const struct plan_options *options)
{
    const struct scheme_tensor *scheme = stored(made, tensor);

    if (!options->encode || !made_is_linear(made, tensor))
        return false;
    return made->bnb4 ? scheme && scheme->kind == SCHEME_BNB4 : true;
}

uint8_t *made_through_nf4(const struct made_tensor *tensor)
{
    uint64_t count = tensor->bytes / dtype_bytes(tensor->dtype);
    float *values = malloc(count * sizeof(*values) + 1);
    uint8_t *out = malloc(tensor->bytes + 1);

    CHECK(values && out, "memory");
    fold_scalar.decode(values, tensor->data, tensor->dtype, count);
    encode_scalar.bnb4_round_trip(values, QUANT_NF4, tensor->dtype, values, count, BLOCK);
    fold_scalar.encode(out, tensor->dtype, values, count);
    free(values);
    return out;
}

uint8_t *made_read(const struct plan *plan, const char *output, const char *name, uint64_t bytes)
{
    for (size_t f = 0; f < plan->file_count; f++) {
        for (uint64_t t = 0; t < plan->files[f].tensor_count; t++) {
            const struct plan_tensor *tensor = &plan->tensors[plan->files[f].tensor_first + t];
            struct file file = FILE_CLOSED;
            struct error err = { 0 };
            char path[800];
            uint8_t *out;

            if (strcmp(tensor->name, name) != 0)
                continue;
            CHECK(tensor->out_bytes == bytes, "%s: size", name);
            out = malloc(bytes + 1);
            snprintf(path, sizeof(path), "%s/%s", output, plan->files[f].name);
            CHECK(out && file_open_input(&file, path, FILE_DIRECT_OFF, &err) == 0 &&
                      file_pread(&file, out, bytes, tensor->out_offset, &err) == 0,
                  "%s", err.text);
            file_close(&file);
            return out;
        }
    }
    CHECK(false, "%s is missing", name);
    return NULL;
}

static void check_part(const struct plan *plan, const char *output, const char *name,
                       const char *end, const void *expected, uint64_t bytes)
{
    char full[128];
    uint8_t *actual;

    snprintf(full, sizeof(full), "%s%s", name, end);
    actual = made_read(plan, output, full, bytes);
    for (uint64_t i = 0; i < bytes; i++)
        CHECK(actual[i] == ((const uint8_t *)expected)[i], "%s: byte %llu of %llu", full,
              (unsigned long long)i, (unsigned long long)bytes);
    free(actual);
}

static void check_nested(const struct plan *plan, const char *output, const char *name,
                         const float *absmax, uint64_t blocks)
{
    uint64_t groups = (blocks + ENCODE_NESTED_BLOCK - 1) / ENCODE_NESTED_BLOCK;
    uint8_t *codes = malloc(blocks);
    float *nested = malloc(groups * sizeof(*nested));
    float map[256];

    CHECK(codes && nested, "memory");
    encode_dynamic_map(map);
    encode_nested(codes, nested, absmax, blocks, encode_nested_offset(absmax, blocks), map);
    check_part(plan, output, name, ".absmax", codes, blocks);
    check_part(plan, output, name, ".nested_absmax", nested, groups * sizeof(*nested));
    check_part(plan, output, name, ".nested_quant_map", map, sizeof(map));
    free(codes);
    free(nested);
}

void made_check_codes(const struct plan *plan, const char *output, const char *name,
                      const uint8_t *merged, enum dtype dtype, uint64_t count,
                      const struct plan_options *options)
{
    uint64_t blocks = (count + BLOCK - 1) / BLOCK;
    float *values = malloc(count * sizeof(*values));
    float *absmax = malloc(blocks * sizeof(*absmax));
    uint8_t *codes = malloc((count + 1) / 2);

    CHECK(values && absmax && codes, "memory");
    fold_scalar.decode(values, merged, dtype, count);
    CHECK(encode_scalar.bnb4(codes, absmax, options->codes, values, count, BLOCK) == FOLD_FINITE,
          "%s is not finite", name);
    check_part(plan, output, name, "", codes, (count + 1) / 2);
    if (options->nested)
        check_nested(plan, output, name, absmax, blocks);
    else
        check_part(plan, output, name, ".absmax", absmax, blocks * sizeof(*absmax));
    free(values);
    free(absmax);
    free(codes);
}
