/* test_machine.c - the rule by which --device auto chooses, and what a request may be; and that the
 * measurement of a device works, on the simulated one */
#include "check.h"

#include "bench.h"
#include "gpu/gpu.h"
#include "machine.h"

#include <string.h>

static void check_rule(void)
{
    /* 70 B parameters, 2 bytes each way: the table of seconds in the notes on performance. */
    const struct plan_target target = { .rows = 1000000, .cols = 70600, .rank_sum = 256 };
    struct plan_target targets[1] = { target };
    struct plan plan = { .targets = targets,
                         .target_count = 1,
                         .bytes_in = UINT64_C(141200000000),
                         .bytes_out = UINT64_C(141200000000) };
    struct plan *plans[] = { &plan, &plan };
    struct machine_load load = machine_weigh(plans, 1, 2, 12e9);

    CHECK(load.processor > 160 && load.processor < 180, "%.1f s", load.processor);
    CHECK(load.disk > 43 && load.disk < 44, "%.1f s", load.disk);
    CHECK(load.link > 23 && load.link < 24, "%.1f s", load.link);
    CHECK(machine_prefers_device(&load), "two processors and rank 256: a GPU");
    load = machine_weigh(plans, 1, 16, 12e9);
    CHECK(!machine_prefers_device(&load), "sixteen processors: the disk is slower");
    targets[0].rank_sum = 16;
    load = machine_weigh(plans, 1, 2, 12e9);
    CHECK(!machine_prefers_device(&load), "rank 16");
    targets[0].rank_sum = 256;
    load = machine_weigh(plans, 1, 2, 1e9);
    CHECK(!machine_prefers_device(&load), "a link of 1 GB/s");
    load = machine_weigh(plans, 2, 2, 12e9);
    CHECK(load.processor > 320 && load.link > 46, "two outputs are twice the work");
    targets[0].rows = 1000;
    plan.bytes_in = plan.bytes_out = 141200000;
    load = machine_weigh(plans, 1, 2, 12e9);
    CHECK(!machine_prefers_device(&load), "too short to be worth it");
}

static void check_request(const char *device, double fraction, int expected)
{
    const struct machine_request request = { .device = device, .memory_fraction = fraction };
    struct error err = { 0 };

    CHECK(machine_check_request(&request, &err) == expected, "'%s' %g: %s", device, fraction,
          err.text);
}

static void check_requests(void)
{
    static const char *const good[] = {
        "auto", "cpu", "cuda", "cuda:0", "cuda:17", "sim", "sim:9"
    };
    static const char *const bad[] = { "",        "gpu",        "cuda:", "cuda:x", "cuda:-1",
                                       "cuda:1x", "cuda:99999", "cpu:1", "auto:0", "cuda0" };

    check_request(NULL, 0, 0);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        check_request(good[i], 0.5, 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        check_request(bad[i], 0, ERR_USAGE);
    check_request("cuda", 1.5, ERR_USAGE);
    check_request("cuda", -0.1, ERR_USAGE);
}

static void check_bench(void)
{
    struct bench_device_result result = { 0 };
    struct error err = { 0 };

    CHECK(bench_device(&gpu_sim, 8, 1, &result, &err) == 0, "%s", err.text);
    CHECK(result.kernel_count == 6 && strncmp(result.name, "sim", 3) == 0, "%s", result.name);
    CHECK(result.pinned_up > 0 && result.pageable_down > 0 && result.kernels[2].elements_rate > 0,
          "no time passed");
}

int main(void)
{
    check_rule();
    check_requests();
    check_bench();
    return 0;
}
