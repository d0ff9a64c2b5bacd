#include "format/model_names.h"

#include "format/names.h"

#include <stdlib.h>
#include <string.h>

bool model_name_is_safe(const char *name, size_t name_bytes)
{
    size_t begin = 0;

    for (size_t i = 0; i <= name_bytes; i++) {
        unsigned char c = i < name_bytes ? (unsigned char)name[i] : '/';

        if (c < 0x20 || c == 0x7f || c == '\\')
            return false;
        if (c != '/')
            continue;
        if (i == begin || i - begin > 255 || (i - begin == 1 && name[begin] == '.') ||
            (i - begin == 2 && name[begin] == '.' && name[begin + 1] == '.'))
            return false;
        begin = i + 1;
    }
    return name_bytes < 4096; /* PATH_MAX of Linux */
}

static int in_two_shards(const struct model *model, const struct name_key *keys, size_t place,
                         struct error *err)
{
    const struct model_shard *shards = model->shards;
    const char *first = shards[model->by_name[place - 1].shard].path;
    const char *second = shards[model->by_name[place].shard].path;
    char quoted[QUOTED_BYTES];
    char quoted_first[QUOTED_BYTES];
    char quoted_second[QUOTED_BYTES];

    return error_set(err, ERR_FORMAT, "tensor '%s' is in two shards, '%s' and '%s'",
                     error_quote(quoted, sizeof(quoted), keys[place].name, keys[place].bytes),
                     error_quote(quoted_first, sizeof(quoted_first), first, strlen(first)),
                     error_quote(quoted_second, sizeof(quoted_second), second, strlen(second)));
}

int model_sort_tensors(struct model *model, struct error *err)
{
    size_t count = model->tensor_count;
    struct name_key *keys = NULL;
    struct model_ref *refs = NULL;
    size_t next = 0;
    size_t place;
    int status = 0;

    if (count == 0 || count > UINT32_MAX)
        return error_set(err, ERR_FORMAT, "the base has %zu tensors, which is not in 1..%u", count,
                         UINT32_MAX);
    keys = calloc(count, sizeof(*keys));
    refs = calloc(count, sizeof(*refs));
    model->by_name = calloc(count, sizeof(*model->by_name));
    if (!keys || !refs || !model->by_name) {
        status = error_no_memory(err, "the names of tensors");
        goto out;
    }
    for (size_t i = 0; i < model->shard_count; i++) {
        const struct st_header *header = &model->shards[i].header;

        for (size_t j = 0; j < header->tensor_count; j++, next++) {
            refs[next] = (struct model_ref){ (uint32_t)i, (uint32_t)j };
            keys[next] = (struct name_key){ st_name(header, &header->tensors[j]),
                                            header->tensors[j].name_bytes, (uint32_t)next };
        }
    }
    name_keys_sort(keys, count);
    for (size_t i = 0; i < count; i++)
        model->by_name[i] = refs[keys[i].index];
    place = name_keys_duplicate(keys, count);
    if (place)
        status = in_two_shards(model, keys, place, err);
out:
    free(keys);
    free(refs);
    return status;
}

static int disagree(const struct model *model, const struct name_key *key, uint32_t shard,
                    const char *what, struct error *err)
{
    const char *shard_name = model->shards[shard].name;
    char quoted[QUOTED_BYTES];
    char quoted_shard[QUOTED_BYTES];

    return error_set(
        err, ERR_FORMAT, "tensor '%s', shard '%s': %s",
        error_quote(quoted, sizeof(quoted), key->name, key->bytes),
        error_quote(quoted_shard, sizeof(quoted_shard), shard_name, strlen(shard_name)), what);
}

/* Both lists are sorted and walked together. */
int model_compare_index(const struct model *model, const struct index *index, struct error *err)
{
    struct name_key *keys = calloc(index->entry_count, sizeof(*keys));
    size_t i = 0;
    size_t j = 0;
    int status = 0;

    if (!keys)
        return error_no_memory(err, "the names of an index");
    for (size_t k = 0; k < index->entry_count; k++)
        keys[k] = (struct name_key){ index->names + index->entries[k].name_offset,
                                     index->entries[k].name_bytes, (uint32_t)k };
    name_keys_sort(keys, index->entry_count);
    while (!status && (i < index->entry_count || j < model->tensor_count)) {
        struct name_key held = { 0 };
        int order = -1;

        if (j < model->tensor_count) {
            const struct st_tensor *tensor = model_tensor(model, model->by_name[j]);

            held.name = st_name(model_header(model, model->by_name[j]), tensor);
            held.bytes = tensor->name_bytes;
            order = i == index->entry_count
                        ? 1
                        : name_compare(keys[i].name, keys[i].bytes, held.name, held.bytes);
        }
        if (order < 0)
            status = disagree(model, &keys[i], index->entries[keys[i].index].shard,
                              "the index places the tensor there, but the shard does not hold it",
                              err);
        else if (order > 0)
            status = disagree(model, &held, model->by_name[j].shard,
                              "the shard holds the tensor, but the index does not name it", err);
        else if (index->entries[keys[i].index].shard != model->by_name[j].shard)
            status = disagree(model, &held, model->by_name[j].shard,
                              "the shard holds the tensor, but the index places it in another",
                              err);
        i++;
        j++;
    }
    free(keys);
    return status;
}

bool model_find(const struct model *model, const char *name, size_t name_bytes,
                struct model_ref *out)
{
    size_t low = 0;
    size_t high = model->tensor_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct model_ref ref = model->by_name[middle];
        const struct st_tensor *tensor = model_tensor(model, ref);
        int order = name_compare(name, name_bytes, st_name(model_header(model, ref), tensor),
                                 tensor->name_bytes);

        if (order == 0) {
            *out = ref;
            return true;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}
