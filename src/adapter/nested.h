/*
 * nested.h - the adapters in the sub-directories of a directory
 *
 * Only for directory.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_NESTED_H
#define ADAPTER_NESTED_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>

/* Is there an entry of this name?  A dangling link is one: opening it says what is wrong. */
bool adapter_directory_holds(const char *directory, const char *name);

/* Does it hold a configuration and weights? */
bool adapter_directory_is_adapter(const char *directory);

/*
 * The sub-directory of `directory` that is meant, as a path that the caller frees: the only one
 * that is an adapter, or the last of checkpoints (checkpoint-N, as the Trainer names them); a
 * notice names it.  *out is NULL where none is an adapter.  ERR_USAGE where several are, with up
 * to eight of their names.
 */
int adapter_nested_find(char **out, const char *directory, const struct log *log,
                        struct error *err);

#endif
