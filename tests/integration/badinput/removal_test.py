#!/usr/bin/env python3
"""Snapshots that do not go: the data is safe (9), what is left is known, and goes when it can.

A removal is tried three times with growing pauses, so most of the time here is waiting.
"""


from harness import CLEANUP, MirrorCase, main


class Safe(MirrorCase):
    """The data is safe; what is left is told, and goes when it can."""

    def safe_but_left(self, *says):
        result = self.refresh(expect=CLEANUP, says=("web 01", "cleanup") + says, json_lines=True)
        vm = result.summary()["vms"][0]
        self.assertEqual((vm["outcome"], vm["exit_code"]), ("ok", CLEANUP))
        self.check(self.dir)
        self.assert_true_image(self.name, self.dir)
        self.assertNotEqual(self.journal(), [])
        return result


class Fault(Safe):
    def test_fault_with_status_1(self):
        self.turn("remove-result", "fault")
        self.safe_but_left("snapshot")
        self.run_it("cleanup", self.place(), expect=CLEANUP, says=("snapshot",))
        self.host.knob("remove-result", "ok")
        self.assert_cleaned_by_cleanup()


class Fault0(Safe):
    def test_fault_with_status_0_is_removed_by_the_next_run(self):
        self.turn("remove-result", "fault0")
        self.safe_but_left("snapshot")
        self.host.knob("remove-result", "ok")
        self.refresh_works()


class Early(Safe):
    def test_answers_before_the_end(self):
        self.turn("remove-result", "early")
        self.turn("remove-delay", "3")
        self.refresh_works()


class LeavesChildren(MirrorCase):
    def test_deltas_stay(self):
        self.turn("remove-result", "leaves-children")
        run = self.start("mirror", self.place(), self.name, self.dir)
        result = run.finish(200)        # a removal is given a minute to settle, twice
        self.assert_code(result, CLEANUP)
        self.assert_says(result, "web 01", "consolidat")
        self.check(self.dir)
        self.host.knob("remove-result", "ok")
        self.host.ask("consolidate", vm=self.name)
        self.assert_cleaned_by_cleanup()


if __name__ == "__main__":
    main()
