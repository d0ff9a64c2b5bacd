/* original.c - the 16-bit model that a quantised repository was made from */
#include "merge.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

/* The sibling in the cache, if there is one there: then it is the base. */
static void take_sibling(struct lorafold_merge *merge)
{
    char *name = merge->base->source.from_hub ? sibling_name(merge->base->source.name) : NULL;
    struct source found = { 0 };
    struct error ignored = { 0 };

    if (name && source_find(&found, name, "base", &ignored) == 0) {
        log_say(&merge->log, LOG_NOTICE,
                "'%s' is quantised: the 16-bit '%s' in the cache is taken as the base "
                "(--base-numerics dequantised takes the quantised one)",
                merge->base->source.name, found.name);
        source_release(&merge->base->source);
        merge->base->source = found;
        merge->base->original = true;
    }
    free(name);
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
    struct source found = { 0 };

    if (options->original_base) {
        if (source_find(&found, options->original_base, "original base", err))
            return err->code;
        source_release(&merge->base->source);
        merge->base->source = found;
        merge->base->original = true;
        return 0;
    }
    /* What was given, or whose scheme is kept, is taken literally, unless asked otherwise. */
    if (options->base_numerics == LORAFOLD_NUMERICS_ORIGINAL ||
        (options->base_numerics == LORAFOLD_NUMERICS_AUTO && !options->base &&
         options->save_method != LORAFOLD_SAME))
        take_sibling(merge);
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
