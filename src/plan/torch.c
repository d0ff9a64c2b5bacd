/*
 * torch.c - what files of torch.save() have that safetensors files have not
 *
 * Headers between the tensors, whose checksums wait for the tensors, and two names for one tensor.
 */
#include "plan/plan_internal.h"

#include "adapter/tied.h"
#include "base/checksum.h"
#include "format/torch_emit.h"

#include <stdlib.h>
#include <string.h>

/* One file, and the checksums as far as they are known. */
struct records {
    const struct plan_tensor *tensors;
    const uint32_t *checksums; /* NULL: they do not matter */
};

static struct torch_record get_record(const void *context, uint64_t number)
{
    const struct records *records = context;
    const struct plan_tensor *tensor = &records->tensors[number];

    uint32_t checksum = 0;

    /* Those beside a block may still be added to; they are not used. */
    if (records->checksums)
        checksum = __atomic_load_n(&records->checksums[number], __ATOMIC_RELAXED);
    return (struct torch_record){ tensor->out_offset, tensor->out_bytes, checksum };
}

static struct torch_frame frame_of(const struct plan_file *file, const struct records *records)
{
    return (struct torch_frame){ .pickle_bytes = file->pickle_bytes,
                                 .pickle_checksum = file->pickle_checksum,
                                 .record_count = file->tensor_count,
                                 .record = get_record,
                                 .context = records };
}

static struct records records_of(const struct plan *plan, const struct plan_file *file,
                                 const uint32_t *checksums)
{
    return (struct records){ plan->tensors + file->tensor_first,
                             checksums ? checksums + file->tensor_first : NULL };
}

/* ---- layout ---- */

static int emit_pickle(const struct plan *plan, const struct plan_file *file, struct text *out,
                       struct error *err)
{
    struct torch_pickle pickle;
    char quoted[QUOTED_BYTES];

    torch_emit_begin(&pickle, out);
    for (uint64_t i = 0; i < file->tensor_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[file->tensor_first + i];
        enum dtype dtype = (enum dtype)tensor->dtype_out;

        if (!torch_emit_knows(dtype))
            return error_set(err, ERR_USAGE,
                             "tensor '%s' is %s, which files of torch do not hold: leave out "
                             "--no-safe-serialization",
                             error_quote(quoted, sizeof(quoted), tensor->name, tensor->name_bytes),
                             dtype_name(dtype));
        torch_emit_tensor(&pickle, tensor->name, tensor->name_bytes, dtype, tensor->shape,
                          tensor->shape_count, i);
        if (plan->alias && plan->aliased == file->tensor_first + i)
            torch_emit_tensor(&pickle, plan->alias, strlen(plan->alias), dtype, tensor->shape,
                              tensor->shape_count, i);
    }
    torch_emit_end(&pickle);
    return out->failed ? error_no_memory(err, "a pickle") : 0;
}

int plan_emit_torch_head(struct plan *plan, struct plan_file *file, struct text *headers,
                         struct text *pickle, struct error *err)
{
    text_clear(pickle);
    if (emit_pickle(plan, file, pickle, err))
        return err->code;
    file->pickle_bytes = pickle->bytes;
    file->pickle_checksum = checksum_bytes(pickle->data, pickle->bytes);
    file->header_offset = headers->bytes;
    torch_emit_head(headers, pickle->data, pickle->bytes);
    file->data_start = headers->bytes - file->header_offset;
    return headers->failed ? error_no_memory(err, "the headers") : 0;
}

void plan_place_in_torch(struct plan *plan, const struct plan_file *file, uint64_t tensor)
{
    struct plan_tensor *now = &plan->tensors[tensor];
    const struct plan_tensor *before = tensor > file->tensor_first ? now - 1 : NULL;
    uint64_t end = before ? before->out_offset + before->out_bytes : file->data_start;
    /* Of a smaller one no block would be folded in place. */
    bool in_phase = now->out_bytes >= PLAN_BLOCK_BYTES && plan_keeps_width(now) &&
                    now->in_offset % TORCH_ALIGNMENT == 0;

    now->out_offset = torch_record_offset(
        tensor - file->tensor_first, now->out_bytes, end, before ? before->out_bytes : 0,
        in_phase ? now->in_offset % PAGE_BYTES : 0, in_phase ? PAGE_BYTES : TORCH_ALIGNMENT);
}

