#!/bin/sh
# run.sh - kernels and merges on the first NVIDIA GPU against the scalar tables, byte for byte
#
# usage: run.sh DIR [quick | -- PROGRAM ...]
#   DIR       where the test programs lie: build/tests, or a copy of it
#   quick     the least of each, for tools that make everything slow
#   PROGRAM   what each test program is started with: compute-sanitizer and its options
#
# Ends with status 77 and a sentence where there is no GPU.  Nothing is needed but the driver and, if the
# build had LORAFOLD_STATIC_DEPS=ON, the C library.
set -eu
directory=$(cd "${1?usage: run.sh DIR [quick] [-- PROGRAM ...]}" && pwd)
shift
seeds='1 2 3 4 5 6 7 8'
if [ "${1-}" = quick ]; then
    seeds=3
    shift
fi
[ "${1-}" != -- ] || shift
export LORAFOLD_TEST_DEVICE=cuda

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# The first one says whether there is a device at all.
"$directory/test_random_edits" 1 >probe 2>&1 || {
    status=$?
    tail -n 1 probe
    [ $status = 77 ] || exit 1
    exit 77
}
for test in fold fold_norm quant encode tasks; do
    echo "gpu: kernels: $test"
    "$@" "$directory/test_gpu_$test"
done
for seed in $seeds; do
    echo "gpu: merges: seed $seed"
    "$@" "$directory/test_random_edits" "$seed"
done
echo "gpu: everything gave the bytes of the scalar tables"
