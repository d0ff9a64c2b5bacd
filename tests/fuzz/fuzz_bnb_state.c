/*
 * Any bytes as the quant_state of a 4-bit weight: what is admitted has numbers that can be used.
 */

#include "fuzz/fuzz.h"
#include "scheme/bnb_state.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bnb_state state = { 0 };
    struct error err = { 0 };

    if (bnb_state_read(&state, (const char *)data, size, &err)) {
        FUZZ_CHECK(err.code == ERR_FORMAT && err.text[0]);
        return 0;
    }
    FUZZ_CHECK(state.blocksize >= 1 && dtype_is_computed(state.dtype));
    FUZZ_CHECK(state.shape_count >= 1 && state.shape_count <= ST_RANK_MAX);
    for (size_t i = 0; i < state.shape_count; i++)
        FUZZ_CHECK(state.shape[i] >= 1);
    FUZZ_CHECK(isfinite(state.nested_offset));
    return 0;
}
