/* batch_describe.c - the plan and the report of a batch, for people and for machines */
#include "batch.h"

#include <stdlib.h>
#include <string.h>

const char *batch_state_name(enum lorafold_output_state state)
{
    static const char *const names[] = { "planned", "left out", "exists", "failed", "complete" };

    return names[state];
}

static const char *method_name(const struct lorafold_merge *merge)
{
    static const char *const names[] = { "merged_16bit", "merged_4bit", "lora", "same" };

    return names[merge->options.save_method];
}

static uint64_t bytes_of(const struct lorafold_batch *batch)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < batch->made_count; i++)
        bytes += batch->made[i]->merge->plan.bytes_out;
    return bytes;
}

/* Why it is left out; sentences may hold names as they are. */
static void add_reason(const struct batch_output *output, struct text *out)
{
    const char *sentence = output->error.text;
    char shown[4 * sizeof(output->error.text)];

    if (output->error.code)
        text_addf(out, ": %s", error_quote(shown, sizeof(shown), sentence, strlen(sentence)));
}

static void add_output(const struct batch_output *output, struct text *out)
{
    const struct lorafold_merge *merge = output->merge;

    text_adds(out, "output    '");
    describe_quoted(out, output->name);
    text_adds(out, "': ");
    if (!merge) {
        text_adds(out, batch_state_name(output->state));
        add_reason(output, out);
        text_adds(out, "\n");
        return;
    }
    text_addf(out, "%s of ", method_name(merge));
    for (size_t i = 0; i < merge->adapter_count; i++) {
        text_adds(out, i ? ", " : "");
        describe_quoted(out, merge->adapters[i].name);
        text_addf(out, " (%zu modules, rank %u%s, weight %g)", merge->adapters[i].pair_count,
                  merge->adapters[i].config.rank,
                  merge->adapters[i].config.rank_pattern_count ? " and others" : "",
                  merge->plan_adapters[i].weight);
    }
    text_addf(out, "; %zu tensors folded, ", merge->plan.folded);
    text_add_count(out, merge->plan.file_count, "file");
    text_adds(out, ", ");
    text_add_bytes(out, merge->plan.bytes_out);
    text_adds(out, "\n");
}

static uint64_t cloned_of(const struct lorafold_batch *batch)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < batch->made_count; i++)
        bytes += batch->made[i]->merge->plan.bytes_cloned;
    return bytes;
}

static void add_machine(const struct lorafold_batch *batch, struct text *out)
{
    const struct plan_memory *memory = &batch->memory;

    text_adds(out, "memory    ");
    describe_mib(out, memory->needed_bytes);
    text_adds(out, " of ");
    describe_mib(out, memory->budget_bytes);
    text_addf(out, ": %u blocks of ", memory->slot_count);
    describe_mib(out, memory->slot_bytes);
    if (memory->window_count) {
        text_addf(out, ", %u pieces of the base of ", memory->window_count);
        describe_mib(out, WINDOW_BYTES);
    }
    text_addf(out, ", factors %zu x 2 x ", batch->made_count);
    describe_mib(out, memory->region_bytes);
    text_addf(out, " at most, %u workers of ", memory->thread_count);
    describe_mib(out, memory->scratch_bytes);
    text_adds(out, ", the rest ");
    describe_mib(out, memory->fixed_bytes);
    text_adds(out, "\n");
    describe_machine(&batch->machine, memory, batch->made[0]->merge->ops->name, out);
}

static void add_plan(const struct lorafold_batch *batch, struct text *out)
{
    if (batch->made_count)
        describe_base(batch->made[0]->merge, out);
    for (size_t i = 0; i < batch->count; i++)
        add_output(&batch->outputs[i], out);
    text_adds(out, "outputs   ");
    if (batch->options.output)
        describe_quoted(out, batch->options.output);
    else
        text_adds(out, "(none given)");
    text_addf(out, ": %zu of %zu, ", batch->made_count, batch->count);
    text_add_bytes(out, bytes_of(batch));
    text_adds(out, ", in one pass over the base\n");
    if (cloned_of(batch)) {
        text_adds(out, "clone     ");
        text_add_bytes(out, cloned_of(batch));
        text_adds(out, " of these are cloned from the base\n");
    }
    if (batch->made_count)
        add_machine(batch, out);
}

static void add_outputs_json(const struct lorafold_batch *batch, struct text *out)
{
    text_adds(out, ",\"outputs\":[");
    for (size_t i = 0; i < batch->count; i++) {
        const struct batch_output *output = &batch->outputs[i];
        const struct lorafold_merge *merge = output->merge;

        text_adds(out, i ? ",{\"name\":" : "{\"name\":");
        text_add_json(out, output->name, strlen(output->name));
        describe_key_text(out, "state", batch_state_name(output->state));
        if (output->error.code) {
            describe_key_number(out, "code", (uint64_t)output->error.code);
            describe_key_text(out, "text", output->error.text);
        }
        if (merge) {
            describe_key_text(out, "save_method", method_name(merge));
            describe_key_number(out, "tensors_folded", merge->plan.folded);
            describe_key_number(out, "bytes_out", merge->plan.bytes_out);
            describe_key_number(out, "bytes_cloned",
                                batch->ran ? batch->orders[output->number].bytes_cloned
                                           : merge->plan.bytes_cloned);
            text_adds(out, ",\"adapters\":[");
            for (size_t k = 0; k < merge->adapter_count; k++) {
                text_adds(out, k ? ",{\"name\":" : "{\"name\":");
                text_add_json(out, merge->adapters[k].name, strlen(merge->adapters[k].name));
                describe_key_number(out, "modules", merge->adapters[k].pair_count);
                text_addf(out, ",\"weight\":%.17g}", merge->plan_adapters[k].weight);
            }
            text_adds(out, "]");
        }
        text_adds(out, "}");
    }
    text_adds(out, "]");
}

