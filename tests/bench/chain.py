#!/usr/bin/env python3
"""What reading through a chain of five links costs beside reading its flat base: by hand.

    chain.py --programs build/bin [--size 1g] [--rounds 7] [--folder /dev/shm/chain]

For each form of delta and each pattern of writes a chain is made with the look-alike's own writers:
a flat base, all of it allocated, and four deltas of 5 % of the disk each.  The chain and its base
are then read in turn by bench_chain_read, from memory, as the agent's walk reads.  The ratio is
that of the medians; that of CPU seconds says more on a machine that does other things, too.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lookalike"))

from hostd.dictfile import Descriptor                               # noqa: E402
from hostd.disk import FORMS                                        # noqa: E402

KB, MB = 1 << 10, 1 << 20
DELTAS = 4
SHARE = 0.05                # of the disk, in each delta
PATTERNS = {                # shortest and longest run, and what they are multiples of
    "runs of 1 to 8 MiB": (MB, 8 * MB, MB),
    "runs of 64 to 256 KiB": (64 * KB, 256 * KB, 64 * KB),
    "runs of 4 KiB": (4 * KB, 4 * KB, 4 * KB),
}
FORM_NAMES = {"COWD": "VMFSSPARSE", "seSparse": "SESPARSE"}
BAR = 1.5


def size_of(text):
    units = {"k": KB, "m": MB, "g": 1 << 30}
    return int(text[:-1]) * units[text[-1].lower()] if text[-1].lower() in units else int(text)


def save_link(folder, name, capacity, kind, extent, parent=None):
    d = Descriptor(os.path.join(folder, name + ".vmdk"))
    d.cid = "12345678"
    d.sectors = capacity // 512
    d.extent_type, d.extent = kind, extent
    if parent:
        d.parent_cid, d.parent_hint = d.cid, parent + ".vmdk"
        d.create_type = "seSparse" if kind == "SESPARSE" else "vmfsSparse"
    d.save()
    return d.path


def write_delta(delta, capacity, pattern, r):
    low, high, unit = PATTERNS[pattern]
    filler = r.randbytes(high)
    left = int(capacity * SHARE)
    while left > 0:
        length = r.randrange(low, high + 1, unit)
        delta.write(r.randrange(0, capacity - length) // unit * unit, filler[:length])
        left -= length
    delta.close()


def make_base(folder, capacity):
    piece = random.Random(1).randbytes(MB)
    with open(os.path.join(folder, "base-flat.vmdk"), "wb") as f:
        for _ in range(capacity // MB):
            f.write(piece)
    return save_link(folder, "base", capacity, "VMFS", "base-flat.vmdk")


def make_chain(folder, form, pattern, capacity):
    """Four deltas above the base; the tip's descriptor."""
    kind, parent, r = FORM_NAMES[form], "base", random.Random(2)
    for n in range(DELTAS):
        name = "%s-%s-%d" % (form, pattern.replace(" ", ""), n)
        write_delta(FORMS[kind].create(os.path.join(folder, name + "-data.vmdk"), capacity),
                    capacity, pattern, r)
        tip = save_link(folder, name, capacity, kind, name + "-data.vmdk", parent)
        parent = name
    return tip


def measure(programs, folder, rounds, tips, seek):
    words = [os.path.join(programs, "bench_chain_read"), "--rounds", str(rounds + 1)]
    out = subprocess.run(words + (["--seek"] if seek else []) + [folder] + tips, check=True,
                         capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in out.splitlines()][len(tips):]     # the first round warms
    return {tip: {field: statistics.median(r[field] for r in rows if r["tip"] == tip)
                  for field in ("seconds", "cpu")} for tip in tips}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--programs", required=True)
    p.add_argument("--folder", default="/dev/shm/vmferry-chain-%d" % os.getpid())
    p.add_argument("--size", type=size_of, default=1 << 30)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--seek", action="store_true", help="holes of the flat base are looked for")
    p.add_argument("--keep", action="store_true")
    a = p.parse_args()
    if not os.path.isdir(a.folder):
        os.mkdir(a.folder)
        base = make_base(a.folder, a.size)
        tips = {"%s, %s" % (form, pattern): make_chain(a.folder, form, pattern, a.size)
                for form in FORM_NAMES for pattern in PATTERNS}
        with open(os.path.join(a.folder, "tips.json"), "w", encoding="ascii") as f:
            json.dump([base, tips], f)
    with open(os.path.join(a.folder, "tips.json"), encoding="ascii") as f:
        base, tips = json.load(f)
    try:
        print("load at the start: %.1f" % os.getloadavg()[0])
        print("| chain of five links | wall s | base s | ratio | CPU ratio | |")
        print("|---|---|---|---|---|---|")
        for name, tip in tips.items():
            found = measure(a.programs, a.folder, a.rounds, [base, tip], a.seek)
            ratio = {f: found[tip][f] / found[base][f] for f in ("seconds", "cpu")}
            print("| %s | %.3f | %.3f | %.2f | %.2f | %s |" % (
                name, found[tip]["seconds"], found[base]["seconds"], ratio["seconds"],
                ratio["cpu"], "holds" if ratio["cpu"] <= BAR else "**does not hold**"), flush=True)
        print("load at the end: %.1f" % os.getloadavg()[0])
    finally:
        if not a.keep:
            shutil.rmtree(a.folder)


if __name__ == "__main__":
    main()
