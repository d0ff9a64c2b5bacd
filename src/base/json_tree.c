#include "base/array.h"
#include "base/json.h"
#include "base/text.h"

#include <cjson/cJSON.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * Keys of the objects that are open, innermost last.  When an object ends, its keys are sorted and
 * neighbours compared: no input makes this slower than n log n, as a hash with known seed can be.
 */
struct key {
    size_t offset; /* of the decoded key in `decoded` */
    size_t bytes;
    size_t where; /* in the document */
};

struct checker {
    struct text decoded;
    struct text string;
    struct key *keys;
    size_t key_count;
    size_t key_capacity;
    size_t first_key[JSON_DEPTH_MAX]; /* of the object at this depth */
};

static int compare_keys(const void *left, const void *right, void *context)
{
    const struct key *x = left;
    const struct key *y = right;
    const char *decoded = context;
    size_t common = x->bytes < y->bytes ? x->bytes : y->bytes;
    int order = memcmp(decoded + x->offset, decoded + y->offset, common);

    if (order)
        return order;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return x->where < y->where ? -1 : x->where > y->where;
}

static int add_key(struct checker *checker, const struct json_token *token, const char *text,
                   struct error *err)
{
    struct key key = { .offset = checker->decoded.bytes, .where = (size_t)(token->begin - text) };

    json_string_decode(token, &checker->decoded);
    if (checker->decoded.failed)
        return error_no_memory(err, "the keys of a JSON text");
    key.bytes = checker->decoded.bytes - key.offset;
    if (memchr(checker->decoded.data + key.offset, '\0', key.bytes))
        return error_set(err, ERR_FORMAT, "the JSON key at byte %zu contains \\u0000", key.where);
    if (checker->key_count == checker->key_capacity) {
        struct key *more = array_grow(checker->keys, &checker->key_capacity, sizeof(*more));

        if (!more)
            return error_no_memory(err, "the keys of a JSON text");
        checker->keys = more;
    }
    checker->keys[checker->key_count++] = key;
    return 0;
}

/* The object at `depth` ends: no two of its keys may be equal; then they are forgotten. */
static int end_object(struct checker *checker, unsigned depth, struct error *err)
{
    size_t first = checker->first_key[depth];
    size_t count = checker->key_count - first;
    const struct key *keys = checker->keys;
    const char *decoded = checker->decoded.data;
    char quoted[QUOTED_BYTES];

    if (!keys || count == 0)
        return 0;
    keys += first;
    checker->key_count = first;
    checker->decoded.bytes = keys[0].offset;
    qsort_r(&checker->keys[first], count, sizeof(*keys), compare_keys, checker->decoded.data);
    for (size_t i = 1; i < count; i++) {
        if (keys[i].bytes == keys[i - 1].bytes &&
            memcmp(decoded + keys[i].offset, decoded + keys[i - 1].offset, keys[i].bytes) == 0)
            return error_set(
                err, ERR_FORMAT,
                "the JSON key '%s' at byte %zu stands in the same object at byte %zu",
                error_quote(quoted, sizeof(quoted), decoded + keys[i].offset, keys[i].bytes),
                keys[i].where, keys[i - 1].where);
    }
    return 0;
}

static int check_string(struct checker *checker, const struct json_token *token, const char *text,
                        struct error *err)
{
    if (!token->escaped)
        return 0;
    text_clear(&checker->string);
    json_string_decode(token, &checker->string);
    if (checker->string.failed)
        return error_no_memory(err, "a JSON string");
    if (memchr(checker->string.data, '\0', checker->string.bytes))
        return error_set(err, ERR_FORMAT, "the JSON string at byte %zu contains \\u0000",
                         (size_t)(token->begin - text));
    return 0;
}

