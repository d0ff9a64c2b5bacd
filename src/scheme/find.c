#include "scheme/find.h"

#include "base/array.h"
#include "format/conv1d.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int find_init(struct scheme_find *find, const struct model *model, const struct log *log,
              struct error *err)
{
    size_t place = 0;

    find->model = model;
    find->log = log;
    find->first = calloc(model->shard_count + 1, sizeof(*find->first));
    find->files = calloc(model->shard_count + 1, sizeof(*find->files));
    find->item_of = calloc(model->tensor_count + 1, sizeof(*find->item_of));
    for (size_t i = 0; find->files && i < model->shard_count; i++)
        find->files[i] = FILE_CLOSED; /* also where something else is missing: 0 is a descriptor */
    if (!find->first || !find->files || !find->item_of)
        return error_no_memory(err, "the quantised tensors");
    for (size_t i = 0; i < model->tensor_count; i++)
        find->item_of[i] = FIND_FREE;
    for (size_t i = 0; i < model->shard_count; i++) {
        find->first[i] = place;
        place += model->shards[i].header.tensor_count;
    }
    return 0;
}

static void close_files(struct scheme_find *find)
{
    for (size_t i = 0; find->files && i < find->model->shard_count; i++)
        file_close(&find->files[i]);
    find->open_count = 0;
}

void find_release(struct scheme_find *find)
{
    close_files(find);
    free(find->files);
    free(find->first);
    free(find->item_of);
    free(find->items);
    free(find->shapes);
    text_release(&find->names);
    text_release(&find->name);
    *find = (struct scheme_find){ 0 };
}

const char *shape_print(char buf[SHAPE_BYTES], const uint64_t *shape, size_t count)
{
    size_t used = 0;

    for (size_t i = 0; i < count && used < SHAPE_BYTES; i++)
        used += (size_t)snprintf(buf + used, SHAPE_BYTES - used, "%s%" PRIu64, i ? ", " : "[",
                                 shape[i]);
    if (used < SHAPE_BYTES)
        snprintf(buf + used, SHAPE_BYTES - used, count ? "]" : "[]");
    return buf;
}

static const char *quote_name(char quoted[QUOTED_BYTES], const struct scheme_find *find,
                              struct model_ref ref)
{
    const struct st_tensor *tensor = model_tensor(find->model, ref);

    return error_quote(quoted, QUOTED_BYTES, st_name(model_header(find->model, ref), tensor),
                       tensor->name_bytes);
}

int find_refuse(const struct scheme_find *find, struct model_ref ref, struct error *err,
                const char *format, ...)
{
    char sentence[sizeof(err->text)];
    char quoted[QUOTED_BYTES];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    return error_set(err, ERR_FORMAT, "tensor '%s': %s", quote_name(quoted, find, ref), sentence);
}

bool find_sibling(struct scheme_find *find, const char *stem, size_t stem_bytes, const char *suffix,
                  struct model_ref *out)
{
    text_clear(&find->name);
    text_add(&find->name, stem, stem_bytes);
    text_adds(&find->name, suffix);
    return !find->name.failed && model_find(find->model, find->name.data, find->name.bytes, out);
}

int find_need(struct scheme_find *find, const struct scheme_anchor *anchor, const char *suffix,
              struct model_ref *out, struct error *err)
{
    char quoted[QUOTED_BYTES];

    if (find_sibling(find, anchor->stem, anchor->stem_bytes, suffix, out))
        return 0;
    if (find->name.failed)
        return error_no_memory(err, "a tensor's name");
    return find_refuse(find, anchor->ref, err, "its companion '%s' is missing",
                       error_quote(quoted, sizeof(quoted), find->name.data, find->name.bytes));
}

static bool same_shape(const struct st_header *header, const struct st_tensor *tensor,
                       const uint64_t *shape, size_t shape_count)
{
    return tensor->shape_count == shape_count &&
           (shape_count == 0 ||
            memcmp(st_shape(header, tensor), shape, shape_count * sizeof(*shape)) == 0);
}

