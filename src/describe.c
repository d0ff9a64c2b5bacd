/* describe.c - a plan and a report, for people and for machines */
#include "merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void describe_quoted(struct text *out, const char *name)
{
    char quoted[QUOTED_BYTES];

    text_adds(out, error_quote(quoted, sizeof(quoted), name, strlen(name)));
}

void describe_device(const struct machine *machine, char *out, size_t out_bytes)
{
    if (!machine->ops)
        snprintf(out, out_bytes, "cpu");
    else if (machine->info.description[0])
        snprintf(out, out_bytes, "%s (%s)", machine->info.name, machine->info.description);
    else
        snprintf(out, out_bytes, "%s", machine->info.name);
}

void describe_worked(const char *device, uint64_t device_bytes, unsigned threads,
                     const char *kernels, struct text *out)
{
    if (device_bytes) {
        text_addf(out, "%u streams of %s, ", threads, device);
        describe_mib(out, device_bytes);
        text_adds(out, " of it");
    } else {
        text_addf(out, "%u workers, %s kernels", threads, kernels);
    }
}

void describe_machine(const struct machine *machine, const struct plan_memory *memory,
                      const char *kernels, struct text *out)
{
    char device[256];

    describe_device(machine, device, sizeof(device));
    if (!machine->ops) {
        text_addf(out, "device    cpu: %u workers, %s kernels%s", memory->thread_count, kernels,
                  strcmp(kernels, "scalar") == 0 ? " (slow: no SIMD on this processor)" : "");
    } else {
        text_addf(out, "device    %s: %u streams, ", device, memory->thread_count);
        describe_mib(out, memory->device_bytes);
        text_adds(out, " of ");
        describe_mib(out, memory->device_budget_bytes);
    }
    if (machine->reason[0])
        text_addf(out, "; %s", machine->reason);
    text_adds(out, "\n");
}

/* Which computed dtypes the base has, "BF16" or "BF16, F32". */
static void add_dtypes(const struct lorafold_merge *merge, struct text *out)
{
    bool seen[DTYPE_COUNT] = { false };
    bool first = true;

    for (size_t s = 0; s < merge->base->model.shard_count; s++) {
        const struct st_header *header = &merge->base->model.shards[s].header;

        for (uint32_t t = 0; t < header->tensor_count; t++)
            seen[header->tensors[t].dtype] = true;
    }
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (!seen[i])
            continue;
        text_addf(out, "%s%s", first ? "" : ", ", dtype_name((enum dtype)i));
        first = false;
    }
}

void describe_base(const struct lorafold_merge *merge, struct text *out)
{
    const char *base = merge->base->source.name ? merge->base->source.name
                                                : public_base_name(merge);

    text_adds(out, "base      ");
    describe_quoted(out, base ? base : "(not named)");
    if (!merge->base->source.name) {
        text_adds(out, ": not read, so the adapter is not checked against it\n");
        return;
    }
    if (merge->base->source.revision)
        text_addf(out, "@%.12s", merge->base->source.revision);
    text_adds(out, ": ");
    text_add_count(out, merge->base->model.tensor_count, "tensor");
    text_adds(out, " in ");
    text_add_count(out, merge->base->model.shard_count, "file");
    text_adds(out, ", ");
    text_add_bytes(out, merge->base->model.data_bytes);
    if (!writes_adapter(merge)) {
        text_adds(out, ", ");
        add_dtypes(merge, out);
    }
    if (merge->base->scheme.quantised)
        text_addf(out, ", quantised: %s", merge->base->scheme.summary);
    if (merge->base->facts.architecture[0]) {
        text_adds(out, ", ");
        describe_quoted(out, merge->base->facts.architecture);
    }
    text_adds(out, "\n");
}

void describe_adapters(const struct lorafold_merge *merge, struct text *out)
{
    for (size_t i = 0; i < merge->adapter_count; i++) {
        const struct adapter *adapter = &merge->adapters[i];

        text_adds(out, "adapter   ");
        describe_quoted(out, adapter->name);
        text_adds(out, ": ");
        text_add_count(out, adapter->pair_count, "module");
        text_addf(out, ", rank %u%s, alpha %g%s%s, weight %g\n", adapter->config.rank,
                  adapter->config.rank_pattern_count ? " and others" : "", adapter->config.alpha,
                  adapter->config.alpha_pattern_count ? " and others" : "",
                  adapter->config.rslora ? ", rank-stabilised" : "",
                  merge->plan_adapters[i].weight);
        for (size_t u = 0; u < adapter->unused_count; u++) {
            text_adds(out, "unused    ");
            describe_quoted(out, adapter->unused[u]);
            text_adds(out, "\n");
        }
    }
}

