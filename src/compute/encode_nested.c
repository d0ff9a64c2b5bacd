/*
 * encode_nested.c - absmax of bitsandbytes, quantised themselves
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/encode.h"

#include <math.h>
#include <stdbool.h>

float encode_nested_offset(const float *absmax, size_t count)
{
    double sum = 0.0;

    for (size_t i = 0; i < count; i++)
        sum += (double)absmax[i];
    return (float)sum / (float)count;
}

/*
 * The search of bitsandbytes' kernel: seven halvings from the middle, then the bound to the
 * neighbour on the side of x, with a tie for the number that the search ended at.
 */
static uint8_t nearest(const float map[256], float x)
{
    unsigned low = 0;
    unsigned high = 255;
    unsigned pivot = 127;

    for (unsigned step = 64; step; step /= 2) {
        bool above = x > map[pivot]; /* chosen between, not jumped: it is as good as random */

        low = above ? pivot : low;
        high = above ? high : pivot;
        pivot = above ? pivot + step : pivot - step;
    }
    if (x > map[pivot])
        return (uint8_t)(x > (map[high] + map[pivot]) * 0.5f ? high : pivot);
    return (uint8_t)(x < (map[low] + map[pivot]) * 0.5f ? low : pivot);
}

void encode_nested(uint8_t *codes, float *nested, const float *absmax, size_t count, float offset,
                   const float map[256])
{
    for (size_t first = 0; first < count; first += ENCODE_NESTED_BLOCK) {
        size_t end = count - first < ENCODE_NESTED_BLOCK ? count : first + ENCODE_NESTED_BLOCK;
        float largest = 0.0f;
        float inverse;

        for (size_t i = first; i < end; i++)
            largest = fmaxf(largest, fabsf(absmax[i] - offset));
        inverse = 1.0f / largest;
        for (size_t i = first; codes && i < end; i++)
            codes[i] = nearest(map, (absmax[i] - offset) * inverse);
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
