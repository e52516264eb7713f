#!/usr/bin/env python3
"""Every failpoint outside of the store fails once, and then from its first time on: the right exit
code, a right mirror, and a host that is clean, at the latest after the next cleanup.

    points.py [--few] [--seed N]
"""

import os
import time

import tool
from faults import FaultTest, Target

# point: exit code when it fails once, and when always.  What is tried again may succeed (0); what
# cannot be taken back now is left for cleanup (9).
POINTS = {
    "journal.agent.intent": (1, 1),
    "journal.agent.created": (1, 1),
    "journal.agent.removing": (0, 0),
    "journal.agent.gone": (9, 9),
    "journal.snapshot.intent": (1, 1),
    "journal.snapshot.created": (1, 1),
    "journal.snapshot.reading": (1, 1),
    "journal.snapshot.removing": (0, 0),
    "journal.snapshot.gone": (9, 9),
    "place.folder": (1, 1),
    "place.uploaded": (1, 1),
    "place.remove": (9, 9),
    "place.removed": (9, 9),
    "snapshot.create": (1, 1),
    "snapshot.asked": (1, 1),
    "snapshot.remove": (0, 9),
    "snapshot.removed": (0, 0),
    "session.start": (1, 1),
    "transfer.disk-open": (1, 1),
    "transfer.dial": (0, 0),
    "transfer.stream-open": (1, 1),
    "listener.listen": (1, 1),
    "listener.proved": (0, 0),
    "read.settle": (1, 1),
}
FEW = ("journal.snapshot.created", "transfer.dial")


class Points(FaultTest):
    few = False

    def setUp(self):
        super().setUp()
        self.make_host()
        self.addCleanup(self.drop_foreign)
        self.refreshed = Target(self.path("refreshed"))
        self.run_whole(self.refreshed, "at the start")

    def one(self, point, action, expected):
        message = "seed %d: %s:1:%s" % (self.seed, point, action)
        self.guest_writes()
        self.last_fresh = self.model()
        r = self.start(self.refreshed, "refresh", "%s:1:%s" % (point, action)).end()
        self.assertEqual(r.code, expected, "%s\n%s" % (message, r))
        self.assertEqual(r.summary["exit_code"], r.code)
        self.check_offline(self.refreshed, self.last_fresh, r.code if r.code != 9 else 0, message)
        if r.code == 0:
            self.assert_host_clean(message)
        self.cleanup()
        self.assert_host_clean(message + ", then cleanup")
        self.run_whole(self.refreshed, message)
        self.forget_truths(self.refreshed)

    def test_every_point(self):
        for point, codes in POINTS.items():
            if self.few and point not in FEW:
                continue
            for action, expected in zip(("error", "errors"), codes):
                with self.subTest(point=point, action=action):
                    began = time.monotonic()
                    self.one(point, action, expected)
                    print("%s, %s: exit %d, %.1f s" % (point, action, expected,
                                                       time.monotonic() - began), flush=True)

    def test_all_points_are_come_to(self):
        """A whole run passes each of them: none is a name that nothing has any more."""
        log = self.path("points")
        os.environ["VMFERRY_FAILPOINT_LOG"] = log
        try:
            self.guest_writes()
            self.run_whole(self.refreshed, "with a log of points")
        finally:
            del os.environ["VMFERRY_FAILPOINT_LOG"]
        with open(log, encoding="ascii") as f:
            seen = set(f.read().split())
        self.assertEqual(set(POINTS) - seen, set())


if __name__ == "__main__":
    tool.main(Points, __doc__, few=(False, "the short form"))
