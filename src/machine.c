#include "machine.h"

#include "gpu/gpu.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRACTION 0.75
/*
 * Rates of the rule.  Processor: measured on one core of Zen 4, per element 0.20 ns and, for each
 * rank, 1 / 55e9 s; decoding 0.14 ns and encoding 0.41 ns (docs/BENCHMARKS.md).  Disk: what a fast
 * NVMe drive is sold for; a slower one makes the processor the brake still less.
 */
#define ELEMENT_SECONDS 0.20e-9
#define RANK_SECONDS (1 / 55e9)
#define DECODE_SECONDS 0.14e-9
#define ENCODE_SECONDS 0.41e-9
#define READ_RATE 7.0e9
#define WRITE_RATE 6.0e9
#define LINK_RATE 12.0e9 /* PCIe 3 x16, where it is not known */
/* A device is taken for a run that becomes so much shorter: starting CUDA takes up to a second. */
#define GAIN 1.2
#define GAIN_SECONDS 2.0

int machine_check_request(const struct machine_request *request, struct error *err)
{
    const char *name = request->device ? request->device : "auto";
    const char *colon = strchr(name, ':');
    size_t bytes = colon ? (size_t)(colon - name) : strlen(name);
    bool numbered = (bytes == 4 && strncmp(name, "cuda", 4) == 0) ||
                    (bytes == 3 && strncmp(name, "sim", 3) == 0);
    char *end = NULL;

    if (!(request->memory_fraction >= 0 && request->memory_fraction <= 1))
        return error_set(err, ERR_USAGE, "--gpu-memory: %g is not a fraction above 0 and up to 1",
                         request->memory_fraction);
    if (colon && numbered && colon[1] >= '0' && colon[1] <= '9') {
        errno = 0;
        if (strtoul(colon + 1, &end, 10) <= 9999 && errno == 0 && *end == '\0')
            return 0;
    }
    if (!colon && (numbered || strcmp(name, "auto") == 0 || strcmp(name, "cpu") == 0))
        return 0;
    return error_set(err, ERR_USAGE,
                     "device '%.40s' is not known: it is auto, cpu, cuda, or cuda:N for the N-th "
                     "GPU, counted from 0",
                     name);
}

/* ---- the rule ---- */

static void weigh_plan(const struct plan *plan, struct machine_load *load)
{
    for (size_t i = 0; i < plan->target_count; i++) {
        const struct plan_target *target = &plan->targets[i];
        double elements = (double)target->rows * (double)target->cols;

        load->processor += elements * (ELEMENT_SECONDS + target->rank_sum * RANK_SECONDS);
        load->link += elements;
    }
    for (size_t i = 0; i < plan->tensor_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        double out = (double)tensor->out_bytes;

        if (tensor->quant)
            load->processor += out / dtype_bytes((enum dtype)tensor->dtype_in) * DECODE_SECONDS;
        if (tensor->action == PLAN_ENCODE)
            load->processor += (double)tensor->encoding->elements * ENCODE_SECONDS;
    }
    load->disk += (double)plan->bytes_in / READ_RATE + (double)plan->bytes_out / WRITE_RATE;
}

struct machine_load machine_weigh(struct plan *const *plans, size_t count, unsigned processors,
                                  double link_rate)
{
    struct machine_load load = { 0 };

    for (size_t i = 0; i < count; i++)
        weigh_plan(plans[i], &load);
    load.processor /= processors;
    load.link = 2 * load.link * 2 / link_rate; /* 16 bits there and back, one after the other */
    return load;
}

bool machine_prefers_device(const struct machine_load *load)
{
    double others = fmax(load->disk, load->link);

    return load->processor > GAIN * others && load->processor - others > GAIN_SECONDS;
}

/* ---- opening ---- */

