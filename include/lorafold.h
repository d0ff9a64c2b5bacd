/*
 * lorafold.h - fold LoRA adapters into a base model without ever holding the model
 *
 * The calling sequence of a merge:
 *
 *     struct lorafold_merge_options options;
 *     struct lorafold_merge *merge = NULL;
 *     struct lorafold_error err = { 0 };
 *
 *     lorafold_merge_options_init(&options);
 *     options.base = "/models/Llama-3.1-8B";
 *     options.adapters = (struct lorafold_adapter[]){ { "/adapters/chat", 1.0 } };
 *     options.adapter_count = 1;
 *     options.output = "/models/merged";
 *     status = lorafold_merge_open(&merge, &options, &err);     plan: headers only, writes nothing
 *     if (!status)
 *         status = lorafold_merge_run(merge, &err);             work: fixed memory, fixed threads
 *     if (status)
 *         fprintf(stderr, "%s\n", err.text);
 *     lorafold_merge_close(merge);
 *
 * Every function that can fail returns 0 or an enum lorafold_status and writes
 * one sentence to *err, which may be NULL.  Nothing is printed, nothing exits.
 * Strings and arrays given in options are borrowed until the call returns, or,
 * for a merge, until lorafold_merge_close().  Sizes are in bytes.  A complete
 * program is docs/example.c.
 *
 * Threads: separate objects may be used by separate threads at once.  One object
 * belongs to one thread, but for lorafold_merge_cancel() and
 * lorafold_verify_options.cancel.  Callbacks come on the thread that called.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef LORAFOLD_H
#define LORAFOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LORAFOLD_API __attribute__((visibility("default")))

/* Each is one exit status of the program (LORAFOLD_CANCELLED: 130 or 143 there). */
enum lorafold_status {
    LORAFOLD_OK = 0,
    LORAFOLD_FAILED = 1,    /* the machine failed: I/O, no space, no memory; a retry may help */
    LORAFOLD_USAGE = 2,     /* cannot be run as given: options, paths, budget */
    LORAFOLD_FORMAT = 3,    /* an input is damaged or unsupported, or a result is not finite */
    LORAFOLD_MISMATCH = 4,  /* base and adapter do not fit each other */
    LORAFOLD_DIFFERENT = 5, /* verification found a difference */
    LORAFOLD_CANCELLED = 6  /* lorafold_merge_cancel(), or a cancel flag */
};

struct lorafold_error {
    int code;        /* an enum lorafold_status */
    char text[1024]; /* lower case, no full stop: what, where, the value, the limit, what to do */
};

enum lorafold_level {
    LORAFOLD_WARNING, /* the result may not be what was meant; an error with strict */
    LORAFOLD_NOTICE,
    LORAFOLD_DETAIL /* for -v */
};

typedef void lorafold_message_fn(void *context, enum lorafold_level level, const char *sentence);

/* What limits a merge at the moment. */
enum lorafold_limit {
    LORAFOLD_LIMIT_READ,
    LORAFOLD_LIMIT_COMPUTE,
    LORAFOLD_LIMIT_WRITE,
    LORAFOLD_LIMIT_DOWNLOAD, /* the bytes are those that come from the Hub */
    LORAFOLD_LIMIT_UPLOAD,   /* the bytes are those that go there */
    LORAFOLD_LIMIT_PREPARE   /* what blocks need is made first (factors in order, norms of DoRA,
                                scales): the bytes are those that are read or written for it */
};

struct lorafold_progress {
    uint64_t bytes_done; /* of the output (verify: of the files read) */
    uint64_t bytes_total;
    double seconds; /* since lorafold_merge_open() or lorafold_verify() was called */
    enum lorafold_limit limit;
    const char *file; /* the output file of the newest block; what comes from the Hub; verify: "" */
    size_t outputs_done;  /* of a batch */
    size_t outputs_total; /* 0: it is none */
};

/* Called at most ten times a second, and once at the end. */
typedef void lorafold_progress_fn(void *context, const struct lorafold_progress *progress);

