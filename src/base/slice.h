/*
 * slice.h - a thread that is to run as soon as it is woken
 *
 * Where workers keep all processors busy, the kernel lets a thread that wakes up wait for the end
 * of somebody's time slice, milliseconds in which a disk may have nothing to do.  A thread with a
 * shorter slice than theirs does not wait (EEVDF of Linux 6.12 and later); it gets no more time
 * than before.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include <stdint.h>

/*
 * Ask for the shortest slice for the calling thread, and for threads that it starts from now on.  A
 * hint: older kernels and other schedulers ignore it.  Returns what slice_restore() puts back for
 * the same thread, 0 if nothing was changed.
 */
uint64_t slice_shorten(void);
void slice_restore(uint64_t nanoseconds);

#endif
