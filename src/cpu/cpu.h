/*
 * cpu.h - the operations that this processor can run
 *
 * One file per instruction set, compiled with its own flags and without
 * contraction; which of them may be called is decided at run time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CPU_CPU_H
#define CPU_CPU_H

#include "compute/encode.h"
#include "compute/fold.h"
#include "compute/quant.h"

/* Tables that this machine can run, best first, ending with fold_scalar and NULL. */
const struct fold_ops *const *cpu_fold_available(void);

/* The best one (name NULL), or the one with this name, or NULL if it is not available here. */
const struct fold_ops *cpu_fold_find(const char *name);

/* The same for the others: the tables have the same names in the same order. */
const struct quant_ops *const *cpu_quant_available(void);
const struct quant_ops *cpu_quant_find(const char *name);
const struct encode_ops *const *cpu_encode_available(void);
const struct encode_ops *cpu_encode_find(const char *name);

/* Processors that this process may use (affinity and cgroup quota), at least 1. */
unsigned cpu_count(void);

#endif