enum lorafold_dtype {
    LORAFOLD_DTYPE_KEEP, /* dtypes as in the base */
    LORAFOLD_DTYPE_BF16,
    LORAFOLD_DTYPE_F16,
    LORAFOLD_DTYPE_F32
};

enum lorafold_tied {
    LORAFOLD_TIED_EXACT, /* two tensors where the adapter changes one side of a tied pair */
    LORAFOLD_TIED_SHARED /* fold into the one tensor, which changes both sides */
};

/* What is written. */
enum lorafold_save_method {
    LORAFOLD_MERGED_16BIT, /* a model in 16 or 32 bits */
    LORAFOLD_MERGED_4BIT,  /* a model quantised as bitsandbytes does it */
    LORAFOLD_LORA,         /* the one adapter itself, as PEFT saves it, with the weight 1.  A base
                              that is given is only checked and gives tokenizer files; one that the
                              adapter names is passed over with a notice if it cannot be read */
    LORAFOLD_SAME          /* a model in the base's own scheme */
};

/* Which numbers of the base the deltas are added to. */
enum lorafold_base_numerics {
    LORAFOLD_NUMERICS_AUTO,     /* a base given is taken as it is; for one that the adapter names
                                   and that is quantised, its 16-bit sibling if that is cached */
    LORAFOLD_NUMERICS_ORIGINAL, /* the 16-bit model: original_base, or the sibling, also fetched */
    LORAFOLD_NUMERICS_DEQUANTISED,  /* what the files say */
    LORAFOLD_NUMERICS_NF4_ROUNDTRIP /* a 16-bit base taken through NF4, as QLoRA trains against */
};

/* The 4-bit code of merged_4bit. */
enum lorafold_quant_type { LORAFOLD_NF4, LORAFOLD_FP4 };

/* How the columns of the B factors of fused experts are ordered. */
enum lorafold_b_layout {
    LORAFOLD_B_AUTO, /* as PEFT writes them, or as the adapter itself says */
    LORAFOLD_B_RANK_MAJOR,
    LORAFOLD_B_EXPERT_MAJOR
};

/*
 * What no adapter touches, where the file system can share storage (XFS, btrfs): cloned from the
 * base, which costs neither reading nor writing nor space until one of the two is changed.
 */
enum lorafold_clone {
    LORAFOLD_CLONE_AUTO,  /* where it works, found by trying; the rest is written */
    LORAFOLD_CLONE_NEVER, /* every byte is written */
    /* LORAFOLD_USAGE where it does not work; several outputs whose base is on another file system
     * must be able to share with each other. */
    LORAFOLD_CLONE_ALWAYS
};

/* JSON: one object per line, each with a "type". */
enum lorafold_format { LORAFOLD_TEXT, LORAFOLD_JSON };

/*
 * How the Hugging Face Hub is reached.  The library opens no socket: a program, the helper, does
 * that, and is started when it is needed (docs/HUB.md).  All zero: as the Hugging Face tools do it.
 */
struct lorafold_hub {
    const char
        *token_file;   /* a file that holds a token; NULL: HF_TOKEN, or the file of these tools */
    const char *token; /* the token itself, for hosts that have it; "": none.  It goes into the
                          helper's environment and nowhere else */
    const char *const *helper; /* the program and its arguments, ending with NULL; NULL: what
                                  LORAFOLD_HUB names, else lorafold-hub beside the running program
                                  or on the path, else python3 -m lorafold_hub */
    bool offline;              /* nothing is asked of the Hub, as with HF_HUB_OFFLINE=1 */
};

/* Where something is pushed to, and what the commit says.  All zero: nothing is pushed. */
struct lorafold_destination {
    const char *repo;               /* org/name, made if it is not there */
    const char *revision;           /* a branch, made if it is not there; NULL: main */
    bool is_private;                /* of a repository that is made; others stay as they are */
    bool create_pr;                 /* a pull request to main, for which reading is enough */
    const char *commit_message;     /* NULL: one that says that lorafold made it */
    const char *commit_description; /* or NULL */
    const char *const *tags;        /* added to the model card */
    size_t tag_count;
    const char *const *datasets; /* named by the model card in place of others; none: as it is */
    size_t dataset_count;
};

