/*
 * comma_locale.h - a host program whose numbers have a decimal comma
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_COMMA_LOCALE_H
#define TESTS_COMMA_LOCALE_H

#include "io_temp.h"

#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * Make such a locale and take it for LC_NUMERIC; end with setlocale(LC_NUMERIC, "C").  False if it
 * cannot be made here (Debian: the package "locales" has what localedef reads).
 */
static inline bool comma_locale_enter(void)
{
    static const char source[] = "LC_NUMERIC\ndecimal_point \",\"\nthousands_sep \"\"\n"
                                 "grouping -1\nEND LC_NUMERIC\n";
    char *folder = temp_make(NULL);
    char path[PATH_MAX], command[2 * PATH_MAX + 100];
    bool taken;

    snprintf(path, sizeof(path), "%s/source", folder);
    temp_write(path, source, sizeof(source) - 1);
    snprintf(command, sizeof(command), "localedef --no-archive -c -i '%s' '%s/comma' 2>/dev/null",
             path, folder);
    if (system(command) == -1)
        perror("localedef");
    setenv("LOCPATH", folder, 1);
    taken = setlocale(LC_NUMERIC, "comma") && localeconv()->decimal_point[0] == ',';
    unsetenv("LOCPATH");
    temp_remove(folder);
    return taken;
}

#endif
