#include "merge.h"

#include "merge_push.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SHARD_BYTES_DEFAULT UINT64_C(5000000000)
#define MEMORY_BYTES_DEFAULT (128 * MIB)
#define MAX_SHARD_BYTES_MIN UINT64_C(1000)

void lorafold_merge_options_init(struct lorafold_merge_options *options)
{
    *options = (struct lorafold_merge_options){ .max_shard_bytes = MAX_SHARD_BYTES_DEFAULT,
                                                .memory_bytes = MEMORY_BYTES_DEFAULT,
                                                .safe_serialization = true };
}

void merge_log(void *context, enum log_level level, const char *sentence)
{
    struct lorafold_merge *merge = context;

    if (merge->options.message)
        merge->options.message(merge->options.context, (enum lorafold_level)level, sentence);
}

static int choose(const char *text, const char *option, const char *const *names, int count,
                  int *out, struct error *err)
{
    *out = 0;
    if (!text)
        return 0;
    for (int i = 1; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return 0;
        }
    }
    return error_set(err, ERR_USAGE, "%s '%s' is not known", option, text);
}

static int check_4bit(const struct lorafold_merge_options *options, struct error *err)
{
    bool encode = options->save_method == LORAFOLD_MERGED_4BIT;
    bool roundtrip = options->base_numerics == LORAFOLD_NUMERICS_NF4_ROUNDTRIP;
    const char *idle = NULL;

    if (options->quant_type != LORAFOLD_NF4)
        idle = "--quant-type";
    else if (options->single_quant)
        idle = "--no-double-quant";
    if (idle && !encode)
        return error_set(err, ERR_USAGE, "%s is for --save-method merged_4bit only", idle);
    if (options->skip_count && !encode && !roundtrip)
        return error_set(err, ERR_USAGE,
                         "--skip is for --save-method merged_4bit and --base-numerics "
                         "nf4-roundtrip only");
    if (encode && options->allow_nonfinite)
        return error_set(err, ERR_USAGE,
                         "--allow-nonfinite does not go with --save-method merged_4bit: codes of "
                         "4 bits have no NaN");
    return 0;
}

struct machine_request merge_machine_request(const struct lorafold_merge_options *options)
{
    return (struct machine_request){ .device = options->device,
                                     .memory_bytes = options->gpu_memory_bytes,
                                     .memory_fraction = options->gpu_memory_fraction };
}

static int read_options(struct lorafold_merge *merge, struct error *err)
{
    static const char *const rings[] = { NULL, "uring", "threads" };
    static const char *const directs[] = { NULL, "off", "on" };
    const struct lorafold_merge_options *options = &merge->options;
    const struct machine_request request = merge_machine_request(options);
    int ring;
    int direct;

    if (choose(options->io_engine, "I/O engine", rings, 3, &ring, err) ||
        choose(options->io_direct, "direct I/O", directs, 3, &direct, err))
        return err->code;
    if (machine_check_request(&request, err))
        return err->code;
    merge->ring = (enum ring_kind)ring;
    merge->direct = (enum file_direct)direct;
    merge->quant = cpu_quant_find(options->kernels);
    merge->encode = cpu_encode_find(options->kernels);
    merge->ops = cpu_fold_find(options->kernels);
    if (!merge->ops)
        return error_set(err, ERR_USAGE, "kernels '%s' cannot run on this processor",
                         options->kernels);
    if ((unsigned)options->dtype > LORAFOLD_DTYPE_F32 ||
        (unsigned)options->tied > LORAFOLD_TIED_SHARED ||
        (unsigned)options->b_layout > LORAFOLD_B_EXPERT_MAJOR ||
        (unsigned)options->base_numerics > LORAFOLD_NUMERICS_NF4_ROUNDTRIP ||
        (unsigned)options->quant_type > LORAFOLD_FP4 ||
        (unsigned)options->save_method > LORAFOLD_SAME ||
        (unsigned)options->clone > LORAFOLD_CLONE_ALWAYS)
        return error_set(err, ERR_USAGE, "an option has a value that is not in its enumeration");
    if (writes_adapter(merge) && lora_check_options(options, err))
        return err->code;
    if (options->variant && plan_check_variant(options->variant, err))
        return err->code;
    if (check_4bit(options, err) || original_check_options(options, err) ||
        merge_push_check(merge, err))
        return err->code;
    if (options->max_shard_bytes < MAX_SHARD_BYTES_MIN)
        return error_set(err, ERR_USAGE,
                         "--max-shard-size %" PRIu64 " is below the least of %" PRIu64 " bytes",
                         options->max_shard_bytes, MAX_SHARD_BYTES_MIN);
    return 0;
}

