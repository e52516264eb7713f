"""One virtual machine: its files, its power; its snapshots are in snapshots.py.

The files are the truth wherever they can be: disks come from the .vmx, links from the descriptors.
Only what a host holds in memory or in its inventory (vmid, power) is kept beside them.
"""

import os
import re
import secrets
import shutil
import threading
import time

from . import dictfile
from .dictfile import Descriptor, Dictionary
from .disk import PIECE, Chain, data_path, merge_ranges
from .snapshots import Fault, Snapshots
from .truth import Truth

SLOT = re.compile(r"^(scsi|sata|nvme|ide)(\d+):(\d+)\.filename$")
KEY_BASES = {"scsi": 2000, "ide": 3000, "sata": 16000, "nvme": 31000}
UNITS = {"scsi": 16, "ide": 2, "sata": 30, "nvme": 15}


class Disk:
    """A disk of a VM as its .vmx names it now."""

    def __init__(self, slot, path, mode, sharing):
        self.slot = slot
        self.path = path                # of the leaf's descriptor
        self.mode = mode
        self.sharing = sharing

    @property
    def independent(self):
        return self.mode.startswith("independent")

    @property
    def key(self):
        bus, number, unit = re.match(r"(\D+)(\d+):(\d+)", self.slot).groups()
        return KEY_BASES[bus] + int(number) * UNITS[bus] + int(unit)


