/*
 * made_model.h - small random bases and adapters for tests, and what a merge of them must give
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_MADE_MODEL_H
#define TESTS_MADE_MODEL_H

#include "lorafold.h"

#include "base/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MADE_TENSORS_MAX 64
#define MADE_SHARDS_MAX 4

struct made_tensor {
    char name[64];
    enum dtype dtype;
    unsigned shape_count;
    uint64_t shape[3];
    uint64_t bytes;
    uint8_t *data;
    unsigned shard;
    uint32_t rank; /* 0: not a target */
    enum dtype factor_dtype;
    float *a; /* [rank][cols], exact in factor_dtype */
    float *b; /* [rows][rank] */
};

struct made_model {
    char directory[512]; /* holds base/ and adapter/ */
    struct made_tensor tensors[MADE_TENSORS_MAX];
    unsigned tensor_count;
    unsigned shard_count;
    unsigned header_spaces[MADE_SHARDS_MAX]; /* so that data may start anywhere */
    float scale; /* alpha / r of the adapter: alpha is made so that it is the same for all ranks */
};

uint64_t made_random(uint64_t *state);
uint64_t made_random_in(uint64_t *state, uint64_t low, uint64_t high);

/* Add one tensor with random finite contents; a rank makes it a target. */
struct made_tensor *made_add(struct made_model *model, uint64_t *rng, const char *name,
                             enum dtype dtype, unsigned shape_count, const uint64_t *shape,
                             unsigned shard, uint32_t rank, enum dtype factor_dtype);

/* Two shards of four small tensors, three of them targets, of all dtypes that are computed with. */
void made_small(struct made_model *model);

/* A merge into several small shards, by two threads.  Nothing is copied. */
struct lorafold_merge_options made_options(const char *base, const struct lorafold_adapter *adapter,
                                           const char *output);

/* The header_spaces with which the data of a shard start at a multiple of `alignment`. */
unsigned made_spaces_to(const struct made_model *model, unsigned shard, unsigned alignment);

/* Write base/ and adapter/ below model->directory, which exists. */
void made_write(const struct made_model *model);
void made_release(struct made_model *model);

/* Fail the test unless the model directory `output` is what the scalar definition gives. */
void made_check(const struct made_model *model, const char *output, bool convert, enum dtype dtype);

/* All shards of two outputs are the same bytes. */
void made_check_same(const char *one, const char *other);

/* A fresh directory below the current one, removed by made_remove(). */
void made_directory(char *out, size_t out_bytes);
void made_remove(const char *directory);

#endif
