#!/bin/sh
# pack.sh - everything that a machine with a GPU needs to try a build, in one directory
#
# usage: pack.sh BUILD DIR
#   BUILD  made with -DLORAFOLD_CUDA=ON -DLORAFOLD_STATIC_DEPS=AVAILABLE; -DLORAFOLD_CUDA_GENERATIONS=90, say,
#          keeps it small and quick to build
#   DIR    is made: programs, the libraries that could not be linked statically, scripts
#
# There: DIR/all.sh OUT
set -eu
build=$(cd "${1?usage: pack.sh BUILD DIR}" && pwd)
directory=${2?usage: pack.sh BUILD DIR}
here=$(cd "$(dirname "$0")" && pwd)

mkdir -p "$directory/build/tests" "$directory/build/tools" "$directory/build/lib" "$directory/tools"
cp "$build/lorafold" "$directory/build/"
cp "$build/tools/make_model" "$build/tools/bench_copy" "$directory/build/tools/"
for test in gpu_fold gpu_fold_norm gpu_quant gpu_encode gpu_tasks random_edits; do
    cp "$build/tests/test_$test" "$directory/build/tests/"
done
cp "$here/../../tools/bench" "$directory/tools/"
cp "$here/run.sh" "$here/all.sh" "$directory/"
for program in "$directory"/build/lorafold "$directory"/build/t*/*; do
    strip "$program"
    ldd "$program" | awk '$3 ~ /^\// && $1 !~ /^(libc|libm|libdl|librt|libpthread)[.]so/ { print $3 }'
done | sort -u | xargs -r cp -L -t "$directory/build/lib"
du -sh "$directory"