/* "F32 or BF16" */
static void print_dtypes(char *buf, size_t bytes, uint32_t dtypes)
{
    size_t used = 0;

    buf[0] = '\0';
    for (int i = 0; i < DTYPE_COUNT && used < bytes; i++) {
        if (dtypes & DTYPE_MASK(i))
            used += (size_t)snprintf(buf + used, bytes - used, "%s%s", used ? " or " : "",
                                     dtype_name((enum dtype)i));
    }
}

static struct scheme_part part_of(const struct model *model, struct model_ref ref)
{
    const struct st_tensor *tensor = model_tensor(model, ref);

    return (struct scheme_part){
        .shard = ref.shard,
        .dtype = (enum dtype)tensor->dtype,
        .offset = model_header(model, ref)->data_start + tensor->data_offset,
        .bytes = tensor->data_bytes,
    };
}

static int claim(struct scheme_find *find, const struct scheme_anchor *anchor, struct model_ref ref,
                 struct error *err)
{
    char quoted[QUOTED_BYTES];

    if (find->item_of[find_place(find, ref)] != FIND_FREE)
        return find_refuse(find, anchor->ref, err,
                           "its companion '%s' belongs to another quantised tensor as well",
                           quote_name(quoted, find, ref));
    find->item_of[find_place(find, ref)] = FIND_COMPANION;
    find->companion_count++;
    return 0;
}

int find_take(struct scheme_find *find, const struct scheme_anchor *anchor, struct model_ref ref,
              uint32_t dtypes, const uint64_t *shape, size_t shape_count, struct scheme_part *out,
              struct error *err)
{
    const struct st_header *header = model_header(find->model, ref);
    const struct st_tensor *tensor = model_tensor(find->model, ref);
    char quoted[QUOTED_BYTES];
    char has[SHAPE_BYTES];
    char wanted[SHAPE_BYTES];

    if (!(dtypes & DTYPE_MASK(tensor->dtype))) {
        print_dtypes(wanted, sizeof(wanted), dtypes);
        return find_refuse(find, anchor->ref, err, "its companion '%s' is %s and must be %s",
                           quote_name(quoted, find, ref), dtype_name((enum dtype)tensor->dtype),
                           wanted);
    }
    if (shape && !same_shape(header, tensor, shape, shape_count))
        return find_refuse(find, anchor->ref, err,
                           "its companion '%s' has shape %s and must have %s",
                           quote_name(quoted, find, ref),
                           shape_print(has, st_shape(header, tensor), tensor->shape_count),
                           shape_print(wanted, shape, shape_count));
    if (claim(find, anchor, ref, err))
        return err->code;
    if (out)
        *out = part_of(find->model, ref);
    return 0;
}

int find_take_if(struct scheme_find *find, const struct scheme_anchor *anchor, const char *suffix,
                 uint32_t dtypes, struct error *err)
{
    struct model_ref ref;

    if (!find_sibling(find, anchor->stem, anchor->stem_bytes, suffix, &ref))
        return 0;
    return find_take(find, anchor, ref, dtypes, NULL, 0, NULL, err);
}

/* Shards stay open, so that each is opened once; no more of them than a process may have. */
#define FILES_MAX 128u

int find_read(struct scheme_find *find, struct model_ref ref, void *buf, size_t bytes,
              struct error *err)
{
    const struct model_shard *shard = &find->model->shards[ref.shard];
    struct file *file = &find->files[ref.shard];
    char quoted[QUOTED_BYTES];

    if (file->fd < 0) {
        if (find->open_count == FILES_MAX)
            close_files(find);
        if (file_open_input(file, shard->path, FILE_DIRECT_OFF, err) ||
            file_check_unchanged(shard->path, &shard->identity, err))
            return err->code;
        find->open_count++;
    }
    if (file_pread(file, buf, bytes, part_of(find->model, ref).offset, err)) {
        error_prefix(err, "tensor '%s'", quote_name(quoted, find, ref));
        return err->code;
    }
    return 0;
}

