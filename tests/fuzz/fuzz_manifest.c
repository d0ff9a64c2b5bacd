/*
 * Any bytes as lorafold.json and lorafold.blocks, parted by a NUL: what is admitted has safe names,
 * and blocks whose digest is the file's.
 */

#include "fuzz/fuzz.h"
#include "merge.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *json = (const char *)data;
    const char *end = json + size;
    const char *nul = size ? memchr(json, '\0', size) : NULL;
    const char *blocks = nul ? nul + 1 : end;
    struct output_files files = { 0 };
    struct error err = { 0 };

    if (manifest_read(&files, json, (size_t)((nul ? nul : end) - json), blocks,
                      (size_t)(end - blocks), &err)) {
        FUZZ_CHECK(err.code == ERR_FORMAT && err.text[0]);
        return 0;
    }
    FUZZ_CHECK(files.count > 0);
    for (size_t i = 0; i < files.count; i++) {
        const struct output_file *file = &files.list[i];
        struct digest digest = digest_of_blocks(file->blocks, file->block_count);

        uint64_t behind = 0;
        uint64_t cloned = 0;

        for (size_t c = 0; c < file->clone_count; c++) {
            const struct output_clone *clone = &file->clones[c];

            FUZZ_CHECK(clone->offset >= behind && clone->bytes > 0);
            behind = clone->offset + clone->bytes;
            FUZZ_CHECK(behind <= file->bytes && clone->shard < files.shard_count);
            FUZZ_CHECK(clone->shard_offset + clone->bytes <= files.shards[clone->shard].bytes);
            cloned += blocks_of(clone->bytes);
        }
        FUZZ_CHECK(cloned + file->block_count == blocks_of(file->bytes));
        FUZZ_CHECK(model_name_is_safe(file->name, strlen(file->name)));
        FUZZ_CHECK(digest.half[0] == file->digest.half[0] &&
                   digest.half[1] == file->digest.half[1]);
    }
    output_files_release(&files);
    return 0;
}
