/*
 * Plans of bases and adapters that consist of headers: their data are holes, so
 * that sizes cost nothing.  check_blocks() holds every block of a plan against
 * what the tensors say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "plan_case.h"

/* ---- what must hold of every block ---- */

static void check_part(const struct plan_block *block, const struct plan_tensor *tensor)
{
    struct plan_part part = plan_block_part(block, tensor);
    uint64_t width_in = tensor->action == PLAN_COPY ? 1 : dtype_bytes(tensor->dtype_in);
    uint64_t width_out = tensor->action == PLAN_COPY ? 1 : dtype_bytes(tensor->dtype_out);
    uint64_t first = part.first / width_out * width_in;
    uint64_t bytes = (part.end + width_out - 1) / width_out * width_in - first;
    uint64_t position = plan_block_position(block, tensor, first);
    unsigned holding = 0;

    if (part.first == part.end)
        return;
    for (uint32_t i = 0; i < block->read_count; i++) {
        const struct plan_read *read = &block->reads[i];

        holding += read->input == tensor->input && position >= read->position &&
                   position - read->position + read->offset == tensor->in_offset + first &&
                   position + bytes <= read->position + read->needed;
    }
    assert_int_equal(holding, 1);
    if (block->in_place)
        assert_int_equal(position, tensor->out_offset + part.first - block->offset);
}

static void check_block(const struct plan *plan, const struct plan_block *block)
{
    uint64_t end_of_last = 0;
    uint64_t covered = 0;

    for (uint32_t i = 0; i < block->read_count; i++) {
        const struct plan_read *read = &block->reads[i];

        assert_int_equal(read->offset % PAGE_BYTES, 0);
        assert_int_equal(read->bytes % PAGE_BYTES, 0);
        assert_int_equal(read->position % PAGE_BYTES, 0);
        assert_true(read->needed <= read->bytes);
        assert_true(read->position >= end_of_last);
        end_of_last = read->position + read->bytes;
        assert_true(read->offset + read->needed <= plan->inputs[read->input].identity.bytes);
    }
    assert_true(end_of_last <= plan->slot_bytes);
    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[block->tensor_first + i];
        struct plan_part part = plan_block_part(block, tensor);

        covered += part.end - part.first;
        check_part(block, tensor);
    }
    if (block->offset >= plan->files[block->file].data_start)
        assert_int_equal(covered, block->bytes);
}

static void check_blocks(const struct plan *plan)
{
    uint64_t number = 0;

    for (uint32_t f = 0; f < plan->file_count; f++) {
        uint64_t bytes = 0;

        for (uint64_t i = 0; i < plan->files[f].block_count; i++) {
            struct plan_block block;

            plan_block(plan, f, i, &block);
            assert_int_equal(block.number, number++);
            assert_int_equal(block.offset, bytes);
            bytes += block.bytes;
            check_block(plan, &block);
        }
        assert_int_equal(bytes, plan->files[f].bytes);
    }
    assert_int_equal(number, plan->block_count);
}

/* ---- layout ---- */

static void test_plan__a_shard_is_folded_in_place(void **state)
{
    (void)state;
    for (uint64_t residue = 8; residue < PAGE_BYTES; residue += 1360) {
        struct fixture *fixture = two_targets(residue);
        const struct plan *plan = &fixture->plan;

        assert_int_equal(make_plan(fixture, &keep, -1), 0);
        assert_int_equal(plan->file_count, 1);
        assert_string_equal(plan->files[0].name, "model.safetensors");
        assert_int_equal(plan->files[0].data_start % PAGE_BYTES, residue);
        assert_int_equal(plan->folded, 2);
        assert_int_equal(plan->copied, 2);
        assert_true(plan->in_place_blocks > 0);
        check_blocks(plan);
        end(fixture);
    }
}

static void test_plan__a_large_shard_is_cut_between_tensors(void **state)
{
    struct fixture *fixture = two_targets(8);
    const struct plan *plan = &fixture->plan;
    struct plan_options options = keep;

    (void)state;
    options.max_shard_bytes = 24000100; /* the first two tensors and the odd one */
    assert_int_equal(make_plan(fixture, &options, -1), 0);
    assert_int_equal(plan->file_count, 2);
    assert_string_equal(plan->files[0].name, "model-00001-of-00002.safetensors");
    assert_string_equal(plan->files[1].name, "model-00002-of-00002.safetensors");
    assert_int_equal(plan->files[0].tensor_count, 3);
    check_blocks(plan);
    options.max_shard_bytes = 1000; /* every tensor larger than that has a file of its own */
    assert_int_equal(make_plan(fixture, &options, -1), 0);
    assert_int_equal(plan->file_count, 4);
    check_blocks(plan);
    end(fixture);
}

