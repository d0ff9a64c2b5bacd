/*
 * made_codes.h - what 4-bit outputs and bases taken through NF4 must be, from encode_scalar
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_MADE_CODES_H
#define TESTS_MADE_CODES_H

#include "pipeline/made_edits.h"

/* Does no edit replace the tensor or rows of it, and may it be the weight of a linear layer? */
bool made_is_linear(const struct made_edits *made, const struct made_tensor *tensor);
bool made_goes_through(const struct made_edits *made, const struct made_tensor *tensor,
                       const struct plan_options *options);
bool made_is_encoded(const struct made_edits *made, const struct made_tensor *tensor,
                     const struct plan_options *options);

/* A copy of the tensor's data, taken through NF4. */
uint8_t *made_through_nf4(const struct made_tensor *tensor);

/* All bytes of an output tensor, which the caller frees; fails the test if it is not there. */
uint8_t *made_read(const struct plan *plan, const char *output, const char *name, uint64_t bytes);

/* Codes and companions in `output` are those of `count` merged elements of `dtype`. */
void made_check_codes(const struct plan *plan, const char *output, const char *name,
                      const uint8_t *merged, enum dtype dtype, uint64_t count,
                      const struct plan_options *options);

#endif