/*
 * A name like org/name[@revision], for which there is no path, is taken from the Hugging Face
 * cache.  What is not there, or not whole, is fetched into it, unless that is forbidden.
 */
struct lorafold_adapter {
    const char *path; /* a directory, or org/name[@revision] */
    double weight;    /* factor on the adapter's scale, finite; usually 1.0 */
};

struct lorafold_merge_options {
    const char *base; /* directory, .safetensors file or org/name[@revision]; NULL: the base that
                         the first adapter names */
    const struct lorafold_adapter *adapters;
    size_t adapter_count;
    const char *output;    /* directory to make; may be NULL for a plan alone */
    const char *tokenizer; /* directory or org/name whose tokenizer files are taken, or NULL */
    enum lorafold_save_method save_method;
    enum lorafold_base_numerics base_numerics;
    const char *original_base;           /* as base; with ORIGINAL and AUTO it is used instead */
    enum lorafold_quant_type quant_type; /* of merged_4bit */
    bool single_quant;                   /* ...its absmax stay fp32 and are not quantised again */
    const char *const *skip; /* ...modules that stay in 16 bits: parts of names between dots */
    size_t skip_count;
    enum lorafold_dtype dtype;
    enum lorafold_tied tied;
    enum lorafold_b_layout b_layout;
    uint64_t max_shard_bytes;   /* of tensor data per output file; default 5,000,000,000 */
    uint64_t memory_bytes;      /* ceiling on this process's resident memory; default 128 MiB */
    unsigned threads;           /* workers; 0: one per processor that may be used, or what keeps a
                                   GPU busy */
    const char *device;         /* "auto" or NULL, "cpu", "cuda", "cuda:N"; docs/GPU.md has the rule
                                   of auto.  A device that is not there is LORAFOLD_USAGE */
    uint64_t gpu_memory_bytes;  /* ceiling on the GPU's memory; 0: by the fraction */
    double gpu_memory_fraction; /* of what is free there, up to 1; 0: 0.75 */
    const char *trace;          /* a file that gets a timeline of the run, as chrome://tracing and
                                   ui.perfetto.dev read it; or NULL */
    enum lorafold_clone clone;
    bool overwrite;          /* replace an existing model directory, at the end, in one step */
    bool allow_unused;       /* adapter tensors that cannot be folded are listed, not refused */
    bool allow_nonfinite;    /* NaN and infinite results are written, not refused */
    bool strict;             /* warnings that may mean a wrong merge are refusals */
    bool safe_serialization; /* default true; false: files of torch.save(), pytorch_model.bin, which
                                weights_only=True loads */
    const char *variant;     /* part of the names of these files, model.fp16.safetensors: letters,
                                digits, '_' and '-'; NULL: none.  Not for save method lora */

    struct lorafold_hub hub;
    struct lorafold_destination push_to; /* without a repo: nowhere.  Shards go there while others
                                            are made, and one commit ends it */
    bool no_local;  /* of a push: no output is kept.  A shard is removed once the Hub has it, and at
                       most two are there at a time; `output` is then where the work is done, NULL:
                       lorafold-NAME in the current directory, in any case removed at the end */
    bool plan_only; /* it will not be run: no base is fetched, though adapters are */
    const volatile int *cancel; /* stop lorafold_merge_open() soon once it is not 0; or NULL */

    lorafold_message_fn *message;   /* or NULL */
    lorafold_progress_fn *progress; /* or NULL */
    void *context;                  /* for both */

    /* For tests: force one of several equal ways.  NULL: chosen by probing. */
    const char *io_engine; /* "uring", "threads" */
    const char *io_direct; /* "on", "off" */
    const char *kernels;   /* "scalar", "avx2", "avx512", "neon" */
};