/* What is done before the first block. */
static void add_preparation(const struct plan *plan, struct text *out)
{
    if (plan->repack_count) {
        text_addf(out, "before    %zu factors are put in order in a file beside the output (",
                  plan->repack_count);
        text_add_bytes(out, plan->repack_bytes);
        text_adds(out, ")\n");
    }
    if (plan->bytes_rescaled) {
        text_adds(out, "before    ");
        text_add_bytes(out, plan->bytes_rescaled);
        text_adds(out, " are read once more, because the scales of blocks need all of them\n");
    }
    if (plan->bytes_read_twice) {
        text_adds(out, "before    ");
        text_add_bytes(out, plan->bytes_read_twice);
        text_adds(out, " are read once more, because their norms (DoRA) need whole tensors\n");
    }
}

static void add_work(const struct lorafold_merge *merge, struct text *out)
{
    const struct plan *plan = &merge->plan;

    text_adds(out, "tensors   ");
    if (!writes_adapter(merge))
        text_addf(out, "%zu folded, ", plan->folded);
    if (plan->decoded > plan->turned)
        text_addf(out, "%zu of them and others decoded, ", plan->decoded - plan->turned);
    if (plan->encoded)
        text_addf(out, "%zu quantised, ", plan->encoded);
    if (plan->replaced)
        text_addf(out, "%zu replaced, ", plan->replaced);
    if (plan->patched)
        text_addf(out, "%zu with new rows, ", plan->patched);
    text_addf(out, "%zu converted, %zu copied byte for byte\n", plan->converted, plan->copied);
    if (plan->vocab_to)
        text_addf(out, "vocab     %llu tokens in the base, %llu in the output\n",
                  (unsigned long long)plan->vocab_from, (unsigned long long)plan->vocab_to);
    if (plan->labels)
        text_addf(out, "labels    %llu in the output, by the task's head that the adapter brings\n",
                  (unsigned long long)plan->labels);
    if (plan->replicas.count)
        text_addf(out, "layers    %llu in the output, repeated as layer_replication says\n",
                  (unsigned long long)plan->replicas.count);
    add_preparation(plan, out);
    if (plan->tied_head) {
        text_adds(out, "tied      the adapter changes one side of a tied pair: '");
        describe_quoted(out, plan->tied_head);
        text_adds(out, "' is written as a tensor of its own (");
        text_add_bytes(out, plan->tied_head_bytes);
        text_adds(out, ") and the config says untied\n");
    }
    text_adds(out, "output    ");
    if (merge->options.output)
        describe_quoted(out, merge->options.output);
    else
        text_adds(out, "(none given)");
    text_adds(out, ": ");
    text_add_count(out, plan->file_count, "file");
    text_adds(out, ", ");
    text_add_bytes(out, plan->bytes_out);
    text_addf(out, ", and %zu other files\n",
              merge->side_files.count + (writes_adapter(merge) || merge->base->config ? 1 : 0) +
                  (plan->file_count > 1 ? 1 : 0) + 3);
    if (plan->bytes_cloned) {
        text_adds(out, "clone     ");
        text_add_bytes(out, plan->bytes_cloned);
        text_adds(out, " of these are cloned from the base, ");
        text_add_bytes(out, plan->bytes_out - plan->bytes_cloned);
        text_adds(out, " are written\n");
    }
}

void describe_mib(struct text *out, uint64_t bytes)
{
    text_addf(out, "%.1f MiB", (double)bytes / (double)MIB);
}

