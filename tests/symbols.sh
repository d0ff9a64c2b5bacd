#!/bin/sh
# Every symbol that the shared library shows begins with lorafold_, and all of lorafold.h is there.
# usage: symbols.sh LIBRARY HEADER
set -eu
shown=$(nm -D --defined-only "$1" | awk '{ print $3 }' | sed 's/@.*//' | sort)
wrong=$(printf '%s\n' "$shown" | grep -v '^lorafold_' | grep -vE '^(_init|_fini)$' || true)
if [ -n "$wrong" ]; then
    printf 'shown, but not public:\n%s\n' "$wrong"
    exit 1
fi
declared=$(grep -oE '\blorafold_[a-z_]+\(' "$2" | tr -d '(' | grep -v '_fn$' | sort -u)
for name in $declared; do
    printf '%s\n' "$shown" | grep -qx "$name" || { echo "declared, but not shown: $name"; exit 1; }
done
echo "$(printf '%s\n' "$shown" | wc -l) public symbols"
