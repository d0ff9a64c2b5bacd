/* merge_run.c - the work of a merge that is open, and what is written beside its weights */
#include "merge.h"

#include "merge_push.h"

#include "format/index.h"
#include "io/usage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

struct pipeline_options merge_pipeline_options(const struct lorafold_merge *merge,
                                               const struct machine *machine)
{
    return (struct pipeline_options){
        .ring = merge->ring,
        .direct = merge->direct,
        .ops = merge->ops,
        .quant = merge->quant,
        .encode = merge->encode,
        .device_ops = machine->ops,
        .device = machine->device,
        .trace = merge->options.trace,
    };
}

static int run_pipeline(struct lorafold_merge *merge, struct outdir *outdir, struct error *err)
{
    struct pipeline_options options = merge_pipeline_options(merge, &merge->machine);
    const struct pipeline_result *result = &merge->result;

    options.log = &merge->log;
    options.progress = merge->options.progress ? show_progress : NULL;
    options.context = merge;
    merge->order = (struct pipeline_output){ .plan = &merge->plan,
                                             .directory_fd = outdir_fd(outdir),
                                             .allow_nonfinite = merge->options.allow_nonfinite,
                                             .outlet = merge->outlet,
                                             .clone_always = merge->options.clone ==
                                                             LORAFOLD_CLONE_ALWAYS };
    if (pipeline_run(&merge->order, 1, &merge->plan.memory, &options, &merge->stop, &merge->result,
                     err)) {
        if (merge->result.abandoned)
            merge->machine = (struct machine){ 0 }; /* leaked, as the slots are */
        return err->code;
    }
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
