/* manifest_read.c - lorafold.json and lorafold.blocks, which anybody may have changed */
#include "merge.h"

#include "base/array.h"
#include "base/json.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_MAX (UINT64_C(1) << 50) /* of all files together */

static bool parse_digest(const char *hex, size_t bytes, struct digest *out)
{
    uint64_t half[2] = { 0, 0 };

    if (bytes != 32)
        return false;
    for (size_t i = 0; i < 32; i++) {
        const char *digits = "0123456789abcdef";
        const char *digit = memchr(digits, hex[i], 16);

        if (!digit)
            return false;
        half[i / 16] = half[i / 16] << 4 | (uint64_t)(digit - digits);
    }
    *out = (struct digest){ { half[1], half[0] } };
    return true;
}

static bool same_digest(struct digest x, struct digest y)
{
    return x.half[0] == y.half[0] && x.half[1] == y.half[1];
}

/* False if it is not there or not a size. */
static bool read_field(const cJSON *object, const char *key, uint64_t *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

    /* A double is exact up to 2^53 bytes, which is 9 PB. */
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) ||
        item->valuedouble > 9007199254740992.0)
        return false;
    *out = (uint64_t)item->valuedouble;
    return (double)*out == item->valuedouble;
}

static bool read_digest(const cJSON *item, struct digest *out)
{
    return cJSON_IsString(item) && parse_digest(item->valuestring, strlen(item->valuestring), out);
}

/* Whole blocks of the file, ascending and disjoint, that lie in a shard at a page. */
static bool read_clone(struct output_clone *out, const struct output_files *files, uint64_t bytes,
                       uint64_t behind, const cJSON *item)
{
    return read_field(item, "offset", &out->offset) && read_field(item, "bytes", &out->bytes) &&
           read_field(item, "shard", &out->shard) &&
           read_field(item, "shard_offset", &out->shard_offset) && out->bytes > 0 &&
           out->offset >= behind && out->offset % PLAN_BLOCK_BYTES == 0 && out->offset < bytes &&
           out->bytes <= bytes - out->offset &&
           (out->bytes % PLAN_BLOCK_BYTES == 0 || out->offset + out->bytes == bytes) &&
           out->shard < files->shard_count && out->shard_offset % PAGE_BYTES == 0 &&
           out->shard_offset <= files->shards[out->shard].bytes &&
           out->bytes <= files->shards[out->shard].bytes - out->shard_offset;
}

static int read_clones(struct output_clone **out, size_t *count, const struct output_files *files,
                       uint64_t bytes, const cJSON *list, const char *quoted, struct error *err)
{
    struct output_clone *clones = NULL;
    size_t capacity = 0;
    uint64_t behind = 0;
    const cJSON *item;

    *out = NULL;
    *count = 0;
    if (!list)
        return 0;
    cJSON_ArrayForEach(item, list)
    {
        struct output_clone *more = array_next(clones, *count, &capacity, sizeof(*more));

        if (!more) {
            free(clones);
            return error_no_memory(err, "the list of files");
        }
        clones = more;
        if (!read_clone(&clones[*count], files, bytes, behind, item))
            break;
        behind = clones[*count].offset + clones[*count].bytes;
        ++*count;
    }
    if (!cJSON_IsArray(list) || item || *count == 0) {
        free(clones);
        return error_set(err, ERR_FORMAT, "run %zu that was cloned into '%s' is damaged", *count,
                         quoted);
    }
    *out = clones;
    return 0;
}

/* `lines`: of lorafold.blocks that may still come; they are counted before any memory is taken. */
static int read_file(struct output_files *files, const cJSON *item, uint64_t *lines,
                     uint64_t *bytes_left, struct error *err)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name");
    struct output_clone *clones;
    size_t clone_count;
    struct digest digest;
    struct output_file *file;
    char quoted[QUOTED_BYTES];
    uint64_t bytes, wanted;

    if (!cJSON_IsString(name) ||
        !model_name_is_safe(name->valuestring, strlen(name->valuestring)) ||
        strlen(name->valuestring) >= sizeof(file->name))
        return error_set(err, ERR_FORMAT, "a file's name is missing or leaves the directory");
    error_quote(quoted, sizeof(quoted), name->valuestring, strlen(name->valuestring));
    if (!read_field(item, "bytes", &bytes) || bytes > *bytes_left ||
        !read_digest(cJSON_GetObjectItemCaseSensitive(item, "xxh3_128"), &digest))
        return error_set(err, ERR_FORMAT, "size or digest of '%s' is missing or damaged", quoted);
    if (read_clones(&clones, &clone_count, files, bytes,
                    cJSON_GetObjectItemCaseSensitive(item, "cloned"), quoted, err))
        return err->code;
    *bytes_left -= bytes;
    wanted = blocks_of(bytes);
    for (size_t i = 0; i < clone_count; i++)
        wanted -= blocks_of(clones[i].bytes);
    if (wanted > *lines) {
        free(clones);
        return error_set(err, ERR_FORMAT, "'%s' is too short for the files that it lists",
                         BLOCKS_NAME);
    }
    *lines -= wanted;
    file = output_add(files, name->valuestring, bytes, clones, clone_count);
    if (!file)
        return error_no_memory(err, "the list of files");
    file->digest = digest;
    return 0;
}

