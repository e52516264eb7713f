"""Makes the report on repositories from the figures.  Called by repo_bench.py."""

import statistics

import report
from report import MIB, show, spread, table

GROUPS = (("plain", "Local image, not encrypted"), ("sealed", "Local image, encrypted"),
          ("remote", "From a host"))
TASKS = (("first", "first"), ("changed", "3 % changed"), ("same", "nothing changed, new mtime"),
         ("restore", "restore"))
# (group, task, least ratio)
FASTER = (("first", 1.6), ("changed", 3), ("same", 4), ("restore", 2.3))
REMOTE_FIRST = 2
STORED_MOST, ANON_MOST = 1.05, 256
OWN_BLOCK = 128       # KiB, the default


class Figures(report.Figures):
    """The same questions, within one group of rows."""

    def __init__(self, rows, group):
        super().__init__([r for r in rows if r["group"] == group])

    def cases(self):
        return sorted({c for c, _ in self.by}, key=lambda c: (not c.startswith("vmferry"), c))

    def ours(self):
        return next((c for c in self.cases() if c.startswith("vmferry")), None)


def wall(row):
    """Without what the look-alike does before and after the stream: only our own rows tell it."""
    return row.get("work", row["wall"])


def best(f, task, field, cases):
    """{round: the least of the cases}."""
    out = {}
    for case in cases:
        for number, value in f.rounds(case, task, field).items():
            out[number] = min(value, out.get(number, value))
    return out


def bar(name, text, ratios, limit, at_least):
    word, value = report.verdict(ratios, limit, at_least)
    return [name, text, value, "-" if limit is None else ("≥ %g" if at_least else "≤ %g") % limit,
            str(len(ratios)), word]


def speed_bars(f, group, others, limits, number):
    for task, limit in limits:
        ratios = f.ratios(best(f, task, wall, others), f.rounds(f.ours(), task, wall))
        yield bar("%s %s" % (number, task), "%s, %s: times as fast as the fastest other"
                  % (dict(GROUPS)[group], dict(TASKS)[task]), ratios, limit, True)
        yield bar("", "(the same in CPU seconds, all processes)",
                  f.ratios(best(f, task, report.cpu, others),
                           f.rounds(f.ours(), task, report.cpu)), None, True)


def stored_bars(f, group, number):
    """The bar is beside the borg whose pieces are as large as ours: larger ones pack better and
    cost more with every change, which the other rows show."""
    for task in ("first", "changed"):
        for case in (c for c in f.cases() if c.startswith("borg")):
            alike = case.endswith(" %d KiB" % OWN_BLOCK)
            yield bar(number + " stored" if alike else "",
                      "%s, stored after \"%s\": share of what %s stores"
                      % (dict(GROUPS)[group], dict(TASKS)[task], case),
                      f.ratios(f.rounds(f.ours(), task, "stored"), f.rounds(case, task, "stored")),
                      STORED_MOST if alike else None, False)


def memory_bar(rows, group, number):
    peaks = [r["peaks"]["receiver_anon"] / MIB for r in rows
             if r["group"] == group and (r["case"].startswith("vmferry") or group == "scale")]
    return bar(number + " memory", "%s: RssAnon of all our commands, MiB"
               % dict(GROUPS + (("scale", "20 million entries"),))[group],
               [max(peaks)] if peaks else [], ANON_MOST, False)


def bars(rows):
    restic = [r for r in rows if r["group"] == "plain" and r["case"] == "restic"]
    for number, group in (("A", "plain"), ("B", "sealed")):
        # restic encrypts in any case, so it stands beside both.
        f = Figures(rows + [dict(r, group="sealed") for r in restic], group)
        if f.ours() is None:
            continue
        others = [c for c in f.cases() if c != f.ours()]
        yield from speed_bars(f, group, others, FASTER, number)
        yield from stored_bars(f, group, number)
        yield memory_bar(rows, group, number)
    f = Figures(rows, "remote")
    if f.ours() is not None:
        others = [c for c in f.cases() if c != f.ours()]
        yield from speed_bars(f, "remote", others, (("first", REMOTE_FIRST), ("changed", None),
                                                    ("same", None)), "C")
        yield memory_bar(rows, "remote", "C")
    yield memory_bar(rows, "scale", "D")


