/*
 * The digests of manifests do not depend on the instructions that a processor has.
 */
#include <xxhash.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Before base/hash.h may give the name to another function. */
static XXH128_hash_t plain_hash(const void *bytes, size_t count)
{
    return XXH3_128bits(bytes, count);
}

#include "base/hash.h"

#include <stdlib.h>

static void test_hash__is_that_of_the_plain_function(void **state)
{
    const size_t all = 300000;
    uint8_t *bytes = malloc(all);
    uint64_t rng = 1;

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < all; i++) {
        rng = rng * UINT64_C(6364136223846793005) + 1442695040888963407U;
        bytes[i] = (uint8_t)(rng >> 56);
    }
    for (size_t count = 0; count < all; count += 1 + count / 7) {
        for (size_t offset = 0; offset < 70 && offset + count <= all; offset += 23)
            assert_true(XXH128_isEqual(XXH3_128bits(bytes + offset, count),
                                       plain_hash(bytes + offset, count)));
    }
    free(bytes);
}

static void test_hash__in_pieces_is_the_same(void **state)
{
    XXH3_state_t *whole = XXH3_createState();
    uint8_t bytes[5000];

    (void)state;
    assert_non_null(whole);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 31 + i / 256);
    for (size_t piece = 1; piece < sizeof(bytes); piece += 1 + piece / 3) {
        XXH3_128bits_reset(whole);
        for (size_t at = 0; at < sizeof(bytes); at += piece)
            XXH3_128bits_update(whole, bytes + at,
                                piece < sizeof(bytes) - at ? piece : sizeof(bytes) - at);
        assert_true(XXH128_isEqual(XXH3_128bits_digest(whole), plain_hash(bytes, sizeof(bytes))));
    }
    XXH3_freeState(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash__is_that_of_the_plain_function),
        cmocka_unit_test(test_hash__in_pieces_is_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
