#!/bin/sh
# Install what is missing, build, and run all tests; then the same with the sanitizers.
#
#   sh tests/run.sh [options] [-- arguments for ctest]
#     --plain            only the ordinary build
#     --sanitize         only the build with address and undefined sanitizers
#     --no-install       do not look for missing packages
#     --build-dir DIR    DIR/plain and DIR/sanitize (default: build-tests in the checkout)
#     --label REGEX      only tests with this label (unit, integration, …)
#     --tests REGEX      only tests with this name
#     --jobs N           at once (default: the number of processors, and one test more: many wait)
#
# Tests with the label `esxi` need a real host and are left out, and those with the labels `vfat`
# and `loop` where the kernel has no vfat, or offers no loop device.  Ends with 0 only when every other test ran and passed: a skipped
# test is a failure.  Works as root, or as a user who may sudo; needs no input.
set -eu
export LC_ALL=C.UTF-8

here=$(cd "$(dirname "$0")/.." && pwd)
base=$here/build-tests
plain=yes sanitize=yes install=yes
label='' tests='' jobs=''

die() { echo "run.sh: $*" >&2; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
    --plain) sanitize=no ;;
    --sanitize) plain=no ;;
    --no-install) install=no ;;
    --build-dir | --label | --tests | --jobs)
        [ $# -ge 2 ] || die "$1 needs a value"
        case $1 in
        --build-dir) base=$2 ;;
        --label) label=$2 ;;
        --tests) tests=$2 ;;
        --jobs) jobs=$2 ;;
        esac
        shift ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    --) shift; break ;;
    *) die "$1: no such option; see --help" ;;
    esac
    shift
done
[ $plain = yes ] || [ $sanitize = yes ] || die "--plain and --sanitize: give one of them, or none"

# Packages of tests/packages that are not there yet.
install_missing() {
    command -v dpkg-query >/dev/null 2>&1 || return 0
    missing=
    while read -r package; do
        case $package in '' | '#'*) continue ;; esac
        state=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
        [ "$state" = "install ok installed" ] || missing="$missing $package"
    done <"$here/tests/packages"
    [ -n "$missing" ] || return 0
    echo "== installing:$missing"
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || die "these packages are missing, and there is no sudo:$missing"
        sudo=sudo
    fi
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -q </dev/null
    # shellcheck disable=SC2086 # one word for each package
    $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends $missing </dev/null
}

# configure DIR [cmake arguments]: configure and build.
build() {
    dir=$1
    shift
    echo "== building in $dir"
    cmake -S "$here" -B "$dir" -DBUILD_TESTING=ON -DWARNINGS_ARE_ERRORS=ON "$@" </dev/null
    cmake --build "$dir" --parallel "$jobs" </dev/null
}

left_out=esxi lacking=
if ! { modprobe vfat || grep -qw vfat /proc/filesystems; } >/dev/null 2>&1; then
    left_out="$left_out|vfat" lacking="$lacking vfat"
fi
if ! losetup -f >/dev/null 2>&1; then
    left_out="$left_out|loop" lacking="$lacking loop"
fi

# run_tests NAME DIR [ctest arguments]: all tests; 0 only when all ran and passed.
run_tests() {
    name=$1 dir=$2
    shift 2
    echo "== testing: $name"
    log=$dir/tests.log
    # A pipe would hide ctest's own verdict, so that goes by a file.
    {
        code=0
        ctest --test-dir "$dir" -LE "^($left_out)\$" ${label:+-L "$label"} ${tests:+-R "$tests"} \
            --output-on-failure --no-tests=error --parallel "$test_jobs" "$@" </dev/null 2>&1 || code=$?
        echo "$code" >"$dir/tests.code"
    } | tee "$log"
    code=$(cat "$dir/tests.code")
    if grep -qE '\*\*\*(Skipped|Not Run)|\(Skipped\)|\(Not Run\)|\(Disabled\)' "$log" ||
        grep -qE 'OK \(.*skipped=|\.\.\. skipped|\[  SKIPPED \]' "$dir/Testing/Temporary/LastTest.log"; then
        echo "run.sh: tests were skipped, which counts as a failure ($name)" >&2
        code=1
    fi
    summary="$summary
$name: $(grep -E 'tests passed' "$log" || echo 'no result')"
    [ "$code" -eq 0 ] || failed="$failed $name"
}

[ $install = no ] || install_missing
test_jobs=${jobs:-$(($(nproc) + 1))}
[ -n "$jobs" ] || jobs=$(nproc)
summary='' failed=''
if [ $plain = yes ]; then
    build "$base/plain"
    run_tests plain "$base/plain" "$@"
fi
if [ $sanitize = yes ]; then
    build "$base/sanitize" -DSANITIZE=address,undefined
    export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:detect_stack_use_after_return=1}"
    # libssh2 1.10 itself loses a few bytes with each signature and key exchange.
    export LSAN_OPTIONS="${LSAN_OPTIONS:-suppressions=$here/tests/integration/ssh/lsan.supp}"
    export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}"
    # The look-alike's own tests run nothing that is built with sanitizers.
    run_tests sanitize "$base/sanitize" -E '^lookalike' "$@"
fi
echo "== summary$summary"
[ -z "$lacking" ] || echo "left out, this kernel does not offer it: tests with the labels$lacking"
if [ -n "$failed" ]; then
    echo "run.sh: failed:$failed" >&2
    exit 1
fi
