#include "pipeline/made_torch.h"

#include "base/bytes.h"
#include "base/checksum.h"
#include "check.h"
#include "format/model_names.h"
#include "format/torch_emit.h"
#include "format/torch_file.h"
#include "format/torch_internal.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

/* APPNOTE of the ZIP format. */
#define CENTRAL_BYTES 46u
#define FLAG_BEHIND 8u
#define SIGNATURE_DESCRIPTOR 0x08074b50u

static const struct torch_entry *entry_at(const struct torch_zip *zip, const uint8_t *central)
{
    for (size_t i = 0; i < zip->entry_count; i++) {
        if ((const uint8_t *)zip->entries[i].name == central + CENTRAL_BYTES)
            return &zip->entries[i];
    }
    CHECK(false, "an entry is lost");
    return NULL;
}

static void check_entry(const struct torch_entry *entry, const struct torch_source *source,
                        const uint8_t *central)
{
    uint8_t *data = malloc(entry->data_bytes + 1);
    uint8_t descriptor[16];
    struct error err = { 0 };
    uint32_t checksum;

    CHECK(data && torch_source_read(source, data, entry->data_bytes, entry->data_offset, &err) == 0,
          "%s", err.text);
    checksum = checksum_bytes(data, entry->data_bytes);
    CHECK(load_le32(central + 16) == checksum, "checksum of an entry of %llu bytes at %llu",
          (unsigned long long)entry->data_bytes, (unsigned long long)entry->data_offset);
    CHECK(entry->data_offset % TORCH_ALIGNMENT == 0, "data at %llu",
          (unsigned long long)entry->data_offset);
    if (load_le16(central + 8) & FLAG_BEHIND) {
        CHECK(torch_source_read(source, descriptor, sizeof(descriptor),
                                entry->data_offset + entry->data_bytes, &err) == 0,
              "%s", err.text);
        CHECK(load_le32(descriptor) == SIGNATURE_DESCRIPTOR &&
                  load_le32(descriptor + 4) == checksum &&
                  load_le32(descriptor + 8) == entry->data_bytes,
              "no descriptor behind %llu bytes", (unsigned long long)entry->data_bytes);
    }
    free(data);
}

static void check_archive(const char *path)
{
    struct file file = FILE_CLOSED;
    struct torch_zip zip = { 0 };
    struct error err = { 0 };
    struct torch_source source = { .file = &file };
    const uint8_t *central;

    CHECK(file_open_input(&file, path, FILE_DIRECT_OFF, &err) == 0, "%s", err.text);
    source.bytes = file.identity.bytes;
    CHECK(torch_zip_open(&zip, &source, &err) == 0, "%s: %s", path, err.text);
    central = (const uint8_t *)zip.directory;
    for (size_t i = 0; i < zip.entry_count; i++) {
        check_entry(entry_at(&zip, central), &source, central);
        central += CENTRAL_BYTES + load_le16(central + 28) + load_le16(central + 30);
    }
    torch_zip_release(&zip);
    file_close(&file);
}

static int is_torch_file(const struct dirent *entry)
{
    size_t bytes = strlen(entry->d_name);

    return bytes > 4 && strcmp(entry->d_name + bytes - 4, ".bin") == 0;
}

void made_open_output(struct model *out, const char *directory)
{
    struct error err = { 0 };
    struct dirent **names;
    int count = scandir(directory, &names, is_torch_file, alphasort);
    char path[1200];

    CHECK(count >= 0, "%s", directory);
    if (count == 0) {
        free(names);
        CHECK(model_open(out, directory, NULL, &err) == 0, "%s", err.text);
        return;
    }
    *out = (struct model){ .shards = calloc((size_t)count, sizeof(*out->shards)) };
    CHECK(out->shards, "memory");
    for (int i = 0; i < count; i++) {
        struct model_shard *shard = &out->shards[out->shard_count++];

        snprintf(path, sizeof(path), "%s/%s", directory, names[i]->d_name);
        check_archive(path);
        shard->path = strdup(path);
        CHECK(torch_file_read(&shard->header, path, NULL, &err) == 0, "%s", err.text);
        out->tensor_count += shard->header.tensor_count;
        free(names[i]);
    }
    free(names);
    CHECK(model_sort_tensors(out, &err) == 0, "%s", err.text);
}
