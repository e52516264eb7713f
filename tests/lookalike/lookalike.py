#!/usr/bin/env python3
"""The stand-in for an ESXi host: start it, change it, ask it.  See README.md.

As a module:

    from lookalike import Lookalike
    with Lookalike.start(profile="8.0") as host:
        host.add_vm({"name": "web", "disks": [{"size": "64m"}], "power": "on"})
        ... host.port, host.password_file, host.known_hosts ...
        host.truth("web", "scsi0:0", "/tmp/truth.raw", snapshot="last")

As a program: python3 lookalike.py --help
"""

import argparse
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from hostd import knobs as knob_module  # noqa: E402
from hostd import root as root_module  # noqa: E402
from hostd.sshserver import SshServer  # noqa: E402

PROGRAMS = ("lookalike-shim", "lookalike-init", "lookalike-login", "lookalike-pam.so")


class LookalikeError(Exception):
    pass


def find_programs(folder=None):
    """The folder of the C programs: given, $LOOKALIKE_BIN, or bin/ of a build folder."""
    top = os.path.dirname(os.path.dirname(HERE))
    places = [folder or os.environ.get("LOOKALIKE_BIN"), os.path.join(top, "build/bin")]
    for place in filter(None, places):
        if all(os.access(os.path.join(place, p), os.X_OK) for p in PROGRAMS):
            return os.path.abspath(place)
    raise LookalikeError("%s not found in %s: build them, or set LOOKALIKE_BIN"
                         % (", ".join(PROGRAMS), " or ".join(p for p in places if p)))


def free_port(address):
    """Below the range from which the kernel takes ports for outgoing connections: none of those
    can snatch it before sshd listens, or while a stopped look-alike waits to be started again."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(200):
        port = 20000 + secrets.randbelow(11000)
        with socket.socket(family, socket.SOCK_STREAM) as s:
            try:
                s.bind((address, port))
                return port
            except OSError:
                continue
    raise LookalikeError("no free port at %s" % address)


def belongs(pid, folder):
    """Is it a session's process, or process 1 of the sessions, of this look-alike?"""
    try:
        if os.readlink("/proc/%s/root" % pid) == os.path.join(folder, "root"):
            return True
        with open("/proc/%s/cmdline" % pid, "rb") as f:
            words = f.read().split(b"\0")
    except OSError:
        return False
    return words[0].endswith(b"/lookalike-init") and os.fsencode(folder) in words


