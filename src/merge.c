#include "merge.h"

#include "merge_push.h"

#include "format/index.h"
#include "io/usage.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
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

/* ---- the run ---- */

static int compare_lines(const void *left, const void *right)
{
    return strcmp(((const struct index_line *)left)->name,
                  ((const struct index_line *)right)->name);
}

static int write_index(struct lorafold_merge *merge, struct outdir *outdir, struct error *err)
{
    const struct plan *plan = &merge->plan;
    struct index_line *lines;
    struct text text = { 0 };
    size_t count = plan->tensor_count;
    int status;

    if (!plan->index_name[0])
        return 0;
    lines = calloc(plan->tensor_count + 1, sizeof(*lines));
    if (!lines)
        return error_no_memory(err, "the index");
    for (size_t f = 0; f < plan->file_count; f++) {
        for (uint64_t t = 0; t < plan->files[f].tensor_count; t++) {
            uint64_t tensor = plan->files[f].tensor_first + t;

            lines[tensor] = (struct index_line){ plan->tensors[tensor].name, plan->files[f].name };
            if (plan->alias && plan->aliased == tensor)
                lines[count++] = (struct index_line){ plan->alias, plan->files[f].name };
        }
    }
    qsort(lines, count, sizeof(*lines), compare_lines);
    index_emit(&text, lines, count, plan->tensor_bytes_out, plan->parameter_count);
    free(lines);
    status = text.failed
                 ? error_no_memory(err, "the index")
                 : output_write(merge, outdir, plan->index_name, text.data, text.bytes, err);
    text_release(&text);
    return status;
}

/* The modules that stay in 16 bits, as a list of strings in `text`, whose lines they are. */
static char **list_skipped(struct text *text, size_t *count)
{
    char **list;

    *count = 0;
    for (size_t i = 0; i < text->bytes; i++)
        *count += text->data[i] == '\n';
    list = calloc(*count + 1, sizeof(*list));
    for (size_t i = 0, next = 0; list && next < *count; next++) {
        list[next] = text->data + i;
        i = (size_t)(strchr(text->data + i, '\n') - text->data);
        text->data[i++] = '\0';
    }
    return list;
}

/* quantization_config of a model in 4 bits. */
static int describe_4bit(struct lorafold_merge *merge, struct text *out, struct error *err)
{
    static const char *const dtypes[] = { "bfloat16", "float16", "float32" };
    const struct plan *plan = &merge->plan;
    enum dtype middle = plan->encoding_count ? plan->encodings[0]->middle : DTYPE_BF16;
    struct text names = { 0 };
    struct config_bnb bnb = {
        .quant_type = merge->options.quant_type == LORAFOLD_FP4 ? "fp4" : "nf4",
        .compute_dtype = dtypes[middle == DTYPE_F32   ? 2
                                : middle == DTYPE_F16 ? 1
                                                      : 0],
        .nested = !merge->options.single_quant,
    };
    char **list;

    if (plan->skipped.bytes)
        text_add(&names, plan->skipped.data, plan->skipped.bytes);
    list = names.failed ? NULL : list_skipped(&names, &bnb.skip_count);
    if (list) {
        bnb.skip_modules = (const char *const *)list;
        config_bnb_text(out, &bnb);
    }
    text_release(&names);
    if (!list || out->failed) {
        free(list);
        return error_no_memory(err, "the configuration");
    }
    free(list);
    return 0;
}

static int write_config(struct lorafold_merge *merge, struct outdir *outdir, struct error *err)
{
    struct text quantise = { 0 };
    static const char *const dtypes[] = { NULL, "bfloat16", "float16", "float32" };
    /* Also where the outermost level says untied: an inner one may say otherwise. */
    struct config_edits edits = { .untie = merge->plan.untied,
                                  .dtype = dtypes[merge->options.dtype],
                                  .vocab_from = merge->plan.vocab_from,
                                  .vocab_to = merge->plan.vocab_to,
                                  .labels = merge->plan.labels,
                                  .base_layers = merge->plan.replicas.base_layer,
                                  .base_layer_count = merge->plan.replicas.count };
    struct text text = { 0 };
    int status;

    if (writes_adapter(merge))
        return lora_write_config(merge, outdir, err);
    if (!merge->base->config)
        return 0;
    edits.unquantise = merge->base->scheme.quantised && !keeps_scheme(merge);
    if (merge->options.save_method == LORAFOLD_MERGED_4BIT && merge->plan.encoded) {
        if (describe_4bit(merge, &quantise, err)) {
            text_release(&quantise);
            return err->code;
        }
        edits.unquantise = false;
        edits.quantise = quantise.data;
    }
    status = config_apply(&text, merge->base->config, merge->base->config_bytes, &edits, err);
    if (!status)
        status = output_write(merge, outdir, "config.json", text.data, text.bytes, err);
    text_release(&text);
    text_release(&quantise);
    return status;
}

