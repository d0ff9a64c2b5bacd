/*
 * quant_fields.h - codes and zero points of any packing, a byte each
 *
 * Part of quant_template.h, whose q_nibbles() and QUANT_RUN it uses.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/quant_layout.h"

#include <string.h>

/* A line from the byte with the next field on, of which `phase` bits belong to those before. */
struct stream {
    const uint8_t *next;
    unsigned phase;
    unsigned bits;
    bool high_first;
};

static uint8_t next_field(struct stream *stream)
{
    const unsigned mask = (1u << stream->bits) - 1;
    unsigned value = *stream->next;

    if (stream->high_first)
        value >>= 4 - stream->phase;
    else
        value >>= stream->phase;
    if (stream->phase + stream->bits > 8)
        value |= (unsigned)stream->next[1] << (8 - stream->phase);
    stream->phase += stream->bits;
    stream->next += stream->phase / 8;
    stream->phase %= 8;
    return (uint8_t)(value & mask);
}

/* Eight fields are `bits` bytes. */
QUANT_INLINE void eight_fields(uint8_t out[8], const uint8_t *src, unsigned bits)
{
    uint32_t all = load_le16(src) | (bits == 3 ? (uint32_t)src[2] << 16 : 0);

    for (unsigned k = 0; k < 8; k++)
        out[k] = (uint8_t)(all >> (k * bits) & ((1u << bits) - 1));
}

/* Fields [j, j + count) of fewer than 8 bits; those of 5 and 6 one by one. */
static void unpack_stream(uint8_t *out, struct stream stream, uint64_t j, size_t count)
{
    for (; count && j % 8; count--, j++)
        *out++ = next_field(&stream);
    for (; stream.bits == 4 && count >= 32; count -= 32) {
        q_nibbles(out, stream.next, stream.high_first);
        stream.next += 16;
        out += 32;
    }
    for (; stream.bits == 2 && count >= 8; count -= 8) {
        eight_fields(out, stream.next, 2);
        stream.next += 2;
        out += 8;
    }
    for (; stream.bits == 3 && count >= 8; count -= 8) {
        eight_fields(out, stream.next, 3);
        stream.next += 3;
        out += 8;
    }
    for (; count; count--)
        *out++ = next_field(&stream);
}

/* The words of fields [j, j + count) with what is to be added to each. */
static void unpack_added(uint8_t *out, const struct quant_view *view, uint64_t line, uint64_t j,
                         size_t count)
{
    const unsigned bits = view->plane.bits;
    uint64_t bit = j * bits;
    size_t words = (size_t)((bit + count * bits - 1) / 32 - bit / 32 + 1);
    const uint8_t *src = quant_at(view, line, bit / 32 * 4);
    uint8_t sums[QUANT_RUN + QUANT_SLACK];
    struct stream stream = { sums + bit % 32 / 8, (unsigned)(bit % 8), bits, false };

    for (size_t w = 0; w < words; w++) {
        uint32_t sum = load_le32(src + 4 * w) + view->plane.word_add;

        for (unsigned byte = 0; byte < 4; byte++)
            sums[4 * w + byte] = (uint8_t)(sum >> (8 * byte));
    }
    if (bits == 8)
        memcpy(out, stream.next, count);
    else
        unpack_stream(out, stream, j, count);
}

static void unpack_down(uint8_t *out, const struct quant_view *view, uint64_t matrix, uint64_t i,
                        uint64_t j, size_t count)
{
    const unsigned bits = view->plane.bits;
    const uint32_t mask = (1u << bits) - 1;
    const unsigned shift = (unsigned)(i * bits % 32);
    uint64_t line = matrix * view->plane.lines + i * bits / 32;
    const uint8_t *low = quant_at(view, line, j * 4);
    const uint8_t *high;

    if (shift + bits <= 32) {
        for (size_t c = 0; c < count; c++)
            out[c] = (uint8_t)(load_le32(low + 4 * c) >> shift & mask);
        return;
    }
    high = quant_at(view, line + 1, j * 4);
    for (size_t c = 0; c < count; c++)
        out[c] = (uint8_t)((load_le32(low + 4 * c) >> shift | load_le32(high + 4 * c)
                                                                  << (32 - shift)) &
                           mask);
}

static void unpack_awq(uint8_t *out, const struct quant_view *view, uint64_t line, uint64_t j,
                       size_t count)
{
    static const uint8_t shifts[8] = { 0, 16, 4, 20, 8, 24, 12, 28 };
    const uint8_t *src = quant_at(view, line, j / 8 * 4);
    unsigned k = (unsigned)(j % 8);

    while (count) {
        uint32_t word = load_le32(src);

        for (; k < 8 && count; k++, count--)
            *out++ = (uint8_t)(word >> shifts[k] & 15);
        src += 4;
        k = 0;
    }
}

/* Bytes of `src`, or words, of which each has one field of this row, which is in this band. */
static void unpack_band(uint8_t *out, const uint8_t *src, unsigned bits, unsigned band,
                        size_t count)
{
    const unsigned mask = (1u << bits) - 1;
    const unsigned shift = bits * (quant_bands(bits) - 1 - band);

    for (size_t c = 0; bits != 3 && c < count; c++)
        out[c] = (uint8_t)(src[c] >> shift & mask);
    for (size_t c = 0; bits == 3 && c < count; c++)
        out[c] = (uint8_t)(load_le32(src + 4 * c) >> shift & mask);
}

/* Fields [j, j + count) of row i; count is at most QUANT_RUN. */
static void unpack(uint8_t *out, const struct quant_view *view, uint64_t matrix, uint64_t i,
                   uint64_t j, size_t count)
{
    const struct quant_plane *plane = &view->plane;
    uint64_t line = matrix * plane->lines + i;
    struct stream stream = { .bits = plane->bits, .phase = (unsigned)(j * plane->bits % 8) };

    if (plane->packing == QUANT_WORDS_DOWN) {
        unpack_down(out, view, matrix, i, j, count);
    } else if (plane->packing == QUANT_WORDS_AWQ) {
        unpack_awq(out, view, line, j, count);
    } else if (plane->packing == QUANT_BANDS) {
        line = matrix * plane->lines + i % plane->lines;
        unpack_band(out, quant_at(view, line, plane->bits == 3 ? 4 * j : j), plane->bits,
                    (unsigned)(i / plane->lines), count);
    } else if (plane->word_add) {
        unpack_added(out, view, line, j, count);
    } else if (plane->bits == 8) {
        memcpy(out, quant_at(view, line, j), count);
    } else {
        stream.next = quant_at(view, line, j * plane->bits / 8);
        stream.high_first = plane->packing == QUANT_HIGH_FLAT;
        unpack_stream(out, stream, j, count);
    }
}
