/*
 * made_torch.h - files of torch.save() that a merge has written, as models for tests
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_MADE_TORCH_H
#define TESTS_MADE_TORCH_H

#include "format/model.h"

/*
 * Open the model in a directory by its files that end in .bin, or, where it has none, as any other;
 * the caller releases *out.  Fails the test where a file is not sound: headers that differ from
 * the directory of the archive, descriptors behind storages, checksums, places that are not
 * aligned.
 */
void made_open_output(struct model *out, const char *directory);

#endif
