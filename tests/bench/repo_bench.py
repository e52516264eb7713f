"""Measures repositories, round after round, beside borg and restic.  Called by repo.sh.

Every figure goes to repo-results.jsonl in the cache folder, the report to RESULTS-REPO.md.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cases
import disk
import measure
import repo_cases
import repo_report

GROUPS = ("plain", "sealed", "remote", "blocks", "scale")


class Bench:
    def __init__(self, options):
        self.o, self.round = options, 0
        self.work = os.path.join(options.tmpfs, "vmferry-repobench-%d" % os.getpid())
        self.disk = os.path.join(self.work, "disk.raw")
        self.versions = self.host = self.sshd = None
        self.out = open(options.results, "a", encoding="ascii")
        self.verified = set()

    def __enter__(self):
        os.makedirs(self.work)
        return self

    def __exit__(self, *_):
        if self.sshd is not None:
            self.sshd.stop()
        if self.host is not None:
            self.host.stop()
        shutil.rmtree(self.work)
        self.out.close()

    # figures

    def keep(self, group, name, task, figures):
        row = dict(figures, group=group, case=name, task=task, round=self.round,
                   time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        self.out.write(json.dumps(row) + "\n")
        self.out.flush()
        print("  %-26s %-8s wall %6.2f  cpu %6.2f  anon %4d MiB%s  load %.1f" % (
            name, task, row["wall"], row["cpu"] + row["host_cpu"],
            row["peaks"]["receiver_anon"] >> 20,
            "  stored %6.1f MiB" % (row["stored"] / (1 << 20)) if "stored" in row else "",
            row["load"]), flush=True)

    def verify(self, store):
        """Once for each case: what came back is the disk."""
        if store.name not in self.verified and not cases.same(store.image(), self.disk):
            raise measure.Failed("%s: what it restored differs from the disk" % store.name)
        self.verified.add(store.name)

    # tasks, each by all stores before the next one begins

    def warm(self):
        cases.warm(self.work, os.path.getsize(self.disk))

    def store_all(self, group, stores, task, warm):
        for s in self.turned(stores):
            if warm:
                self.warm()
            figures = s.backup(self.disk)
            self.keep(group, s.name, task, dict(figures, stored=s.stored()))

    def restore_all(self, group, stores):
        for s in self.turned(stores):
            self.warm()
            figures = s.restore()
            self.verify(s)
            s.clear_out()
            self.keep(group, s.name, "restore", figures)

    def turned(self, stores):
        """Nobody is always first."""
        n = self.round % len(stores)
        return stores[n:] + stores[:n]

    def old_disk(self):
        if self.versions.new:
            self.versions.switch()

    def compare(self, group, stores):
        try:
            self.old_disk()
            self.store_all(group, stores, "first", True)
            self.versions.switch()
            self.store_all(group, stores, "changed", False)
            self.versions.touch()
            self.store_all(group, stores, "same", False)
            self.restore_all(group, stores)
        finally:
            for s in stores:
                s.remove()

    # groups

    def folder(self, name):
        return os.path.join(self.work, "stores", name)

    def plain(self):
        self.compare("plain", [repo_cases.Vmferry(self.o.programs, self.folder("v"))]
                     + [repo_cases.Borg(self.folder("b%d" % c), "none", c)
                        for c in repo_cases.BORG_CHUNKS]
                     + [repo_cases.Restic(self.folder("r"))])

    def sealed(self):
        """restic encrypts in any case: its figures are those of `plain`."""
        self.compare("sealed", [repo_cases.Vmferry(self.o.programs, self.folder("v"), sealed=True)]
                     + [repo_cases.Borg(self.folder("b%d" % c), "repokey", c)
                        for c in repo_cases.BORG_CHUNKS])

    def blocks(self):
        for size in repo_cases.BLOCKS:
            self.compare("blocks", [repo_cases.Vmferry(self.o.programs, self.folder("v"),
                                                       block=size)])

    def remote(self):
        """The same disk on a host: vmferry takes it by TCP, borg sends it by ssh."""
        ours = repo_cases.Vmferry(self.o.programs, self.folder("v"))
        theirs = [repo_cases.Borg(self.folder("b%d" % c), "none", c, self.sshd.place())
                  for c in repo_cases.BORG_CHUNKS]
        try:
            self.old_disk()
            for task in ("first", "changed", "same"):
                if task == "changed":
                    self.versions.switch()
                if task == "same":
                    self.versions.touch()
                for s in self.turned([ours] + theirs):
                    if task == "first":
                        self.warm()
                    figures = s.remote(self.host) if s is ours else \
                        s.backup(self.disk, self.sshd.ssh.group)
                    self.keep("remote", s.name, task, dict(figures, stored=s.stored()))
        finally:
            for s in [ours] + theirs:
                s.remove()

    def scale(self):
        """What an index of 20 million entries adds to a backup."""
        store = repo_cases.Vmferry(self.o.programs, self.folder("v"))
        try:
            self.old_disk()
            repo_cases.grow(self.o.programs, store, self.o.entries)
            for task in ("first", "same"):
                figures = store.backup(self.disk)
                self.keep("scale", "%d entries" % self.o.entries, task, figures)
            self.versions.switch()
            figures = store.backup(self.disk)
            self.keep("scale", "%d entries" % self.o.entries, "changed", figures)
        finally:
            store.remove()

    # rounds

    def prepare(self):
        o = self.o
        if "remote" in o.groups:
            # The disk of the host's VM is everybody's: tmpfs has no room for two.
            self.host = cases.Host(os.path.join(self.work, "host"), "6.7", o.cache, o.programs)
            self.sshd = repo_cases.Sshd(self.work)
            self.versions, self.disk = self.host.versions, self.host.versions.path
            return
        subprocess.run(["cp", "--sparse=always", os.path.join(o.cache, "old.raw"), self.disk],
                       check=True)
        self.versions = disk.Versions(o.cache, self.disk)

    def run(self):
        rows = repo_report.read_rows(self.o.results)
        earlier = max((r["round"] for r in rows), default=0)
        for number in range(1, self.o.rounds + 1):
            self.round = earlier + number
            print("round %d, load %.2f %.2f %.2f" % ((self.round,) + os.getloadavg()), flush=True)
            for group in GROUPS:
                once = group in ("blocks", "scale") and number > self.o.block_rounds
                if group in self.o.groups and not once:
                    print(" " + group, flush=True)
                    getattr(self, group)()


def parse(words=None):
    p = argparse.ArgumentParser(prog="repo.sh", description=__doc__)
    p.add_argument("--programs", required=True)
    p.add_argument("--cache", help="folder for the disk, kept between runs (5 GiB)")
    p.add_argument("--tmpfs", default="/dev/shm", help="where disk and repositories are (20 GiB)")
    p.add_argument("--quick", action="store_true", help="a small disk: to try the bench itself")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--block-rounds", type=int, default=1, help="of blocks and scale; 1")
    p.add_argument("--entries", type=int, default=20000000, help="of the index in scale")
    p.add_argument("--groups", default=",".join(GROUPS), help=",".join(GROUPS))
    p.add_argument("--results", help="where figures are added; repo-results.jsonl in the cache")
    p.add_argument("--fresh", action="store_true", help="forget earlier figures")
    p.add_argument("--report", help="write the report here; RESULTS-REPO.md beside this program")
    p.add_argument("--report-only", action="store_true", help="measure nothing")
    o = p.parse_args(words)
    o.groups = o.groups.split(",")
    o.cache = o.cache or os.path.join(os.environ.get("TMPDIR", "/tmp"), "vmferry-bench-cache"
                                      + ("-quick" if o.quick else ""))
    o.results = o.results or os.path.join(o.cache, "repo-results.jsonl")
    o.report = o.report or os.path.join(cases.HERE, "RESULTS-REPO.md")
    return o


def main():
    o = parse()
    os.makedirs(o.cache, exist_ok=True)
    if o.fresh and os.path.exists(o.results):
        os.unlink(o.results)
    if not o.report_only:
        if os.geteuid() != 0:
            raise SystemExit("repo.sh: needs root: the look-alike does")
        for program in ("borg", "restic"):
            if shutil.which(program) is None:
                raise SystemExit("repo.sh: %s is not installed: nothing to compare with" % program)
        print("the disk: %s" % o.cache, flush=True)
        disk.build(o.cache, *(repo_cases.small_disk() if o.quick else repo_cases.whole_disk()))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # leaves nothing behind
        with Bench(o) as bench:
            bench.prepare()
            bench.run()
    repo_report.write(o.report, o.results)


if __name__ == "__main__":
    main()
