#include "base/bytes.h"
#include "base/error.h"
#include "io/file.h"
#include "io_temp.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TMPFS_MAGIC 0x01021994

static char *directory;

static int set_up(void **state)
{
    (void)state;
    directory = temp_make(NULL);
    assert_int_equal(chdir(directory), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(chdir(".."), 0);
    temp_remove(directory);
    return 0;
}

static void check_refused(const char *path, int code, const char *part)
{
    struct file file = FILE_CLOSED;
    struct error err = { 0 };
    int status = file_open_input(&file, path, FILE_DIRECT_AUTO, &err);

    if (status != code || !strstr(err.text, part))
        fail_msg("%s: %d %s", path, status, err.text);
    assert_int_equal(file.fd, -1);
    assert_int_equal(err.code, code);
    print_message("%s\n", err.text);
}

static void test_file__refuses_what_is_no_file(void **state)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "socket" };
    char long_name[300], path[PATH_MAX + 10];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    mkdir("directory", 0777);
    mkfifo("pipe", 0666);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    temp_write("file", "x", 1);
    memset(long_name, 'n', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    memset(path, '/', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';

    check_refused("missing", ERR_USAGE, "'missing' does not exist");
    check_refused("", ERR_USAGE, "does not exist");
    check_refused("missing/file", ERR_USAGE, "does not exist");
    check_refused("file/file", ERR_USAGE, "does not exist");
    check_refused("a\n\x80", ERR_USAGE, "'a\\x0a\\x80' does not exist");
    check_refused("directory", ERR_FORMAT, "not a regular file but a directory");
    check_refused("pipe", ERR_FORMAT, "not a regular file but a pipe");
    check_refused("socket", ERR_FORMAT, "not a regular file");
    check_refused("/dev/null", ERR_FORMAT, "not a regular file but a device");
    check_refused(long_name, ERR_USAGE, "299 bytes is too long");
    check_refused(path, ERR_USAGE, "is too long");
    close(fd);
}

static void test_file__refuses_links_that_lead_nowhere(void **state)
{
    (void)state;
    assert_int_equal(symlink("nothing", "dangling"), 0);
    assert_int_equal(symlink("dangling", "to-dangling"), 0);
    assert_int_equal(symlink("loop-b", "loop-a"), 0);
    assert_int_equal(symlink("loop-a", "loop-b"), 0);
    assert_int_equal(symlink("self", "self"), 0);
    check_refused("dangling", ERR_FORMAT, "'dangling' is a link to a file that does not exist");
    check_refused("to-dangling", ERR_FORMAT, "is a link to a file that does not exist");
    check_refused("dangling/model.safetensors", ERR_FORMAT, "'dangling' is a link that leads");
    check_refused("loop-a", ERR_FORMAT, "links lead in a loop");
    check_refused("loop-b/x", ERR_FORMAT, "links lead in a loop");
    check_refused("self", ERR_FORMAT, "links lead in a loop");
}

static void test_file__follows_links(void **state)
{
    struct file file = FILE_CLOSED;
    struct error err = { 0 };
    struct stat st;
    char byte = 0;

    (void)state;
    temp_write("blob", "blob", 4);
    assert_int_equal(symlink("blob", "link"), 0);
    assert_int_equal(file_open_input(&file, "link", FILE_DIRECT_OFF, &err), 0);
    assert_int_equal(stat("blob", &st), 0);
    assert_true(file.identity.inode == st.st_ino && file.identity.device == st.st_dev);
    assert_int_equal(file.identity.bytes, 4);
    assert_int_equal(fcntl(file.fd, F_GETFL) & (O_NONBLOCK | O_DIRECT | O_ACCMODE), O_RDONLY);
    assert_int_equal(fcntl(file.fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(file_pread(&file, &byte, 1, 3, &err), 0);
    assert_int_equal(byte, 'b');
    file_close(&file);
    assert_int_equal(file.fd, -1);
    file_close(&file);
}

static bool on_tmpfs(const char *path)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

static void test_file__direct_input_reads_pages(void **state)
{
    struct file file = FILE_CLOSED;
    struct error err = { 0 };
    void *page = NULL;

    (void)state;
    temp_write("odd", "short", 5);
    temp_write("empty", "", 0);
    if (file_open_input(&file, "odd", FILE_DIRECT_ON, &err)) {
        print_message("skipped: %s\n", err.text);
        skip();
    }
    assert_true(file.direct);
    assert_true(fcntl(file.fd, F_GETFL) & O_DIRECT);
    assert_int_equal(posix_memalign(&page, PAGE_BYTES, PAGE_BYTES), 0);
    assert_int_equal(pread(file.fd, page, PAGE_BYTES, 0), 5);
    file_close(&file);
    assert_int_equal(file_open_input(&file, "empty", FILE_DIRECT_AUTO, &err), 0);
    assert_true(file.direct);
    file_close(&file);
    assert_int_equal(file_open_input(&file, "odd", FILE_DIRECT_OFF, &err), 0);
    assert_false(file.direct);
    file_close(&file);
    free(page);
}

static void test_file__memory_file_system_is_buffered(void **state)
{
    char path[PATH_MAX];
    struct file file = FILE_CLOSED;
    struct error err = { 0 };
    char *shm;

    (void)state;
    if (access("/dev/shm", W_OK) || !on_tmpfs("/dev/shm")) {
        print_message("skipped: /dev/shm is not a tmpfs that can be written\n");
        skip();
    }
    shm = temp_make("/dev/shm");
    snprintf(path, sizeof(path), "%s/file", shm);
    temp_write(path, "memory", 6);
    assert_int_equal(file_open_input(&file, path, FILE_DIRECT_AUTO, &err), 0);
    assert_false(file.direct);
    file_will_need(&file, 0, 6);
    file_drop_cache(&file, 0, 6);
    file_close(&file);
    assert_int_equal(file_open_input(&file, path, FILE_DIRECT_ON, &err), ERR_FAILED);
    assert_non_null(strstr(err.text, "direct i/o does not work"));
    temp_remove(shm);
}

static void test_file__created_output_is_allocated_and_new(void **state)
{
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct error err = { 0 };
    struct stat st;

    (void)state;
    assert_int_equal(file_create_output(fd, "new", 3 * MIB + 1, &err), 0);
    assert_int_equal(stat("new", &st), 0);
    assert_int_equal(st.st_size, 3 * MIB + 1);
    assert_true((uint64_t)st.st_blocks * 512 >= 3 * MIB || on_tmpfs("."));
    assert_int_equal(file_create_output(fd, "new", 1, &err), ERR_FAILED);
    assert_non_null(strstr(err.text, "cannot create 'new': File exists"));
    assert_int_equal(file_create_output(fd, "none", 0, &err), 0);
    assert_int_equal(stat("none", &st), 0);
    assert_int_equal(st.st_size, 0);

    assert_int_equal(symlink("victim", "link"), 0);
    assert_int_equal(file_create_output(fd, "link", 1, &err), ERR_FAILED);
    assert_int_equal(access("victim", F_OK), -1);
    assert_int_equal(file_create_output(fd, "no/where", 1, &err), ERR_FAILED);
    close(fd);
}

static void test_file__no_space_says_how_much_was_wanted(void **state)
{
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct error err = { 0 };

    (void)state;
    assert_int_equal(file_create_output(fd, "huge", UINT64_C(1) << 62, &err), ERR_FAILED);
    print_message("%s\n", err.text);
    assert_non_null(strstr(err.text, "no space for 'huge': "));
    assert_non_null(strstr(err.text, " wanted, "));
    assert_non_null(strstr(err.text, " free"));
    assert_int_equal(access("huge", F_OK), -1);
    assert_int_equal(file_create_output(fd, "huge", UINT64_MAX, &err), ERR_FAILED);
    print_message("%s\n", err.text);
    assert_non_null(strstr(err.text, "18446744073709551615 bytes"));
    assert_int_equal(access("huge", F_OK), -1);
    close(fd);
}

static void test_file__size_limit_of_the_process_is_an_error(void **state)
{
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct error err = { 0 };
    struct rlimit before, limit;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){ 4096, before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(file_create_output(fd, "large", 1 * MIB, &err), ERR_FAILED);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    print_message("%s\n", err.text);
    assert_int_equal(access("large", F_OK), -1);
    close(fd);
}

static void test_file__opening_an_output_keeps_what_it_holds(void **state)
{
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint8_t bytes[3 * PAGE_BYTES + 7], back[sizeof(bytes)];
    struct file file = FILE_CLOSED;
    struct error err = { 0 };
    uint64_t rng = 1;

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)temp_random(&rng);
    assert_int_equal(file_create_output(fd, "out", sizeof(bytes), &err), 0);
    assert_int_equal(file_open_output(&file, fd, "out", FILE_DIRECT_OFF, &err), 0);
    assert_false(file.direct);
    assert_int_equal(file_pwrite(&file, bytes, sizeof(bytes), 0, &err), 0);
    assert_int_equal(file_sync(&file, &err), 0);
    file_drop_cache(&file, 0, sizeof(bytes));
    file_close(&file);
    assert_int_equal(file_open_output(&file, fd, "out", FILE_DIRECT_AUTO, &err), 0);
    print_message("output is %s\n", file.direct ? "direct" : "buffered");
    assert_int_equal(file_truncate(&file, sizeof(bytes) - 3, &err), 0);
    file_close(&file);
    assert_int_equal(file_open_input(&file, "out", FILE_DIRECT_OFF, &err), 0);
    assert_int_equal(file.identity.bytes, sizeof(bytes) - 3);
    assert_int_equal(file_pread(&file, back, sizeof(bytes) - 3, 0, &err), 0);
    assert_memory_equal(back, bytes, sizeof(bytes) - 3);
    file_close(&file);

    /* One that is shorter than a page stays short. */
    assert_int_equal(file_create_output(fd, "tiny", 10, &err), 0);
    assert_int_equal(file_open_output(&file, fd, "tiny", FILE_DIRECT_AUTO, &err), 0);
    assert_int_equal(file.identity.bytes, 10);
    file_close(&file);
    assert_int_equal(file_open_input(&file, "tiny", FILE_DIRECT_OFF, &err), 0);
    assert_int_equal(file.identity.bytes, 10);
    file_close(&file);

    assert_int_equal(symlink("out", "out-link"), 0);
    assert_int_equal(file_open_output(&file, fd, "out-link", FILE_DIRECT_AUTO, &err), ERR_FAILED);
    assert_int_equal(file_open_output(&file, fd, "absent", FILE_DIRECT_AUTO, &err), ERR_FAILED);
    assert_int_equal(access("absent", F_OK), -1);
    close(fd);
}

static void test_file__short_read_is_format(void **state)
{
    struct file file = FILE_CLOSED;
    struct error err = { 0 };
    char buf[16];

    (void)state;
    temp_write("ten", "0123456789", 10);
    assert_int_equal(file_open_input(&file, "ten", FILE_DIRECT_OFF, &err), 0);
    assert_int_equal(file_pread(&file, buf, 10, 0, &err), 0);
    assert_int_equal(file_pread(&file, buf, 0, 10, &err), 0);
    assert_int_equal(file_pread(&file, buf, 11, 0, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "11 bytes at 0 are wanted, but the file ends at 10"));
    assert_int_equal(file_pread(&file, buf, 1, 1000, &err), ERR_FORMAT);
    assert_int_equal(file_pread(&file, buf, 1, UINT64_MAX, &err), ERR_FORMAT);
    assert_int_equal(file_pread(&file, buf, 16, INT64_MAX - 4, &err), ERR_FORMAT);
    assert_int_equal(file_pwrite(&file, buf, 1, 0, &err), ERR_FAILED);
    assert_int_equal(file_pwrite(&file, buf, 1, UINT64_MAX, &err), ERR_FAILED);
    assert_int_equal(file_truncate(&file, UINT64_MAX, &err), ERR_FAILED);
    file_close(&file);
}

static void test_file__change_under_the_reader_is_found(void **state)
{
    struct file file = FILE_CLOSED;
    struct error err = { 0 };
    struct file_identity then;
    struct timespec old[2] = { { 1, 0 }, { 1, 0 } };

    (void)state;
    temp_write("base", "0123456789", 10);
    assert_int_equal(file_open_input(&file, "base", FILE_DIRECT_AUTO, &err), 0);
    then = file.identity;
    file_close(&file);
    assert_int_equal(file_check_unchanged("base", &then, &err), 0);
    assert_int_equal(utimensat(AT_FDCWD, "base", old, 0), 0);
    assert_int_equal(file_check_unchanged("base", &then, &err), ERR_FAILED);
    assert_non_null(strstr(err.text, "'base' was written or changed while it was read"));
    temp_write("base", "01234", 5);
    assert_int_equal(file_check_unchanged("base", &then, &err), ERR_FAILED);
    assert_non_null(strstr(err.text, "it had 10 bytes, now 5"));
    temp_write("other", "0123456789", 10);
    assert_int_equal(rename("other", "base"), 0);
    assert_int_equal(file_check_unchanged("base", &then, &err), ERR_FAILED);
    assert_non_null(strstr(err.text, "'base' was replaced while it was read"));
    assert_int_equal(unlink("base"), 0);
    assert_int_equal(file_check_unchanged("base", &then, &err), ERR_FAILED);
    print_message("%s\n", err.text);
}

static void test_file__read_all(void **state)
{
    struct error err = { 0 };
    char *data = NULL;
    size_t bytes = 99;

    (void)state;
    temp_write("small", "a\0b", 3);
    assert_int_equal(file_read_all(&data, &bytes, "small", 2, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "'small' has 3 bytes, at most 2 are read"));
    assert_null(data);
    assert_int_equal(bytes, 99);
    assert_int_equal(file_read_all(&data, &bytes, "small", 3, &err), 0);
    assert_int_equal(bytes, 3);
    assert_memory_equal(data, "a\0b\0", 4);
    free(data);
    temp_write("small", "", 0);
    assert_int_equal(file_read_all(&data, &bytes, "small", 0, &err), 0);
    assert_int_equal(bytes, 0);
    assert_int_equal(data[0], '\0');
    free(data);
    assert_int_equal(file_read_all(&data, &bytes, "absent", 9, &err), ERR_USAGE);
    assert_int_equal(truncate("small", INT64_C(1) << 40), 0);
    assert_int_equal(file_read_all(&data, &bytes, "small", 1 << 20, &err), ERR_FORMAT);
}

/* With the cache of an output dropped behind the writes, what is left of it is bounded. */
static void test_file__dropping_keeps_the_bytes(void **state)
{
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t block = 4 * MIB;
    uint8_t *bytes = malloc(block);
    struct file file = FILE_CLOSED;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(file_create_output(fd, "out", 8 * block, &err), 0);
    assert_int_equal(file_open_output(&file, fd, "out", FILE_DIRECT_OFF, &err), 0);
    for (int i = 0; i < 8; i++) {
        memset(bytes, i + 1, block);
        assert_int_equal(file_pwrite(&file, bytes, block, (uint64_t)i * block, &err), 0);
        file_drop_cache(&file, (uint64_t)i * block, block);
    }
    file_drop_cache(&file, UINT64_MAX, 1);
    file_drop_cache(&file, 0, UINT64_MAX);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(file_pread(&file, bytes, block, (uint64_t)i * block, &err), 0);
        assert_true(bytes[0] == i + 1 && bytes[block - 1] == i + 1);
    }
    file_close(&file);
    free(bytes);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_file__##name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(refuses_what_is_no_file),
        TEST(refuses_links_that_lead_nowhere),
        TEST(follows_links),
        TEST(direct_input_reads_pages),
        TEST(memory_file_system_is_buffered),
        TEST(created_output_is_allocated_and_new),
        TEST(no_space_says_how_much_was_wanted),
        TEST(size_limit_of_the_process_is_an_error),
        TEST(opening_an_output_keeps_what_it_holds),
        TEST(short_read_is_format),
        TEST(change_under_the_reader_is_found),
        TEST(read_all),
        TEST(dropping_keeps_the_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
