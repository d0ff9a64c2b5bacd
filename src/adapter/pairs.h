/*
 * pairs.h - from the tensors of an adapter file to factor pairs
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

/*
 * Fill in pairs and unused of an adapter whose configuration and header are read.  On failure
 * adapter_release() frees what was made.
 */
int adapter_build_pairs(struct adapter *adapter, bool allow_unused, const struct log *log,
                        struct error *err);

/* A tensor that goes into no pair: listed as unused if that is allowed, else refused by name. */
int adapter_leave_out(struct adapter *adapter, const struct adapter_key *key, uint32_t tensor,
                      bool allow_unused, struct error *err);

/* Give each pair the copy of its base tensor that the file may hold.  The pairs are sorted. */
int adapter_attach_copies(struct adapter *adapter, bool allow_unused, struct error *err);

#endif
