/*
 * bytes.h - little-endian access and checked sums and products of sizes
 *
 * Every number that comes from a file goes through these before it sizes or
 * indexes anything.  The checked functions return false on overflow and then
 * leave *out as it was.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stdint.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* Unit of direct I/O: offsets, lengths and memory addresses are multiples of it. */
#define PAGE_BYTES UINT64_C(4096)

static inline uint16_t load_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t load_le32(const uint8_t *p)
{
    return load_le16(p) | (uint32_t)load_le16(p + 2) << 16;
}

static inline uint64_t load_le64(const uint8_t *p)
{
    uint64_t value = 0;

    for (int i = 7; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

static inline void store_le16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static inline void store_le32(uint8_t *p, uint32_t value)
{
    store_le16(p, (uint16_t)value);
    store_le16(p + 2, (uint16_t)(value >> 16));
}

static inline void store_le64(uint8_t *p, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t min_u64(uint64_t x, uint64_t y)
{
    return x < y ? x : y;
}

static inline uint64_t max_u64(uint64_t x, uint64_t y)
{
    return x > y ? x : y;
}

/* As qsort() wants it. */
static inline int compare_u64(uint64_t x, uint64_t y)
{
    return (x > y) - (x < y);
}

static inline bool add_u64(uint64_t x, uint64_t y, uint64_t *out)
{
    return !__builtin_add_overflow(x, y, out);
}

static inline bool mul_u64(uint64_t x, uint64_t y, uint64_t *out)
{
    return !__builtin_mul_overflow(x, y, out);
}

/* `unit` is a power of two; the value must be at most 2^64 - unit. */
static inline uint64_t align_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) & ~(unit - 1);
}

static inline uint64_t align_down(uint64_t value, uint64_t unit)
{
    return value & ~(unit - 1);
}

#endif
