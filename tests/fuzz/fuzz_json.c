/*
 * Any bytes as a JSON text: tokens lie in the text and nest, what is strict is also Python's, and
 * a tree that is printed parses again.
 */

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "fuzz/fuzz.h"

#include <cjson/cJSON.h>
#include <string.h>

/* Walks all tokens; true if the text is valid. */
static bool walk(const char *text, size_t size, unsigned flags, bool skip)
{
    struct json_reader reader;
    struct json_token token;
    struct text decoded = { 0 };
    struct error err = { 0 };
    const char *last = text;
    unsigned depth = 0;

    json_reader_init(&reader, text, size, flags);
    for (;;) {
        uint64_t number;

        if (json_next(&reader, &token, &err)) {
            FUZZ_CHECK(err.code == ERR_FORMAT && err.text[0]);
            text_release(&decoded);
            return false;
        }
        FUZZ_CHECK(token.begin >= last && token.bytes <= (size_t)(text + size - token.begin));
        last = token.begin + token.bytes;
        if (token.kind == JSON_OBJECT_END || token.kind == JSON_ARRAY_END)
            depth--;
        FUZZ_CHECK(token.depth == depth && depth <= JSON_DEPTH_MAX);
        if (token.kind == JSON_END)
            break;
        if (token.kind == JSON_KEY || token.kind == JSON_STRING) {
            text_clear(&decoded);
            json_string_decode(&token, &decoded);
            FUZZ_CHECK(decoded.bytes <= token.bytes - 2);
            FUZZ_CHECK(token.escaped == (memchr(token.begin, '\\', token.bytes) != NULL));
        }
        json_number_u64(&token, &number);
        if (token.kind == JSON_OBJECT_BEGIN || token.kind == JSON_ARRAY_BEGIN) {
            if (!skip) {
                depth++;
            } else if (json_skip(&reader, &token, &err)) {
                text_release(&decoded);
                return false;
            } else {
                last = reader.text + reader.offset;
            }
        }
    }
    FUZZ_CHECK(depth == 0);
    text_release(&decoded);
    return true;
}

/* Print and parse again: the same text comes out. */
static void print_and_parse(const cJSON *tree)
{
    struct error err = { 0 };
    cJSON *again = NULL;
    char *first = cJSON_PrintUnformatted(tree);
    char *second;

    FUZZ_CHECK(first);
    FUZZ_CHECK(json_parse(&again, first, strlen(first), 0, &err) == 0);
    second = cJSON_PrintUnformatted(again);
    FUZZ_CHECK(second && strcmp(first, second) == 0);
    cJSON_free(first);
    cJSON_free(second);
    cJSON_Delete(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct error err = { 0 };
    bool strict = walk(text, size, 0, false);
    bool python = walk(text, size, JSON_PYTHON, false);
    int status = json_check(text, size, 0, &err);
    cJSON *tree = NULL;

    FUZZ_CHECK(walk(text, size, 0, true) == strict);
    FUZZ_CHECK(python || !strict);
    FUZZ_CHECK(status == 0 || status == ERR_FORMAT);
    FUZZ_CHECK(strict || status);
    FUZZ_CHECK(json_parse(&tree, text, size, 0, &err) == status);
    FUZZ_CHECK((tree != NULL) == (status == 0));
    if (tree)
        print_and_parse(tree);
    cJSON_Delete(tree);

    tree = NULL;
    status = json_parse(&tree, text, size, JSON_PYTHON, &err);
    FUZZ_CHECK(status == json_check(text, size, JSON_PYTHON, &err));
    FUZZ_CHECK(python || status);
    cJSON_Delete(tree);
    return 0;
}
