/*
 * cli_options.h - what can be typed: the tables of commands, options and other spellings
 *
 * Parsing (cli_parse.c) and help (cli_help.c) both read these tables, so a new
 * option is one row, and the help cannot say anything that the parser does not do.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cli_console;
struct lorafold_adapter;
struct lorafold_error;

/* The values of an option that may be given any number of times; they point into argv. */
struct cli_list {
    const char **items;
    size_t count;
};

struct cli_share {
    uint64_t bytes;  /* 0: the fraction */
    double fraction; /* 0: not given */
};

/* What was typed.  A member that was not given is 0, false or NULL. */
struct cli_arguments {
    const struct cli_command *command; /* NULL with --version, and with --help alone */
    bool help;
    bool version;
    const char *positional; /* the command's first argument */
    const char *second;     /* push: the repository; verify: the base, with --deep */
    bool deep;
    bool deep_first; /* --deep stood before any argument: BASE comes before OUT */
    const char *base;
    struct lorafold_adapter *adapters; /* paths point into argv */
    size_t adapter_count;
    const char *output;
    const char *tokenizer;
    int save_method;
    int dtype;         /* enum lorafold_dtype */
    int tied;          /* enum lorafold_tied */
    int b_layout;      /* enum lorafold_b_layout */
    int base_numerics; /* enum lorafold_base_numerics */
    const char *original_base;
    int quant_type; /* enum lorafold_quant_type */
    bool single_quant;
    struct cli_list skip;
    int clone; /* enum lorafold_clone */
    const char *device;
    struct cli_share gpu_memory;
    const char *trace;
    uint64_t max_shard_bytes;
    uint64_t memory_bytes;
    uint64_t file_bytes;
    unsigned threads;
    bool each;
    const char *adapters_dir;
    const char *jobs;
    bool skip_existing;
    bool overwrite;
    bool allow_unused;
    bool allow_nonfinite;
    bool strict;
    bool dry_run;
    bool tensors;
    bool skip_disk;
    bool skip_kernels;
    bool json;
    bool quiet;
    bool verbose;
    bool torch;
    bool safetensors; /* --safe-serialization, which is the default */
    const char *variant;
    const char *token_file;
    bool offline;
    const char *push_to_hub;
    bool no_local;
    bool is_private;
    bool create_pr;
    const char *revision;
    const char *commit_message;
    const char *commit_description;
    struct cli_list tags;
    struct cli_list datasets;
    const char *note; /* to tell the user before the work, or NULL */
    const char *io_engine;
    const char *io_direct;
    const char *kernels;
};

/* Bits for cli_option.commands. */
enum {
    CLI_MERGE = 1,
    CLI_PLAN = 2,
    CLI_VERIFY = 4,
    CLI_INSPECT = 8,
    CLI_BENCH = 16,
    CLI_HELP = 32,
    CLI_FETCH = 64,
    CLI_PUSH = 128,
    CLI_ALL = 255
};

struct cli_command {
    const char *name;
    unsigned bit;
    const char *argument; /* name of the first argument, "BASE" */
    bool argument_required;
    const char *summary;  /* for the list of commands and the first line of its help */
    const char *usage;    /* after "lorafold NAME " */
    const char *about;    /* paragraphs; a line feed begins a new one */
    const char *examples; /* lines as they are shown */
    int (*run)(const struct cli_arguments *arguments, struct cli_console *console,
               struct lorafold_error *err);
    const char *second; /* name of the second argument, which is required; NULL: there is none */
};

/* How the value of an option is read, and the type of the member that takes it. */
enum cli_kind {
    CLI_FLAG,    /* no value; bool */
    CLI_STRING,  /* const char * */
    CLI_SIZE,    /* lorafold_parse_size(); uint64_t */
    CLI_SHARE,   /* a size, or a fraction of what there is; struct cli_share */
    CLI_COUNT,   /* 1 to 1024; unsigned */
    CLI_CHOICE,  /* one of `choices`; int */
    CLI_WORD,    /* one of `choices`, kept as it is written; const char * */
    CLI_ADAPTER, /* PATH[:WEIGHT], any number of times */
    CLI_LIST,    /* text, any number of times; struct cli_list */
    CLI_NOTED    /* no value, nothing happens; the help text is the sentence that says why */
};

struct cli_choice {
    const char *name; /* one that ends in ':' stands for all values that begin so */
    int value;
    const char *refusal; /* known, but why it cannot be had; "": can be had, but is shown nowhere */
};

struct cli_option {
    const char *name; /* without the dashes */
    char letter;      /* or 0 */
    enum cli_kind kind;
    bool hidden;                      /* not in the help */
    const char *value_name;           /* "DIR", or NULL for options without a value */
    unsigned commands;                /* CLI_MERGE | ... */
    size_t member;                    /* offset in struct cli_arguments */
    const struct cli_choice *choices; /* ends with one without a name */
    const char *help;
};

/* Another spelling of an option that people know from other programs. */
struct cli_alias {
    const char *name;
    const char *option;
};

/* A text for `lorafold help TOPIC`. */
struct cli_topic {
    const char *name;
    const char *summary;
    const char *text; /* lines as they are shown */
};

/* Each table ends with a row without a name. */
extern const struct cli_command cli_commands[];
extern const struct cli_option cli_options[];
extern const struct cli_alias cli_aliases[];
extern const struct cli_topic cli_topics[];

static inline bool cli_option_takes_value(const struct cli_option *option)
{
    return option->value_name != NULL;
}

/* The option of this name, also another spelling of it; NULL if there is none. */
const struct cli_option *cli_option_by_name(const char *name, size_t name_bytes);
const struct cli_option *cli_option_by_letter(char letter);
const struct cli_command *cli_command_by_name(const char *name);
const struct cli_topic *cli_topic_by_name(const char *name);

/* The nearest name a user of `command` (or NULL: of any) may have meant; NULL if none is near. */
const char *cli_option_nearest(const struct cli_command *command, const char *typed);
const char *cli_command_nearest(const char *typed, bool topics_too);

#endif
