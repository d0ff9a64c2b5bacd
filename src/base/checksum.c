#include "base/checksum.h"

#include <zlib.h>

uint32_t checksum_bytes(const void *bytes, size_t count)
{
    return (uint32_t)crc32_z(0, bytes, count);
}

uint32_t checksum_shift(uint32_t checksum, uint64_t bytes_behind)
{
    return (uint32_t)crc32_combine(checksum, 0, (z_off_t)bytes_behind);
}
