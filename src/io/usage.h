/*
 * usage.h - how much memory this process has used at most, as the kernel counts it
 *
 * Two numbers, because each alone can mislead: the resident set leaves out the
 * page cache that a program without direct I/O fills; a control group counts it,
 * and also whatever else runs or ran in the group.
 *
 * Threads: any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef IO_USAGE_H
#define IO_USAGE_H

#include <stdint.h>

/* Largest resident set so far (VmHWM of /proc/self/status); 0 if unknown. */
uint64_t usage_peak_rss_bytes(void);

/*
 * Largest charge so far of the memory control group that this process is in: memory.peak of
 * version 2, memory.max_usage_in_bytes of version 1.  It counts since the group was made, for all
 * its processes, page cache included.  0 if unknown (no group, or a kernel before 5.19 with
 * version 2).
 */
uint64_t usage_cgroup_peak_bytes(void);

#endif
