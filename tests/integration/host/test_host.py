#!/usr/bin/env python3
"""receiver/host over a real SSH connection against the look-alike, through host_driver."""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "lookalike"))

from lookalike import Lookalike, find_programs  # noqa: E402

MB = 1 << 20
DRIVER = None

REMOVED, NOTHING, WAITING, IN_USE, RETAINED, FAILED = range(6)


class HostTest(unittest.TestCase):
    profile = "8.0"

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="vmferry-host-")
        cls.key = os.path.join(cls.folder, "key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-m", "PEM", "-f", cls.key],
                       check=True)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def setUp(self):
        with open(self.key + ".pub", encoding="utf-8") as f:
            self.host = Lookalike.start(profile=self.profile, public_key=f.read())
        self.addCleanup(self.host.stop)
        self.state = tempfile.mkdtemp(dir=self.folder)
        os.chmod(self.state, 0o700)

    def drive(self, *words, ok=True):
        done = subprocess.run([DRIVER, self.host.address, str(self.host.port), self.host.known_hosts,
                               self.key, self.state, *words], capture_output=True, timeout=200,
                              check=False)
        out = done.stdout.decode(errors="replace")
        err = done.stderr.decode(errors="replace")
        if ok is not None and (done.returncode == 0) != ok:
            raise AssertionError("%s: rc %d\n%s%s" % (words, done.returncode, out, err))
        return [line for line in (out + err).splitlines() if line]

    def lines(self, answer, start):
        return [line[len(start) + 1:].split("|") for line in answer if line.startswith(start + " ")]

    def error(self, answer):
        return [line.split(" ", 2) for line in answer if line.startswith("error ")][-1][1:]

    def web(self, **more):
        spec = {"name": "web", "power": "on",
                "disks": [{"size": "24m"}, {"size": "40m", "thin": True, "slot": "scsi0:1"}]}
        spec.update(more)
        self.host.add_vm(spec)

    def reaped(self):
        return [int(r[0]) for r in self.lines(self.drive("reap"), "reaped")]

    def expect_nothing_left(self):
        self.assertEqual(self.host.leftovers(), {k: [] for k in self.host.leftovers()})
        self.assertEqual([n for n in os.listdir(os.path.join(self.state, "journal"))
                          if n.endswith(".entry")], [])

    def expect_frozen(self, slot, image):
        truth = os.path.join(self.state, "truth.raw")
        self.host.truth("web", slot, truth, snapshot="last")
        self.assertTrue(filecmp.cmp(image, truth, shallow=False), "%s differs" % slot)


class Running(HostTest):
    def test_what_is_read_is_what_the_snapshot_froze(self):
        self.web()
        image = os.path.join(self.state, "image.raw")
        for slot in ("scsi0:0", "scsi0:1"):
            self.host.ask("guest-start", vm="web", rate=200)
            try:
                answer = self.drive("mirror", "web", slot, image)
            finally:
                self.host.ask("guest-stop", vm="web")
            self.assertEqual([p[1] for p in self.lines(answer, "plan")], ["read", "read"])
            self.expect_frozen(slot, image)
            self.expect_nothing_left()

    def test_maps_that_do_not_parse_wholly_are_not_used(self):
        self.web()
        image = os.path.join(self.state, "image.raw")
        for value in ("fail", "cut", "per-block", "merged"):
            self.host.knob("t0", value)
            answer = self.drive("mirror", "web", "scsi0:1", image)
            used = self.lines(answer, "map")[0][0] != "none"
            self.assertEqual(used, value in ("per-block", "merged"), value)
            self.expect_frozen("scsi0:1", image)

    def test_hostile_names_and_notes(self):
        self.web()
        self.host.add_vm({"name": "a [x] \"q\" 'r' #1", "power": "off", "disks": [{"size": "8m"}],
                          "dir": "a [x] 'r' #1", "notes": "5      x   [ds] y/y.vmx  g  vmx-8\nmore \"quotes\",\n"
                                   "   powerState = \"poweredOff\", \n\"\nend\","})
        vms = self.lines(self.drive("vms"), "vm")
        self.assertEqual([(v[1], v[3]) for v in vms], [("web", "on"), ("a [x] \"q\" 'r' #1", "off")])
        image = os.path.join(self.state, "image.raw")
        self.drive("mirror", vms[1][1], "scsi0:0", image)
        self.expect_nothing_left()

    def test_a_truncated_table_and_a_failing_hostd_are_tried_again(self):
        self.web()
        self.host.knob("vim-cmd", "bad-alloc")
        self.host.knob("vim-cmd-fail-times", "2")
        self.assertEqual(len(self.lines(self.drive("vms"), "vm")), 1)
        self.host.knob("vim-cmd", "login-failure")
        self.host.knob("vim-cmd-fail-times", "0")
        self.assertEqual(self.error(self.drive("vms", ok=False))[0], "busy")
        self.host.knob("vim-cmd", "ok")

    def test_the_doctor(self):
        self.web()
        self.host.knob("free-space", "datastore1=%d" % (1 << 39))
        probe = os.path.join(os.environ["LOOKALIKE_BIN"], "lookalike-probe")
        results = self.lines(self.drive("doctor", probe), "doctor")
        self.assertEqual([r for r in results if r[0] == "fail"], [])
        checks = {r[1] for r in results}
        self.assertLessEqual({"version", "exec", "space", "upload", "inventory", "snapshots", "disk",
                              "leftovers"}, checks)
        results = self.lines(self.drive("doctor", probe, "nobody"), "doctor")
        self.assertEqual([r[1] for r in results if r[0] == "fail"], ["vm"])
        self.expect_nothing_left()


