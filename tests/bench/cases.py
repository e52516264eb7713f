"""What is measured: vmferry against the look-alike, and the tools that do a part of the same."""

import os
import shutil
import socket
import subprocess
import sys
import time

import disk
import measure

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TOP, "tests/lookalike"))

from lookalike import Lookalike  # noqa: E402

VM = "bench"
DEFAULT_BLOCK = 64


class Mirror:
    """One way to run vmferry: carrier, protection, compression, block size."""

    def __init__(self, carrier="tcp", security="encrypt", compress="none", block=DEFAULT_BLOCK):
        self.carrier, self.security = carrier, security
        self.compress, self.block = compress, block
        self.name = "%s %s %s %dk" % (carrier, security, compress, block)

    def options(self):
        words = ["--compress", self.compress, "--data-security", self.security]
        if self.block != DEFAULT_BLOCK:
            words += ["--block-size", "%dk" % self.block]
        return words + ["--data-channel", "tcp" if self.carrier == "tcp" else "ssh"]


BAR_MIRRORS = [Mirror(compress="none"), Mirror(compress="1")]
WAY_MIRRORS = [Mirror(security=s, compress=c) for s in ("encrypt", "auth")
               for c in ("none", "1", "auto") if s == "auth" or c == "auto"]
WAY_MIRRORS += [Mirror("ssh", compress=c) for c in ("none", "1", "auto")]
WAY_MIRRORS += [Mirror("ssh-dd", compress="none")]
BLOCK_MIRRORS = [Mirror(compress=c, block=b) for b in (16, 32, 128, 256, 512, 1024)
                 for c in ("none", "1")]


class Host:
    """A look-alike whose VM has the disk, on tmpfs."""

    def __init__(self, folder, profile, cache, programs, other=None):
        """With another host given, its disk is this one's too: tmpfs has no room for two."""
        self.folder, self.programs = folder, programs
        self.group = measure.Group("host-" + profile)
        self.group.enter()      # all that the look-alike starts is counted in there
        try:
            self.host = Lookalike.start(folder=folder, profile=profile, programs=programs)
        finally:
            self.group.leave()
        content = {"kind": "empty"} if other else {"file": os.path.join(cache, "old.raw")}
        self.host.add_vm({"name": VM, "power": "on", "disks": [
            {"size": os.path.getsize(os.path.join(cache, "old.raw")), "content": content}]})
        if other is not None:
            os.unlink(self._flat_path())
            os.link(other.versions.path, self.flat)
        self.versions = other.versions if other else disk.Versions(cache, self._flat_path())

    def _flat_path(self):
        for place, _, names in os.walk(os.path.join(self.folder, "root/vmfs/volumes")):
            for name in names:
                if name.endswith("-flat.vmdk"):
                    self.flat = os.path.realpath(os.path.join(place, name))
                    return self.flat
        raise SystemExit("bench: the look-alike made no disk")

    def mirror(self, mirror, folder, state):
        command = [os.path.join(self.programs, "vmferry"), "--state-dir", state,
                   "--known-hosts", self.host.known_hosts,
                   "--password-file", self.host.password_file, "mirror", "--json",
                   "--min-free", "1G", "--data-listen", "127.0.0.1",
                   "%s:%d" % (self.host.address, self.host.port), VM, folder] + mirror.options()
        result = measure.run(command, self.group)
        vm = result["summary"]["vms"][0]
        row = vm["disks"][0]
        if vm["outcome"] != "ok" or (vm["data_channel"] != ("tcp" if mirror.carrier == "tcp"
                                                            else "ssh")):
            raise measure.Failed("%s: %s over %s" % (mirror.name, vm["outcome"],
                                                     vm["data_channel"]))
        if (row["read_path"] == "ssh-dd") != (mirror.carrier == "ssh-dd"):
            raise measure.Failed("%s: the disk was read by %s" % (mirror.name, row["read_path"]))
        steps = dict(result.pop("steps"))
        result.update(stream=row["seconds"], sent=row["sent"], changed=row["changed"],
                      read=row["read"], before=steps["starting the transfer"],
                      committing=steps["committing"], steps=steps, summary=None)
        return result

    def image(self, folder):
        return os.path.join(folder, VM, "disk-scsi0-0.raw")

    def stop(self):
        self.host.stop()
        self.group.remove()


def same(a, b):
    return subprocess.run(["cmp", "-s", a, b], check=False).returncode == 0


# ---- other tools ----

def wait_port(port, process):
    for _ in range(250):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.02)
    raise SystemExit("bench: nothing listens on port %d" % port)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Service:
    """A server of a tool, counted like the host's side."""

    def __init__(self, name, command):
        self.group = measure.Group(name)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        preexec_fn=self.group.enter)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.group.remove()