/* The defaults: all 0, NULL and false but for the sizes.  Always the first thing to do. */
LORAFOLD_API void lorafold_merge_options_init(struct lorafold_merge_options *options);

struct lorafold_merge;

/*
 * Read headers and configurations, check everything that can be checked, lay out every output
 * byte.  Writes nothing but what is fetched into the Hugging Face cache.  On success the caller
 * closes *out; on failure it is unchanged.
 */
LORAFOLD_API int lorafold_merge_open(struct lorafold_merge **out,
                                     const struct lorafold_merge_options *options,
                                     struct lorafold_error *err);

/*
 * The plan as the text of `lorafold plan`, or as one JSON object.  The caller frees it with
 * lorafold_free(); NULL if there is no memory.
 */
LORAFOLD_API char *lorafold_merge_describe(const struct lorafold_merge *merge,
                                           enum lorafold_format format);

/*
 * Do the work and publish the output directory.  Once per merge.  On failure, also when cancelled,
 * nothing that looks finished is left and what existed before is as it was.
 * With push_to the Hub is asked first, and refuses before the work or not at all.  If the push
 * fails once the output is published, that stays, and the sentence says which command pushes it.
 */
LORAFOLD_API int lorafold_merge_run(struct lorafold_merge *merge, struct lorafold_error *err);

/* Ask a running (or not yet running) merge to stop; any thread, and async-signal-safe. */
LORAFOLD_API void lorafold_merge_cancel(struct lorafold_merge *merge);

/* What was pushed; all zero if nothing was. */
struct lorafold_push_report {
    char repo[256];
    char url[512];          /* of the commit */
    char pull_request[512]; /* or "" */
    size_t file_count;
    uint64_t bytes; /* of these files, also of those that the Hub had */
    double seconds; /* from the first file to the commit */
};

struct lorafold_report {
    uint64_t bytes_read;    /* of the base */
    uint64_t bytes_written; /* of the model's files, without those that are cloned */
    uint64_t bytes_cloned;  /* of the model's files: they share the storage of the base */
    size_t tensors_folded;
    size_t tensors_replaced;  /* by whole tensors of an adapter */
    size_t tensors_patched;   /* by some rows of an adapter, beside what else happens to them */
    size_t tensors_copied;    /* byte for byte */
    size_t tensors_converted; /* to another dtype, without a delta */
    size_t file_count;        /* shards written */
    double seconds;           /* since lorafold_merge_open() was called */
    double seconds_planning;  /* in lorafold_merge_open() */
    double seconds_to_first_write; /* since lorafold_merge_open() was called */
    double share_read;    /* of the time in which the disk or the workers were busy: these */
    double share_compute; /* three say what limited the run, and add up to 1 */
    double share_write;
    uint64_t memory_peak_bytes; /* resident set, as the kernel counts it */
    uint64_t cgroup_peak_bytes; /* of the process's memory cgroup, 0 if unknown */
    const char *io_engine;      /* "io_uring", "threads"; a constant, like kernels */
    bool io_direct;             /* both sides */
    const char *kernels;        /* "scalar", "avx2", ... */
    unsigned threads;           /* workers */
    char device[256];           /* that computed: "cpu", or name and description of a GPU */
    uint64_t device_bytes;      /* taken of its memory, beside what its driver takes */
    char output[4096];          /* as in the options */
    struct lorafold_push_report pushed;
};

/* What was done; only after a successful run. */
LORAFOLD_API void lorafold_merge_report(const struct lorafold_merge *merge,
                                        struct lorafold_report *out);

/* The report as the closing summary, or as one JSON object; freed with lorafold_free(). */
LORAFOLD_API char *lorafold_report_describe(const struct lorafold_report *report,
                                            enum lorafold_format format);

LORAFOLD_API void lorafold_merge_close(struct lorafold_merge *merge); /* NULL is allowed */

/* ---- batch: several outputs in one pass over the base ---- */

