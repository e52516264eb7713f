"""Measures repositories, round after round, beside borg and restic.  Called by repo.sh.

Every figure goes to repo-results.jsonl in the cache folder, the report to RESULTS-REPO.md.
"""

import argparse
import os
import shutil
import subprocess

import cases
import disk
import measure
import memory
import program
import repo_cases
import repo_report
import report

GROUPS = ("plain", "sealed", "remote", "blocks", "scale")


class Bench(program.Figures):
    def __init__(self, options):
        super().__init__(options.results)
        self.o = options
        self.work = os.path.join(options.tmpfs, "vmferry-repobench-%d" % os.getpid())
        self.disk = os.path.join(self.work, "disk.raw")
        self.versions = self.host = self.sshd = None
        self.verified = set()
        self.number = 0

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
        row = self.add(group, name, task, figures)
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

    def store_all(self, group, stores, task):
        for s in self.turned(stores):
            figures = s.backup(self.disk)
            self.keep(group, s.name, task, dict(figures, stored=s.stored()))

    def restore_all(self, group, stores):
        for s in self.turned(stores):
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
            self.store_all(group, stores, "first")
            self.versions.switch()
            self.store_all(group, stores, "changed")
            self.versions.touch()
            self.store_all(group, stores, "same")
            self.restore_all(group, stores)
        finally:
            for s in stores:
                s.remove()

    # groups

    def folder(self, name):
        return os.path.join(self.work, "stores", name)

    def plain(self):
        stores = [repo_cases.Vmferry(self.o.programs, self.folder("v"))]
        stores += [repo_cases.Borg(self.folder("b%d" % c), "none", c)
                   for c in repo_cases.BORG_CHUNKS]
        if self.number <= self.o.restic_rounds:     # slower than borg each time
            stores.append(repo_cases.Restic(self.folder("r")))
        self.compare("plain", stores)

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
        else:
            subprocess.run(["cp", "--sparse=always", os.path.join(o.cache, "old.raw"), self.disk],
                           check=True)
            self.versions = disk.Versions(o.cache, self.disk)
        measure.memory = memory.Memory(self.work, disk.stored(self.disk))

    def run(self):
        o = self.o
        rounds = dict.fromkeys(GROUPS, o.rounds)
        rounds.update(sealed=o.sealed_rounds, blocks=o.block_rounds, scale=o.block_rounds)
        earlier = max((r["round"] for r in report.read_rows(o.results)), default=0)
        for self.number in range(1, max(rounds[g] for g in o.groups) + 1):
            self.round = earlier + self.number
            print("round %d, load %.2f %.2f %.2f" % ((self.round,) + os.getloadavg()), flush=True)
            for group in GROUPS:
                if group in o.groups and self.number <= rounds[group]:
                    print(" " + group, flush=True)
                    getattr(self, group)()


def main():
    p = argparse.ArgumentParser(prog="repo.sh", description=__doc__)
    program.add_options(p, "where disk and repositories are (20 GiB)", GROUPS, "RESULTS-REPO.md")
    p.add_argument("--quick", action="store_true", help="a small disk: to try the bench itself")
    p.add_argument("--restic-rounds", type=int, default=2, help="of restic, the slowest; 2")
    p.add_argument("--sealed-rounds", type=int, default=2, help="of encrypted ones; 2")
    p.add_argument("--block-rounds", type=int, default=1, help="of blocks and scale; 1")
    p.add_argument("--entries", type=int, default=20000000, help="of the index in scale")
    o = p.parse_args()
    o.groups = o.groups.split(",")
    o.cache += "-quick" if o.quick else ""
    o.results = o.results or os.path.join(o.cache, "repo-results.jsonl")
    for needed in ("borg", "restic"):
        if not o.report_only and shutil.which(needed) is None:
            raise SystemExit("repo.sh: %s is not installed: nothing to compare with" % needed)
    program.run(o, Bench, "repo.sh",
                repo_cases.small_disk() if o.quick else repo_cases.whole_disk())
    report.save(o.report, o.results, repo_report.make)


if __name__ == "__main__":
    main()
