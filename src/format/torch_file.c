#include "format/torch_file.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "format/torch_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
struct reader {
    const struct torch_source *source;
    struct torch_zip zip;
    char *pickle;
    size_t pickle_bytes;
    struct torch_state state;
};

/* What people give instead, by how it begins. */
static const struct {
    const char *begin;
    size_t bytes;
    const char *sentence;
} strangers[] = {
    { "\x80\2\x8a\nl\xfc\x9c\x46\xf9", 9,
      "a file in the format of torch before 1.6; load it with torch and " TORCH_RESAVE },
    { "\x80", 1,
      "a pickle, but not of torch.save(); load it with what wrote it and " TORCH_RESAVE },
    { "version ", 8,
      "a git-lfs pointer, not the file that it stands for; fetch it with 'git lfs pull'" },
};

int torch_source_read(const struct torch_source *source, void *buf, size_t bytes, uint64_t offset,
                      struct error *err)
{
    if (offset > source->bytes || bytes > source->bytes - offset)
        return error_set(err, ERR_FORMAT,
                         "truncated: %zu bytes wanted at byte %" PRIu64 ", the file has %" PRIu64,
                         bytes, offset, source->bytes);
    if (source->file)
        return file_pread(source->file, buf, bytes, offset, err);
    memcpy(buf, source->memory + offset, bytes);
    return 0;
}

static int check_begin(const struct torch_source *source, struct error *err)
{
    char begin[16] = { 0 };
    int status = torch_source_read(source, begin, (size_t)min_u64(source->bytes, sizeof(begin)), 0,
                                   err);

    if (status || memcmp(begin, "PK\3\4", 4) == 0)
        return status;
    for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
        if (memcmp(begin, strangers[i].begin, strangers[i].bytes) == 0)
            return error_set(err, ERR_FORMAT, "%s", strangers[i].sentence);
    }
    return error_set(err, ERR_FORMAT, "this is not a file of torch.save()");
}

/* Everything lies in one folder, which has the name that the file had when it was saved. */
static int find_prefix(struct reader *reader, struct error *err)
{
    static const char pickle[] = "/data.pkl";
    const struct torch_entry *found = NULL;
    const struct torch_entry *program;

    for (size_t i = 0; i < reader->zip.entry_count; i++) {
        const struct torch_entry *entry = &reader->zip.entries[i];
        const char *slash = memchr(entry->name, '/', entry->name_bytes);

        if (!slash || entry->name_bytes - (size_t)(slash - entry->name) != sizeof(pickle) - 1 ||
            memcmp(slash, pickle, sizeof(pickle) - 1) != 0)
            continue;
        if (found)
            return error_set(err, ERR_FORMAT, "damaged archive: it has two pickles 'data.pkl'");
        found = entry;
        reader->zip.prefix = entry->name;
        reader->zip.prefix_bytes = (size_t)(slash - entry->name) + 1;
    }
    if (!found)
        return error_set(err, ERR_FORMAT,
                         "an archive, but not of torch.save(): it has no 'data.pkl'");
    if (torch_zip_find(&program, &reader->zip, "", "constants.pkl", 13, err))
        return err->code;
    if (program)
        return error_set(err, ERR_FORMAT,
                         "a TorchScript archive, which holds a program; save the state_dict() of "
                         "the model that it was made from, as safetensors");
    return 0;
}

/* Is the small entry `name`, if it is there, one of `values`? */
static int check_entry(struct reader *reader, const char *name, const char *const *values,
                       bool needed, const char *sentence, struct error *err)
{
    const struct torch_entry *entry;
    char text[16] = { 0 };
    int status = torch_zip_find(&entry, &reader->zip, "", name, strlen(name), err);

    if (status || (!entry && !needed))
        return status;
    if (entry && entry->data_bytes < sizeof(text)) {
        status = torch_source_read(reader->source, text, (size_t)entry->data_bytes,
                                   entry->data_offset, err);
        if (status)
            return status;
        text[strcspn(text, "\n")] = '\0';
        for (; *values; values++) {
            if (strcmp(text, *values) == 0)
                return 0;
        }
    }
    return error_set(err, ERR_FORMAT, "%s; " TORCH_RESAVE, sentence);
}

