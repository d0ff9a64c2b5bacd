#include "adapter/key.h"

#include "base/text.h"

#include <stdbool.h>
#include <string.h>

#define PREFIX "base_model.model."
#define PREFIX_BYTES (sizeof(PREFIX) - 1)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Between two dots of a name. */
struct component {
    const char *begin;
    size_t bytes;
};

/* The component that begins at *at, which moves behind its dot; false behind the end. */
static bool next_component(struct component *out, const char *name, size_t bytes, size_t *at)
{
    const char *dot;

    if (*at > bytes)
        return false;
    dot = memchr(name + *at, '.', bytes - *at);
    out->begin = name + *at;
    out->bytes = dot ? (size_t)(dot - out->begin) : bytes - *at;
    *at += out->bytes + 1;
    return true;
}

static bool component_is(const struct component *component, const char *text)
{
    return strlen(text) == component->bytes &&
           memcmp(component->begin, text, component->bytes) == 0;
}

static bool has_component(const char *name, size_t bytes, const char *text)
{
    struct component component;

    for (size_t at = 0; next_component(&component, name, bytes, &at);) {
        if (component_is(&component, text))
            return true;
    }
    return false;
}

static bool starts_with(const char *name, size_t bytes, const char *text)
{
    return bytes >= strlen(text) && memcmp(name, text, strlen(text)) == 0;
}

static bool ends_with(const char *name, size_t bytes, const char *text)
{
    size_t text_bytes = strlen(text);

    return bytes >= text_bytes && memcmp(name + bytes - text_bytes, text, text_bytes) == 0;
}

/* Components that say what a tensor is, in the order in which they are looked for. */
static const struct {
    const char *component;
    const char *what;
} kinds[] = {
    { "lora_embedding_A", "is a low-rank factor of an embedding, not supported by this version" },
    { "lora_embedding_B", "is a low-rank factor of an embedding, not supported by this version" },
    { "lora_magnitude_vector", "is a DoRA magnitude, not supported by this version" },
    { "lora_diag", "is a diagonal of KaSA, not supported by this version" },
    { "trainable_tokens_delta", "holds rows of the embedding, not supported by this version" },
    { "modules_to_save", "is a saved module of the base, not supported by this version" },
    { "original_module", "is a copy of a module of the base, not supported by this version" },
    { "lora_monteclora_sampler", "is for training with MonteCLoRA only" },
};

/* What wraps modules while a model trains, and leaves its name in the keys of a careless save. */
static const char *const wrappers[] = { "_orig_mod", "_fsdp_wrapped_module",
                                        "_checkpoint_wrapped_module" };

static bool is_wrapper(const struct component *component)
{
    for (size_t i = 0; i < COUNT(wrappers); i++) {
        if (component_is(component, wrappers[i]))
            return true;
    }
    return false;
}

/* Is this module path as PEFT writes it behind the prefix? */
static bool module_is_clean(const char *module, size_t bytes)
{
    struct component component;

    if (bytes == 0 || memchr(module, '\0', bytes) || starts_with(module, bytes, PREFIX) ||
        starts_with(module, bytes, "module."))
        return false;
    for (size_t at = 0; next_component(&component, module, bytes, &at);) {
        if (component.bytes == 0 || is_wrapper(&component))
            return false;
    }
    return true;
}

/* One pass over the components, since every key of a file comes here. */
static const char *describe(const char *name, size_t bytes)
{
    struct component component;
    size_t kind = COUNT(kinds);
    bool low_rank = false;
    bool base_layer = false;

    for (size_t at = 0; next_component(&component, name, bytes, &at);) {
        low_rank |= component_is(&component, "lora_A") || component_is(&component, "lora_B");
        base_layer |= component_is(&component, "base_layer");
        for (size_t i = 0; i < kind; i++) {
            if (component_is(&component, kinds[i].component))
                kind = i;
        }
    }
    if (kind < COUNT(kinds))
        return kinds[kind].what;
    if (base_layer && low_rank)
        return "is a low-rank factor of a parameter inside a module, such as fused experts, not "
               "supported by this version";
    if (ends_with(name, bytes, ".base_layer.weight"))
        return NULL;
    if (low_rank && ends_with(name, bytes, ".bias"))
        return "is a bias on a B factor (lora_bias), not supported by this version";
    if (low_rank || has_component(name, bytes, "lora_down") ||
        has_component(name, bytes, "lora_up"))
        return NULL;
    if (ends_with(name, bytes, ".weight") || ends_with(name, bytes, ".bias"))
        return "is no low-rank factor: a tensor of the base that was saved whole (modules_to_save, "
               "trained biases or a resized embedding) or of another kind of adapter, not "
               "supported by this version";
    return "is not a tensor of a LoRA adapter that is understood";
}

