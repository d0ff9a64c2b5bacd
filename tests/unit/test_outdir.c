#include "outdir_help.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

/* ---- what is refused ---- */

static void test_outdir__impossible_paths(void **state)
{
    char long_path[PATH_MAX + 2], long_name[NAME_MAX + 1];

    (void)state;
    put("file", "mine");
    assert_int_equal(symlink("nowhere", "dangling"), 0);
    assert_int_equal(symlink("loop", "loop"), 0);
    assert_int_equal(symlink("file", "link-to-file"), 0);
    memset(long_path, 'x', sizeof(long_path) - 1);
    long_path[sizeof(long_path) - 1] = '\0';
    memset(long_name, 'n', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    check_refused("", false, NULL, 0, "is empty");
    check_refused("file", true, NULL, 0, "'file' exists and is not a directory");
    check_refused("file/", true, NULL, 0, "exists and is not a directory");
    check_refused("link-to-file", true, NULL, 0, "exists and is not a directory");
    check_refused("file/out", true, NULL, 0, "/file' is not a directory");
    check_refused("missing/out", false, NULL, 0, "its parent 'missing' does not exist; create");
    check_refused("missing/../out", false, NULL, 0, "does not exist; create");
    check_refused("missing/..", false, NULL, 0, "does not exist; create");
    check_refused("a/b/c///", false, NULL, 0, "its parent 'a/b' does not exist");
    check_refused("dangling", true, NULL, 0, "'dangling' is a link that leads nowhere");
    check_refused("dangling/out", true, NULL, 0, "parent 'dangling' does not exist");
    check_refused("loop", true, NULL, 0, "Too many levels of symbolic links");
    check_refused(long_path, false, NULL, 0, "has 4097 bytes, at most 4095");
    check_refused(long_name, false, NULL, 0, "has 255 bytes, at most 242");
    assert_true(holds("file", "mine"));
}

static void test_outdir__existing_things_are_kept(void **state)
{
    (void)state;
    make_model("model", "old");
    assert_int_equal(mkdir("documents", 0777), 0);
    put("documents/letter.txt", "mine");
    assert_int_equal(mkdir("documents/config.json", 0777), 0); /* a directory is no sign */
    assert_int_equal(mkdir("lost", 0777), 0);
    assert_int_equal(mkdir("lost/lost+found", 0777), 0);
    check_refused("model", false, NULL, 0, "exists and is not empty; choose another");
    check_refused("./model/", false, NULL, 0, "exists and is not empty");
    check_refused("documents", false, NULL, 0, "exists and is not empty");
    check_refused("documents", true, NULL, 0, "does not look like a model");
    check_refused("lost", true, NULL, 0, "does not look like a model");
    check_refused("/", true, NULL, 0, "'/' is a mount point and is not empty");
    check_refused("/proc", true, NULL, 0, "mount point");
    assert_int_equal(chdir("model/code"), 0);
    check_refused("..", true, NULL, 0, "'..' is or holds the current directory");
    check_refused(".", true, NULL, 0, "does not look like a model");
    assert_int_equal(chdir("../.."), 0);
    assert_true(holds("model/config.json", "old") && holds("documents/letter.txt", "mine"));
}

static void test_outdir__own_things_beside_out_are_kept(void **state)
{
    (void)state;
    assert_int_equal(mkdir("out.partial", 0777), 0);
    put("out.partial/download", "mine");
    check_refused("out", false, NULL, 0, "out.partial' is in the way: it was not left by");
    put("b.partial", "mine");
    check_refused("b", false, NULL, 0, "b.partial' is in the way and is not a directory");
    assert_int_equal(mkdir("target", 0777), 0);
    put("target/.lorafold-work", "");
    assert_int_equal(symlink("target", "c.partial"), 0);
    check_refused("c", false, NULL, 0, "c.partial' is in the way and is not a directory");
    assert_int_equal(mkdir("empty", 0777), 0);
    put("empty/.lorafold.partial", "mine");
    check_refused("empty", false, NULL, 0, "exists and is not empty");
    /* The old directory of an interrupted overwrite is the only copy until its name is free. */
    make_model("model", "new");
    make_model("model.lorafold-old", "older");
    check_refused("model", true, NULL, 0, "before an interrupted overwrite; remove it, or move");
    assert_true(holds("out.partial/download", "mine") && holds("b.partial", "mine"));
    assert_true(exists("target/.lorafold-work") &&
                holds("model.lorafold-old/config.json", "older"));
}

static void test_outdir__inputs_are_not_touched(void **state)
{
    const char *base[] = { "data/base" };
    const char *link[] = { "base-link/" };
    const char *file[] = { "view/model.safetensors" };
    const char *partial[] = { "new.partial" };
    const char *absent[] = { "absent" };
    struct error err = { 0 };

    (void)state;
    assert_int_equal(mkdir("data", 0777), 0);
    put("data/config.json", "mine");
    make_model("data/base", "base");
    assert_int_equal(mkdir("data/base/empty", 0777), 0);
    make_model("data/model", "other");
    put("data/model/model.safetensors", "weights");
    assert_int_equal(symlink("data/base", "base-link"), 0);
    assert_int_equal(symlink("data/base/code", "code-link"), 0);
    assert_int_equal(symlink("data", "data-link"), 0);
    assert_int_equal(mkdir("view", 0777), 0);
    assert_int_equal(symlink("../data/model/model.safetensors", "view/model.safetensors"), 0);

    check_refused("data/base", true, base, 1, "is or lies in the input 'data/base'");
    check_refused("data/../data/base/.", true, base, 1, "is or lies in the input");
    check_refused("data/base/out", false, base, 1, "is or lies in the input");
    check_refused("data/base/empty", false, base, 1, "is or lies in the input");
    check_refused("data/base/code/out", false, base, 1, "is or lies in the input");
    check_refused("data", true, base, 1, "is or holds the input");
    check_refused("data-link", true, base, 1, "is or holds the input");
    check_refused("base-link", true, base, 1, "is or lies in the input");
    check_refused("base-link/out", false, base, 1, "is or lies in the input");
    check_refused("code-link/out", false, base, 1, "is or lies in the input");
    check_refused("data/base", true, link, 1, "is or lies in the input 'base-link/'");
    check_refused("data", true, link, 1, "is or holds the input");
    /* The weights are a link into the directory that would be replaced. */
    check_refused("data/model", true, file, 1, "is or holds the input 'view/model.safetensors'");
    assert_int_equal(outdir_check("view/out", false, file, 1, &err), 0);
    assert_int_equal(outdir_check("data/out", false, base, 1, &err), 0);
    assert_int_equal(outdir_check("data/model", true, base, 1, &err), 0);
    /* An input that has the name of our work directory, even marked, is not removed. */
    make_model("new.partial", "input");
    put("new.partial/.lorafold-work", "");
    check_refused("new", false, partial, 1, "new.partial', which would be written or removed");
    assert_int_equal(outdir_check("new", false, absent, 1, &err), ERR_FAILED);
    assert_true(holds("data/base/config.json", "base") &&
                holds("new.partial/config.json", "input"));
}

static void run_as_nobody(void (*run)(void))
{
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        if (geteuid() == 0 && (setegid(65534) || seteuid(65534)))
            _exit(77);
        run();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("skipped: cannot become another user\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void try_read_only(void)
{
    struct error err = { 0 };

    if (outdir_check("closed/out", false, NULL, 0, &err) != ERR_USAGE ||
        !strstr(err.text, "closed' is not writable for this user"))
        _exit(1);
    if (outdir_check("closed/model", true, NULL, 0, &err) != ERR_USAGE ||
        !strstr(err.text, "is not writable for this user"))
        _exit(2);
    if (outdir_check("closed/empty", false, NULL, 0, &err) != ERR_USAGE ||
        !strstr(err.text, "'closed/empty' is not writable for this user"))
        _exit(3);
    if (outdir_check("closed/open", false, NULL, 0, &err) != 0)
        _exit(4);
    if (outdir_check("hidden/out", false, NULL, 0, &err) != ERR_USAGE)
        _exit(5);
}

static void test_outdir__read_only_parent(void **state)
{
    (void)state;
    assert_int_equal(chmod(".", 0755), 0);
    assert_int_equal(mkdir("closed", 0777), 0);
    make_model("closed/model", "old");
    assert_int_equal(mkdir("closed/empty", 0777), 0);
    assert_int_equal(mkdir("closed/open", 0777), 0);
    assert_int_equal(mkdir("hidden", 0777), 0);
    assert_int_equal(chmod("closed/empty", 0555), 0);
    assert_int_equal(chmod("closed/open", 0777), 0);
    assert_int_equal(chmod("closed", 0555), 0);
    assert_int_equal(chmod("hidden", 0), 0);
    run_as_nobody(try_read_only);
    assert_int_equal(chmod("closed", 0777), 0);
    assert_int_equal(chmod("hidden", 0777), 0);
}

/* With such a mask the directory is made, but cannot be entered. */
static void try_closed_directory(void)
{
    struct outdir *outdir = NULL;
    struct error err = { 0 };

    umask(0777);
    if (try_open(&outdir, "out", false, &err) == 0 || !strstr(err.text, "Permission denied"))
        _exit(1);
    if (exists("out.partial"))
        _exit(2);
}

static void test_outdir__failed_opening_leaves_nothing(void **state)
{
    (void)state;
    assert_int_equal(chmod(".", 0777), 0);
    run_as_nobody(try_closed_directory);
}

static void test_outdir__deep_directories_end_with_a_sentence(void **state)
{
    const char *name = "d";

    (void)state;
    make_model("out", "old");
    assert_int_equal(chdir("out"), 0);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(mkdir(name, 0777), 0);
        assert_int_equal(chdir(name), 0);
    }
    assert_int_equal(chdir(directory), 0);
    check_refused("out", true, NULL, 0, "nested more than 128 deep");
}

/* ---- what works ---- */

static void test_outdir__new(void **state)
{
    struct outdir *outdir = must_open("out///", false);
    struct error err = { 0 };
    struct outdir *second = NULL;

    (void)state;
    assert_true(exists("out.partial") && !exists("out"));
    assert_int_equal(try_open(&second, "out", false, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "another process is writing"));
    assert_null(second);
    write_model(outdir, "new");
    assert_int_equal(outdir_write_file(outdir, "config.json", "x", 1, &err), ERR_FAILED);
    assert_int_equal(mkdirat(outdir_fd(outdir), "code", 0777), 0);
    must_publish(outdir);
    assert_true(holds("out/config.json", "new") && holds("out/model.safetensors", "weights"));
    assert_int_equal(entry_count("out"), 3);
    assert_int_equal(entry_count("."), 1);
    assert_string_equal(said, "");
}

static void test_outdir__forms_of_the_path(void **state)
{
    char path[PATH_MAX];

    (void)state;
    assert_int_equal(mkdir("sub", 0777), 0);
    must_publish(must_open("./a", false));
    must_publish(must_open("sub/../b/", false));
    snprintf(path, sizeof(path), "%s//c", directory);
    must_publish(must_open(path, false));
    assert_int_equal(chdir("sub"), 0);
    must_publish(must_open("../d", false));
    must_publish(must_open(".", false)); /* empty: works inside */
    assert_int_equal(chdir(".."), 0);
    assert_true(exists("a") && exists("b") && exists("c") && exists("d"));
    assert_int_equal(entry_count("."), 5);
}

static void test_outdir__discard_leaves_nothing(void **state)
{
    struct outdir *outdir = must_open("out", false);
    struct error err = { 0 };

    (void)state;
    write_model(outdir, "new");
    assert_int_equal(mkdirat(outdir_fd(outdir), "code", 0777), 0);
    outdir_discard(outdir);
    assert_int_equal(outdir_fd(outdir), -1);
    assert_int_equal(entry_count("."), 0);
    assert_int_equal(publish(outdir, &err), ERR_FAILED);
    outdir_close(outdir);
    outdir_close(must_open("out", false)); /* closing discards */
    assert_int_equal(entry_count("."), 0);
    outdir_close(NULL);
}

static void check_overwrite(void)
{
    struct outdir *outdir;

    make_model("out", "old");
    put("outside", "mine");
    assert_int_equal(symlink("../outside", "out/link"), 0);
    assert_int_equal(symlink("../..", "out/code/up"), 0);
    outdir = must_open("out", true);
    write_model(outdir, "new");
    assert_true(holds("out/config.json", "old"));
    must_publish(outdir);
    assert_true(holds("out/config.json", "new") && holds("outside", "mine"));
    assert_int_equal(entry_count("out"), 2);
    assert_int_equal(entry_count("."), 2);

    outdir = must_open("out", true);
    outdir_close(outdir);
    assert_true(holds("out/config.json", "new"));
    assert_int_equal(entry_count("."), 2);
    assert_string_equal(said, "");
}

static void test_outdir__overwrite_by_exchange(void **state)
{
    (void)state;
    check_overwrite();
}

static void test_outdir__overwrite_by_two_renames(void **state)
{
    (void)state;
    outdir_hooks.no_exchange = true;
    check_overwrite();
}

static void test_outdir__link_to_a_directory(void **state)
{
    struct outdir *outdir;

    (void)state;
    assert_int_equal(mkdir("disk", 0777), 0);
    make_model("disk/real", "old");
    assert_int_equal(symlink("disk/real", "out"), 0);
    check_refused("out", false, NULL, 0, "exists and is not empty");
    outdir = must_open("out", true);
    assert_true(exists("disk/real.partial") && !exists("out.partial"));
    write_model(outdir, "new");
    must_publish(outdir);
    assert_true(holds("disk/real/config.json", "new") && holds("out/config.json", "new"));
    assert_int_equal(entry_count("disk"), 1);
    assert_int_equal(entry_count("."), 2);
}

static void test_outdir__inside_an_empty_directory(void **state)
{
    struct outdir *outdir, *second = NULL;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(mkdir("out", 0777), 0);
    outdir = must_open("out", false);
    assert_true(exists("out/.lorafold.partial") && !exists("out.partial"));
    assert_int_equal(try_open(&second, "out", false, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "another process is writing"));
    write_model(outdir, "new");
    assert_int_equal(mkdirat(outdir_fd(outdir), "code", 0777), 0);
    assert_int_equal(entry_count("out"), 1);
    must_publish(outdir);
    assert_true(holds("out/config.json", "new") && exists("out/code"));
    assert_int_equal(entry_count("out"), 3);

    assert_int_equal(mkdir("again", 0777), 0);
    outdir = must_open("again", true);
    write_model(outdir, "new");
    outdir_close(outdir);
    assert_int_equal(entry_count("again"), 0);
}

static char order[256];

static void note_order(enum outdir_step step)
{
    if (step == OUTDIR_STEP_BEFORE_LAST)
        snprintf(order, sizeof(order), "%s%s%s%s", exists("out/model.safetensors") ? "shard " : "",
                 exists("out/tokenizer.json") ? "tokenizer " : "",
                 exists("out/model.safetensors.index.json") ? "index " : "",
                 exists("out/config.json") ? "config " : "");
}

static void test_outdir__last_files_come_last(void **state)
{
    struct outdir *outdir;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(mkdir("out", 0777), 0);
    outdir = must_open("out", false);
    write_model(outdir, "new");
    assert_int_equal(outdir_write_file(outdir, "model.safetensors.index.json", "{}", 2, &err), 0);
    assert_int_equal(outdir_write_file(outdir, "tokenizer.json", "{}", 2, &err), 0);
    outdir_hooks.step = note_order;
    must_publish(outdir);
    assert_string_equal(order, "shard tokenizer ");
    assert_int_equal(entry_count("out"), 4);
}

/* ---- others interfere ---- */

static void test_outdir__out_appears_during_the_work(void **state)
{
    struct outdir *outdir = must_open("out", false);
    struct error err;

    (void)state;
    write_model(outdir, "new");
    make_model("out", "somebody's");
    assert_int_equal(publish(outdir, &err), ERR_FAILED);
    print_message("%s\n", err.text);
    assert_non_null(strstr(err.text, "'out' was made by somebody else during the work"));
    outdir_close(outdir);
    assert_true(holds("out/config.json", "somebody's"));
    assert_int_equal(entry_count("."), 1);

    /* Even an empty one is not replaced. */
    outdir = must_open("b", false);
    assert_int_equal(mkdir("b", 0777), 0);
    assert_int_equal(publish(outdir, &err), ERR_FAILED);
    outdir_close(outdir);
    assert_int_equal(entry_count("b"), 0);
}

static void test_outdir__out_is_filled_during_the_work(void **state)
{
    struct outdir *outdir;
    struct error err;

    (void)state;
    assert_int_equal(mkdir("out", 0777), 0);
    outdir = must_open("out", false);
    write_model(outdir, "new");
    put("out/letter.txt", "mine");
    assert_int_equal(publish(outdir, &err), ERR_FAILED);
    assert_non_null(strstr(err.text, "'out' was empty, but somebody else wrote to it"));
    outdir_close(outdir);
    assert_true(holds("out/letter.txt", "mine"));
    assert_int_equal(entry_count("out"), 1);
}

static void block_config(enum outdir_step step)
{
    if (step == OUTDIR_STEP_BEFORE_LAST)
        put("out/config.json", "mine");
}

/* A file appears while ours are moved in: those already moved go back. */
static void test_outdir__moving_in_is_undone(void **state)
{
    struct outdir *outdir;
    struct error err;

    (void)state;
    assert_int_equal(mkdir("out", 0777), 0);
    outdir = must_open("out", false);
    write_model(outdir, "new");
    outdir_hooks.step = block_config;
    assert_int_equal(publish(outdir, &err), ERR_FAILED);
    print_message("%s\n", err.text);
    assert_true(holds("out/config.json", "mine") && !exists("out/model.safetensors"));
    outdir_close(outdir);
    assert_int_equal(entry_count("out"), 1);
}

static void test_outdir__out_is_replaced_during_the_work(void **state)
{
    struct outdir *outdir;
    struct error err;

    (void)state;
    make_model("out", "old");
    outdir = must_open("out", true);
    write_model(outdir, "new");
    assert_int_equal(rename("out", "moved"), 0);
    make_model("out", "other");
    assert_int_equal(publish(outdir, &err), ERR_FAILED);
    assert_non_null(strstr(err.text, "'out' was replaced by somebody else"));
    outdir_close(outdir);
    assert_true(holds("out/config.json", "other") && holds("moved/config.json", "old"));
    assert_int_equal(entry_count("."), 2);
}

static void test_outdir__work_is_moved_away(void **state)
{
    struct outdir *outdir = must_open("out", false);
    struct error err;

    (void)state;
    assert_int_equal(rename("out.partial", "stolen"), 0);
    make_model("out.partial", "mine");
    assert_int_equal(publish(outdir, &err), ERR_FAILED);
    assert_non_null(strstr(err.text, "out.partial' was moved or removed during the work"));
    outdir_close(outdir);
    assert_true(holds("out.partial/config.json", "mine") && !exists("out"));
}

/* ---- file systems that lack something ---- */

static void test_outdir__memory_file_system(void **state)
{
    char path[PATH_MAX];
    char *shm;

    (void)state;
    if (access("/dev/shm", W_OK)) {
        print_message("skipped: /dev/shm cannot be written\n");
        skip();
    }
    shm = temp_make("/dev/shm");
    snprintf(path, sizeof(path), "%s/out", shm);
    run_whole(path, false);
    run_whole(path, true);
    assert_int_equal(entry_count(path), 2);
    assert_int_equal(entry_count(shm), 1);
    temp_remove(shm);
}

static void test_outdir__free_bytes(void **state)
{
    struct error err = { 0 };
    uint64_t bytes = 0, in_parent = 0;

    (void)state;
    assert_int_equal(outdir_free_bytes("out", &bytes, &err), 0);
    assert_int_equal(outdir_free_bytes(".", &in_parent, &err), 0);
    assert_true(bytes > 0 && in_parent > 0);
    assert_int_equal(outdir_free_bytes("missing/out", &bytes, &err), ERR_USAGE);
}

/* In a child with mounts of its own: exits 0, 77, or the number of what failed. */
#define EXPECT(number, condition)                                                                  \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, err.text);          \
            _exit(number);                                                                         \
        }                                                                                          \
    } while (0)

