#include "cpu/quota.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void test_quota__nothing_there(void **state)
{
    (void)state;
    assert_int_equal(quota_cpus(scratch), 0);
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
    scratch_text("/proc/self/cgroup", "0::/a\n");
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        scratch_text("/sys/fs/cgroup/a/cpu.max", texts[i]);
        assert_int_equal(quota_cpus(scratch), 0);
    }
    scratch_text("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    scratch_text("/proc/self/cgroup", "garbage\n:\n0\n\n");
    assert_int_equal(quota_cpus(scratch), 0);
}

static void test_quota__version_2_takes_the_least_level(void **state)
{
    (void)state;
    scratch_text("/proc/self/cgroup", "0::/user/job\n");
    scratch_text("/sys/fs/cgroup/cpu.max", "800000 100000\n");
    assert_int_equal(quota_cpus(scratch), 8);
    scratch_text("/sys/fs/cgroup/user/job/cpu.max", "max 100000\n");
    assert_int_equal(quota_cpus(scratch), 8);
    scratch_text("/sys/fs/cgroup/user/cpu.max", "250000 100000\n");
    assert_int_equal(quota_cpus(scratch), 3);
    scratch_text("/sys/fs/cgroup/user/job/cpu.max", "1000 100000\n");
    assert_int_equal(quota_cpus(scratch), 1);
}

static void test_quota__group_of_the_host_is_not_there(void **state)
{
    (void)state;
    scratch_text("/proc/self/cgroup", "0::/docker/0123\n");
    scratch_text("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    assert_int_equal(quota_cpus(scratch), 2);
    scratch_text("/proc/self/cgroup", "0::/../../other\n");
    assert_int_equal(quota_cpus(scratch), 2);
}

static void test_quota__version_1(void **state)
{
    (void)state;
    scratch_text("/proc/self/cgroup", "7:cpuset:/job\n4:cpu,cpuacct:/job\n");
    scratch_text("/sys/fs/cgroup/cpuset/job/cpu.cfs_quota_us", "100000\n");
    scratch_text("/sys/fs/cgroup/cpuset/job/cpu.cfs_period_us", "100000\n");
    scratch_text("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    scratch_text("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota_cpus(scratch), 0);
    scratch_text("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "350000\n");
    assert_int_equal(quota_cpus(scratch), 4);
    scratch_text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n");
    scratch_text("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota_cpus(scratch), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_quota__nothing_there, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(test_quota__damaged_files_limit_nothing, scratch_make,
                                        scratch_remove),
        cmocka_unit_test_setup_teardown(test_quota__version_2_takes_the_least_level, scratch_make,
                                        scratch_remove),
        cmocka_unit_test_setup_teardown(test_quota__group_of_the_host_is_not_there, scratch_make,
                                        scratch_remove),
        cmocka_unit_test_setup_teardown(test_quota__version_1, scratch_make, scratch_remove),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