/*
 * What the output may not touch, as a list that the caller frees: the directories of base,
 * adapters and tokenizer, and each file of weights or beside them, which may be a link to
 * somewhere else.
 */
const char **merge_list_inputs(const struct lorafold_merge *merge, size_t *count)
{
    const char **list = calloc(merge->base->model.shard_count + 2 * merge->adapter_count +
                                   merge->side_files.count + 2,
                               sizeof(*list));

    *count = 0;
    if (!list)
        return NULL;
    if (merge->base->source.path)
        list[(*count)++] = merge->base->model.directory ? merge->base->model.directory
                                                        : merge->base->source.path;
    for (size_t i = 0; i < merge->base->model.shard_count; i++)
        list[(*count)++] = merge->base->model.shards[i].path;
    for (size_t i = 0; i < merge->adapter_count; i++) {
        list[(*count)++] = merge->adapters[i].directory;
        list[(*count)++] = merge->adapters[i].weights_path;
    }
    for (size_t i = 0; i < merge->side_files.count; i++)
        list[(*count)++] = merge->side_files.list[i].path;
    if (merge->tokenizer.path)
        list[(*count)++] = merge->tokenizer.path;
    return list;
}

static uint64_t side_bytes(const struct lorafold_merge *merge)
{
    uint64_t bytes = merge->base->config_bytes + MIB; /* card, manifest and index: bounded below */

    for (size_t i = 0; i < merge->adapter_count; i++)
        bytes += merge->adapters[i].config_bytes;
    for (size_t i = 0; i < merge->side_files.count; i++)
        bytes += merge->side_files.list[i].bytes;
    return bytes + merge->plan.headers_bytes + merge->plan.block_count * 40;
}

uint64_t merge_disk_bytes(const struct lorafold_merge *merge)
{
    return merge_push_disk_bytes(merge) + merge->plan.repack_bytes + side_bytes(merge);
}

static int check_output(struct lorafold_merge *merge, const char *const *inputs, size_t count,
                        struct error *err)
{
    uint64_t needed = merge_disk_bytes(merge);
    uint64_t available;
    struct text sizes = { 0 };

    if (outdir_check(merge->options.output, merge->options.overwrite, inputs, count, err) ||
        outdir_free_bytes(merge->options.output, &available, err))
        return err->code;
    if (needed <= available)
        return 0;
    text_add_bytes(&sizes, needed);
    text_adds(&sizes, " are needed, ");
    text_add_bytes(&sizes, available);
    text_adds(&sizes, " are free");
    error_set(err, ERR_FAILED, "no space for '%s': %s", merge->options.output,
              sizes.failed ? "" : sizes.data);
    text_release(&sizes);
    return err->code;
}

static uint64_t header_memory(const struct st_header *header)
{
    return header->tensor_count * sizeof(*header->tensors) + header->names_bytes +
           header->shapes_count * sizeof(*header->shapes) + header->metadata_bytes;
}

/* What adapter_forget_tensors() gives back. */
static uint64_t adapter_memory(const struct adapter *adapter)
{
    uint64_t bytes = header_memory(&adapter->header) +
                     adapter->pair_count * sizeof(*adapter->pairs) +
                     adapter->saved_count * sizeof(*adapter->saved);

    for (size_t i = 0; i < adapter->pair_count; i++)
        bytes += strlen(adapter->pairs[i].module) + 32; /* with what the allocator adds */
    return bytes;
}