static void try_mounts(void)
{
    const char *base[] = { "base" };
    const char *inner[] = { "inner" };
    const char *inner_file[] = { "inner/config.json" };
    struct outdir *outdir = NULL;
    struct error err = { 0 };

    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", "volume", "tmpfs", 0, NULL) || mount("base", "bound", NULL, MS_BIND, NULL) ||
        mount("volume", "model/code", NULL, MS_BIND, NULL) ||
        mount("holder/base", "inner", NULL, MS_BIND, NULL) ||
        mount("here", "here", NULL, MS_BIND, NULL) || mount("none", "ro", "tmpfs", MS_RDONLY, NULL))
        _exit(77);
    /* The base is bound elsewhere: a path that does not name it lies in it. */
    EXPECT(1, outdir_check("bound", true, base, 1, &err) == ERR_USAGE);
    EXPECT(2, outdir_check("bound/out", false, base, 1, &err) == ERR_USAGE);
    EXPECT(3, strstr(err.text, "is or lies in the input 'base'"));
    /* What would be removed holds the input, but the path of the input does not lead through it. */
    EXPECT(17, outdir_check("holder", true, inner, 1, &err) == ERR_USAGE);
    EXPECT(18, strstr(err.text, "'holder', which would be removed, holds the input 'inner'"));
    EXPECT(19, outdir_check("holder", true, inner_file, 1, &err) == ERR_USAGE);
    EXPECT(20, outdir_check("holder", true, base, 1, &err) == 0);
    /* Something is mounted below what would be removed. */
    EXPECT(4, outdir_check("model", true, NULL, 0, &err) == ERR_USAGE);
    EXPECT(5, strstr(err.text, "'code' in 'model' is a mount point"));
    EXPECT(6, outdir_check("ro/out", true, NULL, 0, &err) == ERR_USAGE);
    EXPECT(7, strstr(err.text, "is on a read-only file system"));
    /* An empty mount point, with or without lost+found, and of the same file system. */
    EXPECT(8, mkdir("volume/lost+found", 0777) == 0);
    for (int i = 0; i < 2; i++) {
        const char *path = i ? "here" : "volume";
        char name[64];

        EXPECT(9, try_open(&outdir, path, i, &err) == 0);
        EXPECT(10, outdir_write_file(outdir, "config.json", "new", 3, &err) == 0);
        EXPECT(11, publish(outdir, &err) == 0);
        outdir_close(outdir);
        outdir = NULL;
        snprintf(name, sizeof(name), "%s/config.json", path);
        EXPECT(12, holds(name, "new"));
        EXPECT(13, entry_count(path) == (i ? 1 : 2));
        /* Now it is not empty: refused with and without overwriting. */
        for (int k = 0; k < 2; k++) {
            EXPECT(14, outdir_check(path, k, NULL, 0, &err) == ERR_USAGE);
            EXPECT(15, strstr(err.text, "is a mount point and is not empty"));
        }
    }
    EXPECT(16, holds("base/config.json", "base") && exists("volume/lost+found"));
    _exit(0);
}

