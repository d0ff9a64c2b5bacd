#!/bin/sh
# Build the kernel tests for aarch64 and run them under qemu-user.
#
# usage: run_neon.sh [SEEDS]
#
# Exit status 77: a tool is missing here, so nothing was tested.
#
# SPDX-License-Identifier: Apache-2.0

set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
seeds=${1:-60}
compiler=aarch64-linux-gnu-gcc

emulator=
for name in qemu-aarch64 qemu-aarch64-static; do
    if command -v "$name" >/dev/null; then
        emulator=$name
    fi
done
if ! command -v "$compiler" >/dev/null; then
    echo "skipped: no $compiler (Debian: gcc-aarch64-linux-gnu)"
    exit 77
fi
if [ -z "$emulator" ]; then
    echo "skipped: no qemu-aarch64 (Debian: qemu-user)"
    exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

for test in test_fold test_fold_facts test_fold_norm test_quant test_quant_golden test_encode \
            test_encode_facts test_encode_golden; do
    # The flags of CMakeLists.txt; static, so that the emulator needs no libraries.
    "$compiler" -std=c17 -D_GNU_SOURCE -O2 -ffp-contract=off -static \
        -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror \
        -I"$root/src" -I"$root/tests" -DSOURCE_DIR="\"$root\"" \
        -o "$work/$test" "$root/tests/kernel/$test.c" "$root"/src/compute/*.c \
        "$root"/src/base/dtype.c "$root"/src/base/error.c "$root"/src/base/text.c \
        "$root"/src/cpu/cpu.c "$root"/src/cpu/quota.c "$root"/src/cpu/*_neon.c -lm
done
"$emulator" "$work/test_fold" 1 "$seeds"
"$emulator" "$work/test_fold_facts"
"$emulator" "$work/test_fold_norm"
"$emulator" "$work/test_quant" 1 "$((seeds / 6))" # a seed of these has many cases
"$emulator" "$work/test_quant_golden"
"$emulator" "$work/test_encode" 1 "$((seeds / 6))"
"$emulator" "$work/test_encode_facts"
"$emulator" "$work/test_encode_golden"
