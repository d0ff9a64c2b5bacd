#include "adapter/experts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *quote(char buf[QUOTED_BYTES], const char *text)
{
    return error_quote(buf, QUOTED_BYTES, text, strlen(text));
}

static const char *last_component(const char *module)
{
    const char *dot = strrchr(module, '.');

    return dot ? dot + 1 : module;
}

/*
 * PEFT's rule has changed with its version, and asks the model's class for is_transposed, which
 * transformers knows since 5.0:
 *
 *     PEFT                 is_transposed true   otherwise
 *     0.17.0 to 0.18.1     (B A)^T              (B A)^T
 *     0.19.0               B A                  (B A)^T
 *     from 0.19.1          (B A)^T              B A
 *
 * The version of transformers stands nowhere, so for models that it changed only the first row
 * says something.  False: nothing is known.
 */
static bool transposed_by_version(bool *transposed, const char *version, const char *model_type)
{
    static const char *const changed[] = { "gpt_oss", "openai_privacy_filter", "aria",
                                           "aria_text" };
    /* Loaded transposed by newer versions of transformers. */
    static const char *const reloaded[] = { "qwen3_vl_moe", "qwen3_vl_moe_text" };
    unsigned number[3];
    int end = 0;
    unsigned long long value;
    bool has_attribute = false;

    if (!version || !model_type[0] ||
        sscanf(version, "%3u.%3u.%3u%n", &number[0], &number[1], &number[2], &end) != 3 || !end)
        return false;
    for (size_t i = 0; i < COUNT(reloaded); i++) {
        if (strcmp(model_type, reloaded[i]) == 0)
            return false;
    }
    for (size_t i = 0; i < COUNT(changed); i++)
        has_attribute |= strcmp(model_type, changed[i]) == 0;
    value = (number[0] * 1000ull + number[1]) * 1000ull + number[2];
    if (value < 17000)
        return false; /* there were no target_parameters */
    if (has_attribute) {
        *transposed = true;
        return value <= 18001;
    }
    *transposed = value <= 19000;
    return value != 19001 || (strstr(version + end, "dev") == NULL);
}

/* Does another pair of the adapter tell, one whose matrices are not square? */
static int transposed_by_others(bool *transposed, bool *decided, const struct expert_pair *pair,
                                struct error *err)
{
    const struct adapter *adapter = pair->context->adapter;
    const char *last = last_component(pair->pair->module);
    int status = 0;

    for (size_t i = 0; i < adapter->pair_count && !*decided && !status; i++) {
        const struct adapter_pair *other = &adapter->pairs[i];
        struct expert_parameter parameter = { 0 };
        struct expert_pair work;
        bool found;

        if (!other->parameter || strcmp(last_component(other->module), last) != 0)
            continue;
        status = expert_pair_init(&work, pair->context, (uint32_t)i, err);
        if (!status && work.in != work.out)
            status = expert_parameter_find(&parameter, &found, &work, err);
        if (!status && parameter.place.kind != EXPERTS_NOWHERE &&
            parameter.place.kind != EXPERTS_MATRIX) {
            *transposed = parameter.place.rows == work.in;
            *decided = true;
        }
        expert_place_release(&parameter.place);
        expert_pair_release(&work);
    }
    return status;
}

int expert_is_transposed(bool *transposed, const struct expert_pair *pair,
                         const struct expert_place *place, struct error *err)
{
    const struct adapter_config *config = &pair->context->adapter->config;
    char quoted[2][QUOTED_BYTES];
    bool decided = false;
    int status;

    *transposed = false;
    if (place->kind == EXPERTS_MATRIX)
        return 0;
    if (pair->in != pair->out) {
        *transposed = place->rows == pair->in;
        return 0;
    }
    status = transposed_by_others(transposed, &decided, pair, err);
    if (status || decided ||
        transposed_by_version(transposed, config->peft_version,
                              pair->context->options->facts->model_type))
        return status;
    return error_set(err, ERR_MISMATCH,
                     "the experts of module '%s' are square, %" PRIu64 " by %" PRIu64 ", and "
                     "nothing in the adapter tells whether its factors make the matrix or its "
                     "transpose: that depends on the versions of PEFT (peft_version is '%s') and "
                     "transformers that trained it, so it cannot be folded safely",
                     quote(quoted[0], pair->pair->module), pair->in, pair->in,
                     config->peft_version ? quote(quoted[1], config->peft_version) : "not there");
}

int expert_b_is_grouped(bool *grouped, const struct edits_context *context, uint64_t count,
                        uint32_t rank, struct error *err)
{
    const struct adapter_config *config = &context->adapter->config;
    char quoted[QUOTED_BYTES];

    *grouped = context->options->b_layout == EDIT_B_EXPERT_MAJOR;
    if (count == 1 || rank == 1 || context->options->b_layout != EDIT_B_AUTO)
        return 0;
    if (config->b_layout) {
        *grouped = strcmp(config->b_layout, "grouped_by_expert") == 0;
        if (*grouped || strcmp(config->b_layout, "rank_major") == 0)
            return 0;
        return error_set(err, ERR_FORMAT,
                         "'lora_B_layout' is '%s', which is not known; say how the columns of the "
                         "experts' B factors are ordered with --lora-b-layout",
                         quote(quoted, config->b_layout));
    }
    if (config->unsloth)
        return error_set(err, ERR_FORMAT,
                         "the adapter was trained with Unsloth and does not say ('lora_B_layout') "
                         "how the columns of its experts' B factors are ordered, which its "
                         "versions before September 2026 did otherwise than PEFT; pass "
                         "--lora-b-layout expert-major for those, or rank-major");
    if (!config->peft_version)
        return error_set(err, ERR_FORMAT,
                         "the adapter does not say what wrote it (there is no 'peft_version'), so "
                         "how the columns of its experts' B factors are ordered is not known; pass "
                         "--lora-b-layout rank-major (PEFT) or expert-major");
    return 0;
}