class Machine(Snapshots):
    def __init__(self, host, record):
        self.host = host
        self.record = record            # what is saved: see new_record
        self.lock = threading.RLock()
        self.busy = None                # name of the snapshot operation that runs
        self.written = set()            # leaves whose CID has changed since they were opened
        self.chains = {}
        self.truths = {}
        self.question = None
        self.merging = set()            # descriptors into which a consolidation writes now
        self.guest = None

    @staticmethod
    def new_record(vmid, vmx):
        return {"vmid": vmid, "vmx": vmx, "power": "off", "snapshots": [], "current": 0,
                "last_uid": 0, "boot_time": 0, "started": 0}

    # what the files say

    @property
    def vmid(self):
        return self.record["vmid"]

    @property
    def vmx_path(self):
        return self.host.real(self.record["vmx"])

    @property
    def folder(self):
        return os.path.dirname(self.vmx_path)

    @property
    def power(self):
        return self.record["power"]

    def vmx(self):
        return Dictionary.load(self.vmx_path)

    def valid(self):
        return os.path.exists(self.vmx_path)

    @property
    def name(self):
        try:
            return self.vmx().get("displayName", "")
        except FileNotFoundError:
            return ""

    def disks(self, vmx=None):
        vmx = vmx or self.vmx()
        found = []
        for key, value in vmx.items.items():
            m = SLOT.match(key)
            if not m or not value.lower().endswith(".vmdk"):
                continue
            slot = "%s%s:%s" % m.groups()
            if not vmx.true(slot + ".present"):
                continue
            if not vmx.true("%s%s.present" % m.groups()[:2]) and m.group(1) != "ide":
                continue
            found.append(Disk(slot, dictfile.resolve(self.folder, value),
                              vmx.get(slot + ".mode", "persistent"),
                              vmx.get(slot + ".sharing", "")))
        return sorted(found, key=lambda d: d.key)

    def disk(self, slot):
        for d in self.disks():
            if d.slot == slot:
                return d
        raise KeyError("vm %s has no disk %s" % (self.name, slot))

    # reading and writing as the guest

    def chain(self, disk):
        held = self.chains.get(disk.slot)
        if held is not None and held.descriptors[0].path == disk.path:
            return held
        if held is not None:
            held.close()
        self.chains[disk.slot] = Chain(disk.path)
        return self.chains[disk.slot]

    def close_chains(self):
        for chain in self.chains.values():
            chain.close()
        self.chains.clear()

    def truth(self, slot):
        if slot in self.truths and self.truths[slot].is_lost():
            self.truths.pop(slot).close()
        if slot not in self.truths:
            self.truths[slot] = Truth(os.path.join(
                self.host.folder, "truth", "%d-%s" % (self.vmid, slot.replace(":", "-"))))
            if self.truths[slot].cut():
                self.truths[slot].mend(self.chain(self.disk(slot)))
        return self.truths[slot]

    def forget_truth(self, slot):
        truth = self.truth(slot)
        truth.close()
        shutil.rmtree(truth.folder, ignore_errors=True)
        del self.truths[slot]

    def write(self, slot, offset, data, unmap=False):
        """The guest writes; a write of zeros alone is marked or stored as the knob says."""
        with self.lock:
            disk = self.disk(slot)
            chain = self.chain(disk)
            if offset < 0 or offset + len(data) > chain.capacity:
                raise ValueError("%s: a write past the end of the disk" % slot)
            if disk.path not in self.written:
                self.written.add(disk.path)
                self.change_cid(chain)
            truth = self.truth(slot)
            truth.note(offset, len(data))
            truth.write(chain.base, offset, data)
            if unmap or (self.host.knobs["zero-writes"] == "mark" and data.count(0) == len(data)):
                chain.zero(offset, len(data), unmap)
            else:
                chain.write(offset, data)
            truth.note(0, 0)

    @staticmethod
    def change_cid(chain):
        """The first write after an open changes the CID of the link that is written."""
        d = chain.descriptors[0]
        d.cid = "%08x" % (secrets.randbits(32) & 0xfffffffe)
        if "longContentID" in d.ddb:
            d.ddb["longContentID"] = d.ddb["longContentID"][:24] + d.cid
        d.save()

    def write_image(self, slot, raw_path):
        """Make the disk hold what a raw file holds, writing only what differs; bytes written."""
        written = 0
        capacity = self.capacity(slot)
        if os.path.getsize(raw_path) != capacity:
            raise ValueError("%s has %d bytes, disk %s has %d"
                             % (raw_path, os.path.getsize(raw_path), slot, capacity))
        zeros = bytes(PIECE)
        with open(raw_path, "rb") as f:
            wanted = self.possible_ranges(f.fileno(), slot, capacity)
            for start, stop in wanted:
                for at in range(start, stop, PIECE):
                    length = min(PIECE, stop - at)
                    new = os.pread(f.fileno(), length, at)
                    with self.lock:
                        old = self.chain(self.disk(slot)).read(at, length)
                        if new == old or (old == zeros and new == zeros):
                            continue
                        written += self.write_difference(slot, at, old, new)
        return written

    def write_difference(self, slot, offset, old, new):
        """Write the 4 KiB blocks that differ, neighbours together."""
        count = 0
        start = None
        for at in range(0, len(new) + 4096, 4096):
            differs = at < len(new) and old[at:at + 4096] != new[at:at + 4096]
            if differs and start is None:
                start = at
            elif not differs and start is not None:
                self.write(slot, offset + start, new[start:at])
                count += min(at, len(new)) - start
                start = None
        return count

    def possible_ranges(self, fd, slot, capacity):
        """Ranges where the file or the disk may hold something, in 1 MiB steps."""
        ranges = []
        at = 0
        while at < capacity:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(fd, start, os.SEEK_HOLE)
            ranges.append((start, at))
        with self.lock:
            ranges += self.chain(self.disk(slot)).ranges()
        rounded = [(s // PIECE * PIECE, min(capacity, (e + PIECE - 1) // PIECE * PIECE))
                   for s, e in ranges]
        return merge_ranges(rounded)

    def capacity(self, slot):
        with self.lock:
            return self.chain(self.disk(slot)).capacity

    # files beside the disks

    def write_vmsd(self):
        out = Dictionary()
        out.set(".encoding", "UTF-8")
        if self.record["last_uid"]:
            out.set("snapshot.lastUID", str(self.record["last_uid"]))
        if self.record["snapshots"]:
            out.set("snapshot.current", str(self.record["current"]))
        if self.needs_consolidation():
            out.set("snapshot.needConsolidate", "TRUE")
        for n, s in enumerate(self.record["snapshots"]):
            key = "snapshot%d." % n
            out.set(key + "uid", str(s["id"]))
            out.set(key + "filename", "%s-Snapshot%d.vmsn" % (self.file_stem(), s["id"]))
            if s["parent"]:
                out.set(key + "parent", str(s["parent"]))
            out.set(key + "displayName", s["name"])
            if s["description"]:
                out.set(key + "description", s["description"])
            high, low = divmod(s["created"], 1 << 32)
            out.set(key + "createTimeHigh", str(high))
            out.set(key + "createTimeLow", str(low - (1 << 32) if low >= 1 << 31 else low))
            out.set(key + "numDisks", str(len(s["disks"])))
            for m, (slot, path) in enumerate(sorted(s["disks"].items())):
                out.set("%sdisk%d.fileName" % (key, m), self.name_for_vmx(path))
                out.set("%sdisk%d.node" % (key, m), slot)
        if self.record["snapshots"]:
            out.set("snapshot.numSnapshots", str(len(self.record["snapshots"])))
        path = os.path.splitext(self.vmx_path)[0] + ".vmsd"
        out.save(path)
        self.host.own(path)

    def read_vmsd(self):
        """Snapshots of a VM that was registered with its files."""
        path = os.path.splitext(self.vmx_path)[0] + ".vmsd"
        if not os.path.exists(path):
            return
        d = Dictionary.load(path)
        self.record["last_uid"] = int(d.get("snapshot.lastUID", "0"))
        self.record["current"] = int(d.get("snapshot.current", "0"))
        for n in range(int(d.get("snapshot.numSnapshots", "0"))):
            key = "snapshot%d." % n
            disks = {d.get("%sdisk%d.node" % (key, m)): dictfile.resolve(
                self.folder, d.get("%sdisk%d.fileName" % (key, m)))
                for m in range(int(d.get(key + "numDisks", "0")))}
            created = (int(d.get(key + "createTimeHigh", "0")) << 32) + \
                (int(d.get(key + "createTimeLow", "0")) & 0xffffffff)
            self.record["snapshots"].append({
                "id": int(d.get(key + "uid")), "name": d.get(key + "displayName", ""),
                "description": d.get(key + "description", ""), "created": created,
                "quiesced": False, "state": "off", "parent": int(d.get(key + "parent", "0")),
                "disks": disks})

    def log(self, text):
        path = os.path.join(self.folder, "vmware.log")
        with open(path, "a", encoding="utf-8") as f:
            f.write("%s| vmx| I125: %s\n" % (
                time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()), text))
        self.host.own(path)

    # power

    def locked_files(self):
        """(mode, path) of every file that is locked now."""
        out = []
        if not self.valid():
            return out
        for path in self.merging:
            out.append(("X", data_path(Descriptor.load(path))))
        if self.power == "suspended":
            out.append(("X", self.suspend_file()))
        if self.power != "on":
            return out
        out.append(("X", self.swap_file()))
        for d in self.disks():
            try:
                leaf = Descriptor.load(d.path)
                shared = d.sharing.lower() == "multi-writer"
                out.append(("M" if shared else "X", data_path(leaf)))
                path = leaf.parent_path
                while path is not None:
                    link = Descriptor.load(path)
                    mode = "X" if self.host.knobs.on("lock-base") else "R"
                    out.append((mode, data_path(link)))
                    path = link.parent_path
            except (OSError, ValueError):
                continue
        return out

    def swap_file(self):
        return os.path.join(self.folder, "%s-%08x.vswp" % (self.file_stem(), self.vmid * 2654435761
                                                           & 0xffffffff))

    def suspend_file(self):
        return os.path.join(self.folder, self.file_stem() + "-suspend.vmss")

    def power_on(self):
        with self.lock:
            if not self.valid():
                raise Fault("vim.fault.InvalidState", "The VM is invalid.")
            if self.power == "on":
                raise Fault("vim.fault.InvalidPowerState", "The attempted operation cannot be "
                            "performed in the current state (Powered On).")
            old = self.power
            self.record["power"] = "on"
            # The lock first, then the look at who has the file open: nobody slips between.
            self.host.publish_policy()
            for d in self.disks():
                path = data_path(Descriptor.load(d.path))
                if not os.path.exists(path) or self.host.is_open(path):
                    self.record["power"] = old
                    self.host.publish_policy()
                    raise Fault("vim.fault.GenericVmConfigFault", "Failed to lock the file: cannot "
                                "open the disk '%s' or one of the snapshot disks it depends on."
                                % d.path[len(self.host.root):])
            self.host.write_own(self.swap_file(), b"\0" * 4096)
            self.host.delete_own(self.suspend_file())
            self.record["boot_time"] = time.time()
            self.record["started"] += 1
            self.written.clear()
            for d in self.disks():
                self.open_journal(d.path)
            self.log("PowerOn")
            self.host.changed()

    def power_off(self, suspend=False):
        with self.lock:
            if self.power != "on":
                raise Fault("vim.fault.InvalidPowerState", "The attempted operation cannot be "
                            "performed in the current state (Powered Off).")
            if self.guest is not None:
                self.guest.stop()
            self.record["power"] = "suspended" if suspend else "off"
            for d in self.disks():
                self.settle_journal(d.path)
            self.host.delete_own(self.swap_file())
            if suspend:
                self.host.write_own(self.suspend_file(), secrets.token_bytes(65536))
            vmx = self.vmx()
            vmx.set("checkpoint.vmState", os.path.basename(self.suspend_file()) if suspend else "")
            vmx.set("cleanShutdown", "TRUE")
            vmx.save(self.vmx_path)
            self.log("PowerOff" if not suspend else "Suspend")
            self.host.changed()
