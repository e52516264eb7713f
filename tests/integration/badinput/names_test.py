#!/usr/bin/env python3
"""Operands that name nothing or too much; names of VMs that a careless program would obey."""

import json
import os

from harness import OK, PARTIAL, USAGE, Case, MirrorCase, main, names_below

SMALL = [{"size": "1m", "content": {"seed": 5}}]


class Operands(MirrorCase):
    def test_not_found(self):
        self.refresh_fails_for("no such vm", "no such vm")
        self.refresh_fails_for("#99", "#99|99")
        self.refresh_fails_for("uuid:00000000-0000-0000-0000-000000000000", "00000000")
        self.refresh_fails_for("WEB 01", "WEB 01")      # matched as it is written
        self.refresh_fails_for("web", "web")            # and whole

    def refresh_fails_for(self, operand, *says):
        with self.subTest(operand):
            self.mirror(operand, self.dir, expect=USAGE, says=says)
            self.assert_clean()
            self.assert_untouched(self.dir, self.before)

    def test_bad_patterns(self):
        for operand in ("nothing*", "?", "*x*y*z*", "#", "#x", "#-1", "#99999999999999999999",
                        "uuid:", "uuid:x", "", "%"):
            self.refresh_fails_for(operand)

    def test_ambiguous_name_lists_both(self):
        self.vm(name="twin", disks=SMALL, dir="twin-a")
        self.vm(name="twin", disks=SMALL, dir="twin-b")
        ids = [v["vmid"] for v in self.host.state()["vms"] if v["name"] == "twin"]
        folder = os.path.join(self.folder, "m")
        self.mirror("twin", folder, expect=USAGE, says=["twin"] + ["#?%d" % i for i in ids])
        self.assert_nothing_published(folder)
        self.mirror("#%d" % ids[1], folder, expect=OK)

    def test_one_of_several_not_found_the_others_run(self):
        a, b = self.vm(disks=SMALL), self.vm(disks=SMALL)
        folder = os.path.join(self.folder, "m")
        result = self.run_it("mirror", "--json", self.place(), a, "missing", b, folder,
                             expect=PARTIAL, says=("missing",))
        rows = {v["vm"]: (v["outcome"], v["exit_code"]) for v in result.summary()["vms"]}
        self.assertEqual(rows, {a: ("ok", OK), b: ("ok", OK), "missing": ("failed", USAGE)})
        self.assertEqual(sorted(n for n in os.listdir(folder) if n[0] != "."), sorted((a, b)))
        self.check(folder)

    def test_one_that_fails_does_not_stop_the_next(self):
        bad = self.vm(disks=[{"size": "1m"}, {"size": "1m", "rdm": "physical"}])
        good = self.vm(disks=SMALL)
        folder = os.path.join(self.folder, "m")
        result = self.run_it("mirror", "--json", self.place(), bad, good, folder, expect=PARTIAL,
                             says=(bad, "scsi0:1"))
        rows = {v["vm"]: v["outcome"] for v in result.summary()["vms"]}
        self.assertEqual(rows[good], "ok")
        self.assertNotEqual(rows[bad], "ok")

    def test_vm_without_its_files(self):
        vm = self.vm(disks=SMALL)
        vmid = self.host.vm(vm)["vmid"]
        self.host.power(vm, "off")
        self.host.ask("vm-invalid", vm=vm)
        try:
            result = self.mirror("#%d" % vmid, os.path.join(self.folder, "m"))
            self.assertNotEqual(result.code, OK)
            self.assertLess(result.code, 12)
            other = self.mirror(self.name, self.dir, expect=OK)
            self.assertNotIn("abort", other.err)
        finally:
            self.host.ask("vm-invalid", vm=str(vmid), on=False)

    def test_disks_that_are_not_there(self):
        for option in ("--only-disk", "--exclude-disk"):
            with self.subTest(option):
                result = self.refresh(option, "scsi3:9")
                if option == "--only-disk":
                    self.assert_code(result, USAGE)
                self.assert_clean()
        for slot in ("", "scsi", "scsi0", "scsi0:", "scsi0:x", "../x", "scsi0:99999999999"):
            with self.subTest(slot):
                self.refresh("--only-disk", slot, expect=USAGE)


HOSTILE = {
    "newline": "web\n01",
    "quotes": "it's \"quoted\" `id` $(reboot) ; rm -rf / #",
    "escape": "red \x1b[31mtext\x1b]0;title\x07 end",
    "bidi": "abc\u202egpj.exe",
    "dots": "../../../etc/passwd",
    "only dots": "..",
    "leading dot": ".hidden",
    "leading dash": "--dry-run",
    "slash as ESXi writes it": "a%2fb",
    "percent": "100%25",
    "backslash": "c:\\windows",
    "trailing blank": "blank ",
    "trailing dot": "dot.",
    "very long": "long" * 19 + "€",
    "long in bytes": "€" * 79,
    "emoji": "\U0001f600 vm",
    "tab": "a\tb",
    "star": "web*",
}


