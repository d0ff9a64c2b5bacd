#include "base/bytes.h"
#include "io/usage.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_usage__peak_grows_and_stays(void **state)
{
    uint64_t before = usage_peak_rss_bytes();
    uint64_t group = usage_cgroup_peak_bytes();
    size_t bytes = 64 * MIB;
    volatile uint8_t *memory = malloc(bytes);

    (void)state;
    assert_true(before > 0);
    for (size_t i = 0; i < bytes; i += 4096)
        memory[i] = 1;
    free((void *)memory);
    assert_true(usage_peak_rss_bytes() >= before + bytes / 2);
    if (group)
        assert_true(usage_cgroup_peak_bytes() >= group);
    else
        print_message("the memory group of this process is unknown\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_usage__peak_grows_and_stays) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