uint64_t base_memory(const struct base *base)
{
    uint64_t bytes = base->model.tensor_count * sizeof(*base->model.by_name) + base->config_bytes;

    for (size_t i = 0; i < base->model.shard_count; i++)
        bytes += header_memory(&base->model.shards[i].header) + sizeof(struct model_shard) + 256;
    if (base->scheme.quantised)
        bytes += base->scheme.view.tensor_count *
                 (sizeof(*base->scheme.tensors) + sizeof(*base->scheme.stored) +
                  sizeof(*base->model.by_name));
    for (size_t i = 0; base->scheme.quantised && i < base->scheme.view.shard_count; i++)
        bytes += header_memory(&base->scheme.view.shards[i].header) + sizeof(struct model_shard);
    return bytes;
}

uint64_t merge_memory(const struct lorafold_merge *merge)
{
    return merge->plan.block_count * sizeof(struct digest);
}

/* What torchao and MLX need to know of their tensors stands in the headers of safetensors files. */
static bool needs_metadata(const struct scheme_base *scheme)
{
    for (size_t i = 0; i < scheme->view.tensor_count; i++) {
        if (scheme->tensors[i].kind == SCHEME_TORCHAO || scheme->tensors[i].kind == SCHEME_MLX)
            return true;
    }
    return false;
}

static int check_same(const struct lorafold_merge *merge, struct error *err)
{
    const struct scheme_base *scheme = &merge->base->scheme;

    if (merge->options.save_method != LORAFOLD_SAME)
        return 0;
    if (scheme->quantised && !merge->options.safe_serialization && needs_metadata(scheme))
        return error_set(
            err, ERR_USAGE,
            "--save-method same of this base (%s) needs safetensors, whose headers say "
            "how its tensors belong together: leave out --no-safe-serialization",
            scheme->summary);
    if (!scheme->quantised)
        log_say(&merge->log, LOG_NOTICE,
                "the base is not quantised, so --save-method same is merged_16bit");
    else if (merge->options.dtype != LORAFOLD_DTYPE_KEEP)
        return error_set(err, ERR_USAGE,
                         "--dtype means nothing with --save-method same, which keeps the scheme of "
                         "the base (%s); leave it out",
                         merge->base->scheme.summary);
    return 0;
}

static int make_plan(struct lorafold_merge *merge, struct error *err)
{
    static const enum edit_b_layout layouts[] = { EDIT_B_AUTO, EDIT_B_RANK_MAJOR,
                                                  EDIT_B_EXPERT_MAJOR };
    static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_BF16, DTYPE_F16, DTYPE_F32 };
    const struct lorafold_merge_options *options = &merge->options;
    const struct plan_options plan_options = {
        .convert = options->dtype != LORAFOLD_DTYPE_KEEP,
        .dtype = dtypes[options->dtype],
        .tied = options->tied == LORAFOLD_TIED_SHARED ? PLAN_TIED_SHARED : PLAN_TIED_EXACT,
        .max_shard_bytes = options->max_shard_bytes,
        .strict = options->strict,
        .allow_unused = options->allow_unused,
        .b_layout = layouts[options->b_layout],
        .scheme = merge->base->scheme.quantised ? &merge->base->scheme : NULL,
        .stored = keeps_scheme(merge) ? &merge->base->model : NULL,
        .roundtrip = options->base_numerics == LORAFOLD_NUMERICS_NF4_ROUNDTRIP,
        .encode = options->save_method == LORAFOLD_MERGED_4BIT,
        .codes = options->quant_type == LORAFOLD_FP4 ? QUANT_FP4_BNB : QUANT_NF4,
        .nested = !options->single_quant,
        .skip = options->skip,
        .skip_count = options->skip_count,
        .torch = !options->safe_serialization,
        .variant = options->variant,
    };
    int status;

    if (check_same(merge, err))
        return err->code;
    if (writes_adapter(merge))
        status = lora_plan(merge, &plan_options, err);
    else
        status = plan_make(&merge->plan,
                           merge->base->scheme.quantised ? &merge->base->scheme.view
                                                         : &merge->base->model,
                           merge->plan_adapters, merge->adapter_count, &plan_options,
                           &merge->base->facts, &merge->log, err);
    if (status)
        return status;
    for (size_t i = 0; i < merge->adapter_count; i++) {
        merge->plan.passing_bytes += adapter_memory(&merge->adapters[i]);
        adapter_forget_tensors(&merge->adapters[i]);
    }
    if (clones_find(merge, err))
        return err->code;
    malloc_trim(0); /* headers of 100,000 tensors leave holes that would count against the budget */
    return 0;
}

