/*
 * merge.h - what the parts of a merge share; only files directly in src/ include it
 *
 * merge.c opens and closes; merge_run.c does the work; inputs.c finds base and adapters;
 * sidefiles.c copies what is not a weight; card.c writes the model card; manifest.c writes and
 * reads lorafold.json; describe.c prints; clones.c finds what shares the base's storage;
 * lora.c is for outputs that are an adapter.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef MERGE_H
#define MERGE_H

#include "adapter/adapter.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cpu/cpu.h"
#include "format/config_text.h"
#include "format/model.h"
#include "hub/cache.h"
#include "io/outdir.h"
#include "lorafold.h"
#include "machine.h"
#include "pipeline/pipeline.h"
#include "plan/plan.h"
#include "remote.h"
#include "scheme/scheme.h"

#include <sys/types.h>

#define MANIFEST_NAME "lorafold.json"
#define MANIFEST_FORMAT 1
#define BLOCKS_NAME "lorafold.blocks"
#define ADAPTER_CONFIG_NAME "adapter_config.json"

/* XXH3-128 (low, high). */
struct digest {
    uint64_t half[2];
};

/* Where a base or adapter is and what it is called. */
struct source {
    char *path;
    char *name;     /* org/name, or the last component of the path */
    char *revision; /* the commit in the cache, or NULL */
    bool from_hub;
};

/* A file that is copied into the output as it is. */
struct side_file {
    char *path; /* to read */
    char *name; /* in the output, may hold one '/' */
    uint64_t bytes;
};

struct side_files {
    struct side_file *list; /* sorted by name */
    size_t count;
    size_t capacity;
    bool scheme_too; /* also what describes how the weights of the base are quantised */
};

/* Blocks of an output file that are cloned from a shard of the base: they have no digests. */
struct output_clone {
    uint64_t offset; /* of whole blocks, but for the end of the file */
    uint64_t bytes;
    uint64_t shard; /* of the base, by its number in the manifest */
    uint64_t shard_offset;
    uint64_t blocks_before; /* cloned ones of the file; set by output_add() */
};

/* A file of the output, for the manifest. */
struct output_file {
    char name[256];
    uint64_t bytes;
    struct digest digest;        /* of the blocks that have one */
    struct digest *blocks;       /* of PLAN_BLOCK_BYTES each, but for those that are cloned */
    size_t block_count;          /* that have a digest */
    struct output_clone *clones; /* ascending, disjoint */
    size_t clone_count;
};

/* A shard of the base that an output was made from, as its manifest knows it. */
struct output_shard {
    char *name;
    uint64_t bytes;
    struct digest header;
};

struct output_files {
    struct output_file *list;
    size_t count;
    size_t capacity;
    /* Of a manifest that was read and holds clones: the base that they are from. */
    char *base_name;
    char *base_revision; /* or NULL */
    struct output_shard *shards;
    size_t shard_count;
};

/* What is read of a base before its weights; not changed once it is open. */
struct base {
    char *named;               /* by an adapter, where it is not given */
    bool refused;              /* it could not be opened, and nothing else is here */
    struct source source;      /* its name is NULL if an adapter is written without it */
    struct model model;        /* without shards then */
    bool original;             /* it is the 16-bit model of the one that was named */
    struct scheme_base scheme; /* of the model; its view is planned with if it is quantised */
    char *config;              /* config.json, or NULL if it has none */
    size_t config_bytes;
    struct config_facts facts;
};

struct lorafold_merge {
    struct lorafold_merge_options options;
    struct log log;
    double opened_at;     /* CLOCK_MONOTONIC, seconds */
    struct remote remote; /* while inputs are looked for */
    struct base *base;
    struct source *adapter_sources;
    struct source tokenizer; /* its path is NULL if none is given */
    struct adapter *adapters;
    struct plan_adapter *plan_adapters;
    size_t adapter_count; /* opened so far */
    struct side_files side_files;
    struct plan plan;
    const struct fold_ops *ops;
    const struct quant_ops *quant;
    const struct encode_ops *encode;
    enum ring_kind ring;
    enum file_direct direct;
    struct error clone_refusal; /* why some of the base cannot be cloned; code 0: it can */
    bool base_elsewhere;        /* it is because of where the base is */
    struct machine machine;
    struct pipeline_stop stop;
    struct pipeline_output order;
    struct pipeline_result result;
    struct output_files files;
    struct merge_push *push;              /* NULL: nothing is pushed, or not yet */
    const struct pipeline_outlet *outlet; /* with it */
    char *work_path;                      /* the output where none was given and none is wanted */
    struct lorafold_report report;
    bool ran;
    bool finished; /* and published, if it is to be; perhaps not pushed */
};