static void test_plan__data_that_start_at_an_odd_byte_get_a_clean_layout(void **state)
{
    struct fixture *fixture = two_targets(4093);
    const struct plan *plan = &fixture->plan;

    (void)state;
    assert_int_equal(make_plan(fixture, &keep, -1), 0);
    assert_int_equal(plan->files[0].data_start % PAGE_BYTES, 0);
    assert_int_equal(plan->in_place_blocks, 0);
    check_blocks(plan);
    end(fixture);
}

static void test_plan__another_width_is_read_behind(void **state)
{
    static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fixture *fixture = two_targets(8);
        const struct plan_options options = { .convert = true,
                                              .dtype = dtypes[i],
                                              .max_shard_bytes = SHARD_MAX };

        assert_int_equal(make_plan(fixture, &options, -1), 0);
        assert_true(fixture->plan.in_bytes_max <= 2 * PLAN_BLOCK_BYTES + 2 * PAGE_BYTES);
        assert_true(fixture->plan.slot_bytes <= 3 * PLAN_BLOCK_BYTES + 3 * PAGE_BYTES);
        check_blocks(&fixture->plan);
        end(fixture);
    }
}

static void test_plan__empty_tensors_are_kept_and_not_read(void **state)
{
    struct fixture *fixture = begin();
    struct made_file base = { 0 };
    struct made_file adapter = { 0 };

    (void)state;
    add_shaped(&base, "void.before", DTYPE_F32, (const uint64_t[]){ 0, UINT64_C(1) << 63 }, 2);
    add(&base, "a.proj.weight", DTYPE_BF16, 64, 64);
    add_shaped(&base, "void.behind", DTYPE_BF16, (const uint64_t[]){ UINT64_MAX, 0 }, 2);
    make_base(fixture, &base, 8);
    add_pair(&adapter, "a.proj", 64, 64);
    make_adapter(fixture, &adapter, CONFIG("[\"proj\"]"));
    assert_int_equal(make_plan(fixture, &keep, -1), 0);
    assert_int_equal(fixture->plan.tensor_count, 3);
    assert_int_equal(fixture->plan.parameter_count, 64 * 64);
    check_blocks(&fixture->plan);
    end(fixture);
}

static void test_plan__very_many_tiny_tensors_share_a_block(void **state)
{
    struct fixture *fixture = begin();
    struct made_file base = { 0 };
    struct made_file adapter = { 0 };

    (void)state;
    for (int i = 0; i < 100000; i++) {
        char name[32];

        snprintf(name, sizeof(name), "%06d.weight", i);
        add(&base, name, DTYPE_BF16, 4, 4);
    }
    make_base(fixture, &base, 8);
    add_pair(&adapter, "000500", 4, 4);
    make_adapter(fixture, &adapter, CONFIG("[\"000500\"]"));
    assert_int_equal(make_plan(fixture, &keep, -1), 0);
    assert_true(fixture->plan.in_place_blocks > 0);
    check_blocks(&fixture->plan);
    end(fixture);
}

/* ---- copies of base tensors in adapters ---- */

/*
 * Small tensors of the base, each `rows` x 4; every second one comes from the adapter's copy, so
 * that reads of both files alternate.
 */
static struct fixture *copied_targets(int pairs, uint64_t rows)
{
    struct fixture *fixture = begin();
    struct made_file base = { 0 };
    struct made_file adapter = { 0 };
    char name[128];

    for (int i = 0; i < pairs; i++) {
        snprintf(name, sizeof(name), "%d.norm", i);
        add(&base, name, DTYPE_BF16, 3001, 4);
        snprintf(name, sizeof(name), "%d.proj.weight", i);
        add(&base, name, DTYPE_BF16, rows, 4);
    }
    add(&base, "last.norm", DTYPE_BF16, 3001, 4);
    make_base(fixture, &base, 8);
    for (int i = 0; i < pairs; i++) {
        snprintf(name, sizeof(name), "%d.proj", i);
        add_pair(&adapter, name, rows, 4);
        snprintf(name, sizeof(name), "base_model.model.%d.proj.base_layer.weight", i);
        add(&adapter, name, DTYPE_BF16, rows, 4);
    }
    make_adapter(fixture, &adapter, CONFIG("[\"proj\"]"));
    return fixture;
}

