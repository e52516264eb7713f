#!/usr/bin/env python3
"""Kill the receiver, the agent, sshd or the host during first mirrors, refreshes and cleanups, at
random moments and at named steps.  After each kill the mirror is checked without the host, and the
next run must leave nothing of ours there.  README.md has the whole story.

    kill_loop.py [--kills 500] [--seed N] [--at-least 5]
"""

import collections
import shutil
import signal
import time

import tool
from faults import FaultTest, Target
from lookalike import LookalikeError

SNAPSHOT = ["journal.snapshot." + s for s in ("intent", "created", "reading", "removing", "gone")]
AGENT = ["journal.agent." + s for s in ("intent", "created", "removing", "gone")]
COMMIT = ["mirror." + s for s in (
    "redo-durable", "delta-durable", "commit", "committed", "applying", "applied", "published",
    "commit-removed", "redo-dropped")]
FIRST = ["mirror." + s for s in ("committed", "applied", "published", "commit-removed", "rename",
                                 "renamed")]
AROUND = ["snapshot.create", "snapshot.asked", "snapshot.remove", "snapshot.removed",
          "place.folder", "place.uploaded", "place.remove", "place.removed"]
STEPS = {
    "refresh": COMMIT + SNAPSHOT + AGENT + AROUND,
    "first": FIRST + SNAPSHOT + AGENT,
    "cleanup": ["journal.snapshot.removing", "journal.snapshot.gone", "journal.agent.gone",
                "snapshot.remove", "snapshot.removed"],
}
# (operation, step): every one of these has to be hit.
WANTED = [(op, step) for op in STEPS for step in STEPS[op]]
# Where the other victims are hit while the receiver stands still.
STILL = SNAPSHOT + AGENT + ["snapshot.asked", "snapshot.remove", "mirror.redo-durable",
                            "mirror.committed", "mirror.applying", "mirror.published"]
VICTIMS = ("agent", "sshd", "host")


