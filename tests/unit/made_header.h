/*
 * made_header.h - headers of adapters that tests write down as tables
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_UNIT_MADE_HEADER_H
#define TESTS_UNIT_MADE_HEADER_H

#include "base/text.h"
#include "format/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Name, shape of up to five dimensions that ends in 0, and F32 unless said. */
struct made {
    const char *name;
    uint64_t shape[6];
    enum dtype dtype;
};

static inline void made_parse(struct st_header *header, const struct made *tensors, size_t count)
{
    struct text json = { 0 };
    struct error err = { 0 };
    uint64_t offset = 0;

    st_emit_begin(&json, NULL, 0);
    for (size_t i = 0; i < count; i++) {
        enum dtype dtype = tensors[i].dtype ? tensors[i].dtype : DTYPE_F32;
        uint64_t bytes = dtype_bytes(dtype);
        size_t dimensions = 0;

        for (; tensors[i].shape[dimensions]; dimensions++)
            bytes *= tensors[i].shape[dimensions];
        st_emit_tensor(&json, tensors[i].name, strlen(tensors[i].name), dtype, tensors[i].shape,
                       dimensions, offset, bytes);
        offset += bytes;
    }
    st_emit_end(&json, 0, 8);
    assert_false(json.failed);
    assert_int_equal(st_header_parse(header, json.data, json.bytes, offset, &err), 0);
    text_release(&json);
}

static inline size_t made_count(const struct made *tensors, size_t limit)
{
    size_t count = 0;

    while (count < limit && tensors[count].name)
        count++;
    return count;
}

#endif
