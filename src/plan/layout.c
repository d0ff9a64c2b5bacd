#include "plan/plan_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* They stay in memory while the plan does; those of 100,000 tensors take 12 MB. */
#define HEADERS_BYTES_MAX (512 * MIB)

/* The end of the run of tensors that take the place of one base shard. */
static uint64_t group_end(const struct plan *plan, uint64_t first)
{
    uint64_t end = first + 1;

    while (end < plan->tensor_count && plan->tensors[end].shard == plan->tensors[first].shard)
        end++;
    return end;
}

/* The end of the file that begins with tensor `first` of a group. */
static uint64_t file_end(const struct plan *plan, uint64_t first, uint64_t end, uint64_t bytes_max)
{
    uint64_t bytes = 0;
    uint64_t next = first;

    while (next < end) {
        uint64_t tensor_bytes = plan->tensors[next].out_bytes;

        if (next > first && (tensor_bytes > bytes_max || bytes > bytes_max - tensor_bytes))
            break;
        bytes += tensor_bytes; /* bounded by the sizes of existing files times two */
        next++;
    }
    return next;
}

static int cut_files(struct plan *plan, uint64_t max_shard_bytes, struct error *err)
{
    size_t capacity = 0;

    for (uint64_t first = 0; first < plan->tensor_count;) {
        uint64_t end = group_end(plan, first);

        while (first < end) {
            uint64_t next = file_end(plan, first, end, max_shard_bytes);

            if (plan->file_count == capacity) {
                struct plan_file *files;

                capacity = capacity ? capacity * 2 : 16;
                files = realloc(plan->files, capacity * sizeof(*files));
                if (!files)
                    return error_no_memory(err, "the list of output files");
                plan->files = files;
            }
            if (plan->file_count == 99999)
                return error_set(err, ERR_USAGE,
                                 "--max-shard-size %" PRIu64
                                 " gives more than 99999 files: raise it",
                                 max_shard_bytes);
            plan->files[plan->file_count++] = (struct plan_file){ .tensor_first = first,
                                                                  .tensor_count = next - first };
            first = next;
        }
    }
    return 0;
}

