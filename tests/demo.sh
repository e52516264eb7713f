#!/bin/sh
# vmferry shown at work: a VM is mirrored while its guest writes, refreshed after the guest has
# changed, and its earlier state is restored; every image is compared with the truth.
#
#   sh tests/demo.sh [options]
#     --profile VERSION  the host's version: 6.7 (default) or 8.0
#     --build-dir DIR    where to build (default: build in the checkout)
#     --no-install       do not look for missing packages
#     --keep             leave everything in place at the end, and say where
#
# There is no ESXi here: the host is the look-alike of tests/lookalike, on 127.0.0.1 only.  Needs a
# Debian 12 with root or sudo, and 8 GiB in $TMPDIR (default: /var/tmp).  Nothing stays behind but
# the packages and the build folder.  Ends with 0 only when every comparison was equal.
set -eu
export LC_ALL=C.UTF-8
umask 022

top=$(cd "$(dirname "$0")/.." && pwd)
helper=$top/tests/demo/guest.py
profile=6.7 build=$top/build install=yes keep=no make=yes

die() { echo "demo.sh: $*" >&2; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
    --profile | --build-dir)
        [ $# -ge 2 ] || die "$1 needs a value"
        case $1 in
        --profile) profile=$2 ;;
        --build-dir) build=$2 ;;
        esac
        shift ;;
    --no-install) install=no ;;
    --built) make=no ;;                 # from ourselves, see as_root
    --keep) keep=yes ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) die "$1: no such option; see --help" ;;
    esac
    shift
done
case $profile in 6.7 | 8.0) ;; *) die "--profile is 6.7 or 8.0" ;; esac

# What is said

bold='' plain=''
[ ! -t 1 ] || { bold=$(printf '\033[1m') plain=$(printf '\033[0m'); }
differences=0
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
good() { printf '  ok   %s\n' "$*"; }
bad() { printf '  BAD  %s\n' "$*"; differences=$((differences + 1)); }
now() { date +%s; }

# human BYTES
human() {
    awk -v b="$1" 'BEGIN { if (b >= 1073741824) printf "%.1f GiB", b / 1073741824
                           else printf "%.0f MiB", b / 1048576 }'
}

# room FILE...: bytes that files or folders take on the disk
room() { du -sk "$@" | awk '{ n += $1 } END { printf "%.0f", n * 1024 }'; }

# Preparing

missing_packages() {
    while read -r package; do
        case $package in '' | '#'*) continue ;; esac
        state=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
        [ "$state" = "install ok installed" ] || printf ' %s' "$package"
    done <"$top/tests/packages"
}

install_missing() {
    command -v dpkg-query >/dev/null 2>&1 || die "this is no Debian: see --no-install"
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    say "Installing packages"
    echo "$missing" | fmt_words
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || die "these packages are missing, and there is no sudo"
        sudo=sudo
    fi
    log=$(mktemp)
    # shellcheck disable=SC2086 # one word for each package
    if ! { $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
        $sudo env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends $missing; } \
        </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "the packages could not be installed"
    fi
    rm -f "$log"
}

# fmt_words: words from stdin as lines that fit
fmt_words() {
    awk '{ for (i = 1; i <= NF; i++) {
               if (length(line) + length($i) > 78) { print line; line = "" }
               line = line (line == "" ? "" : " ") $i } }
         END { if (line != "") print line }'
}

build_all() {
    began=$(now)
    say "Building vmferry, its agent, and the look-alike of a host"
    log=$(mktemp)
    if ! { cmake -S "$top" -B "$build" -DBUILD_TESTING=ON &&
        cmake --build "$build" --parallel "$(nproc)" --target vmferry static_agent \
            lookalike-shim lookalike-init lookalike-login lookalike-pam; } \
        </dev/null >"$log" 2>&1; then
        grep -nE 'error|Error' "$log" | head -n 20 >&2
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "the build failed"
    fi
    rm -f "$log"
    size=$(stat -c %s "$build/bin/vmferry-agent-x86_64")
    echo "Done in $(($(now) - began)) s.  The agent, all that visits a host: $((size / 1024)) KiB."
}

# The look-alike plays a whole host, with a root of its own: that takes root.
as_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null 2>&1 || die "the look-alike needs root, and there is no sudo"
    again=
    [ $keep = no ] || again=--keep
    exec sudo env ${TMPDIR:+TMPDIR="$TMPDIR"} sh "$0" --no-install --built --build-dir "$build" \
        --profile "$profile" $again
}

# The host and its guest

lookalike() { python3 -B "$top/tests/lookalike/lookalike.py" "$@"; }