static void add_machine(const struct lorafold_merge *merge, struct text *out)
{
    const struct plan_memory *memory = &merge->plan.memory;

    text_adds(out, "memory    ");
    describe_mib(out, memory->needed_bytes);
    text_adds(out, " of ");
    describe_mib(out, memory->budget_bytes);
    text_addf(out, ": %u blocks of ", memory->slot_count);
    describe_mib(out, memory->slot_bytes);
    text_adds(out, ", factors 2 x ");
    describe_mib(out, memory->region_bytes);
    text_addf(out, ", %u workers of ", memory->thread_count);
    describe_mib(out, memory->scratch_bytes);
    text_adds(out, ", the rest ");
    describe_mib(out, memory->fixed_bytes);
    text_addf(out, "\nblocks    %llu, %llu of them folded in place\n",
              (unsigned long long)merge->plan.block_count,
              (unsigned long long)merge->plan.in_place_blocks);
    describe_machine(&merge->machine, memory, merge->ops->name, out);
}

void describe_key_text(struct text *out, const char *key, const char *value)
{
    text_addf(out, ",\"%s\":", key);
    if (value)
        text_add_json(out, value, strlen(value));
    else
        text_adds(out, "null");
}

void describe_key_number(struct text *out, const char *key, uint64_t value)
{
    text_addf(out, ",\"%s\":%llu", key, (unsigned long long)value);
}

void describe_machine_json(const struct machine *machine, const struct plan_memory *memory,
                           struct text *out)
{
    char device[256];

    describe_device(machine, device, sizeof(device));
    describe_key_text(out, "device", device);
    describe_key_text(out, "device_reason", machine->reason);
    describe_key_number(out, "device_budget_bytes", memory->device_budget_bytes);
    describe_key_number(out, "device_needed_bytes", memory->device_bytes);
}

static void plan_json(const struct lorafold_merge *merge, struct text *out)
{
    const struct plan *plan = &merge->plan;

    text_adds(out, "{\"type\":\"plan\"");
    describe_key_text(out, "base", merge->base->source.name);
    describe_key_text(out, "revision", merge->base->source.revision);
    describe_key_text(out, "output", merge->options.output);
    text_adds(out, ",\"adapters\":[");
    for (size_t i = 0; i < merge->adapter_count; i++) {
        const struct adapter *adapter = &merge->adapters[i];

        text_adds(out, i ? ",{\"name\":" : "{\"name\":");
        text_add_json(out, adapter->name, strlen(adapter->name));
        describe_key_number(out, "modules", adapter->pair_count);
        describe_key_number(out, "unused_tensors", adapter->unused_count);
        text_addf(out, ",\"weight\":%.17g}", merge->plan_adapters[i].weight);
    }
    text_adds(out, "]");
    describe_key_number(out, "tensors_folded", plan->folded);
    describe_key_number(out, "tensors_replaced", plan->replaced);
    describe_key_number(out, "tensors_patched", plan->patched);
    describe_key_number(out, "tensors_converted", plan->converted);
    describe_key_number(out, "tensors_copied", plan->copied);
    describe_key_number(out, "repacked_bytes", plan->repack_bytes);
    describe_key_number(out, "bytes_read_twice", plan->bytes_read_twice);
    describe_key_text(out, "tied_head", plan->tied_head);
    describe_key_number(out, "bytes_in", plan->bytes_in);
    describe_key_number(out, "bytes_out", plan->bytes_out);
    describe_key_number(out, "bytes_cloned", plan->bytes_cloned);
    describe_key_number(out, "blocks", plan->block_count);
    describe_key_number(out, "blocks_in_place", plan->in_place_blocks);
    describe_key_number(out, "memory_budget_bytes", plan->memory.budget_bytes);
    describe_key_number(out, "memory_needed_bytes", plan->memory.needed_bytes);
    describe_key_number(out, "memory_least_bytes", plan->memory.least_bytes);
    describe_key_number(out, "workers", plan->memory.thread_count);
    describe_key_text(out, "kernels", merge->ops->name);
    describe_machine_json(&merge->machine, &plan->memory, out);
    text_adds(out, ",\"files\":[");
    for (size_t i = 0; i < plan->file_count; i++) {
        text_adds(out, i ? ",{\"name\":" : "{\"name\":");
        text_add_json(out, plan->files[i].name, strlen(plan->files[i].name));
        describe_key_number(out, "bytes", plan->files[i].bytes);
        describe_key_number(out, "tensors", plan->files[i].tensor_count);
        text_adds(out, "}");
    }
    text_adds(out, "]}\n");
}

