#include "adapter/directory.h"
#include "adapter/pairs.h"
#include "base/bytes.h"
#include "base/dtype.h"

#include <inttypes.h>
#include <string.h>

#define DIMENSIONS_MAX 5u /* of a factor: a 3-D convolution */

static const uint64_t *shape_of(const struct adapter *adapter, uint32_t tensor)
{
    return st_shape(&adapter->header, &adapter->header.tensors[tensor]);
}

static unsigned dimensions(const struct adapter *adapter, uint32_t tensor)
{
    return adapter->header.tensors[tensor].shape_count;
}

/* How many blocks lie on the diagonals of the factors: only those of linear layers have several. */
static int find_blocks(const struct adapter *adapter, const struct adapter_pair *pair,
                       uint32_t *blocks_a, uint32_t *blocks_b, struct error *err)
{
    *blocks_a = 1;
    *blocks_b = 1;
    if (pair->layer != ADAPTER_LAYER_WEIGHT || pair->parameter)
        return 0;
    return adapter_config_blocks(&adapter->config, pair->module, blocks_a, blocks_b, err);
}

static int check_tensor(const struct adapter *adapter, uint32_t index, struct error *err)
{
    const struct st_tensor *tensor = &adapter->header.tensors[index];
    char quoted[QUOTED_BYTES];

    if (!dtype_is_computed((enum dtype)tensor->dtype))
        return error_set(err, ERR_FORMAT, "tensor '%s' is %s; factors are BF16, F16 or F32",
                         adapter_quote_tensor(quoted, adapter, index),
                         dtype_name((enum dtype)tensor->dtype));
    if (tensor->element_count == 0)
        return error_set(err, ERR_FORMAT, "tensor '%s' is empty",
                         adapter_quote_tensor(quoted, adapter, index));
    return 0;
}

/* A and B have two dimensions, or those of a convolution, where B's kernel is 1. */
static int check_dimensions(const struct adapter *adapter, const struct adapter_pair *pair,
                            struct error *err)
{
    bool matrix = pair->layer == ADAPTER_LAYER_EMBEDDING || pair->parameter;
    unsigned limit = matrix ? 2 : DIMENSIONS_MAX;
    const uint64_t *b = shape_of(adapter, pair->tensor_b);
    unsigned count = dimensions(adapter, pair->tensor_a);
    char quoted[QUOTED_BYTES];
    char quoted_b[QUOTED_BYTES];

    if (count < 2 || count > limit)
        return error_set(err, ERR_FORMAT, "tensor '%s' has %u dimensions; %s",
                         adapter_quote_tensor(quoted, adapter, pair->tensor_a), count,
                         matrix ? "factors of embeddings and parameters have 2"
                                : "factors have 2, and those of convolutions 3 to 5");
    if (dimensions(adapter, pair->tensor_b) != count)
        return error_set(err, ERR_FORMAT, "tensor '%s' has %u dimensions, but '%s' has %u",
                         adapter_quote_tensor(quoted, adapter, pair->tensor_a), count,
                         adapter_quote_tensor(quoted_b, adapter, pair->tensor_b),
                         dimensions(adapter, pair->tensor_b));
    for (unsigned i = 2; i < count; i++) {
        if (b[i] != 1)
            return error_set(err, ERR_FORMAT,
                             "tensor '%s' has a kernel that is not 1, which no B factor of a "
                             "convolution has",
                             adapter_quote_tensor(quoted_b, adapter, pair->tensor_b));
    }
    return 0;
}

/* The rank that B has; a block-diagonal one holds only the columns of its own block in each row. */
static int find_rank_of_b(const struct adapter *adapter, const struct adapter_pair *pair,
                          uint64_t *rank, struct error *err)
{
    const uint64_t *a = shape_of(adapter, pair->tensor_a);
    const uint64_t *b = shape_of(adapter, pair->tensor_b);
    uint32_t blocks_a;
    uint32_t blocks_b;
    char quoted[QUOTED_BYTES];

    *rank = b[1];
    if (find_blocks(adapter, pair, &blocks_a, &blocks_b, err))
        return err->code;
    if (blocks_a == 1 && blocks_b == 1)
        return 0;
    error_quote(quoted, sizeof(quoted), pair->module, strlen(pair->module));
    if (dimensions(adapter, pair->tensor_a) != 2)
        return error_set(err, ERR_FORMAT,
                         "module '%s' is a convolution, which has no block-diagonal factors",
                         quoted);
    if (a[0] % blocks_a || a[0] % blocks_b || b[0] % blocks_b)
        return error_set(err, ERR_FORMAT,
                         "module '%s' has rank %" PRIu64 " and %" PRIu64
                         " rows, which do not make %u blocks (nblocks)",
                         quoted, a[0], b[0], blocks_a > 1 ? blocks_a : blocks_b);
    if (!mul_u64(b[1], blocks_b, rank))
        *rank = UINT64_MAX;
    return 0;
}

static int check_ranks(const struct adapter *adapter, const struct adapter_pair *pair,
                       struct error *err)
{
    uint64_t rank_a = shape_of(adapter, pair->tensor_a)[0];
    uint64_t rank_b;
    char quoted[QUOTED_BYTES];
    bool convolution = dimensions(adapter, pair->tensor_a) > 2;

