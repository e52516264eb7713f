#!/usr/bin/env python3
"""The look-alike's own test: driven by the real ssh client, as the product would."""

import errno
import filecmp
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from lookalike import Lookalike, LookalikeError, find_programs  # noqa: E402

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


class Login(Base):
    def test_password_by_keyboard_interactive_has_the_prompt_of_esxi(self):
        done, prompts = self.ssh.password(self.host.password, "echo in; pwd; echo $PATH $HOME")
        self.assertEqual(done.stdout.decode(), "in\n/\n/bin:/sbin /\n")
        self.assertTrue(prompts.rstrip("\n").endswith("Password: "), prompts)

    def test_the_method_password_is_not_offered(self):
        done, _ = self.ssh.password(self.host.password, method="password")
        self.assertEqual(done.returncode, 255)
        self.assertIn(b"publickey,keyboard-interactive", done.stderr)

    def test_the_method_password_by_knob(self):
        self.turn("password-authentication", "yes")
        self.assertEqual(self.ssh.password(self.host.password, method="password")[0].returncode, 0)

    def test_two_prompts_by_knob(self):
        self.turn("two-prompts", "on")
        done, prompts = self.ssh.password(self.host.password)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(prompts.count("Password: "), 1)
        self.assertEqual(prompts.count("Second password: "), 1)

    def test_a_message_before_the_prompt(self):
        self.turn("auth-message", "Authorised use only")
        self.assertEqual(self.ssh.password(self.host.password)[0].returncode, 0)

    def test_wrong_passwords_are_counted_and_lock_the_account(self):
        with Lookalike.start(profile="6.7") as host:
            ssh = Client(host, self.key)
            for n in range(5):
                self.assertEqual(host.state()["login_failures"], n)
                self.assertEqual(ssh.password("wrong")[0].returncode, 255)
            self.assertEqual(ssh.password(host.password)[0].returncode, 255, "locked by now")
            self.assertEqual(host.state()["login_failures"], 5)

    def test_exit_status_and_streams(self):
        done = self.ssh.run("echo a; echo b >&2; exit 7", check=False)
        self.assertEqual((done.stdout, done.stderr, done.returncode), (b"a\n", b"b\n", 7))

    def test_a_signal_reaches_the_client_as_one(self):
        self.assertEqual(self.ssh.rc("kill -9 $$"), 255)

    def test_only_the_applets_of_esxi_are_there(self):
        absent = ("tr", "id", "cmp", "base64", "xxd", "realpath", "free", "perl", "rsync",
                  "command", "busybox", "bash", "python")
        text = self.ssh.text("for x in %s; do $x </dev/null >/dev/null 2>&1; echo $x $?; done"
                             % " ".join(absent))
        self.assertEqual(text, "".join(name + " 127\n" for name in absent))
        present = ("awk", "sed", "dd", "stat", "sha256sum", "vim-cmd", "vmkfstools", "esxcli")
        self.assertEqual(self.ssh.text("which " + " ".join(present)),
                         "".join("/bin/%s\n" % name for name in present))

    def test_dd_knows_no_flags_and_timeout_is_old(self):
        self.assertEqual(self.ssh.rc("dd if=/dev/zero iflag=fullblock count=1"), 1)
        self.assertEqual(self.ssh.run("dd if=/dev/zero bs=4 count=2 2>/dev/null").stdout, bytes(8))
        self.assertEqual(self.ssh.run("timeout -t 1 sleep 20; echo $?").stdout, b"143\n")
        self.assertEqual(self.ssh.rc("timeout 1 true"), 127)

    def test_binary_data_passes_both_ways(self):
        data = os.urandom(3 * MB + 17)
        self.assertEqual(self.ssh.run("cat", data).stdout, data)

    def test_bulk_reads_are_not_asked_about(self):
        self.ssh.run("dd if=/dev/zero of=/tmp/z bs=1M count=64 2>/dev/null")
        started = time.monotonic()
        self.ssh.run("dd if=/tmp/z of=/dev/null bs=4k 2>/dev/null; rm /tmp/z")
        self.assertLess(time.monotonic() - started, 5)

    def test_sftp_works_until_it_is_turned_off(self):
        batch = self.out("batch")
        source = self.out("up")
        with open(source, "wb") as f:
            f.write(os.urandom(100000))
        with open(batch, "w", encoding="ascii") as f:
            f.write("put %s /tmp/up\nget /tmp/up %s\nrm /tmp/up\n" % (source, self.out("down")))
        line = ["sftp", "-P", str(self.host.port), *self.ssh.options[2:], *self.ssh.key,
                "-b", batch, "root@" + self.host.address]
        subprocess.run(line, check=True, capture_output=True, timeout=30)
        self.assertTrue(same(source, self.out("down")))
        self.turn("sftp", "off")
        self.assertNotEqual(subprocess.run(line, capture_output=True, timeout=30,
                                           check=False).returncode, 0)

    def test_banner_and_noise(self):
        self.turn("banner", "Keep out\nor else")
        self.turn("profile-noise", "Welcome, root!")
        done = subprocess.run(self.ssh.command("echo x", "-o", "LogLevel=INFO"),
                              capture_output=True, timeout=30, check=True)
        self.assertEqual(done.stdout, b"Welcome, root!\nx\n")
        self.assertIn(b"or else", done.stderr)

    def test_no_shell(self):
        self.turn("shell", "off")
        self.assertEqual(self.ssh.rc("true"), 1)

    def test_connections_run_out_and_come_back(self):
        self.host.knob("connections", "2")
        self.assertEqual([self.ssh.rc("true") for _ in range(2)], [0, 0])
        self.assertTrue(wait_for(lambda: self.ssh.rc("true") == 255))
        self.host.knob("connections", "")
        self.assertEqual(self.ssh.rc("true"), 0)

    def test_sessions_are_cut(self):
        one = subprocess.Popen(self.ssh.command("echo up; cat"), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.assertEqual(one.stdout.readline(), b"up\n")
        self.assertGreater(self.host.ask("kill-sessions"), 0)
        self.assertEqual(one.wait(10), 255)
        one.stdout.close()
        one.stdin.close()

    def test_sessions_are_cut_after_some_bytes(self):
        one = subprocess.Popen(self.ssh.command("echo up; cat /dev/zero"),
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        one.stdout.readline()
        self.host.ask("cut-after", bytes=20 * MB)
        got = 0
        while True:
            data = one.stdout.read(65536)
            if not data:
                break
            got += len(data)
        self.assertEqual(one.wait(10), 255)
        one.stdout.close()
        self.assertGreater(got, MB)

    def test_an_orphan_lives_on_under_the_same_rules(self):
        self.install_probe()
        self.ssh.run("sleep 1000 </dev/null >/dev/null 2>&1 &")
        left = self.host.leftovers()["processes"]
        self.assertEqual([p["command"] for p in left], ["sleep 1000"])
        self.assertIn("sleep 1000", self.ssh.text("ps -c"))
        self.ssh.run("kill %d" % left[0]["pid"])
        self.assertEqual(self.host.leftovers()["processes"], [])
        self.assertEqual([os.path.basename(f) for f in self.host.leftovers()["files"]], ["probe"])

    def test_sessions_and_programs_are_logged(self):
        probe = self.install_probe()
        self.ssh.run(probe + " memory 1")
        self.assertIn(probe + " memory 1", self.host.sessions())
        shown = "/vmfs/volumes/%s/probe" % self.host.state()["datastores"][0]["uuid"]
        self.assertIn(("run", shown), self.host.executed())


class SystemCalls(Base):
    shared = True

    def test_what_esxi_lacks_is_absent(self):
        probe = self.install_probe("/tmp/probe")
        rows = dict(line.split() for line in self.ssh.text(probe + " calls").splitlines())
        self.assertEqual(rows.pop("seek_hole"), str(errno.EINVAL))
        self.assertEqual(rows.pop("seek_set"), "0")
        self.assertGreater(len(rows), 40)
        self.assertEqual({n: e for n, e in rows.items() if e != str(errno.ENOSYS)}, {})

    def test_threads(self):
        probe = self.install_probe()
        self.assertEqual(self.ssh.text(probe + " thread"), "ok\n")
        self.turn("threads", "off")
        self.assertIn("Resource temporarily unavailable", self.ssh.text(probe + " thread", False))

    def test_seek_hole_by_knob(self):
        probe = self.install_probe()
        self.turn("seek-hole", "on")
        self.assertIn("seek_hole 0\n", self.ssh.text(probe + " calls"))

    def test_memory_is_limited(self):
        probe = self.install_probe()
        self.assertEqual(self.ssh.text(probe + " memory 200"), "ok\n")
        self.assertIn("Cannot allocate", self.ssh.text(probe + " memory 2000", False))


class Firewall(Base):
    def setUp(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(5)
        self.addCleanup(self.listener.close)
        self.port = self.listener.getsockname()[1]
        self.probe = self.install_probe()

    def connect(self, wait_ms=400):
        return self.ssh.text("%s connect %d %d" % (self.probe, self.port, wait_ms), False).strip()

    def test_closed_ports_do_not_answer(self):
        self.assertEqual(self.connect(), "timeout")

    def test_a_blocking_connect_hangs(self):
        started = time.monotonic()
        self.assertNotEqual(self.ssh.rc("%s connect-blocking %d 1" % (self.probe, self.port)), 0)
        self.assertGreater(time.monotonic() - started, 0.9)

    def test_open_and_listed_ports_pass(self):
        self.turn("firewall-out", "31031,%d-%d" % (self.port, self.port))
        self.assertEqual(self.connect(), "ok")
        self.host.knob("firewall-out", "31031")
        self.assertEqual(self.connect(), "timeout")
        self.host.knob("firewall-out", "open")
        self.assertEqual(self.connect(), "ok")

    def test_reject(self):
        self.turn("firewall-action", "reject")
        self.assertEqual(self.connect(), "Connection refused")

    def test_the_list_says_so(self):
        self.assertIn("   Default Action: DROP\n", self.ssh.text("esxcli network firewall get"))
        text = self.ssh.text("esxcli network firewall ruleset list")
        self.assertRegex(text, r"(?m)^HBR +true$")
        self.turn("firewall-out", "closed")
        text = self.ssh.text("esxcli --formatter=csv network firewall ruleset list")
        self.assertTrue(text.startswith("Enabled,Name,\n"))
        self.assertIn("false,HBR,\n", text)


class ExecPolicy(Base):
    profile = "8.0"

    def test_a_copied_program_is_refused_and_allowed_by_the_option(self):
        probe = self.install_probe()
        done = self.ssh.run(probe + " memory 1", check=False)
        self.assertEqual(done.returncode, 126)
        self.assertEqual(done.stderr.decode(), "sh: %s: Operation not permitted\n" % probe)
        option = "esxcli system settings advanced %s -o /User/execInstalledOnly"
        self.assertIn("   Int Value: 1\n", self.ssh.text(option % "list"))
        # In one session: the check is at exec, so a program that runs may go on.
        self.assertEqual(self.ssh.text("%s -i 0; %s memory 1; %s -i 1; %s memory 1 2>/dev/null; "
                                       "echo $?" % (option % "set", probe, option % "set", probe)),
                         "ok\n126\n")
        self.assertTrue(self.host.state()["exec_installed_only"])
        shown = "/vmfs/volumes/%s/probe" % self.host.state()["datastores"][0]["uuid"]
        self.assertEqual(self.host.executed()[-3:],
                         [("refused", shown), ("run", shown), ("refused", shown)])

    def test_scripts_are_refused_but_sh_runs_them(self):
        self.ssh.run("printf '#!/bin/sh\\necho hi\\n' >/tmp/x.sh; chmod 700 /tmp/x.sh")
        self.addCleanup(self.ssh.run, "rm /tmp/x.sh")
        self.assertEqual(self.ssh.rc("/tmp/x.sh"), 126)
        self.assertEqual(self.ssh.text("sh /tmp/x.sh"), "hi\n")
        self.assertEqual(self.ssh.rc("ln -s /tmp/x.sh /tmp/y; /tmp/y; r=$?; rm /tmp/y; exit $r"),
                         126)

    def test_the_boot_option_wins(self):
        self.turn("exec-boot", "TRUE")
        self.assertEqual(self.ssh.rc("esxcli system settings advanced set "
                                     "-o /User/execInstalledOnly -i 0"), 1)

    def test_forwarding_is_off_and_host_keys_are_ecdsa_and_rsa(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen(1)
            done = subprocess.run(self.ssh.command(
                "true", "-W", "127.0.0.1:%d" % s.getsockname()[1], "-o", "LogLevel=INFO")[:-1],
                capture_output=True,
                stdin=subprocess.DEVNULL, timeout=20, check=False)
        self.assertIn(b"administratively prohibited", done.stderr)
        with open(self.host.known_hosts, encoding="ascii") as f:
            self.assertEqual([line.split()[1] for line in f], ["ssh-rsa", "ecdsa-sha2-nistp256"])

    def test_it_says_what_it_is(self):
        self.assertEqual(self.ssh.text("vmware -vl"), "VMware ESXi 8.0.2 build-22380479\n"
                                                      "VMware ESXi 8.0 Update 2\n")
        self.assertEqual(self.ssh.text("uname -s"), "VMkernel\n")
        self.assertEqual(self.ssh.text("esxcli system version get").splitlines()[1],
                         "   Version: 8.0.2")


class Inventory(Base):
    shared = True

    def test_getallvms_with_hostile_names_and_notes(self):
        a = self.vm("off", name="a [x] (y) #\"'", dir="plain",
                    notes="first\n\n   2      fake   [datastore1] f/f.vmx   otherGuest   vmx-09   ")
        b = self.vm("off", name="with/slash")
        text = self.ssh.text("vim-cmd vmsvc/getallvms")
        self.assertRegex(text.splitlines()[0], r"^Vmid {3,}Name {3,}File {3,}Guest OS +Version")
        self.assertIn("%d" % a[1] + " " * 6 + "a [x] (y) #\"'   ", text)
        self.assertIn("\n   2      fake   [datastore1] f/f.vmx", text)
        self.assertIn("with%2fslash   ", text)
        self.assertIn('name = "with%2fslash", \n',
                      self.ssh.text("vim-cmd vmsvc/get.summary %d" % b[1]))

    def test_rows_are_sorted_as_text(self):
        for vmid in (100, 99, 1000):
            self.vm("off", vmid=vmid)
        ids = [line.split()[0] for line in self.ssh.text(
            "vim-cmd vmsvc/getallvms").splitlines()[1:]]
        self.assertEqual(ids, ["100", "1000", "99"])

    def test_an_invalid_vm_is_skipped_aloud(self):
        _, vmid, _ = self.vm("off")
        self.host.ask("vm-invalid", vm=vmid)
        done = self.ssh.run("vim-cmd vmsvc/getallvms")
        self.assertIn(b"Skipping invalid VM '%d'\n" % vmid, done.stderr)
        self.assertIn('connectionState = "invalid"',
                      self.ssh.text("vim-cmd vmsvc/get.summary %d" % vmid))
        self.assertIn("(vim.fault.InvalidState)",
                      self.ssh.text("vim-cmd vmsvc/device.getdevices %d" % vmid, False))
        self.host.ask("vm-invalid", vm=str(vmid), on=False)

    def test_faults(self):
        done = self.ssh.run("vim-cmd vmsvc/get.summary 4711", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"(vim.fault.NotFound) {\n", done.stdout)
        self.assertIn(b'msg = "Unable to find a VM corresponding to "4711""\n}\n', done.stdout)
        done = self.ssh.run("vim-cmd vmsvc/snapshot.remove", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"Insufficient arguments.\nUsage: snapshot.remove vmid snapshotId",
                      done.stdout)

    def test_views_of_a_vm(self):
        _, vmid, folder = self.vm(disks=[{"size": "8m"}, {"size": "4m", "slot": "nvme0:1",
                                                         "mode": "independent_persistent"}])
        self.ssh.run("vim-cmd vmsvc/snapshot.create %d s" % vmid)
        devices = self.ssh.text("vim-cmd vmsvc/device.getdevices %d" % vmid)
        self.assertEqual(devices.count("(vim.vm.device.VirtualDisk) {"), 2)
        self.assertIn("capacityInBytes = 8388608, \n", devices)
        self.assertIn("parent = (vim.vm.device.VirtualDisk.FlatVer2BackingInfo) {", devices)
        self.assertIn('diskMode = "independent_persistent"', devices)
        layout = self.ssh.text("vim-cmd vmsvc/get.filelayout %d" % vmid)
        self.assertIn("-000001.vmdk", layout)
        for name in ("get.config", "get.runtime", "get.guest", "get.datastores",
                     "get.snapshotinfo", "get.tasklist"):
            self.ssh.run("vim-cmd vmsvc/%s %d" % (name, vmid))
        self.assertIn("Display Name: ", self.ssh.text("esxcli vm process list"))
        self.assertIn(folder, self.ssh.text("esxcli vm process list"))
        self.assertIn("Powered on", self.ssh.text("vim-cmd vmsvc/power.getstate %d" % vmid))

    def test_datastores(self):
        text = self.ssh.text("esxcli storage filesystem list").splitlines()
        self.assertTrue(text[0].startswith("Mount Point  "))
        cuts = []
        at = 0
        for dashes in text[1].split("  "):
            cuts.append((at, at + len(dashes)))
            at += len(dashes) + 2
        rows = [[line[a:b].strip() for a, b in cuts] for line in text[2:]]
        self.assertEqual(rows[0][1], "datastore1")
        self.assertEqual(rows[0][4], "VMFS-5")
        self.turn("free-space", "datastore1=12345")
        self.assertIn("12345\n", self.ssh.text("esxcli storage filesystem list"))
        self.assertIn(", 12345 (0 blocks) avail", self.ssh.text(
            "vmkfstools -P /vmfs/volumes/datastore1"))
        self.assertIn("freeSpace = 12345, \n",
                      self.ssh.text("vim-cmd hostsvc/datastore/listsummary"))
        self.turn("esxcli", "cut")
        self.assertNotIn("12345", self.ssh.text("esxcli storage filesystem list"))

    def test_a_small_datastore_is_really_full(self):
        made = self.host.add_datastore("small", kind="NFS", size="4m", tmpfs=True)
        self.assertEqual(self.ssh.rc("dd if=/dev/zero of=/vmfs/volumes/small/x bs=1M count=8 "
                                     "2>/dev/null"), 1)
        self.assertEqual(len(made["uuid"]), 17)
        self.assertIn("NFS-1.00 file system", self.ssh.text("vmkfstools -P /vmfs/volumes/small"))
        self.ssh.run("rm /vmfs/volumes/small/x")
        with open(self.host.path("/vmfs/volumes/small/y"), "wb") as f:
            f.write(b"seen")
        self.assertEqual(self.ssh.text("cat /vmfs/volumes/small/y"), "seen")
        self.ssh.run("rm /vmfs/volumes/small/y")

    def test_register_and_unregister(self):
        name, vmid, folder = self.vm("off")
        vmx = "%s/%s.vmx" % (folder, name)
        self.assertIn('name = "%d"' % vmid, self.ssh.text("vim-cmd solo/registervm " + vmx, False))
        self.ssh.run("vim-cmd vmsvc/unregister %d" % vmid)
        new = int(self.ssh.text("vim-cmd solo/registervm " + vmx))
        self.assertNotEqual(new, vmid)
        self.addCleanup(self.drop, new)
        self.assertIn("(vim.fault.NotFound)", self.ssh.text(
            "vim-cmd solo/registervm /vmfs/volumes/datastore1/none.vmx", False))

    def test_vim_cmd_breaks(self):
        self.turn("vim-cmd", "bad-alloc")
        self.turn("vim-cmd-fail-times", "2")
        done = self.ssh.run("vim-cmd vmsvc/getallvms; echo rc $?", check=False)
        self.assertIn(b"std::bad_alloc", done.stderr)
        self.assertIn(b"rc 134", done.stdout)
        self.ssh.run("vim-cmd vmsvc/getallvms", check=False)
        self.assertEqual(self.ssh.rc("vim-cmd vmsvc/getallvms"), 0)
        self.host.knob("vim-cmd", "login-failure")
        self.host.knob("vim-cmd-match", "getallvms")
        self.assertIn("Failed to login: ", self.ssh.text("vim-cmd vmsvc/getallvms", False))
        self.assertEqual(self.ssh.rc("vim-cmd hostsvc/hostsummary"), 0)
        self.host.knob("vim-cmd-match", "")

    def test_vim_cmd_hangs(self):
        self.turn("vim-cmd", "hang")
        started = time.monotonic()
        self.assertEqual(self.ssh.text("timeout -t 1 vim-cmd vmsvc/getallvms 2>/dev/null; echo $?"),
                         "143\n")
        self.assertGreater(time.monotonic() - started, 0.9)

    def test_a_question_holds_power_on(self):
        _, vmid, _ = self.vm("off")
        self.turn("power-on", "question")
        self.assertEqual(self.ssh.text("vim-cmd vmsvc/message %d" % vmid), "No message.\n")
        self.ssh.run("vim-cmd vmsvc/power.on %d >/tmp/on 2>&1 &" % vmid)
        self.assertTrue(wait_for(lambda: self.ssh.text(
            "vim-cmd vmsvc/message %d" % vmid) != "No message.\n"))
        text = self.ssh.text("vim-cmd vmsvc/message %d" % vmid)
        self.assertTrue(text.startswith("Virtual machine message 27:\nmsg.uuid.altered:"))
        self.assertIn("   2. I Copied It (I Copied It) [default]\n", text)
        self.ssh.run("vim-cmd vmsvc/message %d 27 2" % vmid)
        self.assertTrue(wait_for(lambda: self.host.vm(vmid)["power"] == "on"))
        self.ssh.run("rm /tmp/on")

    def test_power_by_vim_cmd(self):
        _, vmid, _ = self.vm("off")
        for command, state in (("on", "Powered on"), ("suspend", "Suspended"),
                               ("on", "Powered on"), ("shutdown", "Powered off"),
                               ("on", "Powered on"), ("off", "Powered off")):
            self.ssh.run("vim-cmd vmsvc/power.%s %d" % (command, vmid))
            self.assertEqual(self.ssh.text("vim-cmd vmsvc/power.getstate %d" % vmid),
                             "Retrieved runtime info\n%s\n" % state)
        self.assertEqual(self.ssh.run("vim-cmd vmsvc/power.off %d" % vmid, check=False).stdout,
                         b"Powering off VM:\nPower off failed\n")

    def test_a_finished_task_says_so(self):
        _, vmid, _ = self.vm()
        self.assertEqual(self.ssh.text("vim-cmd vmsvc/get.tasklist %d" % vmid),
                         "(ManagedObjectReference) []\n")
        self.ssh.run("vim-cmd vmsvc/snapshot.create %d t" % vmid)
        text = self.ssh.text("vim-cmd vmsvc/get.tasklist %d" % vmid)
        self.assertRegex(text, r"^\(ManagedObjectReference\) \[\n   'vim.Task:haTask-%d-"
                               r"vim.VirtualMachine.createSnapshot-\d+'\n\]\n$" % vmid)
        text = self.ssh.text("vim-cmd vimsvc/task_info " + text.split("'")[1].split(":")[1])
        self.assertIn('state = "success", \n', text)
        self.assertIn("error = (vmodl.MethodFault) null, \n", text)
        self.assertIn("(vmodl.fault.ManagedObjectNotFound) {",
                      self.ssh.text("vim-cmd vimsvc/task_info haTask-1-x-2", False))

    def test_the_small_commands(self):
        self.assertRegex(self.ssh.text("df -h"), r"(?m)^Filesystem +Size +Used Available Use% "
                                                 r"Mounted on\nVMFS-5 .* /vmfs/volumes/datastore1$")
        self.assertRegex(self.ssh.text("vdf"), r"(?m)^tmp +262144 ")
        self.assertIn("CID       WorldName", self.ssh.text("ps"))
        self.assertEqual(self.ssh.text("hostname"), "localhost\n")
        self.assertEqual(self.ssh.text("uname -a"), "VMkernel localhost 6.7.0 #1 SMP Release build-"
                         "8169922 Apr  3 2018 14:48:22 x86_64 x86_64 x86_64 ESXi\n")
        self.assertIn("vmodl key: esxEnterprisePlus\n",
                      self.ssh.text("vim-cmd vimsvc/license --show"))
        self.assertIn("Error: Unknown command or namespace system bogus\n",
                      self.ssh.text("esxcli system bogus", False))
        self.assertEqual(self.ssh.rc("esxcli system settings advanced list "
                                     "-o /User/execInstalledOnly"), 1)
        self.assertIn('fullName = "VMware ESXi 6.7.0 build-8169922"',
                      self.ssh.text("vim-cmd hostsvc/hostsummary"))
        self.assertIn("max supported file size 64 TB", self.ssh.text(
            "vmkfstools -P -h /vmfs/volumes/datastore1"))

    def test_lock_owners_are_named(self):
        name, _, folder = self.vm()
        self.assertIn('"%s-flat.vmdk" is locked in Exclusive mode by host having mac' % name,
                      self.ssh.text("vmfsfilelockinfo -p %s/%s-flat.vmdk" % (folder, name)))
        self.assertIn("is not locked by any ESX host and is Free",
                      self.ssh.text("vmfsfilelockinfo -p %s/%s.nvram" % (folder, name)))

    def test_identity_of_disks_by_choice(self):
        name, _, folder = self.vm("off", disks=[{"size": "1m", "uuid": ""},
                                                {"size": "1m", "uuid": "6000C29" + "ab" * 12 + "c"},
                                                {"size": "1m", "uuid": "6000C29" + "ab" * 12 + "c"}])
        self.assertNotIn("ddb.uuid", self.ssh.text("cat %s/%s.vmdk" % (folder, name)))
        self.assertEqual(self.ssh.text("cat %s/*.vmdk | grep -c '^ddb.uuid = \"60 00 c2 9a ba'"
                                       % folder), "2\n")

    def test_tests_can_change_a_vm(self):
        name, vmid, folder = self.vm("off")
        self.host.ask("rename", vm=vmid, name="other name")
        self.host.ask("vmx-set", vm=vmid, values={"ctkEnabled": "TRUE", "nvram": None})
        text = self.ssh.text("cat %s/%s.vmx" % (folder, name))
        self.assertIn('displayName = "other name"\n', text)
        self.assertIn('ctkEnabled = "TRUE"\n', text)
        self.assertNotIn("nvram", text)
        self.assertIn("changeTrackingEnabled = true",
                      self.ssh.text("vim-cmd vmsvc/get.config %d" % vmid))

    def test_delays(self):
        self.turn("delay-vim-cmd", "0.4")
        started = time.monotonic()
        self.ssh.run("vim-cmd hostsvc/hostsummary")
        self.assertGreater(time.monotonic() - started, 0.4)

    def test_calls_are_logged(self):
        self.ssh.run("cd /tmp; vim-cmd 'vmsvc/getallvms'; esxcli system uuid get")
        last = self.host.calls()[-2:]
        self.assertEqual([c["name"] for c in last], ["vim-cmd", "esxcli"])
        self.assertEqual(last[1]["argv"], ["esxcli", "system", "uuid", "get"])
        self.assertEqual(last[0]["cwd"], "/tmp")

    def test_vim_cmd_is_quick_without_a_delay(self):
        started = time.monotonic()
        self.ssh.run("for i in 1 2 3 4 5 6 7 8 9 10; do vim-cmd vmsvc/getallvms >/dev/null; done")
        self.assertLess(time.monotonic() - started, 3)


class Disks(Base):
    """Locks, snapshots, what is frozen, what is merged."""
    shared = True

    def read(self, path, target, check=True):
        with open(target, "wb") as f:
            done = subprocess.run(self.ssh.command("cat '%s'" % path), stdout=f, timeout=60,
                                  stderr=subprocess.PIPE, check=False)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def create(self, vmid, name="s", rest=""):
        done = self.ssh.run("vim-cmd vmsvc/snapshot.create %d %s %s" % (vmid, name, rest),
                            check=False)
        return done.returncode, done.stdout.decode()

    def remove(self, vmid, uid):
        done = self.ssh.run("vim-cmd vmsvc/snapshot.remove %d %d 0" % (vmid, uid), check=False)
        return done.returncode, done.stdout.decode()

    def tree(self, vmid):
        return self.ssh.text("vim-cmd vmsvc/snapshot.get %d" % vmid)

    def test_the_disk_of_a_running_vm_is_busy(self):
        name, vmid, folder = self.vm()
        flat = "%s/%s-flat.vmdk" % (folder, name)
        done = self.read(flat, self.out("x"), check=False)
        self.assertIn(b"Device or resource busy", done.stderr)
        self.assertIn("mode 1, owner 5f", self.ssh.text("vmkfstools -D " + flat))
        self.assertIn("Failed to lock the file (16392).",
                      self.ssh.text("vmkfstools -i %s/%s.vmdk /tmp/x.vmdk" % (folder, name), False))
        self.assertEqual(self.ssh.rc("vmkfstools -i %s/%s.vmdk /tmp/x.vmdk" % (folder, name)), 255)
        self.assertIn("Failed to open virtual disk: Failed to lock the file 16392",
                      self.ssh.text("vmkfstools -t0 %s/%s.vmdk" % (folder, name), False))
        self.assertEqual(self.ssh.rc("rm -f " + flat), 1)
        self.assertEqual(self.ssh.rc("mv %s %s.x" % (flat, flat)), 1)
        self.ssh.run("cat %s/%s.vmx %s/%s.vmdk" % (folder, name, folder, name))
        self.host.power(vmid, "off")
        self.read(flat, self.out("x"))
        self.assertEqual(os.path.getsize(self.out("x")), 16 * MB)

    def test_a_snapshot_freezes_the_base_while_the_guest_writes(self):
        name, vmid, folder = self.vm(disks=[{"size": "16m"}, {"size": "5m", "thin": False}])
        self.host.ask("guest-start", vm=vmid, rate=400, seed=7)
        wait_for(lambda: self.host.vm(vmid)["writes"] > 20)
        self.assertEqual(self.create(vmid, "one"), (0, "Create Snapshot:\n"))
        before = self.host.vm(vmid)["writes"]
        wait_for(lambda: self.host.vm(vmid)["writes"] > before + 40)
        for slot, flat in (("scsi0:0", name), ("scsi0:1", name + "_1")):
            self.read("%s/%s-flat.vmdk" % (folder, flat), self.out("frozen"))
            self.host.truth(vmid, slot, self.out("truth"), "one")
            self.assertTrue(same(self.out("frozen"), self.out("truth")))
            self.host.truth(vmid, slot, self.out("now"))
            self.assertFalse(same(self.out("now"), self.out("truth")))
            shutil.copy(self.out("frozen"), self.out("kept-" + flat))
            self.assertEqual(self.ssh.rc("echo x >>%s/%s-flat.vmdk" % (folder, flat)), 1)
            self.assertIn("mode 2, owner 00000000", self.ssh.text(
                "vmkfstools -D %s/%s-flat.vmdk" % (folder, flat)))
            self.assertEqual(self.ssh.rc("cat %s/%s-000001-delta.vmdk" % (folder, flat)), 1)
        self.assertEqual(self.remove(vmid, 1), (0, "Remove Snapshot:\n"))
        self.assertEqual(self.tree(vmid), "Get Snapshot:\n")
        self.assertGreater(self.host.ask("guest-stop", vm=vmid), 50)
        self.assertNotIn("00000", self.ssh.text("ls " + folder))
        self.host.power(vmid, "off")
        for slot, flat in (("scsi0:0", name), ("scsi0:1", name + "_1")):
            self.read("%s/%s-flat.vmdk" % (folder, flat), self.out("after"))
            self.host.truth(vmid, slot, self.out("now"))
            self.assertTrue(same(self.out("after"), self.out("now")))
            # The truth of the snapshot is still to be had, though its files are gone.
            self.host.truth(vmid, slot, self.out("truth"), "1")
            self.assertTrue(same(self.out("truth"), self.out("kept-" + flat)))
            self.host.truth(vmid, slot, self.out("truth"), "last")
            self.assertTrue(same(self.out("truth"), self.out("kept-" + flat)))

    def test_the_kind_of_delta_follows_the_datastore(self):
        self.host.add_datastore("six", kind="VMFS-6")
        name, vmid, folder = self.vm(datastore="six")
        self.create(vmid)
        text = self.ssh.text("cat %s/%s-000001.vmdk" % (folder, name))
        self.assertIn('createType="seSparse"\nparentFileNameHint="%s.vmdk"\n' % name, text)
        self.assertIn('RW 32768 SESPARSE "%s-000001-sesparse.vmdk"\n' % name, text)
        base = self.ssh.text("cat %s/%s.vmdk" % (folder, name))
        cid = [line for line in base.splitlines() if line.startswith("CID=")][0][4:]
        self.assertIn("CID=%s\nparentCID=%s\n" % (cid, cid), text)
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=512, length=512, seed=1)
        text = self.ssh.text("cat %s/%s-000001.vmdk" % (folder, name))
        self.assertNotIn("\nCID=" + cid, text)
        self.assertIn("\nparentCID=" + cid, text)
        self.assertIn('scsi0:0.fileName = "%s-000001.vmdk"' % name,
                      self.ssh.text("cat %s/%s.vmx" % (folder, name)))

    def test_nested_snapshots_are_removed_in_every_order(self):
        import itertools
        for order in itertools.permutations((1, 2, 3)):
            name, vmid, folder = self.vm(disks=[{"size": "2m"}])
            truths = {}
            for uid in (1, 2, 3):
                self.create(vmid, "s%d" % uid)
                truths[uid] = self.out("truth%d" % uid)
                self.host.truth(vmid, "scsi0:0", truths[uid])
                for n in range(6):
                    self.host.ask("guest-write", vm=vmid, slot="scsi0:0", length=3000 + n * 5000,
                                  offset=(n * 7919 * uid * 512) % (2 * MB - 40000), seed=n * uid)
            self.host.truth(vmid, "scsi0:0", self.out("now"))
            for uid in order:
                self.assertEqual(self.remove(vmid, uid)[0], 0)
                for other in (1, 2, 3):
                    self.host.truth(vmid, "scsi0:0", self.out("t"), str(other))
                    self.assertTrue(same(self.out("t"), truths[other]), (order, uid, other))
                self.host.truth(vmid, "scsi0:0", self.out("t"))
                self.assertTrue(same(self.out("t"), self.out("now")), (order, uid))
                self.assertFalse(self.host.vm(vmid)["consolidation_needed"])
            self.assertEqual(self.tree(vmid), "Get Snapshot:\n")
            self.assertNotIn("-00000", self.ssh.text("ls " + folder))
            self.host.power(vmid, "off")
            self.read("%s/%s-flat.vmdk" % (folder, name), self.out("t"))
            self.assertTrue(same(self.out("t"), self.out("now")))

    def test_revert_and_branches(self):
        name, vmid, folder = self.vm(disks=[{"size": "2m"}])
        self.create(vmid, "a")
        self.host.truth(vmid, "scsi0:0", self.out("a"))
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=0, length=9999, seed=1)
        self.create(vmid, "b")
        self.host.truth(vmid, "scsi0:0", self.out("b"))
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=5000, length=9999, seed=2)
        self.ssh.run("vim-cmd vmsvc/snapshot.revert %d 1 1" % vmid)
        self.host.truth(vmid, "scsi0:0", self.out("now"))
        self.assertTrue(same(self.out("now"), self.out("a")))
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=MB, length=9999, seed=3)
        self.create(vmid, "c")
        for name_, file in (("a", "a"), ("b", "b")):
            self.host.truth(vmid, "scsi0:0", self.out("t"), name_)
            self.assertTrue(same(self.out("t"), self.out(file)), name_)
        self.assertEqual([s["parent"] for s in self.host.snapshots(vmid)], [0, 1, 1])
        self.host.truth(vmid, "scsi0:0", self.out("now"))
        for uid in (2, 1, 3):
            self.assertEqual(self.remove(vmid, uid)[0], 0)
            self.host.truth(vmid, "scsi0:0", self.out("t"))
            self.assertTrue(same(self.out("t"), self.out("now")))
        self.assertNotIn("-00000", self.ssh.text("ls " + folder))

    def test_a_reader_of_the_base_blocks_consolidation(self):
        probe = self.install_probe()
        name, vmid, folder = self.vm()
        self.create(vmid)
        flat = "%s/%s-flat.vmdk" % (folder, name)
        self.host.ask("guest-write", vm=vmid, slot="scsi0:0", offset=0, length=8192, seed=1)
        holder = subprocess.Popen(self.ssh.command("%s hold %s" % (probe, flat)),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertEqual(holder.stdout.readline(), b"ok\n")
        self.host.knob("remove-while-read", "refuse")
        rc, text = self.remove(vmid, 1)
        self.assertEqual(rc, 1)
        self.assertIn("One or more disks are busy", text)
        self.assertEqual(len(self.host.snapshots(vmid)), 1)
        self.host.knob("remove-while-read", "consolidation-needed")
        rc, text = self.remove(vmid, 1)
        self.assertEqual(rc, 1)
        self.assertEqual(self.host.snapshots(vmid), [])
        self.assertIn("consolidationNeeded = true",
                      self.ssh.text("vim-cmd vmsvc/get.summary %d" % vmid))
        self.assertIn("-000001.vmdk", self.ssh.text("cat %s/%s.vmx" % (folder, name)))
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()
        # The next creation and removal brings it in order.
        self.create(vmid)
        self.assertEqual(self.remove(vmid, 2)[0], 0)
        self.assertFalse(self.host.vm(vmid)["consolidation_needed"])
        self.assertNotIn("-00000", self.ssh.text("ls " + folder))

    def test_a_reader_of_an_off_vm_blocks_power_on(self):
        probe = self.install_probe()
        name, vmid, folder = self.vm("off")
        holder = subprocess.Popen(
            self.ssh.command("%s hold %s/%s-flat.vmdk" % (probe, folder, name)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holder.stdout.readline()
        self.assertIn("Power on failed", self.ssh.text("vim-cmd vmsvc/power.on %d" % vmid, False))
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()
        self.ssh.run("vim-cmd vmsvc/power.on %d" % vmid)

    def test_what_create_can_do_wrong(self):
        _, vmid, _ = self.vm()
        self.turn("create-result", "silent")
        self.assertEqual(self.create(vmid), (0, "Create Snapshot:\n"))
        self.assertEqual(self.host.snapshots(vmid), [])
        self.host.knob("create-result", "fault")
        rc, text = self.create(vmid)
        self.assertEqual(rc, 1)
        self.assertIn("Create snapshot failed\n(vim.fault.", text)
        self.host.knob("create-result", "fault0")
        self.assertEqual(self.create(vmid)[0], 0)
        self.host.knob("create-result", "fault")
        self.turn("create-late", "2")
        self.assertEqual(self.create(vmid, "late")[0], 1)
        self.assertEqual(self.host.snapshots(vmid), [])
        tasks = self.ssh.text("vim-cmd vmsvc/get.tasklist %d" % vmid)
        task = tasks.split("vim.Task:")[-1].split("'")[0]
        self.assertIn('state = "running"', self.ssh.text("vim-cmd vimsvc/task_info " + task))
        wait_for(lambda: self.host.snapshots(vmid))
        self.assertEqual([s["name"] for s in self.host.snapshots(vmid)], ["late"])
        self.host.knob("create-result", "ok")
        self.host.knob("create-late", "0")
        self.host.knob("create-result", "busy")
        self.assertIn("Another task is already in progress.", self.create(vmid)[1])

    def test_one_operation_at_a_time(self):
        _, vmid, _ = self.vm()
        self.turn("create-delay", "1.5")
        slow = threading.Thread(target=self.create, args=(vmid, "slow"))
        slow.start()
        self.assertTrue(wait_for(lambda: self.host.vm(vmid)["busy"]))
        self.assertIn("vim.fault.TaskInProgress", self.create(vmid, "second")[1])
        slow.join()
        self.assertEqual([s["name"] for s in self.host.snapshots(vmid)], ["slow"])

    def test_a_create_goes_on_when_vim_cmd_is_gone(self):
        _, vmid, _ = self.vm()
        self.turn("create-delay", "1")
        one = subprocess.Popen(self.ssh.command("vim-cmd vmsvc/snapshot.create %d orphan" % vmid),
                               stdout=subprocess.PIPE)
        one.stdout.readline()
        one.kill()
        one.wait()
        one.stdout.close()
        self.host.ask("kill-sessions")
        wait_for(lambda: self.host.snapshots(vmid))
        self.assertEqual([s["name"] for s in self.host.snapshots(vmid)], ["orphan"])

    def test_quiesce_fails_by_knob(self):
        _, vmid, _ = self.vm()
        self.turn("create-quiesce", "fail")
        self.assertIn("quiescing", self.create(vmid, "q", "d 0 1")[1])
        self.assertEqual(self.create(vmid, "q", "d 0 0")[0], 0)

    def test_what_remove_can_do_wrong(self):
        _, vmid, folder = self.vm()
        self.create(vmid)
        self.turn("remove-result", "fault")
        self.assertEqual(self.remove(vmid, 1)[0], 1)
        self.assertEqual(len(self.host.snapshots(vmid)), 1)
        self.host.knob("remove-result", "leaves-children")
        self.assertEqual(self.remove(vmid, 1)[0], 0)
        self.assertEqual(self.host.snapshots(vmid), [])
        self.assertTrue(self.host.vm(vmid)["consolidation_needed"])
        self.assertIn("needConsolidate", self.ssh.text("cat %s/*.vmsd" % folder))
        self.host.knob("remove-result", "ok")
        self.host.ask("consolidate", vm=vmid)
        self.create(vmid)
        self.host.knob("remove-result", "early")
        self.turn("remove-delay", "2")
        self.assertEqual(self.remove(vmid, 2)[0], 0)
        self.assertEqual(len(self.host.snapshots(vmid)), 1)
        self.assertIn("Another task is already", self.create(vmid)[1])
        self.assertTrue(wait_for(lambda: not self.host.snapshots(vmid)))

    def test_independent_disks_stay_locked_and_rdms_forbid(self):
        name, vmid, folder = self.vm(disks=[
            {"size": "4m"}, {"size": "4m", "mode": "independent-persistent"}])
        self.assertEqual(self.create(vmid)[0], 0)
        self.assertEqual(self.ssh.rc("cat %s/%s-flat.vmdk >/dev/null" % (folder, name)), 0)
        self.assertEqual(self.ssh.rc("cat %s/%s_1-flat.vmdk >/dev/null" % (folder, name)), 1)
        name, vmid, folder = self.vm(disks=[{"size": "4m"}, {"size": "4m", "rdm": "physical"}])
        self.assertIn("vim.fault.SnapshotIncompatibleDeviceInVm", self.create(vmid)[1])
        self.assertIn("is a Passthrough Raw Device Mapping\nMaps to: vml.0200",
                      self.ssh.text("vmkfstools -q %s/%s_1.vmdk" % (folder, name)))
        name, vmid, folder = self.vm(disks=[{"size": "4m", "rdm": "virtual"}])
        self.assertEqual(self.create(vmid)[0], 0)
        name, vmid, folder = self.vm(disks=[{"size": "4m", "sharing": "multi-writer"}])
        self.assertIn("Cannot snapshot shared disk", self.create(vmid)[1])
        _, other, _ = self.vm(disks=[{"share": "%s/%s.vmdk" % (folder, name),
                                      "sharing": "multi-writer"}])
        self.assertIn("mode 3, ", self.ssh.text("vmkfstools -D %s/%s-flat.vmdk" % (folder, name)))
        self.drop(other)
        self.ssh.run("ls %s/%s-flat.vmdk" % (folder, name))

    def test_a_suspended_vm(self):
        name, vmid, folder = self.vm("suspended")
        self.assertIn("has not changed since", self.create(vmid)[1])
        self.assertEqual(self.ssh.rc("cat %s/%s-flat.vmdk >/dev/null" % (folder, name)), 0)

    def test_lock_base_by_knob(self):
        name, vmid, folder = self.vm()
        self.create(vmid)
        self.turn("lock-base", "on")
        self.assertEqual(self.ssh.rc("cat %s/%s-flat.vmdk >/dev/null" % (folder, name)), 1)
        self.assertIn("16392", self.ssh.text("vmkfstools -i %s/%s.vmdk /tmp/x.vmdk"
                                             % (folder, name), False))

    def test_the_extent_map_is_whole_and_true(self):
        raw = self.out("raw")
        with open(raw, "wb") as f:
            f.truncate(10 * MB + 512 * 3)
            for at in (0, 3 * MB + 5, 9 * MB):
                os.pwrite(f.fileno(), b"data" * 1000, at)
        for thin, flag in ((True, "NOMP --"), (False, "VMFS Z-")):
            name, _, folder = self.vm("off", disks=[{"content": {"file": raw}, "thin": thin}])
            text = self.ssh.text("vmkfstools -t0 %s/%s.vmdk" % (folder, name))
            lines = text.splitlines()
            self.assertEqual(lines[0], "Mapping for file %s/%s.vmdk (%d bytes in size):"
                             % (folder, name, 10 * MB + 1536))
            self.assertTrue(text.endswith("]\n\n"))
            at = 0
            for line in lines[1:-1]:
                self.assertRegex(line, r"^\[[ 0-9]{12,}:[ 0-9]{12,}\] --> \[(VMFS|NOMP) ")
                start, length = map(int, line[1:line.index("]")].split(":"))
                self.assertEqual(start, at)
                at += length
                with open(raw, "rb") as f:
                    data = os.pread(f.fileno(), length, start)
                self.assertEqual("VMFS --" in line, any(data), line)
                self.assertEqual(flag in line, not any(data), line)
            self.assertEqual(at, 10 * MB + 1536)
        self.turn("t0", "fail")
        self.assertEqual(self.ssh.rc("vmkfstools -t0 %s/%s.vmdk" % (folder, name)), 255)

    def test_clone_create_rename_delete(self):
        name, vmid, folder = self.vm()
        self.create(vmid)
        work = "/vmfs/volumes/datastore1/w"
        self.ssh.run("mkdir " + work)
        text = self.ssh.text("vmkfstools -i %s/%s.vmdk -d thin %s/c.vmdk" % (folder, name, work))
        self.assertTrue(text.startswith("Destination disk format: VMFS thin-provisioned\n"
                                        "Cloning disk '%s/%s.vmdk'...\n\rClone: " % (folder, name)))
        self.assertTrue(text.endswith("\rClone: 100% done.\n"))
        self.read(work + "/c-flat.vmdk", self.out("clone"))
        self.host.truth(vmid, "scsi0:0", self.out("truth"), "last")
        self.assertTrue(same(self.out("clone"), self.out("truth")))
        self.ssh.run("vmkfstools -E %s/c.vmdk %s/d.vmdk" % (work, work))
        self.assertEqual(self.ssh.text("ls " + work), "d-flat.vmdk\nd.vmdk\n")
        self.assertRegex(self.ssh.text("vmkfstools -J getuuid %s/d.vmdk" % work),
                         r"^UUID is 60 00 c2 9")
        self.assertRegex(self.ssh.text("vmkfstools --extendedstatinfo %s/d.vmdk" % work),
                         r"^Capacity bytes: 16777216 \nUsed bytes: \d+ \n")
        self.ssh.run("vmkfstools -c 4096s -d thin %s/n.vmdk" % work)
        self.assertEqual(self.ssh.rc("vmkfstools -c 4096s %s/n.vmdk" % work), 255)
        self.assertIn('RW 4096 VMFS "n-flat.vmdk"', self.ssh.text("cat %s/n.vmdk" % work))
        self.assertEqual(len(self.host.leftovers()["files"]), 5)
        self.ssh.run("vmkfstools -U %s/n.vmdk; vmkfstools -U %s/d.vmdk; rmdir %s"
                     % (work, work, work))
        self.assertEqual(self.host.leftovers()["files"], [])
        self.turn("out-of-space", "on")
        self.assertIn("(13).", self.ssh.text("vmkfstools -c 4096s /tmp/n.vmdk", False))
        self.host.knob("out-of-space", "off")
        self.turn("clone-fail-at", "30")
        self.assertRegex(self.ssh.text("vmkfstools -i %s/%s.vmdk /tmp/n.vmdk" % (folder, name),
                                       False), r"Failed to clone disk: Input/output error \(327689\)")
        self.ssh.run("rm /tmp/n*.vmdk")

    def test_read_errors_and_stalls(self):
        name, vmid, folder = self.vm("off")
        flat = "%s/%s-flat.vmdk" % (folder, name)
        self.turn("read-fault", "eio@%s:%d+512" % (flat, 5 * MB + 1024))
        done = self.ssh.run("dd if=%s bs=1M" % flat, check=False)
        self.assertIn(b"Input/output error", done.stderr)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stdout), 5 * MB)
        self.assertEqual(self.ssh.rc("dd if=%s of=/dev/null bs=1M skip=6 2>/dev/null" % flat), 0)
        probe = self.install_probe()
        read = "%s pread %s %%d 65536" % (probe, flat)
        self.assertEqual(self.ssh.text(read % (5 * MB + 1023 + 513)), "65536\n")
        self.assertEqual(self.ssh.text(read % (5 * MB + 1024 - 65536)), "65536\n")
        for at in (5 * MB + 1535, 5 * MB + 1025 - 65536):
            self.assertEqual(self.ssh.text(read % at, False), "Input/output error\n")
        self.host.knob("read-fault", "stall:500@%s:0+512" % flat)
        started = time.monotonic()
        self.ssh.run("dd if=%s of=/dev/null bs=1M count=1 2>/dev/null" % flat)
        self.assertGreater(time.monotonic() - started, 0.5)
        with self.assertRaises(LookalikeError):
            self.host.knob("read-fault", "eio@/none:0+1")

    def test_write_image_writes_what_differs(self):
        name, vmid, folder = self.vm()
        self.create(vmid)
        self.host.truth(vmid, "scsi0:0", self.out("old"))
        shutil.copy(self.out("old"), self.out("new"))
        with open(self.out("new"), "r+b") as f:
            os.pwrite(f.fileno(), os.urandom(10000), 3 * MB + 100)
            os.pwrite(f.fileno(), bytes(MB), 8 * MB)
        count = self.host.ask("guest-write-image", vm=vmid, slot="scsi0:0", path=self.out("new"))
        self.assertGreaterEqual(count, 10000)
        self.assertLess(count, 2 * MB)
        self.host.truth(vmid, "scsi0:0", self.out("t"))
        self.assertTrue(same(self.out("t"), self.out("new")))
        self.host.truth(vmid, "scsi0:0", self.out("t"), "last")
        self.assertTrue(same(self.out("t"), self.out("old")))

    def test_removeall_is_recorded(self):
        _, vmid, _ = self.vm()
        self.create(vmid, "a")
        self.create(vmid, "b")
        self.ssh.run("vim-cmd vmsvc/snapshot.removeall %d" % vmid)
        self.assertEqual(self.host.snapshots(vmid), [])
        self.assertTrue(any("vmsvc/snapshot.removeall" in c["argv"] for c in self.host.calls()))

    def test_disks_come_go_and_grow(self):
        name, vmid, _ = self.vm("off")
        self.host.ask("disk-add", vm=vmid, disk={"slot": "scsi0:3", "size": "3m"})
        self.host.ask("disk-grow", vm=vmid, slot="scsi0:0", size="20m")
        self.assertEqual([(d["slot"], d["capacity"]) for d in self.host.vm(vmid)["disks"]],
                         [("scsi0:0", 20 * MB), ("scsi0:3", 3 * MB)])
        self.host.ask("disk-remove", vm=vmid, slot="scsi0:3")
        self.assertEqual(len(self.host.vm(vmid)["disks"]), 1)
        self.assertEqual(self.host.leftovers()["files"], [])


class Life(Base):
    def test_autostart_at_boot(self):
        name, vmid, _ = self.vm("off")
        self.host.ask("autostart", vms=[name])
        self.assertIn("key = 'vim.VirtualMachine:%d'" % vmid, self.ssh.text(
            "vim-cmd hostsvc/autostartmanager/get_autostartseq"))
        self.host.reboot()
        self.assertEqual(self.host.vm(name)["power"], "on")
        self.host.ask("autostart", vms=[])

    def test_a_reboot(self):
        name, vmid, folder = self.vm()
        self.ssh.run("vim-cmd vmsvc/snapshot.create %d keep" % vmid)
        probe = self.install_probe()
        self.ssh.run("touch /tmp/x; %s hold /tmp/x </dev/zero >/dev/null 2>&1 &" % probe)
        self.assertEqual(len(self.host.leftovers()["processes"]), 1)
        before = int(self.ssh.text("sleep 1; esxcli system stats uptime get"))
        self.host.reboot(renumber=True)
        self.assertLess(int(self.ssh.text("esxcli system stats uptime get")), before)
        left = self.host.leftovers()
        self.assertEqual(left["processes"], [])
        self.assertEqual([os.path.basename(f) for f in left["files"]], ["probe"])
        v = self.host.vm(name)
        self.assertEqual((v["power"], [s["name"] for s in v["snapshots"]]), ("off", ["keep"]))
        self.assertNotEqual(v["vmid"], vmid)
        self.host.truth(name, "scsi0:0", self.out("t"), "keep")
        self.assertTrue(same(self.out("t"), self.host.root + "%s/%s-flat.vmdk" % (folder, name)))
        self.drop(v["vmid"])

    def test_tmp_is_full_by_knob(self):
        self.host.knob("tmp-full", "on")
        self.assertNotEqual(self.ssh.rc("echo x >/tmp/x"), 0)
        self.host.knob("tmp-full", "off")
        self.assertEqual(self.ssh.rc("echo x >/tmp/x && rm /tmp/x"), 0)

    def test_stop_and_start_keep_the_state(self):
        folder = os.path.join(self.work, "kept")
        host = Lookalike.start(folder, profile="8.0")
        host.add_vm({"name": "v", "power": "on", "disks": [{"size": "2m"}]})
        host.ask("snapshot-create", vm="v", name="user's")
        host.knob("delay", "0.25")
        port = host.port
        host.stop()
        self.assertIsNone(host.pid())
        again = Lookalike.start(folder)
        self.addCleanup(again.stop)
        self.assertEqual(again.port, port)
        self.assertEqual(again.vm("v")["power"], "on")
        self.assertEqual([s["name"] for s in again.snapshots("v")], ["user's"])
        self.assertEqual(again.ask("knobs")["delay"], "0.25")

    def test_stop_cleans_up_after_a_killed_daemon(self):
        with open(self.key + ".pub", encoding="ascii") as f:
            host = Lookalike.start(os.path.join(self.work, "killed"), public_key=f.read())
        ssh = Client(host, self.key)
        ssh.run("sleep 1000 </dev/null >/dev/null 2>&1 &")
        os.kill(host.pid(), signal.SIGKILL)
        host.daemon.wait()
        Lookalike(host.dir).stop()
        with open("/proc/self/mountinfo", encoding="ascii") as f:
            self.assertNotIn(host.dir, f.read())
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    self.assertNotIn(os.fsencode(host.dir), f.read())
            except (FileNotFoundError, ProcessLookupError):
                pass
        self.assertEqual(ssh.rc("true"), 255)

    def test_two_beside_each_other(self):
        with Lookalike.start(profile="8.0") as other:
            self.assertNotEqual(other.port, self.host.port)
            self.assertNotEqual(other.state()["uuid"], self.host.state()["uuid"])
            self.assertEqual(self.ssh.rc("true"), 0)

    def test_the_command_line(self):
        program = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                "lookalike.py")]
        folder = os.path.join(self.work, "cli")

        def call(*words, **more):
            return subprocess.run([*program, words[0], "--dir", folder, *words[1:]], check=True,
                                  capture_output=True, text=True, timeout=60, **more).stdout
        text = call("start", "--profile", "8.0", "--knob", "delay=0")
        self.assertIn("port=", text)
        try:
            call("vm-add", "-", input=json.dumps({"name": "v", "disks": [{"size": "1m"}]}))
            call("power", "on", "v")
            self.assertEqual(json.loads(call("state"))["vms"][0]["power"], "on")
            call("ask", "snapshot-create", "vm=v", "name=x")
            call("truth", "v", "scsi0:0", self.out("t"), "--snapshot", "last")
            self.assertEqual(os.path.getsize(self.out("t")), MB)
            call("knob", "t0", "fail")
            call("guest-start", "v", "--rate", "100")
            call("guest-stop", "v")
        finally:
            call("stop")

    def test_the_machine_is_untouched(self):
        with open("/proc/self/mountinfo", encoding="ascii") as f:
            self.assertNotIn("lookalike", f.read())
        with open("/etc/passwd", encoding="utf-8") as f:
            self.assertNotIn("lookalike", f.read())
        with self.assertRaises(LookalikeError):
            Lookalike.start(profile="5.0")


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("the look-alike needs root", file=sys.stderr)
        sys.exit(1)
    unittest.main()
