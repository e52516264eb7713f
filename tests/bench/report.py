"""Makes RESULTS.md from results.jsonl: medians, their spread, and the bars."""

import json
import os
import platform
import shutil
import statistics
import subprocess

MIB = 1 << 20
BAR_NONE, BAR_ZSTD = "tcp encrypt none 64k", "tcp encrypt 1 64k"


def read_rows(path):
    with open(path, encoding="ascii") as f:
        return [json.loads(line) for line in f]


class Figures:
    """The rows by case and task; medians of a field or of a function of a row."""

    def __init__(self, rows):
        self.rows = rows
        self.by = {}
        for row in rows:
            self.by.setdefault((row["case"], row["task"]), []).append(row)

    def values(self, case, task, field):
        rows = self.by.get((case, task), [])
        return [field(r) if callable(field) else r[field] for r in rows]

    def median(self, case, task, field):
        values = self.values(case, task, field)
        return statistics.median(values) if values else None

    def ratios(self, top, below):
        """The ratio in each round that has both; top and below: {round: value}."""
        return [top[n] / below[n] for n in sorted(top) if n in below and below[n] > 0]

    def rounds(self, case, task, field):
        """{round: value}; the last one of a round counts."""
        return {r["round"]: field(r) if callable(field) else r[field]
                for r in self.by.get((case, task), [])}

    def peak(self, field):
        return max((r["peaks"][field] for r in self.rows if r["group"] == "mirrors"), default=0)


def work_seconds(row):
    """Wall time without the look-alike's commands before the stream, and the removal of the
    snapshot by it."""
    return row["wall"] - row["before"] - removal_seconds(row)


def removal_seconds(row):
    steps = row["steps"]
    return steps.get("updating the images", row["wall"]) - steps.get("removing the snapshot",
                                                                      row["wall"])


def cpu(row):
    return row["cpu"] + row["host_cpu"]


def spread(values):
    """Half of the distance between the extremes, in percent of the median."""
    if len(values) < 2:
        return "-"
    return "±%.0f %%" % ((max(values) - min(values)) / 2 / statistics.median(values) * 100)


def show(value, form="%.2f"):
    return "-" if value is None else form % value


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(c if "\\|" in c else c.replace("|", "\\|") for c in row)
                    + " |" for row in rows]


# ---- tables ----

def mirror_rows(f, task):
    for case in sorted({c for c, t in f.by if t == task and f.by[c, t][0]["group"] == "mirrors"},
                       key=order):
        yield [case, str(len(f.by[case, task])),
               show(f.median(case, task, "stream")),
               spread(f.values(case, task, "stream")),
               show(f.median(case, task, work_seconds)),
               show(f.median(case, task, lambda r: r["wall"] - work_seconds(r))),
               show(f.median(case, task, cpu)), show(f.median(case, task, "cpu")),
               show(f.median(case, task, lambda r: r["sent"] / MIB), "%.1f"),
               show(f.median(case, task, lambda r: r["lo_bytes"] / MIB), "%.0f"),
               "%.0f" % max(f.values(case, task, lambda r: r["peaks"]["agent_hwm"] / MIB)),
               "%.0f / %.0f" % (max(f.values(case, task,
                                             lambda r: r["peaks"]["receiver_anon"] / MIB)),
                                max(f.values(case, task,
                                             lambda r: r["peaks"]["receiver_hwm"] / MIB)))]


def order(case):
    carrier, security, compress, block = case.split()
    return (["tcp", "ssh", "ssh-dd"].index(carrier), int(block[:-1]) != 64, int(block[:-1]),
            security != "encrypt", ["none", "1", "auto"].index(compress))


def tool_rows(f, task):
    cases = sorted(c for c, t in f.by if t == task and f.by[c, t][0]["group"] == "tools")
    for case in cases:
        yield [case, str(len(f.by[case, task])), show(f.median(case, task, "wall")),
               spread(f.values(case, task, "wall")), show(f.median(case, task, cpu)),
               show(f.median(case, task, lambda r: r["lo_bytes"] / MIB), "%.0f")]


def limit_rows(f):
    for case, task in sorted(k for k in f.by if k[1] == "speed"):
        rate = f.values(case, task, lambda r: r["bytes"] / MIB / r["seconds"])
        busy = f.values(case, task, lambda r: r["bytes"] / MIB / r["cpu_seconds"])
        yield [case, "%.0f" % statistics.median(rate), spread(rate),
               "%.0f" % statistics.median(busy), spread(busy)]


# ---- bars ----

def per_byte(f, name):
    """{round: CPU seconds per byte}."""
    return f.rounds(name, "speed", lambda r: r["cpu_seconds"] / r["bytes"])