int plan_check_variant(const char *variant, struct error *err)
{
    size_t bytes = strlen(variant);
    size_t fine = strspn(variant,
                         "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
    char quoted[QUOTED_BYTES];

    if (bytes > 0 && fine == bytes && bytes <= PLAN_VARIANT_BYTES_MAX)
        return 0;
    return error_set(err, ERR_USAGE,
                     "--variant '%s' is not 1 to %u letters, digits, '_' and '-', as part of the "
                     "name of a file",
                     error_quote(quoted, sizeof(quoted), variant, bytes), PLAN_VARIANT_BYTES_MAX);
}

/* As transformers names them: model.VARIANT-00001-of-00002.safetensors. */
static void name_files(struct plan *plan, const struct plan_options *options)
{
    const char *stem = options->torch ? "pytorch_model" : "model";
    const char *ending = options->torch ? "bin" : "safetensors";
    const char *dot = options->variant ? "." : "";
    const char *variant = options->variant ? options->variant : "";

    for (size_t i = 0; i < plan->file_count; i++) {
        struct plan_file *file = &plan->files[i];

        if (plan->file_count == 1)
            snprintf(file->name, sizeof(file->name), "%s%s%s.%s", stem, dot, variant, ending);
        else
            snprintf(file->name, sizeof(file->name), "%s%s%s-%05zu-of-%05zu.%s", stem, dot, variant,
                     i + 1, plan->file_count, ending);
    }
    if (plan->file_count > 1)
        snprintf(plan->index_name, sizeof(plan->index_name), "%s.%s.index%s%s.json", stem, ending,
                 dot, variant);
}

bool plan_keeps_width(const struct plan_tensor *tensor)
{
    return tensor->in_bytes == tensor->out_bytes && tensor->in_bytes > 0 && !tensor->quant &&
           !tensor->encoding;
}

/* Where, modulo PAGE_BYTES, the data of an output file should start. */
static uint64_t data_residue(const struct plan_tensor *first)
{
    /* An input that starts inside an element of the widest dtype gets a clean layout instead. */
    if (!plan_keeps_width(first) || first->in_offset % 8 != 0)
        return 0;
    return first->in_offset % PAGE_BYTES;
}

static int emit_header(struct plan *plan, struct plan_file *file, const struct model *model,
                       struct text *headers, struct text *json, struct error *err)
{
    const struct plan_tensor *first = &plan->tensors[file->tensor_first];
    const struct st_header *source = model ? &model->shards[first->shard].header : NULL;
    uint8_t prefix[ST_PREFIX_BYTES];
    uint64_t offset = 0;

    text_clear(json);
    st_emit_begin(json, source ? source->metadata : NULL, source ? source->metadata_bytes : 0);
    for (uint64_t i = 0; i < file->tensor_count; i++) {
        const struct plan_tensor *tensor = first + i;

        st_emit_tensor(json, tensor->name, tensor->name_bytes, (enum dtype)tensor->dtype_out,
                       tensor->shape, tensor->shape_count, offset, tensor->out_bytes);
        offset += tensor->out_bytes;
    }
    st_emit_end(json, data_residue(first), PAGE_BYTES);
    if (json->failed)
        return error_no_memory(err, "a header");
    if (json->bytes > ST_HEADER_BYTES_MAX)
        return error_set(err, ERR_FORMAT,
                         "the header of '%s' has %zu bytes, the format allows %" PRIu64
                         ": lower --max-shard-size",
                         file->name, json->bytes, ST_HEADER_BYTES_MAX);
    if (headers->bytes > HEADERS_BYTES_MAX - json->bytes)
        return error_set(err, ERR_USAGE,
                         "the headers of all files take more than %llu MiB, because each repeats "
                         "the metadata of the base: raise --max-shard-size",
                         (unsigned long long)(HEADERS_BYTES_MAX / MIB));
    store_le64(prefix, json->bytes);
    file->header_offset = headers->bytes;
    text_add(headers, (const char *)prefix, sizeof(prefix));
    text_add(headers, json->data, json->bytes);
    if (headers->failed)
        return error_no_memory(err, "the headers");
    file->data_start = ST_PREFIX_BYTES + json->bytes;
    return 0;
}

static void set_offsets(struct plan *plan)
{
    for (size_t i = 0; i < plan->file_count; i++) {
        struct plan_file *file = &plan->files[i];
        uint64_t offset = file->data_start;

        for (uint64_t t = 0; t < file->tensor_count; t++) {
            struct plan_tensor *tensor = &plan->tensors[file->tensor_first + t];

            if (plan->torch)
                plan_place_in_torch(plan, file, file->tensor_first + t);
            else
                tensor->out_offset = offset;
            offset = tensor->out_offset + tensor->out_bytes;
        }
        file->bytes = offset + (plan->torch ? plan_torch_tail_bytes(plan, file) : 0);
        file->block_first = plan->block_count;
        file->block_count = (file->bytes + PLAN_BLOCK_BYTES - 1) / PLAN_BLOCK_BYTES;
        plan->block_count += file->block_count;
        plan->bytes_out += file->bytes;
    }
}

int plan_lay_out(struct plan *plan, const struct model *model, const struct plan_options *options,
                 struct error *err)
{
    struct text headers = { 0 };
    struct text scratch = { 0 };
    int status;

    plan->torch = options->torch;
    status = cut_files(plan, options->max_shard_bytes, err);
    if (!status)
        name_files(plan, options);
    for (size_t i = 0; i < plan->file_count && !status; i++)
        status = plan->torch ? plan_emit_torch_head(plan, &plan->files[i], &headers, &scratch, err)
                             : emit_header(plan, &plan->files[i], model, &headers, &scratch, err);
    text_release(&scratch);
    if (!status) {
        plan->headers_bytes = headers.bytes;
        plan->headers = text_take(&headers);
        set_offsets(plan);
    }
    text_release(&headers);
    return status;
}
