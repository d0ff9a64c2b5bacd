#include "base/slice.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The fourth eight bytes of the kernel's struct sched_attr. */
static uint64_t slice_now(void)
{
    uint64_t attributes[6] = { 0 };

    assert_int_equal(syscall(SYS_sched_getattr, 0, attributes, sizeof(attributes), 0u), 0);
    return attributes[3];
}

static void test_slice__is_short_and_then_as_before(void **state)
{
    uint64_t first = slice_now();
    uint64_t before = slice_shorten();

    (void)state;
    print_message("slice %llu ns\n", (unsigned long long)first);
    if (before == 0) { /* a kernel that knows no slices says 0, as before Linux 6.12 */
        assert_true(first == slice_now());
        return;
    }
    assert_true(before == first);
    assert_true(slice_now() < first);
    assert_true(slice_shorten() == 0); /* it is short */
    slice_restore(before);
    assert_true(slice_now() == first);
    slice_restore(0);
    assert_true(slice_now() == first);
}

static void test_slice__other_schedulers_are_left_alone(void **state)
{
    struct sched_param none = { 0 };

    (void)state;
    assert_int_equal(sched_setscheduler(0, SCHED_BATCH, &none), 0);
    assert_true(slice_shorten() == 0);
    assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
    slice_restore(1000000);
    assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
    assert_int_equal(sched_setscheduler(0, SCHED_OTHER, &none), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slice__is_short_and_then_as_before),
        cmocka_unit_test(test_slice__other_schedulers_are_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
