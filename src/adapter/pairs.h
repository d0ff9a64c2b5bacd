/*
 * pairs.h - from the tensors of an adapter file to factor pairs
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_PAIRS_H
#define ADAPTER_PAIRS_H

#include "adapter/adapter.h"
#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>

/*
 * Fill in pairs and unused of an adapter whose configuration and header are read.  On failure
 * adapter_release() frees what was made.
 */
int adapter_build_pairs(struct adapter *adapter, bool allow_unused, const struct log *log,
                        struct error *err);

/* List a tensor of the file as unused; there is room for all of them. */
int adapter_add_unused(struct adapter *adapter, uint32_t tensor, struct error *err);

/* Give each pair the copy of its base tensor that the file may hold.  The pairs are sorted. */
int adapter_attach_copies(struct adapter *adapter, bool allow_unused, struct error *err);

#endif
