#include "cli_options.h"

#include "cli_commands.h"
#include "cli_text.h"
#include "lorafold.h"

#include <string.h>

#define MEMBER(name) offsetof(struct cli_arguments, name)
#define MERGING (CLI_MERGE | CLI_PLAN)
#define PUSHING (CLI_PUSH | CLI_MERGE | CLI_PLAN)

static const struct cli_choice save_methods[] = {
    { "merged_16bit", LORAFOLD_MERGED_16BIT, NULL },
    { "merged_4bit", LORAFOLD_MERGED_4BIT, NULL },
    { "merged_4bit_forced", LORAFOLD_MERGED_4BIT, NULL },
    { "lora", LORAFOLD_LORA, NULL },
    { "same", LORAFOLD_SAME, NULL },
    { 0 },
};

static const struct cli_choice dtypes[] = {
    { "keep", LORAFOLD_DTYPE_KEEP, NULL },     { "bf16", LORAFOLD_DTYPE_BF16, NULL },
    { "f16", LORAFOLD_DTYPE_F16, NULL },       { "f32", LORAFOLD_DTYPE_F32, NULL },
    { "bfloat16", LORAFOLD_DTYPE_BF16, NULL }, { "float16", LORAFOLD_DTYPE_F16, NULL },
    { "fp16", LORAFOLD_DTYPE_F16, NULL },      { "half", LORAFOLD_DTYPE_F16, NULL },
    { "float32", LORAFOLD_DTYPE_F32, NULL },   { "fp32", LORAFOLD_DTYPE_F32, NULL },
    { "float", LORAFOLD_DTYPE_F32, NULL },     { 0 },
};

static const struct cli_choice tied_rules[] = {
    { "exact", LORAFOLD_TIED_EXACT, NULL },
    { "shared", LORAFOLD_TIED_SHARED, NULL },
    { 0 },
};

static const struct cli_choice b_layouts[] = {
    { "auto", LORAFOLD_B_AUTO, NULL },
    { "rank-major", LORAFOLD_B_RANK_MAJOR, NULL },
    { "expert-major", LORAFOLD_B_EXPERT_MAJOR, NULL },
    { 0 },
};

static const struct cli_choice numerics[] = {
    { "auto", LORAFOLD_NUMERICS_AUTO, NULL },
    { "original", LORAFOLD_NUMERICS_ORIGINAL, NULL },
    { "dequantised", LORAFOLD_NUMERICS_DEQUANTISED, NULL },
    { "dequantized", LORAFOLD_NUMERICS_DEQUANTISED, NULL },
    { "nf4-roundtrip", LORAFOLD_NUMERICS_NF4_ROUNDTRIP, NULL },
    { 0 },
};

static const struct cli_choice quant_types[] = {
    { "nf4", LORAFOLD_NF4, NULL },
    { "fp4", LORAFOLD_FP4, NULL },
    { 0 },
};

static const struct cli_choice clone_rules[] = {
    { "auto", LORAFOLD_CLONE_AUTO, NULL },
    { "never", LORAFOLD_CLONE_NEVER, NULL },
    { "always", LORAFOLD_CLONE_ALWAYS, NULL },
    { 0 },
};

static const struct cli_choice devices[] = {
    { "auto", 0, NULL },
    { "cpu", 0, NULL },
    { "cuda", 0, NULL },
    { "cuda:", 0, NULL },
    { "sim", 0, "" },
    { "sim:", 0, "" }, /* simulated, for tests */
    { 0 },
};

static const struct cli_choice io_engines[] = { { "uring", 0, NULL },
                                                { "threads", 0, NULL },
                                                { 0 } };
static const struct cli_choice on_off[] = { { "on", 0, NULL }, { "off", 0, NULL }, { 0 } };

