/* push_directory.c - lorafold_push(): a directory that is there */
#include "push_internal.h"

#include "base/array.h"
#include "base/text.h"
#include "format/names.h"
#include "io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 8
#define FILES_MAX 20000u /* of one commit; the Hub's own limit is 25,000 */

struct found_file {
    char *name;
    uint64_t bytes;
    struct digest *blocks; /* by number; NULL: not known */
};

struct listing {
    struct found_file *list;
    size_t count;
    size_t capacity;
    const char *directory;
};

static int add_found(struct listing *files, const char *name, uint64_t bytes, struct error *err)
{
    char quoted[QUOTED_BYTES];

    if (files->count == FILES_MAX)
        return error_set(err, ERR_USAGE, "'%s' holds more than %u files, the limit of a commit",
                         files->directory, FILES_MAX);
    for (size_t i = 0, length = 1; name[i]; i += length) {
        length = text_utf8_length(name + i, strlen(name + i));
        if (length == 0 || (unsigned char)name[i] < ' ')
            return error_set(err, ERR_USAGE,
                             "the name of '%s' has bytes that no name on the Hub may have: rename "
                             "it",
                             error_quote(quoted, sizeof(quoted), name, strlen(name)));
    }
    if (files->count == files->capacity) {
        struct found_file *more = array_grow(files->list, &files->capacity, sizeof(*more));

        if (!more)
            return error_no_memory(err, "the list of files");
        files->list = more;
    }
    files->list[files->count] = (struct found_file){ strdup(name), bytes, NULL };
    if (!files->list[files->count].name)
        return error_no_memory(err, "the list of files");
    files->count++;
    return 0;
}

/* Everything but what is hidden; links are followed. */
static int list_files(struct listing *files, int directory_fd, const char *inside, int depth,
                      struct error *err)
{
    int fd = openat(directory_fd, *inside ? inside : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    int status = 0;

    if (!stream) {
        error_set_errno(err, "cannot list '%s%s%s'", files->directory, *inside ? "/" : "", inside);
        if (fd >= 0)
            close(fd);
        return err->code;
    }
    while (!status && (errno = 0, entry = readdir(stream))) {
        char name[4096];
        struct stat st;

        if (entry->d_name[0] == '.')
            continue;
        if (snprintf(name, sizeof(name), "%s%s%s", inside, *inside ? "/" : "", entry->d_name) >=
            (int)sizeof(name))
            status = error_set(err, ERR_USAGE, "a path in '%s' is too long", files->directory);
        else if (fstatat(directory_fd, name, &st, 0) < 0)
            status = error_set_errno(err, "'%s' in '%s'", name, files->directory);
        else if (S_ISREG(st.st_mode))
            status = add_found(files, name, (uint64_t)st.st_size, err);
        else if (S_ISDIR(st.st_mode) && depth == DEPTH_MAX)
            status = error_set(err, ERR_USAGE, "directories in '%s' are nested more than %d deep",
                               files->directory, DEPTH_MAX);
        else if (S_ISDIR(st.st_mode))
            status = list_files(files, directory_fd, name, depth + 1, err);
    }
    if (!status && errno)
        status = error_set_errno(err, "cannot list '%s'", files->directory);
    closedir(stream);
    return status;
}

static bool is_weights(const char *name)
{
    return text_ends_with(name, ".safetensors") || text_ends_with(name, ".bin");
}

/* By size, the largest first: what takes long begins early, and the commit waits for no straggler.
 */
static int compare_sizes(const void *left, const void *right)
{
    const struct found_file *x = left;
    const struct found_file *y = right;

    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return strcmp(x->name, y->name);
}

static bool holds(int directory_fd, const char *name)
{
    return faccessat(directory_fd, name, F_OK, 0) == 0;
}

static int check_directory(const struct listing *files, int directory_fd, struct error *err)
{
    size_t weights = 0;

    if (holds(directory_fd, ".lorafold-work") || holds(directory_fd, ".lorafold.partial"))
        return error_set(err, ERR_USAGE,
                         "'%s' is not finished: a merge works there, or was killed there",
                         files->directory);
    for (size_t i = 0; i < files->count; i++)
        weights += is_weights(files->list[i].name);
    if (weights == 0)
        return error_set(err, ERR_USAGE, "'%s' holds no weights, so there is nothing to push",
                         files->directory);
    return 0;
}

static const struct output_file *find_written(const struct output_files *written, const char *name)
{
    for (size_t i = 0; i < written->count; i++) {
        if (strcmp(written->list[i].name, name) == 0)
            return &written->list[i];
    }
    return NULL;
}

/* Weights that the manifest names must be there; other files may have been removed. */
static int check_missing(const struct listing *files, const struct output_files *written,
                         struct error *err)
{
    for (size_t i = 0; i < written->count; i++) {
        const char *name = written->list[i].name;
        bool there = false;

        for (size_t j = 0; j < files->count && !there; j++)
            there = strcmp(files->list[j].name, name) == 0;
        if (!there && is_weights(name))
            return error_set(err, ERR_DIFFERENT, "'%s' of " MANIFEST_NAME " is not in '%s'", name,
                             files->directory);
    }
    return 0;
}

/* The digests of a file by the number of the block; none of what was cloned from the base. */
static int take_blocks(struct found_file *found, const struct output_file *of, struct error *err)
{
    found->bytes = of->bytes;
    found->blocks = calloc(blocks_of(of->bytes) + 1, sizeof(*found->blocks));
    if (!found->blocks)
        return error_no_memory(err, "the digests of files");
    for (uint64_t i = 0; i < blocks_of(of->bytes); i++) {
        uint64_t digest;

        if (!output_block(of, i, &digest))
            found->blocks[i] = of->blocks[digest];
    }
    return 0;
}

static int send_all(struct push *push, struct listing *files, const struct output_files *written,
                    struct error *err)
{
    for (size_t i = 0; i < files->count; i++) {
        struct found_file *found = &files->list[i];
        const struct output_file *of = find_written(written, found->name);
        struct push_file file;

        if (of && take_blocks(found, of, err))
            return err->code;
        file = (struct push_file){ .name = found->name,
                                   .bytes = found->bytes,
                                   .blocks = found->blocks,
                                   .may_differ = !is_weights(found->name) };

        if (push_add(push, &file, err))
            return err->code;
    }
    return 0;
}

static int push_files(struct listing *files, int directory_fd, const struct output_files *written,
                      struct remote *remote, const struct lorafold_destination *to,
                      struct lorafold_push_report *report, struct error *err)
{
    struct push *push = NULL;
    int status = push_open(&push, to, holds(directory_fd, ADAPTER_CONFIG_NAME), remote, err);

