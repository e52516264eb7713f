"""Snapshots of a VM: freezing disks, taking snapshots out of the tree, merging what is left.

A link (a disk's descriptor and its data) is frozen while a snapshot names it, and a leaf while the
.vmx does.  Every other link is merged with its child; so the files say by themselves whether a
consolidation is needed.
"""

import os
import re
import secrets
import threading
import time

from .delta import ABSENT, DATA, UNMAPPED
from .dictfile import Descriptor, name_from
from .disk import FORMS, PIECE, Chain, data_path, open_link
from .sesparse import mark_replay


class Fault(Exception):
    """A fault of the management daemon: type and message as vim-cmd prints them."""

    def __init__(self, kind, message, **fields):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.fields = fields


class Snapshots:
    """The part of Machine that knows about snapshots."""

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

    def superfluous(self):
        """Links that are no leaf, not frozen, and on which no other VM stands."""
        keep = self.frozen() | {d.path for d in self.disks()}
        found = [p for p in self.links() if p not in keep]
        if found:
            others = self.host.links_of_others(self)
            found = [p for p in found if p not in others]
        return found

    def needs_consolidation(self):
        """Some link is neither a leaf nor frozen by a snapshot of the tree."""
        if not self.valid():
            return False
        return bool(self.superfluous())

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
                    self.truth(d.slot).mark("%d" % uid, self.chain(d))
                if d.independent:
                    continue
                self.settle_journal(d.path)
                child = self.add_child(d.path)
                frozen[d.slot] = d.path
                self.open_journal(child)
                vmx.set(d.slot + ".fileName", self.name_for_vmx(child))
            self.close_chains()
            self.record["last_uid"] = uid
            made = {"id": uid, "name": name, "description": description,
                    "created": int(time.time() * 1000000), "quiesced": bool(quiesce),
                    "state": "on" if memory and self.power == "on" else "off",
                    "parent": self.record["current"], "disks": frozen}
            self.record["snapshots"].append(made)
            self.record.setdefault("made", []).append({"id": uid, "name": name})
            self.record["current"] = uid
            state = os.path.join(self.folder, "%s-Snapshot%d.vmsn" % (self.file_stem(), uid))
            self.host.write_own(state, b"\xd2\xbe\xd2\xbe" + secrets.token_bytes(28000))
            vmx.save(self.vmx_path)
            self.write_vmsd()
            self.log("Checkpoint_Snapshot: snapshot %d" % uid)
            self.host.changed()
            return made

    def settle_journal(self, path):
        """A leaf is frozen, or its VM is off: its journal is replayed, as the knob says."""
        how = self.host.knobs["journal"]
        leaf = sesparse_at(path)
        if leaf is None or (how == "stuck" and self.power == "on"):
            return
        if re.match(r"^[0-9.]+$", how):
            timer = threading.Timer(float(how), mark_replay, (leaf.extent_path, False))
            timer.daemon = True
            timer.start()
            return
        mark_replay(leaf.extent_path, False)

    def open_journal(self, path):
        """A leaf of a running VM is in use."""
        leaf = sesparse_at(path)
        if leaf is not None and self.power == "on" and self.host.knobs["journal"] != "clean":
            mark_replay(leaf.extent_path, True)

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
        return new_child(self.host, parent, os.path.join(folder, "%s-%06d" % (stem, number)),
                         self.record.get("deltas"))

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
                for p in s["disks"].values()} | {d.path for d in self.disks()} | \
            self.host.links_of_others(self)
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
                for path in set(before) - set(self.links()) - self.host.links_of_others(self):
                    if os.path.exists(path):
                        self.delete_link(path)
            self.write_vmsd()
            self.host.changed()
            if busy:
                raise Fault("vim.fault.GenericVmConfigFault", "An error occurred while "
                            "consolidating disks: One or more disks are busy.")
            for d in self.disks():
                if Descriptor.load(d.path).parent_path is None:
                    self.truth(d.slot).settle(self.chain(d).base)

    def next_merge(self):
        links = self.links()
        for path in self.superfluous():
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
        try:
            with Chain(parent_path) as target:
                source = open_link(child)
                try:
                    copy_link(source, target)
                finally:
                    source.close()
                os.fsync(target.links[0].fd)
        finally:
            self.merging.discard(parent_path)
        parent.cid = child.cid
        parent.save()
        for path, above in self.links().items():
            if above == child_path:
                grandchild = Descriptor.load(path)
                grandchild.parent_hint = name_from(os.path.dirname(path), parent_path)
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

    def delete_link(self, path):
        descriptor = Descriptor.load(path)
        self.host.delete_own(descriptor.extent_path)
        if descriptor.change_track:
            self.host.delete_own(descriptor.change_track_path)
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
                child = self.add_child(s["disks"][d.slot])
                self.revert_truth(d, uid, child)
                vmx.set(d.slot + ".fileName", self.name_for_vmx(child))
            self.close_chains()
            vmx.save(self.vmx_path)
            self.record["current"] = uid
            self.record["power"] = "off"
            for path in before - set(self.links()) - self.host.links_of_others(self):
                if os.path.exists(path):
                    self.delete_link(path)
            self.write_vmsd()
            self.host.changed()

    def discard_leaves(self):
        """What was written since the last snapshot is thrown away with the power, as of a disk that
        is not persistent: the same names, empty again."""
        with self.lock:
            current = self.snapshot(self.record["current"])
            if current is None or self.power == "on":
                raise Fault("vim.fault.InvalidState", "Only a VM that is off and has a snapshot.")
            self.close_chains()
            for d in self.disks():
                if d.slot not in current["disks"]:
                    continue
                parent = Descriptor.load(Descriptor.load(d.path).parent_path)
                self.delete_link(d.path)
                child = new_child(self.host, parent, os.path.splitext(d.path)[0],
                                  self.record.get("deltas"))
                self.revert_truth(d, current["id"], child)
            self.close_chains()
            self.host.changed()

    def replace_base(self, slot, raw_path):
        """Another disk comes to lie under the name of this one: its base has other bytes and
        another content id, and whoever did it has made the child fit."""
        with self.lock:
            if self.power == "on":
                raise Fault("vim.fault.InvalidState", "The VM is on.")
            self.close_chains()
            disk, links = self.disk(slot), self.links()
            path = disk.path
            while links[path] is not None:
                path = links[path]
            base = Descriptor.load(path)
            with open(raw_path, "rb") as new, open(data_path(base), "r+b") as f:
                f.truncate(0)
                while True:
                    piece = new.read(PIECE)
                    if not piece:
                        break
                    f.write(piece)
                f.truncate(base.capacity)
            base.cid = "%08x" % (secrets.randbits(32) & 0xfffffffe)
            base.save()
            for above, parent in links.items():
                if parent == path:
                    child = Descriptor.load(above)
                    child.parent_cid = base.cid
                    child.save()
            self.forget_truth(slot)
            with Chain(disk.path) as chain:
                self.truth(slot).begin(chain)
            self.host.changed()

    def revert_truth(self, disk, uid, child):
        truth = self.truth(disk.slot)
        try:
            truth.revert(self.chain(disk).base, "%d" % uid)
        except KeyError:
            # Nothing was kept of that snapshot: what the deltas hold is all there is.
            self.forget_truth(disk.slot)
            with Chain(child) as chain:
                if self.host.knobs["keep-truth"] != "off":
                    self.truth(disk.slot).begin(chain)


