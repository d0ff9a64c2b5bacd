#include "adapter/tied.h"

#include "adapter/edit.h"
#include "base/text.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define WEIGHT ".weight"
#define WEIGHT_BYTES (sizeof(WEIGHT) - 1)

/* Ends of the names that input embeddings and heads have in transformers' model code. */
static const char *const embeddings[] = { "embed_tokens",   "wte",       "word_embeddings",
                                          "word_embedding", "embed_in",  "tok_embeddings",
                                          "tokens_embed",   "embeddings" };
static const char *const heads[] = { "lm_head",         "embed_out",         "output",
                                     "proj_out",        "output_projection", "predictions.decoder",
                                     "lm_head.decoder", "generator_lm_head", "vocab_projector",
                                     "lm_loss" };

/* Heads that are not "lm_head": transformers' _tied_weights_keys, with names as published. */
static const struct {
    const char *model_type;
    const char *head;
} other_heads[] = {
    { "albert", "predictions.decoder" },
    { "bert", "cls.predictions.decoder" },
    { "big_bird", "cls.predictions.decoder" },
    { "biogpt", "output_projection" },
    { "camembert", "lm_head.decoder" },
    { "convbert", "generator_lm_head" },
    { "deberta", "cls.predictions.decoder" },
    { "deberta-v2", "cls.predictions.decoder" },
    { "distilbert", "vocab_projector" },
    { "electra", "generator_lm_head" },
    { "ernie", "cls.predictions.decoder" },
    { "esm", "lm_head.decoder" },
    { "git", "output" },
    { "gpt_neox", "embed_out" },
    { "gpt_neox_japanese", "embed_out" },
    { "longformer", "lm_head.decoder" },
    { "megatron-bert", "cls.predictions.decoder" },
    { "mobilebert", "cls.predictions.decoder" },
    { "modernbert", "decoder" },
    { "moonshine", "proj_out" },
    { "mpnet", "lm_head.decoder" },
    { "roberta", "lm_head.decoder" },
    { "roformer", "cls.predictions.decoder" },
    { "rwkv", "head" },
    { "trocr", "output_projection" },
    { "whisper", "proj_out" },
    { "xlm-roberta", "lm_head.decoder" },
    { "xlm-roberta-xl", "lm_head.decoder" },
    { "xlnet", "lm_loss" },
};

static bool ends_at_dot(const char *name, size_t bytes, const char *end)
{
    size_t end_bytes = strlen(end);

    return bytes >= end_bytes && memcmp(name + bytes - end_bytes, end, end_bytes) == 0 &&
           (bytes == end_bytes || name[bytes - end_bytes - 1] == '.');
}

static bool ends_with_any(const char *name, size_t bytes, const char *const *ends, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ends_at_dot(name, bytes, ends[i]))
            return true;
    }
    return false;
}

/* Of a module; EDIT_UNTIED inside a numbered layer, where the names stand for something else. */
static enum edit_side module_use(const char *module, size_t bytes)
{
    size_t begin;
    size_t end;

    if (adapter_name_layer(module, bytes, &begin, &end))
        return EDIT_UNTIED;
    if (ends_with_any(module, bytes, embeddings, COUNT(embeddings)))
        return EDIT_EMBEDDING;
    /* RWKV's; behind anything it is the head of a task or of a tower. */
    if (bytes == strlen("head") && memcmp(module, "head", bytes) == 0)
        return EDIT_HEAD;
    return ends_with_any(module, bytes, heads, COUNT(heads)) ? EDIT_HEAD : EDIT_UNTIED;
}

enum edit_side adapter_tensor_use(const char *name, size_t bytes)
{
    if (!ends_at_dot(name, bytes, WEIGHT + 1) || bytes <= WEIGHT_BYTES)
        return EDIT_UNTIED;
    return module_use(name, bytes - WEIGHT_BYTES);
}

bool tied_is_head_bias(const char *name, size_t bytes)
{
    static const char bias[] = ".bias";
    size_t module_bytes = bytes - strlen(bias);

    return ends_at_dot(name, bytes, bias + 1) && bytes > strlen(bias) &&
           (module_use(name, module_bytes) == EDIT_HEAD ||
            ends_at_dot(name, module_bytes, "predictions"));
}

/* Classes such as LlamaModel and LlamaForSequenceClassification have no head to tie. */
static bool has_head(const char *architecture)
{
    static const char *const without[] = { "ForSequenceClassification", "ForTokenClassification",
                                           "ForQuestionAnswering" };
    size_t bytes = strlen(architecture);

    for (size_t i = 0; i < COUNT(without); i++) {
        if (strstr(architecture, without[i]))
            return false;
    }
    return bytes < 5 || strcmp(architecture + bytes - 5, "Model") != 0 ||
           strstr(architecture, "Head");
}

