#include "hub/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEP_MS 5
#define KILL_MS 2000 /* between the polite signal and the one that cannot be refused */

/* Our end and the child's end of one channel. */
struct channel {
    int ours;
    int theirs;
};

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Above the standard ones, which dup2() in the child would overwrite: the host may have closed
 * its own. */
static int move_up(int *fd)
{
    int moved = *fd > STDERR_FILENO ? *fd : fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);

    if (moved < 0)
        return -1;
    if (moved != *fd)
        close(*fd);
    *fd = moved;
    return 0;
}

static int channel_open(struct channel *channel, bool is_socket)
{
    int fds[2]; /* as of a pipe: read, write */

    if (is_socket ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) : pipe2(fds, O_CLOEXEC))
        return -1;
    channel->ours = fds[0];
    channel->theirs = fds[1];
    if (move_up(&channel->ours) || move_up(&channel->theirs) ||
        fcntl(channel->ours, F_SETFL, O_NONBLOCK))
        return -1;
    return 0;
}

/* Signals as a program expects them, whatever this thread blocks or the host ignores. */
static int set_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none;
    sigset_t defaults;
    int status;

    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGINT);
    sigaddset(&defaults, SIGTERM);
    status = posix_spawnattr_setsigmask(attributes, &none);
    if (!status)
        status = posix_spawnattr_setsigdefault(attributes, &defaults);
    if (!status)
        status = posix_spawnattr_setpgroup(attributes, 0);
    if (!status)
        status = posix_spawnattr_setflags(
            attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    return status;
}

static int spawn(pid_t *pid, const char *const *arguments, char *const *environment,
                 const struct channel channels[3])
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int status = posix_spawn_file_actions_init(&actions);

    if (status)
        return status;
    status = posix_spawnattr_init(&attributes);
    if (status) {
        posix_spawn_file_actions_destroy(&actions);
        return status;
    }
    status = set_attributes(&attributes);
    for (int i = 0; i < 3 && !status; i++)
        status = posix_spawn_file_actions_adddup2(&actions, channels[i].theirs, i);
    if (!status)
        status = posix_spawnp(pid, arguments[0], &actions, &attributes, (char *const *)arguments,
                              environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return status;
}

int child_start(struct child *out, const char *const *arguments, char *const *environment,
                struct error *err)
{
    struct channel channels[3] = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
    char quoted[QUOTED_BYTES];
    int status = 0;

    error_quote(quoted, sizeof(quoted), arguments[0], strlen(arguments[0]));
    for (int i = 0; i < 3 && !status; i++) {
        if (channel_open(&channels[i], i == STDIN_FILENO))
            status = error_set_errno(err, "channels to '%s' cannot be made", quoted);
    }
    if (!status) {
        int reason = spawn(&out->pid, arguments, environment, channels);

        errno = reason;
        if (reason)
            status = error_set_errno(err, "'%s' cannot be started", quoted);
        if (reason == ENOENT || reason == ENOTDIR || reason == EACCES || reason == ENOEXEC)
            status = err->code = ERR_USAGE;
    }
    for (int i = 0; i < 3; i++) {
        close_end(&channels[i].theirs);
        if (status)
            close_end(&channels[i].ours);
    }
    if (status)
        return status;
    out->requests = channels[STDIN_FILENO].ours;
    out->answers = channels[STDOUT_FILENO].ours;
    out->talk = channels[STDERR_FILENO].ours;
    return 0;
}

/* Wait at most patience_ms.  True when the child is gone; then nothing is left to wait for. */
static bool gone(struct child *child, int patience_ms, int *status)
{
    for (int waited = 0;; waited += STEP_MS) {
        pid_t pid = waitpid(child->pid, status, WNOHANG);

        /* ECHILD: the host program ignores SIGCHLD, and the system has taken it away. */
        if (pid == child->pid || (pid < 0 && errno == ECHILD)) {
            *status = pid < 0 ? 0 : *status;
            child->pid = 0;
            return true;
        }
        if (waited >= patience_ms)
            return false;
        poll(NULL, 0, STEP_MS);
    }
}

void child_wait(struct child *child, int patience_ms, char *how, size_t how_bytes)
{
    int status = 0;

    if (!child->pid) {
        snprintf(how, how_bytes, "it has ended");
    } else if (!gone(child, patience_ms, &status)) {
        snprintf(how, how_bytes, "it has closed its output");
    } else if (WIFSIGNALED(status)) {
        snprintf(how, how_bytes, "signal %d", WTERMSIG(status));
    } else {
        snprintf(how, how_bytes, "exit status %d", WEXITSTATUS(status));
    }
}

void child_end(struct child *child, int patience_ms)
{
    pid_t group = child->pid;
    int status = 0;

    if (!child->pid && !child->requests)
        return;
    close_end(&child->requests);
    close_end(&child->answers);
    close_end(&child->talk);
    if (!child->pid || gone(child, patience_ms, &status))
        return;
    kill(-group, SIGTERM);
    if (gone(child, KILL_MS, &status))
        return;
    kill(-group, SIGKILL);
    while (!gone(child, KILL_MS, &status))
        ;
}
