#!/usr/bin/env python3
"""The look-alike's disks: locks, snapshots, what is frozen, what is merged."""

import itertools
import os
import shutil
import subprocess
import threading
import time

from selftest import MB, Base, main, same, wait_for
from lookalike import LookalikeError


class Disks(Base):
    """Locks, snapshots, what is frozen, what is merged."""
    shared = True

    def read(self, path, target, check=True):
        with open(target, "wb") as f:
            done = subprocess.run(self.ssh.command("cat '%s'" % path), stdout=f, timeout=60,
                                  stderr=subprocess.PIPE, check=False)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def create(self, vmid, name="s", rest=""):
        done = self.ssh.run("vim-cmd vmsvc/snapshot.create %d %s %s" % (vmid, name, rest),
                            check=False)
        return done.returncode, done.stdout.decode()

    def remove(self, vmid, uid):
        done = self.ssh.run("vim-cmd vmsvc/snapshot.remove %d %d 0" % (vmid, uid), check=False)
        return done.returncode, done.stdout.decode()

    def tree(self, vmid):
        return self.ssh.text("vim-cmd vmsvc/snapshot.get %d" % vmid)

    def test_the_disk_of_a_running_vm_is_busy(self):
        name, vmid, folder = self.vm()
        flat = "%s/%s-flat.vmdk" % (folder, name)
        done = self.read(flat, self.out("x"), check=False)
        self.assertIn(b"Device or resource busy", done.stderr)
        self.assertIn("mode 1, owner 5f", self.ssh.text("vmkfstools -D " + flat))
        self.assertIn("Failed to lock the file (16392).",
                      self.ssh.text("vmkfstools -i %s/%s.vmdk /tmp/x.vmdk" % (folder, name), False))
        self.assertEqual(self.ssh.rc("vmkfstools -i %s/%s.vmdk /tmp/x.vmdk" % (folder, name)), 255)
        self.assertIn("Failed to open virtual disk: Failed to lock the file 16392",
                      self.ssh.text("vmkfstools -t0 %s/%s.vmdk" % (folder, name), False))
        self.assertEqual(self.ssh.rc("rm -f " + flat), 1)
        self.assertEqual(self.ssh.rc("mv %s %s.x" % (flat, flat)), 1)
        self.ssh.run("cat %s/%s.vmx %s/%s.vmdk" % (folder, name, folder, name))
        self.host.power(vmid, "off")
        self.read(flat, self.out("x"))
        self.assertEqual(os.path.getsize(self.out("x")), 16 * MB)

    def test_a_snapshot_freezes_the_base_while_the_guest_writes(self):
        name, vmid, folder = self.vm(disks=[{"size": "16m"}, {"size": "5m", "thin": False}])
        self.host.ask("guest-start", vm=vmid, rate=400, seed=7)
        wait_for(lambda: self.host.vm(vmid)["writes"] > 20)
        self.assertEqual(self.create(vmid, "one"), (0, "Create Snapshot:\n"))
        before = self.host.vm(vmid)["writes"]
        wait_for(lambda: self.host.vm(vmid)["writes"] > before + 40)
        for slot, flat in (("scsi0:0", name), ("scsi0:1", name + "_1")):
            self.read("%s/%s-flat.vmdk" % (folder, flat), self.out("frozen"))
            self.host.truth(vmid, slot, self.out("truth"), "one")
            self.assertTrue(same(self.out("frozen"), self.out("truth")))
            self.host.truth(vmid, slot, self.out("now"))
            self.assertFalse(same(self.out("now"), self.out("truth")))
            shutil.copy(self.out("frozen"), self.out("kept-" + flat))
            self.assertEqual(self.ssh.rc("echo x >>%s/%s-flat.vmdk" % (folder, flat)), 1)
            self.assertIn("mode 2, owner 00000000", self.ssh.text(
                "vmkfstools -D %s/%s-flat.vmdk" % (folder, flat)))
            self.assertEqual(self.ssh.rc("cat %s/%s-000001-delta.vmdk" % (folder, flat)), 1)
        self.assertEqual(self.remove(vmid, 1), (0, "Remove Snapshot:\n"))
        self.assertEqual(self.tree(vmid), "Get Snapshot:\n")
        self.assertGreater(self.host.ask("guest-stop", vm=vmid), 50)
        self.assertNotIn("00000", self.ssh.text("ls " + folder))
        self.host.power(vmid, "off")
        for slot, flat in (("scsi0:0", name), ("scsi0:1", name + "_1")):
            self.read("%s/%s-flat.vmdk" % (folder, flat), self.out("after"))
            self.host.truth(vmid, slot, self.out("now"))
            self.assertTrue(same(self.out("after"), self.out("now")))
            # The truth of the snapshot is still to be had, though its files are gone.
            self.host.truth(vmid, slot, self.out("truth"), "1")
            self.assertTrue(same(self.out("truth"), self.out("kept-" + flat)))
            self.host.truth(vmid, slot, self.out("truth"), "last")
            self.assertTrue(same(self.out("truth"), self.out("kept-" + flat)))

    def test_the_kind_of_delta_follows_the_datastore(self):
        self.host.add_datastore("six", kind="VMFS-6")
        name, vmid, folder = self.vm(datastore="six")
        self.create(vmid)
        text = self.ssh.text("cat %s/%s-000001.vmdk" % (folder, name))
        self.assertIn('createType="seSparse"\nparentFileNameHint="%s.vmdk"\n' % name, text)
        self.assertIn('RW 32768 SESPARSE "%s-000001-sesparse.vmdk"\n' % name, text)
        base = self.ssh.text("cat %s/%s.vmdk" % (folder, name))
        cid = [line for line in base.splitlines() if line.startswith("CID=")][0][4:]
        self.assertIn("CID=%s\nparentCID=%s\n" % (cid, cid), text)
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=512, length=512, seed=1)
        text = self.ssh.text("cat %s/%s-000001.vmdk" % (folder, name))
        self.assertNotIn("\nCID=" + cid, text)
        self.assertIn("\nparentCID=" + cid, text)
        self.assertIn('scsi0:0.fileName = "%s-000001.vmdk"' % name,
                      self.ssh.text("cat %s/%s.vmx" % (folder, name)))

    def test_nested_snapshots_are_removed_in_every_order(self):
        for order in itertools.permutations((1, 2, 3)):
            name, vmid, folder = self.vm(disks=[{"size": "2m"}])
            truths = {}
            for uid in (1, 2, 3):
                self.create(vmid, "s%d" % uid)
                truths[uid] = self.out("truth%d" % uid)
                self.host.truth(vmid, "scsi0:0", truths[uid])
                for n in range(6):
                    self.host.ask("guest-write", vm=vmid, slot="scsi0:0", length=3000 + n * 5000,
                                  offset=(n * 7919 * uid * 512) % (2 * MB - 40000), seed=n * uid)
            self.host.truth(vmid, "scsi0:0", self.out("now"))
            for uid in order:
                self.assertEqual(self.remove(vmid, uid)[0], 0)
                for other in (1, 2, 3):
                    self.host.truth(vmid, "scsi0:0", self.out("t"), str(other))
                    self.assertTrue(same(self.out("t"), truths[other]), (order, uid, other))
                self.host.truth(vmid, "scsi0:0", self.out("t"))
                self.assertTrue(same(self.out("t"), self.out("now")), (order, uid))
                self.assertFalse(self.host.vm(vmid)["consolidation_needed"])
            self.assertEqual(self.tree(vmid), "Get Snapshot:\n")
            self.assertNotIn("-00000", self.ssh.text("ls " + folder))
            self.host.power(vmid, "off")
            self.read("%s/%s-flat.vmdk" % (folder, name), self.out("t"))
            self.assertTrue(same(self.out("t"), self.out("now")))

    def test_revert_and_branches(self):
        name, vmid, folder = self.vm(disks=[{"size": "2m"}])
        self.create(vmid, "a")
        self.host.truth(vmid, "scsi0:0", self.out("a"))
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=0, length=9999, seed=1)
        self.create(vmid, "b")
        self.host.truth(vmid, "scsi0:0", self.out("b"))
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=5000, length=9999, seed=2)
        self.ssh.run("vim-cmd vmsvc/snapshot.revert %d 1 1" % vmid)
        self.host.truth(vmid, "scsi0:0", self.out("now"))
        self.assertTrue(same(self.out("now"), self.out("a")))
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=MB, length=9999, seed=3)
        self.create(vmid, "c")
        for name_, file in (("a", "a"), ("b", "b")):
            self.host.truth(vmid, "scsi0:0", self.out("t"), name_)
            self.assertTrue(same(self.out("t"), self.out(file)), name_)
        self.assertEqual([s["parent"] for s in self.host.snapshots(vmid)], [0, 1, 1])
        self.host.truth(vmid, "scsi0:0", self.out("now"))
        for uid in (2, 1, 3):
            self.assertEqual(self.remove(vmid, uid)[0], 0)
            self.host.truth(vmid, "scsi0:0", self.out("t"))
            self.assertTrue(same(self.out("t"), self.out("now")))
        self.assertNotIn("-00000", self.ssh.text("ls " + folder))

    def test_a_reader_of_the_base_blocks_consolidation(self):
        probe = self.install_probe()
        name, vmid, folder = self.vm()
        self.create(vmid)
        flat = "%s/%s-flat.vmdk" % (folder, name)
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=0, length=8192, seed=1)
        holder = subprocess.Popen(self.ssh.command("%s hold %s" % (probe, flat)),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertEqual(holder.stdout.readline(), b"ok\n")
        self.host.knob("remove-while-read", "refuse")
        rc, text = self.remove(vmid, 1)
        self.assertEqual(rc, 1)
        self.assertIn("One or more disks are busy", text)
        self.assertEqual(len(self.host.snapshots(vmid)), 1)
        self.host.knob("remove-while-read", "consolidation-needed")
        rc, text = self.remove(vmid, 1)
        self.assertEqual(rc, 1)
        self.assertEqual(self.host.snapshots(vmid), [])
        self.assertIn("consolidationNeeded = true",
                      self.ssh.text("vim-cmd vmsvc/get.summary %d" % vmid))
        self.assertIn("-000001.vmdk", self.ssh.text("cat %s/%s.vmx" % (folder, name)))
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()
        # The next creation and removal brings it in order.
        self.create(vmid)
        self.assertEqual(self.remove(vmid, 2)[0], 0)
        self.assertFalse(self.host.vm(vmid)["consolidation_needed"])
        self.assertNotIn("-00000", self.ssh.text("ls " + folder))

    def test_a_reader_of_an_off_vm_blocks_power_on(self):
        probe = self.install_probe()
        name, vmid, folder = self.vm("off")
        holder = subprocess.Popen(
            self.ssh.command("%s hold %s/%s-flat.vmdk" % (probe, folder, name)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holder.stdout.readline()
        self.assertIn("Power on failed", self.ssh.text("vim-cmd vmsvc/power.on %d" % vmid, False))
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()
        self.ssh.run("vim-cmd vmsvc/power.on %d" % vmid)

    def test_what_create_can_do_wrong(self):
        _, vmid, _ = self.vm()
        self.turn("create-result", "silent")
        self.assertEqual(self.create(vmid), (0, "Create Snapshot:\n"))
        self.assertEqual(self.host.snapshots(vmid), [])
        self.host.knob("create-result", "fault")
        rc, text = self.create(vmid)
        self.assertEqual(rc, 1)
        self.assertIn("Create snapshot failed\n(vim.fault.", text)
        self.host.knob("create-result", "fault0")
        self.assertEqual(self.create(vmid)[0], 0)
        self.host.knob("create-result", "fault")
        self.turn("create-late", "2")
        self.assertEqual(self.create(vmid, "late")[0], 1)
        self.assertEqual(self.host.snapshots(vmid), [])
        tasks = self.ssh.text("vim-cmd vmsvc/get.tasklist %d" % vmid)
        task = tasks.split("vim.Task:")[-1].split("'")[0]
        self.assertIn('state = "running"', self.ssh.text("vim-cmd vimsvc/task_info " + task))
        wait_for(lambda: self.host.snapshots(vmid))
        self.assertEqual([s["name"] for s in self.host.snapshots(vmid)], ["late"])
        self.host.knob("create-result", "ok")
        self.host.knob("create-late", "0")
        self.host.knob("create-result", "busy")
        self.assertIn("Another task is already in progress.", self.create(vmid)[1])

    def test_one_operation_at_a_time(self):
        _, vmid, _ = self.vm()
        self.turn("create-delay", "1.5")
        slow = threading.Thread(target=self.create, args=(vmid, "slow"))
        slow.start()
        self.assertTrue(wait_for(lambda: self.host.vm(vmid)["busy"]))
        self.assertIn("vim.fault.TaskInProgress", self.create(vmid, "second")[1])
        slow.join()
        self.assertEqual([s["name"] for s in self.host.snapshots(vmid)], ["slow"])

    def test_a_create_goes_on_when_vim_cmd_is_gone(self):
        _, vmid, _ = self.vm()
        self.turn("create-delay", "1")
        one = subprocess.Popen(self.ssh.command("vim-cmd vmsvc/snapshot.create %d orphan" % vmid),
                               stdout=subprocess.PIPE)
        one.stdout.readline()
        one.kill()
        one.wait()
        one.stdout.close()
        self.host.ask("kill-sessions")
        wait_for(lambda: self.host.snapshots(vmid))
        self.assertEqual([s["name"] for s in self.host.snapshots(vmid)], ["orphan"])

    def test_quiesce_fails_by_knob(self):
        _, vmid, _ = self.vm()
        self.turn("create-quiesce", "fail")
        self.assertIn("quiescing", self.create(vmid, "q", "d 0 1")[1])
        self.assertEqual(self.create(vmid, "q", "d 0 0")[0], 0)

    def test_what_remove_can_do_wrong(self):
        _, vmid, folder = self.vm()
        self.create(vmid)
        self.turn("remove-result", "fault")
        self.assertEqual(self.remove(vmid, 1)[0], 1)
        self.assertEqual(len(self.host.snapshots(vmid)), 1)
        self.host.knob("remove-result", "leaves-children")
        self.assertEqual(self.remove(vmid, 1)[0], 0)
        self.assertEqual(self.host.snapshots(vmid), [])
        self.assertTrue(self.host.vm(vmid)["consolidation_needed"])
        self.assertIn("needConsolidate", self.ssh.text("cat %s/*.vmsd" % folder))
        self.host.knob("remove-result", "ok")
        self.host.ask("consolidate", vm=vmid)
        self.create(vmid)
        self.host.knob("remove-result", "early")
        self.turn("remove-delay", "2")
        self.assertEqual(self.remove(vmid, 2)[0], 0)
        self.assertEqual(len(self.host.snapshots(vmid)), 1)
        self.assertIn("Another task is already", self.create(vmid)[1])
        self.assertTrue(wait_for(lambda: not self.host.snapshots(vmid)))

    def test_independent_disks_stay_locked_and_rdms_forbid(self):
        name, vmid, folder = self.vm(disks=[
            {"size": "4m"}, {"size": "4m", "mode": "independent-persistent"}])
        self.assertEqual(self.create(vmid)[0], 0)
        self.assertEqual(self.ssh.rc("cat %s/%s-flat.vmdk >/dev/null" % (folder, name)), 0)
        self.assertEqual(self.ssh.rc("cat %s/%s_1-flat.vmdk >/dev/null" % (folder, name)), 1)
        name, vmid, folder = self.vm(disks=[{"size": "4m"}, {"size": "4m", "rdm": "physical"}])
        self.assertIn("vim.fault.SnapshotIncompatibleDeviceInVm", self.create(vmid)[1])
        self.assertIn("is a Passthrough Raw Device Mapping\nMaps to: vml.0200",
                      self.ssh.text("vmkfstools -q %s/%s_1.vmdk" % (folder, name)))
        name, vmid, folder = self.vm(disks=[{"size": "4m", "rdm": "virtual"}])
        self.assertEqual(self.create(vmid)[0], 0)
        name, vmid, folder = self.vm(disks=[{"size": "4m", "sharing": "multi-writer"}])
        self.assertIn("Cannot snapshot shared disk", self.create(vmid)[1])
        _, other, _ = self.vm(disks=[{"share": "%s/%s.vmdk" % (folder, name),
                                      "sharing": "multi-writer"}])
        self.assertIn("mode 3, ", self.ssh.text("vmkfstools -D %s/%s-flat.vmdk" % (folder, name)))
        self.drop(other)
        self.ssh.run("ls %s/%s-flat.vmdk" % (folder, name))

    def test_a_suspended_vm(self):
        name, vmid, folder = self.vm("suspended")
        self.assertIn("has not changed since", self.create(vmid)[1])
        self.assertEqual(self.ssh.rc("cat %s/%s-flat.vmdk >/dev/null" % (folder, name)), 0)

    def test_lock_base_by_knob(self):
        name, vmid, folder = self.vm()
        self.create(vmid)
        self.turn("lock-base", "on")
        self.assertEqual(self.ssh.rc("cat %s/%s-flat.vmdk >/dev/null" % (folder, name)), 1)
        self.assertIn("16392", self.ssh.text("vmkfstools -i %s/%s.vmdk /tmp/x.vmdk"
                                             % (folder, name), False))

    def test_the_extent_map_is_whole_and_true(self):
        raw = self.out("raw")
        with open(raw, "wb") as f:
            f.truncate(10 * MB + 512 * 3)
            for at in (0, 3 * MB + 5, 9 * MB):
                os.pwrite(f.fileno(), b"data" * 1000, at)
        for thin, flag in ((True, "NOMP --"), (False, "VMFS Z-")):
            name, _, folder = self.vm("off", disks=[{"content": {"file": raw}, "thin": thin}])
            text = self.ssh.text("vmkfstools -t0 %s/%s.vmdk" % (folder, name))
            lines = text.splitlines()
            self.assertEqual(lines[0], "Mapping for file %s/%s.vmdk (%d bytes in size):"
                             % (folder, name, 10 * MB + 1536))
            self.assertTrue(text.endswith("]\n\n"))
            at = 0
            for line in lines[1:-1]:
                self.assertRegex(line, r"^\[[ 0-9]{12,}:[ 0-9]{12,}\] --> \[(VMFS|NOMP) ")
                start, length = map(int, line[1:line.index("]")].split(":"))
                self.assertEqual(start, at)
                at += length
                with open(raw, "rb") as f:
                    data = os.pread(f.fileno(), length, start)
                self.assertEqual("VMFS --" in line, any(data), line)
                self.assertEqual(flag in line, not any(data), line)
            self.assertEqual(at, 10 * MB + 1536)
        self.turn("t0", "fail")
        self.assertEqual(self.ssh.rc("vmkfstools -t0 %s/%s.vmdk" % (folder, name)), 255)

    def test_clone_create_rename_delete(self):
        name, vmid, folder = self.vm()
        self.create(vmid)
        work = "/vmfs/volumes/datastore1/w"
        self.ssh.run("mkdir " + work)
        text = self.ssh.text("vmkfstools -i %s/%s.vmdk -d thin %s/c.vmdk" % (folder, name, work))
        self.assertTrue(text.startswith("Destination disk format: VMFS thin-provisioned\n"
                                        "Cloning disk '%s/%s.vmdk'...\n\rClone: " % (folder, name)))
        self.assertTrue(text.endswith("\rClone: 100% done.\n"))
        self.read(work + "/c-flat.vmdk", self.out("clone"))
        self.host.truth(vmid, "scsi0:0", self.out("truth"), "last")
        self.assertTrue(same(self.out("clone"), self.out("truth")))
        self.ssh.run("vmkfstools -E %s/c.vmdk %s/d.vmdk" % (work, work))
        self.assertEqual(self.ssh.text("ls " + work), "d-flat.vmdk\nd.vmdk\n")
        self.assertRegex(self.ssh.text("vmkfstools -J getuuid %s/d.vmdk" % work),
                         r"^UUID is 60 00 c2 9")
        self.assertRegex(self.ssh.text("vmkfstools --extendedstatinfo %s/d.vmdk" % work),
                         r"^Capacity bytes: 16777216 \nUsed bytes: \d+ \n")
        self.ssh.run("vmkfstools -c 4096s -d thin %s/n.vmdk" % work)
        self.assertEqual(self.ssh.rc("vmkfstools -c 4096s %s/n.vmdk" % work), 255)
        self.assertIn('RW 4096 VMFS "n-flat.vmdk"', self.ssh.text("cat %s/n.vmdk" % work))
        self.assertEqual(len(self.host.leftovers()["files"]), 5)
        self.ssh.run("vmkfstools -U %s/n.vmdk; vmkfstools -U %s/d.vmdk; rmdir %s"
                     % (work, work, work))
        self.assertEqual(self.host.leftovers()["files"], [])
        self.turn("out-of-space", "on")
        self.assertIn("(13).", self.ssh.text("vmkfstools -c 4096s /tmp/n.vmdk", False))
        self.host.knob("out-of-space", "off")
        self.turn("clone-fail-at", "30")
        text = self.ssh.text("vmkfstools -i %s/%s.vmdk /tmp/n.vmdk" % (folder, name), False)
        self.assertIn("% done.Failed to clone disk: Input/output error (327689).\n", text)
        self.ssh.run("rm /tmp/n*.vmdk")

    def test_read_errors_and_stalls(self):
        name, vmid, folder = self.vm("off")
        flat = "%s/%s-flat.vmdk" % (folder, name)
        self.turn("read-fault", "eio@%s:%d+512" % (flat, 5 * MB + 1024))
        done = self.ssh.run("dd if=%s bs=1M" % flat, check=False)
        self.assertIn(b"Input/output error", done.stderr)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stdout), 5 * MB)
        self.assertEqual(self.ssh.rc("dd if=%s of=/dev/null bs=1M skip=6 2>/dev/null" % flat), 0)
        probe = self.install_probe()
        read = "%s pread %s %%d 65536" % (probe, flat)
        self.assertEqual(self.ssh.text(read % (5 * MB + 1023 + 513)), "65536\n")
        self.assertEqual(self.ssh.text(read % (5 * MB + 1024 - 65536)), "65536\n")
        for at in (5 * MB + 1535, 5 * MB + 1025 - 65536):
            self.assertEqual(self.ssh.text(read % at, False), "Input/output error\n")
        self.host.knob("read-fault", "stall:500@%s:0+512" % flat)
        started = time.monotonic()
        self.ssh.run("dd if=%s of=/dev/null bs=1M count=1 2>/dev/null" % flat)
        self.assertGreater(time.monotonic() - started, 0.5)
        with self.assertRaises(LookalikeError):
            self.host.knob("read-fault", "eio@/none:0+1")

    def test_write_image_writes_what_differs(self):
        name, vmid, folder = self.vm()
        self.create(vmid)
        self.host.truth(vmid, "scsi0:0", self.out("old"))
        shutil.copy(self.out("old"), self.out("new"))
        with open(self.out("new"), "r+b") as f:
            os.pwrite(f.fileno(), os.urandom(10000), 3 * MB + 100)
            os.pwrite(f.fileno(), bytes(MB), 8 * MB)
        count = self.host.ask("guest-write-image", vm=vmid, slot="scsi0:0", path=self.out("new"))
        self.assertGreaterEqual(count, 10000)
        self.assertLess(count, 2 * MB)
        self.host.truth(vmid, "scsi0:0", self.out("t"))
        self.assertTrue(same(self.out("t"), self.out("new")))
        self.host.truth(vmid, "scsi0:0", self.out("t"), "last")
        self.assertTrue(same(self.out("t"), self.out("old")))

    def test_removeall_is_recorded(self):
        _, vmid, _ = self.vm()
        self.create(vmid, "a")
        self.create(vmid, "b")
        self.ssh.run("vim-cmd vmsvc/snapshot.removeall %d" % vmid)
        self.assertEqual(self.host.snapshots(vmid), [])
        self.assertTrue(any("vmsvc/snapshot.removeall" in c["argv"] for c in self.host.calls()))

    def test_disks_come_go_and_grow(self):
        name, vmid, _ = self.vm("off")
        self.host.ask("disk-add", vm=vmid, disk={"slot": "scsi0:3", "size": "3m"})
        self.host.ask("disk-grow", vm=vmid, slot="scsi0:0", size="20m")
        self.assertEqual([(d["slot"], d["capacity"]) for d in self.host.vm(vmid)["disks"]],
                         [("scsi0:0", 20 * MB), ("scsi0:3", 3 * MB)])
        self.host.ask("disk-remove", vm=vmid, slot="scsi0:3")
        self.assertEqual(len(self.host.vm(vmid)["disks"]), 1)
        self.assertEqual(self.host.leftovers()["files"], [])


if __name__ == "__main__":
    main()
