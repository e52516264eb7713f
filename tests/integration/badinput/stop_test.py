#!/usr/bin/env python3
"""Ctrl-C, SIGTERM and kill -9 in each phase; a commit that is finished without the host."""

import os
import signal
import time
from unittest import mock

from harness import HERE, MB, OK, Case, MirrorCase, main


class Signals(MirrorCase):
    """130 or 143, a clean host, a mirror that the next run takes further."""

    def interrupt(self, step, number, knobs=(), pause=0.2, again=None, rate="600k"):
        for name, value in knobs:
            self.turn(name, value)
        self.write(self.name, length=2 * MB)
        run = self.start("mirror", "--json", "--bwlimit", rate, "--compress", "none",
                         self.place(), self.name, self.dir)
        run.wait_line(step)
        time.sleep(pause)
        began = time.monotonic()
        run.signal(number)
        if again is not None:
            time.sleep(again)
            run.signal(number)
        result = run.finish()
        result.stopping = time.monotonic() - began
        for name, _ in knobs:
            self.host.knob(name, "0")
        self.assert_code(result, 128 + number)
        self.assertEqual(result.summary()["exit_code"], 128 + number)
        return result

    def before_the_commit(self, *how, **knobs):
        result = self.interrupt(*how, **knobs)
        self.assertLess(result.stopping, 30)
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)
        self.refresh_works()

    def after_the_commit(self, *how, **knobs):
        self.interrupt(*how, **knobs)
        self.assert_clean()
        self.check(self.dir)        # finishes what is committed
        self.assert_true_image(self.name, self.dir)

    def test_sigint_while_the_configuration_is_read(self):
        self.before_the_commit("reading the configuration", signal.SIGINT)

    def test_sigint_while_the_agent_is_placed(self):
        self.before_the_commit("placing the agent", signal.SIGINT, pause=0.0)

    def test_sigterm_while_the_snapshot_is_made(self):
        self.before_the_commit("taking the snapshot", signal.SIGTERM,
                               knobs=(("create-delay", "2"),), pause=0.7)

    def test_sigint_while_the_snapshot_is_made(self):
        self.before_the_commit("taking the snapshot", signal.SIGINT,
                               knobs=(("create-delay", "2"),), pause=0.1)

    def test_sigint_while_data_comes(self):
        self.before_the_commit('"sent":', signal.SIGINT, pause=0.7)

    def test_sigterm_while_data_comes(self):
        self.before_the_commit('"sent":', signal.SIGTERM, pause=0.7)

    def test_sighup_while_data_comes(self):
        self.before_the_commit('"sent":', signal.SIGHUP, pause=0.4)

    def test_sigint_while_the_snapshot_is_removed(self):
        self.after_the_commit("removing the snapshot", signal.SIGINT,
                              knobs=(("remove-delay", "2"),))

    def test_sigterm_while_the_snapshot_is_removed(self):
        self.after_the_commit("removing the snapshot", signal.SIGTERM,
                              knobs=(("remove-delay", "2"),), pause=0.0)

    def either_state(self, step, number):
        """Around the commit: the old state or the new one, never a third; the exit code tells that
        it was asked to stop, unless all had been done by then."""
        for at in range(0, 8 * MB, MB):
            self.write(self.name, offset=at, length=MB)
        run = self.start("mirror", "--json", self.place(), self.name, self.dir)
        run.wait_line(step)
        run.signal(number)
        result = run.finish()
        self.assertIn(result.code, (OK, 128 + number), str(result))
        self.assert_clean()
        self.check(self.dir)        # finishes what is committed
        if self.content(self.dir) != self.before:
            self.assert_true_image(self.name, self.dir)
        else:
            self.assertNotEqual(result.code, OK)
        self.refresh_works()

    def test_sigint_at_the_commit(self):
        self.either_state("committing", signal.SIGINT)

    def test_sigterm_while_the_images_are_updated(self):
        self.either_state("updating the images", signal.SIGTERM)

    def test_sigint_twice(self):
        """The second one must not make it worse: what is left then is known."""
        result = self.interrupt('"sent":', signal.SIGINT, knobs=(("remove-delay", "3"),), again=0.5)
        self.assertLess(result.stopping, 30)
        left = self.host.leftovers()
        if left["snapshots"] or left["files"]:
            self.assert_says(result, "cleanup")
            time.sleep(3)
            self.assert_cleaned_by_cleanup()
        self.assert_untouched(self.dir, self.before)
        self.refresh_works()

    def test_sigint_before_the_login_ends(self):
        leaks = os.path.join(HERE, "..", "ssh", "lsan-rekey.supp")
        with mock.patch.dict(os.environ, LSAN_OPTIONS="suppressions=%s" % leaks):
            run = self.start("mirror", "--json", self.place(), self.name, self.dir)
        time.sleep(0.05)
        run.signal(signal.SIGINT)
        result = run.finish()
        self.assertIn(result.code, (130, -signal.SIGINT), str(result))
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)

    def test_stopping_between_two_vms(self):
        """The first is done, the second never begins."""
        other = self.vm(disks=[{"size": "1m"}])
        self.write(self.name, length=2 * MB)
        run = self.start("mirror", "--json", "--bwlimit", "600k", "--compress", "none",
                         self.place(), self.name, other, self.dir)
        run.wait_line('"sent":')
        run.signal(signal.SIGTERM)
        result = run.finish()
        self.assert_code(result, 143)
        self.assertFalse(any(v["vm"] == other and v["outcome"] == "ok"
                             for v in result.summary()["vms"]))
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)


