#!/usr/bin/env python3
"""The password is a canary: it turns up nowhere but in its own file."""

import os
import threading
import time

from harness import AUTH, OK, Lookalike, MirrorCase, main

CANARY = "Kanarienvogel-7f3a9c51-%d"


class Watch(threading.Thread):
    """Looks at every process of the machine, the host's sessions among them, all the time."""

    def __init__(self, secrets, own):
        super().__init__(daemon=True)
        self.secrets = [s.encode() for s in secrets]
        self.own = own
        self.found = set()
        self.seen = set()
        self.looks = 0
        self.ending = threading.Event()

    def run(self):
        while not self.ending.is_set():
            for pid in filter(str.isdigit, os.listdir("/proc")):
                self.look(pid)
            self.looks += 1
            time.sleep(0.005)

    def look(self, pid):
        for what in ("cmdline", "environ"):
            try:
                with open("/proc/%s/%s" % (pid, what), "rb") as f:
                    data = f.read()
            except OSError:
                continue
            if self.own in data:
                self.seen.add(what)
            for s in self.secrets:
                if s in data:
                    self.found.add((what, data[:300]))


class Secrets(MirrorCase):
    @classmethod
    def setUpClass(cls):
        start = Lookalike.start
        cls.canary = CANARY % os.getpid()
        Lookalike.start = classmethod(
            lambda c, *a, **k: start(*a, **dict(k, password=cls.canary)))
        try:
            super().setUpClass()
        finally:
            Lookalike.start = start

    def files_with(self, *folders, but=()):
        """Files below that hold the password."""
        found = []
        for folder in folders:
            for at, _, names in os.walk(folder):
                for name in names:
                    path = os.path.join(at, name)
                    if path in but or not os.path.isfile(path) or os.path.islink(path):
                        continue
                    try:
                        with open(path, "rb") as f:
                            if self.canary.encode() in f.read():
                                found.append(path)
                    except OSError:
                        pass
        return found

    def watched(self, *commands):
        """Run them, each with all the talk there is; the results."""
        log = os.path.join(self.folder, "log")
        watch = Watch([self.canary], os.fsencode(self.state))
        watch.start()
        results = [self.run_it(*c[:1], "-v", "-v", "--log-file", log, *c[1:], **how)
                   for c, how in commands]
        watch.ending.set()
        watch.join(10)
        self.assertGreater(watch.looks, 0)
        self.assertIn("cmdline", watch.seen, "the watch saw nothing")
        self.assertEqual(watch.found, set())
        for r in results:
            self.assertNotIn(self.canary, r.out + r.err)
        self.assertGreater(os.path.getsize(log), 50)
        left = self.files_with(self.work, self.host.dir, but=(self.host.password_file,))
        self.assertEqual([p for p in left if not os.path.basename(p).startswith("own-")], [])
        return results

    def test_password_file(self):
        self.watched((("mirror", self.place(), self.name, self.dir), {"expect": OK}),
                     (("vms", self.place()), {"expect": OK}),
                     (("cleanup", self.place()), {"expect": OK}),
                     (("doctor", self.place()), {}))

    def test_password_command(self):
        own = os.path.join(self.folder, "own-secret")
        with open(own, "w", encoding="ascii") as f:
            f.write(self.canary + "\n")
        self.watched((("mirror", "--known-hosts", self.host.known_hosts, "--password-command",
                       "cat %s" % own, self.place(), self.name, self.dir),
                      {"expect": OK, "login": False}))

    def test_wrong_host_gets_no_password(self):
        known = os.path.join(self.folder, "known")
        with open(known, "w", encoding="ascii"):
            pass
        self.watched((("mirror", "--known-hosts", known, "--password-file",
                       self.host.password_file, self.place(), self.name, self.dir),
                      {"expect": AUTH, "login": False}))

    def test_refused_password_is_not_told(self):
        wrong = os.path.join(self.folder, "own-wrong")
        with open(wrong, "w", encoding="ascii") as f:
            f.write(self.canary + "x\n")
        os.chmod(wrong, 0o600)
        self.watched((("mirror", "--known-hosts", self.host.known_hosts, "--password-file", wrong,
                       self.place(), self.name, self.dir), {"expect": AUTH, "login": False}))

    def test_password_in_an_argument_is_no_option(self):
        self.run_it("vms", "--password", "x", self.place(), expect=2)
        self.run_it("vms", "root:secret@%s" % self.place(), login=False)

    def test_keys_of_the_data_channel_are_in_no_argument(self):
        """The session's secret goes over standard input: agents are called with --serve alone."""
        calls = len(self.host.sessions())
        self.refresh(expect=OK)
        served = [c for c in self.host.sessions()[calls:] if "--serve" in c]
        self.assertTrue(served)
        for c in served:
            self.assertRegex(c, r"vmferry-agent'? '?--serve'?$")

    def test_state_and_mirror_are_private(self):
        for folder in (self.state, os.path.join(self.vm_folder(self.dir), ".vmferry")):
            self.assertEqual(os.stat(folder).st_mode & 0o077, 0, folder)
        self.assertEqual(os.stat(self.vm_folder(self.dir)).st_mode & 0o077, 0)

    def test_no_core_dump_and_no_peeking(self):
        """Memory with keys is not dumped by a crash."""
        run = self.start("mirror", "--json", "--bwlimit", "300k", "--compress", "none",
                         self.place(), self.name, self.dir)
        run.wait_line("starting the transfer")
        with open("/proc/%d/limits" % run.process.pid, encoding="ascii") as f:
            core = next(line for line in f if line.startswith("Max core"))
        self.assertEqual(core.split()[4], "0", core)
        self.assert_code(run.finish(), OK)


if __name__ == "__main__":
    main()
