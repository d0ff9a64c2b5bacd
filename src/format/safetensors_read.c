#include "base/bytes.h"
#include "base/hash.h"
#include "format/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
/* What people give instead of a safetensors file, by how it begins. */
static const struct {
    const char *begin;
    size_t bytes;
    const char *sentence;
} strangers[] = {
    { "PK\3\4", 4,
      "a PyTorch pickle (zip) is not a safetensors file; load it with transformers and save it "
      "again with save_pretrained()" },
    { "\x80\2", 2,
      "a pickle is not a safetensors file; load it with transformers and save it again with "
      "save_pretrained()" },
    { "GGUF", 4, "a GGUF file is not a safetensors file; use the model it was made from" },
    { "version ", 8,
      "a git-lfs pointer, not the file that it stands for; fetch it with 'git lfs pull'" },
};

static int check_prefix(const uint8_t *prefix, uint64_t file_bytes, struct error *err)
{
    uint64_t header_bytes = load_le64(prefix);
    uint64_t limit_bytes = min_u64(file_bytes - ST_PREFIX_BYTES, ST_HEADER_BYTES_MAX);

    if (header_bytes >= 2 && header_bytes <= limit_bytes)
        return 0;
    for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
        if (memcmp(prefix, strangers[i].begin, strangers[i].bytes) == 0)
            return error_set(err, ERR_FORMAT, "%s", strangers[i].sentence);
    }
    if (header_bytes < 2 || header_bytes > ST_HEADER_BYTES_MAX)
        return error_set(err, ERR_FORMAT,
                         "header length %" PRIu64 " is not in 2..%" PRIu64
                         ": not a safetensors file",
                         header_bytes, ST_HEADER_BYTES_MAX);
    return error_set(err, ERR_FORMAT,
                     "truncated: the header has %" PRIu64 " bytes, the file has %" PRIu64
                     " behind the prefix",
                     header_bytes, file_bytes - ST_PREFIX_BYTES);
}

/* Prefix and JSON into one piece of memory, since the digest covers both. */
static int read_header(struct st_header *out, const struct file *file, struct error *err)
{
    uint64_t file_bytes = file->identity.bytes;
    uint8_t prefix[ST_PREFIX_BYTES];
    char *memory = NULL;
    XXH128_hash_t digest;
    size_t header_bytes;
    int status;

    if (file_bytes < ST_PREFIX_BYTES)
        return error_set(err, ERR_FORMAT, "%" PRIu64 " bytes are too few for a safetensors file",
                         file_bytes);
    status = file_pread(file, prefix, sizeof(prefix), 0, err);
    if (!status)
        status = check_prefix(prefix, file_bytes, err);
    if (status)
        return status;
    header_bytes = (size_t)load_le64(prefix);
    memory = malloc(ST_PREFIX_BYTES + header_bytes);
    if (!memory)
        return error_no_memory(err, "a header");
    memcpy(memory, prefix, sizeof(prefix));
    status = file_pread(file, memory + ST_PREFIX_BYTES, header_bytes, ST_PREFIX_BYTES, err);
    if (!status)
        status = st_header_parse(out, memory + ST_PREFIX_BYTES, header_bytes,
                                 file_bytes - ST_PREFIX_BYTES - header_bytes, err);
    if (!status) {
        digest = XXH3_128bits(memory, ST_PREFIX_BYTES + header_bytes);
        out->digest[0] = digest.low64;
        out->digest[1] = digest.high64;
        out->identity = file->identity;
    }
    free(memory);
    return status;
}

int st_header_read(struct st_header *out, const char *path, uint64_t *file_bytes, struct error *err)
{
    struct file file = FILE_CLOSED;
    char quoted[512];
    int status = file_open_input(&file, path, FILE_DIRECT_OFF, err);

    if (status)
        return status;
    status = read_header(out, &file, err);
    if (status)
        error_prefix(err, "'%s'", error_quote(quoted, sizeof(quoted), path, strlen(path)));
    else if (file_bytes)
        *file_bytes = file.identity.bytes;
    file_close(&file);
    return status;
}
