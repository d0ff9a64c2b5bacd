#include "adapter/adapter.h"

#include "adapter/directory.h"
#include "adapter/pairs.h"
#include "base/hash.h"
#include "base/json.h"
#include "format/torch_file.h"

#include <stdlib.h>
#include <string.h>
/* The last component of the directory's path; of its real path if that is "." or "..". */
static char *directory_name(const char *directory)
{
    char *real = realpath(directory, NULL);
    size_t bytes = strlen(directory);
    size_t begin;

    while (bytes > 1 && directory[bytes - 1] == '/')
        bytes--;
    begin = bytes;
    while (begin > 0 && directory[begin - 1] != '/')
        begin--;
    if (real && (bytes - begin == 0 || strncmp(directory + begin, ".", bytes - begin) == 0 ||
                 strncmp(directory + begin, "..", bytes - begin) == 0)) {
        const char *slash = strrchr(real, '/');
        char *name = strdup(slash && slash[1] ? slash + 1 : real);

        free(real);
        return name;
    }
    free(real);
    return strndup(directory + begin, bytes - begin);
}

static int read_config(struct adapter *adapter, const struct log *log, struct error *err)
{
    char *path = adapter_directory_join(adapter->directory, ADAPTER_CONFIG_FILE);
    XXH128_hash_t digest;
    int status;

    if (!path)
        return error_no_memory(err, "a path");
    status = file_read_all(&adapter->config_text, &adapter->config_bytes, path,
                           JSON_DOCUMENT_BYTES_MAX, err);
    free(path);
    if (status)
        return status;
    digest = XXH3_128bits(adapter->config_text, adapter->config_bytes);
    adapter->config_digest[0] = digest.low64;
    adapter->config_digest[1] = digest.high64;
    status = adapter_config_parse(&adapter->config, adapter->config_text, adapter->config_bytes,
                                  log, err);
    if (status)
        error_prefix(err, ADAPTER_CONFIG_FILE);
    return status;
}

static int read_header(struct adapter *adapter, enum adapter_weights weights, struct error *err)
{
    int (*read)(struct st_header *, const char *, uint64_t *,
                struct error *) = weights == ADAPTER_TORCH ? torch_file_read : st_header_read;
    int status = read(&adapter->header, adapter->weights_path, &adapter->weights_bytes, err);

    if (status)
        return status;
    adapter->identity = adapter->header.identity;
    memcpy(adapter->header_digest, adapter->header.digest, sizeof(adapter->header_digest));
    return 0;
}

int adapter_open(struct adapter *out, const char *path, bool allow_unused, const struct log *log,
                 struct error *err)
{
    struct adapter adapter = { 0 };
    enum adapter_weights weights = ADAPTER_SAFETENSORS;
    char quoted[QUOTED_BYTES];
    int status;

    status = adapter_directory_find(&adapter.directory, &weights, path, log, err);
    if (status)
        goto out;
    adapter.name = directory_name(adapter.directory);
    adapter.weights_path = adapter_directory_join(adapter.directory, adapter_weights_name(weights));
    if (!adapter.name || !adapter.weights_path) {
        status = error_no_memory(err, "a path");
        goto out;
    }
    status = read_config(&adapter, log, err);
    if (!status)
        status = read_header(&adapter, weights, err);
    if (!status)
        status = adapter_build_pairs(&adapter, allow_unused, log, err);
    if (status)
        goto out;
    *out = adapter;
    return 0;

out:
    error_prefix(err, "adapter '%s'", error_quote(quoted, sizeof(quoted), path, strlen(path)));
    adapter_release(&adapter);
    return status;
}

static void release_places(struct adapter *adapter)
{
    for (size_t i = 0; adapter->pairs && i < adapter->pair_count; i++)
        free(adapter->pairs[i].module);
    free(adapter->pairs);
    adapter->pairs = NULL;
    for (size_t i = 0; adapter->saved && i < adapter->saved_count; i++)
        free(adapter->saved[i].name);
    free(adapter->saved);
    adapter->saved = NULL;
}

void adapter_forget_tensors(struct adapter *adapter)
{
    release_places(adapter);
    st_header_release(&adapter->header);
}

void adapter_release(struct adapter *adapter)
{
    free(adapter->directory);
    free(adapter->weights_path);
    free(adapter->name);
    free(adapter->config_text);
    adapter_config_release(&adapter->config);
    adapter_forget_tensors(adapter);
    for (size_t i = 0; i < adapter->unused_count; i++)
        free(adapter->unused[i]);
    free(adapter->unused);
    *adapter = (struct adapter){ 0 };
}