static bool add_shape(struct scheme_find *find, const uint64_t *shape, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (find->shape_count == find->shape_capacity) {
            uint64_t *more = array_grow(find->shapes, &find->shape_capacity, sizeof(*more));

            if (!more)
                return false;
            find->shapes = more;
        }
        find->shapes[find->shape_count++] = shape[i];
    }
    return true;
}

static int add_item(struct scheme_find *find, const struct scheme_anchor *anchor,
                    const char *suffix, const uint64_t *shape, size_t shape_count, enum dtype dtype,
                    const struct scheme_tensor *tensor, struct error *err)
{
    size_t place = find_place(find, anchor->ref);
    struct scheme_item item = { .codes = anchor->ref,
                                .name_offset = find->names.bytes,
                                .shape_offset = find->shape_count,
                                .shape_count = shape_count,
                                .dtype = dtype,
                                .tensor = *tensor };

    if (find->item_of[place] != FIND_FREE)
        return find_refuse(find, anchor->ref, err, "it has the companions of two schemes");
    text_add(&find->names, anchor->stem, anchor->stem_bytes);
    text_adds(&find->names, suffix);
    item.name_bytes = find->names.bytes - item.name_offset;
    text_add(&find->names, "", 1);
    if (item.name_bytes > ST_NAME_BYTES_MAX)
        return find_refuse(find, anchor->ref, err, "its decoded name has more than %u bytes",
                           ST_NAME_BYTES_MAX);
    if (find->item_count == find->item_capacity) {
        struct scheme_item *more = array_grow(find->items, &find->item_capacity, sizeof(*more));

        if (!more)
            return error_no_memory(err, "the quantised tensors");
        find->items = more;
    }
    if (find->names.failed || !add_shape(find, shape, shape_count))
        return error_no_memory(err, "the quantised tensors");
    find->item_of[place] = (uint32_t)find->item_count;
    find->items[find->item_count++] = item;
    return 0;
}

bool find_is_conv1d(const struct scheme_find *find, const struct scheme_anchor *anchor)
{
    size_t bytes = anchor->stem_bytes;

    if (bytes > 7 && memcmp(anchor->stem + bytes - 7, ".weight", 7) == 0)
        bytes -= 7;
    return conv1d_of(find->config.model_type, anchor->stem, bytes) == CONV1D_YES;
}

int find_add(struct scheme_find *find, const struct scheme_anchor *anchor, const char *suffix,
             const uint64_t *shape, size_t shape_count, struct scheme_tensor *tensor,
             struct error *err)
{
    uint64_t bytes[QUANT_PART_COUNT];
    char quoted[QUOTED_BYTES];

    tensor->parts[QUANT_PART_CODES] = part_of(find->model, anchor->ref);
    for (int part = 0; part < QUANT_PART_COUNT; part++)
        bytes[part] = tensor->parts[part].bytes;
    if (quant_check(&tensor->matrix, bytes, err)) {
        error_prefix(err, "tensor '%s'", quote_name(quoted, find, anchor->ref));
        return err->code;
    }
    if (tensor->kind != SCHEME_BNB8 && tensor->kind != SCHEME_BNB4 && find_is_conv1d(find, anchor))
        return find_refuse(find, anchor->ref, err,
                           "it is the weight of a Conv1D, whose quantised form lies transposed to "
                           "it and is not decoded; merge into the 16-bit model that it was made "
                           "from");
    return add_item(find, anchor, suffix, shape, shape_count, tensor->matrix.result_dtype, tensor,
                    err);
}

int find_rename(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    const struct scheme_tensor plain = { .kind = SCHEME_PLAIN };
    const struct st_tensor *tensor = model_tensor(find->model, anchor->ref);

    return add_item(find, anchor, "", st_shape(model_header(find->model, anchor->ref), tensor),
                    tensor->shape_count, (enum dtype)tensor->dtype, &plain, err);
}