static bool read_shard(struct output_shard *out, const cJSON *item)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name");

    if (!cJSON_IsString(name) ||
        !model_name_is_safe(name->valuestring, strlen(name->valuestring)) ||
        !read_field(item, "bytes", &out->bytes) ||
        !read_digest(cJSON_GetObjectItemCaseSensitive(item, "header_xxh3_128"), &out->header))
        return false;
    out->name = strdup(name->valuestring);
    return out->name != NULL;
}

/* What it was made from, for its clones; a manifest without any needs none. */
static int read_base(struct output_files *files, const cJSON *base, struct error *err)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(base, "name");
    const cJSON *revision = cJSON_GetObjectItemCaseSensitive(base, "revision");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(base, "shards");
    const cJSON *item;

    files->shards = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*files->shards));
    if (!files->shards)
        return error_no_memory(err, "the shards of the base");
    if (cJSON_IsString(name))
        files->base_name = strdup(name->valuestring);
    if (cJSON_IsString(revision))
        files->base_revision = strdup(revision->valuestring);
    cJSON_ArrayForEach(item, list)
    {
        if (!read_shard(&files->shards[files->shard_count], item))
            return error_set(err, ERR_FORMAT, "shard %zu of the base is damaged",
                             files->shard_count);
        files->shard_count++;
    }
    return 0;
}

/* The lines of lorafold.blocks; they must be what the manifest says, file by file. */
static int read_blocks(struct output_files *files, const char *line, const char *end,
                       struct error *err)
{
    for (size_t i = 0; i < files->count; i++) {
        struct output_file *file = &files->list[i];
        size_t name_bytes = strlen(file->name);

        if ((size_t)(end - line) < name_bytes + 3 || memcmp(line, "# ", 2) != 0 ||
            memcmp(line + 2, file->name, name_bytes) != 0 || line[name_bytes + 2] != '\n')
            return error_set(err, ERR_FORMAT, "'%s' has no blocks of '%s'", BLOCKS_NAME,
                             file->name);
        line += name_bytes + 3;
        for (size_t b = 0; b < file->block_count; b++, line += 33) {
            if (end - line < 33 || line[32] != '\n' || !parse_digest(line, 32, &file->blocks[b]))
                return error_set(err, ERR_FORMAT, "'%s': block %zu of '%s' is damaged", BLOCKS_NAME,
                                 b, file->name);
        }
        if (!same_digest(digest_of_blocks(file->blocks, file->block_count), file->digest))
            return error_set(err, ERR_FORMAT, "'%s' and '%s' disagree about the digest of '%s'",
                             BLOCKS_NAME, MANIFEST_NAME, file->name);
    }
    if (line != end)
        return error_set(err, ERR_FORMAT, "'%s' goes on behind its last file", BLOCKS_NAME);
    return 0;
}

static int read_manifest(struct output_files *files, const cJSON *root, size_t blocks_bytes,
                         struct error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "files");
    const cJSON *item;
    uint64_t format = 0;
    uint64_t block_bytes = 0;
    uint64_t lines = blocks_bytes / 33;
    uint64_t bytes_left = BYTES_MAX;

    if (!read_field(root, "format", &format) || format != MANIFEST_FORMAT)
        return error_set(err, ERR_FORMAT, "format is not %d: made by another version of lorafold?",
                         MANIFEST_FORMAT);
    if (!read_field(root, "block_bytes", &block_bytes) || block_bytes != PLAN_BLOCK_BYTES)
        return error_set(err, ERR_FORMAT, "block_bytes is not %llu",
                         (unsigned long long)PLAN_BLOCK_BYTES);
    if (!cJSON_IsArray(list) || !list->child)
        return error_set(err, ERR_FORMAT, "it lists no files");
    if (read_base(files, cJSON_GetObjectItemCaseSensitive(root, "base"), err))
        return err->code;
    cJSON_ArrayForEach(item, list)
    {
        if (read_file(files, item, &lines, &bytes_left, err))
            return err->code;
    }
    return 0;
}

int manifest_read(struct output_files *out, const char *json, size_t json_bytes, const char *blocks,
                  size_t blocks_bytes, struct error *err)
{
    struct output_files files = { 0 };
    struct cJSON *root = NULL;
    int status;

    status = json_parse(&root, json, json_bytes, 0, err);
    if (!status)
        status = read_manifest(&files, root, blocks_bytes, err);
    if (!status)
        status = read_blocks(&files, blocks, blocks + blocks_bytes, err);
    cJSON_Delete(root);
    if (status)
        output_files_release(&files);
    else
        *out = files;
    return status;
}
