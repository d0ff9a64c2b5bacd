/*
 * families.h - the schemes that are recognised, one file each
 *
 * A recogniser is called for each tensor that ends in a suffix of its and has one of its dtypes
 * (table.c).  It returns 0 without an item if the tensor is not of its family, and ERR_FORMAT if it
 * is and cannot be decoded.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef SCHEME_FAMILIES_H
#define SCHEME_FAMILIES_H

#include "scheme/find.h"

int find_bnb4(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);
int find_bnb8(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);
int find_fp8(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);
int find_mxfp4_experts(struct scheme_find *find, const struct scheme_anchor *anchor,
                       struct error *err);
int find_decoded_experts(struct scheme_find *find, const struct scheme_anchor *anchor,
                         struct error *err);
int find_fp4_packed(struct scheme_find *find, const struct scheme_anchor *anchor,
                    struct error *err);
int find_fp4_modelopt(struct scheme_find *find, const struct scheme_anchor *anchor,
                      struct error *err);
int find_fp4_deepseek(struct scheme_find *find, const struct scheme_anchor *anchor,
                      struct error *err);
int find_packed(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);
int find_int8(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);
int find_gptq(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);
int find_awq(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);
int find_hqq(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);
int find_mlx(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);
int find_torchao(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);

/* Call the recognisers with every tensor of the model. */
int families_find(struct scheme_find *find, struct error *err);

/* After them: drop what belongs to inputs, and refuse what is quantised and was not understood. */
int leftovers_check(struct scheme_find *find, struct error *err);

/*
 * Shape of the matrix and of its blocks from those of weight and scales; the weight has two or
 * three dimensions.  ERR_FORMAT: they make no blocks, or others than the configuration says.
 */
int blocks_set(const struct scheme_find *find, const struct scheme_anchor *anchor,
               const uint64_t *shape, size_t shape_count, struct model_ref scales,
               struct quant_matrix *matrix, struct error *err);

/* Do so many codes of this width, one after another, take `words` words of 32 bits? */
bool blocks_fill_words(uint64_t count, uint64_t bits, uint64_t words);

/*
 * Zero points of a byte each lie as the scales do: ERR_FORMAT if they have another shape, but for
 * dimensions of 1.
 */
int blocks_check_zeros(const struct scheme_find *find, struct model_ref zeros,
                       struct model_ref scales, struct error *err);

/* The size of groups of which `count` cover `inputs`; 0 and ERR_FORMAT if there is none. */
uint64_t blocks_group_size(const struct scheme_find *find, const struct scheme_anchor *anchor,
                           uint64_t inputs, uint64_t count, struct error *err);

/* That of the model, or the other one. */
enum dtype families_dtype(const struct scheme_find *find, enum dtype otherwise);

/* BF16 and F16 scales say what their weights were; else as families_dtype(). */
enum dtype families_dtype_of_scales(const struct scheme_find *find, enum dtype scales);

#endif