int json_check(const char *text, size_t bytes, unsigned flags, struct error *err)
{
    struct checker checker = { 0 };
    struct json_reader reader;
    struct json_token token;
    size_t token_count = 0;
    int status;

    if (bytes > JSON_DOCUMENT_BYTES_MAX)
        return error_set(err, ERR_FORMAT, "a JSON text of %zu bytes, at most %u are accepted",
                         bytes, JSON_DOCUMENT_BYTES_MAX);
    json_reader_init(&reader, text, bytes, flags);
    do {
        status = json_next(&reader, &token, err);
        if (status)
            break;
        if (++token_count > JSON_TOKENS_MAX)
            status = error_set(err, ERR_FORMAT,
                               "a JSON text of more than %u keys and values, the limit",
                               JSON_TOKENS_MAX);
        else if (token.kind == JSON_OBJECT_BEGIN)
            checker.first_key[token.depth] = checker.key_count;
        else if (token.kind == JSON_KEY)
            status = add_key(&checker, &token, text, err);
        else if (token.kind == JSON_STRING)
            status = check_string(&checker, &token, text, err);
        else if (token.kind == JSON_OBJECT_END)
            status = end_object(&checker, token.depth, err);
    } while (!status && token.kind != JSON_END);
    text_release(&checker.decoded);
    text_release(&checker.string);
    free(checker.keys);
    return status;
}

struct builder {
    struct text string; /* the value at hand, decoded */
    locale_t c_locale;  /* the host program's locale may have another decimal point */
    cJSON *parents[JSON_DEPTH_MAX];
    struct text key; /* of the member at hand */
};

static cJSON *make_number(struct builder *builder, const struct json_token *token)
{
    cJSON *item = cJSON_CreateNumber(0);
    double value;

    text_clear(&builder->string);
    text_add(&builder->string, token->begin, token->bytes);
    if (!item || builder->string.failed) {
        cJSON_Delete(item);
        return NULL;
    }
    value = strtod_l(builder->string.data, NULL, builder->c_locale);
    if (isnan(value))
        item->valuedouble = value; /* cJSON would convert it to int, which is undefined */
    else
        cJSON_SetNumberValue(item, value);
    return item;
}

static cJSON *make_item(struct builder *builder, const struct json_token *token)
{
    switch (token->kind) {
    case JSON_OBJECT_BEGIN:
        return cJSON_CreateObject();
    case JSON_ARRAY_BEGIN:
        return cJSON_CreateArray();
    case JSON_STRING:
        text_clear(&builder->string);
        json_string_decode(token, &builder->string);
        return builder->string.failed ? NULL : cJSON_CreateString(builder->string.data);
    case JSON_NUMBER:
        return make_number(builder, token);
    case JSON_TRUE:
        return cJSON_CreateTrue();
    case JSON_FALSE:
        return cJSON_CreateFalse();
    default:
        return cJSON_CreateNull();
    }
}

/* One more item into the tree; false without memory. */
static bool add_item(struct builder *builder, cJSON **root, const struct json_token *token)
{
    cJSON *item = make_item(builder, token);
    cJSON *parent = token->depth ? builder->parents[token->depth - 1] : NULL;
    bool added = true;

    if (!item)
        return false;
    if (!parent)
        *root = item;
    else if (cJSON_IsObject(parent))
        added = !builder->key.failed && cJSON_AddItemToObject(parent, builder->key.data, item);
    else
        added = cJSON_AddItemToArray(parent, item);
    if (!added)
        cJSON_Delete(item);
    else if (token->kind == JSON_OBJECT_BEGIN || token->kind == JSON_ARRAY_BEGIN)
        builder->parents[token->depth] = item;
    return added;
}

/*
 * The tree is built from our tokens, since cJSON's own parser knows neither non-finite numbers nor
 * numbers of more than 63 characters, and is laxer than the check.
 */
int json_parse(struct cJSON **out, const char *text, size_t bytes, unsigned flags,
               struct error *err)
{
    struct builder builder = { 0 };
    struct json_reader reader;
    struct json_token token;
    cJSON *root = NULL;
    int status = json_check(text, bytes, flags, err);

    if (status)
        return status;
    builder.c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!builder.c_locale)
        return error_no_memory(err, "the C locale");
    json_reader_init(&reader, text, bytes, flags);
    do {
        status = json_next(&reader, &token, err);
        if (status)
            break;
        if (token.kind == JSON_KEY) {
            text_clear(&builder.key);
            json_string_decode(&token, &builder.key);
        } else if (token.kind != JSON_OBJECT_END && token.kind != JSON_ARRAY_END &&
                   token.kind != JSON_END && !add_item(&builder, &root, &token)) {
            status = error_no_memory(err, "a JSON tree");
        }
    } while (!status && token.kind != JSON_END);
    if (status)
        cJSON_Delete(root);
    else
        *out = root;
    freelocale(builder.c_locale);
    text_release(&builder.string);
    text_release(&builder.key);
    return status;
}
