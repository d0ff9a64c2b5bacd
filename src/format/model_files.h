/*
 * model_files.h - which files of a directory hold weights, by their names
 *
 * Only for model.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_MODEL_FILES_H
#define FORMAT_MODEL_FILES_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define MODEL_FILE "model.safetensors"
#define MODEL_INDEX_FILE "model.safetensors.index.json"

/* More weight files than this in one directory are refused. */
#define WEIGHT_FILES_MAX 200000u

enum weight_kind {
    WEIGHT_NONE,
    WEIGHT_SAFETENSORS,
    WEIGHT_ADAPTER,      /* adapter_*: of PEFT */
    WEIGHT_CONSOLIDATED, /* consolidated*: a second copy in its maker's own layout */
    WEIGHT_PICKLE,
    WEIGHT_GGUF
};

struct weight_file {
    char *name;
    enum weight_kind kind;
};

struct weight_files {
    struct weight_file *files; /* sorted by name */
    size_t count;
    size_t counts[WEIGHT_GGUF + 1]; /* of each kind */
    bool has_index;
    bool has_model;
    bool has_adapter_config;
};

/* Hidden files (also those that macOS leaves beside every file) are WEIGHT_NONE. */
enum weight_kind weight_kind_of(const char *name);

/* List the directory; on success the caller releases *out. */
int weight_files_scan(struct weight_files *out, const char *directory, struct error *err);
void weight_files_release(struct weight_files *files);

/* The first file of this kind; there must be one. */
const char *weight_files_first(const struct weight_files *files, enum weight_kind kind);

/*
 * Why a directory without index and model.safetensors cannot be read as a base: ERR_FORMAT with
 * what it holds instead and what to do.
 */
int weight_files_refuse(const struct weight_files *files, const char *directory, struct error *err);

/* The same for a single file of a kind that is not read; 0 if it may be. */
int weight_file_refuse(const char *path, const char *name, struct error *err);

#endif
