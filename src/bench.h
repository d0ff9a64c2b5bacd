/*
 * bench.h - the measurements of `lorafold bench`
 *
 * bench.c measures the disk and prints; bench_kernels.c measures memory and kernels, bench_device.c
 * a GPU.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BENCH_H
#define BENCH_H

#include "merge.h"

#define BENCH_RANKS_MAX 8u

/* Rates are in bytes per second. */
struct bench_device_result {
    char name[300]; /* "": there is none, or it was not measured */
    uint64_t free_bytes;
    double memory_rate; /* what its memory is said to do; 0: unknown */
    double pinned_up;
    double pinned_down;
    double pageable_up;
    double pageable_down;
    size_t kernel_count;
    struct {
        unsigned rank;
        double elements_rate; /* per second */
    } kernels[BENCH_RANKS_MAX];
};

struct bench_result {
    struct bench_device_result device;
    char no_device[160]; /* why none was measured */
    unsigned threads;
    uint64_t file_bytes; /* 0: the disk was not measured */
    double read_seconds;
    double write_seconds;
    double copy_seconds;
    char io_engine[32];
    bool direct;
    bool huge_pages;
    double memory_rate; /* bytes copied per second; 0: not measured */
    const char *kernel_name;
    size_t kernel_count;
    struct {
        unsigned rank;
        double elements_rate; /* per second, all threads */
    } kernels[BENCH_RANKS_MAX];
};

int bench_disk(const struct lorafold_bench_options *options, struct bench_result *result,
               struct error *err);
/* The first device of a table, with weights of rows x 4096 and so many runs of everything. */
int bench_device(const struct device_ops *ops, uint64_t rows, unsigned runs,
                 struct bench_device_result *result, struct error *err);
int bench_kernels(const struct lorafold_bench_options *options, struct bench_result *result,
                  struct error *err);

#endif