class First(Case):
    disks = [{"size": "24m", "content": {"seed": 9, "share": 0.5}}]

    def test_sigint_at_a_first_mirror_is_taken_further(self):
        vm = self.vm()
        folder = os.path.join(self.folder, "m")
        run = self.start("mirror", "--json", "--bwlimit", "2M", "--compress", "none",
                         self.place(), vm, folder)
        run.wait_line('"sent":')
        time.sleep(2)
        run.signal(signal.SIGINT)
        self.assert_code(run.finish(), 130)
        self.assert_clean()
        self.assert_nothing_published(folder)
        result = self.run_it("mirror", "--json", self.place(), vm, folder, expect=OK)
        whole = 12 * MB
        sent = result.summary()["vms"][0]["disks"][0]["sent"]
        self.assertLess(sent, whole - MB, "nothing of the first run was taken over")
        self.assert_true_image(vm, folder)
        self.check(folder)


class Killed(MirrorCase):
    """kill -9: what stands is finished, or undone, by the next command."""
    disks = [{"size": "192m", "content": {"seed": 3, "share": 0.02}}]

    def write_much(self):
        for at in range(0, 64 * MB, 16 * MB):
            self.write(self.name, offset=at, length=16 * MB)

    def killed_in_apply(self):
        self.write_much()
        return self.kill_when_committed()

    def finishes(self, command, *words):
        flag = self.killed_in_apply()
        sessions = len(self.host.sessions())
        self.run_it(command, "--mirror", self.dir, *words, login=False, expect=OK)
        self.assertEqual(len(self.host.sessions()), sessions)
        self.assertFalse(os.path.exists(flag))
        self.assert_true_image(self.name, self.dir)
        self.check(self.dir)

    def host_is_put_right(self):
        deadline = time.monotonic() + 15
        while self.host.leftovers()["processes"]:
            self.assertLess(time.monotonic(), deadline, self.host.leftovers())
            time.sleep(0.2)
        if self.journal():
            self.run_it("cleanup", self.place(), expect=OK)
        self.assert_clean()

    def tearDown(self):
        self.host_is_put_right()
        super().tearDown()

    def test_list_finishes_without_the_host(self):
        self.finishes("list")

    def test_check_finishes_without_the_host(self):
        self.finishes("check")

    def test_restore_finishes_without_the_host(self):
        out = os.path.join(self.folder, "out")
        self.finishes("restore", "%s@latest" % self.name, "--output", out)

    def test_the_next_run_finishes(self):
        self.killed_in_apply()
        self.refresh_works()

    def test_killed_while_the_images_change(self):
        """Some blocks are new, some old: nothing but the redo can tell."""
        self.write_much()
        flag = self.kill_when_committed(changing=True)
        self.run_it("list", "--mirror", self.dir, login=False, expect=OK)
        self.assertFalse(os.path.exists(flag))
        self.assert_true_image(self.name, self.dir)
        self.check(self.dir)

    def test_kill_while_data_comes(self):
        self.write_much()
        run = self.start("mirror", "--json", "--bwlimit", "8M", "--compress", "none",
                         self.place(), self.name, self.dir)
        run.wait_line('"sent":')
        time.sleep(1)
        run.signal(signal.SIGKILL)
        run.finish()
        self.assertNotEqual(self.journal(), [])
        self.assert_untouched(self.dir, self.before)
        self.refresh_works()            # reaps what the killed run left

    def test_kill_while_the_snapshot_is_made(self):
        self.turn("create-delay", "2")
        run = self.start("mirror", "--json", self.place(), self.name, self.dir)
        run.wait_line("taking the snapshot")
        time.sleep(0.8)
        run.signal(signal.SIGKILL)
        run.finish()
        time.sleep(2)
        self.host.knob("create-delay", "0")
        self.assertNotEqual(self.journal(), [])
        self.assert_cleaned_by_cleanup()
        self.assert_untouched(self.dir, self.before)


if __name__ == "__main__":
    main()