    if (find_rank_of_b(adapter, pair, &rank_b, err))
        return err->code;
    error_quote(quoted, sizeof(quoted), pair->module, strlen(pair->module));
    if (rank_a != rank_b)
        return error_set(err, ERR_FORMAT,
                         "module '%s' has an A factor of rank %" PRIu64 " and a B factor of rank "
                         "%" PRIu64 "%s",
                         quoted, rank_a, rank_b,
                         convolution && rank_a % rank_b == 0
                             ? ", as a convolution with groups has, which PEFT cannot merge either"
                             : "");
    if (rank_a > UINT32_MAX)
        return error_set(err, ERR_FORMAT, "module '%s' has factors of rank %" PRIu64 ", beyond %u",
                         quoted, rank_a, UINT32_MAX);
    if (!pair->parameter && rank_a != pair->rank)
        return error_set(err, ERR_FORMAT,
                         "module '%s' has factors of rank %" PRIu64
                         ", but r and rank_pattern of " ADAPTER_CONFIG_FILE " give %u",
                         quoted, rank_a, pair->rank);
    return 0;
}

/* One number for each output: no dimension but one differs from 1. */
static int check_vector(const struct adapter *adapter, const struct adapter_pair *pair,
                        uint32_t tensor, bool flat, struct error *err)
{
    uint64_t outputs = shape_of(adapter, pair->tensor_b)[0];
    const uint64_t *shape = shape_of(adapter, tensor);
    bool whole = false;
    char quoted[QUOTED_BYTES];
    int status = check_tensor(adapter, tensor, err);

    if (status)
        return status;
    for (unsigned i = 0; i < dimensions(adapter, tensor); i++)
        whole |= shape[i] == outputs;
    if (!whole || adapter->header.tensors[tensor].element_count != outputs ||
        (flat && dimensions(adapter, tensor) != 1))
        return error_set(err, ERR_FORMAT,
                         "tensor '%s' does not have one element for each of the %" PRIu64
                         " outputs of its factors",
                         adapter_quote_tensor(quoted, adapter, tensor), outputs);
    return 0;
}

/* PEFT leaves out what the configuration does not know, and starts what the file lacks anew. */
static int check_presence(const struct adapter_pair *pair, bool configured, uint32_t tensor,
                          const char *what, const char *field, struct error *err)
{
    char quoted[QUOTED_BYTES];

    if (configured == (tensor != ADAPTER_NO_TENSOR))
        return 0;
    error_quote(quoted, sizeof(quoted), pair->module, strlen(pair->module));
    return configured
               ? error_set(err, ERR_FORMAT,
                           "'%s' is true in " ADAPTER_CONFIG_FILE ", but module '%s' has no %s",
                           field, quoted, what)
               : error_set(err, ERR_FORMAT,
                           "module '%s' has a %s, but '%s' of " ADAPTER_CONFIG_FILE
                           " is not true, so PEFT would ignore it",
                           quoted, what, field);
}

int adapter_check_factors(const struct adapter *adapter, const struct adapter_pair *pair,
                          struct error *err)
{
    const struct adapter_config *config = &adapter->config;

    if (check_tensor(adapter, pair->tensor_a, err) || check_tensor(adapter, pair->tensor_b, err) ||
        check_dimensions(adapter, pair, err) || check_ranks(adapter, pair, err) ||
        check_presence(pair, config->lora_bias, pair->tensor_b_bias, "lora_B.bias", "lora_bias",
                       err) ||
        check_presence(pair, config->dora, pair->tensor_magnitude, "lora_magnitude_vector",
                       "use_dora", err))
        return err->code;
    if (pair->tensor_b_bias != ADAPTER_NO_TENSOR &&
        check_vector(adapter, pair, pair->tensor_b_bias, true, err))
        return err->code;
    if (pair->tensor_magnitude != ADAPTER_NO_TENSOR &&
        check_vector(adapter, pair, pair->tensor_magnitude, false, err))
        return err->code;
    return 0;
}

int adapter_check_copy(const struct adapter *adapter, const struct adapter_pair *pair,
                       uint32_t tensor, struct error *err)
{
    const struct st_tensor *copy = &adapter->header.tensors[tensor];
    const uint64_t *shape = st_shape(&adapter->header, copy);
    const uint64_t *a = shape_of(adapter, pair->tensor_a);
    bool embedding = pair->layer == ADAPTER_LAYER_EMBEDDING;
    uint64_t outer = shape_of(adapter, pair->tensor_b)[0];
    uint64_t inner = a[1];
    bool fits = copy->shape_count == dimensions(adapter, pair->tensor_a);
    uint32_t blocks_a;
    uint32_t blocks_b;
    char quoted[QUOTED_BYTES];

    adapter_quote_tensor(quoted, adapter, tensor);
    if (!dtype_is_computed((enum dtype)copy->dtype))
        return error_set(err, ERR_FORMAT,
                         "tensor '%s' is %s; weights that are folded are BF16, F16 or F32", quoted,
                         dtype_name((enum dtype)copy->dtype));
    if (find_blocks(adapter, pair, &blocks_a, &blocks_b, err))
        return err->code;
    if (!mul_u64(inner, blocks_a, &inner))
        inner = UINT64_MAX;
    if (embedding || (adapter->config.fan_in_fan_out && copy->shape_count == 2 &&
                      shape[0] == inner && shape[1] == outer)) {
        uint64_t swapped = outer;

        outer = inner;
        inner = swapped;
    }
    fits = fits && shape[0] == outer && shape[1] == inner;
    for (unsigned i = 2; fits && i < copy->shape_count; i++)
        fits = shape[i] == a[i];
    if (!fits)
        return error_set(
            err, ERR_FORMAT,
            "tensor '%s' does not have the shape [%" PRIu64 ", %" PRIu64 "%s] of its factors",
            quoted, outer, inner, dimensions(adapter, pair->tensor_a) > 2 ? ", kernel" : "");
    return 0;
}
