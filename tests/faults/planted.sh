#!/bin/sh
# Plant each bug of planted/ in a copy of the tree, one at a time: the tests that it names must turn
# red, and without it they must be green.
#
#   sh tests/faults/planted.sh [--jobs N] [--keep] [NAME...]      NAME: as 03 or 03-published
#
# A patch begins with `Bug:` (what it is), `Red:` (tests of CTest that must notice) and `Targets:`
# (what to build for them).  One that no longer applies, or does not build, is a failure.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
jobs=2 keep=no names=
while [ $# -gt 0 ]; do
    case $1 in
    --jobs) jobs=$2; shift ;;
    --keep) keep=yes ;;
    -*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 2 ;;
    *) names="$names $1" ;;
    esac
    shift
done

work=$(mktemp -d "${TMPDIR:-/tmp}/vmferry-planted-XXXXXX")
[ $keep = yes ] || trap 'rm -rf "$work"' EXIT
tree=$work/tree build=$work/build
mkdir "$tree"
(cd "$here" && git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf -) |
    tar -C "$tree" -xf -

field() { sed -n "s/^$1: //p" "$2"; }

# Test NAME...: 0 when all pass, 1 when one fails, 2 when there is no such test.
run_tests() {
    for wanted in "$@"; do
        ctest --test-dir "$build" -R "^$wanted\$" --no-tests=error >"$work/test.log" 2>&1 && continue
        grep -q 'No tests were found' "$work/test.log" && return 2
        return 1
    done
}

make_targets() { cmake --build "$build" --parallel "$jobs" --target "$@" >"$work/build.log" 2>&1; }

chosen=
for patch in "$tree"/tests/faults/planted/*.patch; do
    number=$(basename "$patch" .patch)
    [ -n "$names" ] || chosen="$chosen $patch"
    for name in $names; do
        case $number in "$name"*) chosen="$chosen $patch" ;; esac
    done
done
[ -n "$chosen" ] || { echo "planted.sh: no patch of that name" >&2; exit 2; }

# Without a bug everything is green.
targets=$(for patch in $chosen; do field Targets "$patch"; done | tr ' ' '\n' | sort -u)
tests=$(for patch in $chosen; do field Red "$patch"; done | tr ' ' '\n' | sort -u)
agent=OFF
case $targets in *static_agent*) agent=ON ;; esac
cmake -S "$tree" -B "$build" -DWITH_STATIC_AGENT=$agent >"$work/cmake.log" 2>&1 ||
    { cat "$work/cmake.log"; exit 1; }
# shellcheck disable=SC2086 # words
make_targets $targets || { tail -40 "$work/build.log"; exit 1; }
for test in $tests; do
    run_tests "$test" || { cat "$work/test.log"; echo "planted.sh: $test is red without a bug"; exit 1; }
done
echo "without a bug: all green"

failed=0 count=0
for patch in $chosen; do
    name=$(basename "$patch" .patch)
    count=$((count + 1))
    if ! git -C "$tree" apply --check "$patch" 2>"$work/apply.log"; then
        echo "FAIL $name: no longer applies"; cat "$work/apply.log"; failed=$((failed + 1)); continue
    fi
    git -C "$tree" apply "$patch"
    # shellcheck disable=SC2046
    if ! make_targets $(field Targets "$patch"); then
        echo "FAIL $name: does not build"; tail -20 "$work/build.log"; failed=$((failed + 1))
    else
        for test in $(field Red "$patch"); do
            code=0
            run_tests "$test" || code=$?
            case $code in
            1) echo "ok   $name: $test is red" ;;
            *) echo "FAIL $name: $test does not notice: $(field Bug "$patch")"
               failed=$((failed + 1)) ;;
            esac
        done
    fi
    git -C "$tree" apply -R "$patch"
done
echo "$count bugs planted, $failed not noticed"
[ $failed -eq 0 ]
