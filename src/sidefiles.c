/*
 * sidefiles.c - what a model directory holds besides weights
 *
 * Taken by name, not by exclusion: a directory of a trainer holds much that
 * does not belong to a model.  Files of the tokenizer and processor come from
 * --tokenizer, else from the first adapter that has them, else from the base.  An
 * output that is an adapter gets these only.
 */
#include "merge.h"

#include "base/array.h"
#include "io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIDE_FILE_BYTES_MAX (512 * MIB)
#define CHAT_TEMPLATES "additional_chat_templates"

static bool starts(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

static bool ends(const char *name, const char *with)
{
    size_t bytes = strlen(name);
    size_t with_bytes = strlen(with);

    return bytes > with_bytes && strcmp(name + bytes - with_bytes, with) == 0;
}

/* What a tokenizer or processor saves; an adapter's directory may bring it. */
static bool is_tokenizer_file(const char *name)
{
    static const char *const names[] = {
        "added_tokens.json",
        "chat_template.json",
        "chat_template.jinja",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spiece.model",
        "video_preprocessor_config.json",
        "vocab.json",
        "vocab.txt",
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0)
            return true;
    }
    return starts(name, "tokenizer") || ends(name, ".tiktoken");
}

/* How the weights are quantised, beside config.json. */
static bool describes_scheme(const char *name)
{
    return strcmp(name, "hf_quant_config.json") == 0 || strcmp(name, "quantize_config.json") == 0 ||
           strcmp(name, "quant_config.json") == 0 || strcmp(name, "quantization_config.json") == 0;
}

/* What else is copied from a base. */
static bool is_model_file(const struct side_files *files, const char *name)
{
    static const char *const endings[] = { ".json", ".txt", ".model", ".py", ".jinja", ".md" };

    if (strcmp(name, "config.json") == 0 || strcmp(name, "README.md") == 0 ||
        (!files->scheme_too && describes_scheme(name)) || ends(name, ".index.json") ||
        starts(name, "adapter_") || starts(name, "lorafold.") || starts(name, "trainer_state") ||
        starts(name, "consolidated") || starts(name, "."))
        return false;
    if (starts(name, "LICENSE") || starts(name, "LICENCE") || starts(name, "NOTICE") ||
        is_tokenizer_file(name))
        return true;
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        if (ends(name, endings[i]))
            return true;
    }
    return false;
}

/* 1_Pooling, 2_Dense...: the modules of sentence-transformers, and the chat templates. */
static bool is_side_directory(const char *name)
{
    return strcmp(name, CHAT_TEMPLATES) == 0 ||
           (name[0] >= '0' && name[0] <= '9' && name[1] == '_');
}

/* What a module of sentence-transformers has of its own: its configuration and small weights. */
static bool is_module_file(const char *name)
{
    return strcmp(name, "config.json") == 0 || ends(name, ".safetensors") || ends(name, ".bin");
}

static struct side_file *find_file(struct side_files *files, const char *name)
{
    for (size_t i = 0; i < files->count; i++) {
        if (strcmp(files->list[i].name, name) == 0)
            return &files->list[i];
    }
    return NULL;
}

static int add_file(struct side_files *files, const char *path, const char *name, uint64_t bytes,
                    struct error *err)
{
    struct side_file *file = find_file(files, name);
    char *copy = strdup(path);

    if (!copy)
        return error_no_memory(err, "a path");
    if (file) {
        free(file->path);
        file->path = copy;
        file->bytes = bytes;
        return 0;
    }
    if (files->count == files->capacity) {
        struct side_file *more = array_grow(files->list, &files->capacity, sizeof(*more));

        if (!more) {
            free(copy);
            return error_no_memory(err, "the list of files");
        }
        files->list = more;
    }
    file = &files->list[files->count];
    *file = (struct side_file){ copy, strdup(name), bytes };
    if (!file->name) {
        free(copy);
        return error_no_memory(err, "a name");
    }
    files->count++;
    return 0;
}

/* The manifest is JSON and is read as strictly as an index is. */
static bool can_be_listed(const char *name)
{
    size_t bytes = strlen(name);
    size_t length = 1;

    for (size_t i = 0; i < bytes && length; i += length)
        length = text_utf8_length(name + i, bytes - i);
    return length && model_name_is_safe(name, bytes);
}