/*
 * The calling sequence:
 *
 *     lorafold_batch_create(&batch, &common, 0, &err)        common.output: the directory for all
 *     lorafold_batch_add(), _add_directory(), _add_jobs()    any number of times
 *     lorafold_batch_open(batch, &err)                       plan: headers only, writes nothing
 *     lorafold_batch_run(batch, &err)
 *     lorafold_batch_report(), lorafold_batch_output()
 *     lorafold_batch_close(batch)
 *
 * Each output is a directory of its own in common.output, with the bytes that
 * lorafold_merge_run() would give it, and is published on its own as soon as it is complete.
 */
struct lorafold_batch;

#define LORAFOLD_SKIP_EXISTING 1u /* flag: outputs that are there are left as they are */

enum lorafold_output_state {
    LORAFOLD_OUTPUT_PLANNED,
    LORAFOLD_OUTPUT_LEFT_OUT, /* found to be impossible before work began */
    LORAFOLD_OUTPUT_EXISTS,   /* was there before, with LORAFOLD_SKIP_EXISTING */
    LORAFOLD_OUTPUT_FAILED,
    LORAFOLD_OUTPUT_COMPLETE
};

struct lorafold_batch_output {
    const char *name; /* belongs to the batch */
    enum lorafold_output_state state;
    struct lorafold_error error; /* why it was left out or failed; code 0 otherwise */
    uint64_t bytes;              /* of its weights */
};

/*
 * `common` says what is the same for all: base, base_numerics, original_base, output, memory_bytes,
 * threads, clone, overwrite, strict, hub and what stands behind it; adapters are not looked at. The
 * rest of it are the options of outputs that say nothing else.  Strings are borrowed until
 * lorafold_batch_close().  The context of `common` comes with all calls.
 */
LORAFOLD_API int lorafold_batch_create(struct lorafold_batch **out,
                                       const struct lorafold_merge_options *common, unsigned flags,
                                       struct lorafold_error *err);

/*
 * Add one output.  `name`: its directory; NULL: as its first adapter's directory or repository is
 * called.  `options`: adapters and what may differ (save_method, quant_type, single_quant, skip,
 * dtype, tied, b_layout, max_shard_bytes, tokenizer, allow_unused, allow_nonfinite,
 * safe_serialization, variant); the rest is taken from `common`.  LORAFOLD_USAGE for a name that is
 * taken, or that is no plain directory name.
 */
LORAFOLD_API int lorafold_batch_add(struct lorafold_batch *batch, const char *name,
                                    const struct lorafold_merge_options *options,
                                    struct lorafold_error *err);

/* Add an output for every adapter below a directory, with the common options, by name. */
LORAFOLD_API int lorafold_batch_add_directory(struct lorafold_batch *batch, const char *directory,
                                              struct lorafold_error *err);

/*
 * Add the outputs that a JSON file lists ('lorafold help jobs').  LORAFOLD_FORMAT names the first
 * bad field, messages of level LORAFOLD_WARNING all others.
 */
LORAFOLD_API int lorafold_batch_add_jobs(struct lorafold_batch *batch, const char *path,
                                         struct lorafold_error *err);

/*
 * Check and lay out all outputs.  One that cannot be made is left out, with a message of level
 * LORAFOLD_WARNING; with `strict` it is an error.  An error, too, if none is left, if the base
 * cannot be read, if memory_bytes is too small for all together, or if the disk has no room for
 * all: then the sentence says for how many it has.
 */
LORAFOLD_API int lorafold_batch_open(struct lorafold_batch *batch, struct lorafold_error *err);

/* The plan; freed with lorafold_free(); NULL if there is no memory. */
LORAFOLD_API char *lorafold_batch_describe(const struct lorafold_batch *batch,
                                           enum lorafold_format format);

/*
 * Do the work, once.  An output that fails is given up, with a message of level LORAFOLD_WARNING,
 * and the others go on.  0 if every output is complete, or was there before; LORAFOLD_CANCELLED
 * after lorafold_batch_cancel(); LORAFOLD_FAILED otherwise.  What was published stays in any case.
 * lorafold.batch.json in the directory for all lists the outputs, for lorafold_verify().
 */
