#!/usr/bin/env python3
"""The agent: refused, missing, broken, without a place."""

import os

from harness import INTEGRITY, MB, OK, SPACE, USAGE, MirrorCase, main, program


class Refused(MirrorCase):
    """A host that runs nothing of ours: the default of 8.0."""
    profile = "8.0"

    @classmethod
    def prepare(cls):
        super().prepare()

    def test_refused_agent_is_no_failure(self):
        result = self.refresh(expect=OK, json_lines=True, says=(
            "Operation not permitted", "--allow-exec", "dd", "slower"))
        vm = result.summary()["vms"][0]
        self.assertEqual((vm["read_path"], vm["data_channel"]), ("ssh-dd", "ssh"))
        self.assertIn(("refused", True), [(r[0], "/vmferry-agent" in r[1])
                                          for r in self.host.executed()])
        self.assert_clean()
        self.assert_true_image(self.name, self.dir)
        self.check(self.dir)


class Files(MirrorCase):
    """--agent-file names something else."""

    def agent(self, data, mode=0o600):
        path = os.path.join(self.folder, "agent")
        with open(path, "wb") as f:
            f.write(data)
        os.chmod(path, mode)
        return path

    def ours(self):
        with open(os.path.join(os.path.dirname(program()), "vmferry-agent-x86_64"), "rb") as f:
            return f.read()

    def falls_back(self, path, *says):
        """The disks are read by dd; the reason is told."""
        result = self.refresh("--agent-file", path, expect=OK, json_lines=True, says=says + ("dd",))
        self.assertEqual(result.summary()["vms"][0]["read_path"], "ssh-dd", str(result))
        self.assert_clean()
        self.assert_true_image(self.name, self.dir)
        self.check(self.dir)

    def test_missing(self):
        path = os.path.join(self.folder, "none")
        self.refresh_fails(USAGE, path, options=("--agent-file", path))

    def test_empty(self):
        path = self.agent(b"")
        self.refresh_fails(USAGE, path, options=("--agent-file", path))

    def test_folder(self):
        self.refresh_fails(USAGE, self.folder, options=("--agent-file", self.folder))

    def test_not_executable_here_is_executable_there(self):
        path = self.agent(self.ours(), 0o400)
        result = self.refresh("--agent-file", path, expect=OK, json_lines=True)
        self.assertEqual(result.summary()["vms"][0]["read_path"], "agent")

    def test_junk(self):
        self.falls_back(self.agent(os.urandom(300000)), "not made for this host|does not work|cannot start")

    def test_cut_short(self):
        whole = self.ours()
        self.falls_back(self.agent(whole[:len(whole) // 2]), "agent")

    def test_flipped_bits(self):
        data = bytearray(self.ours())
        for at in range(0x1000, len(data), 997):
            data[at] ^= 0x55
        self.falls_back(self.agent(bytes(data)), "agent")

    def test_program_that_is_no_agent(self):
        self.falls_back(self.agent(b"#!/bin/sh\nexit 3\n"), "status 3|does not work")

    def test_agent_that_says_its_version_and_nothing_more(self):
        path = self.agent(b"#!/bin/sh\n[ \"$1\" = --version ] && echo 'vmferry-agent 0.1'\nexit 0\n")
        self.refresh_fails(INTEGRITY, "agent", options=("--agent-file", path))

    def test_agent_that_talks_junk(self):
        path = self.agent(b"#!/bin/sh\n[ \"$1\" = --version ] && { echo 'vmferry-agent 0.1'; exit; }"
                          b"\nwhile :; do echo junk junk junk junk junk junk junk; done\n")
        self.refresh_fails(INTEGRITY, "agent", options=("--agent-file", path))


class Places(MirrorCase):
    """Where the agent goes on the host."""
    datastores = [{"name": "datastore1", "kind": "VMFS-5"},
                  {"name": "small", "kind": "VMFS-5", "size": "2m", "tmpfs": True}]

    def test_wrong_agent_dir(self):
        for place, says in (("[nowhere] x", "nowhere"), ("datastore1/x", "--agent-dir"),
                            ("[datastore1", "--agent-dir"), ("[datastore1] ../../etc", "--agent-dir"),
                            ("", "--agent-dir")):
            with self.subTest(place):
                self.refresh_fails(USAGE, says, options=("--agent-dir", place))

    def test_agent_dir_that_is_not_there(self):
        result = self.refresh("--agent-dir", "[datastore1] no/such/folder", says=(
            r"no/such/folder|datastore1",))
        self.assertNotEqual(result.code, OK)
        self.assertLess(result.code, 12)
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)

    def fill_small(self):
        path = self.host.path("/vmfs/volumes/small/ballast")
        with open(path, "wb") as f:
            try:
                while True:
                    f.write(bytes(65536))
                    f.flush()
            except OSError:
                pass
        self.addCleanup(os.unlink, path)

    def clean_but_ballast(self):
        left = self.host.leftovers()
        self.assertEqual([f for f in left["files"] if not f.endswith("/ballast")], [])
        self.assertEqual((left["processes"], left["snapshots"]), ([], []))
        self.assertEqual(self.journal(), [])

    def test_named_place_is_full(self):
        self.fill_small()
        self.refresh("--agent-dir", "[small]", expect=SPACE, says=("small", "space|room"))
        self.clean_but_ballast()
        self.assert_untouched(self.dir, self.before)
        self.doCleanups()

    def test_full_place_is_passed_over(self):
        """The VM lies on a full datastore: another one takes the agent."""
        self.turn("free-space", "datastore1=%d,small=%d" % (5000 * MB, MB))
        self.turn("tmp-full", "on")
        result = self.refresh(expect=OK, json_lines=True)
        self.assertEqual(result.summary()["vms"][0]["read_path"], "agent")
        self.assert_true_image(self.name, self.dir)


if __name__ == "__main__":
    main()
