/*
 * torch_file.h - the tensors of a torch.save() file, read without running anything
 *
 * Such a file (adapter_model.bin) is a ZIP archive of stored entries: a pickle,
 * which says what the tensors are, and the bytes of each storage.  Pickles are
 * programs; only the few instructions and names that torch writes for a flat
 * dict of tensors are known here, and everything else is refused by its name.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_TORCH_FILE_H
#define FORMAT_TORCH_FILE_H

#include "base/error.h"
#include "format/safetensors.h"

#include <stdint.h>

/*
 * Read what st_header_read() reads of a safetensors file, to be used in the same way: data_start is
 * 0, so that data_offset is the place of a tensor's bytes in the file; tensors may share bytes and
 * leave holes; digest covers the archive's directory, which has a checksum of every entry, and the
 * pickle.  Tensors are contiguous, in rows, little-endian.
 *
 * ERR_USAGE: not there.  ERR_FORMAT: damaged; a value that is no tensor, a tensor that is not
 * contiguous, an instruction or name that is not known, each by name; a file of torch before 1.6 or
 * a TorchScript archive, with the way out.  Sentences name the path.
 */
int torch_file_read(struct st_header *out, const char *path, uint64_t *file_bytes,
                    struct error *err);

#endif
