#!/bin/sh
# The benchmark of repositories: backup and restore of the disk of run.sh beside borg and restic.  By
# hand, on a machine that does nothing else.
#
#   sh tests/bench/repo.sh [--build-dir DIR] [--no-build] [options, see --help]
#
# All figures go to repo-results.jsonl in the cache folder, the newest report to RESULTS-REPO.md
# here.  Needs root (the look-alike does), 5 GiB in $TMPDIR, 20 GiB of tmpfs in /dev/shm, borg and
# restic.  --quick takes a small disk: to try the bench itself.
BENCH_PROGRAM=repo_bench.py exec sh "$(dirname "$0")/run.sh" "$@"
