/* How a budget of memory is spent, and what does not fit one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "plan_case.h"

static void check_memory(const struct plan *plan)
{
    const struct plan_memory *memory = &plan->memory;

    assert_true(memory->slot_count >= 1);
    assert_true(memory->thread_count >= 1);
    assert_true(memory->needed_bytes <= memory->budget_bytes);
    for (size_t i = 0; i < plan->target_count; i++) {
        const struct plan_target *target = &plan->targets[i];

        assert_true(target->resident == PLAN_NO_TARGET ||
                    fold_packed_floats(target->rank_sum, target->cols) * sizeof(float) <=
                        memory->region_bytes);
    }
}

static void test_plan__the_smallest_budget_works_and_one_byte_less_is_refused(void **state)
{
    struct fixture *fixture = two_targets(8);
    uint64_t least;

    (void)state;
    assert_int_equal(make_plan(fixture, &keep, -1), 0);
    assert_int_equal(fit(fixture, 0, 0), ERR_USAGE);
    least = fixture->plan.memory.least_bytes;
    assert_int_equal(fit(fixture, least - 1, 0), ERR_USAGE);
    assert_non_null(strstr(fixture->error.text, "it needs at least"));
    for (uint64_t more = 0; more < 64 * MIB; more += 777777) {
        assert_int_equal(fit(fixture, least + more, 0), 0);
        assert_true(fixture->plan.memory.slot_count >= 2);
        check_memory(&fixture->plan);
    }
    assert_int_equal(fit(fixture, least, UINT32_MAX), 0); /* threads are a wish */
    assert_int_equal(fixture->plan.memory.thread_count, 1);
    assert_int_equal(fit(fixture, UINT64_MAX, UINT32_MAX), 0);
    check_memory(&fixture->plan);
    end(fixture);
}

static void test_plan__factors_of_large_targets_are_resident(void **state)
{
    struct fixture *fixture = two_targets(8);
    const struct plan *plan = &fixture->plan;

    (void)state;
    assert_int_equal(make_plan(fixture, &keep, -1), 0);
    assert_int_equal(fit(fixture, 128 * MIB, 2), 0);
    assert_int_equal(plan->resident_count, 2);
    assert_int_equal(plan->targets[0].resident, 0);
    assert_int_equal(plan->targets[1].resident, 1);
    for (uint32_t f = 0; f < plan->file_count; f++) {
        for (uint64_t i = 0; i < plan->files[f].block_count; i++) {
            struct plan_block block;

            plan_block(plan, f, i, &block);
            assert_true(block.resident_count <= 2);
        }
    }
    end(fixture);
}

/*
 * fold() takes so many deltas at once; a target with more goes panel by panel and needs tiles, and
 * its factors are resident for nobody.
 */
static void test_plan__workers_have_tiles_for_a_target_of_many_adapters(void **state)
{
    struct fixture *fixture = begin();
    struct made_file base = { 0 };

    (void)state;
    add(&base, "a.proj.weight", DTYPE_BF16, 2048, 4096);
    make_base(fixture, &base, 8);
    for (int i = 0; i < 65; i++) {
        struct made_file adapter = { 0 };
        uint64_t scratch_before = fixture->plan.memory.scratch_bytes;

        add_pair(&adapter, "a.proj", 2048, 4096);
        make_adapter(fixture, &adapter, CONFIG("[\"proj\"]"));
        assert_int_equal(make_plan(fixture, &keep, -1), 0);
        assert_int_equal(fit(fixture, 128 * MIB, 1), 0);
        assert_int_equal(fixture->plan.resident_count, i < 64);
        if (i == 64)
            assert_true(fixture->plan.memory.scratch_bytes > scratch_before + MIB);
        else if (i > 0)
            assert_int_equal(fixture->plan.memory.scratch_bytes, scratch_before);
    }
    end(fixture);
}

/* A row of blocks of a weight that goes back into its base's scheme: their largest elements. */
static void test_plan__workers_have_room_for_a_row_of_scales(void **state)
{
    struct fixture *fixture = two_targets(8);
    uint64_t scratch_before;

    (void)state;
    assert_int_equal(make_plan(fixture, &keep, -1), 0);
    fixture->plan.encoded = 1;
    assert_int_equal(fit(fixture, 128 * MIB, 1), 0);
    scratch_before = fixture->plan.memory.scratch_bytes;
    fixture->plan.scale_count = MIB;
    assert_int_equal(fit(fixture, 128 * MIB, 1), 0);
    assert_int_equal(fixture->plan.memory.scratch_bytes, scratch_before + MIB * sizeof(float));
    end(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan__the_smallest_budget_works_and_one_byte_less_is_refused),
        cmocka_unit_test(test_plan__factors_of_large_targets_are_resident),
        cmocka_unit_test(test_plan__workers_have_tiles_for_a_target_of_many_adapters),
        cmocka_unit_test(test_plan__workers_have_room_for_a_row_of_scales),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