static int write_card_and_manifest(struct lorafold_merge *merge, struct outdir *outdir,
                                   struct error *err)
{
    struct text card = { 0 };
    struct text manifest = { 0 };
    struct text blocks = { 0 };
    int status;

    card_write(merge, &card);
    status = card.failed ? error_no_memory(err, "the model card")
                         : output_write(merge, outdir, "README.md", card.data, card.bytes, err);
    if (!status) {
        manifest_write(merge, &manifest, &blocks);
        if (manifest.failed || blocks.failed)
            status = error_no_memory(err, "the manifest");
    }
    if (!status)
        status = outdir_write_file(outdir, BLOCKS_NAME, blocks.data, blocks.bytes, err);
    if (!status)
        status = outdir_write_file(outdir, MANIFEST_NAME, manifest.data, manifest.bytes, err);
    text_release(&card);
    text_release(&manifest);
    text_release(&blocks);
    return status;
}

static int list_shards(struct lorafold_merge *merge, struct error *err)
{
    const struct plan *plan = &merge->plan;

    for (size_t i = 0; i < plan->file_count; i++) {
        const struct plan_file *from = &plan->files[i];
        struct output_file *file;
        struct output_clone *clones;
        size_t clone_count;

        if (clones_list(merge, i, &clones, &clone_count, err))
            return err->code;
        file = output_add(&merge->files, from->name, from->bytes, clones, clone_count);
        if (!file)
            return error_no_memory(err, "the list of files");
        for (uint64_t b = 0; b < from->block_count; b++) {
            uint64_t digest;

            if (!output_block(file, b, &digest))
                memcpy(file->blocks[digest].half, merge->order.digests[from->block_first + b],
                       sizeof(file->blocks[digest].half));
        }
        file->digest = digest_of_blocks(file->blocks, file->block_count);
    }
    return 0;
}

/* A base or adapter that changed under the merge would make the output a mixture. */
static int check_inputs(const struct lorafold_merge *merge, struct error *err)
{
    for (size_t i = 0; i < merge->plan.input_count; i++) {
        if (file_check_unchanged(merge->plan.inputs[i].path, &merge->plan.inputs[i].identity, err))
            return err->code;
    }
    return 0;
}

static void show_progress(void *context, const struct pipeline_progress *from)
{
    static const enum lorafold_limit limits[STAGE_COUNT] = { LORAFOLD_LIMIT_READ,
                                                             LORAFOLD_LIMIT_COMPUTE,
                                                             LORAFOLD_LIMIT_WRITE };
    struct lorafold_merge *merge = context;
    const struct lorafold_progress progress = {
        .bytes_done = from->bytes_done,
        .bytes_total = from->bytes_prepared ? from->bytes_prepared
                                            : merge->plan.bytes_out - merge->order.bytes_cloned,
        .seconds = clock_seconds() - merge->opened_at,
        .limit = from->bytes_prepared ? LORAFOLD_LIMIT_PREPARE : limits[from->limit],
        .file = from->bytes_prepared ? "" : merge->plan.files[from->file].name,
    };

    merge->options.progress(merge->options.context, &progress);
}

static int run_pipeline(struct lorafold_merge *merge, struct outdir *outdir, struct error *err)
{
    const struct pipeline_options options = {
        .ring = merge->ring,
        .direct = merge->direct,
        .ops = merge->ops,
        .quant = merge->quant,
        .encode = merge->encode,
        .device_ops = merge->machine.ops,
        .device = merge->machine.device,
        .trace = merge->options.trace,
        .log = &merge->log,
        .progress = merge->options.progress ? show_progress : NULL,
        .context = merge,
    };
    const struct pipeline_result *result = &merge->result;

    merge->order = (struct pipeline_output){ .plan = &merge->plan,
                                             .directory_fd = outdir_fd(outdir),
                                             .allow_nonfinite = merge->options.allow_nonfinite,
                                             .outlet = merge->outlet,
                                             .clone_always = merge->options.clone ==
                                                             LORAFOLD_CLONE_ALWAYS };
    if (pipeline_run(&merge->order, 1, &merge->plan.memory, &options, &merge->stop, &merge->result,
                     err))
        return err->code;
    log_say(&merge->log, LOG_DETAIL, "I/O: %s%s%s%s, %s reads, %s writes; kernels: %s",
            result->ring_name, result->ring_reason[0] ? " (" : "", result->ring_reason,
            result->ring_reason[0] ? ")" : "", result->direct_in ? "direct" : "buffered",
            result->direct_out ? "direct" : "buffered", merge->ops->name);
    return 0;
}

