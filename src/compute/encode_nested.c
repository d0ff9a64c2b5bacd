/*
 * encode_nested.c - absmax of bitsandbytes, quantised themselves
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/convert.h"
#include "compute/encode.h"

#include <math.h>

float encode_nested_offset(const float *absmax, size_t count)
{
    double sum = 0.0;

    for (size_t i = 0; i < count; i++)
        sum += (double)absmax[i];
    return (float)sum / (float)count;
}

/*
 * The search of bitsandbytes' kernel ends at an even entry and compares with the bound to the
 * neighbour on the side of x, with a tie for the entry that it ended at.  So a code is the number
 * of bounds below x, where a bound under an even entry is one step less than the middle.
 *
 * Finding that number by halving costs more than all else that is done for an output in 4 bits, so
 * numbers are sorted by sign, exponent and six bits of their significand first, into bins that a
 * bound or two at most lie in.
 */
#define BIN_SHIFT 17
#define LEAST_BITS 0x34800000u /* 2^-22, below the least bound of the dynamic map */
#define MOST_BITS 0x3f800000u  /* 1 */
#define BINS ((MOST_BITS - LEAST_BITS) >> BIN_SHIFT)

struct bins {
    float bounds[256];          /* the last is never passed */
    uint8_t codes[2][BINS + 1]; /* the least of a bin, of positive numbers and of negative ones */
    unsigned most;              /* bounds in a bin */
};

/* The greatest float less than x, which is finite. */
static float less_than(float x)
{
    uint32_t bits = f32_bits(x);

    if ((bits & F32_MAGNITUDE) == 0)
        return f32_from_bits(0x80000001u);
    return f32_from_bits(bits >> 31 ? bits + 1 : bits - 1);
}

/* Bins ascend: `low` is the least number of the next one. */
static void start_bin(struct bins *bins, uint8_t *start, float low, unsigned *rank)
{
    unsigned before = *rank;

    while (bins->bounds[*rank] < low)
        (*rank)++;
    if (*rank - before > bins->most)
        bins->most = *rank - before;
    *start = (uint8_t)*rank;
}

static void make_bins(struct bins *bins, const float map[256])
{
    unsigned rank = 0;

    for (unsigned k = 0; k < 255; k++) {
        float middle = (map[k] + map[k + 1]) * 0.5f;

        bins->bounds[k] = k % 2 ? less_than(middle) : middle;
    }
    bins->bounds[255] = INFINITY;
    bins->codes[1][BINS] = 0;
    for (uint32_t bin = BINS; bin-- > 0;) {
        uint32_t end = LEAST_BITS + ((bin + 1) << BIN_SHIFT);

        start_bin(bins, &bins->codes[1][bin], -f32_from_bits(end - 1), &rank);
    }
    start_bin(bins, &bins->codes[0][0], 0.0f, &rank);
    for (uint32_t bin = 1; bin <= BINS; bin++)
        start_bin(bins, &bins->codes[0][bin], f32_from_bits(LEAST_BITS + (bin << BIN_SHIFT)),
                  &rank);
    if (255 - rank > bins->most)
        bins->most = 255 - rank;
}

static uint8_t nearest(const struct bins *bins, float x)
{
    uint32_t bits = f32_bits(x);
    uint32_t magnitude = bits & F32_MAGNITUDE;
    uint32_t bin;
    uint8_t code;

    magnitude = magnitude < LEAST_BITS ? LEAST_BITS : magnitude;
    magnitude = magnitude > MOST_BITS ? MOST_BITS : magnitude;
    bin = (magnitude - LEAST_BITS) >> BIN_SHIFT;
    code = bins->codes[bits >> 31][bin];
    for (unsigned k = 0; k < bins->most; k++)
        code = (uint8_t)(code + (x > bins->bounds[code]));
    return x == x ? code : 0;
}

static float largest_of(const float *absmax, size_t count, float offset)
{
    uint32_t largest = 0;

    for (size_t i = 0; i < count; i++) {
        uint32_t magnitude = f32_bits(absmax[i] - offset) & F32_MAGNITUDE;

        largest = magnitude > largest ? magnitude : largest;
    }
    return f32_from_bits(largest);
}

void encode_nested(uint8_t *codes, float *nested, const float *absmax, size_t count, float offset,
                   const float map[256])
{
    struct bins bins;

    bins.most = 0;
    if (codes)
        make_bins(&bins, map);
    for (size_t first = 0; first < count; first += ENCODE_NESTED_BLOCK) {
        size_t end = count - first < ENCODE_NESTED_BLOCK ? count : first + ENCODE_NESTED_BLOCK;
        float largest = largest_of(absmax + first, end - first, offset);
        float inverse = 1.0f / largest;

        for (size_t i = first; codes && i < end; i++)
            codes[i] = nearest(&bins, (absmax[i] - offset) * inverse);
        *nested++ = largest;
    }
}

/*
 * Seven decades of midpoints of an even grid from 0.1 to 1, with both signs, and 0 and 1.  The grid
 * is that of torch.linspace in 2.13 with AVX2, which depends on its version and the machine:
 * upwards from 0.1 in its lower half, downwards from 1 in the other.
 */
void encode_dynamic_map(float map[256])
{
    static const float decades[7] = { 1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f };
    unsigned at = 1;

    map[127] = 0.0f;
    map[255] = 1.0f;
    for (unsigned i = 0; i < 7; i++) {
        unsigned steps = 1u << i;
        float step = (1.0f - 0.1f) / (float)steps;
        float grid[65];

        for (unsigned k = 0; k <= steps; k++)
            grid[k] = k < (steps + 1) / 2 ? fmaf(step, (float)k, 0.1f)
                                          : fmaf(-step, (float)(steps - k), 1.0f);
        for (unsigned k = 0; k < steps; k++, at++) {
            map[127 + at] = decades[i] * ((grid[k] + grid[k + 1]) / 2.0f);
            map[127 - at] = -map[127 + at];
        }
    }
}
