"""One virtual machine: its files, its power, its snapshots.

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
from .delta import GRAIN_BYTES, Delta
from .dictfile import Descriptor, Dictionary
from .disk import PIECE, Chain, DiskError, History, data_path, open_link

SLOT = re.compile(r"^(scsi|sata|nvme|ide)(\d+):(\d+)\.filename$")
KEY_BASES = {"scsi": 2000, "ide": 3000, "sata": 16000, "nvme": 31000}
UNITS = {"scsi": 16, "ide": 2, "sata": 30, "nvme": 15}


class Fault(Exception):
    """A fault of the management daemon: type and message as vim-cmd prints them."""

    def __init__(self, kind, message, **fields):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.fields = fields


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


class Machine:
    def __init__(self, host, record):
        self.host = host
        self.record = record            # what is saved: see new_record
        self.lock = threading.RLock()
        self.busy = None                # name of the snapshot operation that runs
        self.written = set()            # leaves whose CID has changed since they were opened
        self.chains = {}
        self.histories = {}
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

    def history(self, slot):
        if slot not in self.histories:
            self.histories[slot] = History(os.path.join(
                self.host.folder, "truth", "%d-%s" % (self.vmid, slot.replace(":", "-"))))
        return self.histories[slot]

    def forget_history(self, slot):
        history = self.history(slot)
        history.close()
        shutil.rmtree(history.folder, ignore_errors=True)
        del self.histories[slot]

    def write(self, slot, offset, data):
        """The guest writes."""
        with self.lock:
            disk = self.disk(slot)
            chain = self.chain(disk)
            if offset < 0 or offset + len(data) > chain.capacity:
                raise ValueError("%s: a write past the end of the disk" % slot)
            if disk.path not in self.written:
                self.written.add(disk.path)
                self.change_cid(chain)
            self.history(slot).save(chain, offset, len(data))
            chain.write(offset, data)

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
        from .disk import merge_ranges
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

    # snapshots

    def snapshot(self, uid):
        for s in self.record["snapshots"]:
            if s["id"] == uid:
                return s
        return None

    def links(self):
        """{descriptor path: parent's path or None} of all links of all disks."""
        found = {}
        starts = [d.path for d in self.disks()]
        for s in self.record["snapshots"]:
            starts += s["disks"].values()
        for path in starts:
            while path is not None and path not in found:
                try:
                    found[path] = Descriptor.load(path).parent_path
                except (OSError, ValueError):
                    break
                path = found[path]
        return found

    def frozen(self):
        return {p for s in self.record["snapshots"] for p in s["disks"].values()}

    def needs_consolidation(self):
        """Some link is neither a leaf nor frozen by a snapshot of the tree."""
        if not self.valid():
            return False
        keep = self.frozen() | {d.path for d in self.disks()}
        return any(p not in keep for p in self.links())

    def check_snapshot(self, memory, quiesce):
        """Raise what forbids a snapshot now."""
        knobs = self.host.knobs
        for d in self.disks():
            descriptor = Descriptor.load(d.path)
            if descriptor.create_type == "vmfsPassthroughRawDeviceMap":
                raise Fault("vim.fault.SnapshotIncompatibleDeviceInVm",
                            "Virtual machine is configured to use a device that prevents the "
                            "snapshot operation: Device '%s' is a physical mode RDM." % d.slot)
            if d.sharing.lower() == "multi-writer":
                raise Fault("vim.fault.GenericVmConfigFault", "An error occurred while taking a "
                            "snapshot: Cannot snapshot shared disk.")
            if d.independent and self.power == "on":
                if knobs["independent"] == "fault":
                    raise Fault("vim.fault.GenericVmConfigFault", "An error occurred while taking "
                                "a snapshot: This operation is not allowed on virtual machines "
                                "with independent disks.")
                if memory:
                    raise Fault("vim.fault.MemorySnapshotOnIndependentDisk",
                                "Cannot take a memory snapshot, since the virtual machine is "
                                "configured with independent disks.")
        if self.power == "suspended":
            raise Fault("vim.fault.GenericVmConfigFault", "An error occurred while taking a "
                        "snapshot: The state of the virtual machine has not changed since the "
                        "last snapshot operation.")
        if self.depth() >= 32:
            raise Fault("vim.fault.TooManySnapshotLevels", "Snapshot hierarchy is too deep.")
        if quiesce and self.power == "on" and knobs["create-quiesce"] == "fail":
            raise Fault("vim.fault.ApplicationQuiesceFault", "An error occurred while quiescing "
                        "the virtual machine. See the virtual machine's event log for details.")
        if quiesce and self.power == "on" and knobs["create-quiesce"] == "timeout":
            raise Fault("vim.fault.FilesystemQuiesceFault", "Cannot create a quiesced snapshot "
                        "because the create snapshot operation exceeded the time limit for "
                        "holding off I/O in the frozen virtual machine.")

    def depth(self):
        count = 0
        s = self.snapshot(self.record["current"])
        while s is not None:
            count += 1
            s = self.snapshot(s["parent"])
        return count

    def create_snapshot(self, name, description, memory, quiesce):
        """Freeze every disk that a snapshot can freeze.  The new snapshot's record."""
        with self.lock:
            self.check_snapshot(memory, quiesce)
            vmx = self.vmx()
            uid = self.record["last_uid"] + 1
            frozen = {}
            for d in self.disks(vmx):
                if not self.host.knobs["keep-truth"] == "off":
                    self.history(d.slot).mark("%d" % uid, self.capacity(d.slot))
                if d.independent:
                    continue
                child = self.add_child(d.path)
                frozen[d.slot] = d.path
                vmx.set(d.slot + ".fileName", self.name_for_vmx(child))
            self.close_chains()
            self.record["last_uid"] = uid
            made = {"id": uid, "name": name, "description": description,
                    "created": int(time.time() * 1000000), "quiesced": bool(quiesce),
                    "state": "on" if memory and self.power == "on" else "off",
                    "parent": self.record["current"], "disks": frozen}
            self.record["snapshots"].append(made)
            self.record["current"] = uid
            state = os.path.join(self.folder, "%s-Snapshot%d.vmsn" % (self.file_stem(), uid))
            self.host.write_own(state, b"\xd2\xbe\xd2\xbe" + secrets.token_bytes(28000))
            vmx.save(self.vmx_path)
            self.write_vmsd()
            self.log("Checkpoint_Snapshot: snapshot %d" % uid)
            self.host.changed()
            return made

    def file_stem(self):
        return os.path.splitext(os.path.basename(self.record["vmx"]))[0]

    def name_for_vmx(self, path):
        if os.path.dirname(path) == self.folder:
            return os.path.basename(path)
        return path[len(self.host.root):]

    def add_child(self, parent_path):
        """A new empty link above a leaf; the path of its descriptor."""
        parent = Descriptor.load(parent_path)
        folder = os.path.dirname(parent_path)
        stem = re.sub(r"-\d{6}$", "", os.path.splitext(os.path.basename(parent_path))[0])
        number = 1
        while os.path.exists(os.path.join(folder, "%s-%06d.vmdk" % (stem, number))):
            number += 1
        child = Descriptor(os.path.join(folder, "%s-%06d.vmdk" % (stem, number)))
        se_sparse = self.host.snapshot_kind(folder, parent.capacity) == "SESPARSE"
        child.extent_type = "SESPARSE" if se_sparse else "VMFSSPARSE"
        child.create_type = "seSparse" if se_sparse else "vmfsSparse"
        child.extent = "%s-%06d-%s.vmdk" % (stem, number, "sesparse" if se_sparse else "delta")
        child.cid = child.parent_cid = parent.cid
        child.parent_hint = os.path.basename(parent_path)
        child.sectors = parent.sectors
        child.ddb = {"longContentID": secrets.token_hex(12) + child.cid}
        if se_sparse:
            child.ddb["grain"] = "8"
        Delta.create(child.extent_path, parent.capacity, child.extent_type).close()
        self.host.own(child.extent_path)
        child.save()
        self.host.own(child.path)
        return child.path

    def remove_snapshot(self, uid, children):
        """Take a snapshot (or its whole subtree) out of the tree and consolidate.

        Raises Fault; the tree has then changed or not, as remove-while-read says.
        """
        with self.lock:
            doomed = self.subtree(uid) if children else [uid]
            blocked = self.readers_in_the_way(doomed)
            how = self.host.knobs["remove-while-read"]
            if blocked and how == "refuse":
                raise Fault("vim.fault.GenericVmConfigFault", "An error occurred while "
                            "consolidating disks: One or more disks are busy.")
            before = set(self.links())
            for one in doomed:
                self.forget_snapshot(one)
            self.write_vmsd()
            self.host.changed()
            if self.host.knobs["remove-result"] == "leaves-children":
                return
            self.consolidate(before)

    def subtree(self, uid):
        out = [uid]
        for one in out:
            out += [s["id"] for s in self.record["snapshots"] if s["parent"] == one]
        return out

    def forget_snapshot(self, uid):
        gone = self.snapshot(uid)
        self.record["snapshots"].remove(gone)
        for s in self.record["snapshots"]:
            if s["parent"] == uid:
                s["parent"] = gone["parent"]
        if self.record["current"] == uid:
            self.record["current"] = gone["parent"]
        self.host.delete_own(os.path.join(
            self.folder, "%s-Snapshot%d.vmsn" % (self.file_stem(), uid)))

    def readers_in_the_way(self, doomed):
        """Does anybody have a link open that the removal of these snapshots would write?"""
        keep = {p for s in self.record["snapshots"] if s["id"] not in doomed
                for p in s["disks"].values()} | {d.path for d in self.disks()}
        return any(self.host.is_open(data_path(Descriptor.load(p)))
                   for p in self.links() if p not in keep)

    def consolidate(self, before=()):
        """Merge every link that no snapshot needs with its child; delete what is then unused."""
        with self.lock:
            self.close_chains()
            busy = False
            while True:
                pair = self.next_merge()
                if pair is None:
                    break
                parent, child = pair
                if self.host.is_open(data_path(Descriptor.load(parent))) and \
                        self.host.knobs["remove-while-read"] != "allow":
                    busy = True
                    break
                self.merge(parent, child)
            if not busy:
                for path in set(before) - set(self.links()):
                    if os.path.exists(path):
                        self.delete_link(path)
            self.write_vmsd()
            self.host.changed()
            if busy:
                raise Fault("vim.fault.GenericVmConfigFault", "An error occurred while "
                            "consolidating disks: One or more disks are busy.")

    def next_merge(self):
        links = self.links()
        keep = self.frozen() | {d.path for d in self.disks()}
        for path in links:
            if path in keep:
                continue
            children = [c for c, parent in links.items() if parent == path]
            if len(children) == 1:
                return path, children[0]
        return None

    def merge(self, parent_path, child_path):
        """The child's grains go into its parent, which takes the child's place."""
        parent = Descriptor.load(parent_path)
        child = Descriptor.load(child_path)
        self.merging.add(parent_path)
        self.host.publish_policy()
        target = open_link(parent)
        source = open_link(child)
        try:
            for start, count, known in source.runs(0, source.capacity):
                for at in range(start, start + count if known else start, PIECE):
                    length = min(PIECE, start + count - at)
                    self.store(target, at, source.read(at, length))
            os.fsync(target.fd)
        finally:
            source.close()
            target.close()
            self.merging.discard(parent_path)
        parent.cid = child.cid
        parent.save()
        for path, above in self.links().items():
            if above == child_path:
                grandchild = Descriptor.load(path)
                grandchild.parent_hint = os.path.basename(parent_path)
                grandchild.parent_cid = parent.cid
                grandchild.save()
        for s in self.record["snapshots"]:
            for slot, path in s["disks"].items():
                if path == child_path:
                    s["disks"][slot] = parent_path
        vmx = self.vmx()
        for d in self.disks(vmx):
            if d.path == child_path:
                vmx.set(d.slot + ".fileName", self.name_for_vmx(parent_path))
        vmx.save(self.vmx_path)
        self.delete_link(child_path)

    @staticmethod
    def store(target, offset, data):
        """Into a base as it comes; into a delta in whole grains of its own."""
        if not isinstance(target, Delta):
            target.write(offset, data)
            return
        assert offset % target.grain == 0, GRAIN_BYTES
        target.write(offset, data)

    def delete_link(self, path):
        descriptor = Descriptor.load(path)
        self.host.delete_own(descriptor.extent_path)
        self.host.delete_own(path)
        self.written.discard(path)

    def revert(self, uid):
        """Back to a snapshot: what was written since is thrown away."""
        with self.lock:
            s = self.snapshot(uid)
            before = set(self.links())
            vmx = self.vmx()
            for d in self.disks(vmx):
                if d.slot not in s["disks"]:
                    continue
                old = self.chain(d)
                child = self.add_child(s["disks"][d.slot])
                with Chain(child) as new:
                    history = self.history(d.slot)
                    for start, stop in _different(old, new):
                        history.save(old, start, stop - start)
                vmx.set(d.slot + ".fileName", self.name_for_vmx(child))
            self.close_chains()
            vmx.save(self.vmx_path)
            self.record["current"] = uid
            self.record["power"] = "off"
            for path in before - set(self.links()):
                if os.path.exists(path):
                    self.delete_link(path)
            self.write_vmsd()
            self.host.changed()

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
            self.host.delete_own(self.swap_file())
            if suspend:
                self.host.write_own(self.suspend_file(), secrets.token_bytes(65536))
            vmx = self.vmx()
            vmx.set("checkpoint.vmState", os.path.basename(self.suspend_file()) if suspend else "")
            vmx.set("cleanShutdown", "TRUE")
            vmx.save(self.vmx_path)
            self.log("PowerOff" if not suspend else "Suspend")
            self.host.changed()


def _different(a, b):
    """Ranges where two chains of one disk may differ: all that either may hold."""
    from .disk import merge_ranges
    return merge_ranges(a.ranges() + b.ranges())


__all__ = ["Disk", "DiskError", "Fault", "Machine"]
