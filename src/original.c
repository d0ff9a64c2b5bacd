/* original.c - the 16-bit model that a quantised repository was made from */
#include "merge.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* What people put behind the name of a model when they quantise it. */
static const char *const endings[] = { "-unsloth-bnb-4bit",
                                       "-bnb-4bit",
                                       "-bnb-8bit",
                                       "-4bit",
                                       "-8bit",
                                       "-FP8-Dynamic",
                                       "-FP8",
                                       "-NVFP4",
                                       "-MXFP4",
                                       "-AWQ",
                                       "-GPTQ",
                                       "-GPTQ-Int4",
                                       "-GPTQ-Int8",
                                       "-HQQ" };

/* "org/name" without such an ending; NULL if it has none, or without memory. */
static char *sibling_name(const char *name)
{
    size_t bytes = strlen(name);

    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        size_t end = strlen(endings[i]);

        if (bytes > end && strcasecmp(name + bytes - end, endings[i]) == 0)
            return strndup(name, bytes - end);
    }
    return NULL;
}

/* The sibling, if it is in the cache or `remote` can fetch it: then it is the base. */
static int take_sibling(struct lorafold_merge *merge, struct remote *remote, struct error *err)
{
    char *name = merge->base->source.from_hub ? sibling_name(merge->base->source.name) : NULL;
    struct source found = { 0 };

    if (!name)
        return 0;
    if (source_find(&found, remote, name, "original base", REMOTE_WEIGHTS, err) == 0) {
        log_say(&merge->log, LOG_NOTICE,
                "'%s' is quantised: the 16-bit '%s' is taken as the base "
                "(--base-numerics dequantised takes the quantised one)",
                merge->base->source.name, found.name);
        source_release(&merge->base->source);
        merge->base->source = found;
        merge->base->original = true;
    }
    free(name);
    return err->code;
}

int original_find_instead(struct lorafold_merge *merge, const char *text, struct error *err)
{
    const struct lorafold_merge_options *options = &merge->options;
    struct stat st;
    char *name = NULL;

    if (options->base_numerics == LORAFOLD_NUMERICS_ORIGINAL && !options->original_base &&
        hub_is_repo_name(text) && !strchr(text, '@') && lstat(text, &st) < 0)
        name = sibling_name(text);
    if (!name)
        return err->code;
    *err = (struct error){ 0 };
    if (source_find(&merge->base->source, base_remote(merge), name, "original base", REMOTE_WEIGHTS,
                    err) == 0)
        merge->base->original = true;
    free(name);
    return err->code;
}

int original_check_options(const struct lorafold_merge_options *options, struct error *err)
{
    if (options->original_base && options->base_numerics == LORAFOLD_NUMERICS_DEQUANTISED)
        return error_set(err, ERR_USAGE,
                         "--original-base is not read with --base-numerics dequantised");
    if (options->save_method == LORAFOLD_LORA &&
        (options->original_base || options->base_numerics != LORAFOLD_NUMERICS_AUTO))
        return error_set(err, ERR_USAGE,
                         "--base-numerics and --original-base are for outputs that hold the base, "
                         "not for --save-method lora");
    return 0;
}

int original_find(struct lorafold_merge *merge, struct error *err)
{
    const struct lorafold_merge_options *options = &merge->options;
    bool asked = options->base_numerics == LORAFOLD_NUMERICS_ORIGINAL;
    struct source found = { 0 };
    struct error inner = { 0 };

    if (options->original_base) {
        if (source_find(&found, base_remote(merge), options->original_base, "original base",
                        REMOTE_WEIGHTS, err))
            return err->code;
        source_release(&merge->base->source);
        merge->base->source = found;
        merge->base->original = true;
        return 0;
    }
    /* What was given, or whose scheme is kept, is taken literally, unless asked otherwise. */
    if (!asked && (options->base_numerics != LORAFOLD_NUMERICS_AUTO || options->base ||
                   options->save_method == LORAFOLD_SAME))
        return 0;
    if (take_sibling(merge, asked ? base_remote(merge) : NULL, &inner) == ERR_CANCELLED)
        return error_set(err, ERR_CANCELLED, "cancelled");
    /* It is missed only if the base turns out to be quantised: original_check(). */
    if (asked && inner.code)
        log_say(&merge->log, LOG_NOTICE, "%s", inner.text);
    return 0;
}

int original_check(const struct lorafold_merge *merge, struct error *err)
{
    const struct lorafold_merge_options *options = &merge->options;

    if (merge->base->scheme.quantised && options->base_numerics == LORAFOLD_NUMERICS_ORIGINAL)
        return error_set(err, ERR_USAGE,
                         merge->base->original
                             ? "'%s', which is to be the 16-bit original, is quantised itself (%s)"
                             : "the base '%s' is quantised (%s), and the 16-bit model it was made "
                               "from is not in the cache: name it with --original-base",
                         merge->base->source.name, merge->base->scheme.summary);
    if (merge->base->scheme.quantised && options->base_numerics == LORAFOLD_NUMERICS_NF4_ROUNDTRIP)
        return error_set(
            err, ERR_USAGE,
            "--base-numerics nf4-roundtrip is for a 16-bit base, and '%s' is quantised "
            "already (%s)",
            merge->base->source.name, merge->base->scheme.summary);
    return 0;
}

const char *original_numerics(const struct lorafold_merge *merge)
{
    if (merge->options.base_numerics == LORAFOLD_NUMERICS_NF4_ROUNDTRIP)
        return "nf4-roundtrip";
    return merge->base->scheme.quantised ? "dequantised" : "original";
}
