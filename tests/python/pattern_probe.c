/*
 * Reads NUL-terminated records on stdin and answers one line each, for test_patterns.py:
 *
 *   F<pattern>  compile for fullmatch      ok | refused <sentence>
 *   S<pattern>  compile as a suffix key    ok | refused <sentence>
 *   N<name>     match the last pattern     match | no | refused <sentence>
 */

#include "adapter/pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void answer(const char *word, const struct error *err)
{
    if (err)
        printf("%s %s\n", word, err->text);
    else
        puts(word);
}

int main(void)
{
    struct pattern *pattern = NULL;
    char *record = NULL;
    size_t capacity = 0;
    ssize_t got;

    while ((got = getdelim(&record, &capacity, '\0', stdin)) > 1) {
        struct error err = { 0 };
        const char *text = record + 1;
        size_t bytes = (size_t)got - 2;
        bool matched = false;

        if (record[0] == 'N') {
            if (!pattern)
                answer("no", NULL);
            else if (pattern_match(pattern, text, bytes, &matched, &err))
                answer("refused", &err);
            else
                answer(matched ? "match" : "no", NULL);
            continue;
        }
        pattern_free(pattern);
        pattern = NULL;
        if (pattern_compile(&pattern, text, bytes,
                            record[0] == 'S' ? PATTERN_SUFFIX_KEY : PATTERN_FULLMATCH, &err))
            answer("refused", &err);
        else
            answer("ok", NULL);
    }
    pattern_free(pattern);
    free(record);
    return 0;
}
