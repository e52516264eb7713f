#!/bin/sh
# The benchmark: builds vmferry and its helpers, makes a realistic disk, and measures mirrors of it
# beside other tools and the machine's limits.  By hand, on a machine that does nothing else.
#
#   sh tests/bench/run.sh [--build-dir DIR] [--no-build] [options, see --help]
#
# All figures go to results.jsonl in the cache folder, the newest report to RESULTS.md here.  Needs
# root (the look-alike does), 5 GiB in $TMPDIR, 12 GiB of tmpfs in /dev/shm, and for comparison
# rsync nbdkit libnbd-bin qemu-utils zstd: what is not installed is left out and named.
# repo.sh is the same for repositories.
set -eu
export LC_ALL=C.UTF-8

top=$(cd "$(dirname "$0")/../.." && pwd)
build=$top/build make=yes
while [ $# -gt 0 ]; do
    case $1 in
    --build-dir) build=$2; shift 2 ;;
    --no-build) make=no; shift ;;
    *) break ;;
    esac
done
if [ $make = yes ]; then
    cmake -S "$top" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=ON >/dev/null
    cmake --build "$build" --parallel "$(nproc)" --target vmferry static_agent bench_limits \
        repo_grow lookalike-shim lookalike-init lookalike-login lookalike-pam >/dev/null
fi
exec python3 -B "$top/tests/bench/${BENCH_PROGRAM:-bench.py}" --programs "$build/bin" "$@"
