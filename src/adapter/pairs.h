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

#endif
