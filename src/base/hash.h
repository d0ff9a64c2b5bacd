/*
 * hash.h - XXH3 of the library xxHash, with the widest instructions that the processor has
 *
 * Where the library can choose them (on x86-64, as a shared library of Debian), XXH3_128bits() and
 * its like are names of functions that do; elsewhere those of <xxhash.h>, with the same results.
 * #define XXH_STATIC_LINKING_ONLY first, if it is wanted.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <xxhash.h>

#ifdef LORAFOLD_XXHASH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

#endif
