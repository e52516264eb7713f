#!/usr/bin/env python3
"""What others do in the midst of a run that uses a change hint and keeps its own snapshot, at each
command that the run gives, and while its agent reads; in the meantime the guest writes.

    orders_test.py                a part of the cases: each event, some moments, both forms
    HINTS=all orders_test.py      each event at each moment, for both forms: an hour

After each case the image is what the disks held at the run's snapshot, or what it was before when the
run failed; nobody else's snapshots are touched; and the next run ends well, with a right image and
one snapshot kept.
"""

import harness
from harness import SECTOR, VM

SAMPLE = 5                      # cases of each form when it is to be short
STALL_MS = 120
READING = "reading"
# What a run may end with that somebody got in the way of.
FAILED = (3, 4, 6, 9, 12)


class Orders(harness.HintTest):
    """A user's snapshot lies below ours from the start."""

    def setUp(self):
        super().setUp()
        self.users = self.foreign("the user's")
        self.run_retained(source="full")
        self.host.ask("guest-start", vm=VM, rate=100, seed=5)

    def events(self):
        """{name: requests}; those that only write must not hinder the run."""
        return {
            "writes": self.writes(),
            "another snapshot": [self.create("theirs")] + self.writes(2),
            "another snapshot, removed again": [
                self.create("theirs"), *self.writes(2),
                {"do": "snapshot-remove", "vm": VM, "id": self.next_number(+1)}],
            "off": [{"do": "power", "vm": VM, "state": "off"}],
            "off and on": [{"do": "power", "vm": VM, "state": s} for s in ("off", "on")] +
            self.writes(2),
            "reverted to ours": [self.revert(self.kept()), *self.writes(2)],
            "reverted to the user's": [self.revert(self.users), *self.writes(2)],
            "ours removed": [self.remove(self.kept())] + self.writes(2),
            "all deleted": [self.remove(self.users), self.remove(self.kept()),
                            self.remove(self.next_number()), {"do": "consolidate", "vm": VM},
                            *self.writes(2)],
        }

    def next_number(self, more=0):
        """The number that the run's snapshot will have."""
        made = self.host.ask("snapshots-made", vm=VM)
        return made[-1]["id"] + 1 + more

    @staticmethod
    def create(name):
        return {"do": "snapshot-create", "vm": VM, "name": name}

    @staticmethod
    def remove(number):
        return {"do": "snapshot-remove", "vm": VM, "id": number}

    @staticmethod
    def revert(number):
        return {"do": "snapshot-revert", "vm": VM, "id": number}

    # moments

    def commands_of_a_run(self):
        """How many commands a run gives before it creates its snapshot, and from then on."""
        before = len(self.host.calls())
        self.run_retained(source=None)
        self.assertGreater(self.host.vm(VM)["writes"], 0)
        words = [" ".join(c["argv"]) for c in self.host.calls()[before:]]
        create = next(i for i, w in enumerate(words) if "snapshot.create" in w)
        return create, len(words) - create

    def arm(self, moment, requests):
        """moment: the number of a command from the run's start on, or READING."""
        if moment != READING:
            self.at("", requests, nth=moment + 1)
            return
        # The agent waits when it reads the header of the delta above our kept snapshot.
        path = self.frozen_soon()
        self.knob("read-fault", "stall:%d@%s:0+%d" % (STALL_MS, path, SECTOR))
        self.host.ask("event-when-open", path=path, requests=requests)

    def frozen_soon(self):
        """The data file of the link that the next snapshot freezes."""
        leaf = next(d["path"] for d in self.host.vm(VM)["disks"] if d["slot"] == "scsi0:0")
        kind = "sesparse" if self.form == "seSparse" else "delta"
        return leaf[:-len(".vmdk")] + "-%s.vmdk" % kind

    # one case

    def case(self, name, moment):
        requests = self.events()[name]
        old, snapshot = self.newest(), self.made_last()
        self.arm(moment, requests)
        r = self.run_mirror(VM, "--retain-snapshot", code=None)
        happened = self.events_happened()
        if moment == READING:
            self.knob("read-fault", "")
        self.assertIn(r.code, (0,) if name == "writes" else (0, *FAILED), str(r))
        self.assert_believed(r)
        if self.newest() > old:
            self.assert_images()
        else:
            self.assertNotEqual(r.code, 0, str(r))
            self.assert_images(snapshot)
        self.tidy()
        return r, happened

    def tidy(self):
        """The VM goes on as before, with a user's snapshot below and none above.  Where a consolidation
        was hindered, its user has done what he was told."""
        if self.host.vm(VM)["consolidation_needed"]:
            self.host.ask("consolidate", vm=VM)
        if self.host.vm(VM)["power"] != "on":
            self.host.power(VM, "on")
            self.host.ask("guest-start", vm=VM, rate=100, seed=self.made_last())
        left = {s["name"] for s in self.theirs()}
        self.assertLessEqual(left, {"the user's", "theirs"})
        self.guest_writes(2)
        self.run_retained(source=None)
        above = [s["id"] for s in self.theirs() if s["name"] == "theirs"]
        for number in above:
            self.host.ask("snapshot-remove", vm=VM, id=number)
        if not self.theirs():
            self.host.ask("snapshot-remove", vm=VM, id=self.kept())
            self.users = self.foreign("the user's")
        if above or self.users > self.made_last():
            self.run_retained(source=None)
        self.not_an_audit()

    def moments(self, create, after):
        """All of them: the one before the snapshot, and each command from there on."""
        return list(range(create, create + after)) + [READING]

    def cases(self):
        moments = self.moments(*self.commands_of_a_run())
        names = list(self.events())
        every = [(name, moment) for name in names for moment in moments]
        if harness.ALL:
            return every
        # Each event, spread over the moments; another start for each form.
        step = max(1, len(moments) // SAMPLE)
        first = 0 if self.form == "seSparse" else step // 2 + 1
        start = 0 if self.form == "seSparse" else SAMPLE
        return [(names[(start + i) % len(names)], moments[(first + i * step) % len(moments)])
                for i in range(SAMPLE)] + [("writes", READING)]

    def all_cases(self):
        self.not_an_audit()
        used = missed = 0
        for name, moment in self.cases():
            with self.subTest(name, moment=moment, form=self.form):
                r, happened = self.case(name, moment)
                missed += not happened
                used += r.code == 0 and r.vm()["change_source"] == "retained-snapshot"
                if name == "writes":
                    self.assertEqual(r.vm()["change_source"], "retained-snapshot", str(r))
        self.assertGreater(used, 0)
        self.assertLess(missed, 3, "events that found no moment")
        self.host.ask("guest-stop", vm=VM)
        self.assert_checked()


class OfSeSparse(Orders):
    def test_orders(self):
        self.all_cases()


class OfCowd(Orders):
    form = "vmfsSparse"

    def test_orders(self):
        self.all_cases()


if __name__ == "__main__":
    harness.main()
