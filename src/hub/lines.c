#include "hub/lines.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void lines_fill(struct lines *lines, int fd)
{
    ssize_t count;

    if (lines->taken) {
        lines->bytes -= lines->taken;
        memmove(lines->data, lines->data + lines->taken, lines->bytes);
        lines->taken = 0;
    }
    if (lines->bytes == sizeof(lines->data))
        return;
    count = read(fd, lines->data + lines->bytes, sizeof(lines->data) - lines->bytes);
    if (count > 0)
        lines->bytes += (size_t)count;
    else if (count == 0 || (errno != EAGAIN && errno != EINTR))
        lines->ended = true;
}

bool lines_take(struct lines *lines, const char **line, size_t *line_bytes)
{
    const char *begin = lines->data + lines->taken;
    size_t left = lines->bytes - lines->taken;
    const char *end = memchr(begin, '\n', left);

    if (!end)
        return false;
    *line = begin;
    *line_bytes = (size_t)(end - begin);
    lines->taken += *line_bytes + 1;
    return true;
}

bool lines_overlong(const struct lines *lines)
{
    return lines->taken == 0 && lines->bytes == sizeof(lines->data) &&
           !memchr(lines->data, '\n', lines->bytes);
}

void lines_drop(struct lines *lines)
{
    lines->bytes = 0;
    lines->taken = 0;
}
