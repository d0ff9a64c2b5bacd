#include "cli_signals.h"

#include "lorafold.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#define PLANNING_SECONDS 5 /* a helper that hears nothing is killed after three */

static volatile sig_atomic_t first_signal;
static volatile sig_atomic_t work_began;
static volatile sig_atomic_t is_planning;
static volatile sig_atomic_t talks_to_terminal;
static struct lorafold_merge *_Atomic watched;
static struct lorafold_batch *_Atomic watched_batch;

static void leave(int number)
{
    static const char sentence[] = "\nlorafold: interrupted\n"; /* the line feed: after "^C" */
    int skip = !talks_to_terminal;
    ssize_t written = write(STDERR_FILENO, sentence + skip, sizeof(sentence) - 1 - (size_t)skip);

    (void)written;
    _exit(128 + number);
}

static void on_signal(int number)
{
    struct lorafold_merge *merge = atomic_load(&watched);
    struct lorafold_batch *batch = atomic_load(&watched_batch);

    if (!work_began || (first_signal && number == SIGINT))
        leave(number);
    if (!first_signal) {
        first_signal = number;
        if (is_planning)
            alarm(PLANNING_SECONDS);
    }
    if (merge)
        lorafold_merge_cancel(merge);
    if (batch)
        lorafold_batch_cancel(batch);
}

static void on_alarm(int number)
{
    (void)number;
    if (is_planning)
        leave(first_signal);
}

void cli_signals_install(void)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    struct sigaction before;

    talks_to_terminal = isatty(STDERR_FILENO);
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL); /* a limit of the file size is an error like a full disk */
}

const volatile int *cli_signals_begin_planning(void)
{
    is_planning = 1;
    work_began = 1; /* a signal before this line ends the process, and may */
    return &first_signal;
}

const volatile int *cli_signals_begin(struct lorafold_merge *merge)
{
    is_planning = 0;
    atomic_store(&watched, merge);
    work_began = 1;
    if (merge && first_signal) /* it came while something else was done */
        lorafold_merge_cancel(merge);
    return &first_signal;
}

void cli_signals_begin_batch(struct lorafold_batch *batch)
{
    is_planning = 0;
    atomic_store(&watched_batch, batch);
    work_began = 1;
    if (first_signal)
        lorafold_batch_cancel(batch);
}

void cli_signals_end(void)
{
    atomic_store(&watched, NULL);
    atomic_store(&watched_batch, NULL);
}

bool cli_signals_came(void)
{
    return first_signal != 0;
}

int cli_signals_check(struct lorafold_error *err)
{
    if (!first_signal)
        return 0;
    snprintf(err->text, sizeof(err->text), "interrupted");
    return err->code = LORAFOLD_CANCELLED;
}

int cli_signals_exit_status(void)
{
    return 128 + (first_signal ? first_signal : SIGINT);
}
