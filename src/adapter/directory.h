/*
 * directory.h - finding the files of an adapter, and saying what else a path may be
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_DIRECTORY_H
#define ADAPTER_DIRECTORY_H

#include "base/error.h"
#include "base/log.h"

#define ADAPTER_CONFIG_FILE "adapter_config.json"
#define ADAPTER_WEIGHTS_FILE "adapter_model.safetensors"
#define ADAPTER_TORCH_FILE "adapter_model.bin"

/* Which file has the weights, and so which reader takes it. */
enum adapter_weights {
    ADAPTER_SAFETENSORS, /* ADAPTER_WEIGHTS_FILE, st_header_read() */
    ADAPTER_TORCH        /* ADAPTER_TORCH_FILE, torch_file_read() */
};

/*
 * The directory and the weights of the adapter at `path`: a directory, or the configuration or a
 * weights file in one.  A directory without a configuration stands for the one adapter in its
 * sub-directories, or for the last of its checkpoints where these are all that it has; the log
 * gets a notice then.  The caller frees *out.
 *
 * ERR_USAGE: nothing there, or several adapters, which are named.  ERR_FORMAT: a full model, or a
 * directory that lacks one of the two files, with what to do.
 */
int adapter_directory_find(char **out, enum adapter_weights *weights, const char *path,
                           const struct log *log, struct error *err);

/* The name of the weights file. */
const char *adapter_weights_name(enum adapter_weights weights);

/* "<directory>/<name>", freed by the caller; NULL if there is no memory. */
char *adapter_directory_join(const char *directory, const char *name);

#endif
