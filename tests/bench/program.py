"""What the two benchmark programs share: options, the file of figures, and the run between them."""

import json
import os
import signal
import sys
import time

import cases
import disk


class Figures:
    """A bench that keeps a row for everything it measures."""

    def __init__(self, results):
        self.round = 0
        self.out = open(results, "a", encoding="ascii")

    def add(self, group, name, task, figures):
        row = dict(figures, group=group, case=name, task=task, round=self.round,
                   time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        self.out.write(json.dumps(row) + "\n")
        self.out.flush()
        return row


def add_options(p, tmpfs, groups, report):
    """tmpfs: what of it is needed, in words."""
    p.add_argument("--programs", required=True)
    p.add_argument("--cache", default=os.path.join(os.environ.get("TMPDIR", "/tmp"),
                                                   "vmferry-bench-cache"),
                   help="folder for the disk, kept between runs (5 GiB)")
    p.add_argument("--tmpfs", default="/dev/shm", help=tmpfs)
    p.add_argument("--rounds", type=int, default=5, help="of what the bars need; 5")
    p.add_argument("--groups", default=",".join(groups), help=",".join(groups))
    p.add_argument("--results", help="where figures are added; in the cache folder")
    p.add_argument("--fresh", action="store_true", help="forget earlier figures")
    p.add_argument("--report", default=os.path.join(cases.HERE, report),
                   help="write the report here; %s beside this program" % report)
    p.add_argument("--report-only", action="store_true", help="measure nothing")
    p.add_argument("--notes", help="a file whose text goes to the end of the report")


def run(o, bench, what, shape=()):
    """Measure with the class `bench`, unless only a report is wanted.  what: for messages."""
    os.makedirs(o.cache, exist_ok=True)
    if o.fresh and os.path.exists(o.results):
        os.unlink(o.results)
    if o.report_only:
        return
    if os.geteuid() != 0:
        raise SystemExit("%s: needs root: the look-alike does" % what)
    print("the disk: %s" % o.cache, flush=True)
    disk.build(o.cache, *shape)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # leaves nothing behind
    with bench(o) as b:
        b.prepare()
        b.run()
