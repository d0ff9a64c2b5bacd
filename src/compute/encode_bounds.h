/*
 * encode_bounds.h - where one 4-bit code ends and the next begins, for those that encode
 *
 * The rank of a number is how many bounds are less than it, 0 for a NaN.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_ENCODE_BOUNDS_H
#define COMPUTE_ENCODE_BOUNDS_H

#include <stdint.h>

#define ENCODE_NF4_ZERO 7u     /* the code of zero; that of FP4 is 0 */
#define ENCODE_FP4_NEGATIVE 8u /* the sign in codes of FP4 and E2M1 */

extern const float encode_nf4_bounds[15]; /* of x / absmax; a rank is a code */
extern const float encode_fp4_bounds[7];  /* of its magnitude */
extern const uint8_t encode_fp4_codes[8]; /* of a rank */
extern const float encode_e2m1_bounds[7]; /* of a magnitude; a rank is a code */

#endif
