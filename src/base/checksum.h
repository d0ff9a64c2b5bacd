/*
 * checksum.h - CRC-32 as ZIP archives have it, of data that many threads see in pieces
 *
 * The checksum of A then B is checksum_shift(checksum of A, bytes of B) ^ checksum of B.  So each
 * piece of a file gives its own, shifted by what lies behind it, and the exclusive or of all pieces
 * in whatever order is that of the whole.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BASE_CHECKSUM_H
#define BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint32_t checksum_bytes(const void *bytes, size_t count);

/* What a checksum contributes to that of data which go on for `bytes_behind` more. */
uint32_t checksum_shift(uint32_t checksum, uint64_t bytes_behind);

#endif
