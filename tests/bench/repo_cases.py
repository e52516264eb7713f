"""What is measured for repositories: vmferry, borg and restic storing the same disk."""

import os
import shutil
import subprocess

import cases
import disk
import measure

PASSPHRASE = "bench"
GENERATION = "bench"
# borg's own advice for disks, and the block size that makes both store the same pieces.
BORG_CHUNKS = (4096, 128)
BLOCKS = (64, 128, 256, 512, 1024)


def tree_bytes(folder, without=()):
    """Lengths of all files below; where they lie does not count."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if os.path.relpath(path, folder) not in without:
                total += os.lstat(path).st_size
    return total


class Store:
    """A repository of one program.  Names sort as they are to be shown."""

    def __init__(self, work, name):
        self.name, self.work = name, work
        self.folder = os.path.join(work, "repo")
        self.out = os.path.join(work, "out")
        os.makedirs(work)

    def stored(self):
        return tree_bytes(self.folder)

    def clear_out(self):
        shutil.rmtree(self.out, ignore_errors=True)

    def remove(self):
        shutil.rmtree(self.work)


class Vmferry(Store):
    def __init__(self, programs, work, sealed=False, block=None, compress="1"):
        name = "vmferry" + (" sealed" if sealed else "")
        super().__init__(work, name if block is None else "%s %d KiB" % (name, block))
        self.programs, self.compress = programs, compress
        self.state = os.path.join(work, "state")
        self.keys = []
        words = [] if block is None else ["--block-size", "%dk" % block]
        if sealed:
            self.keys = ["--repo-password-file", os.path.join(work, "passphrase")]
            with open(self.keys[1], "w", encoding="ascii",
                      opener=lambda p, f: os.open(p, f, 0o600)) as f:
                f.write(PASSPHRASE + "\n")
            words.append("--encrypt")
        measure.run(self.command("init", *words))

    def command(self, verb, *words):
        return [os.path.join(self.programs, "vmferry"), "--state-dir", self.state, verb, "--json",
                "--repo", self.folder] + self.keys + list(words)

    def backup(self, path):
        result = measure.run(self.command("backup", "--file", "%s=%s" % (GENERATION, path),
                                          "--compress", self.compress))
        row = result["summary"]["vms"][0]["disks"][0]
        return dict(result, summary=None, sent=row["sent"], changed=row["changed"])

    def remote(self, host):
        """A backup from the look-alike, by TCP."""
        command = self.command(
            "backup", "--known-hosts", host.host.known_hosts, "--password-file",
            host.host.password_file, "--min-free", "1G", "--data-listen", "127.0.0.1",
            "--data-channel", "tcp", "--compress", self.compress,
            "%s:%d" % (host.host.address, host.host.port), cases.VM)
        result = measure.run(command, host.group)
        vm = result["summary"]["vms"][0]
        if vm["outcome"] != "ok" or vm["data_channel"] != "tcp":
            raise measure.Failed("%s: %s over %s" % (self.name, vm["outcome"], vm["data_channel"]))
        row, steps = vm["disks"][0], dict(result["steps"])
        return dict(result, summary=None, stream=row["seconds"], sent=row["sent"],
                    changed=row["changed"],
                    work=steps["removing the snapshot"] - steps["starting the transfer"])

    def restore(self, vm=GENERATION):
        return measure.run(self.command("restore", vm + "@latest", "--output", self.out))

    def image(self):
        return os.path.join(self.out, "disk-scsi0-0.raw")

    def stored(self):
        return tree_bytes(self.folder, without=("reserve",))


class Borg(Store):
    """borg create --read-special, fixed chunker, zstd 1."""

    def __init__(self, work, encryption, chunk, over=None):
        """over: (address of an sshd, command of ssh) that the repository is behind."""
        super().__init__(work, "borg %s %d KiB" % (encryption, chunk))
        self.number, self.path = 0, None
        self.words = ["--read-special", "--chunker-params", "fixed,%d" % (chunk << 10),
                      "--compression", "zstd,1"]
        self.place = self.folder if over is None else "ssh://%s%s" % (over[0], self.folder)
        os.environ.update(
            BORG_BASE_DIR=os.path.join(os.path.dirname(work), "borg"), BORG_PASSPHRASE=PASSPHRASE,
            BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes",
            BORG_RELOCATED_REPO_ACCESS_IS_OK="yes", BORG_RSH=over[1] if over else "ssh")
        measure.run(["borg", "init", "--encryption", encryption, self.place])

    def backup(self, path, group=None):
        self.number += 1
        self.path = path
        return measure.run(["borg", "create"] + self.words
                           + ["%s::%d" % (self.place, self.number), path], group)

    def restore(self):
        os.makedirs(self.out)
        return measure.run("cd %s && exec borg extract --sparse %s::%d"
                           % (self.out, self.place, self.number), shell=True)

    def image(self):
        return os.path.join(self.out, self.path.lstrip("/"))


class Restic(Store):
    """It always encrypts; its default is zstd's default level."""

    def __init__(self, work):
        super().__init__(work, "restic")
        self.path = None
        os.environ.update(RESTIC_PASSWORD=PASSPHRASE,
                          RESTIC_CACHE_DIR=os.path.join(work, "cache"))
        measure.run(["restic", "-q", "-r", self.folder, "init"])

    def backup(self, path):
        self.path = path
        return measure.run(["restic", "-q", "-r", self.folder, "backup", path])

    def restore(self):
        return measure.run(["restic", "-q", "-r", self.folder, "restore", "latest", "--target",
                            self.out])

    def image(self):
        return os.path.join(self.out, self.path.lstrip("/"))


class Sshd(cases.Tools):
    """Only the sshd of the other tools' bench."""

    def __init__(self, work):  # pylint: disable=super-init-not-called
        self.work, self.services, self.missing = work, [], {}
        self.ports = {"ssh": cases.free_port()}
        self._sshd()

    def place(self):
        return "root@127.0.0.1:%d" % self.ports["ssh"], self.ssh_words


def small_disk():
    """For work on the bench itself: the same kind of disk, a quarter as large."""
    return 2 << 30, 1150 << 20


def whole_disk():
    return disk.VIRTUAL_BYTES, disk.FILE_BYTES


def grow(programs, store, entries):
    """Index objects with made-up entries, as many as wanted."""
    subprocess.run([os.path.join(programs, "repo_grow"), store.folder, str(entries)], check=True)
