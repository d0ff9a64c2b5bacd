/*
 * config.h - what a configuration says about quantised tensors and headers cannot
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef SCHEME_CONFIG_H
#define SCHEME_CONFIG_H

#include "base/dtype.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCHEME_GROUPS_MAX 32u

/* How some of the weights are quantised; 0 where it is not said. */
struct scheme_group {
    uint64_t bits;
    uint64_t group_size; /* columns; a size of -1 in the file, all of them, is 0 as well */
    uint64_t block_rows;
    uint64_t block_cols;
};

struct scheme_config {
    bool quantised;    /* there is a quantization_config, or hf_quant_config.json */
    char method[32];   /* quant_method, "" if it is not said */
    char format[48];   /* format, checkpoint_format or version; "" */
    bool transforms;   /* inputs are transformed at run time (transform_config) */
    char sparsity[48]; /* format of sparsity_config; "" or "dense": none */
    struct scheme_group groups[SCHEME_GROUPS_MAX]; /* different ones, in the order of the file */
    size_t group_count;

    bool has_dtype;
    enum dtype dtype;    /* BF16, F16 or F32: of the model's 16-bit tensors */
    char model_type[32]; /* "" if there is none, or a longer one */
};

/*
 * `config` is config.json, `extra` hf_quant_config.json; NULL: not there.  ERR_FORMAT: damaged, a
 * field that is used has another type or size than it may have, or too many different groups.
 */
int scheme_config_read(struct scheme_config *out, const char *config, size_t config_bytes,
                       const char *extra, size_t extra_bytes, struct error *err);

#endif
