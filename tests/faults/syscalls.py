#!/usr/bin/env python3
"""A refresh whose system calls fail, by strace -e inject: killed at the nth fsync, rename or unlink,
EIO at the nth fsync, ENOSPC from the nth write on; and, by a preloaded library, writes that take
only a part.  After each the mirror is checked without the host.

    syscalls.py [--few] [--seed N]
"""

import collections
import os
import signal

import faults
import tool
from faults import FaultTest, Target

SHORT_IO = os.path.join(faults.harness.BIN, "faults-shortio.so")
MOST = 200              # no refresh of this size makes so many calls of one kind

# name: (calls, what is injected); N is put in.
CASES = {
    "killed at fsync": ("fsync", "signal=SIGKILL:when={}"),
    "killed at rename": ("renameat,renameat2", "signal=SIGKILL:when={}"),
    "killed at unlink": ("unlinkat", "signal=SIGKILL:when={}"),
    "EIO at fsync": ("fsync", "error=EIO:when={}"),
    "ENOSPC from write": ("pwrite64,fallocate", "error=ENOSPC:when={}+"),
    "EIO from write": ("pwrite64", "error=EIO:when={}+"),
}
# Positions of the short form; a case that has fewer is no failure.
FEW = {"killed at fsync": (3, 9), "killed at rename": (2,), "killed at unlink": (4,),
       "EIO at fsync": (2, 6), "ENOSPC from write": (1,)}


class SystemCalls(FaultTest):
    few = False

    def injected_run(self, target, case, n):
        """A refresh with the nth call spoiled; its exit code, and whether that was come to."""
        calls, what = CASES[case]
        log = self.path("strace")
        prefix = ["strace", "-f", "-qq", "-o", log, "-e", "trace=" + calls,
                  "-e", "inject=%s:%s" % (calls, what.format(n))]
        code = self.start(target, "refresh", None, prefix).end().code
        with open(log, encoding="utf-8", errors="replace") as f:
            text = f.read()
        os.unlink(log)
        return code, "INJECTED" in text or "killed by SIGKILL" in text

    def one(self, target, case, n):
        message = "seed %d: %s %d" % (self.seed, case, n)
        self.guest_writes()
        self.last_fresh = self.model()
        code, hit = self.injected_run(target, case, n)
        message += ", exit %d" % code
        if not hit:
            self.assertEqual(code, 0, message)
        elif "killed" in case:
            self.assertEqual(code, -signal.SIGKILL, message)
        else:
            # Nothing, where the call was only for tidying; else what the error means.
            self.assertIn(code, (0, 1, 4, 8, 9), message)
        self.codes[(case, code)] += 1
        self.check_offline(target, self.last_fresh, code, message)
        self.tidy(target, "refresh", message)
        self.forget_truths(target)
        return hit

    def setUp(self):
        super().setUp()
        self.codes = collections.Counter()
        self.make_host()
        self.addCleanup(self.drop_foreign)
        self.refreshed = Target(self.path("refreshed"))
        self.run_whole(self.refreshed, "at the start")

    def tearDown(self):
        for (case, code), count in sorted(self.codes.items()):
            print("    %4d  %s, exit %d" % (count, case, code))
        super().tearDown()

    def test_calls(self):
        for case in CASES:
            hits = 0
            for n in FEW.get(case, ()) if self.few else range(1, MOST):
                if not self.one(self.refreshed, case, n):
                    break
                hits += 1
            else:
                self.assertTrue(self.few, "%s never ends" % case)
            print("%s: %d positions" % (case, hits), flush=True)
            if case in FEW:
                self.assertGreater(hits, 0, case)

    def test_short_writes(self):
        """Writes that take a part, or are interrupted, change nothing."""
        count = self.path("spoiled")
        for _ in range(2 if self.few else 20):
            self.guest_writes()
            self.last_fresh = self.model()
            code = self.start(self.refreshed, "refresh", None, [
                "env", "LD_PRELOAD=" + SHORT_IO, "FAULTS_SHORTIO=" + count]).end().code
            self.assertEqual(code, 0)
            with open(count, encoding="ascii") as f:
                self.assertGreater(int(f.read()), 20)
            os.unlink(count)
            self.codes[("short writes", code)] += 1
            self.check_offline(self.refreshed, self.last_fresh, code, "short writes")


if __name__ == "__main__":
    # With sanitizers: no search for leaks below strace, and a library may come before theirs.
    os.environ["ASAN_OPTIONS"] = ":".join(filter(None, (
        os.environ.get("ASAN_OPTIONS"), "detect_leaks=0", "verify_asan_link_order=0")))
    tool.main(SystemCalls, __doc__, few=(False, "the short form"))