static void test_outdir__mounts(void **state)
{
    pid_t child;
    int status = 0;

    (void)state;
    assert_int_equal(mkdir("volume", 0777), 0);
    assert_int_equal(mkdir("bound", 0777), 0);
    assert_int_equal(mkdir("here", 0777), 0);
    assert_int_equal(mkdir("ro", 0777), 0);
    assert_int_equal(mkdir("inner", 0777), 0);
    make_model("base", "base");
    make_model("model", "model");
    make_model("holder", "holder");
    make_model("holder/base", "base");
    child = fork();
    if (child == 0)
        try_mounts();
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("skipped: this user cannot mount\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_outdir__##name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(impossible_paths),
        TEST(existing_things_are_kept),
        TEST(own_things_beside_out_are_kept),
        TEST(inputs_are_not_touched),
        TEST(read_only_parent),
        TEST(failed_opening_leaves_nothing),
        TEST(new),
        TEST(forms_of_the_path),
        TEST(discard_leaves_nothing),
        TEST(overwrite_by_exchange),
        TEST(overwrite_by_two_renames),
        TEST(link_to_a_directory),
        TEST(inside_an_empty_directory),
        TEST(last_files_come_last),
        TEST(out_appears_during_the_work),
        TEST(out_is_filled_during_the_work),
        TEST(moving_in_is_undone),
        TEST(out_is_replaced_during_the_work),
        TEST(work_is_moved_away),
        TEST(deep_directories_end_with_a_sentence),
        TEST(memory_file_system),
        TEST(free_bytes),
        TEST(mounts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
