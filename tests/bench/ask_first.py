#!/usr/bin/env python3
"""--ask-first over a slow link: the first backup of a VM that the host has twice, and of one whose
blocks nobody has, with and without asking.  By hand, as root; a few minutes.

    VMFERRY_BIN=build/bin python3 tests/bench/ask_first.py [--mib N] [--mbit N] [--delay MS]
        [--rounds N]

The data connection goes through a relay of so many Mbit/s and so long a delay each way
(tests/integration/repo/slow_link.py: a kernel without netem is enough); SSH does not.  Disks hold
real files of this machine.  Each run begins with the same repository, in which one VM of the host
has a generation.  The table goes to standard output, for RESULTS.md.
"""

import argparse
import glob
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../integration/repo"))
sys.path.insert(0, HERE)

import harness  # noqa: E402
from disk import real_files  # noqa: E402
from harness import MB, VMFERRY, Result, mirror  # noqa: E402
from slow_link import SlowLink  # noqa: E402


def write_disks(paths, size, data):
    """Disks of size bytes that begin with data bytes of files, each with others."""
    files = real_files()
    for path in paths:
        with open(path, "wb") as out:
            while out.tell() < data:
                with open(next(files)[0], "rb") as f:
                    out.write(f.read(data - out.tell()))
                out.seek(-out.tell() % 4096, os.SEEK_CUR)
            out.truncate(size)


class Watch:
    """The agent's memory at its highest, and its CPU seconds, looked at while it runs."""

    def __init__(self):
        self.memory = self.cpu = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self):
        tick = os.sysconf("SC_CLK_TCK")
        while not self.ended.wait(0.1):
            for stat in glob.glob("/proc/[0-9]*/stat"):
                try:
                    with open(stat, encoding="latin-1") as f:
                        name, rest = f.read().split("(", 1)[1].rsplit(")", 1)
                    if name != "vmferry-agent":
                        continue
                    words = rest.split()
                    self.cpu = max(self.cpu, (int(words[11]) + int(words[12])) / tick)
                    with open(os.path.dirname(stat) + "/status", encoding="latin-1") as f:
                        for line in f:
                            if line.startswith("VmHWM:"):
                                self.memory = max(self.memory, int(line.split()[1]) / 1024)
                except (OSError, IndexError):
                    continue

    def stop(self):
        self.ended.set()
        self.thread.join()


class Bench:
    def __init__(self, options, work):
        self.o, self.work = options, work
        self.host = mirror.Lookalike.start(profile="6.7")
        self.listen = mirror.private_address()
        self.state = os.path.join(work, "state")
        self.link = SlowLink(mirror.private_address(1), (self.listen, 31031), options.mbit,
                             options.delay / 1000, port=31031)

    def close(self):
        self.link.close()
        self.host.stop()

    def vmferry(self, *words):
        started = time.monotonic()
        before = os.times()
        done = subprocess.run([VMFERRY, "--state-dir", self.state, "--known-hosts",
                               self.host.known_hosts, "--password-file", self.host.password_file,
                               "--json", *words], stdin=subprocess.DEVNULL, capture_output=True,
                              check=False)
        after = os.times()
        r = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        if r.code != 0:
            raise SystemExit(str(r))
        r.seconds = time.monotonic() - started
        r.cpu = (after.children_user + after.children_system - before.children_user -
                 before.children_system)
        return r

    def backup(self, repo, vm, *words):
        return self.vmferry("backup", "%s:%d" % (self.host.address, self.host.port), vm, "--repo",
                            repo, "--min-free", "1M", "--data-listen", self.listen + ":31031",
                            *words)

    def prepare(self):
        disks = [os.path.join(self.work, n) for n in ("known.raw", "fresh.raw")]
        data = self.o.mib * MB
        write_disks(disks, data + 64 * MB, data)
        for vm, disk in (("first", disks[0]), ("twin", disks[0]), ("fresh", disks[1])):
            self.host.add_vm({"name": vm, "power": "off", "disks": [
                {"size": os.path.getsize(disk), "content": {"file": disk}}]})
        self.vmferry("init", "--repo", os.path.join(self.work, "seed"))
        self.backup(os.path.join(self.work, "seed"), "first")

    def measure(self, vm, when):
        repo = os.path.join(self.work, "repo")
        # The same repository in the same place: its cache in the state folder is of a copy's packs.
        shutil.rmtree(repo, ignore_errors=True)
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.copytree(os.path.join(self.work, "seed"), repo)
        self.link.carried = 0
        watch = Watch()
        r = self.backup(repo, vm, "--ask-first", when, "--data-connect",
                        self.link.address + ":31031", "--data-channel", "tcp")
        watch.stop()
        return {"stream": r.total("seconds"), "all": r.seconds, "sent": r.total("sent") / MB,
                "link": self.link.carried / MB, "stored": r.total("stored") / MB,
                "agent": watch.memory, "agent_cpu": watch.cpu, "cpu": r.cpu}


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--mib", type=int, default=128, help="data of each disk")
    p.add_argument("--mbit", type=float, default=20)
    p.add_argument("--delay", type=float, default=50, help="milliseconds each way")
    p.add_argument("--rounds", type=int, default=3)
    o = p.parse_args()
    os.setpriority(os.PRIO_PROCESS, 0, -10)     # the link is to be what is waited for
    work = tempfile.mkdtemp(prefix="vmferry-ask-")
    bench = Bench(o, work)
    rows = {}
    try:
        bench.prepare()
        for _ in range(o.rounds):
            for vm in ("twin", "fresh"):
                for when in ("no", "yes", "auto"):
                    rows.setdefault((vm, when), []).append(bench.measure(vm, when))
                    print(vm, when, rows[vm, when][-1], file=sys.stderr)
    finally:
        bench.close()
        shutil.rmtree(work)
    print("| disk of %d MiB at %g Mbit/s, %g ms each way | --ask-first | rounds | stream s | run s |"
          " sent MiB | on the link MiB | stored MiB | agent CPU s | receiver CPU s | agent MiB |"
          % (o.mib, o.mbit, o.delay))
    print("|---" * 11 + "|")
    names = {"twin": "another VM of the host has it", "fresh": "nobody has it"}
    for (vm, when), runs in rows.items():
        m = {k: statistics.median(r[k] for r in runs) for k in runs[0]}
        print("| %s | %s | %d | %.1f | %.1f | %.1f | %.1f | %.1f | %.2f | %.2f | %.0f |" % (
            names[vm], when, len(runs), m["stream"], m["all"], m["sent"], m["link"], m["stored"],
            m["agent_cpu"], m["cpu"], m["agent"]))


if __name__ == "__main__":
    main()