class Hostile(Case):
    """Each name in every output, and on the disk."""

    @classmethod
    def prepare(cls):
        cls.ids = {}
        for what, name in HOSTILE.items():
            cls.ids[what] = cls.host.add_vm({"name": name, "power": "off", "disks": SMALL,
                                             "dir": "vm%d" % len(cls.ids)})["vmid"]

    def assert_harmless(self, text):
        """What goes to a terminal holds nothing that a terminal obeys."""
        for c in text:
            self.assertFalse((ord(c) < 32 and c != "\n") or 0x7f <= ord(c) < 0xa0 or
                             0x202a <= ord(c) <= 0x202e or 0x2066 <= ord(c) <= 0x2069,
                             "%r in %r" % (c, text))

    def test_vms_as_a_table(self):
        result = self.run_it("vms", self.place(), expect=OK)
        self.assert_harmless(result.out + result.err)
        rows = result.out.splitlines()
        self.assertLessEqual(len(rows), 2 * len(HOSTILE) + 2, result.out)

    def test_vms_as_json_keeps_the_names(self):
        result = self.run_it("vms", self.place(), expect=OK, json_lines=True)
        self.assertEqual(len(result.out.splitlines()), 1)
        rows = json.loads(result.out)
        self.assertEqual(sorted(r["vmid"] for r in rows), sorted(self.ids.values()))
        by_id = {r["vmid"]: r["vm"] for r in rows}
        for what in ("quotes", "bidi", "emoji", "star", "trailing dot", "leading dash"):
            self.assertEqual(by_id[self.ids[what]], HOSTILE[what].replace("/", "%2f"), what)

    def test_mirrored_listed_checked_restored(self):
        folder = os.path.join(self.folder, "deep", "m")
        os.makedirs(os.path.dirname(folder))
        guard = set(names_below(self.work))
        result = self.run_it("mirror", self.place(), *["#%d" % i for i in self.ids.values()], folder,
                             expect=OK)
        self.assert_harmless(result.out + result.err)
        made = {n for n in names_below(self.work) if n not in guard}
        inside = os.path.relpath(folder, self.work)
        for name in made:
            self.assertTrue(name == inside or name.startswith(inside + "/") or
                            name.startswith("state"), name)
        names = [n for n in os.listdir(folder) if n != ".vmferry-lock"]
        self.assertEqual(len(names), len(HOSTILE), names)
        for name in names:
            self.assertNotIn(name[0], ".-")
            self.assertNotIn(name[-1], ". ")
            self.assertNotIn("\\", name)
            self.assertLessEqual(len(name.encode()), 200)
            self.assertFalse(any(ord(c) < 32 for c in name), repr(name))
        for command, words in (("list", ()), ("check", ("--read-data",))):
            result = self.run_it(command, "--mirror", folder, *words, login=False, expect=OK)
            self.assert_harmless(result.out + result.err)
            result = self.run_it(command, "--mirror", folder, *words, login=False, expect=OK,
                                 json_lines=True)
            result.lines()
        rows = json.loads(self.run_it("list", "--mirror", folder, login=False, json_lines=True,
                                      expect=OK).out)
        self.assertEqual(len(rows), len(HOSTILE))
        out = os.path.join(self.folder, "out")
        result = self.run_it("restore", rows[0]["id"], "--mirror", folder, "--output", out,
                             login=False, expect=OK)
        # Again: a folder is found for its VM, not made twice.
        self.run_it("mirror", self.place(), *["#%d" % i for i in list(self.ids.values())[:5]],
                    folder, expect=OK)
        self.assertEqual(sorted(n for n in os.listdir(folder) if n != ".vmferry-lock"),
                         sorted(names))

    def test_named_by_name(self):
        for what in ("quotes", "emoji", "star", "trailing dot", "bidi"):
            with self.subTest(what):
                result = self.mirror(HOSTILE[what].replace("/", "%2f"), os.path.join(self.folder, "m-" + what[:4]),
                                     expect=OK)
                self.assert_harmless(result.out + result.err)
        self.run_it("mirror", self.place(), "--", HOSTILE["leading dash"],
                    os.path.join(self.folder, "m-dash"), expect=OK)

    def test_a_hostile_name_that_is_not_there(self):
        for name in ("x\x1b[31m", "a\nb", "\u202e", "\u009b31m"):
            result = self.mirror(name, os.path.join(self.folder, "m"), expect=USAGE)
            self.assert_harmless(result.out + result.err)


if __name__ == "__main__":
    main()