guest_pid=
guest_starts() {
    python3 "$helper" write "$host_dir" "$vm" scsi0:0="$work/extents-0" scsi0:1="$work/extents-1" \
        >"$work/guest" &
    guest_pid=$!
}
guest_stops() {
    kill "$guest_pid"
    pid=$guest_pid guest_pid=
    wait "$pid" || die "the guest failed"
    guest_writes=$(cat "$work/guest")
    [ "$guest_writes" -gt 0 ] || die "the guest has written nothing"
}

cleanup() {
    code=$?
    trap '' INT TERM HUP
    if [ -n "$guest_pid" ]; then
        kill "$guest_pid" 2>/dev/null || true
        wait "$guest_pid" 2>/dev/null || true
    fi
    if [ $keep = yes ] && [ $code -eq 0 ]; then
        exit 0
    fi
    if [ -n "${work:-}" ]; then
        [ ! -f "$host_dir/config.json" ] || lookalike stop --dir "$host_dir" || true
        rm -rf "$work"
    fi
    exit $code
}

# ferry COMMAND OPERAND...: shown, and run
ferry() {
    shown=
    for word in "$@"; do
        case $word in *[!A-Za-z0-9_./:=@-]*) word="'$word'" ;; esac
        shown="$shown $word"
    done
    printf '\n$ vmferry%s\n' "$shown"
    code=0
    (cd "$work" && "$build/bin/vmferry" --state-dir "$work/state" \
        --known-hosts "$host_dir/known_hosts" --password-file "$host_dir/password" "$@") ||
        code=$?
    [ $code -eq 0 ] || die "vmferry ended with $code"
}

# image FILE SIZE FOLDER LABEL: a disk with one partition, on it an ext4 with what FOLDER holds
image() {
    rm -f "$1"
    truncate -s "$2" "$1"
    blocks=$((($(stat -c %s "$1") - 1048576) / 4096))
    mke2fs -q -F -t ext4 -b 4096 -L "$4" -E offset=1048576 -d "$3" "$1" "$blocks" >/dev/null 2>&1
    python3 "$helper" partition "$1"
}

# system_files FOLDER: up to 768 MiB of this machine's /usr
system_files() {
    mkdir -p "$1"
    (cd / && find usr -xdev \( -type f -o -type l \) -links 1 ! -name '*[!A-Za-z0-9._+-]*' \
        -printf '%s %p\n' | LC_ALL=C sort -k 2 |
        awk '{ n += $1 + 2048; if (n > 768 * 1048576) exit; print $2 }') >"$work/list"
    tar -C / -cf - --no-recursion -T "$work/list" | tar -C "$1" -xf -
    mkdir -p "$1/var/log"
    python3 "$helper" log 48 1 >"$1/var/log/access.log"
}

# same WHAT FILE TRUTH: one image is the truth, and its file system is sound
same() {
    if qemu-img compare -q "$2" "$3"; then
        good "$1: every byte as it was at the snapshot (qemu-img compare)"
    else
        bad "$1 is not what the disk was at the snapshot"
    fi
    if e2fsck -fn "${2%.vmdk}.raw?offset=1048576" >"$work/fsck" 2>&1; then
        good "$1: $(sed -n 's/^\([^:]*\): \([0-9]*\)\/.* files .*/ext4 "\1", \2 files,/p' \
            "$work/fsck") sound (e2fsck)"
    else
        bad "$1: e2fsck complains:"
        sed 's/^/       /' "$work/fsck"
    fi
}

# truth NAME SNAPSHOT: what both disks hold or held, as $work/NAME-0.raw and NAME-1.raw
truth() {
    for n in 0 1; do
        lookalike truth --dir "$host_dir" ${2:+--snapshot "$2"} "$vm" scsi0:$n "$work/$1-$n.raw"
    done
}

# both FOLDER TRUTH: the two disks in FOLDER are that truth
both() {
    same "system disk" "$1/disk-scsi0-0.vmdk" "$work/$2-0.raw"
    same "data disk" "$1/disk-scsi0-1.vmdk" "$work/$2-1.raw"
}

# busy FOLDER: the guest did write while the mirror was made, so the disk is another one by now
busy() {
    truth current ''
    if qemu-img compare -q "$1/disk-scsi0-1.vmdk" "$work/current-1.raw"; then
        bad "the guest wrote nothing after the snapshot: this proves too little"
    else
        good "writes of the guest meanwhile: $guest_writes; the mirror keeps to the snapshot"
    fi
}

[ $install = no ] || install_missing
[ $make = no ] || build_all
as_root

work=
host_dir=
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
began_all=$(now)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/vmferry-demo.XXXXXX")
host_dir=$work/host
vm='web 01'
chmod 755 "$work"
free=$(df -Pk "$work" | awk 'NR == 2 { print $4 }')
[ "$free" -ge $((8 * 1048576)) ] || die "$work has not the 8 GiB that this needs: set TMPDIR"
export LOOKALIKE_BIN="$build/bin"

