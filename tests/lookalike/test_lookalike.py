#!/usr/bin/env python3
"""The look-alike itself: logging in, system calls, firewall, exec policy, start and stop."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time

from selftest import MB, Base, Client, main, same, wait_for
from lookalike import Lookalike, LookalikeError


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
        self.assertTrue(wait_for(lambda: not self.host.leftovers()["processes"]))
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


class Life(Base):
    def test_autostart_at_boot(self):
        name, vmid, _ = self.vm("off")
        self.host.ask("autostart", vms=[name])
        self.assertIn("key = 'vim.VirtualMachine:%d'" % vmid, self.ssh.text(
            "vim-cmd hostsvc/autostartmanager/get_autostartseq"))
        self.host.reboot()
        self.assertEqual(self.host.vm(name)["power"], "on")
        self.host.ask("autostart", vms=[])

    def test_a_reboot_ends_the_tasks(self):
        name, vmid, _ = self.vm()
        self.turn("create-delay", "3")
        one = subprocess.Popen(self.ssh.command("vim-cmd vmsvc/snapshot.create %d x" % vmid),
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        one.stdout.readline()
        self.host.reboot()
        self.assertEqual(one.wait(10), 255)
        one.stdout.close()
        self.assertTrue(wait_for(lambda: not self.host.vm(name)["busy"], 2))
        self.assertEqual(self.host.snapshots(name), [])

    def test_a_killed_daemon_finds_its_files_again(self):
        folder = os.path.join(self.work, "crash")
        host = Lookalike.start(folder)
        host.add_vm({"name": "v", "power": "on", "disks": [{"size": "4m"}]})
        for n in range(4):
            host.ask("guest-start", vm="v", rate=300, seed=n)
            host.ask("snapshot-create", vm="v", name="s%d" % n)
            os.kill(host.pid(), signal.SIGKILL)
            host.daemon.wait()
            host.stop()
            host = Lookalike.start(folder)
        self.addCleanup(host.stop)
        self.assertEqual([s["name"] for s in host.snapshots("v")], ["s0", "s1", "s2", "s3"])
        host.truth("v", "scsi0:0", self.out("s2"), "s2")
        host.truth("v", "scsi0:0", self.out("now"))
        for uid in (2, 4, 1, 3):
            host.ask("snapshot-remove", vm="v", id=uid)
        host.truth("v", "scsi0:0", self.out("again"), "3")
        self.assertTrue(same(self.out("s2"), self.out("again")))
        host.truth("v", "scsi0:0", self.out("again"))
        self.assertTrue(same(self.out("now"), self.out("again")))
        self.assertEqual(host.leftovers()["files"], [])

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
    main()
