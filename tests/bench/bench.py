"""Measures, round after round, and keeps every figure in results.jsonl.  Called by run.sh."""

import argparse
import json
import os
import shutil
import subprocess

import cases
import disk
import measure
import memory
import program
import report


class Bench(program.Figures):
    def __init__(self, options):
        super().__init__(options.results)
        self.o = options
        self.host = None
        self.work = os.path.join(options.tmpfs, "vmferry-bench-%d" % os.getpid())
        self.state = os.path.join(self.work, "state")
        self.mirrors = os.path.join(self.work, "mirrors")
        self.hosts, self.tools = {}, None
        self.verified = set()

    # life

    def __enter__(self):
        os.makedirs(self.mirrors)
        return self

    def prepare(self):
        o = self.o
        self.host = self.hosts["6.7"] = cases.Host(os.path.join(self.work, "host"), "6.7", o.cache,
                                                   o.programs)
        self.tools = cases.Tools(self.work, self.host.versions.path)
        measure.memory = memory.Memory(self.work, disk.stored(self.host.versions.path))

    def __exit__(self, *_):
        if self.tools is not None:
            self.tools.stop()
        for host in self.hosts.values():
            host.stop()
        shutil.rmtree(self.work)
        self.out.close()

    # figures

    def keep(self, group, name, task, figures):
        row = self.add(group, name, task, figures)
        print("  %-28s %-8s wall %6.2f  stream %6s  cpu %6.2f  load %.1f" % (
            name, task, row["wall"], "%.2f" % row["stream"] if "stream" in row else "-",
            row["cpu"] + row["host_cpu"], row["load"]), flush=True)

    def verify(self, name, path):
        """Once for each case: the copy is the disk."""
        if name in self.verified:
            return
        if not cases.same(path, self.host.versions.path):
            raise measure.Failed("%s: the copy differs from the disk" % name)
        self.verified.add(name)

    # cases

    def host_for(self, m):
        """ssh-dd needs a host that refuses foreign programs: version 8.0 of the look-alike."""
        if m.carrier == "ssh-dd" and "8.0" not in self.hosts:
            self.hosts["8.0"] = cases.Host(os.path.join(self.work, "host8"), "8.0", self.o.cache,
                                           self.o.programs, self.host)
        return self.hosts["8.0" if m.carrier == "ssh-dd" else "6.7"]

    def mirror(self, m):
        host, folder = self.host_for(m), os.path.join(self.mirrors, "m")
        os.mkdir(folder)
        try:
            self.keep("mirrors", m.name, "first", host.mirror(m, folder, self.state))
            host.versions.touch()
            self.keep("mirrors", m.name, "same", host.mirror(m, folder, self.state))
            host.versions.switch()
            self.keep("mirrors", m.name, "changed", dict(host.mirror(m, folder, self.state),
                                                         to=host.versions.name()))
            self.verify(m.name, host.image(folder))
        finally:
            shutil.rmtree(folder)

    def rsync(self, names):
        """Refreshes by rsync of a copy that is already there."""
        tools, host = self.tools, self.host
        for name, form in tools.rsync_forms().items():
            if name not in names:
                continue
            tools.clear()
            subprocess.run(["cp", "--sparse=always", host.versions.path, tools.target], check=True)
            os.utime(tools.target, (1e9, 1e9))
            self.keep("tools", name, "same", tools.run(form))
            host.versions.switch()
            self.keep("tools", name, "changed", dict(tools.run(form), to=host.versions.name()))
            self.verify(name, tools.target)
        tools.clear()

    def firsts(self):
        for name, form in self.tools.first_forms().items():
            self.tools.clear()
            self.keep("tools", name, "first", self.tools.run(form))
            self.verify(name, self.tools.target)
        self.tools.clear()

    def limits(self):
        program = os.path.join(self.o.programs, "bench_limits")
        text = subprocess.run([program, "speed", self.host.versions.path], check=True,
                              stdout=subprocess.PIPE, text=True).stdout
        for line in text.splitlines():
            row = json.loads(line)
            self.keep("limits", row["name"], "speed", dict(
                row, wall=row["seconds"], cpu=row["cpu_seconds"], host_cpu=0,
                load=os.getloadavg()[0]))

    def changes(self):
        """How small the changes are at best, both ways, for the default block size."""
        if self.host.versions.new:
            self.host.versions.switch()
        self.host.versions.switch()
        program = os.path.join(self.o.programs, "bench_limits")
        old, new = os.path.join(self.o.cache, "old.raw"), self.host.versions.path
        for to, disks in (("new", [old, new]), ("old", [new, old])):
            text = subprocess.run([program, "changed"] + disks + [str(cases.DEFAULT_BLOCK << 10)],
                                  check=True, stdout=subprocess.PIPE, text=True).stdout
            self.keep("limits", "changed", "to " + to, dict(
                json.loads(text), wall=0, cpu=0, host_cpu=0, load=os.getloadavg()[0]))
        self.host.versions.switch()

    # rounds

    def run(self):
        o, fastest = self.o, self.fastest_rsync() or None
        if "bars" in o.groups:
            self.changes()
        self.out.flush()
        rounds = {"bars": o.rounds, "ways": o.way_rounds, "blocks": o.block_rounds}
        earlier = max((r["round"] for r in report.read_rows(o.results)), default=0)
        for number in range(1, max(rounds[g] for g in o.groups) + 1):
            self.round = earlier + number
            print("round %d, load %.2f %.2f %.2f" % ((self.round,) + os.getloadavg()), flush=True)
            if "bars" in o.groups and number <= o.rounds:
                self.limits()
                for m in cases.BAR_MIRRORS:
                    self.mirror(m)
                self.firsts()
                # The slower forms of rsync take most of a round: they stop after some rounds.
                names = set(self.tools.rsync_forms())
                self.rsync(names if fastest is None or number <= o.rsync_rounds else fastest)
                if fastest is None:
                    fastest = self.fastest_rsync()
            if "ways" in o.groups and number <= o.way_rounds:
                for m in cases.WAY_MIRRORS:
                    self.mirror(m)
            if "blocks" in o.groups and number <= o.block_rounds:
                for m in cases.BLOCK_MIRRORS:
                    self.mirror(m)

    def fastest_rsync(self):
        self.out.flush()
        rows = [r for r in report.read_rows(self.o.results) if r["case"].startswith("rsync")]
        return {min((r for r in rows if r["task"] == task), key=lambda r: r["wall"])["case"]
                for task in ("same", "changed") if rows}


def main():
    p = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    program.add_options(p, "where host and targets are (12 GiB)", ("bars", "ways", "blocks"),
                        "RESULTS.md")
    p.add_argument("--way-rounds", type=int, help="of the other ways; as --rounds")
    p.add_argument("--block-rounds", type=int, help="of the block sizes; as --rounds")
    p.add_argument("--rsync-rounds", type=int, default=2, help="of rsync's slower forms; 2")
    o = p.parse_args()
    o.groups = o.groups.split(",")
    o.way_rounds = o.way_rounds or o.rounds
    o.block_rounds = o.block_rounds or o.rounds
    o.results = o.results or os.path.join(o.cache, "results.jsonl")
    program.run(o, Bench, "run.sh")
    report.save(o.report, o.results, lambda rows, notes: report.report(report.Figures(rows), notes))


if __name__ == "__main__":
    main()