const struct cli_option cli_options[] = {
    { "base-model", 'm', CLI_STRING, false, "BASE", MERGING, MEMBER(base), NULL,
      "the argument BASE as an option" },
    { "adapter", 'a', CLI_ADAPTER, false, "ADAPTER[:WEIGHT]", MERGING, MEMBER(adapters), NULL,
      "an adapter to fold in; give it once per adapter, they are added in the order given" },
    { "output", 'o', CLI_STRING, false, "OUT", MERGING, MEMBER(output), NULL,
      "the model directory to make; not needed for a plan" },
    { "each", 0, CLI_FLAG, false, NULL, MERGING, MEMBER(each), NULL,
      "make a model of each adapter alone, in a directory OUT/NAME with the adapter's name, all in "
      "one pass over the base" },
    { "adapters-dir", 0, CLI_STRING, false, "DIR", MERGING, MEMBER(adapters_dir), NULL,
      "the same with every adapter below DIR" },
    { "jobs", 0, CLI_STRING, false, "FILE", MERGING, MEMBER(jobs), NULL,
      "make the outputs that a JSON file lists, in one pass: names, adapters with weights, "
      "options; "
      "see 'lorafold help jobs'" },
    { "skip-existing", 0, CLI_FLAG, false, NULL, MERGING, MEMBER(skip_existing), NULL,
      "with several outputs: leave those that are there, as after an interrupted run" },
    { "save-method", 0, CLI_CHOICE, false, "METHOD", MERGING, MEMBER(save_method), save_methods,
      "merged_16bit (default): a complete model; merged_4bit: the same, quantised as bitsandbytes "
      "does it; same: a quantised base back in its own scheme, where that needs no calibration; "
      "lora: "
      "the one adapter as PEFT saves it, with tokenizer files, and its base is only "
      "needed for checks and these files" },
    { "dtype", 0, CLI_CHOICE, false, "TYPE", MERGING, MEMBER(dtype), dtypes,
      "keep (default): each tensor as in the base; bf16, f16 or f32: every F16, BF16 and F32 "
      "tensor "
      "is converted, but for the few that model code keeps in F32" },
    { "base-numerics", 0, CLI_CHOICE, false, "WHICH", MERGING, MEMBER(base_numerics), numerics,
      "which numbers of a quantised base count: dequantised, what its files say; original, those "
      "of the 16-bit model it was made from; nf4-roundtrip takes a 16-bit base through NF4, which "
      "is what QLoRA trains against; auto (default): a BASE that is given as it is, for one that "
      "the adapter names its original if that is in the cache" },
    { "original-base", 0, CLI_STRING, false, "BASE", MERGING, MEMBER(original_base), NULL,
      "the 16-bit model of a quantised base, for --base-numerics original" },
    { "quant-type", 0, CLI_CHOICE, false, "TYPE", MERGING, MEMBER(quant_type), quant_types,
      "the 4-bit code of merged_4bit: nf4 (default) or fp4, as bitsandbytes has them" },
    { "no-double-quant", 0, CLI_FLAG, false, NULL, MERGING, MEMBER(single_quant), NULL,
      "with merged_4bit: keep the scales of blocks in fp32, instead of quantising them as well" },
    { "skip", 0, CLI_LIST, false, "MODULE", MERGING, MEMBER(skip), NULL,
      "with merged_4bit or nf4-roundtrip: a module that stays in 16 bits, with all in it, by its "
      "name or a part of it between dots; may be repeated (heads, embeddings, routers and experts "
      "stay so anyway)" },
    { "max-shard-size", 0, CLI_SIZE, false, "SIZE", MERGING, MEMBER(max_shard_bytes), NULL,
      "most tensor data in one file (default 5GB); the base's own files are kept where they are "
      "small enough" },
    { "tokenizer", 0, CLI_STRING, false, "DIR", MERGING, MEMBER(tokenizer), NULL,
      "take the tokenizer files from DIR (or org/name), not from adapter and base" },
    { "tied", 0, CLI_CHOICE, false, "RULE", MERGING, MEMBER(tied), tied_rules,
      "where an adapter changes one side of a tied embedding and head: exact (default) writes two "
      "tensors, which is what was trained; shared changes both sides through the one tensor" },
    { "lora-b-layout", 0, CLI_CHOICE, false, "LAYOUT", MERGING, MEMBER(b_layout), b_layouts,
      "order of the columns of B in factors of fused experts: auto (default) takes PEFT's unless "
      "the adapter says otherwise; rank-major or expert-major" },
    { "memory", 0, CLI_SIZE, false, "SIZE", MERGING | CLI_VERIFY, MEMBER(memory_bytes), NULL,
      "ceiling on this process's memory (default 128MiB)" },
    { "threads", 0, CLI_COUNT, false, "N", MERGING | CLI_VERIFY | CLI_BENCH, MEMBER(threads), NULL,
      "worker threads, 1 to 1024 (default: one per processor that may be used; verify: 4)" },
    { "device", 0, CLI_WORD, false, "DEVICE", MERGING, MEMBER(device), devices,
      "what computes: cpu; cuda, the first NVIDIA GPU, or cuda:N; auto (default) takes a GPU where "
      "the processors would be the brake, and says why" },
    { "gpu-memory", 0, CLI_SHARE, false, "SIZE", MERGING, MEMBER(gpu_memory), NULL,
      "ceiling on the memory of the GPU: a size, or a fraction of what is free (default 0.75)" },
    { "trace", 0, CLI_STRING, false, "FILE", CLI_MERGE, MEMBER(trace), NULL,
      "write a timeline of the run, for ui.perfetto.dev or chrome://tracing" },
    { "clone", 0, CLI_CHOICE, false, "WHEN", MERGING, MEMBER(clone), clone_rules,
      "what no adapter touches shares the storage of the base where the file system can do that "
      "(XFS, btrfs): auto (default) where it works, never, or always, which is an error where it "
      "does not work. Several outputs share what they have alike with each other, too" },
    { "overwrite", 0, CLI_FLAG, false, NULL, MERGING, MEMBER(overwrite), NULL,
      "replace OUT if it exists, in one step when the new model is complete; where OUT is a link, "
      "the directory that it leads to" },
    { "allow-unused", 0, CLI_FLAG, false, NULL, MERGING, MEMBER(allow_unused), NULL,
      "list adapter tensors that cannot be folded and go on without them" },
    { "allow-nonfinite", 0, CLI_FLAG, false, NULL, MERGING, MEMBER(allow_nonfinite), NULL,
      "write NaN and infinite results, which are an error otherwise" },
    { "strict", 0, CLI_FLAG, false, NULL, MERGING, MEMBER(strict), NULL,
      "refuse where a warning says that the result may not be what was meant" },
    { "safe-serialization", 0, CLI_FLAG, false, NULL, MERGING, MEMBER(safetensors), NULL,
      "write safetensors, which is the default" },
    { "no-safe-serialization", 0, CLI_FLAG, false, NULL, MERGING, MEMBER(torch), NULL,
      "write files of torch.save() instead of safetensors: pytorch_model.bin, or shards and an "
      "index, that torch.load() takes with weights_only=True" },
    { "variant", 0, CLI_STRING, false, "NAME", MERGING, MEMBER(variant), NULL,
      "part of the names of these files, as from_pretrained(variant=NAME) looks for them: "
      "model.NAME.safetensors" },
    { "trust-remote-code", 0, CLI_NOTED, true, NULL, MERGING, 0, NULL,
      "'--trust-remote-code' is not needed, no code of a model is ever run" },
    { "token-file", 0, CLI_STRING, false, "FILE", MERGING | CLI_FETCH | CLI_PUSH,
      MEMBER(token_file), NULL,
      "a file that holds a token of the Hub (default: HF_TOKEN, or where 'hf auth login' puts "
      "it)" },
    { "offline", 0, CLI_FLAG, false, NULL, MERGING | CLI_FETCH, MEMBER(offline), NULL,
      "ask the Hub nothing, as with HF_HUB_OFFLINE=1: what is not in the cache is an error" },
    { "push-to-hub", 0, CLI_STRING, false, "REPO", MERGING, MEMBER(push_to_hub), NULL,
      "push the output to org/name on the Hub: shards while others are made, one commit at the "
      "end, "
      "when all files were read again and are what was to be written" },
    { "no-local", 0, CLI_FLAG, false, NULL, MERGING, MEMBER(no_local), NULL,
      "with --push-to-hub: keep no output here. A shard is removed once the Hub has it, and at "
      "most "
      "two are on the disk; OUT (lorafold-NAME if it is not given) is only where the work is "
      "done" },
    { "private", 0, CLI_FLAG, false, NULL, PUSHING, MEMBER(is_private), NULL,
      "make the repository private if it has to be made; one that is there stays as it is" },
    { "revision", 0, CLI_STRING, false, "BRANCH", PUSHING, MEMBER(revision), NULL,
      "the branch of REPO to push to, made if it is not there (default: main)" },
    { "create-pr", 0, CLI_FLAG, false, NULL, PUSHING, MEMBER(create_pr), NULL,
      "push as a pull request to main" },
    { "commit-message", 0, CLI_STRING, false, "TEXT", PUSHING, MEMBER(commit_message), NULL,
      "first line of the commit" },
    { "commit-description", 0, CLI_STRING, false, "TEXT", PUSHING, MEMBER(commit_description), NULL,
      "what follows it" },
    { "tag", 0, CLI_LIST, false, "TAG", PUSHING, MEMBER(tags), NULL,
      "a tag for the model card on the Hub; may be repeated" },
    { "dataset", 0, CLI_LIST, false, "NAME", PUSHING, MEMBER(datasets), NULL,
      "a dataset that the model card names; may be repeated" },
    { "dry-run", 'n', CLI_FLAG, false, NULL, MERGING, MEMBER(dry_run), NULL,
      "print the plan on standard output and stop; nothing is written" },
    { "deep", 0, CLI_FLAG, false, NULL, CLI_VERIFY, MEMBER(deep), NULL,
      "also compare what was cloned from the base with the base, which is the argument behind it "
      "or, "
      "without one, where OUT/lorafold.json says: in the cache, or else beside OUT" },
    { "tensors", 0, CLI_FLAG, false, NULL, CLI_INSPECT, MEMBER(tensors), NULL,
      "list every tensor with dtype, shape and size" },
    { "file-size", 0, CLI_SIZE, false, "SIZE", CLI_BENCH, MEMBER(file_bytes), NULL,
      "size of the test file, at least 64MiB (default 2GiB)" },
    { "skip-disk", 0, CLI_FLAG, false, NULL, CLI_BENCH, MEMBER(skip_disk), NULL,
      "do not measure the disk; no test file is made" },
    { "skip-kernels", 0, CLI_FLAG, false, NULL, CLI_BENCH, MEMBER(skip_kernels), NULL,
      "do not measure memory and kernels" },
    { "json", 0, CLI_FLAG, false, NULL, CLI_ALL & ~CLI_HELP, MEMBER(json), NULL,
      "print JSON objects for programs on standard output, see 'lorafold help json'" },
    { "quiet", 'q', CLI_FLAG, false, NULL, MERGING | CLI_VERIFY | CLI_FETCH | CLI_PUSH,
      MEMBER(quiet), NULL, "print warnings and errors only" },
    { "verbose", 'v', CLI_FLAG, false, NULL,
      MERGING | CLI_VERIFY | CLI_BENCH | CLI_FETCH | CLI_PUSH, MEMBER(verbose), NULL,
      "also print what was chosen and why" },
    { "io", 0, CLI_WORD, true, "ENGINE", MERGING, MEMBER(io_engine), io_engines, "" },
    { "direct", 0, CLI_WORD, true, "on|off", MERGING | CLI_VERIFY, MEMBER(io_direct), on_off, "" },
    { "kernels", 0, CLI_STRING, true, "NAME", MERGING, MEMBER(kernels), NULL, "" },
    { "help", 'h', CLI_FLAG, false, NULL, CLI_ALL, MEMBER(help), NULL, "show this text" },
    { "version", 'V', CLI_FLAG, false, NULL, CLI_ALL, MEMBER(version), NULL,
      "show the version of the program" },
    { 0 },
};

