#!/bin/sh
# no_failpoints.sh RELEASE TEST: the program that is installed has no failpoint, nor a point's name;
# that the same search finds them in the test program shows that it searches for the right thing.
set -eu

words='VMFERRY_FAILPOINT VMFERRY_NONCE_LOG mirror.committed mirror.redo-durable journal.snapshot
place.uploaded listener.proved transfer.dial snapshot.removed'
for word in $words; do
    if strings -a "$1" | grep -qF "$word"; then
        echo "$1 knows $word" >&2
        exit 1
    fi
    strings -a "$2" | grep -qF "$word" || { echo "$2 does not know $word" >&2; exit 1; }
done
