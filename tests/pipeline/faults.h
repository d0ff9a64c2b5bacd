/*
 * faults.h - make the n-th call of a kind fail
 *
 * faults.c wraps allocation and system calls (linker option --wrap) and counts
 * them while faults are armed.  Nothing fails before fault_arm() or after
 * fault_disarm(), so the test itself can use everything.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_FAULTS_H
#define TESTS_FAULTS_H

enum fault_kind {
    FAULT_MEMORY, /* malloc, calloc, realloc, strdup, strndup, mmap, asprintf, ... */
    FAULT_READ,   /* pread, read, or a finished ring read */
    FAULT_WRITE,  /* pwrite, write, send, or a finished ring write */
    FAULT_FILE,   /* pipe2, posix_spawnp, open, openat, fstat, fsync, ftruncate, rename and their like */
    FAULT_THREAD, /* pthread_create */
    FAULT_WAIT,   /* ring_wait itself */
    FAULT_KINDS
};

extern const char *const fault_names[FAULT_KINDS];

/* From now on the `number`-th call (from 1) of this kind fails, once. */
void fault_arm(enum fault_kind kind, unsigned number);

/* From now on the `number`-th call of this kind runs `call` first, once, and does not fail. */
void fault_call(enum fault_kind kind, unsigned number, void (*call)(void));

/*
 * From now on syncs finish as late as they can: when nothing else is in flight.  fault_lazy_syncs()
 * tells the most that were waited for at one time, and ends it.
 */
void fault_make_syncs_lazy(void);
unsigned fault_lazy_syncs(void);

/* Stop; returns whether the call was reached. */
int fault_disarm(void);

#endif
