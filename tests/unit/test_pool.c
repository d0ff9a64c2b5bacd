#include "base/bytes.h"
#include "base/error.h"
#include "io/pool.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static bool is_mapped(const void *address)
{
    unsigned char resident;

    return mincore((void *)((uintptr_t)address & ~(uintptr_t)4095), 1, &resident) == 0;
}

static void test_pool__size_that_cannot_be_is_refused(void **state)
{
    struct error err = { 0 };
    struct pool pool = { 0 };

    (void)state;
    assert_int_equal(pool_open(&pool, 0, true, &err), ERR_FAILED);
    assert_int_equal(pool_open(&pool, SIZE_MAX, true, &err), ERR_FAILED);
    assert_int_equal(pool_open(&pool, SIZE_MAX / 4, true, &err), ERR_FAILED);
    print_message("%s\n", err.text);
    assert_null(pool.memory);
    pool_close(&pool);
}

static void check_pool(size_t asked, bool huge)
{
    struct error err = { 0 };
    struct pool pool = { 0 };
    size_t rounded = (size_t)align_up(asked, 2 * MIB);
    uint8_t *memory;

    assert_int_equal(pool_open(&pool, asked, huge, &err), 0);
    memory = pool.memory;
    assert_int_equal((uintptr_t)memory % (2 * MIB), 0);
    assert_int_equal(pool.bytes, rounded);
    assert_true(pool.huge_bytes <= pool.bytes);
    if (!huge)
        assert_int_equal(pool.huge_bytes, 0);
    print_message("%zu bytes asked, %zu had, %zu in huge pages\n", asked, pool.bytes,
                  pool.huge_bytes);
    memset(memory, 0x5a, pool.bytes);
    assert_true(is_mapped(memory) && is_mapped(memory + rounded - 1));
    pool_close(&pool);
    assert_null(pool.memory);
    assert_false(is_mapped(memory));
    assert_false(is_mapped(memory + rounded - 1));
    assert_false(is_mapped(memory - 1));
    assert_false(is_mapped(memory + rounded));
    pool_close(&pool);
}

static void test_pool__sizes(void **state)
{
    const size_t sizes[] = { 1, 4096, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 32 * MIB };

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        check_pool(sizes[i], true);
        check_pool(sizes[i], false);
    }
}

/* A plain pool and a huge one side by side are counted apart. */
static void test_pool__count_is_of_its_own_mapping(void **state)
{
    struct error err = { 0 };
    struct pool pools[6];

    (void)state;
    for (int i = 0; i < 6; i++)
        assert_int_equal(pool_open(&pools[i], 4 * MIB, i % 2 == 0, &err), 0);
    for (int i = 0; i < 6; i++) {
        assert_true(pools[i].huge_bytes <= pools[i].bytes);
        assert_true(i % 2 == 0 || pools[i].huge_bytes == 0);
    }
    for (int i = 0; i < 6; i++)
        pool_close(&pools[i]);
}

static int status_of_child(void (*run)(uint8_t *memory, size_t bytes), uint8_t *memory,
                           size_t bytes)
{
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        struct rlimit none = { 0, 0 };

        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL);
        run(memory, bytes);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void read_first(uint8_t *memory, size_t bytes)
{
    (void)bytes;
    _exit(is_mapped(memory) ? 1 : 0);
}

static void test_pool__is_not_inherited(void **state)
{
    struct error err = { 0 };
    struct pool pool = { 0 };

    (void)state;
    assert_int_equal(pool_open(&pool, 4 * MIB, true, &err), 0);
    assert_int_equal(status_of_child(read_first, pool.memory, pool.bytes), 0);
    pool_close(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool__size_that_cannot_be_is_refused),
        cmocka_unit_test(test_pool__sizes),
        cmocka_unit_test(test_pool__count_is_of_its_own_mapping),
        cmocka_unit_test(test_pool__is_not_inherited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
