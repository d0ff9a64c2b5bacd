/*
 * For test_naming.py: argv[1] is a base, stdin holds runtime names, each with a NUL behind it.
 * One line for each: "TIER NAME NAME ...", or "-" where the base has none.
 */

#include "adapter/naming.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct naming_found found[NAMING_FOUND_MAX];
    struct model model = { 0 };
    struct error err = { 0 };
    char *name = NULL;
    size_t capacity = 0;
    size_t count;
    ssize_t got;

    if (argc != 2 || model_open(&model, argv[1], NULL, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    while ((got = getdelim(&name, &capacity, '\0', stdin)) > 0) {
        if (naming_find(found, &count, &model, name, (size_t)got - 1, &err))
            break;
        if (count)
            printf("%u", found[0].tier);
        for (size_t i = 0; i < count; i++) {
            const struct st_tensor *tensor = model_tensor(&model, found[i].ref);

            printf(" %.*s", (int)tensor->name_bytes,
                   st_name(model_header(&model, found[i].ref), tensor));
        }
        puts(count ? "" : "-");
    }
    free(name);
    model_release(&model);
    return err.code;
}