def plan(kills, rng):
    """What to kill where: (operation, victim, step or None for a random moment)."""
    out = []
    rounds = max(1, kills * 6 // (10 * len(WANTED)))
    for _ in range(rounds):
        out += [(op, "receiver", step) for op, step in WANTED]
    rng.shuffle(out)
    out = out[:kills * 2 // 3]
    still = [(op, victim, step) for victim in ("sshd", "host") for op in ("refresh", "first")
             for step in STILL if step in STEPS[op]] + [("refresh", "agent", "mirror.redo-durable")]
    rng.shuffle(still)
    out += still[:(kills - len(out)) // 2]
    while len(out) < kills:
        op = rng.choices(("refresh", "first", "cleanup"), (5, 3, 2))[0]
        victim = rng.choices(("receiver",) + VICTIMS, (4, 2, 1, 1))[0]
        if op == "cleanup" and victim == "agent":
            victim = "receiver"         # a cleanup has none
        out.append((op, victim, None))
    rng.shuffle(out)
    return out


class KillLoop(FaultTest):
    kills, at_least = 16, 0

    def setUp(self):
        super().setUp()
        self.steps = collections.Counter()      # named steps that were hit
        self.victims = collections.Counter()
        self.codes = collections.Counter()
        self.seconds = 1.0

    def hit(self, victim):
        """Kill something on the host.  False when it was not there."""
        if victim == "host":
            self.host.reboot()
        elif victim == "sshd":
            self.host.ask("kill-sessions")
        else:
            agents = [p for p in self.host.ask("processes") if "vmferry-agent" in p["command"]]
            for p in agents:
                try:
                    self.host.ask("kill", pid=p["pid"])
                except LookalikeError:
                    return False
            return bool(agents)
        return True

    # killed runs

    def stopped(self, running):
        """Wait until it stands still.  False: it ended before."""
        while running.process.poll() is None:
            try:
                with open("/proc/%d/stat" % running.process.pid, encoding="ascii") as f:
                    state = f.read().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                return False
            if state == "T":
                return True
            time.sleep(0.005)
        return False

    def killed_run(self, target, op, victim, step):
        """Start it and kill what was asked for.  (exit code, what was hit or None)."""
        if step is not None:
            nth = self.rng.randrange(1, 4) if step == "mirror.applying" else 1
            if step.startswith("journal.agent") or step == "mirror.redo-durable":
                nth = self.rng.randrange(1, 3) if step.endswith(("intent", "durable")) else 1
            action = "kill" if victim == "receiver" else "stop"
            running = self.start(target, op, "%s:%d:%s" % (step, nth, action))
            if victim == "receiver":
                code = running.end().code
                return code, step if code == -signal.SIGKILL else None
            done = self.stopped(running) and self.hit(victim)
            running.signal(signal.SIGCONT)
            return running.end().code, step if done else None
        running = self.start(target, op, None)
        if victim == "agent":
            running.wait_step("starting the transfer")
            time.sleep(self.rng.uniform(0, 0.1))
        else:
            time.sleep(self.rng.uniform(0, 0.9 * self.seconds))
        if victim == "receiver":
            running.signal()
            code = running.end().code
            return code, "moment" if code == -signal.SIGKILL else None
        done = running.process.poll() is None and self.hit(victim)
        return running.end().code, "moment" if done else None

    def leave_something(self, target):
        """For a cleanup: a run that died while it read."""
        step = self.rng.choice(("journal.snapshot.reading", "journal.snapshot.created",
                                "mirror.redo-durable", "mirror.committed"))
        self.last_fresh = self.model()
        running = self.start(target, "refresh", step + ":1:kill")
        code = running.end().code
        self.assertEqual(code, -signal.SIGKILL, step)
        self.check_offline(target, self.last_fresh, code, "left for a cleanup at " + step)

    def one(self, target, op, victim, step, message):
        if op == "cleanup":
            self.leave_something(target)
            self.last_fresh = None
        else:
            self.guest_writes()
            self.last_fresh = self.model()
        began = time.monotonic()
        code, where = self.killed_run(target, op, victim, step)
        if where is None and op != "cleanup" and code == 0:
            self.seconds = 0.8 * self.seconds + 0.2 * (time.monotonic() - began)
        message += ", exit %d" % code
        self.codes[code] += 1
        # Killed; or it went on; or it said that the connection was lost, or what it could not undo.
        self.assertIn(code, (-signal.SIGKILL, 0, 9, 12), message)
        if where is not None:
            self.victims[(op, victim)] += 1
            self.steps[(op, where) if victim == "receiver" else (victim, where)] += 1
            self.note_disk(target)
        if op != "cleanup":
            self.check_offline(target, self.last_fresh, code, message)
        else:
            self.vmferry("check", "--json", "--mirror", target.dir, "--read-data")
            self.assert_target(target, message)
        self.tidy(target, op, message)
        return where is not None

    def test_loop(self):
        self.make_host()
        self.addCleanup(self.drop_foreign)
        refreshed = Target(self.path("refreshed"))
        began = time.monotonic()
        self.run_whole(refreshed, "at the start")
        self.seconds = time.monotonic() - began
        self.done = self.tries = 0
        try:
            self.kill_all(refreshed, collections.deque(plan(self.kills, self.rng)))
        finally:
            self.report()
        for key in WANTED:
            self.assertGreaterEqual(self.steps[key], self.at_least, "%s at %s" % key)

    def kill_all(self, refreshed, todo):
        while todo:
            op, victim, step = todo.popleft()
            self.tries += 1
            self.assertLess(self.tries, 2 * self.kills + 20, "most kills do not hit")
            message = "seed %d, number %d: %s, %s killed at %s" % (
                self.seed, self.tries, op, victim, step or "a random moment")
            target = refreshed if op != "first" else Target(self.path("first"))
            if self.one(target, op, victim, step, message):
                self.done += 1
                if self.done % 25 == 0:
                    print("%d kills, %d runs" % (self.done, self.tries), flush=True)
            else:
                todo.append((op, victim, step if victim == "receiver" else None))
            if op == "first":
                shutil.rmtree(target.dir)
            self.forget_truths(target)

    def report(self):
        print("%d kills in %d runs, seed %d" % (self.done, self.tries, self.seed))
        for title, counts in (("victims", self.victims), ("steps hit", self.steps),
                              ("what the disk showed", self.found), ("exit codes", self.codes)):
            print(title)
            for key, count in sorted(counts.items(), key=str):
                name = " at ".join(key) if isinstance(key, tuple) else key
                print("    %5d  %s" % (count, name))


if __name__ == "__main__":
    tool.main(KillLoop, __doc__, kills=(500, "how many"),
              at_least=(0, "hits that each step must have"))