/* A tensor behind a copied one may begin on the page on which the tensor before it ended. */
static void test_plan__a_block_with_copies_finds_each_read(void **state)
{
    (void)state;
    for (uint64_t rows = 1; rows < 2000; rows += 37) {
        struct fixture *fixture = copied_targets(3, rows);

        assert_int_equal(make_plan(fixture, &keep, -1), 0);
        check_blocks(&fixture->plan);
        end(fixture);
    }
}

static void test_plan__copies_in_one_block_are_no_reads(void **state)
{
    struct fixture *fixture = copied_targets(5, 4000);
    struct plan_block block;

    (void)state;
    assert_int_equal(make_plan(fixture, &keep, -1), 0);
    check_blocks(&fixture->plan);
    plan_block(&fixture->plan, 0, 0, &block);
    assert_true(block.in_place);
    assert_int_equal(block.read_count, 1);
    end(fixture);
}

/* Matrices that are quantised on their way out are taken from reads. */
static void test_plan__too_many_copies_in_one_block_are_refused(void **state)
{
    struct fixture *fixture = copied_targets(33, 400);
    struct plan_options options = keep;

    (void)state;
    options.encode = true;
    options.codes = QUANT_NF4;
    assert_int_equal(make_plan(fixture, &options, -1), ERR_FORMAT);
    assert_non_null(strstr(fixture->error.text, "block 0 of 'model.safetensors'"));
    end(fixture);
}

/* ---- tied heads ---- */

static struct fixture *tied_base(const char *module)
{
    struct fixture *fixture = begin();
    struct made_file base = { 0 };
    struct made_file adapter = { 0 };

    add(&base, "model.embed_tokens.weight", DTYPE_BF16, 3000, 512);
    add(&base, "model.layers.0.output.weight", DTYPE_BF16, 512, 512);
    make_base(fixture, &base, 8);
    if (strcmp(module, "lm_head") == 0)
        add_pair(&adapter, module, 3000, 512);
    else
        add_pair(&adapter, module, 512, 512);
    make_adapter(fixture, &adapter, CONFIG("[\"lm_head\",\"output\"]"));
    return fixture;
}

static void test_plan__a_tied_head_becomes_a_tensor(void **state)
{
    struct fixture *fixture = tied_base("lm_head");
    const struct plan *plan = &fixture->plan;
    struct plan_options options = keep;

    (void)state;
    assert_int_equal(make_plan(fixture, &options, 1), 0);
    assert_string_equal(plan->tied_head, "lm_head.weight");
    assert_true(plan->untied);
    assert_int_equal(plan->tensor_count, 3);
    assert_int_equal(plan->tensors[0].action, PLAN_COPY);
    assert_int_equal(plan->tensors[2].action, PLAN_FOLD);
    assert_int_equal(plan->tensors[2].in_offset, plan->tensors[0].in_offset);
    check_blocks(plan);

    options.tied = PLAN_TIED_SHARED;
    assert_int_equal(make_plan(fixture, &options, 1), 0);
    assert_null(plan->tied_head);
    assert_false(plan->untied);
    assert_int_equal(plan->tensor_count, 2);
    assert_int_equal(plan->tensors[0].action, PLAN_FOLD);
    check_blocks(plan);

    options.tied = PLAN_TIED_EXACT;
    assert_int_equal(make_plan(fixture, &options, 0), ERR_MISMATCH); /* untied, and no head */
    end(fixture);
}

/* A layer of the name "output" is no head: the config of its base stays tied. */
static void test_plan__an_output_inside_a_layer_unties_nothing(void **state)
{
    struct fixture *fixture = tied_base("model.layers.0.output");

    (void)state;
    assert_int_equal(make_plan(fixture, &keep, 1), 0);
    assert_int_equal(fixture->plan.folded, 1);
    assert_false(fixture->plan.untied);
    end(fixture);
}

/* Two adapters for one head, whose deltas have the shapes of two different embeddings. */
static void test_plan__heads_of_two_shapes_are_refused(void **state)
{
    struct fixture *fixture = begin();
    struct made_file base = { 0 };
    struct made_file adapter = { 0 };

    (void)state;
    add(&base, "text.embed_tokens.weight", DTYPE_BF16, 300, 64);
    add(&base, "audio.embed_tokens.weight", DTYPE_BF16, 200, 32);
    make_base(fixture, &base, 8);
    add_pair(&adapter, "lm_head", 300, 64);
    make_adapter(fixture, &adapter, CONFIG("[\"lm_head\"]"));
    add_pair(&adapter, "lm_head", 200, 32);
    make_adapter(fixture, &adapter, CONFIG("[\"lm_head\"]"));
    assert_int_equal(make_plan(fixture, &keep, 1), ERR_MISMATCH);
    end(fixture);
}

