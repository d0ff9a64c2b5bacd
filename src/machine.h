/*
 * machine.h - what computes in a run: the processor or a device, and why that one
 *
 * `auto` weighs what the plan says (struct machine_load) against rates that stand in machine.c, for
 * a processor, a disk and the link of the GPU, and asks the driver only if the processor would be
 * the brake.  docs/GPU.md says the rule in words.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef MACHINE_H
#define MACHINE_H

#include "base/error.h"
#include "base/log.h"
#include "compute/device.h"
#include "plan/plan.h"

struct machine_request {
    const char *device;     /* "auto" or NULL, "cpu", "cuda", "cuda:N", "sim", "sim:SEED" */
    uint64_t memory_bytes;  /* of the device; 0: the fraction below of what is free */
    double memory_fraction; /* 0: 0.75 */
};

/* All zero: the processor. */
struct machine {
    const struct device_ops *ops; /* NULL: the processor */
    struct device *device;
    struct device_info info;
    uint64_t budget_bytes; /* of the device */
    char reason[1024];     /* why this one, "" where it was asked for */
};

/* Seconds that the parts of a machine need for a run, if they do nothing else. */
struct machine_load {
    double processor;
    double disk;
    double link; /* there and back; 0: unknown */
};

/* ERR_USAGE: a device that is not one, a fraction that is none. */
int machine_check_request(const struct machine_request *request, struct error *err);

/*
 * Choose, open and spend the budgets, as plan_fit_memory_of().  ERR_USAGE: the device that was
 * asked for is not there or has too little memory; `auto` then takes the processor with a notice.
 * machine_close() is for any machine, also an all-zero one.
 */
int machine_fit(struct machine *machine, const struct machine_request *request,
                struct plan_memory *memory, struct plan *const *plans, size_t count,
                struct plan_budget *budget, const struct log *log, struct error *err);
void machine_close(struct machine *machine);

/* For tests: what a run of these plans is, on so many processors; and the rule. */
struct machine_load machine_weigh(struct plan *const *plans, size_t count, unsigned processors,
                                  double link_rate);
bool machine_prefers_device(const struct machine_load *load);

#endif
