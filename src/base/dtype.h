/*
 * dtype.h - the element types of safetensors
 *
 * Names and bits are those of the safetensors format (tensor.rs, 0.8).  Only
 * BF16, F16 and F32 are computed with; the others pass through as bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BASE_DTYPE_H
#define BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DTYPE_BOOL,
    DTYPE_F4,
    DTYPE_F6_E2M3,
    DTYPE_F6_E3M2,
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_F8_E5M2,
    DTYPE_F8_E4M3,
    DTYPE_F8_E8M0,
    DTYPE_F8_E4M3FNUZ,
    DTYPE_F8_E5M2FNUZ,
    DTYPE_I16,
    DTYPE_U16,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_F32,
    DTYPE_C64,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_U64,
    DTYPE_COUNT
};

/* The spelling in a safetensors header, "BF16". */
const char *dtype_name(enum dtype dtype);

/* Bits of one element: 4, 6, 8, 16, 32 or 64. */
unsigned dtype_bits(enum dtype dtype);

/* The dtype of exactly this spelling; false if there is none, *out is then unchanged. */
bool dtype_parse(const char *name, size_t name_bytes, enum dtype *out);

/* BF16, F16 or F32: a dtype that is decoded to fp32 and encoded from it. */
static inline bool dtype_is_computed(enum dtype dtype)
{
    return dtype == DTYPE_BF16 || dtype == DTYPE_F16 || dtype == DTYPE_F32;
}

/* Bytes of `count` elements of a dtype whose elements are whole bytes. */
static inline size_t dtype_bytes(enum dtype dtype)
{
    return dtype_bits(dtype) / 8;
}

#endif
