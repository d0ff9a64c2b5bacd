/*
 * safetensors_layout.h - the checks that need all tensors of a header at once
 *
 * Only for safetensors.c and torch_tensors.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_SAFETENSORS_LAYOUT_H
#define FORMAT_SAFETENSORS_LAYOUT_H

#include "base/error.h"
#include "format/safetensors.h"

#include <stdint.h>

/*
 * Refuse duplicate names, put the tensors in the order of their data, and refuse holes, overlaps
 * and an end that is not `data_bytes`.
 */
int st_layout_check(struct st_header *header, uint64_t data_bytes, struct error *err);

/* Only refuse duplicate names and put the tensors in the order of their data. */
int st_layout_sort(struct st_header *header, struct error *err);

#endif
