#include "adapter/spelling.h"

#include "adapter/key_internal.h"
#include "adapter/pairs.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

#define TOKENS "trainable_tokens_delta"

/* The components of one name on their way into another. */
struct speller {
    const struct adapter *adapter;
    const char *adapter_name;
    struct text name;
};

static void add_component(struct text *name, const char *component, size_t bytes)
{
    if (name->bytes)
        text_adds(name, ".");
    text_add(name, component, bytes);
}

/* Rows of tokens lie in an adapter of their own inside that of LoRA, and only there. */
static void add_tokens(struct speller *speller)
{
    static const char inner[] = ".token_adapter";
    struct text *name = &speller->name;
    bool wanted = speller->adapter->config.type == ADAPTER_LORA;
    bool there = name->bytes > strlen(inner) && !name->failed &&
                 strcmp(name->data + name->bytes - strlen(inner), inner) == 0;

    if (there && !wanted)
        name->bytes -= strlen(inner);
    if (wanted && !there)
        text_adds(name, inner);
    add_component(name, TOKENS, strlen(TOKENS));
}

/* All that is left of a name behind the component that says what its tensor is. */
static void add_ending(struct speller *speller, const struct key_marker *marker, const char *name,
                       size_t bytes, size_t at)
{
    struct key_component component;

    while (key_next_component(&component, name, bytes, &at)) {
        if (key_is_adapter_name(&component, speller->adapter_name) ||
            (marker && marker->kind == ADAPTER_KEY_MAGNITUDE))
            continue;
        add_component(&speller->name, component.begin, component.bytes);
    }
}

/* Is it a tensor of a module that has factors, which PEFT wraps, and is not spelled so? */
static bool lacks_base_layer(const struct speller *speller, const struct adapter_key *key,
                             bool has_base_layer)
{
    const struct adapter_pair *pair;
    const char *dot;

    if (key->kind != ADAPTER_KEY_SAVED || key->form != ADAPTER_FORM_PLAIN || has_base_layer)
        return false;
    dot = strrchr(key->path, '.');
    pair = dot ? adapter_find_pair(speller->adapter, key->path, (size_t)(dot - key->path)) : NULL;
    return pair && !pair->parameter;
}

static void spell(struct speller *speller, const struct adapter_key *key, const char *name,
                  size_t bytes)
{
    struct key_component component;
    struct key_component next;
    bool has_base_layer = false;
    bool odd;
    size_t at = 0;

    text_clear(&speller->name);
    text_adds(&speller->name, "base_model.model");
    key_strip_front(&name, &bytes, &odd);
    while (key_next_component(&component, name, bytes, &at)) {
        const struct key_marker *marker = key_find_marker(&component);
        size_t behind = at;

        if (marker && marker->kind == ADAPTER_KEY_ROWS) {
            add_tokens(speller);
            return;
        }
        if (at > bytes && lacks_base_layer(speller, key, has_base_layer))
            add_component(&speller->name, "base_layer", strlen("base_layer"));
        has_base_layer |= key_component_is(&component, "base_layer");
        if (key_component_is(&component, "modules_to_save") &&
            key_next_component(&next, name, bytes, &behind) &&
            key_is_adapter_name(&next, speller->adapter_name))
            at = behind;
        if (key_is_wrapper(&component) || key_component_is(&component, "modules_to_save"))
            continue;
        add_component(&speller->name, component.begin, component.bytes);
        if (marker || key_starts_with(component.begin, component.bytes, "lora_")) {
            add_ending(speller, marker, name, bytes, at);
            return;
        }
    }
}

