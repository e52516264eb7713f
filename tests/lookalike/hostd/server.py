"""The daemon of one look-alike: python3 -m hostd.server DIR, started by lookalike.py."""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback

from . import isolate, root as root_module, tools
from .control import Control
from .esxcli import Esxcli
from .events import Events
from .host import Host
from .knobs import KnobError
from .machine import Fault
from .sshserver import SshServer
from .vimcmd import VimCmd
from .vmkfstools import Vmkfstools

STDOUT, STDERR, EXIT, SIGNAL = 1, 2, 3, 4


class Gone(Exception):
    """The process that called has ended."""


class Call:
    """One command that a session runs: what shim.c sent, and the way back to it."""

    def __init__(self, connection):
        self.connection = connection
        count = struct.unpack("<I", self.take(4))[0]
        words = []
        for _ in range(min(count, 4096)):
            length = struct.unpack("<I", self.take(4))[0]
            words.append(self.take(length).decode("utf-8", "surrogateescape"))
        self.cwd = words[0]
        self.pid = int(words[1])
        self.argv = words[2:]
        self.status = 0
        self.ended_by = 0

    def take(self, count):
        data = b""
        while len(data) < count:
            part = self.connection.recv(count - len(data))
            if not part:
                raise Gone()
            data += part
        return data

    def frame(self, kind, data):
        try:
            self.connection.sendall(struct.pack("<BI", kind, len(data)) + data)
        except OSError:
            pass        # the process has gone: what it started goes on without it

    def out(self, text):
        self.frame(STDOUT, text.encode("utf-8", "surrogateescape"))

    def err(self, text):
        self.frame(STDERR, text.encode("utf-8", "surrogateescape"))

    def die(self, number):
        """The command ends by a signal."""
        self.ended_by = number
        return 128 + number

    def gone(self):
        ready, _, _ = select.select([self.connection], [], [], 0)
        return bool(ready)

    def wait_gone(self, seconds):
        select.select([self.connection], [], [], seconds)

    def finish(self, status):
        if self.ended_by:
            self.frame(SIGNAL, struct.pack("<i", self.ended_by))
        else:
            self.frame(EXIT, struct.pack("<i", status & 255))


