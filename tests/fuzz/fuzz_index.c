/*
 * Any bytes as an index.  What is accepted, written anew, is read as the same map, and written a
 * third time it is the same text.
 */

#include "base/error.h"
#include "base/text.h"
#include "format/index.h"
#include "format/model.h"
#include "fuzz/fuzz.h"

#include <string.h>

static int compare_lines(const void *left, const void *right)
{
    return strcmp(((const struct index_line *)left)->name,
                  ((const struct index_line *)right)->name);
}

static void emit(struct text *out, const struct index *index)
{
    struct index_line *lines = calloc(index->entry_count, sizeof(*lines));

    FUZZ_CHECK(lines);
    for (size_t i = 0; i < index->entry_count; i++)
        lines[i] = (struct index_line){ index->names + index->entries[i].name_offset,
                                        index->shard_names[index->entries[i].shard] };
    qsort(lines, index->entry_count, sizeof(*lines), compare_lines);
    for (size_t i = 1; i < index->entry_count; i++)
        FUZZ_CHECK(strcmp(lines[i - 1].name, lines[i].name) != 0);
    index_emit(out, lines, index->entry_count, 1, 2);
    free(lines);
    FUZZ_CHECK(!out->failed);
}

static void check_names(const struct index *index)
{
    FUZZ_CHECK(index->entry_count && index->shard_count <= index->entry_count);
    for (size_t i = 0; i < index->shard_count; i++) {
        const char *name = index->shard_names[i];

        FUZZ_CHECK(model_name_is_safe(name, strlen(name)));
        FUZZ_CHECK(i == 0 || strcmp(index->shard_names[i - 1], name) < 0);
    }
    for (size_t i = 0; i < index->entry_count; i++) {
        const struct index_entry *entry = &index->entries[i];

        FUZZ_CHECK(entry->shard < index->shard_count);
        FUZZ_CHECK(entry->name_offset + entry->name_bytes < index->names_bytes);
        FUZZ_CHECK(strlen(index->names + entry->name_offset) == entry->name_bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct index index = { 0 };
    struct index again = { 0 };
    struct text first = { 0 };
    struct text second = { 0 };
    struct error err = { 0 };

    if (index_parse(&index, (const char *)data, size, &err)) {
        FUZZ_CHECK(err.code == ERR_FORMAT && err.text[0] && !index.entries);
        return 0;
    }
    check_names(&index);
    emit(&first, &index);
    FUZZ_CHECK(index_parse(&again, first.data, first.bytes, &err) == 0);
    FUZZ_CHECK(again.entry_count == index.entry_count && again.shard_count == index.shard_count);
    emit(&second, &again);
    FUZZ_CHECK(strcmp(first.data, second.data) == 0);
    index_release(&again);
    index_release(&index);
    text_release(&first);
    text_release(&second);
    return 0;
}