def faster(f, cases, task, field):
    """{round: the least of the cases}."""
    out = {}
    for case in cases:
        for number, value in f.rounds(case, task, field).items():
            out[number] = min(value, out.get(number, value))
    return out


def verdict(ratios, limit, at_least=False):
    if not ratios:
        return "not measured", "-"
    median = statistics.median(ratios)
    value = "%.2f (%.2f to %.2f)" % (median, min(ratios), max(ratios))
    if limit is None:
        return "no bar", value
    good = median >= limit if at_least else median <= limit
    return "holds" if good else "**does not hold**", value


def first_allowance(f):
    """{round: seconds}: the faster copy over nbdkit, and half the CPU cost of sealing, opening and
    digesting the same bytes."""
    copies = faster(f, ("nbdcopy", "qemu-img convert"), "first", "wall")
    size = f.median(BAR_NONE, "first", "sent") or 0
    costs = [per_byte(f, n) for n in ("seal libsodium", "open OpenSSL", "digest")]
    return {n: copies[n] + size * sum(c[n] for c in costs) / 2
            for n in copies if all(n in c for c in costs)}


def bar_rows(f):
    rsyncs = sorted({c for c, _ in f.by if c.startswith("rsync")})
    scan = f.rounds("scan", "speed", "seconds")
    best = {way: f.median("changed", "to " + way, "zstd_stream") for way in ("new", "old")}
    sent = f.by.get((BAR_ZSTD, "changed"), [])
    bars = (
        ("1a", "first mirror, none: wall ≤ 1.25 × (faster copy over nbdkit + half the CPU cost of "
         "sealing, opening, digesting)",
         f.ratios(f.rounds(BAR_NONE, "first", work_seconds), first_allowance(f)), 1.25, False),
        ("1b", "first mirror, zstd 1: ≥ 2 × faster than `tar -S \\| zstd -1 \\| ssh`",
         f.ratios(f.rounds("tar -S | zstd -1 | ssh", "first", "wall"),
                  f.rounds(BAR_ZSTD, "first", work_seconds)), 2, True),
        ("2a", "refresh, nothing changed: stream ≤ 2 × one-core scan",
         f.ratios(f.rounds(BAR_NONE, "same", "stream"), scan), 2, False),
        ("2b", "refresh, nothing changed: stream ≥ 5 × faster than rsync",
         f.ratios(faster(f, rsyncs, "same", "wall"), f.rounds(BAR_NONE, "same", "stream")), 5,
         True),
        ("", "(the same with commit and check of a part)",
         f.ratios(faster(f, rsyncs, "same", "wall"), f.rounds(BAR_NONE, "same", work_seconds)),
         None, True),
        ("2c", "refresh after the change, none: stream ≥ 5 × faster than rsync's fastest form",
         f.ratios(faster(f, rsyncs, "changed", "wall"), f.rounds(BAR_NONE, "changed", "stream")),
         5, True),
        ("", "(the same with commit, apply and check of a part)",
         f.ratios(faster(f, rsyncs, "changed", "wall"),
                  f.rounds(BAR_NONE, "changed", work_seconds)), None, True),
        ("2c'", "refresh after the change, zstd 1: stream ≥ 5 × faster than rsync's fastest form",
         f.ratios(faster(f, rsyncs, "changed", "wall"), f.rounds(BAR_ZSTD, "changed", "stream")),
         5, True),
        ("2d", "refresh after the change: bytes ≤ 1.1 × `zstd -1` of the changed blocks",
         [r["sent"] / best[r["to"]] for r in sent if best[r["to"]]], 1.1, False),
        ("3a", "agent ≤ 64 MiB (VmHWM)", [f.peak("agent_hwm") / MIB], 64, False),
        ("3b", "receiver ≤ 96 MiB (RssAnon)", [f.peak("receiver_anon") / MIB], 96, False),
    )
    for name, text, ratios, limit, at_least in bars:
        word, value = verdict(ratios, limit, at_least)
        wanted = "-" if limit is None else ("≥ %g" if at_least else "≤ %g") % limit
        yield [name, text, value, wanted, str(len(ratios)), word]


# ---- the machine ----

def first_line(*words):
    if shutil.which(words[0]) is None:
        return "%s: not installed, left out" % words[0]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    return done.stdout.strip().splitlines()[0]


