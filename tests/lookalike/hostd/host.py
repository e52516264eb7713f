"""The host: datastores, inventory, tasks, options, and the policy that sessions live under."""

import json
import os
import re
import secrets
import socket
import threading
import time
import uuid

from . import dictfile, knobs as knob_module, root as root_module
from .cowd import largest_file
from .knobs import OPEN_PORTS, Knobs, parse_ports
from .machine import Fault, Machine
from .vmfiles import clone_source, create_vm


class Task:
    def __init__(self, host, name, vmid):
        self.key = "haTask-%s-%s-%d" % (vmid if vmid is not None else "ha-host", name,
                                        secrets.randbelow(10 ** 9))
        self.name = name
        self.vmid = vmid
        self.state = "running"
        self.fault = None
        self.progress = 0
        self.queued = time.time()
        self.completed = None
        host.tasks.append(self)

    def finish(self, fault=None):
        self.fault = fault
        self.state = "error" if fault else "success"
        self.completed = time.time()


class Datastore:
    def __init__(self, record):
        self.record = record
        self.name = record["name"]
        self.uuid = record["uuid"]
        self.kind = record["type"]
        self.size = record["size"]

    @property
    def path(self):
        return "/vmfs/volumes/" + self.uuid


class Host:
    def __init__(self, folder, config):
        self.folder = folder
        self.root = os.path.join(folder, "root")
        dictfile.ROOT = self.root
        self.config = config
        self.profile = config["profile"]
        self.facts = knob_module.PROFILES[self.profile]
        self.knobs = Knobs(self.profile, config.get("knobs"))
        self.lock = threading.RLock()
        self.policy_lock = threading.Lock()
        self.calls_lock = threading.Lock()
        self.machines = {}
        self.datastores = []
        self.tasks = []
        self.owned = set()
        self.baseline = set()
        self.rdms = {}
        self.options = {}
        self.autostart = []
        self.next_vmid = 1
        self.invalid_lines = []
        self.boot_time = time.time()
        self.power_cut = threading.Event()  # set when the host goes down under a running task
        self.blackholes = {}
        self.state_path = os.path.join(folder, "state.json")
        self.restart_ssh = lambda: None     # set by the server
        self.reboot = lambda: None

    # paths

    def real(self, path, cwd="/"):
        """A path of the host as one of the machine."""
        return os.path.join(self.root, os.path.normpath(os.path.join(cwd, path)).lstrip("/"))

    def shown(self, real):
        return real[len(self.root):] if real.startswith(self.root) else real

    def datastore_of(self, real):
        real = os.path.realpath(real)
        for d in self.datastores:
            if (real + "/").startswith(self.root + d.path + "/"):
                return d
        return None

    def datastore(self, name):
        for d in self.datastores:
            if name in (d.name, d.uuid):
                return d
        raise KeyError("no datastore %s" % name)

    def bracket(self, real):
        """`[datastore] folder/file` of a path."""
        d = self.datastore_of(os.path.dirname(real))
        if d is None:
            return "[] " + self.shown(real)
        inside = os.path.join(os.path.realpath(os.path.dirname(real)), os.path.basename(real))
        return "[%s] %s" % (d.name, inside[len(self.root + d.path) + 1:])

    def unbracket(self, text):
        m = re.match(r"^\[([^\]]*)\] ?(.*)$", text)
        if not m:
            return self.real(text)
        return os.path.join(self.root + self.datastore(m.group(1)).path, m.group(2))

    # files that belong to VMs

    def own(self, path):
        self.owned.add(self.shown(os.path.realpath(path)))

    def write_own(self, path, data):
        with open(path, "wb") as f:
            f.write(data)
        os.chmod(path, 0o600)
        self.own(path)

    def delete_own(self, path):
        if os.path.lexists(path):
            os.unlink(path)
        self.owned.discard(self.shown(path))

    # datastores

    def add_datastore(self, name, kind="VMFS-6", size=1 << 40, path_uuid=None):
        if any(d.name == name for d in self.datastores):
            raise ValueError("there is a datastore %s" % name)
        if path_uuid is None:
            h = secrets.token_hex(16)
            path_uuid = ("%s-%s" % (h[:8], h[8:16]) if kind.startswith("NFS") else
                         "%s-%s-%s-%s" % (h[:8], h[8:16], h[16:20], h[20:32]))
        record = {"name": name, "uuid": path_uuid, "type": kind, "size": int(size)}
        d = Datastore(record)
        os.makedirs(self.root + d.path, exist_ok=True)
        link = os.path.join(self.root, "vmfs/volumes", name)
        os.symlink(path_uuid, link)
        self.datastores.append(d)
        self.save()
        return d

    def free_bytes(self, d):
        for part in filter(None, self.knobs["free-space"].split(",")):
            name, _, value = part.rpartition("=")
            if name == d.name:
                return int(value)
        st = os.statvfs(self.root + d.path)
        if d.record.get("tmpfs"):
            return st.f_bavail * st.f_frsize
        return max(0, min(d.size - self.used_bytes(d), st.f_bavail * st.f_frsize))

    def used_bytes(self, d):
        total = 0
        for folder, _, files in os.walk(self.root + d.path):
            for name in files:
                try:
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    pass
        return total

    def snapshot_kind(self, folder, capacity, wanted=None):
        """The extent type of a new delta in a folder: what the VM, its datastore or the knob wants,
        else what such a datastore has."""
        d = self.datastore_of(folder)
        wanted = wanted or (d is not None and d.record.get("deltas")) or self.knobs["deltas"]
        if wanted in ("vmfsSparse", "seSparse"):
            return {"vmfsSparse": "VMFSSPARSE", "seSparse": "SESPARSE"}[wanted]
        # A COWD file counts its sectors in 32 bits, and must stay below 2 TiB when full.
        if (d is not None and d.kind == "VMFS-6") or largest_file(capacity) >= 2 << 40:
            return "SESPARSE"
        return "VMFSSPARSE"

    # inventory

    def machine(self, key):
        """By vmid, name, or UUID."""
        with self.lock:
            text = str(key)
            if text.isdigit() and int(text) in self.machines:
                return self.machines[int(text)]
            for m in self.machines.values():
                if m.valid() and text in (m.name, m.record.get("instance_uuid")):
                    return m
        raise KeyError("no VM %s" % key)

    def require(self, text):
        """The machine of a vmid given to vim-cmd."""
        if not text.isdigit() or int(text) not in self.machines:
            raise Fault("vim.fault.NotFound", 'Unable to find a VM corresponding to "%s"' % text)
        return self.machines[int(text)]

    def add_vm(self, spec):
        with self.lock:
            vmid = int(spec.get("vmid") or self.next_vmid)
            if vmid in self.machines:
                raise ValueError("vmid %d is taken" % vmid)
            vmx = create_vm(self, spec)
            m = Machine(self, Machine.new_record(vmid, vmx))
            if spec.get("deltas"):
                m.record["deltas"] = spec["deltas"]
            self.machines[vmid] = m
            self.inherit_truth(m, spec)
            self.next_vmid = max(self.next_vmid, vmid + 1)
            m.write_vmsd()
            self.changed()
        if spec.get("power", "off") == "on":
            m.power_on()
        elif spec.get("power") == "suspended":
            m.power_on()
            m.power_off(suspend=True)
        return m

    def inherit_truth(self, m, spec):
        """What the disks of a new linked clone hold is known from the VM it was made of."""
        for n, disk in enumerate(spec.get("disks", ())):
            if disk.get("clone_of"):
                truth, _, label = clone_source(self, disk["clone_of"])
                slot = disk.get("slot") or "scsi0:%d" % n
                if not m.truth(slot).inherit(truth, label, m.capacity(slot)):
                    m.truth(slot).begin(m.chain(m.disk(slot)))

    def register(self, vmx):
        """solo/registervm; the new vmid."""
        real = os.path.realpath(vmx)
        if not os.path.isfile(real):
            raise Fault("vim.fault.NotFound",
                        "The object or item referred to could not be found.")
        with self.lock:
            for m in self.machines.values():
                if os.path.realpath(m.vmx_path) == real:
                    raise Fault("vim.fault.AlreadyExists", "The specified key, name, or identifier "
                                "'%d' already exists." % m.vmid, name='"%d"' % m.vmid)
            vmid = self.next_vmid
            self.next_vmid += 1
            m = Machine(self, Machine.new_record(vmid, self.shown(real)))
            m.read_vmsd()
            if m.vmx().get("checkpoint.vmState"):
                m.record["power"] = "suspended"
            self.machines[vmid] = m
            self.own_files(m)
            self.changed()
        return vmid

    def own_files(self, m):
        """What the .vmx of a registered VM names is no leftover."""
        stem = os.path.splitext(m.vmx_path)[0]
        for suffix in (".vmx", ".vmsd", ".vmxf", ".nvram"):
            if os.path.exists(stem + suffix):
                self.own(stem + suffix)
        nvram = m.vmx().get("nvram")
        if nvram:
            self.own(dictfile.resolve(m.folder, nvram))
        for path in m.links():
            self.own(path)
            d = dictfile.Descriptor.load(path)
            self.own(d.extent_path)
            if d.change_track and os.path.exists(d.change_track_path):
                self.own(d.change_track_path)

    def unregister(self, m):
        if m.power == "on":
            raise Fault("vim.fault.InvalidPowerState", "The attempted operation cannot be "
                        "performed in the current state (Powered On).")
        with self.lock:
            m.close_chains()
            del self.machines[m.vmid]
            self.changed()

    def links_of_others(self, machine):
        """Links on which the disks of other VMs stand."""
        return {p for m in list(self.machines.values()) if m is not machine and m.valid()
                for p in m.links()}

    def destroy(self, m):
        if m.power == "on":
            raise Fault("vim.fault.InvalidPowerState", "The attempted operation cannot be "
                        "performed in the current state (Powered On).")
        folder = m.folder
        shared = self.links_of_others(m)
        for path in set(m.links()) - shared:
            d = dictfile.Descriptor.load(path)
            self.delete_own(d.extent_path)
            self.delete_own(path)
        if os.path.isdir(os.path.join(self.folder, "truth")):
            for slot in [d.slot for d in m.disks()]:
                m.forget_truth(slot)
        self.unregister(m)
        keep = shared | {dictfile.Descriptor.load(p).extent_path for p in shared}
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if self.shown(path) in self.owned and path not in keep:
                self.delete_own(path)
        if not os.listdir(folder):
            os.rmdir(folder)

    # who reads what, and what sessions may do

    def session_processes(self):
        """Pids (as the sessions see them) of everything that runs in the root."""
        proc = os.path.join(self.folder, "run/proc")
        login = os.stat(os.path.join(self.config["bin"], "lookalike-login"))
        out = []
        for name in os.listdir(proc):
            if not name.isdigit() or name == "1":
                continue
            try:
                exe = os.stat(os.path.join(proc, name, "exe"))
                # The supervisors of sessions are no part of the host.
                if os.readlink(os.path.join(proc, name, "root")) == self.root and \
                        (exe.st_dev, exe.st_ino) != (login.st_dev, login.st_ino):
                    with open(os.path.join(proc, name, "status"), encoding="utf-8") as f:
                        if "\nTgid:\t%s\n" % name not in f.read():
                            continue
                    out.append(int(name))
            except OSError:
                continue
        return sorted(out)

    def command_line(self, pid):
        try:
            with open("%s/run/proc/%d/cmdline" % (self.folder, pid), "rb") as f:
                return f.read().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            return ""

    def executable(self, pid):
        try:
            return self.shown(os.readlink("%s/run/proc/%d/exe" % (self.folder, pid)))
        except OSError:
            return ""

    def is_open(self, path):
        """Does a process of a session, or a command of ours, have the file open?"""
        try:
            wanted = os.stat(path)
        except FileNotFoundError:
            return False
        if (wanted.st_dev, wanted.st_ino) in self.readers:
            return True
        for pid in self.session_processes():
            folder = "%s/run/proc/%d/fd" % (self.folder, pid)
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            for name in names:
                try:
                    st = os.stat(os.path.join(folder, name))
                except OSError:
                    continue
                if (st.st_dev, st.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
        return False

    # files that a vmkfstools of ours reads now: {(dev, ino)}; see vmkfstools.reading
    readers = ()

    def locked_files(self):
        """{(dev, ino): (mode, machine)}; X wins over R."""
        out = {}
        for m in list(self.machines.values()):
            for mode, path in m.locked_files():
                try:
                    st = os.stat(path)
                except OSError:
                    continue
                key = (st.st_dev, st.st_ino)
                if key not in out or mode != "R":
                    out[key] = (mode, m)
        return out

    def lock_mode(self, path):
        try:
            st = os.stat(path)
        except OSError:
            return None
        return self.locked_files().get((st.st_dev, st.st_ino), (None, None))[0]

    def exec_limited(self):
        if self.knobs["exec-boot"] == "TRUE":
            return True
        return self.knobs["exec-installed-only"] == "1"

    def publish_policy(self):
        """Write run/policy: see policy.h."""
        with self.policy_lock:
            rows = ["exec " + ("installed-only" if self.exec_limited() else "any")]
            out = self.knobs["firewall-out"]
            rows.append("firewall " + ("open" if out == "open" else self.knobs["firewall-action"]))
            ports = OPEN_PORTS if out == "profile" else parse_ports(
                "" if out in ("open", "closed") else out)
            rows += ["allow %d %d" % p for p in ports]
            rows += ["blackhole%d %d" % item for item in self.blackholes.items()]
            for (dev, ino), (mode, _) in self.locked_files().items():
                rows.append("lock %s %d %d" % ("R" if mode == "R" else "X", dev, ino))
            rows += self.read_fault_rows()
            rows += [
                "session threads " + ("on" if self.knobs.on("threads") else "off"),
                "session reads " + ("watched" if self.knobs["read-fault"] else "plain"),
                "session seek-hole " + ("on" if self.knobs.on("seek-hole") else "off"),
                "session shell " + ("on" if self.knobs.on("shell") else "off"),
                "session memory " + str(int(self.knobs.number("memory"))),
            ]
            dictfile.write_file(os.path.join(self.folder, "run/policy"), "\n".join(rows) + "\n")

    def read_fault_rows(self, must_exist=False):
        """A file may go while the knob names it: a snapshot's removal deletes some."""
        rows = []
        for word in self.knobs["read-fault"].split():
            m = re.match(r"^(eio|stall:(\d+))@(.+):(\d+)\+(\d+)$", word)
            if not m:
                raise knob_module.KnobError("read-fault: %s is not KIND@FILE:START+LENGTH" % word)
            if not must_exist and not os.path.exists(self.real(m.group(3))):
                continue
            st = os.stat(self.real(m.group(3)))
            start, end = int(m.group(4)), int(m.group(4)) + int(m.group(5))
            if m.group(2):
                rows.append("stall %d %d %d %d %s" % (st.st_dev, st.st_ino, start, end, m.group(2)))
            else:
                rows.append("eio %d %d %d %d" % (st.st_dev, st.st_ino, start, end))
        return rows

    def open_blackholes(self):
        """Listeners whose queue is full: a connection to them is neither taken nor refused."""
        self.blackhole_sockets = []
        for version, family, address in ((4, socket.AF_INET, "127.0.0.1"),
                                         (6, socket.AF_INET6, "::1")):
            try:
                s = socket.socket(family, socket.SOCK_STREAM)
                s.bind((address, 0))
                s.listen(0)
            except OSError:
                continue
            for _ in range(3):
                c = socket.socket(family, socket.SOCK_STREAM)
                c.setblocking(False)
                c.connect_ex((address, s.getsockname()[1]))
                self.blackhole_sockets.append(c)
            self.blackhole_sockets.append(s)
            self.blackholes[version] = s.getsockname()[1]

    # options of esxcli system settings

    def uptime_us(self):
        return int((time.time() - self.boot_time) * 1000000)

    # the log of calls

    def record_call(self, entry):
        with self.calls_lock:
            with open(os.path.join(self.folder, "log/calls.jsonl"), "a", encoding="utf-8") as f:
                f.write(json.dumps(entry) + "\n")

    # leftovers

    def leftovers(self):
        """What is on the host and belongs to no VM and not to the host itself."""
        found = root_module.listing(self.root, ("dev", "proc", "var/run"))
        volumes = {"/vmfs/volumes/" + x for d in self.datastores for x in (d.name, d.uuid)}
        files = found - self.baseline - self.owned - volumes
        files -= {os.path.dirname(p) for p in self.owned}
        ours = [(m.name, s["name"]) for m in self.machines.values()
                for s in m.record["snapshots"] if s["name"].startswith("vmferry-")]
        processes = [{"pid": pid, "exe": self.executable(pid), "command": self.command_line(pid)}
                     for pid in self.session_processes()]
        return {"files": sorted(files), "processes": processes,
                "snapshots": [{"vm": a, "name": b} for a, b in ours]}

    # keeping

    def changed(self):
        self.publish_policy()
        self.save()

    def save(self):
        with self.lock:
            state = {
                "datastores": [d.record for d in self.datastores],
                "machines": [m.record for m in self.machines.values()],
                "owned": sorted(self.owned), "baseline": sorted(self.baseline),
                "knobs": self.knobs.values, "next_vmid": self.next_vmid,
                "boot_time": self.boot_time, "options": self.options,
                "autostart": self.autostart, "uuid": self.uuid,
            }
            dictfile.write_file(self.state_path, json.dumps(state, indent=1))

    def load(self):
        if not os.path.exists(self.state_path):
            self.uuid = str(uuid.uuid4())
            return False
        with open(self.state_path, encoding="utf-8") as f:
            state = json.load(f)
        self.datastores = [Datastore(r) for r in state["datastores"]]
        self.owned = set(state["owned"])
        self.baseline = set(state["baseline"])
        self.next_vmid = state["next_vmid"]
        self.boot_time = state["boot_time"]
        self.options = state["options"]
        self.autostart = state["autostart"]
        self.uuid = state["uuid"]
        self.knobs.values.update(state["knobs"])
        for name, value in self.config.get("knobs", {}).items():
            self.knobs.set(name, value)
        for record in state["machines"]:
            m = Machine(self, record)
            self.machines[record["vmid"]] = m
            self.own_unsaved(m)
        return True

    def own_unsaved(self, m):
        """Files that a killed daemon had made for a VM, but not yet noted."""
        made = re.compile(r"(-\d{6}(-delta|-sesparse|-ctk)?\.vmdk|-Snapshot\d+\.vmsn|\.vswp"
                          r"|\.vmss|~)$")
        for name in os.listdir(m.folder) if os.path.isdir(m.folder) else ():
            if made.search(name):
                self.own(os.path.join(m.folder, name))

    def fill_tmp(self, full):
        """Leave no room in /tmp, or give it back: the RAM disk's size is what changes."""
        from . import isolate
        tmp = os.path.join(self.root, "tmp")
        st = os.statvfs(tmp)
        used = (st.f_blocks - st.f_bfree) * st.f_frsize
        options = "size=%d,nr_inodes=8192" % (256 << 20)
        if full:        # a size of 0 would mean no limit, hence the limit of files beside it
            options = "size=%d,nr_inodes=%d" % (max(4096, used), st.f_files - st.f_ffree)
        isolate.mount(None, tmp, None, isolate.MS_REMOUNT, options)
