/*
 * bnb_state.h - the JSON beside each 4-bit weight of bitsandbytes
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef SCHEME_BNB_STATE_H
#define SCHEME_BNB_STATE_H

#include "base/dtype.h"
#include "base/error.h"
#include "format/safetensors.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BNB_STATE_BYTES_MAX 65536u

struct bnb_state {
    bool fp4; /* else nf4 */
    uint64_t blocksize;
    enum dtype dtype; /* of the decoded weight */
    uint64_t shape[ST_RANK_MAX];
    size_t shape_count;
    bool nested; /* the text has the fields of nested absmax */
    float nested_offset;
};

/* ERR_FORMAT: not strict JSON, a field missing, unknown, or with a value that is not decoded. */
int bnb_state_read(struct bnb_state *out, const char *json, size_t bytes, struct error *err);

#endif
