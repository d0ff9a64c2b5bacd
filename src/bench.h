/*
 * bench.h - the measurements of `lorafold bench`
 *
 * bench.c measures the disk and prints; bench_kernels.c measures memory and kernels.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BENCH_H
#define BENCH_H

#include "merge.h"

#define BENCH_RANKS_MAX 8u

struct bench_result {
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
int bench_kernels(const struct lorafold_bench_options *options, struct bench_result *result,
                  struct error *err);

#endif
