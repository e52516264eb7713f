#!/usr/bin/env python3
"""Earlier generations, and whose folder is whose: names, twins, several VMs in one run."""

import json
import os
import subprocess

import harness
from harness import BLOCK, MB


class Generations(harness.MirrorTest):

    def restored(self, generation, code=0, name="web 01"):
        self.count += 1
        out = self.path("restored-%d" % self.count)
        self.vmferry("restore", "%s@%s" % (name, generation), "--mirror", self.mirror, "--output",
                     out, code=code)
        return out

    def numbers(self):
        return [g["generation"] for g in self.list()]

    def step(self, n):
        """What happens between generations: every form of change, and none."""
        if n == 2:
            self.scribble("web 01", "scsi0:0", [(MB, 3 * BLOCK), (9 * MB + 512, 512)], seed=2)
        elif n == 3:        # data becomes zeros, a hole becomes data
            self.scribble("web 01", "scsi0:0", [(2 * MB, 2 * MB)])
            self.scribble("web 01", "scsi0:0", [(12 * MB, MB)], seed=3)
        elif n == 4:        # nothing in this disk, the other one changes
            self.scribble("web 01", "scsi0:1", [(0, 4 * MB)], seed=4)
        elif n == 5:        # growth, and data behind the old end
            self.host.ask("disk-grow", vm="web 01", slot="scsi0:0", size=20 * MB + 512)
            self.scribble("web 01", "scsi0:0", [(19 * MB, MB + 512), (2 * MB, BLOCK)], seed=5)
        elif n == 6:        # the other disk goes, another comes
            self.host.ask("disk-remove", vm="web 01", slot="scsi0:1")
            self.host.ask("disk-add", vm="web 01", disk=self.disk_of(3 * MB, seed=9, slot="scsi0:2"))
            self.scribble("web 01", "scsi0:0", [(MB, BLOCK)], seed=6)

    def slots(self, n):
        return ("scsi0:0", "scsi0:1") if n < 6 else ("scsi0:0", "scsi0:2")

    def assert_generation(self, n, truths):
        out = self.restored(n)
        for slot in self.slots(n):
            file = os.path.join(out, "disk-%s.raw" % slot.replace(":", "-"))
            self.assert_same(file, truths[n, slot], "generation %d" % n)
        images = {f for f in os.listdir(out) if f.endswith(".raw")}
        self.assertEqual(images, {"disk-%s.raw" % s.replace(":", "-") for s in self.slots(n)})
        vmdk = os.path.join(out, "disk-scsi0-0.vmdk")
        done = subprocess.run(["qemu-img", "compare", "-f", "vmdk", "-F", "raw", vmdk,
                               truths[n, "scsi0:0"]], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", vmdk], check=True,
                                         capture_output=True).stdout)
        self.assertEqual(info["virtual-size"], os.path.getsize(truths[n, "scsi0:0"]))
        self.assertEqual(info["format-specific"]["data"]["create-type"], "monolithicFlat")

    def test_keep(self):
        """Six generations; each is restored byte for byte as long as it is kept."""
        self.add_vm(disks=[self.disk_of(16 * MB, seed=1), self.disk_of(8 * MB, seed=2)])
        truths = {}
        for n in range(1, 7):
            self.step(n)
            # The number is remembered: only the first two runs say it.
            r = self.run_mirror("web 01", *(("--keep", "3") if n < 3 else ()))
            self.assertEqual(r.vm()["generation"], n)
            for slot in self.slots(n):
                truths[n, slot] = self.truth("web 01", slot, name="truth-%d-%s" % (n, slot[-1]))
            self.assertEqual(self.numbers(), list(range(max(1, n - 3), n + 1)))
        for n in range(3, 7):
            self.assert_generation(n, truths)
        self.restored(2, code=2)
        self.assert_checked()
        # By name and id prefix, too.
        item = self.list()[0]
        out = self.path("by-id")
        self.vmferry("restore", item["id"][:8], "--mirror", self.mirror, "--output", out)
        self.assert_same(os.path.join(out, "disk-scsi0-0.raw"), truths[3, "scsi0:0"])
        # Lower needs --yes, and then they go.
        r = self.run_mirror("web 01", "--keep", "1", code=11)
        self.assertIn("--yes", r.err)
        self.assertEqual(self.numbers(), [3, 4, 5, 6])
        self.run_mirror("web 01", "--keep", "1", "--yes")
        self.assertEqual(self.numbers(), [6, 7])
        self.assert_generation(6, truths)
        self.assert_checked()

    def test_touched_between(self):
        """What somebody destroyed in the image is lost for earlier generations only, and said."""
        self.add_vm(disks=[self.disk_of(8 * MB, [(0, 8 * MB)])])
        self.run_mirror("web 01", "--keep", "4")
        self.scribble("web 01", "scsi0:0", [(MB, BLOCK)], seed=2)
        self.run_mirror("web 01")
        os.chmod(self.image(), 0o644)
        with open(self.image(), "r+b") as f:
            f.seek(5 * MB)
            f.write(b"mine")
        os.chmod(self.image(), 0o444)
        # The guest has changed that block meanwhile: its old content is nowhere any more.
        self.scribble("web 01", "scsi0:0", [(5 * MB, BLOCK)], seed=3)
        self.run_mirror("web 01")
        self.assert_image()
        self.assertEqual([g["damaged"] for g in self.list()], [True, True, False])
        self.restored(1, code=5)
        self.restored(2, code=5)
        self.restored(3)

    def test_touched_and_healed(self):
        """A block that is still on the host is taken from there: no generation loses it."""
        self.add_vm(disks=[self.disk_of(8 * MB, [(0, 8 * MB)])])
        self.run_mirror("web 01", "--keep", "4")
        truth = self.truth("web 01", name="first")
        os.chmod(self.image(), 0o644)
        with open(self.image(), "r+b") as f:
            f.seek(5 * MB)
            f.write(b"mine")
        os.chmod(self.image(), 0o444)
        self.run_mirror("web 01")
        self.assertEqual([g["damaged"] for g in self.list()], [False, False])
        out = self.restored(1)
        self.assert_same(os.path.join(out, "disk-scsi0-0.raw"), truth)
        self.assert_image()