static void add_push(const struct lorafold_merge *merge, struct text *out)
{
    const struct lorafold_destination *to = &merge->options.push_to;

    if (!to->repo)
        return;
    text_adds(out, "push      ");
    describe_quoted(out, to->repo);
    text_adds(out, to->create_pr             ? ", as a pull request"
                   : merge->options.no_local ? ", and no output is kept here"
                                             : "");
    text_adds(out, "\n");
}

char *lorafold_merge_describe(const struct lorafold_merge *merge, enum lorafold_format format)
{
    struct text out = { 0 };

    if (format == LORAFOLD_JSON) {
        plan_json(merge, &out);
    } else {
        describe_base(merge, &out);
        describe_adapters(merge, &out);
        add_work(merge, &out);
        add_push(merge, &out);
        add_machine(merge, &out);
    }
    return text_take(&out);
}

static double rate(uint64_t bytes, double seconds)
{
    return seconds > 0 ? (double)bytes / seconds / 1e9 : 0;
}

static void report_json(const struct lorafold_report *report, struct text *out)
{
    text_adds(out, "{\"type\":\"report\"");
    describe_key_text(out, "output", report->output);
    describe_key_number(out, "bytes_read", report->bytes_read);
    describe_key_number(out, "bytes_written", report->bytes_written);
    describe_key_number(out, "bytes_cloned", report->bytes_cloned);
    describe_key_number(out, "tensors_folded", report->tensors_folded);
    describe_key_number(out, "tensors_replaced", report->tensors_replaced);
    describe_key_number(out, "tensors_patched", report->tensors_patched);
    describe_key_number(out, "tensors_converted", report->tensors_converted);
    describe_key_number(out, "tensors_copied", report->tensors_copied);
    describe_key_number(out, "shards", report->file_count);
    text_addf(out,
              ",\"seconds\":%.6f,\"seconds_planning\":%.6f,\"seconds_to_first_write\":%.6f"
              ",\"share_read\":%.4f,\"share_compute\":%.4f,\"share_write\":%.4f",
              report->seconds, report->seconds_planning, report->seconds_to_first_write,
              report->share_read, report->share_compute, report->share_write);
    describe_key_number(out, "memory_peak_bytes", report->memory_peak_bytes);
    describe_key_number(out, "cgroup_peak_bytes", report->cgroup_peak_bytes);
    describe_key_text(out, "io_engine", report->io_engine);
    text_addf(out, ",\"io_direct\":%s", report->io_direct ? "true" : "false");
    describe_key_text(out, "kernels", report->kernels);
    describe_key_number(out, "workers", report->threads);
    describe_key_text(out, "device", report->device);
    describe_key_number(out, "device_bytes", report->device_bytes);
    if (*report->pushed.repo)
        push_describe_json(&report->pushed, out);
    text_adds(out, "}\n");
}

char *lorafold_report_describe(const struct lorafold_report *report, enum lorafold_format format)
{
    struct text out = { 0 };

    if (format == LORAFOLD_JSON) {
        report_json(report, &out);
        return text_take(&out);
    }
    text_adds(&out, "wrote     ");
    describe_quoted(&out, report->output);
    text_adds(&out, ": ");
    text_add_count(&out, report->file_count, "file");
    text_adds(&out, ", ");
    text_add_bytes(&out, report->bytes_written + report->bytes_cloned);
    if (report->bytes_cloned) {
        text_adds(&out, ", of which ");
        text_add_bytes(&out, report->bytes_cloned);
        text_adds(&out, " are cloned from the base");
    }
    text_addf(&out,
              "\ntime      %.2f s, %.2f GB/s; blocks spent %.0f %% of it reading, %.0f %% "
              "computing, %.0f %% writing\n",
              report->seconds, rate(report->bytes_written, report->seconds),
              100 * report->share_read, 100 * report->share_compute, 100 * report->share_write);
    text_adds(&out, "memory    ");
    describe_mib(&out, report->memory_peak_bytes);
    text_addf(&out, " at the peak; %s, %s I/O, ", report->io_engine,
              report->io_direct ? "direct" : "buffered");
    describe_worked(report->device, report->device_bytes, report->threads, report->kernels, &out);
    text_adds(&out, "\n");
    if (*report->pushed.repo)
        push_describe_text(&report->pushed, &out);
    return text_take(&out);
}
