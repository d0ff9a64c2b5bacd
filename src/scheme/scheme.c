#include "scheme/scheme.h"

#include "scheme/families.h"
#include "scheme/view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void scheme_release(struct scheme_base *base)
{
    model_release(&base->view);
    free(base->tensors);
    free(base->stored);
    *base = (struct scheme_base){ 0 };
}

static const char *kind_name(const struct scheme_tensor *tensor)
{
    switch (tensor->kind) {
    case SCHEME_BNB4:
        return tensor->matrix.codes == QUANT_NF4 ? "bitsandbytes nf4" : "bitsandbytes fp4";
    case SCHEME_BNB8:
        return "bitsandbytes int8";
    case SCHEME_FP8_BLOCK:
        return "FP8 in blocks";
    case SCHEME_FP8_CHANNEL:
        return "FP8 with scales of rows or tensors";
    case SCHEME_MXFP4:
        return "MXFP4";
    case SCHEME_NVFP4:
        return "NVFP4";
    case SCHEME_PACKED:
        return "packed integers";
    case SCHEME_INT8:
        return "integers of 8 bits";
    case SCHEME_GPTQ:
        return "GPTQ";
    case SCHEME_AWQ:
        return "AWQ";
    case SCHEME_TORCHAO:
        return "torchao";
    case SCHEME_HQQ:
        return "HQQ";
    case SCHEME_MLX:
        return "MLX";
    case SCHEME_PLAIN:
        break;
    }
    return "tensors under other names";
}

/* The kinds that there are, in the order in which they come. */
static void summarise(struct scheme_base *base, const struct scheme_find *find)
{
    size_t used = 0;

    for (size_t i = 0; i < find->item_count && used < sizeof(base->summary); i++) {
        const char *name = kind_name(&find->items[i].tensor);

        if (!strstr(base->summary, name))
            used += (size_t)snprintf(base->summary + used, sizeof(base->summary) - used, "%s%s",
                                     used ? ", " : "", name);
    }
    if (used < sizeof(base->summary))
        snprintf(base->summary + used, sizeof(base->summary) - used, ", %zu tensor%s",
                 find->item_count, find->item_count == 1 ? "" : "s");
}

static int make(struct scheme_base *base, struct scheme_find *find, struct error *err)
{
    if (families_find(find, err) || leftovers_check(find, err))
        return err->code;
    if (find->item_count == 0)
        return 0;
    if (view_make(base, find, err))
        return err->code;
    base->quantised = true;
    for (size_t i = 0; i < find->item_count; i++)
        base->quantised_count += find->items[i].tensor.kind != SCHEME_PLAIN;
    base->companion_count = find->companion_count;
    summarise(base, find);
    log_say(find->log, LOG_DETAIL, "the base is quantised (%s), with %zu companions", base->summary,
            base->companion_count);
    return 0;
}

int scheme_read_base(struct scheme_base *out, const struct model *model, const char *config,
                     size_t config_bytes, const char *extra, size_t extra_bytes,
                     const struct log *log, struct error *err)
{
    struct scheme_find find = { 0 };
    struct scheme_base base = { 0 };
    struct error ours = { 0 };
    int status = find_init(&find, model, log, &ours);

    if (!status)
        status = scheme_config_read(&find.config, config, config_bytes, extra, extra_bytes, &ours);
    if (!status)
        status = make(&base, &find, &ours);
    find_release(&find);
    if (status) {
        scheme_release(&base);
        *err = ours;
        return status;
    }
    *out = base;
    return 0;
}