void tied_read_uses(struct tied_uses *out, const struct model *model,
                    const struct config_facts *facts)
{
    *out = (struct tied_uses){ .tied = facts->tied != 0 && has_head(facts->architecture) };
    for (uint32_t s = 0; s < model->shard_count; s++) {
        const struct st_header *header = &model->shards[s].header;

        for (uint32_t t = 0; t < header->tensor_count; t++) {
            const struct st_tensor *tensor = &header->tensors[t];
            enum edit_side use = tensor->shape_count == 2
                                     ? adapter_tensor_use(st_name(header, tensor),
                                                          tensor->name_bytes)
                                     : EDIT_UNTIED;

            if (use == EDIT_EMBEDDING && out->embedding_count++ < TIED_USES_MAX)
                out->embeddings[out->embedding_count - 1] = (struct model_ref){ s, t };
            if (use == EDIT_HEAD && out->head_count++ < TIED_USES_MAX)
                out->heads[out->head_count - 1] = (struct model_ref){ s, t };
        }
    }
}

/* Drop the last component of a path that ends in '.', if it is one of these. */
static size_t strip_component(const char *name, size_t bytes, const char *const *words,
                              size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes && ends_at_dot(name, bytes - 1, words[i]))
            return bytes - 1 - strlen(words[i]);
    }
    return bytes;
}

/* "model.language_model.embed_tokens.weight": 0; "language_model.model.…": 15. */
static size_t head_prefix_bytes(const char *name, size_t bytes)
{
    static const char *const inner[] = { "language_model", "text_model", "decoder" };
    static const char *const outer[] = { "model", "transformer", "backbone", "gpt_neox" };

    bytes -= WEIGHT_BYTES;
    while (bytes && name[bytes - 1] != '.')
        bytes--;
    bytes = strip_component(name, bytes, inner, COUNT(inner));
    return strip_component(name, bytes, outer, COUNT(outer));
}

bool tied_is_shared(const struct tied_uses *uses, const struct model *model, struct model_ref ref)
{
    const struct st_header *header = model_header(model, ref);
    const struct st_tensor *tensor = model_tensor(model, ref);
    const char *name = st_name(header, tensor);
    const uint64_t *shape = st_shape(header, tensor);
    size_t prefix_bytes;

    if (!uses->tied || uses->embedding_count > TIED_USES_MAX || uses->head_count > TIED_USES_MAX ||
        tensor->shape_count != 2 || adapter_tensor_use(name, tensor->name_bytes) != EDIT_EMBEDDING)
        return false;
    prefix_bytes = head_prefix_bytes(name, tensor->name_bytes);
    for (size_t i = 0; i < uses->head_count; i++) {
        const struct st_tensor *head = model_tensor(model, uses->heads[i]);

        if (head->name_bytes > prefix_bytes &&
            memcmp(st_name(model_header(model, uses->heads[i]), head), name, prefix_bytes) == 0)
            return false;
    }
    /* Of two embeddings of one shape nothing tells which one the head uses. */
    for (size_t i = 0; i < uses->embedding_count; i++) {
        const struct model_ref other = uses->embeddings[i];
        const uint64_t *other_shape = st_shape(model_header(model, other),
                                               model_tensor(model, other));

        if ((other.shard != ref.shard || other.tensor != ref.tensor) &&
            other_shape[0] == shape[0] && other_shape[1] == shape[1])
            return false;
    }
    return true;
}

int tied_head_name(char **out, const struct model *model, struct model_ref ref,
                   const struct config_facts *facts, struct error *err)
{
    const struct st_tensor *tensor = model_tensor(model, ref);
    const char *name = st_name(model_header(model, ref), tensor);
    const char *head = NULL;
    struct text text = { 0 };

    for (size_t i = 0; i < COUNT(other_heads); i++) {
        if (strcmp(facts->model_type, other_heads[i].model_type) == 0)
            head = other_heads[i].head;
    }
    if (!head) {
        text_add(&text, name, head_prefix_bytes(name, tensor->name_bytes));
        head = ends_at_dot(name, tensor->name_bytes, "tok_embeddings.weight") ? "output"
                                                                              : "lm_head";
    }
    text_adds(&text, head);
    text_adds(&text, WEIGHT);
    *out = text_take(&text);
    return *out ? 0 : error_no_memory(err, "a tensor name");
}