void adapter_key_read(struct adapter_key *out, const char *name, size_t bytes)
{
    static const struct {
        const char *text;
        enum adapter_key_kind kind;
    } endings[] = {
        { ".lora_A.weight", ADAPTER_KEY_A },         { ".lora_B.weight", ADAPTER_KEY_B },
        { ".lora_A.default.weight", ADAPTER_KEY_A }, { ".lora_B.default.weight", ADAPTER_KEY_B },
        { ".base_layer.weight", ADAPTER_KEY_BASE },
    };

    *out = (struct adapter_key){ .kind = ADAPTER_KEY_OTHER, .what = describe(name, bytes) };
    if (out->what || !starts_with(name, bytes, PREFIX))
        return;
    for (size_t i = 0; i < COUNT(endings); i++) {
        size_t around = PREFIX_BYTES + strlen(endings[i].text);

        if (bytes <= around || !ends_with(name, bytes, endings[i].text) ||
            !module_is_clean(name + PREFIX_BYTES, bytes - around))
            continue;
        out->kind = endings[i].kind;
        out->module = name + PREFIX_BYTES;
        out->module_bytes = bytes - around;
        return;
    }
}

/* The understood name that an oddly spelled one most likely stands for. */
static void add_nearest(struct text *out, const char *name, size_t bytes)
{
    struct component component;
    bool first = true;

    while (starts_with(name, bytes, PREFIX)) {
        name += PREFIX_BYTES;
        bytes -= PREFIX_BYTES;
    }
    text_adds(out, PREFIX);
    for (size_t at = 0; next_component(&component, name, bytes, &at); first = false) {
        bool is_a = component_is(&component, "lora_A") || component_is(&component, "lora_down");
        bool is_b = component_is(&component, "lora_B") || component_is(&component, "lora_up");

        if (is_a || is_b) {
            text_adds(out, is_a ? "lora_A.weight" : "lora_B.weight");
            return;
        }
        if (is_wrapper(&component) || (first && component_is(&component, "module")) ||
            component.bytes == 0)
            continue;
        text_add(out, component.begin, component.bytes);
        text_adds(out, ".");
    }
}

int adapter_key_refuse(const struct adapter_key *key, const char *name, size_t bytes,
                       struct error *err)
{
    char quoted[QUOTED_BYTES];
    char quoted_nearest[QUOTED_BYTES];
    struct text nearest = { 0 };

    error_quote(quoted, sizeof(quoted), name, bytes);
    if (key->kind == ADAPTER_KEY_BASE)
        return error_set(err, ERR_FORMAT,
                         "tensor '%s' replaces a tensor of the base for which the file has no "
                         "low-rank factors, not supported by this version; --allow-unused leaves "
                         "it out",
                         quoted);
    if (key->what)
        return error_set(err, ERR_FORMAT, "tensor '%s' %s; --allow-unused leaves it out", quoted,
                         key->what);
    add_nearest(&nearest, name, bytes);
    if (nearest.failed)
        error_no_memory(err, "a tensor name");
    else
        error_set(err, ERR_FORMAT,
                  "tensor '%s' is not spelled as PEFT writes it; the nearest name that is "
                  "understood is '%s'",
                  quoted,
                  error_quote(quoted_nearest, sizeof(quoted_nearest), nearest.data, nearest.bytes));
    text_release(&nearest);
    return err->code;
}