class OldHost(Running):
    profile = "6.7"


class Snapshots(HostTest):
    def mirror(self, ok=False):
        return self.drive("mirror", "web", "scsi0:0", os.path.join(self.state, "image.raw"), ok=ok)

    def test_refused(self):
        self.web()
        for value in ("fault", "fault0"):
            self.host.knob("create-result", value)
            self.assertEqual(self.error(self.mirror())[0], "source")
        self.host.knob("create-result", "busy")
        self.assertEqual(self.error(self.mirror())[0], "busy")
        self.assertEqual(self.host.snapshots("web"), [])

    def test_silent_failure_then_late(self):
        self.web()
        self.host.knob("create-result", "silent")
        self.assertEqual(self.error(self.mirror())[0], "source")
        self.assertEqual(self.reaped(), [WAITING])
        self.host.knob("create-result", "ok")
        self.host.knob("create-late", "4")
        self.mirror(ok=True)
        self.host.knob("create-late", "0")
        self.assertEqual(self.host.snapshots("web"), [])

    def test_quiescing(self):
        self.web()
        self.host.knob("create-quiesce", "fail")
        made = self.lines(self.mirror(ok=True), "snapshot")[0]
        self.assertEqual(made[2], "0")
        self.assertNotEqual(made[3], "")

    def test_removal_that_fails_then_reaped(self):
        self.web()
        self.host.knob("remove-result", "fault")
        answer = self.mirror()
        self.assertEqual(self.error(answer)[0], "cleanup")
        self.assertEqual(len(self.host.snapshots("web")), 1)
        self.host.knob("remove-result", "ok")
        self.assertEqual(self.reaped(), [REMOVED])
        self.expect_nothing_left()

    def test_removal_that_answers_early(self):
        self.web()
        self.host.knob("remove-result", "early")
        self.host.knob("remove-delay", "4")
        self.mirror(ok=True)
        self.expect_nothing_left()

    def test_children_left(self):
        self.web()
        self.host.knob("remove-result", "leaves-children")
        self.assertEqual(self.error(self.mirror())[0], "cleanup")
        self.assertEqual(self.host.snapshots("web"), [])

    def test_killed_after_the_creation(self):
        self.web()
        answer = self.drive("mirror", "web", "scsi0:0", "/dev/null", "die", ok=None)
        self.assertEqual(len(self.lines(answer, "snapshot")), 1)
        self.assertEqual(len(self.host.snapshots("web")), 1)
        self.assertEqual(self.reaped(), [REMOVED])
        self.assertEqual(self.reaped(), [])
        self.expect_nothing_left()

    def test_killed_then_the_host_renumbered(self):
        self.web()
        self.host.add_vm({"name": "other", "disks": [{"size": "8m"}]})
        self.drive("mirror", "web", "scsi0:0", "/dev/null", "die", ok=None)
        self.host.reboot(renumber=True)
        self.assertEqual(self.reaped(), [REMOVED])
        self.expect_nothing_left()

    def test_the_users_own_snapshots_stay(self):
        self.web()
        self.drive("mirror", "web", "scsi0:0", "/dev/null", "die", ok=None)
        self.host.ask("snapshot_create", vm="web", name="the user's")
        self.assertEqual(self.reaped(), [REMOVED])
        self.assertEqual([s["name"] for s in self.host.snapshots("web")], ["the user's"])
        # Its links are read through below ours, and ours goes again.
        answer = self.mirror(ok=True)
        plans = self.lines(answer, "plan")
        self.assertEqual([p[1] for p in plans], ["read", "read"])
        self.assertIn("-000", plans[0][3])
        self.assertEqual([s["name"] for s in self.host.snapshots("web")], ["the user's"])

    def test_two_installations(self):
        self.web()
        self.drive("mirror", "web", "scsi0:0", "/dev/null", "die", ok=None)
        token = self.host.snapshots("web")[0]["name"].rsplit("-", 1)[1]
        mine, self.state = self.state, tempfile.mkdtemp(dir=self.folder)
        self.assertEqual(self.error(self.mirror())[0], "busy")
        self.assertEqual(self.reaped(), [])
        self.assertEqual(len(self.host.snapshots("web")), 1)
        self.drive("foreign", token)
        self.assertEqual(self.host.snapshots("web"), [])
        self.state = mine
        self.assertEqual(self.reaped(), [NOTHING])