class Lookalike:
    """A running look-alike, or the folder of one."""

    def __init__(self, folder):
        self.dir = os.path.realpath(folder)
        self.temporary = False
        try:
            with open(os.path.join(self.dir, "config.json"), encoding="utf-8") as f:
                self.config = json.load(f)
        except FileNotFoundError:
            raise LookalikeError("%s is no folder of a look-alike" % self.dir) from None

    # life

    @classmethod
    def start(cls, folder=None, profile="6.7", knobs=None, address="127.0.0.1", port=0,
              password=None, datastores=None, programs=None, public_key=None):
        """Start one; without folder in a temporary one that stop() removes.

        datastores: a list of dicts name, kind, size, tmpfs; default one VMFS `datastore1`.
        An existing folder is started again as it was left.
        """
        temporary = folder is None
        if temporary:
            folder = tempfile.mkdtemp(prefix="lookalike-")
        folder = os.path.realpath(folder)
        if not os.path.exists(os.path.join(folder, "config.json")):
            try:
                cls._create(folder, profile, knobs or {}, address, port, password, programs)
            except BaseException:
                if temporary:
                    shutil.rmtree(folder)
                raise
            fresh = True
        else:
            fresh = False
        self = cls(folder)
        self.temporary = temporary
        try:
            self._run()
            if fresh:
                kind = "VMFS-6" if profile == "8.0" else "VMFS-5"
                for d in datastores or [{"name": "datastore1", "kind": kind}]:
                    self.ask("datastore-add", **d)
            if public_key:
                self.ask("authorize", key=public_key)
        except BaseException:
            self.stop()
            raise
        return self

    @staticmethod
    def _create(folder, profile, knobs, address, port, password, programs):
        if profile not in knob_module.PROFILES:
            raise LookalikeError("no profile %s; there are %s"
                                 % (profile, ", ".join(knob_module.PROFILES)))
        if any(c.isspace() for c in folder) or folder.startswith("/run/"):
            raise LookalikeError("%s: not below /run, and without blanks, please" % folder)
        knob_module.Knobs(profile, knobs)       # complains about what it does not know
        os.makedirs(folder, exist_ok=True)
        if os.listdir(folder):
            raise LookalikeError("%s is not empty and no look-alike" % folder)
        os.chmod(folder, 0o755)
        for name in ("root", "run", "log", "truth", "etc"):
            os.mkdir(os.path.join(folder, name))
        config = {"profile": profile, "address": address, "port": port or free_port(address),
                  "knobs": knobs, "bin": find_programs(programs)}
        root_module.build(os.path.join(folder, "root"), profile,
                          os.path.join(config["bin"], "lookalike-shim"))
        password = password or secrets.token_urlsafe(12)
        ssh = SshServer(folder, profile, address, config["port"],
                        os.path.join(config["bin"], "lookalike-login"))
        ssh.prepare(password)
        for name, text in (("password", password + "\n"), ("known_hosts", ssh.known_hosts())):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                f.write(text)
        os.chmod(os.path.join(folder, "password"), 0o600)
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
            json.dump(config, f, indent=1)

    def _run(self):
        if self.pid() is not None:
            raise LookalikeError("%s runs already" % self.dir)
        ready = os.path.join(self.dir, "run/ready")
        if os.path.exists(ready):
            os.unlink(ready)
        with open(os.path.join(self.dir, "log/daemon.log"), "ab") as log:
            daemon = subprocess.Popen([sys.executable, "-m", "hostd.server", self.dir], cwd=HERE,
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                      start_new_session=True)
        self.daemon = daemon
        with open(os.path.join(self.dir, "run/pid"), "w", encoding="ascii") as f:
            f.write("%d\n" % daemon.pid)
        deadline = time.monotonic() + 20
        while not (os.path.exists(ready) and self._accepts()):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise LookalikeError("it does not start; see %s/log:\n%s%s" % (
                    self.dir, self._tail("daemon.log"), self._tail("sshd.log")))
            time.sleep(0.02)

    def _tail(self, name):
        try:
            with open(os.path.join(self.dir, "log", name), encoding="utf-8",
                      errors="replace") as f:
                return f.read()[-2000:]
        except FileNotFoundError:
            return ""

    def _accepts(self):
        try:
            with socket.create_connection((self.address, self.port), 1) as s:
                s.settimeout(2)
                return s.recv(4) == b"SSH-"
        except OSError:
            return False

    def pid(self):
        """The daemon's pid, or None when it does not run."""
        try:
            with open(os.path.join(self.dir, "run/pid"), encoding="ascii") as f:
                pid = int(f.read())
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                words = f.read().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if b"hostd.server" in words and os.fsencode(self.dir) in words else None

    def stop(self):
        """End every process of it.  Works on the folder of one that was killed, too."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            self._wait_end(pid, 10)
        if getattr(self, "daemon", None) is not None:
            self.daemon.wait(10)
        # With the daemon ends process 1 of the sessions, and with that, by the kernel's hand, all
        # of them; make sure, before files go.
        deadline = time.monotonic() + 5
        while True:
            left = [p for p in os.listdir("/proc") if p.isdigit() and belongs(p, self.dir)]
            if not left:
                break
            if time.monotonic() > deadline:
                raise LookalikeError("processes are left: %s" % " ".join(left))
            for p in left:
                try:
                    os.kill(int(p), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)
        if self.temporary:
            shutil.rmtree(self.dir)

    def _wait_end(self, pid, seconds):
        deadline = time.monotonic() + seconds
        while self.pid() == pid:
            daemon = getattr(self, "daemon", None)
            if daemon is not None and daemon.poll() is not None:
                return
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                deadline += 5
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # facts

    address = property(lambda self: self.config["address"])
    port = property(lambda self: self.config["port"])
    ssh_port = port
    profile = property(lambda self: self.config["profile"])
    root = property(lambda self: os.path.join(self.dir, "root"))
    known_hosts = property(lambda self: os.path.join(self.dir, "known_hosts"))
    password_file = property(lambda self: os.path.join(self.dir, "password"))

    @property
    def password(self):
        with open(self.password_file, encoding="utf-8") as f:
            return f.read().rstrip("\n")

    def facts(self):
        return {"dir": self.dir, "address": self.address, "port": self.port, "user": "root",
                "profile": self.profile, "password_file": self.password_file,
                "known_hosts": self.known_hosts, "pid": self.pid(), "root": self.root}

    def path(self, name):
        """A file of the host as the machine sees it, also one on a tmpfs datastore or in /tmp."""
        return "/proc/%d/root%s%s" % (self.pid(), self.root, name)

    # requests; hostd/control.py says what each takes

    def ask(self, do, **fields):
        place = os.path.join(self.dir, "run")
        link = None
        try:
            if len(place) > 80:         # too long for a socket's name
                link = tempfile.mkdtemp(prefix="la-")
                os.symlink(place, os.path.join(link, "r"))
                place = os.path.join(link, "r")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
                try:
                    s.connect(os.path.join(place, "control.sock"))
                except OSError as e:
                    raise LookalikeError("%s does not run: %s" % (self.dir, e)) from None
                s.sendall(json.dumps(dict(fields, do=do)).encode() + b"\n")
                data = b""
                while not data.endswith(b"\n"):
                    part = s.recv(1 << 20)
                    if not part:
                        raise LookalikeError("no answer to %s:\n%s" % (
                            do, self._tail("errors.log")))
                    data += part
        finally:
            if link:
                shutil.rmtree(link)
        answer = json.loads(data)
        if not answer["ok"]:
            raise LookalikeError(answer["error"])
        return answer["result"]

    def add_datastore(self, name, **fields):
        return self.ask("datastore-add", name=name, **fields)

    def add_vm(self, spec):
        """spec: see README.md, "A VM".  {"vmid", "vmx"}."""
        return self.ask("vm-add", spec=spec)

    def power(self, vm, state):
        self.ask("power", vm=vm, state=state)

    def knob(self, name, value):
        self.ask("knob", name=name, value=str(value))

    def state(self):
        return self.ask("state")

    def vm(self, name):
        return next(v for v in self.state()["vms"] if name in (v["name"], v["vmid"]))

    def snapshots(self, vm):
        return self.ask("snapshots", vm=vm)

    def leftovers(self):
        return self.ask("leftovers")

    def truth(self, vm, slot, out, snapshot=None):
        self.ask("truth", vm=vm, slot=slot, out=os.path.abspath(out), snapshot=snapshot)

    def reboot(self, **fields):
        self.ask("reboot", **fields)
        deadline = time.monotonic() + 20
        while not self._accepts():
            if time.monotonic() > deadline:
                raise LookalikeError("sshd does not come back")
            time.sleep(0.02)

    def calls(self, name=None):
        """Every command that sessions ran so far: dicts with name, argv, cwd, pid, status."""
        path = os.path.join(self.dir, "log/calls.jsonl")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as f:
            rows = [json.loads(line) for line in f if line.endswith("\n")]
        return [r for r in rows if name is None or r["name"] == name]

    def _log_lines(self, name, count):
        path = os.path.join(self.dir, "log", name)
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8", errors="replace") as f:
            return [line.rstrip("\n").split(" ", count) for line in f if line[:1].isdigit()]

    def sessions(self):
        """The command lines of all sessions so far."""
        return [r[2] for r in self._log_lines("sessions.log", 2)]

    def executed(self):
        """(run|refused, path) of every program from outside the installed folders."""
        return [(r[2], r[3]) for r in self._log_lines("exec.log", 3)]

    def defects(self):
        """What went wrong in the look-alike itself; a test may assert that it is empty."""
        return self._tail("errors.log")


# the command line

def show(value):
    if value is not None:
        print(json.dumps(value, indent=1))


def cmd_start(a):
    host = Lookalike.start(
        a.dir, a.profile, dict(k.split("=", 1) for k in a.knob), a.address, a.port,
        datastores=[json.loads(d) if d.startswith("{") else {"name": d} for d in a.datastore],
        programs=a.bin, public_key=open(a.key, encoding="ascii").read() if a.key else None)
    for key, value in host.facts().items():
        print("%s=%s" % (key, shlex.quote(str(value))))


def cmd_stop(a):
    Lookalike(a.dir).stop()


def value_of(text):
    """A field's value: JSON where it is JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def cmd_ask(a):
    show(Lookalike(a.dir).ask(a.request, **{k: value_of(v) for k, v in (
        f.split("=", 1) for f in a.field)}))


