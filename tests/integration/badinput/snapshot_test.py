#!/usr/bin/env python3
"""Snapshots that are refused, late, foreign, or do not go."""

import os
import time

from harness import BUSY, OK, PARTIAL, SOURCE, UNSUPPORTED, MirrorCase, main

TOKEN = "0123456789abcdef0123456789abcdef"


class Refused(MirrorCase):
    def test_fault_with_status_1(self):
        self.turn("create-result", "fault")
        self.refresh_fails_later(SOURCE, "snapshot", "web 01")

    def test_fault_with_status_0(self):
        self.turn("create-result", "fault0")
        self.refresh_fails_later(SOURCE, "snapshot", "web 01")

    def test_fault_in_the_texts_of_old_hosts(self):
        self.turn("old-texts", "on")
        self.turn("create-result", "fault")
        self.refresh_fails_later(SOURCE, "snapshot", "web 01")

    def test_nothing_happens_with_status_0(self):
        """The entry stays open: such a snapshot has been seen to come later."""
        self.turn("create-result", "silent")
        self.refresh_fails_later(SOURCE, "snapshot", "web 01", "cleanup")

    def refresh_fails_later(self, code, *says):
        result = self.refresh(expect=code, says=says)
        self.assertEqual(self.host.leftovers(), {"files": [], "processes": [], "snapshots": []})
        self.assert_untouched(self.dir, self.before)
        # Open intentions delay nothing: the next run is good while they stand.
        self.host.knob("create-result", "ok")
        self.refresh_works()
        self.forget_intentions()
        return result

    def test_another_task_at_work(self):
        self.turn("create-result", "busy")
        self.refresh_fails(BUSY, "web 01", options=("--lock-wait", "2s"))

    def test_shared_disk_forbids_snapshots(self):
        vm = self.vm(disks=[{"size": "2m", "sharing": "multi-writer"}])
        self.mirror(vm, os.path.join(self.folder, "m"), expect=UNSUPPORTED,
                    says=(vm, "scsi0:0", "shared"))
        self.assert_nothing_published(os.path.join(self.folder, "m"))

    def test_independent_disk_makes_it_partial(self):
        vm = self.vm(disks=[{"size": "2m", "content": {"seed": 7}},
                            {"size": "2m", "mode": "independent-persistent"}])
        folder = os.path.join(self.folder, "m")
        self.mirror(vm, folder, expect=PARTIAL, says=(vm, "scsi0:1", "independent"))
        self.check(folder)
        self.assert_clean()

    def test_independent_disk_makes_the_host_refuse(self):
        self.turn("independent", "fault")
        vm = self.vm(disks=[{"size": "2m", "content": {"seed": 7}},
                            {"size": "2m", "mode": "independent-persistent"}])
        folder = os.path.join(self.folder, "m")
        self.mirror(vm, folder, expect=SOURCE, says=(vm, "independent"))
        self.assert_nothing_published(folder)
        self.forget_intentions()


class Busy(MirrorCase):
    def test_base_stays_locked_for_the_agent(self):
        self.turn("lock-base", "on")
        self.refresh_fails(SOURCE, "web 01", r"scsi0:0", "busy|lock")

    def test_base_stays_locked_for_dd(self):
        self.turn("lock-base", "on")
        self.turn("exec-installed-only", "1")
        self.refresh_fails(SOURCE, "web 01", r"scsi0:0", "busy|lock")


class Quiesce(MirrorCase):
    def consistency(self, *options, says=()):
        result = self.refresh(*options, expect=OK, json_lines=True, says=says)
        self.forget_intentions()        # of the attempt that failed; it holds up nothing
        self.check(self.dir)
        return result.summary()["vms"][0]["consistency"]

    def test_try_falls_back_and_says_so(self):
        for how in ("fail", "timeout"):
            with self.subTest(how):
                self.turn("create-quiesce", how)
                self.assertEqual(self.consistency(says=("web 01", "quiesce")), "crash")

    def test_require_ends_with_10(self):
        for how in ("fail", "timeout"):
            with self.subTest(how):
                self.turn("create-quiesce", how)
                self.refresh("--quiesce", "require", expect=UNSUPPORTED, says=("web 01", "quiesc"))
                self.assert_untouched(self.dir, self.before)
                self.forget_intentions()

    def test_no_does_not_try(self):
        self.turn("create-quiesce", "fail")
        self.assertEqual(self.consistency("--quiesce", "no"), "crash")


