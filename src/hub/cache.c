#include "hub/cache.h"

#include "base/text.h"
#include "hub/cache_directory.h"
#include "io/file.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART_BYTES_MAX 96      /* of a name, as huggingface_hub has it */
#define REVISION_BYTES_MAX 255 /* git's own limit for one component of a reference */
#define REFERENCE_BYTES_MAX 4096
#define COMMIT_HEX_DIGITS 40

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* One side of org/name: letters, digits, '_', and between them '-' and '.'. */
static bool is_name_part(const char *text, size_t bytes)
{
    if (bytes == 0 || bytes > PART_BYTES_MAX || !is_word(text[0]) || !is_word(text[bytes - 1]))
        return false;
    for (size_t i = 0; i < bytes; i++) {
        if (!is_word(text[i]) && text[i] != '-' && text[i] != '.')
            return false;
        if (i && text[i] == text[i - 1] && (text[i] == '-' || text[i] == '.'))
            return false;
    }
    return true;
}

/*
 * Components of a path below a directory: none empty, none "." or "..".  Nor anything that a shell
 * does not take as it stands, because commands with it are offered for copying.
 */
static bool is_revision(const char *text)
{
    const char *component = text;

    if (strlen(text) > REVISION_BYTES_MAX)
        return false;
    for (const char *c = text;; c++) {
        size_t bytes = (size_t)(c - component);

        if (*c != '/' && *c != '\0') {
            if ((unsigned char)*c <= ' ' || *c == 0x7f || strchr("\\$`;|&<>()'\"!*?[]{}~#", *c))
                return false;
            continue;
        }
        if (bytes == 0 || (bytes <= 2 && strncmp(component, "..", bytes) == 0))
            return false;
        if (*c == '\0')
            return true;
        component = c + 1;
    }
}

/* Split at the first '@'; *revision is NULL without one. */
static bool split_name(const char *text, size_t *repo_bytes, const char **revision)
{
    const char *at = strchr(text, '@');
    const char *slash;
    size_t bytes = at ? (size_t)(at - text) : strlen(text);

    slash = memchr(text, '/', bytes);
    *repo_bytes = bytes;
    *revision = at ? at + 1 : NULL;
    if (bytes >= 4 && memcmp(text + bytes - 4, ".git", 4) == 0)
        return false;
    if (at && !is_revision(at + 1))
        return false;
    if (!slash)
        return is_name_part(text, bytes);
    return is_name_part(text, (size_t)(slash - text)) &&
           is_name_part(slash + 1, bytes - (size_t)(slash - text) - 1);
}

bool hub_is_repo_name(const char *text)
{
    size_t repo_bytes;
    const char *revision;

    return split_name(text, &repo_bytes, &revision);
}

/* <cache>/models--org--name */
static void add_repo_directory(struct text *out, const char *repo, size_t bytes)
{
    text_adds(out, "/models--");
    for (size_t i = 0; i < bytes; i++)
        text_add(out, repo[i] == '/' ? "--" : repo + i, repo[i] == '/' ? 2 : 1);
}

static bool is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static char *join(const char *directory, const char *middle, const char *name)
{
    struct text text = { 0 };

    text_adds(&text, directory);
    text_adds(&text, middle);
    text_adds(&text, name);
    return text_take(&text);
}

/* Does snapshots/<commit> exist?  Then *commit is a copy of the name. */
static int try_snapshot(char **commit, const char *repo_directory, const char *name,
                        struct error *err)
{
    char *path;
    bool there;

    if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return 0;
    path = join(repo_directory, "/snapshots/", name);
    if (!path)
        return error_no_memory(err, "a path");
    there = is_directory(path);
    free(path);
    if (!there)
        return 0;
    *commit = strdup(name);
    return *commit ? 0 : error_no_memory(err, "a path");
}

/* The commit that refs/<revision> names, if it has a snapshot. */
static int try_reference(char **commit, const char *repo_directory, const char *revision,
                         struct error *err)
{
    char *path = join(repo_directory, "/refs/", revision);
    char *content = NULL;
    size_t bytes;
    struct stat st;
    int status = 0;

