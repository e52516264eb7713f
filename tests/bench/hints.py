#!/usr/bin/env python3
"""What a refresh costs when the host says what changed, beside one that compares everything: by hand.

    hints.py --programs build/bin [--folder DIR] [--shares 0.1,1,10] [--small]

A thin disk of 100 GiB with 12 GiB allocated, in a look-alike's datastore below DIR (25 GiB there).
For each share the guest writes so much of what is allocated, in runs of 1 to 8 MiB; then the mirror
is refreshed by the retained snapshot's hint.  It writes as much again, and the mirror is refreshed
without a hint.  Random writes of 4 KiB are shown apart.  That images are right is for the tests to
show; here only the mirror's own check runs at the end.
"""

import argparse
import glob
import os
import random
import shutil
import sys

import measure

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lookalike"))

from lookalike import Lookalike                                     # noqa: E402

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30
VM, SLOT = "bench", "scsi0:0"
PLACES = 192                # stretches of the disk that are allocated
RUN_LONGEST = 8             # MiB


class Disk:
    """The VM's disk: what of it is allocated, and the guest's writes."""

    def __init__(self, folder, programs, size, allocated):
        self.random = random.Random(7)
        self.size, self.allocated = size, allocated
        self.group = measure.Group("host-hints")
        self.group.enter()
        try:
            self.host = Lookalike.start(folder=os.path.join(folder, "host"), programs=programs,
                                        knobs={"keep-truth": "off"})
        finally:
            self.group.leave()
        self.vmx = self.host.add_vm({"name": VM, "power": "on", "dir": VM, "disks": [
            {"size": size, "content": {"kind": "empty"}}]})["vmx"]
        self.stretch = allocated // PLACES // MB * MB
        step = size // PLACES // MB * MB
        self.starts = [n * step for n in range(PLACES)]
        piece = self.random.randbytes(MB)
        with open(self.host.root + self.vmx[:-len(".vmx")] + "-flat.vmdk", "r+b") as f:
            for start in self.starts:
                f.seek(start)
                for _ in range(self.stretch // MB):
                    f.write(piece)

    def write_runs(self, count):
        """Until about count bytes are written: runs of whole MiB, none twice."""
        units = [s + n * MB for s in self.starts for n in range(self.stretch // MB)]
        taken, left = set(), count
        while left > 0:
            at = self.random.randrange(len(units))
            for n in range(at, min(at + self.random.randint(1, RUN_LONGEST), len(units))):
                if n in taken or left <= 0 or (n > at and units[n] != units[n - 1] + MB):
                    break
                taken.add(n)
                left -= MB
                self.write(units[n], MB)

    def write_pages(self, count):
        for _ in range(count // (4 * KB)):
            self.write(self.random.choice(self.starts) +
                       self.random.randrange(self.stretch // (4 * KB)) * 4 * KB, 4 * KB)

    def write(self, offset, length):
        self.host.ask("guest-write", vm=VM, slot=SLOT, offset=offset, length=length,
                      seed=self.random.randrange(1 << 30))

    def stop(self):
        self.host.stop()
        self.group.remove()


class Bench:
    def __init__(self, a):
        self.programs, self.folder = a.programs, a.folder
        self.disk = Disk(a.folder, a.programs, *((2 * GB, 256 * MB) if a.small
                                                 else (100 * GB, 12 * GB)))
        self.state = os.path.join(a.folder, "state")
        self.mirror = os.path.join(a.folder, "mirror")
        self.rows = []

    def command(self, *words):
        host = self.disk.host
        return [os.path.join(self.programs, "vmferry"), "--state-dir", self.state,
                "--known-hosts", host.known_hosts, "--password-file", host.password_file, *words]

    def refresh(self, name, expected):
        """expected: what the run must have used."""
        host = self.disk.host
        result = measure.run(self.command(
            "mirror", "--json", "--min-free", "1G", "--data-listen", "127.0.0.1",
            "--compress", "none", "--retain-snapshot",
            "%s:%d" % (host.address, host.port), VM, self.mirror), self.disk.group)
        vm = result["summary"]["vms"][0]
        row = vm["disks"][0]
        if vm["outcome"] != "ok" or vm["change_source"] not in expected:
            raise measure.Failed("%s: %s by %s" % (name, vm["outcome"], vm["change_source"]))
        print("| %s | %s | %.2f | %.2f | %.2f | %.1f | %.1f | %.1f | %d MiB |" % (
            name, vm["change_source"], row["seconds"], result["wall"],
            result["cpu"] + result["host_cpu"], row["read"] / MB, row["sampled"] / MB,
            row["changed"] / MB, result["peaks"]["agent_hwm"] >> 20), flush=True)
        self.rows.append((name, vm["change_source"], row["seconds"], row["changed"]))

    def forget_hint(self):
        for path in glob.glob(os.path.join(self.state, "journal", "*.kept")):
            os.unlink(path)

    def step_past_audit(self):
        if (len(self.rows) + 1) % 7 == 0:
            self.refresh("an audit is due", ("audit",))

    def pair(self, name, write):
        for by, expected in (("hint", ("retained-snapshot",)), ("comparison", ("digest",))):
            self.step_past_audit()
            write()
            if by == "comparison":
                self.forget_hint()
            self.refresh("%s, by %s" % (name, by), expected)

    def run(self, shares):
        print("load at the start: %.1f" % os.getloadavg()[0])
        print("| refresh | by | stream s | wall s | CPU s | read MiB | sampled MiB | changed MiB | "
              "agent |\n|---|---|---|---|---|---|---|---|---|")
        allocated = self.disk.allocated
        self.refresh("first mirror", ("full",))
        self.pair("nothing written", lambda: None)
        for share in shares:
            self.pair("%g %% in runs of 1 to 8 MiB" % share,
                      lambda: self.disk.write_runs(int(allocated * share / 100)))
        self.pair("0.1 % in random 4 KiB",
                  lambda: self.disk.write_pages(int(allocated * 0.1 / 100)))
        print("load at the end: %.1f" % os.getloadavg()[0])
        measure.run(self.command("check", "--json", "--mirror", self.mirror, "--read-data"))

    def stop(self):
        self.disk.stop()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--programs", required=True)
    p.add_argument("--folder", default="/var/tmp/vmferry-hints-%d" % os.getpid())
    p.add_argument("--shares", default="0.1,1,10")
    p.add_argument("--small", action="store_true", help="256 MiB of 2 GiB, to try it out")
    a = p.parse_args()
    os.mkdir(a.folder)
    bench = None
    try:
        bench = Bench(a)
        bench.run([float(s) for s in a.shares.split(",")])
    finally:
        if bench is not None:
            bench.stop()
        shutil.rmtree(a.folder)


if __name__ == "__main__":
    main()
