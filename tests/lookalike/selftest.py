"""What the look-alike's own tests share: the real ssh client, and one look-alike per class."""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from lookalike import Lookalike, find_programs  # noqa: E402

MB = 1 << 20


def same(a, b):
    return filecmp.cmp(a, b, shallow=False)


def wait_for(condition, seconds=20):
    """Until the condition holds; what it said last."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.02)


class Client:
    """The ssh command with one host's key and known_hosts."""

    def __init__(self, host, key):
        self.host = host
        self.options = ["-p", str(host.port), "-o", "UserKnownHostsFile=" + host.known_hosts,
                        "-o", "GlobalKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                        "-F", "/dev/null"]
        self.key = ["-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        self.master = None

    def share(self, path):
        """Let all commands be channels of one connection: much quicker."""
        self.master = subprocess.Popen(
            ["ssh", "-M", "-N", "-S", path, *self.options, *self.key,
             "root@" + self.host.address], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        wait_for(lambda: os.path.exists(path))
        self.key += ["-S", path]

    def close(self):
        if self.master is not None:
            self.master.terminate()
            self.master.wait()

    def command(self, text, *more):
        return ["ssh", *more, *self.options, *self.key, "root@" + self.host.address, text]

    def run(self, text, data=None, check=True, **more):
        done = subprocess.run(self.command(text), input=data, capture_output=True, timeout=60,
                              check=False, **more)
        if check and done.returncode != 0:
            raise AssertionError("%s: rc %d\n%s%s" % (text, done.returncode, done.stdout.decode(
                errors="replace"), done.stderr.decode(errors="replace")))
        return done

    def text(self, text, check=True):
        done = self.run(text, check=check)
        return (done.stdout + done.stderr).decode()

    def rc(self, text):
        return self.run(text, check=False).returncode

    def password(self, password, text="true", method="keyboard-interactive"):
        """Log in with a password, through SSH_ASKPASS."""
        with tempfile.TemporaryDirectory() as folder:
            helper = os.path.join(folder, "askpass")
            with open(helper, "w", encoding="utf-8") as f:
                f.write("#!/bin/sh\nprintf '%%s\\n' \"$1\" >>%s/prompts\nprintf '%%s\\n' '%s'\n"
                        % (folder, password))
            os.chmod(helper, 0o700)
            done = subprocess.run(
                ["ssh", *self.options, "-o", "PreferredAuthentications=" + method,
                 "-o", "NumberOfPasswordPrompts=1", "root@" + self.host.address, text],
                env=dict(os.environ, SSH_ASKPASS=helper, SSH_ASKPASS_REQUIRE="force", DISPLAY=":0"),
                stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False,
                start_new_session=True)
            prompts = ""
            if os.path.exists(folder + "/prompts"):
                with open(folder + "/prompts", encoding="utf-8") as f:
                    prompts = f.read()
        return done, prompts


class Base(unittest.TestCase):
    profile = "6.7"
    knobs = {}
    shared = False      # one connection for all commands

    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.mkdtemp(prefix="lookalike-test-")
        cls.key = os.path.join(cls.work, "key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", cls.key], check=True)
        with open(cls.key + ".pub", encoding="ascii") as f:
            public = f.read()
        cls.host = Lookalike.start(profile=cls.profile, knobs=cls.knobs, public_key=public)
        cls.ssh = Client(cls.host, cls.key)
        if cls.shared:
            cls.ssh.share(os.path.join(cls.work, "master"))
        cls.count = 0

    @classmethod
    def tearDownClass(cls):
        cls.ssh.close()
        defects = cls.host.defects()
        folder = cls.host.dir
        cls.host.stop()
        shutil.rmtree(cls.work)
        assert not os.path.exists(folder)
        assert not defects, defects

    def vm(self, power="on", disks=None, **more):
        type(self).count += 1
        name = more.pop("name", "vm%d" % self.count)
        made = self.host.add_vm(dict({"name": name, "power": power, "disks": disks or [
            {"size": "16m", "content": {"seed": self.count}}]}, **more))
        self.addCleanup(self.drop, made["vmid"])
        return name, made["vmid"], os.path.dirname(made["vmx"])

    def drop(self, vmid):
        for v in self.host.state()["vms"]:
            if v["vmid"] == vmid:
                if v["power"] == "on":
                    self.host.power(vmid, "off")
                self.host.ask("vm-remove", vm=vmid)

    def turn(self, name, value):
        old = self.host.ask("knobs")[name]
        self.host.knob(name, value)
        self.addCleanup(self.host.knob, name, old)

    def out(self, name):
        return os.path.join(self.work, name)

    def install_probe(self, place="/vmfs/volumes/datastore1/probe"):
        with open(os.path.join(find_programs(), "lookalike-probe"), "rb") as f:
            self.ssh.run("cat >%s && chmod 700 %s" % (place, place), f.read())
        self.addCleanup(self.ssh.run, "rm -f " + place)
        return place


def main():
    if os.geteuid() != 0:
        print("the look-alike needs root", file=sys.stderr)
        sys.exit(1)
    unittest.main()