/* ---- matching ---- */

static void test_plan__two_sides_that_differ_share_no_tensor(void **state)
{
    struct fixture *fixture = tied_base("lm_head");
    struct plan_options options = { .tied = PLAN_TIED_SHARED, .max_shard_bytes = SHARD_MAX };
    struct made_file adapter = { 0 };

    (void)state;
    add_pair(&adapter, "lm_head", 3000, 512);
    add_pair(&adapter, "model.embed_tokens", 3000, 512);
    make_adapter(fixture, &adapter, CONFIG("[\"lm_head\",\"embed_tokens\"]"));
    assert_int_equal(make_plan(fixture, &options, 1), ERR_MISMATCH);
    assert_non_null(strstr(fixture->error.text, "no shared tensor holds both"));
    end(fixture);
}

static void test_plan__a_module_without_factors_is_told_or_refused(void **state)
{
    struct fixture *fixture = begin();
    struct plan_options options = keep;
    struct made_file base = { 0 };
    struct made_file adapter = { 0 };

    (void)state;
    add(&base, "a.proj.weight", DTYPE_BF16, 8, 8);
    add(&base, "b\033[2J.proj.weight", DTYPE_BF16, 8, 8); /* would clear the terminal */
    make_base(fixture, &base, 8);
    add_pair(&adapter, "a.proj", 8, 8);
    make_adapter(fixture, &adapter, CONFIG("[\"proj\"]"));
    assert_int_equal(make_plan(fixture, &options, -1), 0);
    assert_non_null(strstr(fixture->said.data, "first 'b\\x1b[2J.proj.weight'"));
    options.strict = true;
    assert_int_equal(make_plan(fixture, &options, -1), ERR_MISMATCH);
    assert_non_null(strstr(fixture->error.text, "first 'b\\x1b[2J.proj.weight'"));
    end(fixture);
}

/* ---- repeated layers ---- */

/* Names are copied for them; memory that was used before shows where they end. */
static void use_memory(void)
{
    void *used[1000];

    for (size_t i = 0; i < 1000; i++) {
        used[i] = malloc(sizeof("model.layers.0.proj.weight"));
        assert_non_null(used[i]);
        memset(used[i], 'x', sizeof("model.layers.0.proj.weight"));
    }
    for (size_t i = 0; i < 1000; i++)
        free(used[i]);
}

static void test_plan__names_of_repeated_layers_are_strings(void **state)
{
    struct fixture *fixture = begin();
    struct made_file base = { 0 };
    struct made_file adapter = { 0 };
    const struct plan *plan = &fixture->plan;

    (void)state;
    add(&base, "model.layers.0.proj.weight", DTYPE_BF16, 8, 8);
    make_base(fixture, &base, 8);
    add_pair(&adapter, "model.layers.1.proj", 8, 8);
    make_adapter(fixture, &adapter,
                 "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":4,\"target_modules\":[\"proj\"],"
                 "\"layer_replication\":[[0,1],[0,1],[0,1]]}");
    use_memory();
    assert_int_equal(make_plan(fixture, &keep, -1), 0);
    assert_int_equal(plan->tensor_count, 3);
    assert_string_equal(plan->tensors[0].name, "model.layers.0.proj.weight");
    assert_string_equal(plan->tensors[1].name, "model.layers.1.proj.weight");
    assert_string_equal(plan->tensors[2].name, "model.layers.2.proj.weight");
    assert_true(plan->kept_bytes > 3 * strlen(plan->tensors[0].name));
    end(fixture);
}

static void test_plan__layers_are_not_repeated_without_end(void **state)
{
    struct fixture *fixture = begin();
    struct made_file base = { 0 };
    struct made_file adapter = { 0 };
    struct text config = { 0 };

    (void)state;
    add(&base, "model.layers.0.proj.weight", DTYPE_BF16, 8, 8);
    for (int i = 0; i < 256; i++) { /* with 4096 layers, 4096 tensors too many */
        char name[64];

        snprintf(name, sizeof(name), "model.layers.0.%d", i);
        add(&base, name, DTYPE_U8, 0, 0);
    }
    make_base(fixture, &base, 8);
    add_pair(&adapter, "model.layers.0.proj", 8, 8);
    text_adds(&config, "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":4,"
                       "\"target_modules\":[\"proj\"],\"layer_replication\":[[0,1]");
    for (int i = 1; i < 4096; i++)
        text_adds(&config, ",[0,1]");
    text_adds(&config, "]}");
    make_adapter(fixture, &adapter, config.data);
    text_release(&config);
    assert_int_equal(make_plan(fixture, &keep, -1), ERR_MISMATCH);
    assert_non_null(strstr(fixture->error.text, "1048576 tensors"));
    end(fixture);
}