static void plan_json(const struct lorafold_batch *batch, struct text *out)
{
    text_adds(out, "{\"type\":\"plan\"");
    describe_key_text(out, "base", batch->base.source.name);
    describe_key_text(out, "revision", batch->base.source.revision);
    describe_key_text(out, "output", batch->options.output);
    describe_key_number(out, "bytes_out", bytes_of(batch));
    describe_key_number(out, "memory_budget_bytes", batch->memory.budget_bytes);
    describe_key_number(out, "memory_needed_bytes", batch->memory.needed_bytes);
    describe_key_number(out, "memory_least_bytes", batch->memory.least_bytes);
    describe_key_number(out, "workers", batch->memory.thread_count);
    describe_machine_json(&batch->machine, &batch->memory, out);
    add_outputs_json(batch, out);
    text_adds(out, "}\n");
}

char *lorafold_batch_describe(const struct lorafold_batch *batch, enum lorafold_format format)
{
    struct text out = { 0 };

    if (format == LORAFOLD_JSON)
        plan_json(batch, &out);
    else
        add_plan(batch, &out);
    return text_take(&out);
}

static void summary_json(const struct lorafold_batch *batch, struct text *out)
{
    const struct lorafold_batch_report *report = &batch->report;

    text_adds(out, "{\"type\":\"report\"");
    describe_key_text(out, "output", report->output);
    describe_key_number(out, "outputs_complete", report->complete);
    describe_key_number(out, "outputs_existing", report->existing);
    describe_key_number(out, "outputs_failed", report->failed);
    describe_key_number(out, "bytes_read", report->bytes_read);
    describe_key_number(out, "bytes_written", report->bytes_written);
    describe_key_number(out, "bytes_cloned", report->bytes_cloned);
    describe_key_number(out, "bytes_alike", report->bytes_alike);
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
    describe_key_text(out, "device", *report->device ? report->device : NULL);
    describe_key_number(out, "device_bytes", report->device_bytes);
    add_outputs_json(batch, out);
    text_adds(out, "}\n");
}

/* Does an output read of the base what is not counted with its blocks? */
static bool reads_beside(const struct lorafold_batch *batch)
{
    for (size_t i = 0; i < batch->made_count; i++) {
        const struct plan *plan = &batch->made[i]->merge->plan;

        if (plan->decoded || plan->bytes_read_twice || plan->bytes_rescaled)
            return true;
    }
    return false;
}

static void add_bytes(const struct lorafold_batch *batch, struct text *out)
{
    const struct lorafold_batch_report *report = &batch->report;

    text_adds(out, "bytes     ");
    text_add_bytes(out, report->bytes_read);
    text_adds(out, " of the base read for all of them together");
    if (reads_beside(batch))
        text_adds(out, ", and by each what its norms or scales need");
    text_adds(out, "; ");
    text_add_bytes(out, report->bytes_written + report->bytes_cloned);
    text_adds(out, " made");
    if (report->bytes_cloned) {
        text_adds(out, ", of which ");
        text_add_bytes(out, report->bytes_cloned);
        text_adds(out, " are cloned from the base or from each other");
    }
    if (report->bytes_alike) {
        text_adds(out, "; ");
        text_add_bytes(out, report->bytes_alike);
        text_adds(out, " are the same in several outputs and were computed for one of them");
    }
    text_adds(out, "\n");
}

static void add_summary(const struct lorafold_batch *batch, struct text *out)
{
    const struct lorafold_batch_report *report = &batch->report;

    for (size_t i = 0; i < batch->count; i++) {
        const struct batch_output *output = &batch->outputs[i];

        text_addf(out, "%-10s'", batch_state_name(output->state));
        describe_quoted(out, output->name);
        text_adds(out, "'");
        add_reason(output, out);
        text_adds(out, "\n");
    }
    text_addf(out, "wrote     %zu of %zu outputs in ", report->complete, report->output_count);
    describe_quoted(out, report->output);
    if (report->existing)
        text_addf(out, ", %zu were there", report->existing);
    text_adds(out, "\n");
    add_bytes(batch, out);
    text_addf(out,
              "time      %.2f s, %.2f GB/s; blocks spent %.0f %% of it reading, %.0f %% "
              "computing, %.0f %% writing\n",
              report->seconds,
              report->seconds > 0 ? (double)report->bytes_written / report->seconds / 1e9 : 0,
              100 * report->share_read, 100 * report->share_compute, 100 * report->share_write);
    text_adds(out, "memory    ");
    describe_mib(out, report->memory_peak_bytes);
    text_adds(out, " at the peak");
    if (report->io_engine) {
        text_addf(out, "; %s, %s I/O, ", report->io_engine,
                  report->io_direct ? "direct" : "buffered");
        describe_worked(report->device, report->device_bytes, report->threads, report->kernels,
                        out);
    }
    text_adds(out, "\n");
}

char *lorafold_batch_summary(const struct lorafold_batch *batch, enum lorafold_format format)
{
    struct text out = { 0 };

    if (format == LORAFOLD_JSON)
        summary_json(batch, &out);
    else
        add_summary(batch, &out);
    return text_take(&out);
}
