/*
 * kernel_check.h - what the kernel tests share: numbers from a seed, guarded memory
 *
 * No test library, so that the programs build with any cross compiler and run under an emulator.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_KERNEL_CHECK_H
#define TESTS_KERNEL_CHECK_H

#include "check.h"
#include "compute/convert.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* xorshift64*: the same numbers on every machine for the same seed. */
static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static inline uint64_t random_in(uint64_t *state, uint64_t low, uint64_t high)
{
    return low + (random_next(state) >> 24) % (high - low + 1);
}

/* True once in `n`. */
static inline bool random_one_in(uint64_t *state, uint64_t n)
{
    return random_in(state, 1, n) == 1;
}

static inline float random_unit(uint64_t *state) /* in [-1, 1) */
{
    return (float)(random_next(state) >> 40) / (1 << 23) - 1.0f;
}

/* The patterns that kernels get wrong, in fp32. */
static const uint32_t specials[] = {
    0x00000000, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345, 0x7f800001, 0xffbfffff,
    0x7fffffff, 0xffffffff, 0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff,
    0x7f7f8000, 0x7f7f7fff, 0x477ff000, 0x477fefff, 0xc77ff000, 0x33000000, 0x33000001, 0x387fe000,
    0x38800000, 0x38801000, 0x3f808000, 0x3f818000, 0x3f808001, 0x3f801000, 0x3f803000, 0x00008000,
};

/* `rarity` 0: no special values, else one in so many. */
static inline float random_value(uint64_t *rng, uint64_t rarity)
{
    if (rarity && random_one_in(rng, rarity))
        return f32_from_bits(specials[random_in(rng, 0, COUNT_OF(specials) - 1)]);
    if (rarity && random_one_in(rng, 4))
        return f32_from_bits((uint32_t)random_next(rng));
    return random_unit(rng);
}

static inline void fill_floats(uint64_t *rng, float *out, size_t count, uint64_t rarity)
{
    for (size_t i = 0; i < count; i++)
        out[i] = random_value(rng, rarity);
}

/* `count` bytes between two pages that cannot be touched. */
struct guarded {
    unsigned char *bytes;
    size_t count;
    unsigned char *map;
    size_t map_bytes;
};

/*
 * The bytes begin `slack` behind the lower guard page, or, at_end, end `slack` before the upper
 * one; they and the slack are filled with `poison`.
 */
static inline struct guarded guarded_alloc(size_t count, bool at_end, size_t slack, int poison)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inner = (count + slack + page - 1) / page * page;
    struct guarded memory = { .count = count, .map_bytes = inner + 2 * page };

    memory.map = mmap(NULL, memory.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory.map != MAP_FAILED, "no memory");
    CHECK(inner == 0 || mprotect(memory.map + page, inner, PROT_READ | PROT_WRITE) == 0,
          "no memory");
    memset(memory.map + page, poison, inner);
    memory.bytes = memory.map + page + (at_end ? inner - count - slack : slack);
    return memory;
}

/* Whether everything between the guard pages but the bytes still holds the poison. */
static inline bool guarded_intact(const struct guarded *memory, int poison)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const unsigned char *end = memory->map + memory->map_bytes - page;

    for (const unsigned char *p = memory->map + page; p < end; p++) {
        if (p == memory->bytes)
            p += memory->count;
        if (p < end && *p != (unsigned char)poison)
            return false;
    }
    return true;
}

static inline void guarded_free(struct guarded *memory)
{
    munmap(memory->map, memory->map_bytes);
}

#endif