say "A host, and on it a VM: two disks with ext4 and real files"
lookalike start --dir "$host_dir" --profile "$profile" \
    --datastore '{"name": "datastore1", "kind": "VMFS-6", "size": "64g"}' >"$work/facts"
port=$(sed -n 's/^port=//p' "$work/facts")
host=root@127.0.0.1:$port

system_files "$work/system"
mkdir -p "$work/data/db"
python3 "$helper" log 160 2 >"$work/data/db/orders.db"
cp -R "$top/tests" "$work/data/project"
image "$work/system.raw" 4G "$work/system" system
image "$work/data.raw" 1G "$work/data" data
debugfs -R 'dump_extents -l /var/log/access.log' "$work/system.raw?offset=1048576" \
    >"$work/extents-0" 2>/dev/null
debugfs -R 'dump_extents -l /db/orders.db' "$work/data.raw?offset=1048576" \
    >"$work/extents-1" 2>/dev/null
printf '{"name": "%s", "guest": "debian11-64", "power": "on", "disks": [
    {"size": "4g", "content": {"file": "%s"}}, {"size": "1g", "content": {"file": "%s"}}]}' \
    "$vm" "$work/system.raw" "$work/data.raw" >"$work/spec"
lookalike vm-add --dir "$host_dir" - <"$work/spec" >/dev/null
used=$(($(room "$work/system.raw") + $(room "$work/data.raw")))
rm -rf "$work/system" "$work/data" "$work/system.raw" "$work/data.raw"
echo "A look-alike of ESXi $profile listens on 127.0.0.1, port $port."
echo "Its VM \"$vm\" has disks of 5 GiB, $(human "$used") of them in use."
ferry vms "$host"

say "The first mirror, while the guest writes"
guest_starts
ferry mirror --keep 3 "$host" "$vm" mirrors
guest_stops
truth first last
echo
both "$work/mirrors/$vm" first
busy "$work/mirrors/$vm"
rm -f "$work"/current-?.raw

say "The guest's files change; a refresh, while it writes on"
truth changed ''
head -c 24000000 /dev/urandom >"$work/photos.tar"
{
    echo "mkdir /upgrade"
    (cd "$top/protocol" && find . -name '*.[ch]' | sort | while read -r file; do
        echo "write $top/protocol/$file /upgrade/$(echo "$file" | tr / _)"
    done)
    # Every 40th file, at most 100 of them.
    awk 'NR % 40 == 0 && n++ < 100 { print "rm /" $0 }' "$work/list"
} >"$work/changes-0"
printf 'write %s /photos.tar\n' "$work/photos.tar" >"$work/changes-1"
for n in 0 1; do
    debugfs -w -f "$work/changes-$n" "$work/changed-$n.raw?offset=1048576" >"$work/debugfs" 2>&1
    lookalike guest-write-image --dir "$host_dir" "$vm" scsi0:$n "$work/changed-$n.raw" \
        >"$work/written-$n"
done
echo "$(grep -c '^write' "$work/changes-0") small files and one of 24 MB are new," \
    "$(grep -c '^rm' "$work/changes-0") are gone:" \
    "$(human $(($(cat "$work/written-0") + $(cat "$work/written-1")))) written."
rm -f "$work"/changed-?.raw "$work/photos.tar"
guest_starts
ferry mirror --keep 3 "$host" "$vm" mirrors
guest_stops
truth second last
echo
both "$work/mirrors/$vm" second
busy "$work/mirrors/$vm"
rm -f "$work"/current-?.raw "$work"/second-?.raw

say "Two generations are there; back to the first"
ferry list --mirror mirrors
ferry restore "$vm@1" --mirror mirrors --output before
echo
both "$work/before" first

say "The mirror against its own digests, and the host as we leave it"
ferry check --mirror mirrors --read-data
ferry cleanup "$host"
echo
if python3 "$helper" leftovers "$host_dir" >"$work/left"; then
    good "no snapshot, no file and no process of ours is on the host"
else
    bad "something is left on the host:"
    sed 's/^/       /' "$work/left"
fi
echo "The mirror with both generations takes $(human "$(room "$work/mirrors")")."

if [ "$differences" -gt 0 ]; then
    printf '\n%d things were not as they must be.\n' "$differences"
    exit 1
fi
printf '\nAll is as it must be; %d s without the build.\n' $(($(now) - began_all))
if [ $keep = yes ]; then
    printf '\nThe host still runs; all of it is in %s.  The end of it:\n\n' "$work"
    printf '  export LOOKALIKE_BIN=%s\n' "$LOOKALIKE_BIN"
    printf '  %s/tests/lookalike/lookalike stop --dir %s\n' "$top" "$host_dir"
    printf '  rm -rf %s\n' "$work"
fi
