/*
 * cache.h - a name like org/name[@revision] in the Hugging Face cache
 *
 * Reads the layout that huggingface_hub writes (models--org--name/refs,
 * snapshots) and never writes there.  Where the cache is follows
 * huggingface_hub: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub,
 * XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef HUB_CACHE_H
#define HUB_CACHE_H

#include "base/error.h"

#include <stdbool.h>

struct hub_snapshot {
    char *directory; /* .../snapshots/<commit> */
    char *repo;      /* "org/name" */
    char *revision;  /* as asked for, "main" if none */
    char *commit;    /* 40 hex digits, or the revision directory's name */
};

/* Is `text` a repository name (org/name or name, optionally @revision) by the Hub's rules? */
bool hub_is_repo_name(const char *text);

/*
 * Look a repository up.  ERR_USAGE if it or the revision is not in the cache: the sentence names
 * the cache directory and how to fetch it.  An incomplete snapshot (dangling link) is found later,
 * by whoever opens its files.  On success the caller releases *out.
 */
int hub_cache_find(struct hub_snapshot *out, const char *name, struct error *err);

/* Do HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE forbid to ask the Hub, as huggingface_hub reads them?
 */
bool hub_is_offline(void);

void hub_snapshot_release(struct hub_snapshot *snapshot);

#endif
