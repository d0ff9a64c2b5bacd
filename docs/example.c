/*
 * example.c - fold one adapter into a base: lorafold merge BASE -a ADAPTER -o OUT
 *
 *     cc example.c -o example $(pkg-config --cflags --libs lorafold)
 *     ./example BASE ADAPTER OUT
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include <lorafold.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

/* What Ctrl-C ends.  It is set before the handler is installed, and closed after it is taken away.
 */
static struct lorafold_merge *running;

static void stop(int number)
{
    (void)number;
    lorafold_merge_cancel(running);
}

/* Comes on the thread that called the library, like every callback. */
static void show_progress(void *context, const struct lorafold_progress *now)
{
    (void)context;
    fprintf(stderr, "\r%3.0f %%  %s", 100.0 * (double)now->bytes_done / (double)now->bytes_total,
            now->bytes_done == now->bytes_total ? "\n" : now->file);
}

static void show_message(void *context, enum lorafold_level level, const char *sentence)
{
    (void)context;
    if (level != LORAFOLD_DETAIL)
        fprintf(stderr, "%s: %s\n", level == LORAFOLD_WARNING ? "warning" : "notice", sentence);
}

int main(int argc, char **argv)
{
    struct lorafold_merge_options options;
    struct lorafold_adapter adapter = { NULL, 1.0 };
    struct lorafold_error err = { 0 };
    struct lorafold_report report;
    int status;

    if (argc != 4) {
        fprintf(stderr, "usage: example BASE ADAPTER OUT\n");
        return LORAFOLD_USAGE;
    }
    adapter.path = argv[2];
    lorafold_merge_options_init(&options); /* then only what differs from the defaults */
    options.base = argv[1];
    options.adapters = &adapter;
    options.adapter_count = 1;
    options.output = argv[3];
    options.message = show_message;
    options.progress = show_progress;

    /* Reads headers and configurations and makes every check; nothing is written. */
    status = lorafold_merge_open(&running, &options, &err);
    if (!status) {
        signal(SIGINT, stop);
        status = lorafold_merge_run(running,
                                    &err); /* all or nothing: OUT appears when it is complete */
        signal(SIGINT, SIG_DFL);
    }
    if (!status) {
        lorafold_merge_report(running, &report);
        printf("%zu tensors folded, %zu copied, %" PRIu64 " bytes written to %s\n",
               report.tensors_folded, report.tensors_copied, report.bytes_written, report.output);
    } else {
        fprintf(stderr, "example: %s\n", err.text);
    }
    lorafold_merge_close(running); /* also NULL, after a failure of lorafold_merge_open() */
    return status;
}
