#!/usr/bin/env python3
"""The guest of the demonstration: what its disks are made of, and what it writes while it runs.

    guest.py log MEGABYTES SEED            lines as in a log, to stdout
    guest.py partition DISK                a partition table with one Linux partition from 1 MiB on
    guest.py leftovers DIR                 what lies on the host and belongs to nobody
    guest.py write DIR VM SLOT=EXTENTS...  write until SIGTERM; then say how much

A database writes pages inside a file that it has long since allocated; so does this guest: it
touches only blocks that such a file owns, and the file system around them stays sound at every
moment.  EXTENTS is the answer of `debugfs -R 'dump_extents -l FILE'`.
"""

import json
import os
import random
import re
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lookalike"))
sys.dont_write_bytecode = True
from lookalike import Lookalike, LookalikeError  # noqa: E402

BLOCK = 4096                    # of the file systems
PARTITION_AT = 1 << 20          # bytes
PAGE = 16384                    # what the guest writes at once
WRITES_PER_SECOND = 100


def log_lines(r, count_bytes):
    """Text that compresses about as logs do."""
    paths = ["/index.html", "/api/orders", "/static/site.css", "/login", "/api/items/%d"]
    made = 0
    number = r.randrange(1 << 20)
    while made < count_bytes:
        number += 1
        path = r.choice(paths)
        line = "%010d 10.0.%d.%d GET %s %d %d %08x\n" % (
            number, r.randrange(256), r.randrange(256),
            path % r.randrange(100000) if "%" in path else path,
            r.choice((200, 200, 200, 304, 404)), r.randrange(50000), r.getrandbits(32))
        made += len(line)
        yield line


def cmd_log(megabytes, seed):
    size = int(megabytes) << 20
    out = sys.stdout.buffer
    out.write("".join(log_lines(random.Random(int(seed)), size)).encode()[:size])


def cmd_partition(disk):
    """The table of a PC's disk: one entry of type 83 (Linux)."""
    first = PARTITION_AT // 512
    count = os.path.getsize(disk) // 512 - first
    entry = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", first, count)
    with open(disk, "r+b") as f:
        f.seek(446)
        f.write(entry + bytes(48) + b"\x55\xaa")


def read_extents(path):
    """(offset, length) in bytes of the disk, from debugfs's table."""
    row = re.compile(r"^\s*\d+/\s*\d+\s+\d+/\s*\d+\s+\d+\s*-\s*\d+\s+(\d+)\s*-\s*(\d+)\s+\d+\s*$")
    with open(path, encoding="ascii") as f:
        found = [row.match(line) for line in f]
    extents = [(PARTITION_AT + int(m[1]) * BLOCK, (int(m[2]) - int(m[1]) + 1) * BLOCK)
               for m in found if m]
    extents = [e for e in extents if e[1] >= PAGE]
    if not extents:
        sys.exit("%s: no extents in there" % path)
    return extents


def cmd_write(folder, vm, *disks):
    host = Lookalike(folder)
    places = []
    for text in disks:
        slot, _, path = text.partition("=")
        places += [(slot, offset, length) for offset, length in read_extents(path)]
    weights = [length for _, _, length in places]
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    signal.signal(signal.SIGINT, lambda *_: ended.append(True))
    r = random.Random(os.getpid())
    writes = 0
    began = time.monotonic()
    while not ended:
        slot, offset, length = r.choices(places, weights)[0]
        at = offset + r.randrange((length - PAGE) // BLOCK + 1) * BLOCK
        page = "".join(log_lines(r, PAGE)).encode()[:PAGE]
        host.ask("guest-write", vm=vm, slot=slot, offset=at, data=page.hex())
        writes += 1
        time.sleep(max(0, began + writes / WRITES_PER_SECOND - time.monotonic()))
    print(writes)


def cmd_leftovers(folder):
    """Whatever lies on the host and belongs to no VM; 1 if there is something."""
    host = Lookalike(folder)
    left = {k: v for k, v in host.leftovers().items() if v}
    left["snapshots of VMs"] = [s for v in host.state()["vms"] for s in v["snapshots"]]
    left["defects"] = host.defects()
    left = {k: v for k, v in left.items() if v}
    if left:
        print(json.dumps(left, indent=1))
    return 1 if left else 0


COMMANDS = {"log": cmd_log, "partition": cmd_partition, "write": cmd_write,
            "leftovers": cmd_leftovers}

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    try:
        sys.exit(COMMANDS[sys.argv[1]](*sys.argv[2:]))
    except LookalikeError as e:
        sys.exit("guest.py: %s" % e)
