#include "io/pool.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_BYTES ((size_t)(2 * MIB))

/* From <linux/mman.h> and <asm-generic/mman-common.h>; not in every C library's headers. */
#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB (21 << 26)
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Bytes in huge pages, of either sort, of the mappings between `start` and `end`. */
static size_t count_huge_bytes(uintptr_t start, uintptr_t end)
{
    FILE *smaps = fopen("/proc/self/smaps", "re");
    char *line = NULL;
    size_t line_bytes = 0;
    bool inside = false;
    uint64_t kib = 0;

    if (!smaps)
        return 0;
    while (getline(&line, &line_bytes, smaps) > 0) {
        uintptr_t low, high;
        uint64_t value;

        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &low, &high) == 2)
            inside = low >= start && high <= end;
        else if (inside && (sscanf(line, "AnonHugePages: %" SCNu64 " kB", &value) == 1 ||
                            sscanf(line, "Private_Hugetlb: %" SCNu64 " kB", &value) == 1))
            kib += value;
    }
    free(line);
    fclose(smaps);
    return (size_t)min_u64(kib * KIB, end - start);
}

static void touch(struct pool *pool)
{
    for (size_t i = 0; i < pool->bytes; i += PAGE_BYTES)
        ((volatile uint8_t *)pool->memory)[i] = 0;
}

/*
 * Pages of the usual size, which the kernel may gather into huge ones.  2 MiB on either side stay
 * inaccessible: an overrun faults, and the kernel cannot join the mapping with a neighbour, which
 * would spoil the count of its huge pages.
 */
static int map_pages(struct pool *out, size_t bytes, bool huge, struct error *err)
{
    size_t reserved_bytes = bytes + 3 * HUGE_BYTES;
    struct pool pool = { .bytes = bytes };
    uint8_t *reserved;
    uintptr_t start;

    reserved = mmap(NULL, reserved_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);
    if (reserved == MAP_FAILED)
        return error_set_errno(err, "cannot map %zu bytes for transfers", bytes);
    start = (uintptr_t)align_up((uintptr_t)reserved, HUGE_BYTES);
    if (start > (uintptr_t)reserved)
        munmap(reserved, start - (uintptr_t)reserved);
    pool.mapped_bytes = bytes + 2 * HUGE_BYTES;
    pool.mapped = reserved + (start - (uintptr_t)reserved);
    munmap((uint8_t *)pool.mapped + pool.mapped_bytes,
           (uintptr_t)reserved + reserved_bytes - start - pool.mapped_bytes);

    pool.memory = mmap((uint8_t *)pool.mapped + HUGE_BYTES, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (pool.memory == MAP_FAILED || madvise(pool.memory, bytes, MADV_DONTFORK) < 0) {
        error_set_errno(err, "cannot map %zu bytes for transfers", bytes);
        munmap(pool.mapped, pool.mapped_bytes);
        return ERR_FAILED;
    }
    /* A kernel without huge pages refuses the advice; what was got is counted below. */
    (void)madvise(pool.memory, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    touch(&pool);
    *out = pool;
    return 0;
}

/*
 * Pages from the pool of huge pages that an administrator set aside.  Populating them tells
 * whether they are really there; a write to one that is not would end the process with SIGBUS.
 */
static bool map_hugetlb(struct pool *out, size_t bytes)
{
    struct pool pool = { .bytes = bytes, .mapped_bytes = bytes };

    pool.memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, -1, 0);
    if (pool.memory == MAP_FAILED)
        return false;
    if (madvise(pool.memory, bytes, MADV_DONTFORK) < 0 ||
        madvise(pool.memory, bytes, MADV_POPULATE_WRITE) < 0) {
        munmap(pool.memory, bytes);
        return false;
    }
    pool.mapped = pool.memory;
    *out = pool;
    return true;
}

int pool_open(struct pool *out, size_t bytes, bool huge, struct error *err)
{
    struct pool pool = { 0 };
    struct pool better = { 0 };
    int status;

    if (bytes == 0 || bytes > SIZE_MAX / 2)
        return error_set(err, ERR_FAILED, "a pool of %zu bytes cannot be mapped", bytes);
    bytes = (size_t)align_up(bytes, HUGE_BYTES);
    status = map_pages(&pool, bytes, huge, err);
    if (status)
        return status;
    pool.huge_bytes = count_huge_bytes((uintptr_t)pool.memory, (uintptr_t)pool.memory + bytes);
    if (huge && pool.huge_bytes == 0 && map_hugetlb(&better, bytes)) {
        pool_close(&pool);
        pool = better;
        pool.huge_bytes = count_huge_bytes((uintptr_t)pool.memory, (uintptr_t)pool.memory + bytes);
    }
    *out = pool;
    return 0;
}

void pool_close(struct pool *pool)
{
    if (pool->mapped)
        munmap(pool->mapped, pool->mapped_bytes);
    *pool = (struct pool){ 0 };
}
