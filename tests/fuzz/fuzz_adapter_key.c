/*
 * Input: a name of an adapter, a line feed, names of tensors, one a line.  A path that is read does
 * not hold more than the name does, and reading it again behind the prefix gives the same.
 */

#include "adapter/key.h"
#include "fuzz/fuzz.h"

#include <string.h>

#define PREFIX "base_model.model."

/* What stood behind a base_layer may look like something to strip. */
static bool has_front(const char *path)
{
    return strncmp(path, "module.", 7) == 0 || strncmp(path, PREFIX, strlen(PREFIX)) == 0;
}

static void check_again(const struct adapter_key *key, const char *adapter_name)
{
    char name[1024];
    struct adapter_key again;
    struct error err = { 0 };

    snprintf(name, sizeof(name), PREFIX "%s", key->path);
    FUZZ_CHECK(adapter_key_read(&again, name, strlen(name), adapter_name, &err) == 0);
    FUZZ_CHECK(again.kind == ADAPTER_KEY_SAVED && strcmp(again.path, key->path) == 0);
    FUZZ_CHECK(!again.odd);
    free(again.path);
}

static void read_one(const char *name, size_t bytes, const char *adapter_name)
{
    struct adapter_key key;
    struct error err = { 0 };

    FUZZ_CHECK(adapter_key_read(&key, name, bytes, adapter_name, &err) == 0);
    FUZZ_CHECK((key.path != NULL) == (key.kind < ADAPTER_KEY_TRAINING));
    if (key.path) {
        FUZZ_CHECK(key.path[0] && strlen(key.path) <= bytes);
        FUZZ_CHECK(key.owner_bytes == 0 || key.path[key.owner_bytes] == '.');
        if (key.kind == ADAPTER_KEY_SAVED && bytes < 1000 && !has_front(key.path))
            check_again(&key, adapter_name);
    } else if (key.kind == ADAPTER_KEY_OTHER) {
        FUZZ_CHECK(adapter_key_refuse(&key, name, bytes, &err) == ERR_FORMAT && err.text[0]);
    }
    free(key.path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const char *line = memchr(text, '\n', size);
    char adapter_name[64];
    size_t bytes = line ? (size_t)(line - text) : 0;

    /* The header's parser lets no NUL through. */
    if (!line || bytes >= sizeof(adapter_name) || memchr(text, '\0', size))
        return 0;
    memcpy(adapter_name, text, bytes);
    adapter_name[bytes] = '\0';
    for (const char *at = line + 1, *end = text + size; at <= end;) {
        const char *next = memchr(at, '\n', (size_t)(end - at));
        const char *begin;
        size_t count;

        bytes = next ? (size_t)(next - at) : (size_t)(end - at);
        read_one(at, bytes, adapter_name);
        if (adapter_key_find_name(at, bytes, &begin, &count) && count)
            FUZZ_CHECK(begin > at && begin + count <= at + bytes);
        at += bytes + 1;
    }
    return 0;
}
