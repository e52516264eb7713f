#!/usr/bin/env python3
"""Options that are unknown or cannot be honoured; what --json promises, also after errors."""

import json
import os

from harness import AUTH, NETWORK, OK, REFUSED, USAGE, MirrorCase, main

LISTS = ("vms", "datastores", "doctor", "list")


class Output(MirrorCase):
    disks = [{"size": "1m", "content": {"seed": 3}}]

    def setUp(self):
        super().setUp()
        self.gone = "127.0.0.1:1"

    def write(self, vm, **how):
        """Nothing here depends on what is in the disks."""

    def words(self, command, place=None):
        place = place or self.place()
        return {"vms": (place,), "datastores": (place,), "doctor": (place, "--min-free", "1G"), "cleanup": (place,),
                "list": ("--mirror", self.dir), "check": ("--mirror", self.dir),
                "restore": ("%s@latest" % self.name, "--mirror", self.dir, "--output", os.path.join(self.folder, "o")),
                "mirror": (place, self.name, self.dir)}[command]

    def test_unknown_options(self):
        for command in ("vms", "datastores", "doctor", "cleanup", "list", "check", "restore",
                        "mirror"):
            for option in ("--no-such", "--keepp=3", "-Z", "--jsonn"):
                with self.subTest("%s %s" % (command, option)):
                    self.run_it(command, option, *self.words(command), expect=USAGE,
                                says=(option.split("=")[0][:6],))
        self.assert_untouched(self.dir, self.before)

    def test_options_that_a_command_cannot_honour(self):
        for command, option in (
                ("vms", ("--keep", "3")), ("vms", ("--full",)), ("list", ("--read-data",)),
                ("list", ("--output", "x")), ("check", ("--bwlimit", "1M")),
                ("cleanup", ("--keep", "1")), ("restore", ("--retained",)),
                ("mirror", ("--mirror", "x")), ("mirror", ("--foreign", "0" * 32)),
                ("mirror", ("--output", "x")), ("doctor", ("--keep", "1")),
                ("datastores", ("--dry-run",)), ("mirror", ("--allow-exec",)),
                ("restore", ("--retain-snapshot",)), ("mirror", ("--repo", "x"))):
            with self.subTest("%s %s" % (command, option[0])):
                self.run_it(command, *option, *self.words(command), expect=USAGE, says=(option[0],))
        self.assert_untouched(self.dir, self.before)

    def test_values_that_are_none(self):
        for option in (("--keep", "x"), ("--keep", "-1"), ("--keep", "99999999999"),
                       ("--bwlimit", "fast"), ("--bwlimit", "-1"), ("--compress", "20"),
                       ("--compress", "best"), ("--quiesce", "maybe"), ("--min-free", "101%"),
                       ("--min-free", "x"), ("--stall-timeout", "1 year"), ("--lock-wait", ""),
                       ("--max-snapshot-age", "-1h"), ("--data-channel", "udp"),
                       ("--data-security", "none"), ("--data-listen", "nowhere:x"),
                       ("--data-listen", "127.0.0.1:0"), ("--data-listen", "127.0.0.1:70000"),
                       ("--data-connect", ":"), ("--json=yes",), ("--only-disk", "../x"),
                       ("--keep",)):
            words = (self.place(), self.name, self.dir) + option
            with self.subTest(option):
                self.run_it("mirror", *words, expect=USAGE, says=(option[0].split("=")[0],))
        self.assert_untouched(self.dir, self.before)

    def test_both_of_two_that_exclude_each_other(self):
        self.refresh("--only-disk", "scsi0:0", "--exclude-disk", "scsi0:1", expect=USAGE)
        self.refresh("--password-command", "true", expect=USAGE)

    def test_operands_missing_or_too_many(self):
        for words in (("vms",), ("mirror",), ("mirror", "h"), ("mirror", "h", "v"), ("restore",),
                      ("list",), ("check",), ("list", "--mirror", self.dir, "a", "b"),
                      ("datastores", "h", "x"), ("nonsense",), ("",), ("--json",), ()):
            with self.subTest(words):
                command = words[0] if words else "--quiet"
                result = self.run_it(command, *words[1:], login=False, own_data=False)
                self.assert_code(result, USAGE)
                self.assertTrue(result.err, words)

    def failures(self):
        missing = os.path.join(self.folder, "none")
        return [
            ("mirror", (self.gone, self.name, self.dir), NETWORK),
            ("mirror", (self.place(), "no such", self.dir), USAGE),
            ("mirror", (self.place(), self.name, self.dir, "--agent-file", missing), USAGE),
            ("mirror", (self.place(), self.name, self.dir, "--known-hosts", missing), AUTH),
            ("mirror", (self.place(), self.name, self.dir, "--no-such"), USAGE),
            ("mirror", (self.place(),), USAGE),
            ("cleanup", (self.gone,), NETWORK),
            ("check", ("--mirror", missing), USAGE),
            ("check", ("--mirror", self.dir, "nobody@7"), USAGE),
            ("restore", ("77", "--mirror", self.dir, "--output", missing), USAGE),
            ("vms", (self.gone,), NETWORK), ("vms", (self.place(), "no such"), USAGE),
            ("datastores", (self.gone,), NETWORK), ("vms", (), USAGE),
            ("list", ("--mirror", missing), USAGE), ("list", ("--mirror", self.dir, "nobody"), USAGE),
            ("doctor", (self.gone,), None),
            ("vms", (self.place(), "--no-such"), USAGE),
        ]

    def test_json_after_every_error(self):
        for command, words, code in self.failures():
            with self.subTest("%s %s" % (command, words)):
                result = self.run_it(command, *words, json_lines=True)
                if code is not None:
                    self.assert_code(result, code)
                self.assertNotEqual(result.code, OK)
                lines = result.lines()
                if command in LISTS:
                    self.assertEqual(len(lines), 1, result.out)
                    if not isinstance(lines[0], list):
                        self.assertEqual(lines[0]["type"], "error", result.out)
                        continue
                    self.assertEqual(command, "doctor")
                    self.assertTrue(any(r["result"] == "fail" and r["remedy"] for r in lines[0]))
                    continue
                self.assertEqual(lines[-1]["type"], "summary", result.out)
                self.assertEqual(lines[-1]["exit_code"], result.code)
                self.assertEqual(lines[-1]["command"], command)
                self.assertIsInstance(lines[-1]["seconds"], (int, float))
                self.assertIsInstance(lines[-1]["vms"], list)
                self.assertTrue(any(x["type"] == "error" for x in lines) or
                                any(v.get("error") for v in lines[-1]["vms"]), result.out)
                for x in lines:
                    self.assertIn(x["type"], ("status", "warning", "error", "summary"))

    def test_json_of_good_commands(self):
        for command in LISTS:
            with self.subTest(command):
                result = self.run_it(command, *self.words(command), json_lines=True, expect=OK)
                self.assertEqual(len(result.out.splitlines()), 1)
                self.assertIsInstance(json.loads(result.out), list)
        for command in ("mirror", "check", "cleanup", "restore"):
            with self.subTest(command):
                result = self.run_it(command, *self.words(command), json_lines=True, expect=OK)
                self.assertEqual(result.summary()["exit_code"], OK)
                self.assertEqual(result.summary()["command"], command)

    def test_results_and_notes_do_not_mix(self):
        """Without --json: nothing but results on standard output, even when all goes wrong."""
        for command, words, _ in self.failures():
            if command == "doctor":
                continue
            with self.subTest("%s %s" % (command, words)):
                result = self.run_it(command, *words)
                self.assertNotIn("error:", result.out)
                self.assertTrue(result.err.strip())

    def test_restore_over_something(self):
        """Only an absent or an empty folder is taken."""
        out = os.path.join(self.folder, "o")
        os.mkdir(out)
        with open(os.path.join(out, "mine"), "w", encoding="ascii") as f:
            f.write("mine")
        words = ("%s@latest" % self.name, "--mirror", self.dir, "--output")
        self.run_it("restore", *words, out, expect=REFUSED, says=(out,))
        self.assertEqual(os.listdir(out), ["mine"])
        path = os.path.join(out, "mine")
        self.run_it("restore", *words, path, expect=REFUSED, says=(path,))
        with open(path, encoding="ascii") as f:
            self.assertEqual(f.read(), "mine")
        inside = os.path.join(self.vm_folder(self.dir), "o")
        self.run_it("restore", *words, "[datastore1] x", expect=USAGE)
        self.assertFalse(os.path.exists(inside))

    def test_fewer_generations_need_a_yes(self):
        self.refresh("--keep", "3", expect=OK)
        self.refresh("--keep", "1", expect=REFUSED, says=("--yes",))
        self.refresh("--keep", "1", "--yes", expect=OK)

    def test_generations_that_are_none(self):
        for gen in ("", "@", "x@", "web 01@", "web 01@0", "web 01@-1", "web 01@999", "0", "-1",
                    "web 01@1999-01-01", "web 01@2026-13-45", "web 01@latest@latest", "abcdef99",
                    "../..@1", "web 01@99999999999999999999", "x" * 5000, "zz\x1b[31m@1"):
            with self.subTest(gen):
                out = os.path.join(self.folder, "o")
                self.run_it("restore", "--mirror", self.dir, "--output", out, "--", gen,
                            expect=USAGE)
                self.assertFalse(os.path.exists(out))
                self.run_it("check", "--mirror", self.dir, "--", gen or "@", expect=USAGE)

    def test_standard_output_closed_or_full(self):
        with open("/dev/full", "wb") as full:
            import subprocess
            done = subprocess.run(self.argv("vms", self.place(), json_lines=True), stdout=full,
                                  stderr=subprocess.PIPE, timeout=60, check=False)
            self.assertNotEqual(done.returncode, OK)
            self.assertGreater(done.returncode, 0, done.stderr)
            self.assertIn(b"output", done.stderr)


if __name__ == "__main__":
    main()
