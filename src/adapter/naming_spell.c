#include "adapter/naming_internal.h"
#include "adapter/naming_rules.h"

#include <string.h>

#define RENAMES_MAX 3u
#define DEPTH_MAX 64u   /* components and changes of one spelling; real names have some 15 */
#define STEPS_MAX 1024u /* of one search; real models need fewer than 100 */

/*
 * The name is read from left to right and spelled component by component, as it is or as a rule
 * says, and only as long as the base has names that begin so.  What no name of the base begins
 * with is never spelled to its end, so a search costs little, however many rules there are.
 */
struct search {
    const struct model *model;
    const char *name;
    size_t bytes;
    unsigned parts;
    enum naming_tier tier;
    struct naming_found *out;
    size_t count;
    size_t steps;
    char spelled[SPELLED_BYTES_MAX];
};

struct state {
    size_t at;      /* in the name */
    size_t spelled; /* bytes, with the dot at their end */
    size_t low;     /* the names of the base that begin so: [low, high) of by_name */
    size_t high;
    unsigned depth;
    unsigned renames; /* that may still follow, and prefixes */
    unsigned prefixes;
    bool start; /* nothing was spelled yet but prefixes */
    bool added; /* Prefixes are added or dropped, not exchanged: no ViT stands for a BERT. */
    bool dropped;
};

static void spell(struct search *search, struct state state);

static bool put(struct search *search, struct state *state, const char *text, size_t bytes)
{
    if (bytes > sizeof(search->spelled) - state->spelled)
        return false;
    memcpy(search->spelled + state->spelled, text, bytes);
    state->spelled += bytes;
    return true;
}

static void add_found(struct search *search, size_t bytes)
{
    struct model_ref ref;

    if (search->count == NAMING_FOUND_MAX ||
        !model_find(search->model, search->spelled, bytes, &ref) ||
        naming_parts_exclude(search->parts, naming_parts(search->spelled, bytes)))
        return;
    for (size_t i = 0; i < search->count; i++) {
        if (search->out[i].ref.shard == ref.shard && search->out[i].ref.tensor == ref.tensor)
            return;
    }
    search->out[search->count++] = (struct naming_found){ ref, search->tier };
}

/* What was put is whole components: end the name, or go on if the base has names that do. */
static void end_components(struct search *search, struct state state)
{
    if (state.at == search->bytes) {
        add_found(search, state.spelled);
        return;
    }
    state.at++; /* the dot */
    if (!put(search, &state, "/", 1))
        return; /* '/' follows '.' */
    state.high = naming_lower_bound(search->model, state.low, state.high, search->spelled,
                                    state.spelled);
    search->spelled[state.spelled - 1] = '.';
    state.low = naming_lower_bound(search->model, state.low, state.high, search->spelled,
                                   state.spelled);
    if (state.low < state.high)
        spell(search, state);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Bytes of the name that the pattern matches at `at`, whole components, or 0. */
static size_t match(const struct search *search, size_t at, const char *pattern, size_t *number,
                    size_t *digits)
{
    size_t i = at;

    for (; *pattern; pattern++) {
        if (*pattern == '#') {
            for (*number = i; i < search->bytes && is_digit(search->name[i]);)
                i++;
            *digits = i - *number;
            if (*digits == 0)
                return 0;
        } else if (i < search->bytes && search->name[i] == *pattern) {
            i++;
        } else {
            return 0;
        }
    }
    return i == search->bytes || search->name[i] == '.' ? i - at : 0;
}

static void spell_as(struct search *search, struct state state, const char *from, const char *to)
{
    size_t number = 0;
    size_t digits = 0;
    size_t matched;
    const char *hash;

    if (*from == '^') {
        if (!state.start)
            return;
        from++;
        to++;
    }
    matched = match(search, state.at, from, &number, &digits);
    if (!matched)
        return;
    hash = strchr(to, '#');
    if (hash ? !put(search, &state, to, (size_t)(hash - to)) ||
                   !put(search, &state, search->name + number, digits) ||
                   !put(search, &state, hash + 1, strlen(hash + 1))
             : !put(search, &state, to, strlen(to)))
        return;
    state.at += matched;
    state.renames--;
    state.start = false;
    end_components(search, state);
}

/* The component that the name has here, and that may be left out, as one of the list. */
static bool leave_out(const struct search *search, struct state *state, const char *component)
{
    size_t number;
    size_t digits;
    size_t matched = match(search, state->at, component, &number, &digits);

    if (!matched || state->at + matched == search->bytes)
        return false;
    state->at += matched + 1;
    return true;
}

static void spell_prefixed(struct search *search, struct state state, const char *prefix)
{
    struct state with = state;

    if (leave_out(search, &state, prefix)) {
        state.prefixes--;
        state.dropped = true;
        if (!state.added)
            spell(search, state);
    } else if (!state.dropped && put(search, &with, prefix, strlen(prefix))) {
        with.prefixes--;
        with.added = true;
        with.at--; /* end_components() steps over a dot, and the name has none here */
        end_components(search, with);
    }
}

static void spell(struct search *search, struct state state)
{
    const char *dot = memchr(search->name + state.at, '.', search->bytes - state.at);
    struct state next = state;

    if (search->steps == STEPS_MAX || state.depth == DEPTH_MAX)
        return;
    search->steps++;
    next.depth = ++state.depth;
    for (size_t i = 0; i < naming_wrapper_count; i++) {
        if (leave_out(search, &next, naming_wrappers[i])) {
            spell(search, next);
            return;
        }
    }
    for (size_t i = 0; i < naming_prefix_count && state.start && state.prefixes; i++)
        spell_prefixed(search, state, naming_prefixes[i]);
    for (size_t i = 0; i < naming_rule_count && state.renames; i++) {
        spell_as(search, state, naming_rules[i].runtime, naming_rules[i].disk);
        spell_as(search, state, naming_rules[i].disk, naming_rules[i].runtime);
    }
    next.at = dot ? (size_t)(dot - search->name) : search->bytes;
    next.start = false;
    if (put(search, &next, search->name + state.at, next.at - state.at))
        end_components(search, next);
}

size_t naming_find_spelled(struct naming_found out[NAMING_FOUND_MAX], const struct model *model,
                           const char *name, size_t bytes, unsigned prefixes)
{
    struct search search = { .model = model,
                             .name = name,
                             .bytes = bytes,
                             .parts = naming_parts(name, bytes),
                             .tier = prefixes ? NAMING_PREFIX : NAMING_RULE,
                             .out = out };

    if (bytes > SPELLED_BYTES_MAX)
        return 0;
    spell(&search, (struct state){ .high = model->tensor_count,
                                   .renames = RENAMES_MAX,
                                   .prefixes = prefixes,
                                   .start = true });
    /* What was not looked at might be meant as well. */
    return search.steps == STEPS_MAX ? 0 : search.count;
}
