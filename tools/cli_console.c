#include "cli_console.h"

#include "cli_options.h"
#include "cli_signals.h"
#include "cli_text.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define JSON_PROGRESS_SECONDS 1.0

void cli_console_secure(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", O_RDONLY); /* read-only, so that printing still fails */
}

void cli_console_init(struct cli_console *console, const struct cli_arguments *arguments)
{
    *console = (struct cli_console){
        .json = arguments->json,
        .quiet = arguments->quiet,
        .verbose = arguments->verbose,
        .json_seconds = -JSON_PROGRESS_SECONDS,
    };
    cli_progress_init(&console->progress, !arguments->json && !arguments->quiet);
}

/* Remember the first reason; later ones follow from it. */
static void note_output_error(struct cli_console *console)
{
    if (!console->output_errno)
        console->output_errno = errno ? errno : EIO;
}

static void flush_output(struct cli_console *console)
{
    errno = 0;
    if (fflush(stdout) || ferror(stdout))
        note_output_error(console);
}

/* For texts of any length, which may fail before they are flushed. */
static void put_output(struct cli_console *console, const char *text, size_t length)
{
    errno = 0;
    if (fwrite(text, 1, length, stdout) != length)
        note_output_error(console);
}

static bool lacks_line_feed(const char *text)
{
    size_t length = strlen(text);

    return length && text[length - 1] != '\n';
}

static int no_memory(struct lorafold_error *err)
{
    snprintf(err->text, sizeof(err->text), "out of memory for the text of the result");
    return err->code = LORAFOLD_FAILED;
}

int cli_console_result(struct cli_console *console, const char *text, struct lorafold_error *err)
{
    cli_progress_erase(&console->progress);
    if (!text)
        return no_memory(err);
    if (console->quiet && !console->json)
        return 0;
    put_output(console, text, strlen(text));
    if (lacks_line_feed(text))
        fputc('\n', stdout);
    flush_output(console);
    return 0;
}

int cli_console_plan(struct cli_console *console, const char *text, struct lorafold_error *err)
{
    if (console->json || !text)
        return cli_console_result(console, text, err);
    if (!console->quiet)
        fprintf(stderr, "%s%s", text, lacks_line_feed(text) ? "\n" : "");
    return 0;
}

void cli_console_message(void *context, enum lorafold_level level, const char *sentence)
{
    static const char *const types[] = { "warning", "notice", "detail" };
    static const char *const prefixes[] = { "warning: ", "note: ", "" };
    struct cli_console *console = context;

    if ((level == LORAFOLD_DETAIL && !console->verbose) ||
        (level != LORAFOLD_WARNING && console->quiet))
        return;
    if (console->json) {
        printf("{\"type\":\"%s\",\"text\":", types[level]);
        cli_print_json(stdout, sentence);
        fputs("}\n", stdout);
        flush_output(console);
        return;
    }
    cli_progress_erase(&console->progress);
    fputs(prefixes[level], stderr);
    cli_print_safe(stderr, sentence);
    fputc('\n', stderr);
}

static void print_json_progress(struct cli_console *console, const struct lorafold_progress *now)
{
    static const char *const limits[] = { "read",     "compute", "write",
                                          "download", "upload",  "prepare" };

    if (now->bytes_done < now->bytes_total && now->seconds >= console->json_seconds &&
        now->seconds < console->json_seconds + JSON_PROGRESS_SECONDS)
        return;
    console->json_seconds = now->seconds;
    printf("{\"type\":\"progress\",\"bytes_done\":%llu,\"bytes_total\":%llu,\"seconds\":%.3f,"
           "\"limit\":\"%s\",\"file\":",
           (unsigned long long)now->bytes_done, (unsigned long long)now->bytes_total, now->seconds,
           limits[now->limit]);
    cli_print_json(stdout, now->file ? now->file : "");
    if (now->outputs_total)
        printf(",\"outputs_done\":%zu,\"outputs_total\":%zu", now->outputs_done,
               now->outputs_total);
    fputs("}\n", stdout);
    flush_output(console);
}

void cli_console_progress(void *context, const struct lorafold_progress *now)
{
    struct cli_console *console = context;

    if (console->json) {
        if (!console->quiet)
            print_json_progress(console, now);
    } else if (cli_signals_came()) {
        cli_progress_say(&console->progress, "stopping; Ctrl-C again leaves at once");
    } else {
        cli_progress_show(&console->progress, now);
    }
}

int cli_console_error(struct cli_console *console, const struct lorafold_error *err)
{
    int exit_status = LORAFOLD_FAILED;

    if (err->code == LORAFOLD_CANCELLED)
        exit_status = cli_signals_exit_status();
    else if (err->code > LORAFOLD_OK && err->code < LORAFOLD_CANCELLED)
        exit_status = err->code;
    cli_progress_erase(&console->progress);
    if (console->json) {
        printf("{\"type\":\"error\",\"code\":%d,\"text\":", exit_status);
        cli_print_json(stdout, err->text);
        fputs("}\n", stdout);
        flush_output(console);
    }
    fputs("lorafold: ", stderr);
    cli_print_safe(stderr, err->text);
    fputc('\n', stderr);
    return exit_status;
}

int cli_console_finish(struct cli_console *console, int exit_status)
{
    cli_progress_erase(&console->progress);
    flush_output(console);
    if (!console->output_errno)
        return exit_status;
    fprintf(stderr, "lorafold: cannot write to standard output: %s%s%s\n",
            strerror(console->output_errno), console->aftermath ? "; " : "",
            console->aftermath ? console->aftermath : "");
    return exit_status ? exit_status : LORAFOLD_FAILED;
}