static int read_pickle(struct reader *reader, struct error *err)
{
    const struct torch_entry *entry;
    int status = torch_zip_find(&entry, &reader->zip, "", "data.pkl", 8, err);

    if (status)
        return status;
    if (entry->data_bytes > ST_HEADER_BYTES_MAX)
        return error_set(err, ERR_FORMAT,
                         "its pickle has %" PRIu64 " bytes, at most %" PRIu64 " are accepted",
                         entry->data_bytes, ST_HEADER_BYTES_MAX);
    reader->pickle_bytes = (size_t)entry->data_bytes;
    reader->pickle = malloc(reader->pickle_bytes + 1);
    if (!reader->pickle)
        return error_no_memory(err, "a pickle");
    status = torch_source_read(reader->source, reader->pickle, reader->pickle_bytes,
                               entry->data_offset, err);
    if (status)
        return status;
    return torch_pickle_read(&reader->state, (const uint8_t *)reader->pickle, reader->pickle_bytes,
                             err);
}

static int digest(struct reader *reader, uint64_t out[2], struct error *err)
{
    XXH3_state_t *state = XXH3_createState();
    XXH128_hash_t hash;

    if (!state)
        return error_no_memory(err, "a digest");
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, reader->zip.directory, reader->zip.directory_bytes);
    XXH3_128bits_update(state, reader->pickle, reader->pickle_bytes);
    hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    out[0] = hash.low64;
    out[1] = hash.high64;
    return 0;
}

static int read_archive(struct reader *reader, struct st_header *header, struct error *err)
{
    /* The range that torch itself reads (caffe2/serialize/versions.h). */
    static const char *const versions[] = {
        "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", NULL
    };
    static const char *const little[] = { "little", NULL };
    int status = torch_zip_open(&reader->zip, reader->source, err);

    if (!status)
        status = find_prefix(reader, err);
    if (!status)
        status = check_entry(reader, "version", versions, true,
                             "the entry 'version' of a torch archive is not one of 1 to 10", err);
    if (!status)
        status = check_entry(reader, "byteorder", little, false,
                             "its numbers are not little-endian", err);
    if (!status)
        status = read_pickle(reader, err);
    if (!status)
        status = torch_place_tensors(header, &reader->state, &reader->zip, err);
    if (!status)
        header->data_bytes = reader->source->bytes;
    if (!status)
        status = digest(reader, header->digest, err);
    return status;
}

int torch_parse(struct st_header *out, const struct torch_source *source, struct error *err)
{
    struct reader reader = { .source = source };
    struct st_header header = { 0 };
    int status = check_begin(source, err);

    if (!status)
        status = read_archive(&reader, &header, err);
    torch_zip_release(&reader.zip);
    torch_state_release(&reader.state);
    free(reader.pickle);
    if (status)
        st_header_release(&header);
    else
        *out = header;
    return status;
}

int torch_file_read(struct st_header *out, const char *path, uint64_t *file_bytes,
                    struct error *err)
{
    struct file file = FILE_CLOSED;
    struct torch_source source = { .file = &file };
    char quoted[512];
    int status = file_open_input(&file, path, FILE_DIRECT_OFF, err);

    if (status)
        return status;
    source.bytes = file.identity.bytes;
    status = torch_parse(out, &source, err);
    if (status) {
        error_prefix(err, "'%s'", error_quote(quoted, sizeof(quoted), path, strlen(path)));
    } else {
        out->identity = file.identity;
        if (file_bytes)
            *file_bytes = file.identity.bytes;
    }
    file_close(&file);
    return status;
}
