/*
 * tied.c - a base that holds one tensor for its input embedding and its output head
 *
 * Training saw two uses of that tensor.  Where both are changed alike it stays one;
 * where one is changed, or both differently, only two tensors hold what was trained
 * (docs/NUMERICS.md, "Tied weights").
 */
#include "plan/plan_internal.h"

#include <string.h>

/*
 * Is this edit of the head the one that the adapter makes of the embedding as well?  Factors of a
 * tied pair are each other's transposes, which `tie` of the configuration vouches for, but DoRA
 * scales the columns of an embedding and the rows of a head; tensors that were saved whole are
 * compared.
 */
static int is_twin(bool *twin, const struct adapter *adapter, const struct adapter_edit *edit,
                   const struct adapter_edit *other, struct error *err)
{
    *twin = false;
    if (other->side != EDIT_EMBEDDING || edit->kind != other->kind)
        return 0;
    if (edit->kind == EDIT_DELTA) {
        *twin = adapter->config.tie && edit->magnitude == ADAPTER_NO_TENSOR &&
                other->magnitude == ADAPTER_NO_TENSOR;
        return 0;
    }
    if (edit->row_list_count != other->row_list_count ||
        (edit->row_list_count &&
         (memcmp(edit->row_list, other->row_list, edit->row_list_count * sizeof(uint64_t)) != 0 ||
          memcmp(edit->row_source, other->row_source, edit->row_list_count * sizeof(uint64_t)) !=
              0)))
        return 0;
    return st_same_data(twin, adapter->weights_path, &adapter->header, edit->source, other->source,
                        err);
}

/* Do the edits of one adapter change both sides alike, or neither? */
static int check_alike(bool *alike, const struct adapter_edits *edits,
                       const struct adapter *adapter, struct error *err)
{
    size_t heads = 0;
    size_t embeddings = 0;

    *alike = true;
    for (size_t i = 0; i < edits->count && *alike; i++) {
        bool found = false;

        embeddings += edits->list[i].side == EDIT_EMBEDDING;
        if (edits->list[i].side != EDIT_HEAD)
            continue;
        heads++;
        for (size_t k = 0; k < edits->count && !found; k++) {
            if (is_twin(&found, adapter, &edits->list[i], &edits->list[k], err))
                return err->code;
        }
        *alike = found;
    }
    *alike = *alike && heads == embeddings;
    return 0;
}

static int refuse_two_names(const char *one, const char *other, struct error *err)
{
    char quoted[2][QUOTED_BYTES];

    return error_set(err, ERR_MISMATCH,
                     "adapters name two output heads, '%s' and '%s', and the base holds neither",
                     error_quote(quoted[0], QUOTED_BYTES, one, strlen(one)),
                     error_quote(quoted[1], QUOTED_BYTES, other, strlen(other)));
}

struct sides {
    size_t embeddings;
    size_t heads;
    bool alike;
};

static int count_sides(struct sides *out, struct plan_matches *matches,
                       const struct plan_adapter *adapters, struct error *err)
{
    *out = (struct sides){ .alike = true };
    for (size_t i = 0; i < matches->count; i++) {
        const struct plan_match *match = &matches->list[i];

        if (match->edit->side == EDIT_UNTIED)
            continue;
        out->embeddings += match->edit->side == EDIT_EMBEDDING;
        out->heads += match->edit->side == EDIT_HEAD;
        if (matches->head_name && strcmp(matches->head_name, match->edit->new_name) != 0)
            return refuse_two_names(matches->head_name, match->edit->new_name, err);
        if (matches->head_name && matches->tied != match->tensor)
            return error_set(err, ERR_MISMATCH,
                             "adapters change two tensors that the base ties to its output head");
        matches->head_name = match->edit->new_name;
        matches->tied = match->tensor;
    }
    for (size_t i = 0; i < matches->adapter_count && out->alike && matches->head_name; i++) {
        if (check_alike(&out->alike, &matches->edits[i], adapters[i].adapter, err))
            return err->code;
    }
    return 0;
}

/*
 * With factors on one side, an adapter's own copy of the tensor stands for both; as one tensor, the
 * side with the factors has it.
 */
static bool is_mirror(const struct plan_matches *matches, const struct plan_match *match)
{
    if (match->edit->kind != EDIT_REPLACE || match->edit->side == EDIT_UNTIED)
        return false;
    for (size_t i = 0; i < matches->count; i++) {
        const struct plan_match *other = &matches->list[i];

        if (other->edit->kind == EDIT_DELTA && other->edit->side != EDIT_UNTIED &&
            match->adapter == other->adapter && match->edit->source == other->edit->source)
            return true;
    }
    return false;
}

static void drop_mirrors(struct plan_matches *matches, struct sides *sides)
{
    size_t kept = 0;

    for (size_t i = 0; i < matches->count; i++) {
        if (!is_mirror(matches, &matches->list[i])) {
            matches->list[kept++] = matches->list[i];
            continue;
        }
        sides->heads -= matches->list[i].edit->side == EDIT_HEAD;
        sides->embeddings -= matches->list[i].edit->side == EDIT_EMBEDDING;
    }
    matches->count = kept;
}

/* Both sides are changed alike: once is enough. */
static void drop_heads(struct plan_matches *matches)
{
    size_t kept = 0;

    for (size_t i = 0; i < matches->count; i++) {
        if (matches->list[i].edit->side != EDIT_HEAD)
            matches->list[kept++] = matches->list[i];
    }
    matches->count = kept;
}

int plan_resolve_tied(struct plan_matches *matches, const struct plan_adapter *adapters,
                      enum plan_tied tied, const struct log *log, struct error *err)
{
    struct sides sides;
    char quoted[QUOTED_BYTES];
    int status = count_sides(&sides, matches, adapters, err);

    if (status || !matches->head_name)
        return status;
    if (sides.alike) {
        drop_heads(matches);
        return 0;
    }
    error_quote(quoted, sizeof(quoted), matches->head_name, strlen(matches->head_name));
    if (tied == PLAN_TIED_SHARED)
        drop_mirrors(matches, &sides);
    if (tied == PLAN_TIED_SHARED && sides.embeddings && sides.heads)
        return error_set(err, ERR_MISMATCH,
                         "the base ties '%s' to its embedding, and the adapter changes the two "
                         "differently: no shared tensor holds both; leave out --tied shared",
                         quoted);
    if (tied == PLAN_TIED_SHARED) {
        log_say(log, LOG_NOTICE,
                "the base ties '%s' to its embedding: with --tied shared what the adapter does to "
                "%s changes the other too",
                quoted, sides.heads ? "the head" : "the embedding");
        return 0;
    }
    matches->head = true;
    matches->own_head = true;
    for (size_t i = 0; i < matches->count; i++)
        matches->list[i].head = matches->list[i].edit->side == EDIT_HEAD;
    return 0;
}
