"""What tests ask of a running look-alike: one method per request."""

import os
import threading
import time

from . import vmfiles
from .guest import Guest
from .knobs import SSHD_KNOBS


class Control:
    def __init__(self, server):
        self.server = server
        self.host = server.host

    def run(self, request):
        name = request.pop("do").replace("-", "_")
        method = getattr(self, "do_" + name, None)
        if method is None:
            raise ValueError("no such request: " + name)
        return method(**request)

    def do_ping(self):
        return {"pid": os.getpid()}

    def do_stop(self):
        self.server.stopping.set()

    # what others do at a certain command: events.py

    def do_event_add(self, match, requests, nth=1, when="before"):
        """requests (each a dictionary with `do`), when the nth command comes whose words, joined by
        blanks, match the regular expression; `after`: when it is done, before it is answered."""
        self.server.events.add(match, requests, nth, when)

    def do_event_when_open(self, path, requests):
        """requests, as soon as a session has the file (a path of the host) open."""
        self.server.events.when_open(self.host.real(path), self.host.is_open, requests)

    def do_events(self):
        return self.server.events.told()

    def do_events_clear(self):
        self.server.events.clear()

    # the host

    def do_knob(self, name, value):
        if name == "read-fault":
            old = self.host.knobs["read-fault"]
            self.host.knobs.set(name, value)
            try:
                self.host.read_fault_rows(must_exist=True)
            except (OSError, ValueError):
                self.host.knobs.set(name, old)
                raise
        self.host.knobs.set(name, value)
        if name == "tmp-full":
            self.host.fill_tmp(self.host.knobs.on(name))
        if name in ("motd", "profile-noise"):
            self.server.write_texts()
        if name == "connections":
            self.server.limit_connections(value)
        if name in SSHD_KNOBS:
            self.server.reload_ssh()
        self.host.changed()

    def do_knobs(self):
        return dict(self.host.knobs.values)

    def do_datastore_add(self, name, kind="VMFS-6", size=1 << 40, tmpfs=False, uuid=None,
                         deltas=None):
        """deltas: the form of all deltas there (vmfsSparse, seSparse), whatever kind says."""
        d = self.host.add_datastore(name, kind, vmfiles.parse_size(size), uuid)
        if deltas:
            d.record["deltas"] = deltas
            self.host.save()
        if tmpfs:
            d.record["tmpfs"] = True
            self.server.mount_datastore(d)
            self.host.save()
        return {"name": d.name, "uuid": d.uuid, "path": d.path}

    def do_uptime(self, seconds):
        """The host has been running for so long."""
        self.host.boot_time = time.time() - seconds
        self.host.save()

    def do_reboot(self, renumber=False, down=0.0):
        """As a power cut: agents and sessions die, VMs are off, snapshots stay."""
        host = self.host
        running = [m for m in host.machines.values() if m.power == "on"]
        self.server.end_init()
        host.power_cut.set()
        host.power_cut = threading.Event()
        for m in running:
            m.power_off()
        self.wipe_ramdisk()
        with host.lock:
            host.tasks.clear()
            if renumber:
                self.renumber()
            time.sleep(down)
            host.boot_time = time.time()
        for vmid in host.autostart:
            if vmid in host.machines:
                host.machines[vmid].power_on()
        host.changed()
        self.server.start_init()

    def wipe_ramdisk(self):
        """What was written outside the datastores does not survive a boot."""
        from . import isolate, root
        isolate.unmount(os.path.join(self.host.root, "tmp"))
        self.server.mount_tmp()
        now = root.listing(self.host.root, ("dev", "proc", "var/run", "vmfs", "tmp",
                                            "etc/ssh/keys-root"))
        for path in sorted(now - self.host.baseline, reverse=True):
            real = self.host.root + path
            if os.path.isdir(real) and not os.path.islink(real):
                os.rmdir(real)
            else:
                os.unlink(real)

    def renumber(self):
        machines = sorted(self.host.machines.values(), key=lambda m: m.vmid)
        self.host.machines = {}
        for m in machines:
            old = m.vmid
            m.close_chains()
            m.record["vmid"] = self.host.next_vmid
            self.host.machines[self.host.next_vmid] = m
            self.host.next_vmid += 1
            for truth in m.truths.values():
                truth.close()
            m.truths.clear()
            folder = os.path.join(self.host.folder, "truth")
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                if name.startswith("%d-" % old):
                    os.rename(os.path.join(folder, name), os.path.join(
                        folder, "%d-%s" % (m.vmid, name.split("-", 1)[1])))
            self.host.autostart = [m.vmid if v == old else v for v in self.host.autostart]

    def do_autostart(self, vms):
        self.host.autostart = [self.host.machine(v).vmid for v in vms]
        self.host.save()

    def do_authorize(self, key):
        """Install a public key for root."""
        path = os.path.join(self.host.root, "etc/ssh/keys-root/authorized_keys")
        with open(path, "a", encoding="ascii") as f:
            f.write(key.strip() + "\n")
        os.chmod(path, 0o600)
        self.host.baseline.add("/etc/ssh/keys-root/authorized_keys")
        self.host.save()

    def do_password(self, password):
        self.server.ssh.set_password(password)

    def do_kill_sessions(self):
        """Cut every SSH connection; what the sessions started lives on, as on a host."""
        return self.server.kill_sessions()

    def do_cut_after(self, bytes):
        """Kill the SSH connections when sshd has moved so many bytes from now on."""
        self.server.cut_after(bytes)

    def do_kill(self, pid, signal=9):
        """A process of the sessions, by the number that ps shows."""
        if pid not in self.host.session_processes():
            raise ValueError("no process %d in the root" % pid)
        self.server.kill(pid, signal)

    # VMs

    def do_vm_add(self, spec):
        m = self.host.add_vm(spec)
        return {"vmid": m.vmid, "vmx": m.record["vmx"]}

    def do_vm_remove(self, vm):
        self.host.destroy(self.host.machine(vm))

    def do_power(self, vm, state):
        m = self.host.machine(vm)
        if state == "on":
            m.power_on()
        else:
            m.power_off(suspend=state == "suspend")

    def do_rename(self, vm, name):
        m = self.host.machine(vm)
        vmx = m.vmx()
        vmx.set("displayName", name)
        vmx.save(m.vmx_path)

    def do_vm_invalid(self, vm, on=True):
        """Take the .vmx of a VM away, as when its datastore is gone; or bring it back."""
        m = self.host.machine(vm) if on else self.host.machines[int(vm)]
        away = m.vmx_path + ".away"
        os.rename(m.vmx_path if on else away, away if on else m.vmx_path)
        (self.host.owned.add if on else self.host.owned.discard)(self.host.shown(away))

    def do_vmx_set(self, vm, values):
        """Change keys of the .vmx; None drops one."""
        m = self.host.machine(vm)
        with m.lock:
            vmx = m.vmx()
            for key, value in values.items():
                if value is None:
                    vmx.drop(key)
                else:
                    vmx.set(key, value)
            vmx.save(m.vmx_path)
            m.close_chains()
            self.host.changed()

    def do_disk_add(self, vm, disk):
        m = self.host.machine(vm)
        with m.lock:
            vmx = m.vmx()
            count = len(m.disks(vmx))
            disk.setdefault("file", "%s_%d" % (m.file_stem(), count + 100))
            vmfiles.add_disk(self.host, vmx, m.folder, m.file_stem(), count, disk,
                             self.host.facts["hw"])
            vmx.save(m.vmx_path)
            self.host.changed()

    def do_disk_remove(self, vm, slot):
        """Take a disk out of the VM and delete it; only without snapshots."""
        m = self.host.machine(vm)
        with m.lock:
            if m.record["snapshots"]:
                raise ValueError("the VM has snapshots")
            d = m.disk(slot)
            vmx = m.vmx()
            vmx.drop(slot + ".")
            vmx.save(m.vmx_path)
            m.close_chains()
            m.delete_link(d.path)
            m.forget_truth(slot)      # another disk may take the slot
            self.host.changed()

    def do_disk_grow(self, vm, slot, size):
        m = self.host.machine(vm)
        with m.lock:
            if m.record["snapshots"]:
                raise ValueError("the VM has snapshots")
            from .dictfile import Descriptor
            d = Descriptor.load(m.disk(slot).path)
            d.sectors = vmfiles.parse_size(size) // 512
            os.truncate(d.extent_path, d.capacity)
            d.save()
            m.close_chains()
            m.truth(slot).renew(d.capacity)

    def do_guest_write(self, vm, slot, offset, data=None, seed=None, length=0, zero=False,
                       unmap=False):
        """data: hex; or `length` bytes from a seed, or zeros; or `length` bytes trimmed."""
        import random
        m = self.host.machine(vm)
        if data is not None:
            content = bytes.fromhex(data)
        elif zero or unmap:
            content = bytes(length)
        else:
            content = random.Random(seed).randbytes(length)
        m.write(slot, offset, content, unmap)

    def do_guest_write_file(self, vm, slot, offset, path):
        m = self.host.machine(vm)
        with open(path, "rb") as f:
            while True:
                data = f.read(1 << 20)
                if not data:
                    break
                m.write(slot, offset, data)
                offset += len(data)

    def do_guest_write_image(self, vm, slot, path):
        return self.host.machine(vm).write_image(slot, path)

    def do_guest_start(self, vm, slots=None, seed=1, rate=20, pattern="mixed"):
        m = self.host.machine(vm)
        if m.power != "on":
            raise ValueError("the VM is not on")
        if m.guest is not None:
            m.guest.stop()
        m.guest = Guest(m, slots or [d.slot for d in m.disks()], seed, rate, pattern)

    def do_guest_stop(self, vm):
        m = self.host.machine(vm)
        guest = m.guest
        if guest is None:
            return 0
        guest.stop()
        guest.thread.join(10)
        if guest.failure:
            raise ValueError("the guest failed: " + guest.failure)
        return guest.writes

    def do_snapshot_create(self, vm, name, description="", memory=False, quiesce=False):
        """By another user of the host: not through vim-cmd."""
        return self.host.machine(vm).create_snapshot(name, description, memory, quiesce)["id"]

    def do_snapshot_remove(self, vm, id, children=False):
        self.host.machine(vm).remove_snapshot(id, children)

    def do_snapshot_revert(self, vm, id):
        self.host.machine(vm).revert(id)

    def do_discard_leaves(self, vm):
        self.host.machine(vm).discard_leaves()

    def do_disk_replace(self, vm, slot, path):
        """path: a raw file, what the disk's base is to hold."""
        self.host.machine(vm).replace_base(slot, path)

    def do_vm_unregister(self, vm):
        self.host.unregister(self.host.machine(vm))

    def do_vm_register(self, vmx):
        return self.host.register(self.host.real(vmx))

    def do_vm_move(self, vm, folder):
        """Its folder gets another name; a new vmid, as a host that is told so gives."""
        m = self.host.machine(vm)
        old, stem = m.folder, os.path.basename(m.record["vmx"])
        new = os.path.join(os.path.dirname(old), folder)
        self.host.unregister(m)
        os.rename(old, new)
        return self.host.register(os.path.join(new, stem))

    def do_consolidate(self, vm):
        self.host.machine(vm).consolidate()

    def do_snapshots(self, vm):
        m = self.host.machine(vm)
        return [{k: s[k] for k in ("id", "name", "description", "parent", "quiesced", "state")}
                for s in m.record["snapshots"]]

    def do_snapshots_made(self, vm):
        """All snapshots that the VM ever had, in the order of their making."""
        return self.host.machine(vm).record.get("made", [])

    def do_truth(self, vm, slot, out, snapshot=None):
        """Write what a disk held at a snapshot (id, name or `last`; gone or not), or holds now."""
        m = self.host.machine(vm)
        with m.lock:
            chain = m.chain(m.disk(slot))
            truth = m.truth(slot)
            if snapshot is None:
                truth.begin(chain) if len(chain.links) > 1 else None
                truth.copy_to(chain.base, chain.capacity, out)
                return
            label = str(snapshot)
            if label == "last":
                if not truth.marks:
                    raise ValueError("disk %s was never in a snapshot" % slot)
                label = truth.marks[-1]["label"]
            else:
                for s in m.record["snapshots"]:
                    if s["name"] == label:
                        label = str(s["id"])
            try:
                truth.copy_to(chain.base, chain.capacity, out, label)
            except KeyError:
                raise ValueError("disk %s has no truth of snapshot %s" % (slot, snapshot)) from None

    def do_state(self):
        host = self.host
        vms = []
        for m in host.machines.values():
            entry = {"vmid": m.vmid, "vmx": m.record["vmx"], "power": m.power, "valid": m.valid(),
                     "name": m.name, "snapshots": self.do_snapshots(m.vmid),
                     "busy": m.busy, "writes": m.guest.writes if m.guest else 0}
            if m.valid():
                entry["consolidation_needed"] = m.needs_consolidation()
                entry["disks"] = [{"slot": d.slot, "path": host.shown(d.path), "mode": d.mode,
                                   "capacity": m.capacity(d.slot)} for d in m.disks()]
            vms.append(entry)
        return {
            "profile": host.profile, "uuid": host.uuid, "boot_time": host.boot_time, "vms": vms,
            "datastores": [dict(d.record, free=host.free_bytes(d)) for d in host.datastores],
            "login_failures": self.server.ssh.failures(),
            "exec_installed_only": host.exec_limited(), "locks": [
                [mode, m.name] for mode, m in host.locked_files().values()],
        }

    def do_leftovers(self):
        return self.host.leftovers()

    def do_processes(self):
        return [{"pid": p, "exe": self.host.executable(p), "command": self.host.command_line(p)}
                for p in self.host.session_processes()]
