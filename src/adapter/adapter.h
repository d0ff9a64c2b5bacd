/*
 * adapter.h - a PEFT LoRA adapter: its configuration, factor pairs and saved tensors
 *
 * An adapter is a directory with adapter_config.json and
 * adapter_model.safetensors or adapter_model.bin.  Only headers and configuration are read here.
 * Every tensor of the file ends up in a pair or in `saved`, is known to be for training only, is
 * listed as unused where that is allowed, or is an error.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_ADAPTER_H
#define ADAPTER_ADAPTER_H

#include "adapter/config.h"
#include "base/error.h"
#include "base/log.h"
#include "format/model.h"
#include "format/safetensors.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADAPTER_NO_TENSOR UINT32_MAX

/* What a module with factors is, by the names of its factors. */
enum adapter_layer {
    ADAPTER_LAYER_WEIGHT,   /* lora_A, lora_B: linear, Conv1D, convolution, attention, parameter */
    ADAPTER_LAYER_EMBEDDING /* lora_embedding_A, lora_embedding_B */
};

/* One LoRA module of the adapter: delta = scale * B A. */
struct adapter_pair {
    char *module; /* runtime path, "model.layers.0.self_attn.q_proj" */
    enum adapter_layer layer;
    uint32_t depth;            /* how many "base_layer." stood before the factors: parameters of one
                                  module are nested (the last one registered is outermost, 0) */
    bool parameter;            /* target_parameters names a parameter of this module: rank below is
                                  the rows of A, experts * r; scale is 0, since both depend on the
                                  parameter's name, which the key does not say */
    uint32_t tensor_a;         /* index in header.tensors: [rank, in, kernel...] */
    uint32_t tensor_b;         /* [out, rank, 1...] */
    uint32_t tensor_b_bias;    /* lora_B.bias [out], or ADAPTER_NO_TENSOR, as all below */
    uint32_t tensor_magnitude; /* of DoRA */
    uint32_t tensor_base;      /* the adapter's own copy of the base's tensor, which counts instead
                                  (PEFT saves one beside the factors of a head) */
    uint32_t rank;
    double scale; /* alpha/r or alpha/sqrt(r), before the weight */
};

/* A tensor of the adapter that stands for (rows of) one of the base. */
enum adapter_saved_kind {
    ADAPTER_SAVED_TENSOR, /* modules_to_save, a bias, an embedding saved whole */
    ADAPTER_SAVED_ROWS    /* trainable tokens; the indices stand in the configuration */
};

struct adapter_saved {
    enum adapter_saved_kind kind;
    char *name;      /* runtime name of the tensor: "model.norm.weight" */
    uint32_t tensor; /* index in header.tensors */
};

struct adapter {
    char *directory;
    char *weights_path;
    char *name;        /* last component of the directory: for messages, cards and manifest */
    char *config_text; /* adapter_config.json as read */
    size_t config_bytes;
    struct adapter_config config;
    struct st_header header;
    struct file_identity identity; /* of the weights file */
    uint64_t weights_bytes;
    uint64_t header_digest[2]; /* XXH3-128 (low, high) of prefix and JSON of the weights */
    uint64_t config_digest[2];
    struct adapter_pair *pairs; /* sorted by module */
    size_t pair_count;
    struct adapter_saved *saved; /* sorted by name */
    size_t saved_count;
    char **unused; /* names that allow_unused let pass */
    size_t unused_count;
};

/*
 * Open and check an adapter directory.  ERR_USAGE: not there.  ERR_FORMAT: no configuration (the
 * sentence says what a full model needs instead), damaged file, factor without its partner, two
 * tensors for one thing, factors that are not BF16/F16/F32 or whose shapes
 * or ranks fit neither each other nor the configuration, a tensor that is not understood.
 * ERR_MISMATCH: factors of a module that the configuration does not target, or a tensor of the base
 * that it does not say is saved; with allow_unused these, and what is not understood, are listed in
 * `unused` instead.
 */
int adapter_open(struct adapter *out, const char *path, bool allow_unused, const struct log *log,
                 struct error *err);
void adapter_release(struct adapter *adapter);

/* Free header and pairs once a plan has been made of them; names and counts stay. */
void adapter_forget_tensors(struct adapter *adapter);

#endif
