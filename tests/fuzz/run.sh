#!/bin/sh
# Fuzz by hand: run the libFuzzer builds of the targets one after the other, SECONDS each, under the
# address and undefined sanitizers.
#
#   tests/fuzz/run.sh SECONDS [TARGET...]
#
# BUILD (default: build-fuzz in the checkout) is made if need be and keeps, for each target,
#   BUILD/found/TARGET/corpus    inputs that reached something new, for the next run to go on from
#   BUILD/found/TARGET/crash-*   findings (also timeout-*, oom-*); so is the log of a run: log
# Ends with 1 when there was a finding.  Copy it, made small (FUZZER -minimize_crash=1), to
# corpus/TARGET/ under a name that says what it was; then every test run replays it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
build=${BUILD:-$top/build-fuzz}

[ $# -ge 1 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 2; }
seconds=$1
shift
[ -f "$build/CMakeCache.txt" ] || cmake -C "$top/tests/presets/fuzz.cmake" -S "$top" -B "$build"
cmake --build "$build" --target fuzzers -j "${JOBS:-$(nproc)}" >"$build/build.log" 2>&1 || {
    tail -n 30 "$build/build.log" >&2
    exit 2
}
[ $# -gt 0 ] || set -- $(cd "$here/corpus" && echo *)

export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:quarantine_size_mb=16:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:${UBSAN_OPTIONS:-}"
failed=
for target in "$@"; do
    found=$build/found/$target
    mkdir -p "$found/corpus"
    dict=
    [ ! -f "$here/dict/$target" ] || dict=-dict=$here/dict/$target
    case $target in # programs: longer ones are only slower
    source_stream | sink_stream | patch) most=-max_len=320 ;;
    *) most= ;;
    esac
    # shellcheck disable=SC2086 # absent options
    if "$build/bin/fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=768 \
        -malloc_limit_mb=64 -print_final_stats=1 -artifact_prefix="$found/" $dict $most \
        "$found/corpus" "$here/corpus/$target" >"$found/log" 2>&1; then
        result=clean
    else
        result=FINDING
        failed="$failed $target"
    fi
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$found/log")
    cover=$(grep -o 'cov: [0-9]*' "$found/log" | tail -n 1)
    echo "$target: $result, $seconds s, ${executed:-?} executions, ${cover:-cov: ?}"
done
[ -z "$failed" ] || { echo "findings in:$failed (see $build/found)" >&2; exit 1; }
