#!/bin/sh
# all.sh - all that is to be shown on a GPU, in less than half an hour; needs no network and no compiler
#
# usage: all.sh OUT [PRESET]
#   OUT      where results go: one file for each step, and summary.txt, which says how each ended
#   PRESET   the model of the merges, as make_model has it: 1b (default), 8b
#
# Lies in a directory that pack.sh made.  A step that fails stops nothing.  Temporary files take five times the
# size of the model in TMPDIR, or /tmp.  Ends with 0 if every step did.
set -u
here=$(cd "$(dirname "$0")" && pwd)
out=${1?usage: all.sh OUT [PRESET]}
preset=${2-1b}
mkdir -p "$out" && out=$(cd "$out" && pwd)
export LD_LIBRARY_PATH="$here/build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# On the processors and on the GPU: the same files but for the manifest, which names the device.
compare() {
    adapter=$1
    shift
    for device in cpu cuda; do
        "$here/build/lorafold" merge "$work/base" -a "$work/$adapter" -o "$work/$device" --device $device \
            --trace "$out/trace_${adapter}_$device$#.json" --json -q "$@" || return 1
    done
    diff -r -x 'lorafold*' "$work/cpu" "$work/cuda" || return 1
    echo "$adapter $*: the same bytes"
    rm -rf "$work/cpu" "$work/cuda"
}

# A step that is a function is run by this script again, so that it can be given a time limit.
case ${3-} in
merges)
    model="$here/build/tools/make_model $work/base --preset $preset"
    $model --adapter "$work/r16" --rank 16 && $model --adapter "$work/r64" --rank 64 --adapter-only &&
        compare r16 && compare r64 && compare r16 --save-method merged_4bit
    exit
    ;;
memcheck | racecheck | initcheck)
    "$here/run.sh" "$here/build/tests" quick -- compute-sanitizer --tool "$3" --error-exitcode 9
    exit
    ;;
esac

failures=0
: >"$out/summary.txt"

# step NAME SECONDS COMMAND ...: what it prints goes to OUT/NAME.txt
step() {
    name=$1 limit=$2
    shift 2
    began=$(date +%s)
    timeout "$limit" "$@" >"$out/$name.txt" 2>&1
    status=$?
    ended="done"
    if [ $status != 0 ]; then
        failures=$((failures + 1))
        ended="failed with status $status"
    fi
    echo "$name: $ended after $(($(date +%s) - began)) s" | tee -a "$out/summary.txt"
}

step gpu 20 nvidia-smi
step kernels 400 "$here/run.sh" "$here/build/tests"
step bench 120 "$here/build/lorafold" bench "$work" --json
step merges 300 "$here/all.sh" "$out" "$preset" merges
step rates 400 "$here/tools/bench" --copy --no-cp --build "$here/build" --dir "$work" --size "$preset" \
    --pairs 3 --rank 16,32,64 --device cuda
for tool in memcheck racecheck initcheck; do
    step $tool 400 "$here/all.sh" "$out" "$preset" $tool
done
[ $failures = 0 ]