/* ---- merge.c: what a merge alone and one of a batch have in common ---- */

/* Open what it is made from, but a base that is open, and lay it out; writes nothing. */
int merge_plan(struct lorafold_merge *merge, struct error *err);

/*
 * What the output may not touch, as a list that the caller frees; NULL without memory.
 */
const char **merge_list_inputs(const struct lorafold_merge *merge, size_t *count);
uint64_t merge_disk_bytes(const struct lorafold_merge *merge);

/* What of the options machine_fit() asks for. */
struct machine_request merge_machine_request(const struct lorafold_merge_options *options);

/* Held while a merge runs, beside its plan. */
uint64_t base_memory(const struct base *base);
uint64_t merge_memory(const struct lorafold_merge *merge);

/* What the pipeline is told of a merge; log, progress and what ends are the caller's. */
struct pipeline_options merge_pipeline_options(const struct lorafold_merge *merge,
                                               const struct machine *machine);

/* Write what is not weights, and publish; merge->order says what the pipeline has written. */
int merge_finish(struct lorafold_merge *merge, struct outdir *outdir, const atomic_int *cancelled,
                 struct error *err);
void merge_log(void *context, enum log_level level, const char *sentence);

/* All but the base; NULL is allowed. */
void merge_free(struct lorafold_merge *merge);

/* Copy code and sentence to the caller's error; returns the code. */
int give_error(struct lorafold_error *out, const struct error *err);

/* ---- describe.c: the device of a plan or report ---- */

/* "cpu", or name and description. */
void describe_device(const struct machine *machine, char *out, size_t out_bytes);
/* Words of a report: what computed, and what it took. */
void describe_worked(const char *device, uint64_t device_bytes, unsigned threads,
                     const char *kernels, struct text *out);
/* A line of a plan: what computes, with how much, and why. */
void describe_machine(const struct machine *machine, const struct plan_memory *memory,
                      const char *kernels, struct text *out);
void describe_machine_json(const struct machine *machine, const struct plan_memory *memory,
                           struct text *out);

/* ---- inputs.c ---- */

/* The last component of the path, "model" for ".../model/"; NULL without memory. */
char *path_last_component(const char *path);

/* An adapter that stays one goes without its base, with a notice, unless the caller gave one. */
int inputs_open(struct lorafold_merge *merge, struct error *err);
void base_release(struct base *base);
void source_release(struct source *source);

/*
 * A path that exists, or a repository, which is fetched if it is not in the cache and `remote` is
 * not NULL.
 */
int source_find(struct source *out, struct remote *remote, const char *text, const char *what,
                enum remote_need need, struct error *err);

/* With what a base is fetched: NULL, where that would be much for little (plans, adapters that stay
 * adapters). */
struct remote *base_remote(struct lorafold_merge *merge);

/* ---- original.c ---- */
/* ERR_USAGE for options that exclude each other. */
int original_check_options(const struct lorafold_merge_options *options, struct error *err);
/* Take the 16-bit model of a quantised base instead, as the options ask. */
int original_find(struct lorafold_merge *merge, struct error *err);
/*
 * A base that is not in the cache (`err` says so) need not be fetched to be replaced by its 16-bit
 * model: then that is the base.  Returns the code of `err`.
 */
int original_find_instead(struct lorafold_merge *merge, const char *text, struct error *err);
/* ERR_USAGE if what was opened is not what --base-numerics asks for. */
int original_check(const struct lorafold_merge *merge, struct error *err);
/* "original", "dequantised" or "nf4-roundtrip", for the manifest. */
const char *original_numerics(const struct lorafold_merge *merge);

/* ---- sidefiles.c ---- */
int side_files_find(struct lorafold_merge *merge, struct error *err);
void side_files_release(struct side_files *files);

/* Copy them all into the work directory and list them in merge->files. */
int side_files_copy(struct lorafold_merge *merge, struct outdir *outdir, struct error *err);

/* Write a small file into the work directory and list it. */
int output_write(struct lorafold_merge *merge, struct outdir *outdir, const char *name,
                 const char *bytes, size_t count, struct error *err);

/*
 * A new entry of merge->files, or NULL without memory.  It takes over `clones`, an allocated list
 * or NULL, also when it fails.
 */
struct output_file *output_add(struct output_files *files, const char *name, uint64_t bytes,
                               struct output_clone *clones, size_t clone_count);
void output_files_release(struct output_files *files);

static inline uint64_t blocks_of(uint64_t bytes)
{
    return (bytes + PLAN_BLOCK_BYTES - 1) / PLAN_BLOCK_BYTES;
}

/*
 * Block `number` of a file: the clone that it is part of, or NULL and the index of its digest.
 */
