/*
 * pool.h - the one large piece of memory that transfers go through
 *
 * An anonymous mapping aligned to 2 MiB, backed by huge pages where the system
 * gives them: with 4 KiB pages the disk rate was half (docs/BENCHMARKS.md).  It
 * is touched once at start, so its pages are resident before the work begins,
 * and is not inherited by children.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef IO_POOL_H
#define IO_POOL_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool {
    uint8_t *memory;   /* aligned to 2 MiB */
    size_t bytes;      /* as asked for, rounded up to 2 MiB */
    size_t huge_bytes; /* how many of them lie in huge pages, read back from the kernel */

    /* For the pool only: what is unmapped, which holds guard pages too. */
    void *mapped;
    size_t mapped_bytes;
};

/*
 * Map and touch `bytes` (> 0).  Transparent huge pages are tried first, then MAP_HUGETLB, then
 * plain pages; `huge_bytes` tells what was got, the caller warns.  `huge` false asks for plain
 * pages (tests).  ERR_FAILED if the memory cannot be had.
 */
int pool_open(struct pool *out, size_t bytes, bool huge, struct error *err);

void pool_close(struct pool *pool); /* an all-zero pool is allowed */

#endif