LORAFOLD_API int lorafold_batch_run(struct lorafold_batch *batch, struct lorafold_error *err);

/* Ask it to stop; any thread, and async-signal-safe. */
LORAFOLD_API void lorafold_batch_cancel(struct lorafold_batch *batch);

/* The outputs that were added, in their order. */
LORAFOLD_API size_t lorafold_batch_count(const struct lorafold_batch *batch);
/* What is known of output `index`, which is below the count. */
LORAFOLD_API void lorafold_batch_output(const struct lorafold_batch *batch, size_t index,
                                        struct lorafold_batch_output *out);

/* After a run, also one that failed. */
struct lorafold_batch_report {
    size_t output_count;
    size_t complete; /* made in this run */
    size_t existing; /* left as they were */
    size_t failed;   /* and left out */
    /* Of the base, in blocks for all outputs together; what norms and companions of codes (scales,
     * zero points) need beside them, each output reads for itself, and that is not counted. */
    uint64_t bytes_read;
    uint64_t bytes_written;
    uint64_t bytes_cloned; /* beside these: they share the storage of the base or of an output */
    uint64_t bytes_alike;  /* of both: made for another output, and the same in this one */
    double seconds;
    double seconds_planning;
    double seconds_to_first_write;
    double share_read; /* as in lorafold_report */
    double share_compute;
    double share_write;
    uint64_t memory_peak_bytes;
    uint64_t cgroup_peak_bytes;
    const char *io_engine;
    bool io_direct;
    const char *kernels;
    unsigned threads;
    char device[256]; /* as in lorafold_report */
    uint64_t device_bytes;
    char output[4096];
};
/* What the run did. */
LORAFOLD_API void lorafold_batch_report(const struct lorafold_batch *batch,
                                        struct lorafold_batch_report *out);

/* The report with all outputs; freed with lorafold_free(). */
LORAFOLD_API char *lorafold_batch_summary(const struct lorafold_batch *batch,
                                          enum lorafold_format format);

LORAFOLD_API void lorafold_batch_close(struct lorafold_batch *batch); /* NULL is allowed */

/* ---- verify: is an output still what was written? ---- */

struct lorafold_verify_options {
    uint64_t memory_bytes; /* default 128 MiB */
    unsigned threads;      /* that read, at most 64; 0: 4 */
    bool deep;             /* also compare what was cloned from the base with the base... */
    const char *base;      /* ...which is here, as for a merge; NULL: where the manifest says */
    const volatile int *cancel;     /* stop soon once it is not 0; or NULL */
    lorafold_message_fn *message;   /* or NULL */
    lorafold_progress_fn *progress; /* or NULL */
    void *context;                  /* for both */
    const char *io_direct;          /* as for a merge */
};

/* The defaults, as for a merge. */
LORAFOLD_API void lorafold_verify_options_init(struct lorafold_verify_options *options);

struct lorafold_verify_report {
    size_t file_count;     /* that the manifest names */
    uint64_t bytes;        /* that were read, and found as written */
    uint64_t bytes_shared; /* of them compared with the base, with deep */
    uint64_t bytes_unread; /* without deep: cloned from the base, so there is no digest of them */
    double seconds;
    size_t output_count; /* of a directory that holds several */
};

/*
 * Re-read every file that lorafold.json in `directory`, or in each directory in it, names and
 * compare sizes and digests; of several, each output that lorafold.batch.json says was complete
 * must be there.  What was cloned from the base has no digest, and is compared with the base if
 * that is asked for.  LORAFOLD_DIFFERENT names the first damaged file and block; every other
 * difference is a message of level LORAFOLD_WARNING.  LORAFOLD_FORMAT if there is no usable
 * manifest.  LORAFOLD_USAGE if the base is not to be found, or is another one.  *report, which may
 * be NULL, is filled in any case, with what is known by then.
 */