class Server:
    def __init__(self, folder):
        self.folder = folder
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
            self.config = json.load(f)
        self.host = Host(folder, self.config)
        self.ssh = SshServer(folder, self.config["profile"], self.config["address"],
                             self.config["port"], os.path.join(self.config["bin"],
                                                               "lookalike-login"))
        self.init = None
        self.connection_limit = 0
        self.limit_lock = threading.Lock()
        self.stopping = threading.Event()
        self.vim_cmd = VimCmd(self.host)
        self.vmkfstools = Vmkfstools(self.host)
        self.esxcli = Esxcli(self.host)
        self.control = Control(self)
        self.events = Events(self.control.run)

    # start and end

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def start(self):
        isolate.enter()
        isolate.set_hostname("localhost")
        os.makedirs(self.path("run/faillock"), exist_ok=True)
        os.makedirs(self.path("run/proc"), exist_ok=True)
        os.makedirs(self.path("log"), exist_ok=True)
        old = self.host.load()
        self.mount()
        if not old:
            self.host.baseline = root_module.listing(self.host.root, ("dev", "proc", "var/run"))
            self.host.save()
        self.host.restart_ssh = self.reload_ssh
        self.host.open_blackholes()
        self.host.publish_policy()
        if self.host.knobs.on("tmp-full"):
            self.host.fill_tmp(True)
        self.write_texts()
        self.ssh.write_config(self.host.knobs)
        self.ssh.mount()
        self.listen("root/var/run/hostd.sock", self.serve_call)
        self.listen("run/control.sock", self.serve_control)
        self.start_init()

    def mount(self):
        isolate.mount_devices(self.path("root/dev"))
        self.mount_tmp()
        for d in self.host.datastores:
            if d.record.get("tmpfs"):
                self.mount_datastore(d)

    def mount_tmp(self):
        isolate.mount("tmpfs", self.path("root/tmp"), "tmpfs", 0,
                      "size=256m,nr_inodes=8192,mode=1777")

    def mount_datastore(self, d):
        isolate.mount("tmpfs", self.host.root + d.path, "tmpfs", 0,
                      "size=%d,mode=755" % d.size)

    def write_texts(self):
        for knob, place in (("motd", "root/etc/motd"), ("profile-noise", "run/noise")):
            with open(self.path(place), "w", encoding="utf-8") as f:
                text = self.host.knobs[knob]
                f.write(text + "\n" if text else "")

    def start_init(self):
        """Process 1 of the sessions' name space, and sshd in it."""
        program = os.path.join(self.config["bin"], "lookalike-init")
        with open(self.path("log/init.log"), "ab") as log:
            self.init = subprocess.Popen([program, self.folder] + self.ssh.command(),
                                         stdin=subprocess.PIPE, stdout=log, stderr=log,
                                         cwd="/", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})

    def end_init(self):
        if self.init is None:
            return
        self.init.stdin.close()
        try:
            self.init.wait(5)
        except subprocess.TimeoutExpired:
            self.init.kill()
            self.init.wait()
        self.init = None
        try:
            isolate.unmount(self.path("run/proc"))
        except OSError:
            pass

    def ssh_pid(self):
        """sshd's listening process, as the sessions' name space numbers it."""
        for name in os.listdir(self.path("run/proc")):
            if not name.isdigit():
                continue
            try:
                with open(self.path("run/proc", name, "stat"), encoding="ascii") as f:
                    fields = f.read().rsplit(")", 1)
                if "(sshd" in fields[0] and fields[1].split()[1] == "1":
                    with open(self.path("run/proc", name, "cmdline"), "rb") as f:
                        if b"listener" in f.read():
                            return int(name)
            except OSError:
                continue
        return None

    def outer_pid(self, inner):
        """The daemon's number of a process that the sessions call `inner`."""
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open("/proc/%s/status" % name, encoding="ascii", errors="replace") as f:
                    for line in f:
                        if line.startswith("NSpid:"):
                            pids = line.split()[1:]
                            break
                    else:
                        continue
                if len(pids) > 1 and pids[-1] == str(inner) and \
                        os.stat("/proc/%s/ns/pid" % name).st_ino == self.inner_pid_ns():
                    return int(name)
            except OSError:
                continue
        return None

    def inner_pid_ns(self):
        return os.stat(self.path("run/proc/1/ns/pid")).st_ino

    def kill(self, inner, number=signal.SIGKILL):
        pid = self.outer_pid(inner)
        if pid is not None:
            os.kill(pid, number)

    def reload_ssh(self, port=None):
        """Connections made from now on meet the new settings, when sshd listens again."""
        self.ssh.write_config(self.host.knobs, port)
        pid = self.ssh_pid()
        if pid is None:
            return
        listening = self.listening_count()
        self.kill(pid, signal.SIGHUP)
        deadline = time.monotonic() + 5
        while self.listening_count() == listening and time.monotonic() < deadline:
            time.sleep(0.005)

    def listening_count(self):
        return self.log_count(b"Server listening on")

    def log_count(self, text):
        with open(self.path("log/sshd.log"), "rb") as f:
            return f.read().count(text)

    def limit_connections(self, value):
        """sshd is gone after so many more connections; an empty value brings it back.

        With 0 it is gone when this returns."""
        with self.limit_lock:
            self.connection_limit += 1
            turn = self.connection_limit
            if not value:
                self.reload_ssh()
                return
        wanted = self.log_count(b"Connection from") + int(value)
        if int(value) == 0:
            self.hide_ssh(turn)
            return
        threading.Thread(target=self.watch_connections, daemon=True, args=(turn, wanted)).start()

    def watch_connections(self, turn, wanted):
        while self.log_count(b"Connection from") < wanted:
            time.sleep(0.005)
            if self.connection_limit != turn:
                return
        self.hide_ssh(turn)

    def hide_ssh(self, turn):
        """The listener moves to a port that nobody knows: the old one refuses."""
        with socket.socket() as s:
            s.bind((self.config["address"], 0))
            port = s.getsockname()[1]
        with self.limit_lock:       # or it would take away what was just brought back
            if self.connection_limit == turn:
                self.reload_ssh(port)

    def ssh_sessions(self):
        """The sshd processes of connections, as the sessions' name space numbers them."""
        listener = self.ssh_pid()
        out = []
        for name in os.listdir(self.path("run/proc")):
            if not name.isdigit() or int(name) == listener:
                continue
            try:
                with open(self.path("run/proc", name, "comm"), encoding="ascii") as f:
                    if f.read().strip() == "sshd":
                        out.append(int(name))
            except OSError:
                continue
        return out

    def kill_sessions(self):
        victims = self.ssh_sessions()
        for pid in victims:
            self.kill(pid)
        return len(victims)

    def bytes_moved(self):
        total = 0
        for pid in self.ssh_sessions():
            try:
                with open(self.path("run/proc", str(pid), "io"), encoding="ascii") as f:
                    total += sum(int(line.split()[1]) for line in f
                                 if line.startswith(("rchar", "wchar")))
            except OSError:
                continue
        return total

    def cut_after(self, count):
        wanted = self.bytes_moved() + count

        def watch():
            while self.bytes_moved() < wanted:
                time.sleep(0.002)
            self.kill_sessions()
        threading.Thread(target=watch, daemon=True).start()

    def run(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stopping.set())
        with open(self.path("run/ready"), "w", encoding="ascii") as f:
            f.write("%d\n" % os.getpid())
        while not self.stopping.wait(0.5):
            if self.init is not None and self.init.poll() is not None:
                with open(self.path("log/init.log"), "a", encoding="utf-8") as f:
                    f.write("sshd has ended; starting it again\n")
                self.end_init_mounts()
                time.sleep(0.5)
                self.start_init()
        for m in self.host.machines.values():
            if m.guest is not None:
                m.guest.stop()
        self.host.save()
        self.end_init()

    def end_init_mounts(self):
        try:
            isolate.unmount(self.path("run/proc"))
        except OSError:
            pass

    # sockets

    def listen(self, place, serve):
        path = self.path(place)
        if os.path.lexists(path):
            os.unlink(path)
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        here = os.getcwd()
        os.chdir(os.path.dirname(path))     # the whole path may be too long for a socket's name
        s.bind(os.path.basename(path))
        os.chdir(here)
        s.listen(64)

        def loop():
            while True:
                connection, _ = s.accept()
                threading.Thread(target=self.guard, args=(serve, connection), daemon=True).start()
        threading.Thread(target=loop, daemon=True).start()

    def guard(self, serve, connection):
        with connection:
            try:
                serve(connection)
            except Gone:
                pass
            except Exception:       # one bad request must not end the daemon; it is a defect
                with open(self.path("log/errors.log"), "a", encoding="utf-8") as f:
                    traceback.print_exc(file=f)

    def serve_call(self, connection):
        call = Call(connection)
        name = os.path.basename(call.argv[0])
        kind = "esxcli" if name == "localcli" else name
        started = time.time()
        entry = {"time": started, "pid": call.pid, "name": name, "argv": call.argv,
                 "cwd": call.cwd}
        delay = self.host.knobs.delay_of(kind)
        if delay:
            time.sleep(delay)
        self.events.happen(call.argv, "before")
        try:
            status = self.dispatch(kind, call)
        except Exception as e:
            call.err("look-alike: %s: %r\n" % (name, e))
            status = 70
            entry["defect"] = repr(e)
            with open(self.path("log/errors.log"), "a", encoding="utf-8") as f:
                traceback.print_exc(file=f)
        self.events.happen(call.argv, "after")
        entry.update(status=status, seconds=round(time.time() - started, 4))
        # Logged before the answer: a test that has seen the answer finds the entry.
        self.host.record_call(entry)
        call.finish(status)

    def dispatch(self, kind, call):
        if kind == "vim-cmd":
            return self.vim_cmd.run(call)
        if kind == "vmkfstools":
            return self.vmkfstools.run(call)
        if kind == "esxcli":
            return self.esxcli.run(call)
        return tools.COMMANDS[kind](self.host, call)

    def serve_control(self, connection):
        data = b""
        while not data.endswith(b"\n"):
            part = connection.recv(65536)
            if not part:
                raise Gone()
            data += part
        try:
            request = json.loads(data)
            answer = {"ok": True, "result": self.control.run(request)}
        except (KeyError, ValueError, OSError, KnobError) as e:
            text = e.args[0] if isinstance(e, KeyError) else str(e)
            answer = {"ok": False, "error": str(text)}
        except Fault as e:
            answer = {"ok": False, "error": e.message}
        connection.sendall(json.dumps(answer).encode() + b"\n")


def main():
    server = Server(os.path.realpath(sys.argv[1]))
    server.start()
    server.run()


if __name__ == "__main__":
    main()
