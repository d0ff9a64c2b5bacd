#!/usr/bin/env bash
# Run the cases of the program: see README.md.
# usage: run.sh [--update] PROGRAM [FOLDER | CASE.sh ...]
set -u

here=$(cd "$(dirname "$0")" && pwd)
update=0
if [ "${1-}" = --update ]; then
    update=1
    shift
fi
if [ $# -lt 1 ] || [ ! -x "$1" ]; then
    echo "usage: run.sh [--update] PROGRAM [FOLDER | CASE.sh ...]" >&2
    exit 2
fi
LORAFOLD=$(realpath "$1")
CLI_TESTS=$here
export LORAFOLD CLI_TESTS
export LC_ALL=C TERM=xterm
export HF_HUB_OFFLINE=1 # a name that is no path is not asked for on the Hub
shift
[ $# -gt 0 ] || set -- "$here/cases"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 skipped=0

complain() {
    printf 'FAILED %s: %s\n' "$name" "$1"
    case_failed=1
}

# check_exact EXPECTED ACTUAL: an expected file that is absent means empty.
check_exact() {
    local expected=/dev/null

    [ -e "$1" ] && expected=$1
    diff -u "$expected" "$2" || complain "$(basename "$1") differs"
}

# check_glob PATTERNS ACTUAL: the whole text is one pattern, in which only * and ? are special.
check_glob() {
    local pattern

    pattern=$(sed -e 's/[][\\]/\\&/g' "$1")
    # shellcheck disable=SC2053
    if [[ $(tr -d '\0' <"$2") != $pattern ]]; then
        complain "$(basename "$1") does not match; the text is:"
        cat "$2"
    fi
}

check_stream() {
    if [ -e "$1.glob" ]; then
        check_glob "$1.glob" "$2"
    else
        check_exact "$1" "$2"
    fi
}

update_expectations() {
    rm -f "$base.exit" "$base.stdout" "$base.stderr.glob"
    [ "$status" -eq 0 ] || echo "$status" >"$base.exit"
    [ -e "$base.stdout.glob" ] || [ ! -s "$work.stdout" ] || cp "$work.stdout" "$base.stdout"
    [ ! -s "$work.stderr" ] || cp "$work.stderr" "$base.stderr.glob"
}

run_case() {
    base=${1%.sh}
    name=$(basename "$base")
    work=$scratch/$name
    case_failed=0
    mkdir "$work"
    (cd "$work" && exec timeout 60 bash "$1") >"$work.stdout" 2>"$work.stderr" </dev/null
    status=$?
    if [ "$status" -eq 77 ]; then
        printf 'skipped %s: %s\n' "$name" "$(head -n 1 "$work.stdout")"
        skipped=$((skipped + 1))
    elif [ "$update" -eq 1 ]; then
        update_expectations
    else
        wanted=$(cat "$base.exit" 2>/dev/null || echo 0)
        [ "$status" -eq "$wanted" ] || complain "exit status $status, not $wanted"
        check_stream "$base.stdout" "$work.stdout"
        check_stream "$base.stderr" "$work.stderr"
        if [ "$case_failed" -eq 1 ]; then
            failed=$((failed + 1))
        else
            passed=$((passed + 1))
        fi
    fi
    rm -rf "$work" "$work.stdout" "$work.stderr"
}

for place in "$@"; do
    place=$(realpath "$place")
    if [ -d "$place" ]; then
        for case_file in "$place"/*.sh; do
            [ -e "$case_file" ] && run_case "$case_file"
        done
    else
        run_case "$place"
    fi
done
echo "cli: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] || exit 1
[ "$passed" -gt 0 ] || [ "$update" -eq 1 ] || exit 77
