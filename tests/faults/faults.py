"""What the tools share that let vmferry fail against a look-alike: a VM with its truths, runs of the
program with failpoints, and the two questions after each: is the mirror right, without the host,
and is the host clean after the next run?
"""

import collections
import glob
import os
import random
import re
import shutil
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration/mirror"))

import harness  # noqa: E402
from harness import MB  # noqa: E402

harness.VMFERRY = os.path.join(harness.BIN, "vmferry-faults")

VM = "web 01"
SIZES = {"scsi0:0": 3 * MB, "scsi0:1": MB + MB // 2 + 512}
KEEP = 2
INTENT_SECONDS = 1900       # longer than the reaper waits for a snapshot that was asked for
FOREIGN = "vmferry-0123456789abcdef-run-" + "f" * 32


class Target:
    """A mirror and what its generations must be: {number: {slot: file}}."""

    def __init__(self, folder):
        self.dir = folder
        self.truths = {}

    def newest(self):
        return max(self.truths, default=0)


class FaultTest(harness.MirrorTest):
    seed = 1

    def setUp(self):
        super().setUp()
        self.rng = random.Random(self.seed)
        self.found = collections.Counter()      # what the disk showed after a kill
        self.models = 0
        self.waiting = set()                    # intents of earlier runs, which nothing came of
        self.last_fresh = None                  # what the generation under way must be

    # the host

    def make_host(self):
        self.add_vm(VM, [self.disk_of(size, [(0, size // 2)], seed=n)
                         for n, size in enumerate(SIZES.values())])
        self.add_vm("other", [self.disk_of(MB)])
        self.host.ask("snapshot-create", vm="other", name=FOREIGN)
        self.host.ask("snapshot-create", vm="other", name="before the update")
        self.foreign = self.host.snapshots("other")

    def drop_foreign(self):
        for s in reversed(self.host.snapshots("other")):
            self.host.ask("snapshot-remove", vm="other", id=s["id"])

    def guest_writes(self):
        for slot, size in SIZES.items():
            for _ in range(self.rng.randrange(2, 8)):
                length = self.rng.randrange(1, 129) * 512
                offset = self.rng.randrange(0, (size - length) // 512) * 512
                seed = None if self.rng.random() < 0.2 else self.rng.randrange(1, 1 << 30)
                self.scribble(VM, slot, [(offset, length)], seed)

    def model(self):
        """What the disks hold now; nobody writes while a run is at work."""
        self.models += 1
        return {slot: self.truth(VM, slot, None, "model-%d-%s" % (self.models, slot))
                for slot in SIZES}

    def let_host_settle(self):
        """What was under way on the host has ended.  After a reboot its VMs are on again."""
        deadline = time.monotonic() + 20
        while self.host.ask("processes") or any(v["busy"] for v in self.host.state()["vms"]):
            self.assertLess(time.monotonic(), deadline, "the host does not come to rest")
            time.sleep(0.02)

    def power_on(self):
        for v in self.host.state()["vms"]:
            if v["power"] != "on":
                self.host.power(v["vmid"], "on")

    # runs

    def start(self, target, op, order, prefix=()):
        self.mirror = target.dir
        if order:
            os.environ["VMFERRY_FAILPOINT"] = order
        try:
            if op == "cleanup":
                running = harness.Running([*prefix, *self.command("cleanup", "--json", self.target)])
            else:
                running = harness.Running([*prefix, *self.command(*self.mirror_words(
                    VM, "--keep", str(KEEP), "--lock-wait", "20s"))])
        finally:
            os.environ.pop("VMFERRY_FAILPOINT", None)
        self.addCleanup(running.signal)
        return running

    # what it left

    def journal(self):
        return set(glob.glob(os.path.join(self.state, "journal/*.entry")))

    def entries(self, paths=None):
        """{kind: [state]} of the journal's entries."""
        out = collections.defaultdict(list)
        for path in self.journal() if paths is None else paths:
            with open(path, encoding="utf-8") as f:
                lines = dict(line.rstrip("\n").split("=", 1) for line in f if "=" in line)
            out[lines["kind"]].append(lines["state"])
        return out

    def store_shows(self, target):
        folder = os.path.join(target.dir, VM)
        if not os.path.isdir(folder):
            part = os.path.join(target.dir, ".%s.part" % VM)
            if not os.path.isdir(part):
                return "no mirror"
            done = glob.glob(os.path.join(glob.escape(part), ".vmferry/generation-*"))
            return "part complete" if done else "part"
        store = os.path.join(glob.escape(folder), ".vmferry")
        number = target.newest()
        if os.path.exists(os.path.join(folder, ".vmferry/commit")):
            there = glob.glob("%s/generation-%d" % (store, number + 1))
            return "published, commit there" if there else "committed"
        if glob.glob("%s/generation-%d" % (store, number + 1)):
            return "published"
        if glob.glob("%s/delta-%d-*.index" % (store, number)):
            return "deltas"
        return "redo" if glob.glob("%s/redo-*" % store) else "at rest"

    def age_intents(self):
        """Intents that nothing came of: as if half an hour had passed, so that the next run closes
        them and they do not pile up."""
        self.waiting = self.journal()
        for path in self.waiting:
            with open(path, encoding="utf-8") as f:
                text = f.read()
            text = re.sub(r"(?m)^changed=(\d+)$", lambda m: "changed=%d" % (
                int(m.group(1)) - INTENT_SECONDS), text)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)

    def note_disk(self, target):
        states = self.entries(self.journal() - self.waiting)
        for kind in ("snapshot", "agent"):
            for state in states.get(kind) or ["none"]:
                self.found["journal %s: %s" % (kind, state)] += 1
        self.found["store: " + self.store_shows(target)] += 1

    def check_offline(self, target, fresh, code, message):
        """The mirror is the old generation or the new one; without the host."""
        self.mirror = target.dir
        folder = os.path.join(target.dir, VM)
        if not os.path.isdir(folder):
            self.assertEqual(target.truths, {}, message + ": the mirror is gone")
            self.assertNotEqual(code, 0, message + ": success without a mirror")
            return
        self.vmferry("check", "--json", "--mirror", target.dir, "--read-data")
        newest = self.list()[-1]["generation"]
        old = target.newest()
        if newest != old:
            self.assertEqual(newest, old + 1, message)
            target.truths[newest] = fresh
        elif code == 0 and fresh is not None:
            self.fail(message + ": success without a generation")
        self.assert_target(target, message)
        if len(target.truths) > 1 and self.rng.random() < 0.34:
            self.assert_restore(target, message)

    def assert_target(self, target, message):
        self.mirror = target.dir
        self.assertFalse(os.path.exists(os.path.join(target.dir, VM, "REFRESH-INTERRUPTED")))
        for slot, path in target.truths[target.newest()].items():
            self.assert_same(self.image(slot, VM), path, message)

    def assert_restore(self, target, message):
        kept = [n for n in target.truths if n >= target.newest() - KEEP]
        number = self.rng.choice(kept)
        out = self.path("restored")
        self.vmferry("restore", "%s@%d" % (VM, number), "--mirror", target.dir, "--output", out)
        for slot, path in target.truths[number].items():
            self.assert_same(os.path.join(out, "disk-%s.raw" % slot.replace(":", "-")), path,
                             "%s: generation %d" % (message, number))
        shutil.rmtree(out)

    # and the next run

    def assert_host_clean(self, message):
        self.assertEqual(self.leftovers()["processes"], [], message)
        left = [f for f in self.leftovers()["files"] if "vmferry" in f]
        self.assertEqual(left, [], message)
        self.assertEqual(self.host.snapshots(VM), [], message)
        self.assertEqual(self.host.snapshots("other"), self.foreign, message)
        self.assertFalse(self.host.vm(VM)["consolidation_needed"], message)
        for kind, states in self.entries().items():
            # What never was on the host may wait for half an hour in case it comes late.
            self.assertEqual((kind, set(states)), ("snapshot", {"intent"}), message)

    def run_whole(self, target, message):
        fresh = self.model()
        self.mirror = target.dir
        r = self.run_mirror(VM, "--keep", str(KEEP), code=None)
        self.assertEqual(r.code, 0, "%s: %s" % (message, r))
        number = r.vm()["generation"]
        if target.newest() == 0 and number == 2:
            target.truths[1] = self.last_fresh      # it had only its rename left
        self.assertEqual(number, target.newest() + 1, message)
        target.truths[number] = fresh
        self.assert_target(target, message + ", then a whole run")
        self.age_intents()

    def theirs_stays(self, message):
        """Somebody takes a snapshot above the one that we left: ours goes, theirs stays."""
        self.host.ask("snapshot-create", vm=VM, name="theirs")
        self.cleanup(code=None)
        names = [s["name"] for s in self.host.snapshots(VM)]
        self.assertEqual(names, ["theirs"], message)
        self.host.ask("snapshot-remove", vm=VM, id=self.host.snapshots(VM)[0]["id"])
        self.found["a stranger's snapshot above ours"] += 1

    def tidy(self, target, op, message):
        if "intent" in self.entries().get("snapshot", ()):
            self.let_host_settle()
        self.power_on()
        if self.host.snapshots(VM) and self.rng.random() < 0.1:
            self.theirs_stays(message)
        if op == "cleanup" or self.rng.random() < 0.3:
            r = self.cleanup(code=None)
            self.assertEqual(r.code, 0, "%s: %s" % (message, r))
            self.assert_host_clean(message + ", then cleanup")
        if self.rng.random() < 0.5:
            self.guest_writes()
        self.run_whole(target, message)
        self.assert_host_clean(message + ", then a whole run")

    def forget_truths(self, target):
        for number in [n for n in target.truths if n < target.newest() - KEEP]:
            for path in target.truths.pop(number).values():
                if os.path.exists(path):
                    os.unlink(path)