def simple(request, *names):
    def run(a):
        show(Lookalike(a.dir).ask(request, **{
            n: getattr(a, n) for n in names if getattr(a, n) is not None}))
    return run


def cmd_vm_add(a):
    text = sys.stdin.read() if a.spec == "-" else a.spec
    show(Lookalike(a.dir).add_vm(json.loads(text)))


def cmd_truth(a):
    Lookalike(a.dir).truth(a.vm, a.slot, a.out, a.snapshot)


def cmd_write_image(a):
    show(Lookalike(a.dir).ask("guest-write-image", vm=a.vm, slot=a.slot,
                              path=os.path.abspath(a.path)))


def cmd_calls(a):
    for row in Lookalike(a.dir).calls():
        print(json.dumps(row))


def cmd_knobs(a):
    values = Lookalike(a.dir).ask("knobs") if a.dir else {}
    for name, (default, meaning) in knob_module.KNOBS.items():
        value = values.get(name, default)
        print("%-24s %s\n%26s%s" % (name, json.dumps(value), "", meaning))


def cmd_info(a):
    show(Lookalike(a.dir).facts())


def build_parser():
    p = argparse.ArgumentParser(description="a stand-in for an ESXi host")
    sub = p.add_subparsers(dest="command", required=True)

    def command(name, function, text, *arguments):
        c = sub.add_parser(name, help=text)
        c.add_argument("--dir", required=name != "knobs", help="the folder of the look-alike")
        for flags, options in arguments:
            c.add_argument(flags, **options)
        c.set_defaults(run=function)

    vm, slot = ("vm", {}), ("slot", {})
    command("start", cmd_start, "make and start one, or start an old one again",
            ("--profile", {"default": "6.7", "choices": sorted(knob_module.PROFILES)}),
            ("--knob", {"action": "append", "default": [], "metavar": "NAME=VALUE"}),
            ("--address", {"default": "127.0.0.1"}), ("--port", {"type": int, "default": 0}),
            ("--datastore", {"action": "append", "default": [], "metavar": "NAME or JSON"}),
            ("--key", {"help": "a public key for root"}), ("--bin", {}))
    command("stop", cmd_stop, "end all its processes; the folder stays")
    command("info", cmd_info, "port, password file and so on")
    command("state", simple("state"), "VMs, datastores, locks")
    command("vm-add", cmd_vm_add, "make a VM from JSON, - for stdin", ("spec", {}))
    command("power", simple("power", "vm", "state"), "on, off or suspend", ("state", {
        "choices": ("on", "off", "suspend")}), vm)
    command("snapshots", simple("snapshots", "vm"), "the snapshot tree", vm)
    command("knob", simple("knob", "name", "value"), "turn a knob", ("name", {}), ("value", {}))
    command("knobs", cmd_knobs, "all knobs: values (defaults without --dir) and meanings")
    command("truth", cmd_truth, "what a disk held at a snapshot (or holds now), as a raw file",
            vm, slot, ("out", {}), ("--snapshot", {"help": "id, name or last"}))
    command("guest-write-image", cmd_write_image, "make a disk equal to a raw file", vm, slot,
            ("path", {}))
    command("guest-start", simple("guest-start", "vm", "rate"), "the guest writes from now on", vm,
            ("--rate", {"type": float}))
    command("guest-stop", simple("guest-stop", "vm"), "and no more", vm)
    command("reboot", simple("reboot"), "as after a power cut")
    command("leftovers", simple("leftovers"), "what belongs to no VM")
    command("calls", cmd_calls, "the log of commands, JSON lines")
    command("ask", cmd_ask, "any request of hostd/control.py", ("request", {}),
            ("field", {"nargs": "*", "metavar": "NAME=VALUE"}))
    return p


def main():
    a = build_parser().parse_args()
    try:
        a.run(a)
    except LookalikeError as e:
        print("lookalike: %s" % e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