class Late(MirrorCase):
    def test_found_when_it_comes_while_we_wait(self):
        self.turn("create-late", "4")
        self.refresh_works()

    def test_a_slow_task(self):
        self.turn("create-delay", "4")
        self.refresh_works()

    def test_comes_after_a_fault_and_is_reaped_by_the_next_run(self):
        self.late_after_fault()
        self.refresh_works()
        self.assert_clean()

    def test_comes_after_a_fault_and_is_reaped_by_cleanup(self):
        self.late_after_fault()
        self.assert_cleaned_by_cleanup()
        self.assert_untouched(self.dir, self.before)

    def late_after_fault(self):
        """vim-cmd reports a failure, no task is to be seen, and yet it comes."""
        self.turn("create-result", "fault")
        self.turn("create-late-hidden", "on")
        self.turn("create-late", "4")
        self.refresh("--quiesce", "no", expect=SOURCE, says=("web 01", "snapshot"))
        self.host.knob("create-result", "ok")
        self.host.knob("create-late", "0")
        self.assert_untouched(self.dir, self.before)
        deadline = time.monotonic() + 20
        while not self.host.leftovers()["snapshots"]:
            self.assertLess(time.monotonic(), deadline, "the late snapshot did not come")
            time.sleep(0.2)


class Others(MirrorCase):
    def test_snapshot_of_another_receiver_at_work(self):
        other = "vmferry-%s-run-%s" % ("a" * len(self.install_id()), TOKEN)
        uid = self.host.ask("snapshot-create", vm=self.name, name=other)
        try:
            self.refresh("--lock-wait", "1s", expect=BUSY, says=("web 01", TOKEN))
            self.assertEqual([s["name"] for s in self.host.snapshots(self.name)], [other])
            self.assertEqual(self.journal(), [])
            self.assert_untouched(self.dir, self.before)
            # cleanup leaves it, and names it; only its token takes it away
            self.run_it("cleanup", self.place())
            self.assertEqual(len(self.host.snapshots(self.name)), 1)
            self.run_it("cleanup", "--foreign", TOKEN, self.place(), expect=OK)
            self.assertEqual(self.host.snapshots(self.name), [])
        finally:
            if self.host.snapshots(self.name):
                self.host.ask("snapshot-remove", vm=self.name, id=uid)

    def install_id(self):
        with open(os.path.join(self.state, "install-id"), encoding="ascii") as f:
            return f.read().split()[-1]

    def test_snapshots_of_the_user_stay(self):
        """Read through, and never touched."""
        uid = self.host.ask("snapshot-create", vm=self.name, name="before the update")
        try:
            self.refresh_works()
            self.assertEqual([s["name"] for s in self.host.snapshots(self.name)],
                             ["before the update"])
        finally:
            self.host.ask("snapshot-remove", vm=self.name, id=uid)

    def test_another_run_on_the_same_vm(self):
        """By the same receiver, into another folder and into the same one."""
        self.write(self.name, length=4 << 20)
        slow = self.start("mirror", "--json", "--bwlimit", "500k", "--compress", "none",
                          self.place(), self.name, self.dir)
        slow.wait_line("starting the transfer")
        elsewhere = os.path.join(self.folder, "m")
        self.mirror(self.name, elsewhere, "--lock-wait", "1s", expect=BUSY, says=("web 01",))
        self.assert_nothing_published(elsewhere)
        self.mirror(self.name, self.dir, "--lock-wait", "1s", expect=BUSY, says=("web 01|mirrors",))
        self.assert_code(slow.finish(), OK)
        self.check(self.dir)

    def test_our_snapshot_is_removed_by_somebody(self):
        slow = self.start("mirror", "--json", "--bwlimit", "300k", "--compress", "none",
                          self.place(), self.name, self.dir)
        slow.wait_line("starting the transfer")
        time.sleep(0.5)
        uid = self.host.snapshots(self.name)[-1]["id"]
        self.turn("remove-while-read", "allow")
        self.host.ask("snapshot-remove", vm=self.name, id=uid)
        result = slow.finish()
        self.assert_code(result, SOURCE)
        self.assert_says(result, "snapshot", "web 01")
        self.assert_untouched(self.dir, self.before)

    def test_snapshot_that_grows_too_old(self):
        self.write(self.name, length=6 << 20)
        result = self.refresh("--json", "--max-snapshot-age", "3s", "--bwlimit", "500k",
                              "--compress", "none", says=("web 01", "--max-snapshot-age"))
        self.assertNotIn(result.code, (OK, 10), str(result))
        self.assertLess(result.seconds, 20)
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)
        self.refresh_works()

    def test_disk_grows_before_the_snapshot(self):
        self.turn("delay-vim-cmd", "0.7")
        run = self.start("mirror", "--json", self.place(), self.name, self.dir)
        run.wait_line("placing the agent")
        self.host.ask("disk-grow", vm=self.name, slot="scsi0:1", size="4m")
        result = run.finish()
        self.assert_code(result, SOURCE)
        self.assert_says(result, "scsi0:1", "changed|run again")
        self.assert_untouched(self.dir, self.before)
        self.host.knob("delay-vim-cmd", "")
        self.refresh_works()


if __name__ == "__main__":
    main()
