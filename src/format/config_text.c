#include "format/config_text.h"

#include "base/json.h"
#include "format/config_internal.h"

#include <stdio.h>
#include <string.h>

/* Objects that hold the configuration of a language model inside that of a larger one. */
static const char *const language_keys[] = { "text_config", "language_config", "llm_config",
                                             "thinker_config" };

/* What models call their number of layers; the first is the usual one. */
static const char *const layer_keys[] = { "num_hidden_layers", "n_layer", "n_layers",
                                          "num_layers" };

bool config_key_is(const struct json_token *key, const char *name)
{
    return key->kind == JSON_KEY && json_string_is(key, name);
}

bool config_key_among(const struct json_token *key, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (config_key_is(key, names[i]))
            return true;
    }
    return false;
}

bool config_key_of_layers(const struct json_token *key)
{
    return config_key_among(key, layer_keys, COUNT_OF(layer_keys));
}

void config_path_follow(struct config_path *path, const struct json_token *key,
                        const struct json_token *token)
{
    if (token->kind == JSON_OBJECT_BEGIN)
        path->language[token->depth] = token->depth == 0 ||
                                       (path->language[token->depth - 1] &&
                                        config_key_among(key, language_keys,
                                                         COUNT_OF(language_keys)));
    else if (token->kind == JSON_ARRAY_BEGIN)
        path->language[token->depth] = false;
}

bool config_path_holds(const struct config_path *path, const struct json_token *token)
{
    return token->depth > 0 && path->language[token->depth - 1];
}

static void copy_string(char *out, size_t out_bytes, const struct json_token *token)
{
    if (token->kind == JSON_STRING && !token->escaped && token->bytes - 2 < out_bytes)
        snprintf(out, out_bytes, "%.*s", (int)(token->bytes - 2), token->begin + 1);
}

/* Lists with an element for each layer, in models that say no number of layers. */
static const char *const layer_lists[] = { "layer_types", "layers_block_type" };

/* What says the number of layers; a better source counts more than any depth. */
enum layers_source { LAYERS_USUAL, LAYERS_SPELLED, LAYERS_LIST };

/* How outer what is known of a fact stands: the outermost level decides. */
struct found {
    unsigned tied_depth;
    unsigned vocab_depth;
    unsigned layers_depth;
    enum layers_source layers_source;
};

static void note_tied(struct config_facts *facts, struct found *found,
                      const struct json_token *value)
{
    if (value->kind != JSON_TRUE && value->kind != JSON_FALSE)
        return;
    if (facts->tied >= 0 && value->depth >= found->tied_depth)
        return;
    facts->tied = value->kind == JSON_TRUE;
    found->tied_depth = value->depth;
}

static void note_vocab(struct config_facts *facts, struct found *found,
                       const struct json_token *value)
{
    uint64_t number;

    if (!json_number_u64(value, &number) || number == 0)
        return;
    if (facts->vocab_size && value->depth >= found->vocab_depth)
        return;
    facts->vocab_size = number;
    found->vocab_depth = value->depth;
}

static void note_layers(struct config_facts *facts, struct found *found, uint64_t number,
                        enum layers_source source, unsigned depth)
{
    if (number == 0)
        return;
    if (facts->num_hidden_layers &&
        (source == found->layers_source ? depth >= found->layers_depth
                                        : source > found->layers_source))
        return;
    facts->num_hidden_layers = number;
    found->layers_depth = depth;
    found->layers_source = source;
}

static int count_elements(uint64_t *out, const struct json_reader *at,
                          const struct json_token *array, struct error *err)
{
    struct json_reader reader = *at; /* a copy: looking ahead moves nothing */
    struct json_token token;

    *out = 0;
    for (;;) {
        if (json_next(&reader, &token, err))
            return err->code;
        if (token.kind == JSON_ARRAY_END && token.depth == array->depth)
            return 0;
        if (json_skip(&reader, &token, err))
            return err->code;
        ++*out;
    }
}

/* A member of an object that is about the language model. */
static int note_language(struct config_facts *facts, struct found *found,
                         const struct json_reader *reader, const struct json_token *key,
                         const struct json_token *value, struct error *err)
{
    uint64_t number;

    if (config_key_is(key, "vocab_size"))
        note_vocab(facts, found, value);
    if (config_key_of_layers(key) && json_number_u64(value, &number))
        note_layers(facts, found, number,
                    config_key_is(key, layer_keys[0]) ? LAYERS_USUAL : LAYERS_SPELLED,
                    value->depth);
    if (config_key_among(key, layer_lists, COUNT_OF(layer_lists)) &&
        value->kind == JSON_ARRAY_BEGIN) {
        if (count_elements(&number, reader, value, err))
            return err->code;
        note_layers(facts, found, number, LAYERS_LIST, value->depth);
    }
    return 0;
}

int config_survey_read(struct config_survey *out, const char *json, size_t bytes, struct error *err)
{
    struct config_survey survey = { .facts.tied = -1 };
    struct config_facts *facts = &survey.facts;
    struct config_path path = { 0 };
    struct found found = { 0 };
    struct json_reader reader;
    struct json_token key = { .kind = JSON_NULL };
    struct json_token token;
    bool list_of_architectures = false;

    json_reader_init(&reader, json, bytes, JSON_PYTHON);
    do {
        if (json_next(&reader, &token, err))
            return err->code;
        config_path_follow(&path, &key, &token);
        if (token.kind == JSON_OBJECT_BEGIN && path.language[token.depth] &&
            token.depth > survey.innermost)
            survey.innermost = token.depth;
        if (config_path_holds(&path, &token) &&
            note_language(facts, &found, &reader, &key, &token, err))
            return err->code;
        if (config_key_is(&key, "tie_word_embeddings"))
            note_tied(facts, &found, &token);
        if (config_key_is(&key, "quantization_config") && token.kind == JSON_OBJECT_BEGIN)
            facts->quantised = true;
        if (config_key_is(&key, "model_type") && token.depth == 1)
            copy_string(facts->model_type, sizeof(facts->model_type), &token);
        if (list_of_architectures && token.kind == JSON_STRING)
            copy_string(facts->architecture, sizeof(facts->architecture), &token);
        list_of_architectures = config_key_is(&key, "architectures") &&
                                token.kind == JSON_ARRAY_BEGIN && token.depth == 1;
        key = token;
    } while (token.kind != JSON_END);
    *out = survey;
    return 0;
}

int config_read_facts(struct config_facts *out, const char *json, size_t bytes, struct error *err)
{
    struct config_survey survey;
    struct json_reader reader;
    struct json_token token;

    if (json_check(json, bytes, JSON_PYTHON, err))
        return err->code;
    json_reader_init(&reader, json, bytes, JSON_PYTHON);
    if (json_next(&reader, &token, err))
        return err->code;
    if (token.kind != JSON_OBJECT_BEGIN)
        return error_set(err, ERR_FORMAT, "it is not a JSON object");
    if (config_survey_read(&survey, json, bytes, err))
        return err->code;
    *out = survey.facts;
    return 0;
}