class Tools:
    """rsync, nbdkit with its clients, cp, tar: those that are installed."""

    CIPHER = "aes128-gcm@openssh.com"   # the fastest of OpenSSH here: the bars shall be hard

    def __init__(self, work, source):
        self.work, self.source = work, source
        self.services, self.missing = [], {}
        self.target = os.path.join(work, "copy.raw")
        self.ports = {n: free_port() for n in ("ssh", "rsync", "nbd")}
        self._sshd()
        if self.has("rsync"):
            self._rsyncd()
        if self.has("nbdkit"):
            self._start("nbd", ["nbdkit", "-f", "-i", "127.0.0.1", "-p", str(self.ports["nbd"]),
                                "-r", "file", source])

    def has(self, *programs):
        lost = [p for p in programs if shutil.which(p) is None]
        for p in lost:
            if p not in self.missing:
                self.missing[p] = "%s is not installed: what needs it is left out" % p
                print(self.missing[p])
        return not lost

    def _start(self, name, command):
        service = Service(name, command)
        self.services.append(service)
        setattr(self, name, service)
        wait_port(self.ports[name], service.process)

    def _sshd(self):
        os.makedirs("/run/sshd", exist_ok=True)
        path = os.path.join(self.work, "ssh")
        os.makedirs(path)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                            os.path.join(path, name)], check=True)
        with open(os.path.join(path, "config"), "w", encoding="ascii") as f:
            f.write("Port %d\nListenAddress 127.0.0.1\nHostKey %s/host\nPidFile none\n"
                    "AuthorizedKeysFile %s/user.pub\nStrictModes no\nUsePAM no\n"
                    "PermitRootLogin yes\nPasswordAuthentication no\n"
                    % (self.ports["ssh"], path, path))
        self._start("ssh", [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-f",
                            os.path.join(path, "config")])
        self.ssh_words = ("ssh -p %d -i %s/user -c %s -o StrictHostKeyChecking=no -o "
                          "UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
                          % (self.ports["ssh"], path, self.CIPHER))

    def _rsyncd(self):
        path = os.path.join(self.work, "rsyncd.conf")
        with open(path, "w", encoding="ascii") as f:
            f.write("use chroot = no\nuid = 0\ngid = 0\n[disk]\npath = %s\nread only = yes\n"
                    % os.path.dirname(self.source))
        self._start("rsync", ["rsync", "--daemon", "--no-detach", "--config", path,
                              "--address", "127.0.0.1", "--port", str(self.ports["rsync"])])

    def rsync_forms(self):
        if not self.has("rsync"):
            return {}
        daemon = ["rsync://127.0.0.1:%d/disk/%s" % (self.ports["rsync"],
                                                    os.path.basename(self.source)), self.target]
        plain = ["rsync", "--inplace", "--times"]
        return {
            "rsync daemon": (plain + daemon, "rsync"),
            "rsync daemon 64k zstd": (plain + ["--block-size=65536", "--compress",
                                               "--compress-choice=zstd", "--compress-level=1"]
                                      + daemon, "rsync"),
            "rsync ssh": (plain + ["-e", self.ssh_words,
                                   "root@127.0.0.1:" + self.source, self.target], "ssh"),
        }

    def first_forms(self):
        """Ways to copy the whole disk."""
        url, out = "nbd://127.0.0.1:%d" % self.ports["nbd"], self.target
        forms = {"cp --sparse=always": (["cp", "--sparse=always", self.source, out], None)}
        if self.has("nbdkit", "nbdcopy"):
            forms["nbdcopy"] = (["nbdcopy", url, out], "nbd")
        if self.has("nbdkit", "qemu-img"):
            forms["qemu-img convert"] = (["qemu-img", "convert", "-f", "raw", "-O", "raw", url,
                                          out], "nbd")
        if self.has("tar", "zstd"):
            folder, name = os.path.split(self.source)
            forms["tar -S | zstd -1 | ssh"] = (
                "set -o pipefail; %s root@127.0.0.1 'tar -C %s -S -cf - %s | zstd -q -1' | "
                "zstd -q -d | tar -C %s -S -xf - --transform 's/.*/copy.raw/'"
                % (self.ssh_words, folder, name, self.work), "ssh")
        return forms

    def run(self, form):
        command, service = form
        group = getattr(self, service).group if service else None
        return measure.run(command, group, shell=isinstance(command, str))

    def clear(self):
        if os.path.exists(self.target):
            os.unlink(self.target)

    def stop(self):
        for service in self.services:
            service.stop()
