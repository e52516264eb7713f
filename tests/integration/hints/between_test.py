#!/usr/bin/env python3
"""What happens between two runs of which the first kept its snapshot: whether the second may take its
word for what changed, and that its image is right whatever it took."""

import os
import time
from unittest import mock

import harness
from harness import BLOCK, DISKS, MB, VM


class Between(harness.HintTest):
    """Each step starts from a snapshot that is kept."""

    def digest(self, *options, **more):
        return self.run_retained(*options, source="digest", **more)

    def step(self, what, source, act):
        """The guest writes, act happens, the guest writes: the next run compares by `source`."""
        with self.subTest(what):
            self.not_an_audit()
            self.guest_writes(2)
            act()
            self.guest_writes(2)
            self.run_retained(source=source)


class Power(Between):
    """Deltas in COWD's form; those of the other classes are seSparse."""
    form = "vmfsSparse"

    def test_reads_only_what_changed(self):
        r = self.run_retained(source="full")
        self.scribble(VM, "scsi0:0", [(2 * MB + 100 * 512, 512), (4 * MB, 3 * BLOCK)], seed=3)
        self.scribble(VM, "scsi0:0", [(BLOCK, 2 * BLOCK)])
        r = self.run_retained()
        # Two of the six blocks that changed are known to be zeros now; 64 are looked at for a check.
        self.assertEqual(r.disk()["read"], 4 * BLOCK, str(r))
        self.assertEqual(r.disk()["changed"], 6 * BLOCK)
        self.assertEqual(r.disk("scsi0:1")["changed"], 0)
        self.assertGreater(r.disk()["sampled"], 0)
        r = self.run_retained()
        self.assertEqual(r.total("read"), 0)
        self.assertEqual(r.total("changed"), 0)
        self.assert_checked()

    def test_large_disk(self):
        """The digests of what is not read are more than may be sent ahead of the reading."""
        name, slot, size = "large", "scsi0:0", 1300 * MB
        self.add_vm(name, [self.disk_of(size, [(MB, MB), (900 * MB, 3 * MB)])], deltas=self.form)
        for source in ("full", "retained-snapshot", "retained-snapshot"):
            r = self.run_mirror(name, "--retain-snapshot")
            self.assertEqual(r.vm()["change_source"], source, str(r))
            truth = self.truth(name, slot, self.made_last(name))
            self.assertTrue(harness.same_data(self.image(slot, name), truth))
            self.scribble(name, slot, [(2 * MB, 5000), (700 * MB, 2 * BLOCK)], seed=3)

    def test_power(self):
        self.ready()
        self.step("off", "retained-snapshot", lambda: self.host.power(VM, "off"))
        if harness.ALL:
            self.step("on", "retained-snapshot", lambda: self.host.power(VM, "on"))
            self.step("off and on", "retained-snapshot", self.cycle)
        else:
            self.host.power(VM, "on")
        # Under the same names nothing shows it, and nothing depends on it.
        self.step("off, a discarded delta, on", None, self.discard)
        self.step("host rebooted", "digest", self.reboot)
        if harness.ALL:
            self.host.ask("uptime", seconds=86400)
            self.run_retained(source=None)
            self.step("renumbered at a reboot", "digest", lambda: self.reboot(renumber=True))

    def cycle(self):
        self.host.power(VM, "off")
        self.host.power(VM, "on")

    def discard(self):
        self.host.power(VM, "off")
        self.host.ask("discard-leaves", vm=VM)
        self.host.power(VM, "on")

    def reboot(self, **how):
        self.host.reboot(**how)
        self.host.power(VM, "on")


