/*
 * directory.h - finding the files of an adapter, and saying what else a path may be
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_DIRECTORY_H
#define ADAPTER_DIRECTORY_H

#include "base/error.h"

#define ADAPTER_CONFIG_FILE "adapter_config.json"
#define ADAPTER_WEIGHTS_FILE "adapter_model.safetensors"

/*
 * The directory of the adapter at `path`, which is the directory itself or its weights file; the
 * caller frees *out.  ERR_USAGE: nothing there.  ERR_FORMAT: a full model, an adapter saved as
 * pickle, or a directory that lacks one of the two files, with what to do.
 */
int adapter_directory_find(char **out, const char *path, struct error *err);

/* "<directory>/<name>", freed by the caller; NULL if there is no memory. */
char *adapter_directory_join(const char *directory, const char *name);

#endif