int merge_plan(struct lorafold_merge *merge, struct error *err)
{
    if (read_options(merge, err) || inputs_open(merge, err) || side_files_find(merge, err))
        return err->code;
    return make_plan(merge, err);
}

/* Choose what computes, and spend the budgets. */
static int fit(struct lorafold_merge *merge, struct error *err)
{
    const struct lorafold_merge_options *options = &merge->options;
    const struct machine_request request = merge_machine_request(options);
    struct plan_budget budget = { .bytes = options->memory_bytes,
                                  .threads = options->threads,
                                  .processors = cpu_count(),
                                  .extra_bytes = base_memory(merge->base) + merge_memory(merge) +
                                                 merge_push_memory(merge) };
    struct plan *plans[] = { &merge->plan };
    struct plan_memory memory;

    if (machine_fit(&merge->machine, &request, &memory, plans, 1, &budget, &merge->log, err))
        return err->code;
    merge->plan.memory = memory;
    return 0;
}

static int open_merge(struct lorafold_merge *merge, struct error *err)
{
    const char **inputs;
    size_t count;
    int status;

    if (merge_plan(merge, err) || fit(merge, err))
        return err->code;
    if (!merge->options.output)
        return 0;
    inputs = merge_list_inputs(merge, &count);
    if (!inputs)
        return error_no_memory(err, "the list of inputs");
    status = check_output(merge, inputs, count, err);
    free(inputs);
    if (!status)
        status = clones_check(merge, err);
    return status;
}

int lorafold_merge_open(struct lorafold_merge **out, const struct lorafold_merge_options *options,
                        struct lorafold_error *err)
{
    struct lorafold_merge *merge = calloc(1, sizeof(*merge));
    struct error inner = { 0 };

    if (!merge) {
        error_no_memory(&inner, "a merge");
        return give_error(err, &inner);
    }
    merge->opened_at = clock_seconds();
    merge->options = *options;
    merge->log = (struct log){ merge_log, merge };
    merge->base = calloc(1, sizeof(*merge->base));
    if (!merge->base)
        error_no_memory(&inner, "the base");
    if (!merge->base || open_merge(merge, &inner)) {
        lorafold_merge_close(merge);
        return give_error(err, &inner);
    }
    merge->report.seconds_planning = clock_seconds() - merge->opened_at;
    *out = merge;
    return 0;
}

void lorafold_merge_cancel(struct lorafold_merge *merge)
{
    pipeline_cancel(&merge->stop);
}

void lorafold_merge_report(const struct lorafold_merge *merge, struct lorafold_report *out)
{
    *out = merge->report;
}

void lorafold_merge_close(struct lorafold_merge *merge)
{
    struct base *base = merge ? merge->base : NULL;

    merge_free(merge);
    if (base)
        base_release(base);
    free(base);
}

void merge_free(struct lorafold_merge *merge)
{
    if (!merge)
        return;
    machine_close(&merge->machine);
    output_files_release(&merge->files);
    free(merge->order.digests);
    free(merge->order.cloned);
    plan_release(&merge->plan);
    side_files_release(&merge->side_files);
    for (size_t i = 0; i < merge->adapter_count; i++) {
        adapter_release(&merge->adapters[i]);
        source_release(&merge->adapter_sources[i]);
    }
    free(merge->adapters);
    free(merge->adapter_sources);
    free(merge->plan_adapters);
    source_release(&merge->tokenizer);
    free(merge->work_path);
    free(merge);
}