def sesparse_at(path):
    """The descriptor, if it is there and one of a seSparse delta."""
    try:
        d = Descriptor.load(path)
    except (OSError, ValueError):
        return None
    return d if d.extent_type == "SESPARSE" else None


def copy_link(source, target):
    """All that a link holds goes into the chain below it, as zeros where it is known to be zero."""
    for start, count, state in source.states(0, source.capacity):
        if state == ABSENT:
            continue
        if state != DATA:
            target.zero(start, count, state == UNMAPPED)
            continue
        for at in range(start, start + count, PIECE):
            target.write(at, source.read(at, min(PIECE, start + count - at)))


def new_child(host, parent, stem, wanted=None):
    """Descriptor and empty delta STEM.vmdk above a link; the path of its descriptor."""
    child = Descriptor(stem + ".vmdk")
    child.extent_type = host.snapshot_kind(os.path.dirname(stem), parent.capacity, wanted)
    se_sparse = child.extent_type == "SESPARSE"
    child.create_type = "seSparse" if se_sparse else "vmfsSparse"
    child.extent = "%s-%s.vmdk" % (os.path.basename(stem), "sesparse" if se_sparse else "delta")
    child.cid = child.parent_cid = parent.cid
    child.parent_hint = name_from(os.path.dirname(stem), parent.path)
    child.sectors = parent.sectors
    child.ddb = {"longContentID": secrets.token_hex(12) + child.cid}
    options = {}
    if se_sparse:
        child.ddb["grain"] = "8"
        options["reserved"] = host.facts["sesparse_reserved"]
    FORMS[child.extent_type].create(child.extent_path, parent.capacity, **options).close()
    host.own(child.extent_path)
    if parent.change_track:
        child.add_change_track(host)
    child.save()
    host.own(child.path)
    return child.path