static int compare_strings(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void keep(bool *kept, uint32_t tensor)
{
    if (tensor != ADAPTER_NO_TENSOR)
        kept[tensor] = true;
}

/* The tensors that have a place in a pair or are saved, but for those that a base had no use for.
 */
static int mark_kept(bool *kept, const struct adapter *adapter, struct error *err)
{
    const struct st_header *header = &adapter->header;
    const char **unused;

    for (size_t i = 0; i < adapter->pair_count; i++) {
        const struct adapter_pair *pair = &adapter->pairs[i];

        keep(kept, pair->tensor_a);
        keep(kept, pair->tensor_b);
        keep(kept, pair->tensor_b_bias);
        keep(kept, pair->tensor_magnitude);
        keep(kept, pair->tensor_base);
    }
    for (size_t i = 0; i < adapter->saved_count; i++)
        keep(kept, adapter->saved[i].tensor);
    if (adapter->unused_count == 0)
        return 0;
    unused = malloc(adapter->unused_count * sizeof(*unused));
    if (!unused)
        return error_no_memory(err, "a list of names");
    memcpy(unused, adapter->unused, adapter->unused_count * sizeof(*unused));
    qsort(unused, adapter->unused_count, sizeof(*unused), compare_strings);
    for (size_t i = 0; i < header->tensor_count; i++) {
        const char *name = st_name(header, &header->tensors[i]);

        if (kept[i] &&
            bsearch(&name, unused, adapter->unused_count, sizeof(*unused), compare_strings))
            kept[i] = false;
    }
    free(unused);
    return 0;
}

static int compare_names(const void *left, const void *right)
{
    return strcmp(((const struct adapter_spelled *)left)->name,
                  ((const struct adapter_spelled *)right)->name);
}

static int compare_places(const void *left, const void *right)
{
    const struct adapter_spelled *a = left;
    const struct adapter_spelled *b = right;

    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return (a->tensor > b->tensor) - (a->tensor < b->tensor);
}

static int check_names(struct adapter_spelled *list, size_t count, const struct adapter *adapter,
                       struct error *err)
{
    char quoted[3][QUOTED_BYTES];

    qsort(list, count, sizeof(*list), compare_names);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(list[i - 1].name, list[i].name) == 0)
            return error_set(
                err, ERR_FORMAT, "both '%s' and '%s' stand for '%s'",
                adapter_quote_tensor(quoted[0], adapter, list[i - 1].tensor),
                adapter_quote_tensor(quoted[1], adapter, list[i].tensor),
                error_quote(quoted[2], sizeof(quoted[2]), list[i].name, strlen(list[i].name)));
    }
    return 0;
}

/* Spell one tensor, unless it is left out. */
static int add_tensor(struct speller *speller, struct adapter_spelled *list, size_t *count,
                      uint32_t number, bool kept, struct error *err)
{
    const struct st_header *header = &speller->adapter->header;
    const struct st_tensor *tensor = &header->tensors[number];
    const char *name = st_name(header, tensor);
    struct adapter_spelled spelled = { .tensor = number, .offset = tensor->data_offset };
    struct adapter_key key;
    int status = adapter_key_read(&key, name, tensor->name_bytes, speller->adapter_name, err);

    if (status)
        return status;
    if (kept || key.kind == ADAPTER_KEY_TRAINING) {
        spell(speller, &key, name, tensor->name_bytes);
        if (!speller->name.failed)
            spelled.name = strndup(speller->name.data, speller->name.bytes);
        if (spelled.name)
            list[(*count)++] = spelled;
        else
            status = error_no_memory(err, "a tensor name");
    }
    free(key.path);
    return status;
}

int adapter_spell(struct adapter_spelled **out, size_t *count, const struct adapter *adapter,
                  struct error *err)
{
    size_t tensor_count = adapter->header.tensor_count;
    char *adapter_name = adapter_find_name(&adapter->header);
    struct speller speller = { .adapter = adapter, .adapter_name = adapter_name };
    struct adapter_spelled *list = calloc(tensor_count + 1, sizeof(*list));
    bool *kept = calloc(tensor_count + 1, sizeof(*kept));
    int status;

    *count = 0;
    if (!adapter_name || !list || !kept)
        status = error_no_memory(err, "the tensors of an adapter");
    else
        status = mark_kept(kept, adapter, err);
    for (size_t i = 0; i < tensor_count && !status; i++)
        status = add_tensor(&speller, list, count, (uint32_t)i, kept[i], err);
    if (!status)
        status = check_names(list, *count, adapter, err);
    text_release(&speller.name);
    free(adapter_name);
    free(kept);
    if (status) {
        adapter_free_spelled(list, *count);
        return status;
    }
    qsort(list, *count, sizeof(*list), compare_places);
    *out = list;
    return 0;
}

void adapter_free_spelled(struct adapter_spelled *list, size_t count)
{
    for (size_t i = 0; i < count && list; i++)
        free(list[i].name);
    free(list);
}