uint64_t plan_torch_tail_bytes(const struct plan *plan, const struct plan_file *file)
{
    const struct records records = records_of(plan, file, NULL);
    const struct torch_frame frame = frame_of(file, &records);

    return torch_tail_bytes(&frame);
}

static bool find_tensor(const struct plan *plan, const char *name, size_t bytes, uint64_t *out)
{
    for (uint64_t i = 0; i < plan->tensor_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];

        if (tensor->name_bytes == bytes && memcmp(tensor->name, name, bytes) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

int plan_find_alias(struct plan *plan, const struct model *model, const struct config_facts *facts,
                    struct error *err)
{
    struct tied_uses uses;

    if (plan->untied)
        return 0;
    tied_read_uses(&uses, model, facts);
    for (size_t i = 0; i < uses.embedding_count && i < TIED_USES_MAX; i++) {
        struct model_ref ref = uses.embeddings[i];
        const struct st_tensor *tensor = model_tensor(model, ref);
        char *head;

        if (!tied_is_shared(&uses, model, ref) ||
            !find_tensor(plan, st_name(model_header(model, ref), tensor), tensor->name_bytes,
                         &plan->aliased) ||
            plan->tensors[plan->aliased].encoding)
            continue;
        if (tied_head_name(&head, model, ref, facts, err))
            return err->code;
        plan->alias = plan_keep(plan, head, strlen(head));
        free(head);
        return plan->alias ? 0 : error_no_memory(err, "a tensor name");
    }
    return 0;
}

/* ---- blocks ---- */

uint64_t plan_tensor_blocks(const struct plan_tensor *tensor)
{
    if (tensor->out_bytes == 0)
        return 0;
    return (tensor->out_offset + tensor->out_bytes - 1) / PLAN_BLOCK_BYTES -
           tensor->out_offset / PLAN_BLOCK_BYTES + 1;
}

static uint64_t tail_offset(const struct plan *plan, const struct plan_file *file)
{
    const struct plan_tensor *last = &plan->tensors[file->tensor_first + file->tensor_count - 1];

    return last->out_offset + last->out_bytes;
}

struct plan_span plan_block_checksums(const struct plan *plan, const struct plan_block *block)
{
    const struct plan_file *file = &plan->files[block->file];
    uint64_t end = block->tensor_first + block->tensor_count;

    if (block->offset + block->bytes > tail_offset(plan, file))
        return (struct plan_span){ file->tensor_first, file->tensor_first + file->tensor_count };
    if (block->tensor_count &&
        plan->tensors[end - 1].out_offset + plan->tensors[end - 1].out_bytes >=
            block->offset + block->bytes)
        end--; /* the last one goes on in the next block, or ends with this one */
    return (struct plan_span){ max_u64(block->tensor_first, file->tensor_first + 1) - 1, end };
}

void plan_block_frame(const struct plan *plan, const struct plan_block *block,
                      const uint32_t *checksums, uint8_t *memory)
{
    const struct plan_file *file = &plan->files[block->file];
    const struct records records = records_of(plan, file, checksums);
    const struct torch_frame frame = frame_of(file, &records);
    uint64_t end = block->offset + block->bytes;
    uint64_t number = block->tensor_first - file->tensor_first;

    /* The block may end in the seam of a tensor that begins behind it. */
    for (; number < file->tensor_count; number++) {
        const struct torch_record record = get_record(&records, number);
        const struct torch_record before = number ? get_record(&records, number - 1)
                                                  : (struct torch_record){ file->data_start, 0, 0 };

        if (before.offset + before.bytes >= end)
            break;
        if (record.offset > block->offset)
            torch_emit_seam(&frame, number, block->offset, end, memory);
    }
    if (end > tail_offset(plan, file))
        torch_emit_tail(&frame, block->offset, end, memory);
}
