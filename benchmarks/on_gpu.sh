#!/bin/sh
# All that waits for a GPU, one after the other, each with a log in .scratch/on_gpu: what a group of answers costs at 7B,
# the paper's configuration from end to end, and the study's main table with networks that fill the GPU. Given again, it
# goes on where it stopped. `make gpu`; with --tiny the first two in their smallest forms on a CPU.
set -eu
cd "$(dirname "$0")/.."
out=.scratch/on_gpu
mkdir -p "$out"
tiny=${1:-}
device=cuda
[ "$tiny" != --tiny ] || device=cpu

step() {
    name=$1
    shift
    echo "== $name: $*" >&2
    "$@" >"$out/$name.txt" 2>"$out/$name.log" || {
        status=$?
        tail -n 5 "$out/$name.log" >&2
        exit "$status"
    }
    cat "$out/$name.txt"
}

step group_cost python -m benchmarks.group_cost --device "$device" $tiny
step rehearsal python -m benchmarks.gpu_rehearsal --folder "$out/rehearsal" $tiny
[ "$tiny" = --tiny ] || step main_table python -m benchmarks.study main --wide
