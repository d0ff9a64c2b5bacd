#include "cli_progress.h"

#include "cli_text.h"
#include "lorafold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DRAW_SECONDS 0.1
#define SMOOTH_SECONDS 2.0
#define COLUMNS_DEFAULT 80
#define LINE_BYTES 256
#define ETA_SECONDS_MAX (100 * 3600.0)

/* Carriage return, erase to the end of the line. */
#define ERASE "\r\033[K"

void cli_progress_init(struct cli_progress *progress, bool wanted)
{
    const char *terminal = getenv("TERM");

    *progress = (struct cli_progress){ 0 };
    progress->enabled = wanted && isatty(STDERR_FILENO) && terminal && *terminal &&
                        strcmp(terminal, "dumb") != 0;
}

/* Asked at every drawing, because the window may change. */
static unsigned terminal_columns(void)
{
    struct winsize size;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return COLUMNS_DEFAULT;
}

double cli_progress_rate(struct cli_progress *progress, const struct lorafold_progress *now)
{
    double passed = now->seconds - progress->rate_seconds;
    double bytes;

    if (progress->preparing && now->limit != LORAFOLD_LIMIT_PREPARE) { /* other bytes count now */
        *progress = (struct cli_progress){ .enabled = progress->enabled,
                                           .visible = progress->visible,
                                           .rate_seconds = now->seconds,
                                           .rate_bytes = now->bytes_done };
        return 0;
    }
    if (passed < 0) { /* another work began: a merge after its base was fetched */
        *progress = (struct cli_progress){ .enabled = progress->enabled,
                                           .visible = progress->visible };
        passed = now->seconds;
    }
    progress->preparing = now->limit == LORAFOLD_LIMIT_PREPARE;
    if (now->bytes_done < progress->rate_bytes || !(passed > 0))
        return progress->rate;
    bytes = (double)(now->bytes_done - progress->rate_bytes);
    if (!progress->started)
        progress->rate = bytes / passed;
    else
        progress->rate += (bytes / passed - progress->rate) * passed / (passed + SMOOTH_SECONDS);
    progress->started = true;
    progress->rate_seconds = now->seconds;
    progress->rate_bytes = now->bytes_done;
    return progress->rate;
}

static void format_eta(char *buf, size_t buf_bytes, uint64_t bytes_left, double rate)
{
    double seconds = rate > 0 ? (double)bytes_left / rate + 0.5 : ETA_SECONDS_MAX;
    unsigned whole;

    if (!(seconds < ETA_SECONDS_MAX)) {
        snprintf(buf, buf_bytes, "ETA --:--");
        return;
    }
    whole = (unsigned)seconds;
    if (whole >= 3600)
        snprintf(buf, buf_bytes, "ETA %u:%02u:%02u", whole / 3600, whole / 60 % 60, whole % 60);
    else
        snprintf(buf, buf_bytes, "ETA %u:%02u", whole / 60, whole % 60);
}

static const char *limit_name(enum lorafold_limit limit)
{
    switch (limit) {
    case LORAFOLD_LIMIT_READ:
        return "limited by reading";
    case LORAFOLD_LIMIT_COMPUTE:
        return "limited by computing";
    case LORAFOLD_LIMIT_WRITE:
        return "limited by writing";
    case LORAFOLD_LIMIT_DOWNLOAD:
        return "fetching";
    case LORAFOLD_LIMIT_UPLOAD:
        return "uploading";
    case LORAFOLD_LIMIT_PREPARE:
        return "preparing";
    }
    return "";
}

static void format_file(char *buf, size_t buf_bytes, const char *file)
{
    snprintf(buf, buf_bytes, "%s", file ? file : "");
    for (char *p = buf; *p; p++)
        if (*p < 0x20 || *p > 0x7e)
            *p = '?';
}

void cli_progress_format(char *buf, size_t buf_bytes, const struct lorafold_progress *now,
                         double rate, unsigned columns)
{
    enum { PERCENT, OUTPUTS, BYTES, RATE, LIMIT, ETA, FILE_NAME, PART_COUNT };
    /* What goes first when the line is too long. */
    static const int expendable[] = { FILE_NAME, LIMIT, BYTES, ETA, RATE, OUTPUTS, PERCENT };
    uint64_t total = now->bytes_total;
    uint64_t done = now->bytes_done < total ? now->bytes_done : total;
    char part[PART_COUNT][64];
    char first[24];
    char second[24];
    size_t room = columns && columns < buf_bytes ? columns - 1 : columns ? buf_bytes - 1 : 0;
    size_t length = 0;

    snprintf(part[PERCENT], sizeof(part[PERCENT]), "%3u%%",
             total ? (unsigned)((double)done * 100 / (double)total) : 100);
    part[OUTPUTS][0] = '\0';
    if (now->outputs_total)
        snprintf(part[OUTPUTS], sizeof(part[OUTPUTS]), "%zu of %zu outputs", now->outputs_done,
                 now->outputs_total);
    snprintf(part[BYTES], sizeof(part[BYTES]), "%s of %s",
             cli_format_bytes(first, sizeof(first), (double)done),
             cli_format_bytes(second, sizeof(second), (double)total));
    snprintf(part[RATE], sizeof(part[RATE]), "%.2f GB/s", rate / 1e9);
    snprintf(part[LIMIT], sizeof(part[LIMIT]), "%s", limit_name(now->limit));
    format_eta(part[ETA], sizeof(part[ETA]), total - done, rate);
    format_file(part[FILE_NAME], sizeof(part[FILE_NAME]), now->file);

    for (int i = 0; i < PART_COUNT; i++)
        length += part[i][0] ? strlen(part[i]) + (i ? 2 : 0) : 0;
    for (int i = 0; i < PART_COUNT && length > room; i++) {
        char *dropped = part[expendable[i]];

        length -= dropped[0] ? strlen(dropped) + (expendable[i] ? 2 : 0) : 0;
        dropped[0] = '\0';
    }
    buf[0] = '\0';
    length = 0;
    for (int i = 0; i < PART_COUNT; i++)
        if (part[i][0])
            length += (size_t)snprintf(buf + length, buf_bytes - length, "%s%s", i ? "  " : "",
                                       part[i]);
}

static void draw(struct cli_progress *progress, const char *line)
{
    fprintf(stderr, ERASE "%s", line);
    fflush(stderr); /* at once and whole, so that the terminal never shows half a line */
    progress->visible = true;
}

void cli_progress_show(struct cli_progress *progress, const struct lorafold_progress *now)
{
    bool complete = now->bytes_done >= now->bytes_total;
    double passed = now->seconds - progress->drawn_seconds;
    char line[LINE_BYTES];

    if (!progress->enabled)
        return;
    if (progress->visible && !complete && passed >= 0 && passed < DRAW_SECONDS)
        return;
    cli_progress_format(line, sizeof(line), now, cli_progress_rate(progress, now),
                        terminal_columns());
    draw(progress, line);
    progress->drawn_seconds = now->seconds;
}

void cli_progress_say(struct cli_progress *progress, const char *sentence)
{
    unsigned columns = terminal_columns();
    char line[LINE_BYTES];

    if (!progress->enabled)
        return;
    snprintf(line, columns < sizeof(line) ? columns : sizeof(line), "%s", sentence);
    draw(progress, line);
}

void cli_progress_erase(struct cli_progress *progress)
{
    if (!progress->visible)
        return;
    fputs(ERASE, stderr);
    fflush(stderr);
    progress->visible = false;
}
