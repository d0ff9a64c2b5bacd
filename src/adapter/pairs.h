/*
 * pairs.h - from the tensors of an adapter file to factor pairs and saved tensors
 *
 * items.c reads the keys; pairs.c drives, puts the tensors of one module together and asks the
 * configuration; factors.c checks dtypes and shapes; saved.c has the tensors that stand for those
 * of the base; spelling.c names them all as PEFT does.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_PAIRS_H
#define ADAPTER_PAIRS_H

#include "adapter/adapter.h"
#include "adapter/key.h"
#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Fill in pairs, saved and unused of an adapter whose configuration and header are read.  On
 * failure adapter_release() frees what was made.
 */
int adapter_build_pairs(struct adapter *adapter, bool allow_unused, const struct log *log,
                        struct error *err);

/* A tensor on its way into a pair or into `saved`. */
struct adapter_item {
    struct adapter_key key;
    uint32_t tensor;
};

/*
 * Read the keys of all tensors.  Those that have a place to find are put into `items`, which has
 * room for all: factors first, then saved tensors, both by path and depth; the caller frees the
 * paths of *item_count items, also on failure.  What is not understood is listed as unused or
 * refused.
 */
int adapter_read_items(struct adapter *adapter, struct adapter_item *items, size_t *item_count,
                       bool allow_unused, const struct log *log, struct error *err);

/* A factor, or a bias or magnitude that goes with one. */
bool adapter_item_is_factor(const struct adapter_item *item);

/*
 * Dtypes and shapes of what a pair has so far, and its rank against the configuration.  ERR_FORMAT
 * otherwise.
 */
int adapter_check_factors(const struct adapter *adapter, const struct adapter_pair *pair,
                          struct error *err);

/* The adapter's own copy of a pair's base tensor: the shape of B A, as the base stores it. */
int adapter_check_copy(const struct adapter *adapter, const struct adapter_pair *pair,
                       uint32_t tensor, struct error *err);

/*
 * Items of the kinds SAVED and ROWS, sorted by path, into `saved` or into the pair of their module.
 * The pairs are complete and sorted.
 */
int adapter_build_saved(struct adapter *adapter, const struct adapter_item *items, size_t count,
                        bool allow_unused, struct error *err);

/* The first pair of a module, by bisection in the sorted list; NULL if there is none. */
struct adapter_pair *adapter_find_pair(const struct adapter *adapter, const char *module,
                                       size_t bytes);

/*
 * The adapter's name that all factors have in their keys, else the usual one; the caller frees it,
 * NULL without memory.
 */
char *adapter_find_name(const struct st_header *header);

/* List a tensor as unused. */
int adapter_add_unused(struct adapter *adapter, uint32_t tensor, struct error *err);

const char *adapter_quote_tensor(char buf[QUOTED_BYTES], const struct adapter *adapter,
                                 uint32_t tensor);

#endif