const struct output_clone *output_block(const struct output_file *file, uint64_t number,
                                        uint64_t *digest);

/* ---- lora.c ---- */

/* Is the output an adapter? */
static inline bool writes_adapter(const struct lorafold_merge *merge)
{
    return merge->options.save_method == LORAFOLD_LORA;
}

/* Is a quantised base written back in its own scheme? */
static inline bool keeps_scheme(const struct lorafold_merge *merge)
{
    return merge->options.save_method == LORAFOLD_SAME && merge->base->scheme.quantised;
}

/* One adapter with its own scale. */
int lora_check_options(const struct lorafold_merge_options *options, struct error *err);

/* Check the adapter against its base, as for a merge, and plan it; fills merge->plan. */
int lora_plan(struct lorafold_merge *merge, const struct plan_options *options, struct error *err);
int lora_write_config(struct lorafold_merge *merge, struct outdir *outdir, struct error *err);

/* ---- clones.c ---- */
/* Try what the file system of the output can share with the base, and add that to merge->plan. */
int clones_find(struct lorafold_merge *merge, struct error *err);
/* What was cloned of file `index` of the plan, for output_add(). */
int clones_list(const struct lorafold_merge *merge, size_t index, struct output_clone **out,
                size_t *count, struct error *err);
/* ERR_USAGE if all of the base must be shareable and is not. */
int clones_check(const struct lorafold_merge *merge, struct error *err);
/* The same for one of several outputs: if the base is elsewhere, they may share with each other. */
int clones_check_several(const struct lorafold_merge *merge, struct error *err);

/* ---- card.c ---- */

/* The name under which others know the base, as far as it is known; NULL: it has none. */
const char *public_base_name(const struct lorafold_merge *merge);
void card_write(const struct lorafold_merge *merge, struct text *out);

/* ---- push_directory.c ---- */
void push_describe_json(const struct lorafold_push_report *report, struct text *out);
void push_describe_text(const struct lorafold_push_report *report, struct text *out);

/* ---- describe.c ---- */
void describe_base(const struct lorafold_merge *merge, struct text *out);
void describe_adapters(const struct lorafold_merge *merge, struct text *out);
void describe_quoted(struct text *out, const char *name);
void describe_mib(struct text *out, uint64_t bytes);
void describe_key_text(struct text *out, const char *key, const char *value);
void describe_key_number(struct text *out, const char *key, uint64_t value);

/* ---- batch_list.c ---- */
#define BATCH_LIST_NAME "lorafold.batch.json"

/* Which outputs belong into a directory of several. */
struct batch_list_item {
    char *name;
    bool complete; /* it was published once; false: it was to be made, and was not */
};
struct batch_list {
    struct batch_list_item *items;
    size_t count;
    size_t capacity;
};

/* An empty list where the directory has none.  ERR_FORMAT, or ERR_FAILED, if it cannot be used. */
int batch_list_read(struct batch_list *out, const char *directory, struct error *err);
void batch_list_release(struct batch_list *list);

/* ---- verify.c ---- */
/* lorafold_verify() of one output. */
int verify_one(const char *directory, const struct lorafold_verify_options *options,
               struct lorafold_verify_report *report, struct lorafold_error *err);

/* ---- manifest.c, manifest_read.c ---- */
struct digest digest_bytes(const void *bytes, size_t count);
struct digest digest_of_blocks(const struct digest *blocks, size_t count);
void text_add_digest(struct text *out, struct digest digest);
void manifest_write(const struct lorafold_merge *merge, struct text *manifest, struct text *blocks);

/* The files that a manifest lists, with their blocks, from the text of both files. */
int manifest_read(struct output_files *out, const char *json, size_t json_bytes, const char *blocks,
                  size_t blocks_bytes, struct error *err);

/* ---- verify_base.c ---- */

/* The shards of the base that the clones of an output are from. */
struct verify_base {
    char **paths; /* by the shards' numbers in the manifest; NULL: nothing is cloned from it */
    size_t shard_count;
};

/*
 * Find the base of the output in `directory`: `given`, or NULL, then where the manifest says.
 * ERR_USAGE if it cannot be found, or is another one.
 */
int verify_base_open(struct verify_base *out, const struct output_files *files,
                     const char *directory, const char *given, struct error *err);
void verify_base_close(struct verify_base *base);

/* ---- verify.c ---- */

/* The same of a directory.  ERR_FORMAT if it has no manifest that can be used. */
int manifest_load(struct output_files *out, const char *directory, struct error *err);

/* Read until the block or the file ends; direct reads ask for whole pages.  -1: errno says why. */
ssize_t verify_read(const struct file *file, uint8_t *buffer, size_t bytes, uint64_t offset);

#endif