static int open_device(struct machine *machine, const struct device_ops *ops, unsigned number,
                       const struct machine_request *request, struct error *err)
{
    double fraction = request->memory_fraction > 0 ? request->memory_fraction : FRACTION;

    if (ops->open(&machine->device, number, err))
        return err->code;
    machine->ops = ops;
    ops->describe(machine->device, &machine->info);
    machine->budget_bytes = request->memory_bytes
                                ? request->memory_bytes
                                : (uint64_t)(fraction * (double)machine->info.free_bytes);
    if (machine->budget_bytes == 0)
        machine->budget_bytes = 1; /* too little, but a device all the same */
    if (machine->budget_bytes <= machine->info.free_bytes || request->memory_bytes == 0)
        return 0;
    error_set(err, ERR_USAGE, "--gpu-memory of %.1f MiB is more than the %.1f MiB that %s has free",
              (double)machine->budget_bytes / (double)MIB,
              (double)machine->info.free_bytes / (double)MIB, machine->info.name);
    machine_close(machine);
    return err->code;
}

void machine_close(struct machine *machine)
{
    if (machine->ops)
        machine->ops->close(machine->device);
    *machine = (struct machine){ 0 };
}

/* The processor computes, and why. */
static void keep_processor(struct machine *machine, const char *why)
{
    machine_close(machine);
    snprintf(machine->reason, sizeof(machine->reason), "%s", why);
}

/* `auto`: the processor, but where it would be the brake and a GPU is not. */
static void choose(struct machine *machine, const struct machine_request *request,
                   struct plan *const *plans, size_t count, unsigned processors)
{
    struct machine_load load = machine_weigh(plans, count, processors, LINK_RATE);
    struct error err = { 0 };
    char reason[160];
    char why[320];

    if (!machine_prefers_device(&load)) {
        snprintf(why, sizeof(why),
                 "the processors are not the brake: %u of them need about %.1f s for this, a fast "
                 "disk %.1f s, the link to a GPU %.1f s",
                 processors, load.processor, load.disk, load.link);
        keep_processor(machine, why);
    } else if (gpu_cuda_count(reason, sizeof(reason)) == 0) {
        snprintf(why, sizeof(why), "a GPU would be faster, but %s", reason);
        keep_processor(machine, why);
    } else if (open_device(machine, &gpu_cuda, 0, request, &err)) {
        keep_processor(machine, err.text);
    } else {
        if (machine->info.link_rate > 0)
            load = machine_weigh(plans, count, processors, machine->info.link_rate);
        snprintf(why, sizeof(why),
                 "%u processors need about %.1f s for this, a fast disk %.1f s, the link of %s "
                 "%.1f s",
                 processors, load.processor, load.disk, machine->info.name, load.link);
        if (machine_prefers_device(&load))
            snprintf(machine->reason, sizeof(machine->reason), "%s", why);
        else
            keep_processor(machine, why);
    }
}

int machine_fit(struct machine *machine, const struct machine_request *request,
                struct plan_memory *memory, struct plan *const *plans, size_t count,
                struct plan_budget *budget, const struct log *log, struct error *err)
{
    const char *name = request->device ? request->device : "auto";
    const char *colon = strchr(name, ':');
    unsigned number = colon ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;
    bool is_auto = strcmp(name, "auto") == 0;
    int status = 0;

    if (machine_check_request(request, err))
        return err->code;
    if (is_auto)
        choose(machine, request, plans, count, budget->processors);
    else if (strcmp(name, "cpu") != 0)
        status = open_device(machine, name[0] == 's' ? &gpu_sim : &gpu_cuda, number, request, err);
    if (status)
        return status;
    if (is_auto && !machine->ops)
        log_say(log, LOG_DETAIL, "cuda is not used: %s", machine->reason);
    budget->device_bytes = machine->ops ? machine->budget_bytes : 0;
    status = plan_fit_memory_of(memory, plans, count, budget, err);
    if (status == ERR_USAGE && is_auto && machine->ops) {
        log_say(log, LOG_NOTICE, "the processor computes, not %s: %s", machine->info.name,
                err->text);
        keep_processor(machine, err->text);
        *err = (struct error){ 0 };
        budget->device_bytes = 0;
        status = plan_fit_memory_of(memory, plans, count, budget, err);
    }
    if (status)
        machine_close(machine);
    return status;
}