class Forms(HostTest):
    def plans(self, **spec):
        self.web(**spec)
        answer = self.drive("mirror", "web", "scsi0:0", os.path.join(self.state, "image.raw"))
        self.expect_nothing_left()
        return [p[1] for p in self.lines(answer, "plan")], self.lines(answer, "way")[0][0]

    def test_off(self):
        self.assertEqual(self.plans(power="off"), (["read", "read"], "snapshot"))

    def test_suspended(self):
        self.assertEqual(self.plans(power="suspended"), (["direct", "direct"], "direct"))

    def test_independent_running_and_off(self):
        disks = [{"size": "8m"}, {"size": "8m", "slot": "scsi0:1", "mode": "independent-persistent"}]
        self.assertEqual(self.plans(disks=disks), (["read", "skipped"], "snapshot"))
        self.host.power("web", "off")
        answer = self.drive("mirror", "web", "scsi0:1", os.path.join(self.state, "image.raw"))
        self.assertEqual([p[1] for p in self.lines(answer, "plan")], ["read", "direct"])

    def test_virtual_mapping(self):
        disks = [{"size": "8m"}, {"size": "8m", "slot": "scsi0:1", "rdm": "virtual"}]
        self.assertEqual(self.plans(disks=disks), (["read", "skipped"], "snapshot"))

    def test_physical_mapping(self):
        disks = [{"size": "8m"}, {"size": "8m", "slot": "scsi0:1", "rdm": "physical"}]
        self.assertEqual(self.plans(power="off", disks=disks), (["direct", "skipped"], "direct"))
        self.host.power("web", "on")
        answer = self.drive("mirror", "web", "scsi0:0", "/dev/null", ok=False)
        self.assertEqual(self.error(answer)[0], "unsupported")

    def test_a_read_error_is_no_zero(self):
        self.web()
        vmfs = self.lines(self.drive("plan", "web"), "plan")[0][3]
        self.host.knob("read-fault", "eio@%s:5000000+4096" % vmfs)
        answer = self.drive("mirror", "web", "scsi0:0", os.path.join(self.state, "i.raw"), ok=False)
        self.assertEqual(self.error(answer)[0], "source")
        self.assertIn("Input/output error", " ".join(answer))
        self.expect_nothing_left()


class Placing(HostTest):
    def setUp(self):
        super().setUp()
        self.probe = os.path.join(os.environ["LOOKALIKE_BIN"], "lookalike-probe")

    def test_refused_by_policy(self):
        placed = self.lines(self.drive("place", self.probe), "placed")[0]
        self.assertEqual(placed[0], "1")
        self.assertIn("--allow-exec", placed[3])
        self.expect_nothing_left()

    def test_killed_with_the_agent_placed(self):
        self.host.knob("exec-installed-only", "0")
        agent = os.path.join(self.state, "agent")
        with open(agent, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\necho an agent 1.0\n")
        placed = self.lines(self.drive("place", agent), "placed")[0]
        self.assertEqual((placed[0], placed[2]), ("0", "an agent 1.0"))
        self.expect_nothing_left()
        self.drive("place", agent, "die", ok=None)
        self.assertEqual(self.reaped(), [REMOVED])
        self.expect_nothing_left()

    def test_no_program(self):
        self.host.knob("exec-installed-only", "0")
        junk = os.path.join(self.state, "junk")
        with open(junk, "wb") as f:
            f.write(b"\x7fELF not really")
        placed = self.lines(self.drive("place", junk), "placed")[0]
        self.assertEqual(placed[0], "2")
        self.expect_nothing_left()


if __name__ == "__main__":
    DRIVER = os.path.abspath(sys.argv.pop(1))
    os.environ["LOOKALIKE_BIN"] = find_programs()
    if os.geteuid() != 0:
        print("the look-alike needs root")
        sys.exit(1)
    unittest.main(verbosity=2)
