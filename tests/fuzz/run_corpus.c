/*
 * Runs a fuzz target over every file of the directories that are given: the main program of the
 * targets where libFuzzer is not used.
 *
 * usage: fuzz_x DIRECTORY...
 */

#include "base/error.h"
#include "fuzz/fuzz.h"
#include "io/file.h"

#include <dirent.h>
#include <string.h>

/* The bytes in memory of exactly their size, so that ASan sees a read behind them. */
static int run_file(const char *path)
{
    struct error err = { 0 };
    char *text = NULL;
    uint8_t *data;
    size_t bytes;

    if (file_read_all(&text, &bytes, path, 64 << 20, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    data = malloc(bytes ? bytes : 1);
    if (!data) {
        fprintf(stderr, "out of memory\n");
        free(text);
        return 1;
    }
    memcpy(data, text, bytes);
    free(text);
    LLVMFuzzerTestOneInput(data, bytes);
    free(data);
    return 0;
}

static int run_directory(const char *directory, unsigned *count)
{
    struct dirent **entries;
    int entry_count = scandir(directory, &entries, NULL, alphasort);
    int status = 0;

    if (entry_count < 0) {
        fprintf(stderr, "cannot list '%s'\n", directory);
        return 1;
    }
    for (int i = 0; i < entry_count; i++) {
        char path[4096];

        if (entries[i]->d_name[0] != '.') {
            snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
            status |= run_file(path);
            (*count)++;
        }
        free(entries[i]);
    }
    free(entries);
    return status;
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    int status = 0;

    for (int i = 1; i < argc; i++)
        status |= run_directory(argv[i], &count);
    printf("%u inputs\n", count);
    if (count == 0) {
        fprintf(stderr, "no inputs: usage: %s DIRECTORY...\n", argv[0]);
        return 1;
    }
    return status;
}