    if (!status)
        status = push_begin(push, directory_fd, -1, NULL, NULL, err);
    if (!status)
        status = send_all(push, files, written, err);
    if (!status)
        status = push_end(push, remote, report, err);
    push_close(push);
    return status;
}

static void say(void *context, enum log_level level, const char *sentence)
{
    const struct lorafold_push_options *options = context;

    if (options->message)
        options->message(options->context, (enum lorafold_level)level, sentence);
}

void lorafold_push_options_init(struct lorafold_push_options *options)
{
    *options = (struct lorafold_push_options){ 0 };
}

static int push_directory(const char *directory, struct remote *remote,
                          const struct lorafold_destination *to,
                          struct lorafold_push_report *report, struct error *err)
{
    struct listing files = { .directory = directory };
    struct output_files written = { 0 };
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int status;

    if (fd < 0) {
        error_set_errno(err, "'%s' cannot be pushed", directory);
        return err->code = errno == ENOENT || errno == ENOTDIR ? ERR_USAGE : ERR_FAILED;
    }
    status = list_files(&files, fd, "", 0, err);
    if (!status)
        status = check_directory(&files, fd, err);
    if (!status && holds(fd, MANIFEST_NAME))
        status = manifest_load(&written, directory, err);
    if (!status)
        status = check_missing(&files, &written, err);
    if (!status) {
        qsort(files.list, files.count, sizeof(*files.list), compare_sizes);
        status = push_files(&files, fd, &written, remote, to, report, err);
    }
    close(fd);
    output_files_release(&written);
    for (size_t i = 0; i < files.count; i++) {
        free(files.list[i].name);
        free(files.list[i].blocks);
    }
    free(files.list);
    return status;
}

int lorafold_push(const char *directory, const struct lorafold_push_options *options,
                  struct lorafold_push_report *report, struct lorafold_error *err)
{
    struct lorafold_push_options copy = *options;
    const struct log log = { say, &copy };
    struct remote remote = { .hub = &copy.hub,
                             .log = &log,
                             .cancel = copy.cancel,
                             .progress = copy.progress,
                             .context = copy.context };
    struct error inner = { 0 };
    int status = copy.to.repo ? push_directory(directory, &remote, &copy.to, report, &inner)
                              : error_set(&inner, ERR_USAGE, "there is no repository to push to");

    return status ? give_error(err, &inner) : 0;
}

char *lorafold_push_describe(const struct lorafold_push_report *report, enum lorafold_format format)
{
    struct text out = { 0 };

    if (format == LORAFOLD_JSON) {
        text_adds(&out, "{\"type\":\"report\"");
        push_describe_json(report, &out);
        text_adds(&out, "}\n");
    } else {
        push_describe_text(report, &out);
    }
    return text_take(&out);
}

void push_describe_json(const struct lorafold_push_report *report, struct text *out)
{
    describe_key_text(out, "repo", report->repo);
    describe_key_text(out, "commit", report->url);
    if (*report->pull_request)
        describe_key_text(out, "pull_request", report->pull_request);
    describe_key_number(out, "files_pushed", report->file_count);
    describe_key_number(out, "bytes_pushed", report->bytes);
    text_addf(out, ",\"seconds_pushing\":%.3f", report->seconds);
}

void push_describe_text(const struct lorafold_push_report *report, struct text *out)
{
    text_addf(out, "pushed    %s: ", report->repo);
    text_add_count(out, report->file_count, "file");
    text_adds(out, ", ");
    text_add_bytes(out, report->bytes);
    text_addf(out, " in %.1f s\n%s %s\n", report->seconds,
              *report->pull_request ? "request  " : "commit   ",
              *report->pull_request ? report->pull_request : report->url);
}