LORAFOLD_API int lorafold_verify(const char *directory,
                                 const struct lorafold_verify_options *options,
                                 struct lorafold_verify_report *report, struct lorafold_error *err);

/* ---- the Hugging Face Hub ---- */

struct lorafold_push_options {
    struct lorafold_destination to;
    struct lorafold_hub hub;
    const volatile int *cancel; /* as for verify */
    lorafold_message_fn *message;
    lorafold_progress_fn *progress; /* of what goes to the Hub */
    void *context;
};
/* Set every option to its default; the repository must be given. */
LORAFOLD_API void lorafold_push_options_init(struct lorafold_push_options *options);

/*
 * Push a model or an adapter: all files of the directory but hidden ones, in one commit.  What the
 * Hub has is not sent again.  Files of which lorafold.json knows digests are compared with them
 * first: weights that differ are LORAFOLD_DIFFERENT, other files that differ are a notice.  On any
 * failure nothing of it can be seen on the Hub, unless the sentence says that this is not known.
 */
LORAFOLD_API int lorafold_push(const char *directory, const struct lorafold_push_options *options,
                               struct lorafold_push_report *report, struct lorafold_error *err);

/* The report as text, or as one JSON object; freed with lorafold_free(). */
LORAFOLD_API char *lorafold_push_describe(const struct lorafold_push_report *report,
                                          enum lorafold_format format);

struct lorafold_fetch_options {
    struct lorafold_hub hub;
    const volatile int *cancel; /* as for verify */
    lorafold_message_fn *message;
    lorafold_progress_fn *progress;
    void *context;
};

/* The defaults, as for a merge. */
LORAFOLD_API void lorafold_fetch_options_init(struct lorafold_fetch_options *options);

/*
 * Have what a merge needs of org/name[@revision] in the Hugging Face cache: what is there whole is
 * not asked for again.  *directory, freed with lorafold_free(), is its place.  LORAFOLD_USAGE also
 * if there is no helper, or if it is not whole and offline.
 */
LORAFOLD_API int lorafold_fetch(const char *name, const struct lorafold_fetch_options *options,
                                char **directory, struct lorafold_error *err);

/* ---- inspect and bench ---- */

/*
 * What a path is: a base, an adapter, one .safetensors file, or an output of lorafold.  The text
 * goes to *out and is freed with lorafold_free().
 */
LORAFOLD_API int lorafold_inspect(const char *path, enum lorafold_format format, bool all_tensors,
                                  char **out, struct lorafold_error *err);

struct lorafold_bench_options {
    const char *directory; /* where the test file is made; default "." */
    uint64_t file_bytes;   /* default 2 GiB, at least 64 MiB */
    unsigned threads;      /* 0: one per processor that may be used */
    bool skip_disk;
    bool skip_kernels;
    lorafold_message_fn *message; /* or NULL */
    void *context;                /* for it */
    const volatile int *cancel;   /* stop soon once it is not 0; or NULL */
};

/* The defaults, as for a merge. */
LORAFOLD_API void lorafold_bench_options_init(struct lorafold_bench_options *options);

/*
 * Measure disk (read, write, copy), memory and kernels of this machine; removes its test file.  The
 * text goes to *out and is freed with lorafold_free().
 */
LORAFOLD_API int lorafold_bench(const struct lorafold_bench_options *options,
                                enum lorafold_format format, char **out,
                                struct lorafold_error *err);

LORAFOLD_API void lorafold_free(char *text);     /* NULL is allowed */
LORAFOLD_API const char *lorafold_version(void); /* "0.1.0" */

/*
 * "5GB", "200MB", "5000000000": a size as the Hugging Face libraries write it (decimal), also with
 * binary units ("128MiB", "1GiB").  False if it is not a size, is 0, or is too large.
 */
LORAFOLD_API bool lorafold_parse_size(const char *text, uint64_t *out);

#ifdef __cplusplus
}
#endif

#endif