# ---- tables ----

def stored_text(f, case, task):
    rows = [r for r in f.by.get((case, task), []) if "stored" in r]
    return show(statistics.median(r["stored"] / MIB for r in rows), "%.1f") if rows else "-"


def case_rows(f, task):
    for case in f.cases():
        if (case, task) not in f.by:
            continue
        peaks = f.values(case, task, lambda r: r["peaks"]["receiver_anon"] / MIB)
        yield [case, str(len(f.by[case, task])), show(f.median(case, task, wall)),
               spread(f.values(case, task, wall)), show(f.median(case, task, "wall")),
               show(f.median(case, task, report.cpu)), stored_text(f, case, task),
               "%.0f" % max(peaks)]


def block_rows(f):
    def size(case):
        return int(case.split()[-2])

    for case in sorted(f.cases(), key=size):
        yield ["%d KiB" % size(case), str(len(f.by[case, "first"]))] + [
            text for task, _ in TASKS for text in (show(f.median(case, task, wall)),
                                                   show(f.median(case, task, report.cpu)))] + [
            stored_text(f, case, "first"), stored_text(f, case, "changed")]


def scale_rows(f):
    for (case, task), rows in sorted(f.by.items()):
        yield [case, {"first": "first: the cache of the index is made",
                      "same": "nothing changed: the cache is there"}.get(task, "3 % changed"),
               show(f.median(case, task, "wall")), show(f.median(case, task, report.cpu)),
               "%.0f" % max(r["peaks"]["receiver_anon"] / MIB for r in rows)]


CASE_HEAD = ["store", "rounds", "s", "spread", "whole s", "CPU s", "stored MiB", "RssAnon MiB"]
BLOCK_HEAD = ["block", "rounds", "first s", "CPU s", "changed s", "CPU s", "same s", "CPU s",
              "restore s", "CPU s", "stored MiB", "after the change"]


def make(rows, notes):
    loads = [r["load"] for r in rows]
    versions = [report.first_line("borg", "--version"), report.first_line("restic", "version")]
    out = ["# Results of the benchmark: repositories", "",
           "Made by `tests/bench/repo.sh` from %s to %s. Medians; the spread is half the distance "
           "between the extremes. One-minute load while measuring, our own work included: "
           "%.1f to %.1f, median %.1f." % (rows[0]["time"], rows[-1]["time"], min(loads),
                                           max(loads), statistics.median(loads)), ""]
    out += report.machine() + ["; ".join(versions) + ".", "", "## Bars", "",
                               "Each ratio is taken within one round; the median of the rounds "
                               "counts, the range is given.", ""]
    out += table(["", "bar", "measured", "wanted", "rounds", "verdict"], bars(rows)) + [""]
    for group, title in GROUPS:
        f = Figures(rows, group)
        if not f.rows:
            continue
        out += ["## " + title, ""]
        for task, text in TASKS:
            lines = list(case_rows(f, task))
            if lines:
                out += ["### " + text[0].upper() + text[1:], ""] + table(CASE_HEAD, lines) + [""]
    out += ["*s* is wall time; from a host without what the look-alike does before the stream "
            "(inventory, placing the agent, snapshot) and its removal of the snapshot, which "
            "*whole s* has. CPU is that of all processes. *stored* is the length of all files of "
            "the repository, ours without the reserve of 64 MiB.", ""]
    if any(r["group"] == "blocks" for r in rows):
        out += ["## Block sizes", ""]
        out += table(BLOCK_HEAD, block_rows(Figures(rows, "blocks"))) + [""]
    if any(r["group"] == "scale" for r in rows):
        out += ["## A large index", ""]
        out += table(["index", "backup", "s", "CPU s", "RssAnon MiB"],
                     scale_rows(Figures(rows, "scale"))) + [""]
    return out + notes
