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

/*
 * As the CUDA kernels of bitsandbytes have them, in nine digits, which say a float however they are
 * read.  Those of NF4 are midpoints but for the last bit of four, those of FP4 nearly.
 */
#define ENCODE_NF4_BOUNDS                                                                          \
    {                                                                                              \
        -0.84809643f, -0.610632896f, -0.45999527f, -0.33967942f, -0.234607399f, -0.137911737f,     \
            -0.0455250181f, 0.0397901498f, 0.120255254f, 0.203521252f, 0.292013764f, 0.389312536f, \
            0.501663387f, 0.64278692f, 0.861478388f                                                \
    }
#define ENCODE_FP4_BOUNDS                                                                          \
    {                                                                                              \
        0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f, 0.583333f, 0.8333333f       \
    }
#define ENCODE_FP4_CODES 0x32547610u /* of ranks, from the lowest four bits up */
/* Midpoints; where the code above is the even one it takes the tie: the bound is one step less. */
#define ENCODE_E2M1_BOUNDS                                                                         \
    {                                                                                              \
        0.25f, 0x1.7ffffep-1f, 1.25f, 0x1.bffffep0f, 2.5f, 0x1.bffffep1f, 5.0f                     \
    }

extern const float encode_nf4_bounds[15]; /* of x / absmax; a rank is a code */
extern const float encode_fp4_bounds[7];  /* of its magnitude */
extern const uint8_t encode_fp4_codes[8]; /* of a rank */
extern const float encode_e2m1_bounds[7]; /* of a magnitude; a rank is a code */

#endif
