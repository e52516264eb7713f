#!/usr/bin/env python3
"""One record of a data connection is flipped, dropped, doubled, replayed, moved, or is the last one:
at many positions of first mirrors and refreshes, in both directions.  vmferry is to notice, and to
end with the right image, or with exit 5 or 12 and nothing changed.

    record_faults.py [--positions 500] [--seed N]
"""

import collections
import os
import random
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration/mirror"))

import harness  # noqa: E402
from harness import MB  # noqa: E402
import tool  # noqa: E402
from record_proxy import KINDS, Fault, RecordProxy  # noqa: E402

SLOTS = ["scsi0:%d" % n for n in range(11) if n != 7]
DISKS = len(SLOTS)
SIZE = 2 * MB
VM = "web 01"


class RecordFaults(harness.MirrorTest):
    positions, seed = 40, 1

    def setUp(self):
        super().setUp()
        self.rng = random.Random(self.seed)
        self.slots = SLOTS
        self.proxy = RecordProxy(harness.private_address(1), (self.data_address, 31031), port=31031)
        self.addCleanup(self.proxy.close)
        self.options = ("--compress", "none", "--data-listen", self.data_address + ":31031",
                        "--data-connect", self.proxy.address + ":31031")
        self.fired = collections.Counter()
        self.codes = collections.Counter()
        self.noticed = 0

    def models(self, name):
        return {slot: self.truth(VM, slot, None, "%s-%s" % (name, slot)) for slot in self.slots}

    def change(self):
        for slot in self.slots:
            for _ in range(12):
                self.scribble(VM, slot, [(self.rng.randrange(SIZE // 4096) * 4096, 4096)],
                              self.rng.randrange(1, 1 << 30))

    def learn(self):
        """How many records a connection carries: a first mirror and a refresh without faults."""
        out = {}
        for what in ("first", "refresh"):
            self.proxy.longest = [0, 0]
            self.run_mirror(VM, *self.options)
            out[what] = list(self.proxy.longest)
            self.change()
        shutil.rmtree(self.mirror)
        return out

    def make_faults(self, longest):
        """The positions, spread over the records that there are."""
        out = {"first": [], "refresh": []}
        for n in range(self.positions):
            what = ("first", "refresh")[n % 2]
            to_source = self.rng.random() < 0.3
            number = self.rng.randrange(longest[what][to_source] * 3 // 4 + 1)
            out[what].append(Fault(KINDS[n // 2 % len(KINDS)], number, to_source,
                                   self.rng.randrange(1 << 30)))
        for faults in out.values():
            self.rng.shuffle(faults)
        return out

    def assert_same_images(self, models, message):
        for slot, path in models.items():
            self.assert_same(self.image(slot), path, message)

    def one_run(self, what, faults, old, fresh):
        """Give it up to two faults for each disk.  Those that did not happen come back."""
        self.proxy.reset_counts()
        self.proxy.faults = list(faults)
        r = self.run_mirror(VM, *self.options, code=None)
        self.proxy.faults = []
        fired = list(self.proxy.fired)
        message = "%s, seed %d, after %s\n%s" % (what, self.seed, fired, r)
        self.codes[r.code] += 1
        self.noticed += r.err.count("died at byte")
        self.assertIn(r.code, (0, 5, 12), message)
        folder = os.path.join(self.mirror, VM)
        if r.code == 0:
            self.assert_same_images(fresh, message)
        elif what == "first":
            self.assertFalse(os.path.exists(folder), message)
        else:
            self.assert_same_images(old, message)
        left = self.leftovers()
        self.assertEqual(left, {"files": [], "processes": [], "snapshots": []}, message)
        for fault in fired:
            self.fired[fault.kind + (" to the agent" if fault.to_source else "")] += 1
        return r.code, [f for f in faults if f not in fired]

    def test_first_and_refresh(self):
        self.add_vm(VM, [self.disk_of(SIZE, [(0, SIZE)], seed=n, slot=slot)
                         for n, slot in enumerate(self.slots)])
        todo = self.make_faults(self.learn())
        for what in ("first", "refresh"):
            models = None
            if what == "refresh":
                models = self.models("old")
                self.run_mirror(VM, *self.options)
            runs, faults = 0, todo[what]
            while faults:
                runs += 1
                self.assertLess(runs, self.positions, "the positions do not get hit: %s" % faults)
                self.change()
                fresh = self.models("new")
                now, later = faults[:2 * DISKS], faults[2 * DISKS:]
                code, left = self.one_run(what, now, models, fresh)
                # A position that a short connection did not come to is tried as an earlier one.
                for fault in left:
                    fault.number = fault.number * 3 // 4
                faults = later + left
                if what == "first":
                    shutil.rmtree(self.mirror)
                elif code == 0:
                    for slot in self.slots:
                        os.replace(fresh[slot], models[slot])
        self.assert_checked()
        self.report()

    def report(self):
        print("seed %d: %d positions; %d times a connection was given up; exit codes %s" % (
            self.seed, sum(self.fired.values()), self.noticed, dict(self.codes)))
        for kind, count in sorted(self.fired.items()):
            print("    %5d  %s" % (count, kind))
        self.assertEqual(sum(self.fired.values()), self.positions)


if __name__ == "__main__":
    tool.main(RecordFaults, __doc__, positions=(500, "how many"))
