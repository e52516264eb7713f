#!/bin/sh
# nonces.sh COMMAND...: run it with a nonce log of its own, which it reads itself.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
VMFERRY_NONCE_LOG=$folder/nonces "$@"