def machine():
    with open("/proc/cpuinfo", encoding="ascii") as f:
        model = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    with open("/proc/meminfo", encoding="ascii") as f:
        memory = int(f.readline().split()[1]) >> 20
    versions = [first_line("rsync", "--version"), first_line("nbdkit", "--version"),
                first_line("nbdcopy", "--version"), first_line("qemu-img", "--version"),
                first_line("zstd", "--version"), first_line("ssh", "-V")]
    return ["%d × %s, %d GiB, Linux %s. " % (len(model), model[0], memory, platform.release())
            + "; ".join(versions) + "."]


def block_choice(f):
    """What the block sizes cost, beside each other."""
    for block in (16, 32, 64, 128, 256, 512, 1024):
        for compress in ("none", "1"):
            case = "tcp encrypt %s %dk" % (compress, block)
            if (case, "first") in f.by:
                yield ["%d KiB" % block, compress, str(len(f.by[case, "first"])),
                       show(f.median(case, "first", "stream")), show(f.median(case, "first", cpu)),
                       show(f.median(case, "same", "stream")),
                       show(f.median(case, "changed", "stream")),
                       show(f.median(case, "changed", lambda r: r["sent"] / MIB), "%.1f"),
                       show(f.median(case, "changed", lambda r: r["changed"] / MIB), "%.0f")]


MIRROR_HEAD = ["way", "rounds", "stream s", "spread", "work s", "host's commands s", "CPU s",
               "of it receiver", "sent MiB", "loopback MiB", "agent MiB",
               "receiver MiB (anon / all)"]
TOOL_HEAD = ["tool", "rounds", "wall s", "spread", "CPU s", "loopback MiB"]
TASKS = (("first", "First mirror, or copy"), ("same", "Refresh, nothing changed, new mtime"),
         ("changed", "Refresh after the change"))


def load_rows(f):
    """How busy the machine was in each round."""
    rounds = {}
    for row in f.rows:
        rounds.setdefault(row["round"], []).append(row["load"])
    for number, loads in sorted(rounds.items()):
        yield [str(number), "%.1f to %.1f" % (min(loads), max(loads))]


def report(f, notes):
    loads = [r["load"] for r in f.rows]
    changed = f.by.get(("changed", "to new"), [None])[0]
    out = ["# Results of the benchmark", "",
           "Made by `tests/bench/run.sh` from %s to %s. Medians; the spread is half the distance "
           "between the extremes. One-minute load while measuring, our own work included: "
           "%.1f to %.1f, median %.1f." % (f.rows[0]["time"], f.rows[-1]["time"], min(loads),
                                           max(loads), statistics.median(loads)), ""]
    out += machine() + [""]
    out += table(["round", "load"], load_rows(f)) + [""]
    out += ["## Bars", "", "Each ratio is taken within one round; the median of the rounds counts, "
            "the range is given.", ""]
    out += table(["", "bar", "measured", "wanted", "rounds", "verdict"], bar_rows(f)) + [""]
    for task, title in TASKS:
        out += ["## " + title, ""]
        out += table(MIRROR_HEAD, mirror_rows(f, task)) + [""]
        tools = list(tool_rows(f, task))
        if tools:
            out += table(TOOL_HEAD, tools) + [""]
    out += ["*stream*: `seconds` of the disk in the summary. *host's commands*: what the "
            "look-alike takes before the stream (inventory, placing the agent, snapshot) and to "
            "remove the snapshot; *work* is the rest of the wall time, commit and check included. "
            "CPU is that of all processes: receiver, sshd, session, agent, and the look-alike's "
            "own commands. *loopback* counts what other processes of the machine send, too.", ""]
    out += ["## Block sizes", ""]
    out += table(["block", "zstd", "rounds", "first s", "first CPU s", "same s", "changed s",
                  "sent MiB", "changed MiB"], block_choice(f)) + [""]
    out += ["## Limits of the machine", ""]
    out += table(["what", "MiB/s", "spread", "MiB per CPU second", "spread"], limit_rows(f)) + [""]
    if changed:
        out += ["Between both versions of the disk %d blocks of %d KiB differ, %.1f MiB; `zstd -1` "
                "makes %.1f MiB of them as one stream, %.1f MiB block by block." % (
                    changed["blocks"], changed["block"] >> 10, changed["bytes"] / MIB,
                    changed["zstd_stream"] / MIB, changed["zstd_blocks"] / MIB), ""]
    return out + notes


def save(path, results, make):
    """The report of make(rows, notes), lines.  What a person wrote below the tables stays."""
    notes = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            lines = f.read().splitlines()
        notes = lines[lines.index("## Notes"):] if "## Notes" in lines else []
    rows = read_rows(results)
    if rows:
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(make(rows, notes)).rstrip() + "\n")
        print("report: %s" % path)