_Static_assert(sizeof(cli_options) / sizeof(cli_options[0]) <= 64 + 1,
               "read_arguments() keeps one bit of 64 for each option");

const struct cli_alias cli_aliases[] = {
    { "base", "base-model" },
    { "model", "base-model" },
    { "base-dir", "base-model" },
    { "hf-model", "base-model" },
    { "model-name-or-path", "base-model" },
    { "base-model-name-or-path", "base-model" },
    { "adapter-path", "adapter" },
    { "adapter-dir", "adapter" },
    { "adapter-name-or-path", "adapter" },
    { "lora", "adapter" },
    { "out", "output" },
    { "out-dir", "output" },
    { "output-dir", "output" },
    { "output-path", "output" },
    { "export-dir", "output" },
    { "save-path", "output" },
    { "save-directory", "output" },
    { "torch-dtype", "dtype" },
    { "exist-ok", "overwrite" },
    { "force", "overwrite" },
    { 0 },
};

const struct cli_option *cli_option_by_name(const char *name, size_t name_bytes)
{
    for (const struct cli_option *option = cli_options; option->name; option++)
        if (cli_name_equal(option->name, name, name_bytes))
            return option;
    for (const struct cli_alias *alias = cli_aliases; alias->name; alias++)
        if (cli_name_equal(alias->name, name, name_bytes))
            return cli_option_by_name(alias->option, strlen(alias->option));
    return NULL;
}