class Names(harness.MirrorTest):

    def folders(self):
        return sorted(n for n in os.listdir(self.mirror) if not n.startswith("."))

    def small(self, name, seed=1, **more):
        return self.add_vm(name, [self.disk_of(4 * MB, seed=seed)], **more)

    def test_renamed(self):
        """The folder keeps its name; both names mean it."""
        self.small("old name")
        self.run_mirror("old name")
        self.host.ask("rename", vm="old name", name="new name")
        self.scribble("new name", "scsi0:0", [(0, BLOCK)], seed=3)
        r = self.run_mirror("new name")
        self.assertEqual((r.vm()["generation"], r.disk()["changed"]), (2, BLOCK))
        self.assertEqual(self.folders(), ["old name"])
        self.assert_image("new name", folder="old name")
        for name in ("old name", "new name"):
            out = self.path("out " + name)
            self.vmferry("restore", name + "@latest", "--mirror", self.mirror, "--output", out)
            self.assert_same(os.path.join(out, "disk-scsi0-0.raw"), self.truth("new name"))
        self.run_mirror("old name", code=2)

    def test_two_of_one_name(self):
        """Both are mirrored by vmid, into folders of their own; the bare name is refused."""
        ids = [self.small("web 01", seed=n, dir="folder %d" % n) for n in (1, 2)]
        r = self.run_mirror("web 01", code=2)
        for vmid in ids:
            self.assertIn("#%d" % vmid, r.err)
        self.assertFalse(os.path.exists(self.mirror) and self.folders())
        for _ in range(2):
            for vmid in ids:
                self.run_mirror("#%d" % vmid)
        uuids = [self.host_uuid(v) for v in ids]
        self.assertEqual(self.folders(), ["web 01", "web 01-" + uuids[1].replace("-", "")[:8]])
        for vmid, folder in zip(ids, self.folders()):
            self.assert_image(vmid, folder=folder)
        self.assertEqual([g["generation"] for g in self.list()], [2, 2])
        r = self.run_mirror("uuid:" + uuids[1])
        self.assertEqual(r.vm()["vmid"], ids[1])

    def host_uuid(self, vmid):
        path = self.host.root + next(
            v["vmx"] for v in self.host.state()["vms"] if v["vmid"] == vmid)
        with open(path, encoding="utf-8") as f:
            line = next(x for x in f if x.startswith("vc.uuid"))
        h = line.split('"')[1].replace(" ", "").replace("-", "")
        return "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:]))

    def test_two_of_one_uuid(self):
        """Told apart by where their .vmx lies, with a warning; never one over the other."""
        uuid = "11111111222233334444555555555555"
        for n, name in enumerate(("one", "two"), 1):
            self.small(name, seed=n, instance_uuid=uuid)
        for generation in (1, 2):
            for name in ("one", "two"):
                r = self.run_mirror(name)
                self.assertEqual(r.vm()["generation"], generation)
                self.assertTrue(any("UUID" in w for w in r.warnings()), str(r))
                self.assert_image(name)
        self.assertEqual(self.folders(), ["one", "two"])

    def test_name_that_is_taken(self):
        """A folder that is no mirror is left alone."""
        os.makedirs(os.path.join(self.mirror, "web 01"))
        with open(os.path.join(self.mirror, "web 01", "letter.txt"), "w", encoding="utf-8") as f:
            f.write("Dear Sir")
        vmid = self.small("web 01")
        self.run_mirror("web 01")
        other = "web 01-" + self.host_uuid(vmid).replace("-", "")[:8]
        self.assertEqual(self.folders(), ["web 01", other])
        self.assert_image("web 01", folder=other)
        self.assertEqual(os.listdir(os.path.join(self.mirror, "web 01")), ["letter.txt"])

    def test_hostile_names(self):
        names = {"-rf ..": "%2Drf .%2E", ".hidden": "%2Ehidden", "a'b\"c$(reboot)`id`": None,
                 "two  blanks ": "two  blanks%20", "ümläut €": None, "x;y|z&": None, "*": None}
        for n, name in enumerate(names):
            self.small(name, seed=n, dir="dir-%d" % n)
        self.run_mirror("*")         # a literal name comes before the pattern
        self.assertEqual(self.folders(), ["*"])
        for name, folder in names.items():
            if name == "*":
                continue
            vmid = self.host.vm(name)["vmid"]
            self.run_mirror("#%d" % vmid)
            self.assert_image(vmid, folder=folder or name)

    def test_pattern_and_failure(self):
        """Several in one run: one fails, the others are done; exit 3."""
        self.small("web 01", seed=1)
        self.add_vm("web 02", [{"size": 4 * MB, "rdm": "physical"}])    # forbids snapshots
        self.small("web 03", seed=3)
        self.small("db", seed=4)
        r = self.run_mirror("web*", "nobody", code=3)
        outcome = {v["vm"]: (v["outcome"], v["exit_code"]) for v in r.summary["vms"]}
        self.assertEqual(outcome, {"web 01": ("ok", 0), "web 02": ("failed", 10),
                                   "web 03": ("ok", 0), "nobody": ("failed", 2)})
        self.assertEqual(self.folders(), ["web 01", "web 03"])
        for name in self.folders():
            self.assert_image(name)
        r = self.run_mirror("web 01", "web 0?", "db", "web 01", code=3)    # each once
        self.assertEqual([v["vm"] for v in r.summary["vms"]], ["web 01", "web 02", "web 03", "db"])
        r = self.run_mirror("db", "web 0[13]", code=3)
        self.assertEqual(r.vm("db")["outcome"], "ok")


if __name__ == "__main__":
    harness.main()
