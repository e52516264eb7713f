#!/usr/bin/env python3
"""What the look-alike says as a host: inventory, datastores, power, tasks, small commands."""

import time

from selftest import Base, main, wait_for


class Inventory(Base):
    shared = True

    def test_getallvms_with_hostile_names_and_notes(self):
        a = self.vm("off", name="a [x] (y) #\"'", dir="plain",
                    notes="first\n\n   2      fake   [datastore1] f/f.vmx   otherGuest   vmx-09   ")
        b = self.vm("off", name="with/slash")
        text = self.ssh.text("vim-cmd vmsvc/getallvms")
        self.assertRegex(text.splitlines()[0], r"^Vmid {3,}Name {3,}File {3,}Guest OS +Version")
        self.assertIn("%d" % a[1] + " " * 6 + "a [x] (y) #\"'   ", text)
        self.assertIn("\n   2      fake   [datastore1] f/f.vmx", text)
        self.assertIn("with%2fslash   ", text)
        self.assertIn('name = "with%2fslash", \n',
                      self.ssh.text("vim-cmd vmsvc/get.summary %d" % b[1]))

    def test_rows_are_sorted_as_text(self):
        for vmid in (100, 99, 1000):
            self.vm("off", vmid=vmid)
        ids = [line.split()[0] for line in self.ssh.text(
            "vim-cmd vmsvc/getallvms").splitlines()[1:]]
        self.assertEqual(ids, ["100", "1000", "99"])

    def test_an_invalid_vm_is_skipped_aloud(self):
        _, vmid, _ = self.vm("off")
        self.host.ask("vm-invalid", vm=vmid)
        done = self.ssh.run("vim-cmd vmsvc/getallvms")
        self.assertIn(b"Skipping invalid VM '%d'\n" % vmid, done.stderr)
        self.assertIn('connectionState = "invalid"',
                      self.ssh.text("vim-cmd vmsvc/get.summary %d" % vmid))
        self.assertIn("(vim.fault.InvalidState)",
                      self.ssh.text("vim-cmd vmsvc/device.getdevices %d" % vmid, False))
        self.host.ask("vm-invalid", vm=str(vmid), on=False)

    def test_faults(self):
        done = self.ssh.run("vim-cmd vmsvc/get.summary 4711", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"(vim.fault.NotFound) {\n", done.stdout)
        self.assertIn(b'msg = "Unable to find a VM corresponding to "4711""\n}\n', done.stdout)
        done = self.ssh.run("vim-cmd vmsvc/snapshot.remove", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"Insufficient arguments.\nUsage: snapshot.remove vmid snapshotId",
                      done.stdout)

    def test_views_of_a_vm(self):
        _, vmid, folder = self.vm(disks=[{"size": "8m"}, {"size": "4m", "slot": "nvme0:1",
                                                         "mode": "independent_persistent"}])
        self.ssh.run("vim-cmd vmsvc/snapshot.create %d s" % vmid)
        devices = self.ssh.text("vim-cmd vmsvc/device.getdevices %d" % vmid)
        self.assertEqual(devices.count("(vim.vm.device.VirtualDisk) {"), 2)
        self.assertIn("capacityInBytes = 8388608, \n", devices)
        self.assertIn("parent = (vim.vm.device.VirtualDisk.FlatVer2BackingInfo) {", devices)
        self.assertIn('diskMode = "independent_persistent"', devices)
        layout = self.ssh.text("vim-cmd vmsvc/get.filelayout %d" % vmid)
        self.assertIn("-000001.vmdk", layout)
        for name in ("get.config", "get.runtime", "get.guest", "get.datastores",
                     "get.snapshotinfo", "get.tasklist"):
            self.ssh.run("vim-cmd vmsvc/%s %d" % (name, vmid))
        self.assertIn("Display Name: ", self.ssh.text("esxcli vm process list"))
        self.assertIn(folder, self.ssh.text("esxcli vm process list"))
        self.assertIn("Powered on", self.ssh.text("vim-cmd vmsvc/power.getstate %d" % vmid))

    def test_datastores(self):
        text = self.ssh.text("esxcli storage filesystem list").splitlines()
        self.assertTrue(text[0].startswith("Mount Point  "))
        cuts = []
        at = 0
        for dashes in text[1].split("  "):
            cuts.append((at, at + len(dashes)))
            at += len(dashes) + 2
        rows = [[line[a:b].strip() for a, b in cuts] for line in text[2:]]
        self.assertEqual(rows[0][1], "datastore1")
        self.assertEqual(rows[0][4], "VMFS-5")
        self.turn("free-space", "datastore1=12345")
        self.assertIn("12345\n", self.ssh.text("esxcli storage filesystem list"))
        self.assertIn(", 12345 (0 blocks) avail", self.ssh.text(
            "vmkfstools -P /vmfs/volumes/datastore1"))
        self.assertIn("freeSpace = 12345, \n",
                      self.ssh.text("vim-cmd hostsvc/datastore/listsummary"))
        self.turn("esxcli", "cut")
        self.assertNotIn("12345", self.ssh.text("esxcli storage filesystem list"))

    def test_a_small_datastore_is_really_full(self):
        made = self.host.add_datastore("small", kind="NFS", size="4m", tmpfs=True)
        self.assertEqual(self.ssh.rc("dd if=/dev/zero of=/vmfs/volumes/small/x bs=1M count=8 "
                                     "2>/dev/null"), 1)
        self.assertEqual(len(made["uuid"]), 17)
        self.assertIn("NFS-1.00 file system", self.ssh.text("vmkfstools -P /vmfs/volumes/small"))
        self.ssh.run("rm /vmfs/volumes/small/x")
        with open(self.host.path("/vmfs/volumes/small/y"), "wb") as f:
            f.write(b"seen")
        self.assertEqual(self.ssh.text("cat /vmfs/volumes/small/y"), "seen")
        self.ssh.run("rm /vmfs/volumes/small/y")

    def test_register_and_unregister(self):
        name, vmid, folder = self.vm("off")
        vmx = "%s/%s.vmx" % (folder, name)
        self.assertIn('name = "%d"' % vmid, self.ssh.text("vim-cmd solo/registervm " + vmx, False))
        self.ssh.run("vim-cmd vmsvc/unregister %d" % vmid)
        new = int(self.ssh.text("vim-cmd solo/registervm " + vmx))
        self.assertNotEqual(new, vmid)
        self.addCleanup(self.drop, new)
        self.assertIn("(vim.fault.NotFound)", self.ssh.text(
            "vim-cmd solo/registervm /vmfs/volumes/datastore1/none.vmx", False))

    def test_vim_cmd_breaks(self):
        self.turn("vim-cmd", "bad-alloc")
        self.turn("vim-cmd-fail-times", "2")
        done = self.ssh.run("vim-cmd vmsvc/getallvms; echo rc $?", check=False)
        self.assertIn(b"std::bad_alloc", done.stderr)
        self.assertIn(b"rc 134", done.stdout)
        self.ssh.run("vim-cmd vmsvc/getallvms", check=False)
        self.assertEqual(self.ssh.rc("vim-cmd vmsvc/getallvms"), 0)
        self.host.knob("vim-cmd", "login-failure")
        self.host.knob("vim-cmd-match", "getallvms")
        self.assertIn("Failed to login: ", self.ssh.text("vim-cmd vmsvc/getallvms", False))
        self.assertEqual(self.ssh.rc("vim-cmd hostsvc/hostsummary"), 0)
        self.host.knob("vim-cmd-match", "")

    def test_vim_cmd_hangs(self):
        self.turn("vim-cmd", "hang")
        started = time.monotonic()
        self.assertEqual(self.ssh.text("timeout -t 1 vim-cmd vmsvc/getallvms 2>/dev/null; echo $?"),
                         "143\n")
        self.assertGreater(time.monotonic() - started, 0.9)

    def test_a_question_holds_power_on(self):
        _, vmid, _ = self.vm("off")
        self.turn("power-on", "question")
        self.assertEqual(self.ssh.text("vim-cmd vmsvc/message %d" % vmid), "No message.\n")
        self.ssh.run("vim-cmd vmsvc/power.on %d >/tmp/on 2>&1 &" % vmid)
        self.assertTrue(wait_for(lambda: self.ssh.text(
            "vim-cmd vmsvc/message %d" % vmid) != "No message.\n"))
        text = self.ssh.text("vim-cmd vmsvc/message %d" % vmid)
        self.assertTrue(text.startswith("Virtual machine message 27:\nmsg.uuid.altered:"))
        self.assertIn("   2. I Copied It (I Copied It) [default]\n", text)
        self.ssh.run("vim-cmd vmsvc/message %d 27 2" % vmid)
        self.assertTrue(wait_for(lambda: self.host.vm(vmid)["power"] == "on"))
        self.ssh.run("rm /tmp/on")

    def test_power_by_vim_cmd(self):
        _, vmid, _ = self.vm("off")
        for command, state in (("on", "Powered on"), ("suspend", "Suspended"),
                               ("on", "Powered on"), ("shutdown", "Powered off"),
                               ("on", "Powered on"), ("off", "Powered off")):
            self.ssh.run("vim-cmd vmsvc/power.%s %d" % (command, vmid))
            self.assertEqual(self.ssh.text("vim-cmd vmsvc/power.getstate %d" % vmid),
                             "Retrieved runtime info\n%s\n" % state)
        self.assertEqual(self.ssh.run("vim-cmd vmsvc/power.off %d" % vmid, check=False).stdout,
                         b"Powering off VM:\nPower off failed\n")

    def test_a_finished_task_says_so(self):
        _, vmid, _ = self.vm()
        self.assertEqual(self.ssh.text("vim-cmd vmsvc/get.tasklist %d" % vmid),
                         "(ManagedObjectReference) []\n")
        self.ssh.run("vim-cmd vmsvc/snapshot.create %d t" % vmid)
        text = self.ssh.text("vim-cmd vmsvc/get.tasklist %d" % vmid)
        self.assertRegex(text, r"^\(ManagedObjectReference\) \[\n   'vim.Task:haTask-%d-"
                               r"vim.VirtualMachine.createSnapshot-\d+'\n\]\n$" % vmid)
        text = self.ssh.text("vim-cmd vimsvc/task_info " + text.split("'")[1].split(":")[1])
        self.assertIn('state = "success", \n', text)
        self.assertIn("error = (vmodl.MethodFault) null, \n", text)
        self.assertIn("(vmodl.fault.ManagedObjectNotFound) {",
                      self.ssh.text("vim-cmd vimsvc/task_info haTask-1-x-2", False))

    def test_the_small_commands(self):
        self.assertRegex(self.ssh.text("df -h"), r"(?m)^Filesystem +Size +Used Available Use% "
                                                 r"Mounted on\nVMFS-5 .* /vmfs/volumes/datastore1$")
        self.assertRegex(self.ssh.text("vdf"), r"(?m)^tmp +262144 ")
        self.assertIn("CID       WorldName", self.ssh.text("ps"))
        self.assertEqual(self.ssh.text("hostname"), "localhost\n")
        self.assertEqual(self.ssh.text("uname -a"), "VMkernel localhost 6.7.0 #1 SMP Release build-"
                         "8169922 Apr  3 2018 14:48:22 x86_64 x86_64 x86_64 ESXi\n")
        self.assertIn("vmodl key: esxEnterprisePlus\n",
                      self.ssh.text("vim-cmd vimsvc/license --show"))
        self.assertIn("Error: Unknown command or namespace system bogus\n",
                      self.ssh.text("esxcli system bogus", False))
        self.assertEqual(self.ssh.rc("esxcli system settings advanced list "
                                     "-o /User/execInstalledOnly"), 1)
        self.assertIn('fullName = "VMware ESXi 6.7.0 build-8169922"',
                      self.ssh.text("vim-cmd hostsvc/hostsummary"))
        self.assertIn("max supported file size 64 TB", self.ssh.text(
            "vmkfstools -P -h /vmfs/volumes/datastore1"))

    def test_lock_owners_are_named(self):
        name, _, folder = self.vm()
        self.assertIn('"%s-flat.vmdk" is locked in Exclusive mode by host having mac' % name,
                      self.ssh.text("vmfsfilelockinfo -p %s/%s-flat.vmdk" % (folder, name)))
        self.assertIn("is not locked by any ESX host and is Free",
                      self.ssh.text("vmfsfilelockinfo -p %s/%s.nvram" % (folder, name)))

    def test_identity_of_disks_by_choice(self):
        twice = "6000C29" + "ab" * 12 + "c"
        name, _, folder = self.vm("off", disks=[{"size": "1m", "uuid": ""},
                                                {"size": "1m", "uuid": twice},
                                                {"size": "1m", "uuid": twice}])
        self.assertNotIn("ddb.uuid", self.ssh.text("cat %s/%s.vmdk" % (folder, name)))
        self.assertEqual(self.ssh.text("cat %s/*.vmdk | grep -c '^ddb.uuid = \"60 00 c2 9a ba'"
                                       % folder), "2\n")

    def test_tests_can_change_a_vm(self):
        name, vmid, folder = self.vm("off")
        self.host.ask("rename", vm=vmid, name="other name")
        self.host.ask("vmx-set", vm=vmid, values={"ctkEnabled": "TRUE", "nvram": None})
        text = self.ssh.text("cat %s/%s.vmx" % (folder, name))
        self.assertIn('displayName = "other name"\n', text)
        self.assertIn('ctkEnabled = "TRUE"\n', text)
        self.assertNotIn("nvram", text)
        self.assertIn("changeTrackingEnabled = true",
                      self.ssh.text("vim-cmd vmsvc/get.config %d" % vmid))

    def test_delays(self):
        self.turn("delay-vim-cmd", "0.4")
        started = time.monotonic()
        self.ssh.run("vim-cmd hostsvc/hostsummary")
        self.assertGreater(time.monotonic() - started, 0.4)

    def test_calls_are_logged(self):
        self.ssh.run("cd /tmp; vim-cmd 'vmsvc/getallvms'; esxcli system uuid get")
        last = self.host.calls()[-2:]
        self.assertEqual([c["name"] for c in last], ["vim-cmd", "esxcli"])
        self.assertEqual(last[1]["argv"], ["esxcli", "system", "uuid", "get"])
        self.assertEqual(last[0]["cwd"], "/tmp")

    def test_vim_cmd_is_quick_without_a_delay(self):
        started = time.monotonic()
        self.ssh.run("for i in 1 2 3 4 5 6 7 8 9 10; do vim-cmd vmsvc/getallvms >/dev/null; done")
        self.assertLess(time.monotonic() - started, 3)


if __name__ == "__main__":
    main()
