#!/bin/sh
# The benchmark of repositories: builds vmferry and its helpers, makes the same disk as run.sh, and
# measures backup and restore beside borg and restic.  By hand, on a machine that does nothing else.
#
#   sh tests/bench/repo.sh [--build-dir DIR] [--no-build] [options, see --help]
#
# All figures go to repo-results.jsonl in the cache folder, the newest report to RESULTS-REPO.md
# here.  Needs root (the look-alike does), 5 GiB in $TMPDIR, 20 GiB of tmpfs in /dev/shm, borg and
# restic.  --quick takes a small disk: to try the bench itself.
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
exec python3 -B "$top/tests/bench/repo_bench.py" --programs "$build/bin" "$@"
