/*
 * lane_internal.h - what lane.c and lane_device.c share
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PIPELINE_LANE_INTERNAL_H
#define PIPELINE_LANE_INTERNAL_H

#include "pipeline/lane.h"

/* The counterpart of an address of the host; NULL for NULL. */
void *lane_at(const struct lane *lane, const void *host);

/* Put a task, whose pointers are the device's, into the stream. */
int lane_run(struct lane *lane, struct device_task *task, const struct lane_check *check,
             struct error *err);

/* The error of a check whose result `index` is not finite. */
int lane_not_finite(const struct lane_check *check, uint64_t index, enum device_bad bad,
                    struct error *err);

#endif