const struct cli_option *cli_option_by_letter(char letter)
{
    for (const struct cli_option *option = cli_options; option->name; option++)
        if (option->letter && option->letter == letter)
            return option;
    return NULL;
}

const struct cli_command *cli_command_by_name(const char *name)
{
    for (const struct cli_command *command = cli_commands; command->name; command++)
        if (strcmp(command->name, name) == 0)
            return command;
    return NULL;
}

const struct cli_topic *cli_topic_by_name(const char *name)
{
    for (const struct cli_topic *topic = cli_topics; topic->name; topic++)
        if (cli_name_equal(topic->name, name, strlen(name)))
            return topic;
    return NULL;
}

const char *cli_option_nearest(const struct cli_command *command, const char *typed)
{
    size_t distance = cli_nearest_limit(typed);
    const char *nearest = NULL;

    for (const struct cli_option *option = cli_options; option->name; option++) {
        bool usable = !option->hidden && (!command || command->bit & option->commands);

        if (usable && cli_nearer(option->name, typed, &distance))
            nearest = option->name;
    }
    for (const struct cli_alias *alias = cli_aliases; alias->name; alias++) {
        const struct cli_option *option = cli_option_by_name(alias->option, strlen(alias->option));
        bool usable = !command || command->bit & option->commands;

        if (usable && cli_nearer(alias->name, typed, &distance))
            nearest = alias->name;
    }
    return nearest;
}

const char *cli_command_nearest(const char *typed, bool topics_too)
{
    size_t distance = cli_nearest_limit(typed);
    const char *nearest = NULL;

    for (const struct cli_command *command = cli_commands; command->name; command++)
        if (cli_nearer(command->name, typed, &distance))
            nearest = command->name;
    if (!topics_too)
        return nearest;
    for (const struct cli_topic *topic = cli_topics; topic->name; topic++)
        if (cli_nearer(topic->name, typed, &distance))
            nearest = topic->name;
    return nearest;
}