static int scan(struct side_files *files, const char *directory, const char *inside,
                bool tokenizer_only, struct error *err);

static int scan_entry(struct side_files *files, const char *directory, const char *inside,
                      const char *entry, bool tokenizer_only, struct error *err)
{
    char path[4096];
    char name[256];
    struct stat st;

    if (snprintf(path, sizeof(path), "%s/%s", directory, entry) >= (int)sizeof(path) ||
        snprintf(name, sizeof(name), "%s%s%s", inside, *inside ? "/" : "", entry) >=
            (int)sizeof(name))
        return error_set(err, ERR_FORMAT, "'%s/%s': the path is too long", directory, entry);
    if (stat(path, &st) < 0) {
        if (!(tokenizer_only ? is_tokenizer_file(entry) : is_model_file(files, entry)))
            return 0;
        if (errno != ENOENT)
            return error_set_errno(err, "cannot look at '%s'", path);
        return error_set(err, ERR_FORMAT, "'%s' is a link to a file that is not there", path);
    }
    if (S_ISDIR(st.st_mode) && *inside == '\0' && is_side_directory(entry) &&
        (!tokenizer_only || strcmp(entry, CHAT_TEMPLATES) == 0))
        return scan(files, path, entry, false, err);
    if (!S_ISREG(st.st_mode) ||
        !(tokenizer_only ? is_tokenizer_file(entry)
                         : is_model_file(files, entry) || (*inside && is_module_file(entry))))
        return 0;
    if ((uint64_t)st.st_size > SIDE_FILE_BYTES_MAX)
        return error_set(err, ERR_FORMAT,
                         "'%s' has %lld bytes, more than %llu for a file beside "
                         "the weights",
                         path, (long long)st.st_size, (unsigned long long)SIDE_FILE_BYTES_MAX);
    if (!can_be_listed(name)) {
        char quoted[QUOTED_BYTES];

        return error_set(err, ERR_FORMAT,
                         "the name of '%s' holds a control character, a backslash or bytes that "
                         "are not UTF-8, so it cannot be listed in %s; rename it",
                         error_quote(quoted, sizeof(quoted), path, strlen(path)), MANIFEST_NAME);
    }
    return add_file(files, path, name, (uint64_t)st.st_size, err);
}

static int scan(struct side_files *files, const char *directory, const char *inside,
                bool tokenizer_only, struct error *err)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    int status = 0;

    if (!dir)
        return error_set_errno(err, "cannot list '%s'", directory);
    while (!status && (errno = 0, entry = readdir(dir)))
        status = scan_entry(files, directory, inside, entry->d_name, tokenizer_only, err);
    if (!status && errno)
        status = error_set_errno(err, "cannot list '%s'", directory);
    closedir(dir);
    return status;
}

static int compare_names(const void *left, const void *right)
{
    const struct side_file *x = left;
    const struct side_file *y = right;

    return strcmp(x->name, y->name);
}

int side_files_find(struct lorafold_merge *merge, struct error *err)
{
    const char *tokenizer = merge->tokenizer.path;
    struct side_files *files = &merge->side_files;
    size_t before;

    files->scheme_too = keeps_scheme(merge);
    if (merge->base->model.directory &&
        scan(files, merge->base->model.directory, "", writes_adapter(merge), err))
        return err->code;
    for (size_t i = merge->adapter_count; i-- > 0;) { /* the first adapter has the last word */
        if (scan(files, merge->adapters[i].directory, "", true, err))
            return err->code;
    }
    if (tokenizer) {
        before = files->count;
        if (scan(files, tokenizer, "", true, err))
            return err->code;
        if (files->count == before && !find_file(files, "tokenizer_config.json") &&
            !find_file(files, "tokenizer.json"))
            return error_set(err, ERR_USAGE, "--tokenizer '%s' holds no tokenizer files",
                             tokenizer);
    }
    if (files->count)
        qsort(files->list, files->count, sizeof(*files->list), compare_names);
    return 0;
}

void side_files_release(struct side_files *files)
{
    for (size_t i = 0; i < files->count; i++) {
        free(files->list[i].path);
        free(files->list[i].name);
    }
    free(files->list);
    *files = (struct side_files){ 0 };
}
