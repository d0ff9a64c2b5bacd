/*
 * Every allocation, read, write and other call of a fetch, of a push, and of merges that push,
 * fails in turn, against a helper that is a script.  Whatever happens: success means that all files
 * were stored and then committed, once; an output is there whole or not at all; no process,
 * descriptor or work directory is left.
 *
 * usage: test_push_faults [scenario kind number]
 */
#include "check.h"
#include "pipeline/faults.h"
#include "pipeline/made_model.h"

#include "lorafold.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NUMBER_MAX 5000u
/* Two shards, index, configuration, card, manifest and more: at least these. */
#define FILES_STORED 6

enum scenario { FETCH, PUSH, MERGE, MERGE_NO_LOCAL, SCENARIOS };

static const char *const scenario_names[SCENARIOS] = { "fetch", "push", "merge",
                                                       "merge --no-local" };

static char base[600];
static char adapter_path[600];
static char reference[600]; /* what a merge without a fault gave, and what is pushed */
static char output[600];
static char record[600]; /* what the helper was asked for, a letter each */
static char script[600];

static const char *const helper[] = { script, NULL };

/* Stores whatever it is told, and keeps no file that is to leave. */
static void write_helper(void)
{
    FILE *file = fopen(script, "w");

    CHECK(file, "%s", script);
    fprintf(file,
            "#!/bin/sh\n"
            "while read -r line; do\n"
            "    id=${line#*:}; id=${id%%%%,*}\n"
            "    case $line in\n"
            "    *'\"do\":\"hello\"'*) said='\"protocol\":1' ;;\n"
            "    *'\"do\":\"create\"'*) said='\"repo\":\"ada/new\",\"url\":\"u\"' ;;\n"
            "    *'\"do\":\"store\"'*) said='\"bytes\":1,\"stored\":true,\"deleted\":false'; "
            "echo s >>'%s' ;;\n"
            "    *'\"do\":\"commit\"'*) said='\"oid\":\"0\",\"url\":\"u\",\"repo\":\"ada/new\"'; "
            "echo c >>'%s' ;;\n"
            "    *'\"do\":\"fetch\"'*) said='\"directory\":\"%s\",\"commit\":\"0123\"' ;;\n"
            "    esac\n"
            "    echo \"{\\\"id\\\":$id,\\\"done\\\":{$said}}\"\n"
            "done\n",
            record, record, base);
    CHECK(fclose(file) == 0 && chmod(script, 0755) == 0, "%s", script);
}

static int merge(bool push, bool local, const char *to, struct lorafold_error *err)
{
    const struct lorafold_adapter adapter = { adapter_path, 1.0 };
    struct lorafold_merge_options options = made_options(base, &adapter, to);
    struct lorafold_merge *made = NULL;
    int status;

    options.io_engine = "threads";
    options.hub.helper = helper;
    options.push_to.repo = push ? "ada/new" : NULL;
    options.no_local = !local;
    status = lorafold_merge_open(&made, &options, err);
    if (!status)
        status = lorafold_merge_run(made, err);
    lorafold_merge_close(made);
    return status;
}

static int push(struct lorafold_error *err)
{
    struct lorafold_push_options options;
    struct lorafold_push_report report;

    lorafold_push_options_init(&options);
    options.to.repo = "ada/new";
    options.hub.helper = helper;
    return lorafold_push(reference, &options, &report, err);
}

static int fetch(struct lorafold_error *err)
{
    struct lorafold_fetch_options options;
    char *directory = NULL;
    int status;

    lorafold_fetch_options_init(&options);
    options.hub.helper = helper;
    status = lorafold_fetch("ada/model", &options, &directory, err);
    CHECK(status || strcmp(directory, base) == 0, "'%s'", directory);
    lorafold_free(directory);
    return status;
}

