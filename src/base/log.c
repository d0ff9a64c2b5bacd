#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void log_say(const struct log *log, enum log_level level, const char *format, ...)
{
    char sentence[2048];
    va_list args;

    if (!log || !log->write)
        return;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    log->write(log->context, level, sentence);
}
