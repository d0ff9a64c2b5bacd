/*
 * clone.h - a range of one file that shares its storage with a range of another
 *
 * XFS, btrfs and others can let two files hold the same extents until one of them is written
 * (FICLONERANGE).  Nothing is read or written then but metadata.  The kernel writes dirty pages of
 * the source first and drops cached pages of the range that is replaced, so that what was written
 * before is shared and what is read afterwards is true, with or without O_DIRECT.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef IO_CLONE_H
#define IO_CLONE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Let `bytes` (not 0) at `to_offset` be those at `from_offset`.  Offsets are multiples of
 * PAGE_BYTES; `bytes` too, unless they end where both files end.  0 or an errno value; ECANCELED
 * once
 * `*cancelled` is set, which is looked at between the pieces of a long range.  After a failure some
 * pieces may be cloned.
 */
int clone_range(int from_fd, uint64_t from_offset, int to_fd, uint64_t to_offset, uint64_t bytes,
                const atomic_int *cancelled);

/*
 * Does this status of clone_range() say that these two files cannot share, so that copying is the
 * way?  Anything else (no space, an I/O error) is a failure.
 */
bool clone_is_refused(int status);

#endif