static int run(enum scenario scenario, struct lorafold_error *err)
{
    switch (scenario) {
    case FETCH:
        return fetch(err);
    case PUSH:
        return push(err);
    default:
        return merge(true, scenario == MERGE, output, err);
    }
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static unsigned count_descriptors(void)
{
    DIR *stream = opendir("/proc/self/fd");
    unsigned count = 0;

    while (stream && readdir(stream))
        count++;
    if (stream)
        closedir(stream);
    return count;
}

/* How many files were stored before the commit; *commits: how many of those there were. */
static unsigned read_record(unsigned *commits)
{
    FILE *file = fopen(record, "r");
    unsigned stored = 0;
    int letter;

    *commits = 0;
    while (file && (letter = fgetc(file)) != EOF) {
        stored += letter == 's' && *commits == 0;
        *commits += letter == 'c';
    }
    if (file)
        fclose(file);
    unlink(record);
    return stored;
}

static void check_output(enum scenario scenario, int status, const char *what)
{
    char partial[700], mark[700];

    snprintf(partial, sizeof(partial), "%s.partial", output);
    if (scenario == MERGE_NO_LOCAL)
        CHECK(!exists(output), "%s: there is an output", what);
    if (exists(output)) {
        snprintf(mark, sizeof(mark), "%s/.lorafold-work", output);
        remove(mark); /* it stays, spent, if its removal was the fault */
        made_check_same(reference, output);
        made_remove(output);
    } else {
        CHECK(status || scenario != MERGE, "%s: there is no output", what);
    }
    /* Its removal was the fault, or what needed it: nobody takes it for a model. */
    if (exists(partial))
        made_remove(partial);
}

/* One run with one fault; false once the fault is behind the last call. */
static bool check_one(enum scenario scenario, enum fault_kind kind, unsigned number,
                      unsigned wanted)
{
    unsigned before = count_descriptors();
    struct lorafold_error err = { 0 };
    unsigned stored, commits;
    char what[2000];
    bool was_reached;
    int status;

    fault_arm(kind, number);
    status = run(scenario, &err);
    was_reached = fault_disarm();
    snprintf(what, sizeof(what), "%s, %s %u (%s)", scenario_names[scenario], fault_names[kind],
             number, err.text);
    CHECK(was_reached || status == 0, "%s: not reached", what);
    CHECK(status >= 0 && status <= LORAFOLD_DIFFERENT, "%s: code %d", what, status);
    CHECK(!status || (err.text[0] && !strchr(err.text, '\n')), "%s", what);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "%s: the helper lives", what);
    CHECK(count_descriptors() == before, "%s: %u descriptors before, %u after", what, before,
          count_descriptors());
    stored = read_record(&commits);
    CHECK(commits <= 1, "%s: %u commits", what, commits);
    CHECK(commits == 0 || stored == wanted, "%s: %u of %u files were stored before the commit",
          what, stored, wanted);
    CHECK(status || scenario == FETCH || commits == 1, "%s: done without a commit", what);
    check_output(scenario, status, what);
    return was_reached;
}

static void check_scenario(enum scenario scenario)
{
    struct lorafold_error err = { 0 };
    unsigned commits;
    unsigned wanted;

    CHECK(run(scenario, &err) == 0, "%s: %s", scenario_names[scenario], err.text);
    wanted = read_record(&commits);
    CHECK(scenario == FETCH || (commits == 1 && wanted >= FILES_STORED), "%u files", wanted);
    check_output(scenario, 0, scenario_names[scenario]);
    for (int kind = 0; kind < FAULT_WAIT; kind++) {
        unsigned number = 1;

        while (number < NUMBER_MAX && check_one(scenario, (enum fault_kind)kind, number, wanted))
            number++;
        printf("%s, %s: of %u calls one failed in turn\n", scenario_names[scenario],
               fault_names[kind], number - 1);
        fflush(stdout);
        CHECK(number < NUMBER_MAX, "there is no end");
        CHECK(number > 1 || (scenario == FETCH && kind == FAULT_THREAD) ||
                  (scenario == FETCH && kind == FAULT_READ),
              "no call of this kind was made");
    }
}

int main(int argc, char **argv)
{
    struct made_model model = { .shard_count = 2, .scale = 0.5f };
    struct lorafold_error err = { 0 };
    unsigned commits;
    uint64_t rng = 7;

    setenv("HF_HUB_CACHE", "/nowhere", 1);
    unsetenv("HF_HUB_OFFLINE");
    unsetenv("TRANSFORMERS_OFFLINE");
    if (chdir("/dev/shm") < 0) /* thousands of merges that sync: memory is the place */
        printf("no /dev/shm: this takes longer\n");
    made_directory(model.directory, sizeof(model.directory));
    made_add(&model, &rng, "a.weight", DTYPE_BF16, 2, (uint64_t[]){ 90, 70 }, 0, 3, DTYPE_F32);
    made_add(&model, &rng, "b.weight", DTYPE_F32, 2, (uint64_t[]){ 50, 40 }, 1, 9, DTYPE_BF16);
    made_add(&model, &rng, "c", DTYPE_I64, 1, (uint64_t[]){ 9 }, 1, 0, DTYPE_F32);
    made_write(&model);
    snprintf(base, sizeof(base), "%s/base", model.directory);
    snprintf(adapter_path, sizeof(adapter_path), "%s/adapter", model.directory);
    snprintf(output, sizeof(output), "%s/out", model.directory);
    snprintf(reference, sizeof(reference), "%s/reference", model.directory);
    snprintf(record, sizeof(record), "%s/record", model.directory);
    snprintf(script, sizeof(script), "%s/helper", model.directory);
    write_helper();
    CHECK(merge(false, true, reference, &err) == 0, "%s", err.text);
    if (argc > 3) {
        CHECK(run((enum scenario)atoi(argv[1]), &err) == 0, "%s", err.text);
        check_one((enum scenario)atoi(argv[1]), (enum fault_kind)atoi(argv[2]),
                  (unsigned)atoi(argv[3]), read_record(&commits));
    } else {
        for (int scenario = 0; scenario < SCENARIOS; scenario++)
            check_scenario((enum scenario)scenario);
    }
    made_remove(model.directory);
    made_release(&model);
    return 0;
}