class Snapshots(Between):

    def test_snapshots(self):
        user = self.foreign("below ours")
        self.guest_writes()
        self.ready()
        self.step("one above", "retained-snapshot", lambda: self.foreign("above"))
        self.step("and another", "retained-snapshot", lambda: self.foreign("above again"))
        # Our next snapshots stand on them.
        self.step("removed below ours", "digest", self.remove_above)
        self.step("made and removed", "retained-snapshot", self.made_and_removed)
        self.step("reverted to ours", "digest", lambda: self.revert(self.kept()))
        self.step("reverted to the user's", "digest", lambda: self.revert(user))
        self.step("the one below removed", "digest", lambda: self.remove(user))
        self.step("ours removed", "digest", lambda: self.remove(self.kept()))
        self.step("all deleted", "digest", self.delete_all)
        self.assert_checked()

    @harness.by_hand
    def test_another_of_its_name(self):
        """It is not ours: it is not believed, not touched, and none is kept beside it."""
        self.ready()
        self.impostor()
        number = self.kept()
        r = self.run_retained(source="digest", code=9)
        self.assertIn("it was not touched", r.err)
        self.assertEqual(self.kept(), number)
        self.remove(number)
        self.guest_writes()
        self.run_retained(source="digest")

    def remove(self, number):
        self.host.ask("snapshot-remove", vm=VM, id=number)

    def remove_above(self):
        for s in reversed([s for s in self.theirs() if s["name"].startswith("above")]):
            self.remove(s["id"])

    def made_and_removed(self):
        number = self.foreign("for a moment")
        self.guest_writes(2)
        self.remove(number)

    def revert(self, number):
        self.host.ask("snapshot-revert", vm=VM, id=number)
        self.host.power(VM, "on")

    def delete_all(self):
        for s in reversed(self.host.snapshots(VM)):
            self.remove(s["id"])
        self.host.ask("consolidate", vm=VM)

    def impostor(self):
        name = self.ours()[0]["name"]
        self.remove(self.kept())
        self.guest_writes(2)
        self.host.ask("snapshot-create", vm=VM, name=name)


class Places(Between):

    def test_the_vm_is_another(self):
        self.ready()
        self.step("moved", "digest", self.move)
        if harness.ALL:
            self.step("registered anew in its place", "digest", self.register)
        self.step("grown", "digest", self.grow)
        self.step("another disk under its name", "digest", self.replace)

    def off(self):
        self.host.power(VM, "off")

    def move(self):
        self.off()
        self.host.ask("vm-move", vm=VM, folder="another place")
        self.host.power(VM, "on")

    def register(self):
        self.off()
        vmx = self.host.vm(VM)["vmx"]
        self.host.ask("vm-unregister", vm=VM)
        self.host.ask("vm-register", vmx=vmx)
        self.host.power(VM, "on")

    def grow(self):
        """Only a disk without snapshots can: ours goes before."""
        self.off()
        self.host.ask("snapshot-remove", vm=VM, id=self.kept())
        self.host.ask("disk-grow", vm=VM, slot="scsi0:1", size=str(DISKS["scsi0:1"] + MB))
        self.host.power(VM, "on")

    def replace(self):
        self.off()
        self.host.ask("disk-replace", vm=VM, slot="scsi0:0",
                      path=self.raw(DISKS["scsi0:0"], [(MB, 2 * MB)], seed=99))
        self.host.power(VM, "on")