/* ---- an adapter that stays one ---- */

static int make_adapter_plan(struct fixture *fixture, const struct plan_options *options)
{
    plan_release(&fixture->plan);
    return plan_make_adapter(&fixture->plan, &fixture->adapters[0], options, &fixture->error);
}

static void test_plan__an_adapter_is_copied(void **state)
{
    struct fixture *fixture = begin();
    const struct plan *plan = &fixture->plan;
    struct made_file adapter = { 0 };

    (void)state;
    add_pair(&adapter, "a.proj", 3000000, 4000);
    add_pair(&adapter, "_orig_mod.b.proj", 3000, 4000);
    make_adapter(fixture, &adapter, CONFIG("[\"proj\"]"));
    assert_int_equal(make_adapter_plan(fixture, &(struct plan_options){ .max_shard_bytes = 1 }), 0);
    assert_int_equal(plan->file_count, 1);
    assert_string_equal(plan->files[0].name, PLAN_ADAPTER_FILE);
    assert_int_equal(plan->copied, 4);
    assert_int_equal(plan->in_place_blocks, plan->block_count);
    assert_string_equal(plan->tensors[3].name, "base_model.model.b.proj.lora_B.weight");
    assert_non_null(strstr(plan->headers + ST_PREFIX_BYTES,
                           "\"base_model.model.b.proj.lora_B.weight\":{\"dtype\":\"BF16\","
                           "\"shape\":[3000,4]"));
    check_blocks(plan);
    end(fixture);
}

static void test_plan__an_adapter_is_converted(void **state)
{
    static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };
    static const size_t converted[] = { 1, 3, 2 };
    struct fixture *fixture = begin();
    const struct plan *plan = &fixture->plan;
    struct made_file adapter = { 0 };

    (void)state;
    add_pair(&adapter, "a.proj", 3000000, 4000);
    add(&adapter, "base_model.model.head.weight", DTYPE_F32, 1000, 4000);
    add(&adapter, "base_model.model.head.table", DTYPE_I64, 10, 40);
    make_adapter(fixture, &adapter,
                 "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":4,\"target_modules\":[\"proj\"],"
                 "\"modules_to_save\":[\"head\"]}");
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(make_adapter_plan(fixture, &(struct plan_options){ .convert = true,
                                                                            .dtype = dtypes[i] }),
                         0);
        assert_int_equal(plan->converted, converted[i]);
        assert_int_equal(plan->converted + plan->copied, 4);
        check_blocks(plan);
        assert_int_equal(plan_fit_memory(&fixture->plan, 64 * MIB, 1, 1, 0, &fixture->error), 0);
    }
    end(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan__an_adapter_is_copied),
        cmocka_unit_test(test_plan__an_adapter_is_converted),
        cmocka_unit_test(test_plan__a_shard_is_folded_in_place),
        cmocka_unit_test(test_plan__a_large_shard_is_cut_between_tensors),
        cmocka_unit_test(test_plan__data_that_start_at_an_odd_byte_get_a_clean_layout),
        cmocka_unit_test(test_plan__another_width_is_read_behind),
        cmocka_unit_test(test_plan__empty_tensors_are_kept_and_not_read),
        cmocka_unit_test(test_plan__very_many_tiny_tensors_share_a_block),
        cmocka_unit_test(test_plan__a_block_with_copies_finds_each_read),
        cmocka_unit_test(test_plan__copies_in_one_block_are_no_reads),
        cmocka_unit_test(test_plan__too_many_copies_in_one_block_are_refused),
        cmocka_unit_test(test_plan__a_tied_head_becomes_a_tensor),
        cmocka_unit_test(test_plan__an_output_inside_a_layer_unties_nothing),
        cmocka_unit_test(test_plan__heads_of_two_shapes_are_refused),
        cmocka_unit_test(test_plan__two_sides_that_differ_share_no_tensor),
        cmocka_unit_test(test_plan__a_module_without_factors_is_told_or_refused),
        cmocka_unit_test(test_plan__names_of_repeated_layers_are_strings),
        cmocka_unit_test(test_plan__layers_are_not_repeated_without_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
