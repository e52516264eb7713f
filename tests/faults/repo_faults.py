"""What the tools share that let vmferry fail on a repository: what its generations must be, two
machines with a state directory and a cache each, and the questions after each failure: does the
repository check clean, is everything there that was acknowledged, is nothing there by halves?
"""

import collections
import os
import random
import shutil
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration/repo"))

import harness  # noqa: E402
from harness import KB, MB  # noqa: E402,F401

PROGRAM = os.path.join(harness.mirror.BIN, "vmferry-faults")
harness.VMFERRY = harness.mirror.VMFERRY = PROGRAM

SMALL_BLOCK = 16 * KB       # of the repositories here: many blocks on small disks
KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)


class Store:
    """A repository and what its generations must be: truths = {vm: {number: [file of each disk]}}.
    """

    def __init__(self, path, keys=()):
        self.path = path
        self.keys = keys
        self.truths = collections.defaultdict(dict)
        self.given = collections.Counter()      # the highest number that a VM ever had

    def numbers(self, vm):
        return sorted(self.truths[vm])


class RepoFaults:
    """For a test case that has self.vmferry, self.command and self.path (harness.RepoCalls)."""

    seed = 1

    def begin(self):
        self.rng = random.Random(self.seed)
        self.machines = [os.path.join(self.work, "state"), os.path.join(self.work, "state-2")]
        self.copies = 0

    # images

    def small_content(self):
        """Blocks of few contents, so that some die, come back, and stand on several disks."""
        return random.Random(self.rng.randrange(60)).randbytes(SMALL_BLOCK)

    def scratch(self, path, pieces=6):
        """Somebody writes into an image."""
        blocks = os.path.getsize(path) // SMALL_BLOCK
        with open(path, "r+b") as f:
            for _ in range(self.rng.randrange(1, pieces)):
                f.seek(self.rng.randrange(blocks) * SMALL_BLOCK)
                f.write(bytes(SMALL_BLOCK) if self.rng.random() < 0.2 else self.small_content())

    def keep(self, paths):
        """Copies of images as they are now."""
        out = []
        for path in paths:
            self.copies += 1
            out.append(shutil.copy(path, self.path("truth-%d" % self.copies)))
        return out

    def drop(self, paths):
        for path in paths:
            os.unlink(path)

    # commands

    def words_on(self, store, command, *words):
        return [command, "--json", "--repo", store.path, *store.keys, *map(str, words)]

    def on(self, store, command, *words, code=0, machine=0):
        self.state = self.machines[machine]
        return self.vmferry(*self.words_on(store, command, *words), code=code)

    def start(self, words, machine=0, order=None, prefix=()):
        """Let it run beside us; `order` arms a failpoint."""
        self.state = self.machines[machine]
        if order:
            os.environ["VMFERRY_FAILPOINT"] = order
        try:
            running = harness.Running([*prefix, *self.command(*words)])
        finally:
            os.environ.pop("VMFERRY_FAILPOINT", None)
        self.addCleanup(running.signal)
        return running

    # what must be

    def listed(self, store, machine=0):
        out = collections.defaultdict(list)
        for g in self.on(store, "list", machine=machine).array:
            out[g["vm"]].append(g["generation"])
        return out

    def assert_restored(self, store, vm, number, message, machine=0):
        self.copies += 1
        out = self.path("out-%d" % self.copies)
        r = self.on(store, "restore", "%s@%d" % (vm, number), "--output", out, code=None,
                    machine=machine)
        self.assertEqual(r.code, 0, "%s: %s@%d: %s" % (message, vm, number, r))
        images = sorted(n for n in os.listdir(out) if n.endswith(".raw"))
        truths = store.truths[vm][number]
        self.assertEqual(len(images), len(truths), message)
        for image, truth in zip(images, truths):
            self.assertTrue(harness.same_bytes(os.path.join(out, image), truth),
                            "%s: %s@%d: %s is not what it was" % (message, vm, number, image))
        shutil.rmtree(out)

    def assert_all_restore(self, store, message, machine=0):
        for vm in store.truths:
            for number in store.truths[vm]:
                self.assert_restored(store, vm, number, message, machine)

    def assert_clean(self, store, message, *words, machine=0):
        r = self.on(store, "check", *words, code=None, machine=machine)
        self.assertEqual(r.code, 0, "%s: %s" % (message, r))

    def reconcile(self, store, message, candidates=None, may_go=None, machine=0):
        """Compare the list with the model.  candidates: {vm: truths of the backups under way};
        may_go: {vm: numbers that somebody forgets}.  Returns the new ones, {vm: [number]}."""
        listed = self.listed(store, machine)
        new = collections.defaultdict(list)
        for vm in set(listed) | set(store.truths):
            before, now = set(store.truths[vm]), set(listed[vm])
            lost = before - now - set((may_go or {}).get(vm, ()))
            self.assertEqual(lost, set(), "%s: %s: acknowledged generations are missing" % (
                message, vm))
            self.assertFalse(before and not now, "%s: %s has none left" % (message, vm))
            for number in sorted(now - before):
                waiting = (candidates or {}).get(vm, [])
                self.assertTrue(waiting, "%s: %s@%d is nobody's" % (message, vm, number))
                self.assertGreater(number, store.given[vm], "%s: %s: a number again" % (
                    message, vm))
                store.truths[vm][number] = self.keep(waiting.pop(0))
                new[vm].append(number)
            for number in before - now:
                self.drop(store.truths[vm].pop(number))
            store.given[vm] = max([store.given[vm], *now])
        return new