class OwnFiles(Between):
    """What happens to the receiver's files."""

    def test_record(self):
        self.ready()
        self.step("a bit flipped", "digest", lambda: self.change_record(b"generation=", b"generatiom="))
        self.step("no record", "digest", lambda: os.unlink(self.records()[0]))
        if harness.ALL:
            self.step("cut short", "digest", lambda: os.truncate(self.records()[0], 200))
            self.step("an empty one", "digest", lambda: os.truncate(self.records()[0], 0))

    def change_record(self, old, new):
        with open(self.records()[0], "r+b") as f:
            text = f.read()
            self.assertIn(old, text)
            f.seek(0)
            f.write(text.replace(old, new))

    def test_state_put_back(self):
        """The receiver's folder of state comes out of a backup that is a run older: it knows nothing of
        the snapshot that is kept, which may be another machine's and is for the user to remove."""
        self.ready()
        copy = self.copy_of(self.state, "old state")
        self.run_retained()
        orphan = self.kept()
        self.guest_writes()
        self.put_back(copy, self.state)
        self.run_retained(source="digest", kept=False)
        self.assertIn(orphan, [s["id"] for s in self.ours()])
        self.host.ask("snapshot-remove", vm=VM, id=orphan)
        self.guest_writes()
        self.run_retained(source="digest")      # the links below ours have changed
        self.guest_writes()
        self.run_retained()

    def test_mirror_put_back(self):
        """The store is a run older than the record; later it has another generation of the number that
        the record names."""
        self.ready()
        copy = self.copy_of(self.mirror, "old mirror")
        self.run_retained()
        self.guest_writes()
        self.put_back(copy, self.mirror)
        self.run_retained(source="digest")
        kept = self.copy_of(self.state, "state then")
        self.guest_writes()
        self.put_back(copy, self.mirror)
        self.run_mirror(VM)
        self.assert_images()
        self.put_back(kept, self.state)
        self.guest_writes()
        self.run_retained(source="digest", kept=False)

    def test_other_store(self):
        """A run for another store leaves our snapshot, keeps none, and changes nothing for ours."""
        self.ready()
        kept, ours = self.kept(), self.mirror
        self.mirror = self.path("second")
        r = self.run_mirror(VM, "--retain-snapshot")
        self.assertEqual(r.vm()["change_source"], "full")
        self.assert_images()
        self.assertEqual(self.kept(), kept)
        self.guest_writes()
        self.run_mirror(VM)
        self.assert_images()
        self.assertEqual(self.kept(), kept)
        self.guest_writes()
        self.mirror = ours
        self.run_retained()

    def test_without_the_option(self):
        """The hint is used once more, and nothing is kept."""
        self.ready()
        r = self.run_mirror(VM)
        self.assert_source(r, "retained-snapshot")
        self.assert_images()
        self.assertEqual(self.ours(), [])
        self.assertEqual(self.records(), [])

    def test_audit(self):
        """The 7th generation reads everything, and the 8th trusts the hint again."""
        seen = []
        for _ in range(8):
            self.guest_writes(1)
            r = self.run_retained(source=None)
            seen.append(r.vm()["change_source"])
        self.assertEqual(seen, ["full"] + 5 * ["retained-snapshot"] + ["audit", "retained-snapshot"])

    def test_touched_image(self):
        self.ready()
        image = self.image()
        os.chmod(image, 0o600)
        with open(image, "r+b") as f:
            f.write(b"not what the host had")
        self.digest()
        self.assert_checked()


class Limits(Between):

    def test_too_old(self):
        self.ready()
        time.sleep(1.1)
        self.digest("--max-retained-age", "1s")

    def test_quarter_of_the_room(self):
        self.ready()
        self.scribble(VM, "scsi0:0", [(0, 4 * MB)], seed=5)
        self.knob("free-space", "datastore1=%d" % (12 * MB))
        self.digest("--min-free", "1M")

    def test_clocks(self):
        """The receiver's clock jumps: at worst everything is compared."""
        shifted = os.path.join(harness.BIN, "hints-clock.so")
        self.ready()
        for shift in (90000, -20 * 86400, -90000, 20 * 86400) if harness.ALL else (-90000,):
            with self.subTest(shift):
                clock = {"LD_PRELOAD": shifted, "HINTS_CLOCK_SHIFT": str(shift),
                         # Of a sanitized build, whose runtime else insists on being the first.
                         "ASAN_OPTIONS": ":".join(filter(None, (
                             os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0")))}
                with mock.patch.dict(os.environ, clock):
                    self.run_retained(source=None)
                self.guest_writes()
        self.run_retained(source=None)

    def test_hint_that_lies(self):
        """Bytes below the kept snapshot change behind its back: seen, said, and everything read."""
        self.ready()
        base = self.host.vm(VM)["vmx"][:-len(".vmx")] + "-flat.vmdk"
        with open(self.host.root + base, "r+b") as f:
            f.write(bytes(range(256)) * (DISKS["scsi0:0"] // 256))
        before = self.image()
        r = self.run_mirror(VM, "--retain-snapshot")
        self.assertEqual(r.vm()["change_source"], "digest", str(r))
        self.assertTrue(any("hint" in w for w in r.warnings()), str(r))
        self.assertTrue(os.path.exists(before))
        self.assert_images()
        self.guest_writes()
        r = self.run_mirror(VM, "--retain-snapshot")
        self.assert_source(r, "digest")         # this host's are not believed any more
        self.assert_images()

    def test_shown_and_removed(self):
        self.ready()
        self.assertIn(self.ours()[0]["name"].rsplit("-", 1)[1], self.cleanup().out)
        self.assertEqual(len(self.ours()), 1)
        self.cleanup("--retained")
        self.assertEqual(self.ours(), [])
        self.digest()


if __name__ == "__main__":
    harness.main()
