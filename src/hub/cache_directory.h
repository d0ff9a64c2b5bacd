/*
 * cache_directory.h - where the Hugging Face cache is, by huggingface_hub/constants.py
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef HUB_CACHE_DIRECTORY_H
#define HUB_CACHE_DIRECTORY_H

#include "base/text.h"

/* Append the path; HOME and the variables that cache.h names are read from the environment. */
void hub_add_cache_directory(struct text *out);

#endif
