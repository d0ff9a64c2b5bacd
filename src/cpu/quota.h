/*
 * quota.h - the share of processors that a control group leaves to this process
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CPU_QUOTA_H
#define CPU_QUOTA_H

/*
 * Processors that the quotas of this process's control groups add up to, rounded up, the least of
 * all levels; 0 where nothing limits them.  Reads `root`/proc/self/cgroup and, below
 * `root`/sys/fs/cgroup, cpu.max (version 2) or cpu.cfs_quota_us (version 1); root is "" but in
 * tests.  What cannot be read limits nothing.
 */
unsigned quota_cpus(const char *root);

#endif
