#!/usr/bin/env python3
"""The program as a whole, as far as it needs no host: usage, exit codes, JSON lines, completion.

usage: test_program.py VMFERRY
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import unittest

VMFERRY = None


def run(*args, stdout=subprocess.PIPE, **more):
    return subprocess.run([VMFERRY, *args], stdin=subprocess.DEVNULL, stdout=stdout,
                          stderr=subprocess.PIPE, timeout=60, check=False, **more)


def lines(result):
    return [json.loads(line) for line in result.stdout.decode().splitlines()]


def closed_port():
    """A port of loopback on which nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Program(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="vmferry-test-")
        self.dir = self.folder.name
        self.state = ["--state-dir", os.path.join(self.dir, "state")]

    def tearDown(self):
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.dir, name)

    def test_help_and_version_go_to_standard_output(self):
        for args in (["--help"], ["-h"], ["help"], ["help", "mirror"], ["mirror", "--help"],
                     ["--version"], ["mirror", "esx1", "-h", "--nonsense=1"][:3]):
            with self.subTest(args):
                r = run(*args)
                self.assertEqual(r.returncode, 0)
                self.assertTrue(r.stdout.startswith(b"vmferry "))
                self.assertEqual(r.stderr, b"")

    def test_help_fits_into_80_columns(self):
        text = run("--help").stdout.decode()
        commands = [line.split()[0] for line in text.split("Commands:\n")[1].split("\n\n")[0].splitlines()]
        self.assertIn("mirror", commands)
        for command in commands:
            text += run(command, "--help").stdout.decode()
        for line in text.splitlines():
            self.assertLessEqual(len(line), 80, line)

    def test_wrong_usage_ends_with_2_and_says_why(self):
        wrong = [
            ([], "no command"),
            (["nonsense"], "nonsense"),
            (["help", "nonsense"], "nonsense"),
            (["vms"], "operand is missing"),
            (["datastores", "esx1", "esx2"], "one operand too many"),
            (["mirror", "esx1", "/srv"], "operand is missing"),
            (["mirror", "esx1", "web01", "[ds1] folder"], "local directory"),
            (["vms", "esx1", "--keep", "3"], "--keep"),
            (["vms", "esx1", "--dry-run"], "--dry-run"),
            (["list", "--mirror", "/x", "--read-data"], "--read-data"),
            (["list"], "--mirror"),
            (["restore", "web01@1", "--mirror", "/x"], "--output"),
            (["check", "--mirror", "/x", "--output", "/y"], "--output"),
            (["cleanup", "esx1", "--full"], "--full"),
            (["vms", "esx1", "--allow-exec"], "--allow-exec"),
            (["vms", "-oProxyCommand=x"], "-oProxyCommand"),
            (["vms", "--", "-oProxyCommand=x"], "no name of a host"),
            (["vms", "esx1:0"], "port"),
            (["mirror", "esx1", "web01", "/srv", "--bwlimit", "0"], "--bwlimit"),
        ]
        for args, why in wrong:
            with self.subTest(args):
                r = run(*args, *(self.state if args else []))
                self.assertEqual(r.returncode, 2, r.stderr)
                self.assertIn(why, r.stderr.decode())
                self.assertEqual(r.stdout, b"")

    def test_the_summary_comes_last_even_after_wrong_usage(self):
        for args in (["mirror", "esx1", "--nonsense", "--json"], ["--json"], ["nonsense", "--json"],
                     ["--json", "check"], ["cleanup", "--json", "a", "b"]):
            with self.subTest(args):
                r = run(*args)
                self.assertEqual(r.returncode, 2)
                got = lines(r)
                self.assertEqual([x["type"] for x in got], ["error", "summary"])
                self.assertEqual(got[0]["exit_code"], 2)
                self.assertEqual(got[0]["class"], "usage")
                self.assertEqual(got[1]["exit_code"], 2)
                self.assertEqual(got[1]["vms"], [])
                self.assertIsInstance(got[1]["seconds"], float)

    def test_a_list_that_fails_is_one_error_object(self):
        for args in (["vms", "--json"], ["datastores", "--json", "a", "b"], ["list", "--json"],
                     ["list", "--json", "--mirror", "/nowhere/at/all"]):
            with self.subTest(args):
                r = run(*args)
                self.assertEqual(r.returncode, 2)
                got = lines(r)
                self.assertEqual(len(got), 1)
                self.assertEqual(got[0]["type"], "error")

    def test_a_host_that_does_not_answer_is_12(self):
        target = "127.0.0.1:%d" % closed_port()
        r = run("vms", target, *self.state)
        self.assertEqual(r.returncode, 12)
        self.assertIn(target, r.stderr.decode())
        self.assertEqual(run("mirror", target, "web01", self.path("m"), *self.state).returncode, 12)
        self.assertFalse(os.path.exists(self.path("m")))
        r = run("mirror", target, "web01", self.path("m"), "--json", *self.state)
        self.assertEqual(lines(r)[-1]["exit_code"], 12)

    def test_doctor_tells_a_failed_login_as_a_check(self):
        r = run("doctor", "127.0.0.1:%d" % closed_port(), "--json", *self.state)
        self.assertEqual(r.returncode, 1)
        got = json.loads(r.stdout)
        self.assertEqual([(x["check"], x["result"]) for x in got], [("login", "fail")])
        self.assertTrue(got[0]["remedy"])

    def test_a_password_file_that_others_can_read_is_refused_before_connecting(self):
        path = self.path("password")
        with open(path, "w", encoding="ascii") as f:
            f.write("canary-1b9f\n")
        os.chmod(path, 0o644)
        r = run("vms", "127.0.0.1:%d" % closed_port(), "--password-file", path, *self.state)
        self.assertEqual(r.returncode, 2)
        self.assertIn("chmod 600", r.stderr.decode())
        os.chmod(path, 0o600)
        log = self.path("log")
        r = run("vms", "127.0.0.1:%d" % closed_port(), "--password-file", path, "-vv", "--log-file",
                log, *self.state)
        self.assertEqual(r.returncode, 12)
        with open(log, "rb") as f:
            self.assertNotIn(b"canary", f.read())
        self.assertNotIn(b"canary", r.stderr)
        r = run("vms", "h", "--password-file", self.path("absent"), *self.state)
        self.assertEqual(r.returncode, 2)

    def test_the_state_directory_is_private(self):
        run("vms", "127.0.0.1:%d" % closed_port(), *self.state)
        self.assertEqual(os.stat(self.state[1]).st_mode & 0o7777, 0o700)
        os.chmod(self.state[1], 0o777)
        r = run("vms", "127.0.0.1:%d" % closed_port(), *self.state)
        self.assertEqual(r.returncode, 11)

    def test_an_empty_folder_holds_no_mirrors(self):
        empty = self.path("empty")
        os.mkdir(empty)
        r = run("list", "--mirror", empty, "--json")
        self.assertEqual((r.returncode, r.stdout), (0, b"[]\n"))
        r = run("check", "--mirror", empty, "--json")
        self.assertEqual(r.returncode, 0)
        self.assertEqual(lines(r)[-1]["vms"], [])
        r = run("restore", "web01@latest", "--mirror", empty, "--output", self.path("out"))
        self.assertEqual(r.returncode, 2)
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertEqual(os.listdir(empty), [])

    def test_results_that_cannot_be_written_are_a_failure(self):
        empty = self.path("empty")
        os.mkdir(empty)
        with open("/dev/full", "wb") as full:
            r = run("list", "--mirror", empty, "--json", stdout=full)
            self.assertEqual(r.returncode, 8)
            self.assertNotEqual(run("--help", stdout=full).returncode, 0)

    def test_hostile_operands_are_shown_escaped(self):
        r = run("\x1b[31mred\n")
        self.assertEqual(r.returncode, 2)
        self.assertNotIn(b"\x1b", r.stderr)
        r = run("\x1b[31mred\n", "--json")
        self.assertNotIn(b"\x1b", r.stdout)
        self.assertEqual(lines(r)[-1]["command"], "\x1b[31mred\n")

    def complete(self, *words):
        """What bash offers for the last word."""
        script = run("completion", "bash").stdout.decode() + """
            compopt() { :; }
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vmferry; printf '%s\\n' "${COMPREPLY[@]}"
        """
        r = subprocess.run(["bash", "-c", script, "bash", *words], stdout=subprocess.PIPE, check=True,
                           timeout=60)
        return r.stdout.decode().split()

    def test_the_shell_completes_commands_options_and_values(self):
        self.assertEqual(self.complete("vmferry", "mi"), ["mirror"])
        self.assertIn("help", self.complete("vmferry", ""))
        self.assertNotIn("completion", self.complete("vmferry", ""))
        self.assertEqual(self.complete("vmferry", "--json", "da"), ["datastores"])
        # The value of an option is no command.
        self.assertEqual(self.complete("vmferry", "--log-file", "mirror", "che"), ["check"])
        self.assertEqual(self.complete("vmferry", "mirror", "--kee"), ["--keep"])
        self.assertEqual(self.complete("vmferry", "vms", "--kee"), [])
        self.assertEqual(self.complete("vmferry", "check", "--read"), ["--read-data="])
        self.assertEqual(self.complete("vmferry", "mirror", "--quiesce", "r"), ["require"])
        self.assertEqual(self.complete("vmferry", "vms", "--data-channel", ""), ["auto", "tcp", "ssh"])


if __name__ == "__main__":
    VMFERRY = os.path.abspath(sys.argv.pop(1))
    unittest.main()
