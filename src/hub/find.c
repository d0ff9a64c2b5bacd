/* find.c - which program is the helper, and what it finds in its environment */
#include "hub/helper_internal.h"

#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

#define NAME "lorafold-hub"

int helper_not_installed(const struct hub_helper *helper, struct error *err)
{
    return error_set(err, ERR_USAGE,
                     "the Hub needs the program '%s', which is not there or cannot be executed; "
                     "install it with: pipx install 'lorafold[hub]', or with pip in a virtual "
                     "environment",
                     helper->from_python ? NAME : helper->program);
}

/* Variables that say which token is taken, of which none may be left when the caller gives one. */
static bool is_about_tokens(const char *variable)
{
    static const char *const names[] = { "HF_TOKEN=", "HUGGING_FACE_HUB_TOKEN=",
                                         "HF_HUB_DISABLE_IMPLICIT_TOKEN=" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strncmp(variable, names[i], strlen(names[i])) == 0)
            return true;
    }
    return false;
}

/*
 * This process's variables with the token, or with the wish for none.  The list is freed by the
 * caller, and so is *own, the one string in it that is not this process's.
 */
static char **make_environment(const char *token, char **own)
{
    size_t count = 0;
    size_t kept = 0;
    char **list;

    while (environ && environ[count])
        count++;
    list = calloc(count + 3, sizeof(*list));
    if (!list || asprintf(own, "HF_TOKEN=%s", token) < 0) {
        free(list);
        *own = NULL;
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (!is_about_tokens(environ[i]))
            list[kept++] = environ[i];
    }
    list[kept++] = *own;
    if (!*token)
        list[kept] = "HF_HUB_DISABLE_IMPLICIT_TOKEN=1";
    return list;
}

/* The path of the helper beside the program that runs; false if there is none. */
static bool find_beside(char *path, size_t path_bytes)
{
    ssize_t length = readlink("/proc/self/exe", path, path_bytes - sizeof(NAME));
    char *slash;

    if (length <= 0 || (size_t)length >= path_bytes - sizeof(NAME))
        return false;
    path[length] = '\0';
    slash = strrchr(path, '/');
    if (!slash)
        return false;
    memcpy(slash + 1, NAME, sizeof(NAME));
    return access(path, X_OK) == 0;
}

static int start(struct hub_helper *helper, const char *const *arguments, char *const *environment,
                 struct error *err)
{
    error_quote(helper->program, sizeof(helper->program), arguments[0], strlen(arguments[0]));
    return child_start(&helper->child, arguments, environment, err);
}

/* Those that may be there, one after the other. */
static int start_found(struct hub_helper *helper, char *const *environment, struct error *err)
{
    static const char *const on_path[] = { NAME, NULL };
    static const char *const module[] = { "python3", "-m", "lorafold_hub", NULL };
    const char *variable = getenv("LORAFOLD_HUB");
    const char *named[2] = { variable, NULL };
    char path[4096];
    int status;

    if (variable && *variable)
        return start(helper, named, environment, err);
    if (find_beside(path, sizeof(path))) {
        named[0] = path;
        return start(helper, named, environment, err);
    }
    status = start(helper, on_path, environment, err);
    if (status != ERR_USAGE)
        return status;
    status = start(helper, module, environment, err);
    helper->from_python = status == 0;
    snprintf(helper->program, sizeof(helper->program), "%s",
             status ? NAME : "python3 -m lorafold_hub");
    return status;
}

int helper_spawn(struct hub_helper *helper, const struct hub_helper_options *options,
                 struct error *err)
{
    char **environment = options->token ? NULL : environ;
    char *own = NULL;
    int status;

    if (options->token) {
        environment = make_environment(options->token, &own);
        if (!environment)
            return error_no_memory(err, "the environment of the Hub helper");
    }
    status = options->program ? start(helper, options->program, environment, err)
                              : start_found(helper, environment, err);
    if (options->token) {
        free(environment);
        if (own)
            explicit_bzero(own, strlen(own));
        free(own);
    }
    return status == ERR_USAGE ? helper_not_installed(helper, err) : status;
}
