#include "cpu/quota.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A made root directory with the files that a process would see. */
static char root[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    strcpy(root, "/tmp/test_quota_XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Write a file below the root and make the directories above it. */
static void put(const char *path, const char *text)
{
    char full[512];
    FILE *file;

    snprintf(full, sizeof(full), "%s%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(full, 0700);
        *slash = '/';
    }
    file = fopen(full, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_quota__nothing_there(void **state)
{
    (void)state;
    assert_int_equal(quota_cpus(root), 0);
}

static void test_quota__damaged_files_limit_nothing(void **state)
{
    static const char *const texts[] = { "",
                                         "\n",
                                         "max",
                                         "x y\n",
                                         "-1 100000\n",
                                         "100000 0\n",
                                         "100000\n",
                                         "9223372036854775807 1\n",
                                         "99999999999999999999999999999999999999999999999 1\n" };

    (void)state;
    put("/proc/self/cgroup", "0::/a\n");
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        put("/sys/fs/cgroup/a/cpu.max", texts[i]);
        assert_int_equal(quota_cpus(root), 0);
    }
    put("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    put("/proc/self/cgroup", "garbage\n:\n0\n\n");
    assert_int_equal(quota_cpus(root), 0);
}

static void test_quota__version_2_takes_the_least_level(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/user/job\n");
    put("/sys/fs/cgroup/cpu.max", "800000 100000\n");
    assert_int_equal(quota_cpus(root), 8);
    put("/sys/fs/cgroup/user/job/cpu.max", "max 100000\n");
    assert_int_equal(quota_cpus(root), 8);
    put("/sys/fs/cgroup/user/cpu.max", "250000 100000\n");
    assert_int_equal(quota_cpus(root), 3);
    put("/sys/fs/cgroup/user/job/cpu.max", "1000 100000\n");
    assert_int_equal(quota_cpus(root), 1);
}

static void test_quota__group_of_the_host_is_not_there(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/docker/0123\n");
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    assert_int_equal(quota_cpus(root), 2);
    put("/proc/self/cgroup", "0::/../../other\n");
    assert_int_equal(quota_cpus(root), 2);
}

static void test_quota__version_1(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "7:cpuset:/job\n4:cpu,cpuacct:/job\n");
    put("/sys/fs/cgroup/cpuset/job/cpu.cfs_quota_us", "100000\n");
    put("/sys/fs/cgroup/cpuset/job/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota_cpus(root), 0);
    put("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "350000\n");
    assert_int_equal(quota_cpus(root), 4);
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota_cpus(root), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_quota__nothing_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quota__damaged_files_limit_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quota__version_2_takes_the_least_level, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_quota__group_of_the_host_is_not_there, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_quota__version_1, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