int merge_finish(struct lorafold_merge *merge, struct outdir *outdir, const atomic_int *cancelled,
                 struct error *err)
{
    const char *const last[] = { merge->plan.index_name, "config.json", ADAPTER_CONFIG_NAME,
                                 MANIFEST_NAME };

    if (list_shards(merge, err) || write_index(merge, outdir, err) ||
        write_config(merge, outdir, err) || side_files_copy(merge, outdir, err) ||
        write_card_and_manifest(merge, outdir, err))
        return err->code;
    if (check_inputs(merge, err))
        return err->code;
    if (atomic_load(cancelled))
        return error_set(err, ERR_CANCELLED, "cancelled");
    if (merge->options.no_local)
        return 0;
    return outdir_publish(outdir, last, sizeof(last) / sizeof(last[0]), err);
}

static void fill_report(struct lorafold_merge *merge)
{
    struct lorafold_report *report = &merge->report;
    const struct pipeline_result *result = &merge->result;
    double sum = 0;

    for (int i = 0; i < STAGE_COUNT; i++)
        sum += result->stage_seconds[i];
    if (!(sum > 0))
        sum = 1;
    report->share_read = result->stage_seconds[STAGE_READ] / sum;
    report->share_compute = result->stage_seconds[STAGE_COMPUTE] / sum;
    report->share_write = result->stage_seconds[STAGE_WRITE] / sum;
    report->bytes_read = result->bytes_read;
    report->bytes_written = result->bytes_written;
    report->bytes_cloned = merge->order.bytes_cloned;
    report->tensors_folded = merge->plan.folded;
    report->tensors_replaced = merge->plan.replaced;
    report->tensors_patched = merge->plan.patched;
    report->tensors_copied = merge->plan.copied;
    report->tensors_converted = merge->plan.converted;
    report->file_count = merge->plan.file_count;
    report->seconds = clock_seconds() - merge->opened_at;
    report->seconds_to_first_write = result->first_write_time - merge->opened_at;
    report->memory_peak_bytes = usage_peak_rss_bytes();
    report->cgroup_peak_bytes = usage_cgroup_peak_bytes();
    report->io_engine = result->ring_name;
    report->io_direct = result->direct_in && result->direct_out;
    report->kernels = merge->ops->name;
    report->threads = merge->plan.memory.thread_count;
    describe_device(&merge->machine, report->device, sizeof(report->device));
    report->device_bytes = merge->plan.memory.device_bytes;
    snprintf(report->output, sizeof(report->output), "%s",
             merge->options.no_local ? merge->options.push_to.repo : merge->options.output);
}

/* The work, in a directory that is there for it. */
static int run_in(struct lorafold_merge *merge, struct outdir *outdir, struct error *err)
{
    int status = 0;

    if (merge->push)
        status = merge_push_begin(merge, outdir, err);
    if (!status)
        status = run_pipeline(merge, outdir, err);
    if (!status)
        status = merge_finish(merge, outdir, &merge->stop.cancelled, err);
    if (status)
        return merge->push ? merge_push_explain(merge, err) : status;
    merge->finished = true;
    fill_report(merge);
    return merge->push ? merge_push_end(merge, err) : 0;
}

int lorafold_merge_run(struct lorafold_merge *merge, struct lorafold_error *err)
{
    struct error inner = { 0 };
    struct outdir *outdir = NULL;
    const char **inputs;
    size_t count;
    int status = 0;

    if (!merge->options.output || merge->ran) {
        error_set(&inner, ERR_USAGE,
                  merge->ran ? "this merge has run already" : "no output directory is given");
        return give_error(err, &inner);
    }
    merge->ran = true;
    inputs = merge_list_inputs(merge, &count);
    if (!inputs) {
        error_no_memory(&inner, "the list of inputs");
        return give_error(err, &inner);
    }
    if (merge->options.push_to.repo)
        status = merge_push_open(merge, &inner);
    if (!status)
        status = outdir_open(&outdir, merge->options.output, merge->options.overwrite, inputs,
                             count, &merge->log, &inner);
    if (!status)
        status = run_in(merge, outdir, &inner);
    if (inner.code == ERR_CANCELLED && !merge->finished)
        error_set(&inner, ERR_CANCELLED, "stopped as asked: nothing is left of '%s'",
                  merge->options.output);
    if ((status || merge->options.no_local) && outdir)
        outdir_discard(outdir);
    outdir_close(outdir);
    merge_push_close(merge);
    free(inputs);
    return status ? give_error(err, &inner) : 0;
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
