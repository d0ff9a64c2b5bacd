#include "hub/cache_directory.h"

#include "hub/cache.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define PASSWD_BYTES 4096 /* of an entry; _SC_GETPW_R_SIZE_MAX says 1024 */

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* An empty value counts as unset. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

static void add_home(struct text *out)
{
    const char *home = variable("HOME");
    struct passwd entry, *user = NULL;
    char strings[PASSWD_BYTES];

    if (!home)
        getpwuid_r(getuid(), &entry, strings, sizeof(strings), &user);
    text_adds(out, home ? home : user ? user->pw_dir : "/");
}

/* A leading "~", $NAME and ${NAME}, as huggingface_hub expands them; unknown names stay. */
static void add_expanded(struct text *out, const char *value)
{
    const char *c = value;

    if (c[0] == '~' && (c[1] == '/' || c[1] == '\0')) {
        add_home(out);
        c++;
    }
    while (*c) {
        const char *begin = c + 1 + (c[1] == '{');
        size_t bytes = 0;
        char name[64];
        const char *replacement = NULL;

        while (*c == '$' && is_word(begin[bytes]))
            bytes++;
        if (bytes && bytes < sizeof(name) && (c[1] != '{' || begin[bytes] == '}')) {
            memcpy(name, begin, bytes);
            name[bytes] = '\0';
            replacement = getenv(name);
        }
        if (replacement) {
            text_adds(out, replacement);
            c = begin + bytes + (c[1] == '{');
        } else {
            text_add(out, c++, 1);
        }
    }
}

void hub_add_cache_directory(struct text *out)
{
    const char *value = variable("HF_HUB_CACHE");

    if (!value)
        value = variable("HUGGINGFACE_HUB_CACHE");
    if (value) {
        add_expanded(out, value);
        return;
    }
    value = variable("HF_HOME");
    if (value) {
        add_expanded(out, value);
    } else {
        value = variable("XDG_CACHE_HOME");
        if (value) {
            add_expanded(out, value);
        } else {
            add_home(out);
            text_adds(out, "/.cache");
        }
        text_adds(out, "/huggingface");
    }
    text_adds(out, "/hub");
}

bool hub_is_offline(void)
{
    static const char *const yes[] = { "1", "ON", "YES", "TRUE" };
    const char *value = variable("HF_HUB_OFFLINE");

    if (!value)
        value = variable("TRANSFORMERS_OFFLINE");
    for (size_t i = 0; value && i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (strcasecmp(value, yes[i]) == 0)
            return true;
    }
    return false;
}