    if (!path)
        return error_no_memory(err, "a path");
    if (stat(path, &st) == 0 && S_ISREG(st.st_mode))
        status = file_read_all(&content, &bytes, path, REFERENCE_BYTES_MAX, err);
    if (content) {
        while (bytes && strchr(" \t\r\n", content[bytes - 1]))
            content[--bytes] = '\0';
        if (strlen(content) == bytes)
            status = try_snapshot(commit, repo_directory, content, err);
    }
    free(content);
    free(path);
    return status;
}

/* A cache without refs, as copied by hand: its only snapshot is the one. */
static int try_only_snapshot(char **commit, const char *repo_directory, struct error *err)
{
    char *path = join(repo_directory, "/snapshots", "");
    DIR *stream = path ? opendir(path) : NULL;
    const struct dirent *entry;
    char name[256] = "";
    size_t count = 0;

    free(path);
    if (!stream)
        return 0;
    while ((entry = readdir(stream))) {
        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= sizeof(name))
            continue;
        memcpy(name, entry->d_name, strlen(entry->d_name) + 1);
        count++;
    }
    closedir(stream);
    return count == 1 ? try_snapshot(commit, repo_directory, name, err) : 0;
}

static bool is_commit_hash(const char *text)
{
    return strlen(text) == COMMIT_HEX_DIGITS &&
           strspn(text, "0123456789abcdef") == COMMIT_HEX_DIGITS;
}

static int find_commit(char **commit, const char *repo_directory, const char *revision,
                       struct error *err)
{
    const char *wanted = revision ? revision : "main";
    char *refs;
    bool has_refs;
    int status = 0;

    if (!is_commit_hash(wanted))
        status = try_reference(commit, repo_directory, wanted, err);
    if (!status && !*commit && revision)
        status = try_snapshot(commit, repo_directory, revision, err);
    if (status || *commit || revision)
        return status;
    refs = join(repo_directory, "/refs/", wanted);
    if (!refs)
        return error_no_memory(err, "a path");
    has_refs = access(refs, F_OK) == 0;
    free(refs);
    return has_refs ? 0 : try_only_snapshot(commit, repo_directory, err);
}

int hub_cache_find(struct hub_snapshot *out, const char *name, struct error *err)
{
    struct hub_snapshot found = { 0 };
    struct text directory = { 0 };
    char quoted[2][QUOTED_BYTES];
    char cache[512];
    const char *revision;
    size_t repo_bytes;
    size_t cache_bytes;
    int status;

    if (!split_name(name, &repo_bytes, &revision))
        return error_set(err, ERR_USAGE,
                         "'%s' is not the name of a repository: it is org/name or "
                         "org/name@revision, of letters, digits, '-', '_' and '.'",
                         error_quote(quoted[0], QUOTED_BYTES, name, strlen(name)));
    hub_add_cache_directory(&directory);
    cache_bytes = directory.bytes;
    add_repo_directory(&directory, name, repo_bytes);
    found.repo = strndup(name, repo_bytes);
    found.revision = strdup(revision ? revision : "main");
    if (directory.failed || !found.repo || !found.revision) {
        status = error_no_memory(err, "a path");
        goto out;
    }
    error_quote(cache, sizeof(cache), directory.data, cache_bytes);
    error_quote(quoted[0], QUOTED_BYTES, found.revision, strlen(found.revision));
    status = find_commit(&found.commit, directory.data, revision, err);
    if (status)
        goto out;
    if (!found.commit) {
        bool there = is_directory(directory.data);

        status = error_set(err, ERR_USAGE,
                           "%s%s%s'%s' is not in the Hugging Face cache '%s'; fetch it with: "
                           "lorafold fetch %s%s%s",
                           there ? "revision '" : "", there ? quoted[0] : "", there ? "' of " : "",
                           found.repo, cache, found.repo, revision ? "@" : "",
                           revision ? quoted[0] : "");
        goto out;
    }
    found.directory = join(directory.data, "/snapshots/", found.commit);
    if (!found.directory) {
        status = error_no_memory(err, "a path");
        goto out;
    }
    *out = found;
    found = (struct hub_snapshot){ 0 };

out:
    text_release(&directory);
    hub_snapshot_release(&found);
    return status;
}

void hub_snapshot_release(struct hub_snapshot *snapshot)
{
    free(snapshot->directory);
    free(snapshot->repo);
    free(snapshot->revision);
    free(snapshot->commit);
    *snapshot = (struct hub_snapshot){ 0 };
}
