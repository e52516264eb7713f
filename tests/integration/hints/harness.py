"""What the tests of change hints share: a VM whose snapshot is kept, runs that may use it, what others
do in the meantime, and what must hold after each run.  The rest is ../mirror/harness.py.

With HINTS=all in the environment each of these tests runs its long form.
"""

import glob
import importlib.util
import os
import random
import re
import shutil

HERE = os.path.dirname(os.path.abspath(__file__))


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


repo = load("repo_harness", os.path.join(HERE, "..", "repo", "harness.py"))
mirror = repo.mirror
MB, BLOCK, BIN = mirror.MB, mirror.BLOCK, mirror.BIN
main = mirror.main
same_bytes = mirror.same_bytes

VM = "web 01"
DISKS = {"scsi0:0": 6 * MB, "scsi0:1": MB + MB // 2 + 512}
AUDIT_EVERY = 7         # generations
SECTOR = 512
INTENT_SECONDS = 1900   # longer than the reaper waits for a snapshot that was asked for
ALL = os.environ.get("HINTS") == "all"


def by_hand(test):
    """Only with HINTS=all; otherwise it does not exist, for a skipped test is a failure."""
    return test if ALL else None


def data_ranges(path):
    """(start, end) of what a sparse file stores."""
    with open(path, "rb") as f:
        at, out = 0, []
        while True:
            try:
                start = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                return out
            at = os.lseek(f.fileno(), start, os.SEEK_HOLE)
            out.append((start, at))


def same_data(a, b):
    """Equal bytes, of files too large to be read whole."""
    if os.path.getsize(a) != os.path.getsize(b):
        return False
    with open(a, "rb") as x, open(b, "rb") as y:
        return all(os.pread(x.fileno(), end - start, start) == os.pread(y.fileno(), end - start,
                                                                        start)
                   for start, end in data_ranges(a) + data_ranges(b))


class HintTest(mirror.MirrorTest):
    """The VM has two disks; `form` is that of its deltas."""

    form = "seSparse"

    def setUp(self):
        super().setUp()
        self.host.ask("events-clear")
        self.host.ask("uptime", seconds=86400)
        self.random = random.Random(self.id())
        self.generation = 0
        self.vmid = self.make_vm()

    def make_vm(self, name=VM):
        return self.add_vm(name, [self.disk_of(size, [(0, size // 2)], seed=n)
                                  for n, size in enumerate(DISKS.values())], deltas=self.form,
                           dir="vm")

    def check_host(self):
        """As the mirror's tests, but that one snapshot of ours may be kept for each VM."""
        self.host.ask("events-clear")
        left = [[s["name"] for s in self.ours(v["vmid"])] for v in self.host.state()["vms"]]
        for v in self.host.state()["vms"]:
            if v["power"] == "on":
                self.host.power(v["vmid"], "off")
            self.host.ask("vm-remove", vm=v["vmid"])
        super().check_host()
        for names in left:
            self.assertLessEqual(len(names), 1)
            self.assertTrue(all("-keep-" in n for n in names), names)

    # what the guest does

    def writes(self, count=4):
        """Requests: some writes of each kind, none of them in whole blocks, on both disks."""
        out = []
        for _ in range(count):
            slot = self.random.choice(sorted(DISKS))
            length = self.random.choice((SECTOR, 700 * SECTOR // 512, 4096, 70000 // 512 * 512))
            offset = self.random.randrange(0, (DISKS[slot] - length) // SECTOR) * SECTOR
            how = self.random.choice(({"seed": self.random.randrange(1 << 30)},
                                      {"seed": self.random.randrange(1 << 30)}, {"zero": True},
                                      {"unmap": True}))
            out.append(dict(how, do="guest-write", vm=VM, slot=slot, offset=offset, length=length))
        return out

    def do(self, requests):
        for request in requests:
            fields = dict(request)
            self.host.ask(fields.pop("do"), **fields)

    def guest_writes(self, count=4):
        self.do(self.writes(count))

    # snapshots

    def ours(self, vm=VM):
        return [s for s in self.host.snapshots(vm) if s["name"].startswith("vmferry-")]

    def theirs(self, vm=VM):
        """Without their parents, which ours may be."""
        return [{k: v for k, v in s.items() if k != "parent"} for s in self.host.snapshots(vm)
                if not s["name"].startswith("vmferry-")]

    def kept(self):
        found = [s["id"] for s in self.ours() if "-keep-" in s["name"]]
        self.assertEqual(len(found), 1, self.host.snapshots(VM))
        return found[0]

    def made_last(self, vm=VM):
        """The number of the snapshot that the last run made; 0: none was ever made."""
        made = [s["id"] for s in self.host.ask("snapshots-made", vm=vm)
                if s["name"].startswith("vmferry-")]
        return made[-1] if made else 0

    def foreign(self, name="theirs", vm=VM):
        return self.host.ask("snapshot-create", vm=vm, name=name)

    # runs

    def run_store(self, *words, code=0):
        return self.run_mirror(*words, code=code)

    def run_retained(self, *options, source="retained-snapshot", code=0, kept=True):
        """A run that keeps its snapshot: the image is what the disks held at that snapshot, one
        snapshot of ours is left, and nobody else's is touched."""
        theirs = self.theirs()
        before = self.made_last()
        r = self.run_store(VM, "--retain-snapshot", *options, code=code)
        self.assert_believed(r)
        if code in (0, 9):
            self.generation = r.vm()["generation"]
            if source is not None:
                self.assert_source(r, source)
            self.assertGreater(self.made_last(), before)
            self.assert_images()
        self.assertEqual(self.theirs(), theirs)
        if kept and code == 0:
            self.assertEqual([s["id"] for s in self.ours()], [self.made_last()], str(r))
        return r

    def assert_believed(self, r):
        """The blocks that are read to check a hint are few on a real disk, and most of these small
        ones: that they find it wrong is the last defence, and comes to work only in the test of it."""
        self.assertNotIn("hints are not used any more", r.err)

    def assert_source(self, r, source):
        """What was to tell what changed; every 7th generation it is an audit."""
        if r.vm()["generation"] % AUDIT_EVERY == 0 and source in ("retained-snapshot", "digest"):
            source = "audit"
        self.assertEqual(r.vm()["change_source"], source, str(r))

    def assert_images(self, snapshot=None, message=""):
        for slot in DISKS:
            self.assert_image(VM, slot, snapshot=snapshot or self.made_last(), message=message)

    def not_an_audit(self, of=1):
        """Let none of the next runs be the 7th of its store."""
        while (self.generation + of) % AUDIT_EVERY < of:
            self.run_retained()

    def ready(self):
        """A generation whose snapshot is kept, and a guest that has written since."""
        self.run_retained(source=None)
        self.not_an_audit()
        self.guest_writes()

    def newest(self):
        """The number of the store's newest generation; 0: there is none."""
        return self.list()[-1]["generation"] if os.path.exists(self.mirror) else 0

    # the receiver's own files

    def records(self):
        return sorted(glob.glob(os.path.join(self.state, "journal", "*.kept")))

    def age_intents(self):
        """Snapshots that were never asked for: as if the half hour had passed in which they may come
        late."""
        for path in glob.glob(os.path.join(self.state, "journal", "*.entry")):
            with open(path, encoding="utf-8") as f:
                text = f.read()
            if "state=intent" not in text:
                continue
            with open(path, "w", encoding="utf-8") as f:
                f.write(re.sub(r"(?m)^changed=(\d+)$", lambda m: "changed=%d" % (
                    int(m.group(1)) - INTENT_SECONDS), text))

    def copy_of(self, place, name):
        """A folder as it is now, to be put back by restore_copy."""
        shutil.copytree(place, self.path(name), symlinks=True)
        return self.path(name)

    @staticmethod
    def put_back(copy, place):
        shutil.rmtree(place)
        shutil.copytree(copy, place, symlinks=True)

    # what others do

    def at(self, match, requests, nth=1, when="before"):
        self.host.ask("event-add", match=match, requests=requests, nth=nth, when=when)

    def events_happened(self):
        events = self.host.ask("events")
        self.host.ask("events-clear")
        return [e for e in events if e["fired"]]
