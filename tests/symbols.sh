#!/bin/sh
# The shared library shows exactly the LORAFOLD_API names of lorafold.h, each of which has its comment,
# and our own objects need nothing that prints, ends the process, changes it for others or is unsafe
# with threads.
# usage: symbols.sh LIBRARY HEADER OBJECT...
set -eu
library=$1
header=$2
shift 2
export LC_ALL=C
failed=0

# complain SENTENCE NAMES: if there are names
complain()
{
    [ -n "$2" ] || return 0
    failed=1
    printf '%s:\n%s\n' "$1" "$2"
}

# only_first FIRST SECOND: lists of names, one a line
only_first()
{
    printf '%s\n' "$1" | while read -r name; do
        printf '%s\n' "$2" | grep -qxF -e "$name" || printf '%s\n' "$name"
    done
}

shown=$(nm -D --defined-only "$library" | awk '{ print $3 }' | sed 's/@.*//' | grep -vxE '_init|_fini' | sort)
declared=$(sed -nE '/^LORAFOLD_API/s/^[^(]*(lorafold_[a-z_]+)\(.*/\1/p' "$header" | sort)
complain "shown, but not public" "$(only_first "$shown" "$declared")"
complain "public, but not shown" "$(only_first "$declared" "$shown")"
complain "LORAFOLD_API of something that is no function" "$(grep LORAFOLD_API "$header" |
    grep -vE '^(#define LORAFOLD_API |LORAFOLD_API [^(]*lorafold_[a-z_]+\()' || true)"

# A comment ends on the line before the declaration, or stands behind it.
complain "public, but without a comment" "$(awk '
    /^LORAFOLD_API/ && previous !~ /\*\/$/ { pending = $0 }
    pending != "" && /;/ { if ($0 !~ /\/\*/) print pending; pending = "" }
    { previous = $0 }' "$header")"

# Assertions about ourselves stand, where the build has them.
banned='stdout|stderr|v?printf|__v?printf_chk|puts|putchar|perror
exit|_exit|_Exit|quick_exit|abort|raise|pthread_kill|pthread_exit
setlocale|signal|sigaction|setenv|unsetenv|putenv|clearenv|chdir|fchdir|umask|alarm|srand|setrlimit|fork|vfork
strerror|getpwuid|getpwnam|getgrgid|localtime|gmtime|ctime|asctime|strtok|rand|gethostbyname
system|popen|gets|strcpy|strcat|v?sprintf|__strcpy_chk|__strcat_chk|__v?sprintf_chk'
complain "used, but a library must not" "$(nm --undefined-only "$@" | awk '{ print $NF }' | sort -u |
    grep -xE "$(printf '%s' "$banned" | tr '\n' '|')" || true)"

known='lib(uring|xxhash|cjson|pcre2-8|z|m|c|pthread|dl|rt|asan|ubsan|tsan|gcc_s)\.so\.[0-9]+|ld-linux.*'
complain "loaded with it, but not one of its libraries" "$(readelf -d "$library" |
    sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' | grep -vxE "$known" || true)"

[ $failed = 0 ] || exit 1
echo "$(printf '%s\n' "$shown" | wc -l) public functions"
