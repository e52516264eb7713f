"""vmkfstools: disks and datastores (ESXi host facts, 5)."""

import os
import re
import secrets
import threading
import time

from .dictfile import Descriptor
from .disk import PIECE, Chain, DiskError, data_path
from .vmfiles import geometry

LOCKED = DiskError(16392, "Failed to lock the file")
NOT_FOUND = DiskError(25, "The system cannot find the file specified")
NOT_A_DISK = DiskError(15, "The file specified is not a virtual disk")
EXISTS = DiskError(39, "The file already exists")
NO_SPACE = DiskError(13, "There is not enough space on the file system for the selected operation")
IO_ERROR = DiskError(327689, "Input/output error")
MB = 1 << 20

FORMATS = {"zeroedthick": "VMFS zeroedthick", "thin": "VMFS thin-provisioned",
           "eagerzeroedthick": "VMFS eagerzeroedthick",
           "2gbsparse": "sparse with 2GB maximum extent size"}


class Vmkfstools:
    def __init__(self, host):
        self.host = host
        self.readers = {}
        self.readers_lock = threading.Lock()
        host.readers = self.readers

    def run(self, call):
        a = call.argv[1:]
        try:
            return self.dispatch(call, a)
        except IndexError:
            call.err("vmkfstools: option requires an argument\n")
            return 1

    def dispatch(self, call, a):
        if not a:
            call.err("No valid command specified\nOPTIONS FOR FILE SYSTEMS:\n")
            return 1
        if a[0] == "-P":
            return self.file_system(call, a[1:])
        if a[0] in ("-t0", "-t") or a[:2] == ["-t", "0"]:
            return self.map(call, a[-1])
        simple = {"-D": self.dump_lock, "-q": self.query_rdm, "--queryrdm": self.query_rdm,
                  "--extendedstatinfo": self.stat_info, "-g": self.geometry, "-e": self.chain_check}
        if a[0] in simple:
            return simple[a[0]](call, a[1])
        if a[0] == "-J":
            return self.uuid(call, a[1], a[2])
        if a[0] == "-U":
            return self.delete(call, a[1])
        if a[0] == "-E":
            return self.rename(call, a[1], a[2])
        if "-i" in a:
            return self.clone(call, a)
        if "-c" in a:
            return self.create(call, a)
        call.err("vmkfstools: unrecognized option '%s'\n" % a[0])
        return 1

    def real(self, call, path):
        return self.host.real(path, call.cwd)

    # locks

    def reading(self, path, add):
        st = os.stat(path)
        key = (st.st_dev, st.st_ino)
        with self.readers_lock:
            self.readers[key] = self.readers.get(key, 0) + (1 if add else -1)
            if self.readers[key] == 0:
                del self.readers[key]

    def load(self, path):
        """Descriptors from the leaf to the base; DiskError for what cannot be opened."""
        out = []
        try:
            while path is not None:
                out.append(Descriptor.load(path))
                path = out[-1].parent_path
        except FileNotFoundError:
            raise NOT_FOUND from None
        except (ValueError, IsADirectoryError):
            raise NOT_A_DISK from None
        if not out[0].sectors:
            raise NOT_A_DISK
        for child, parent in zip(out, out[1:]):
            if child.parent_cid != parent.cid:
                raise DiskError(18, "The parent virtual disk has been modified since the child was "
                                "created. The content ID of the parent virtual disk does not match "
                                "the corresponding parent content ID in the child")
        for d in out:
            if not os.path.exists(data_path(d)):
                raise NOT_FOUND
            if self.host.lock_mode(data_path(d)) in ("X", "M"):
                raise LOCKED
        return out

    def fail(self, call, prefix, error):
        call.err("%s%s (%d).\n" % (prefix, error.text, error.code))
        return 255

    # file systems

    def file_system(self, call, a):
        human = "-h" in a
        path = [x for x in a if not x.startswith("-")][0]
        d = self.host.datastore_of(self.real(call, path))
        if d is None:
            call.err("Could not open %s\nError: Not a directory\n" % path)
            return 255
        free = self.host.free_bytes(d)
        nfs = d.kind.startswith("NFS")
        version = {"VMFS-6": "VMFS-6.82 (Raw Major Version: 24)",
                   "VMFS-5": "VMFS-5.81 (Raw Major Version: 14)"}.get(d.kind, "NFS-1.00")
        block = 4096 if nfs else MB
        call.out("%s file system spanning 1 partitions.\nFile system label (if any): %s\n"
                 "Mode: public%s\n" % (version, d.name, "" if nfs else " ATS-only"))
        if human:
            call.out("Capacity %.1f GB, %.1f GB available, file block size 1 MB, max supported "
                     "file size 64 TB\n" % (d.size / 2**30, free / 2**30))
        else:
            call.out("Capacity %d (%d file blocks * %d), %d (%d blocks) avail%s\n" % (
                d.size, d.size // block, block, free, free // block,
                "" if nfs else ", max supported file size 70368744177664"))
        call.out("UUID: %s\n" % d.uuid)
        if nfs:
            call.out('Partitions spanned (on "notDCS"):\n\tnfs:%s\n' % d.name)
        else:
            call.out('Partitions spanned (on "lvm"):\n\tnaa.6000c29%s:3\n' % ("0" * 25))
        call.out("Is Native Snapshot Capable: NO\n")
        return 0

    def dump_lock(self, call, path):
        real = self.real(call, path)
        try:
            st = os.stat(real)
        except FileNotFoundError:
            call.err("Could not get the dump information for '%s' (rv -1)\n"
                     "Error: No such file or directory\n" % path)
            return 255
        mode = {"X": 1, "R": 2, "M": 3}.get(self.host.lock_mode(real), 0)
        owner = "00000000-00000000-0000-000000000000"
        holder = "5f0d1a2b-3c4d5e6f-0011-005056abcdef"
        call.out("Lock [type 10c00001 offset 236560384 v 44, hb offset 4091904\n"
                 "gen 6155, mode %d, owner %s mtime 23668\n"
                 % (mode, holder if mode == 1 else owner))
        if self.host.profile == "6.7" and mode == 0:
            call.out("num 0 gblnum 0 gblgen 0 gblbrk 0]\n")
        else:
            call.out("num %d gblnum 0 gblgen 0 gblbrk 0]\n" % (1 if mode else 0))
        if mode == 2:
            call.out("RO Owner[0] HB Offset 4091904 %s\n" % holder)
        if mode == 3:
            call.out("MW Owner[0] HB Offset 4091904 %s\n" % holder)
        call.out("Addr <4, 558, %d>, gen 6, links 1, type reg, flags 0, uid 0, gid 0, mode 600\n"
                 "len %d, nb %d tbz 0, cow 0, newSinceEpoch 0, zla 3, bs 1048576\n"
                 % (st.st_ino % 1000, st.st_size, -(-st.st_blocks * 512 // MB)))
        return 0

    # single disks

    def query_rdm(self, call, path):
        try:
            d = Descriptor.load(self.real(call, path))
        except (OSError, ValueError):
            return self.fail(call, "Failed to open '%s': " % path, NOT_FOUND)
        if not d.is_rdm:
            call.out("%s is not an rdm\n" % path)
            return 0
        kind = "Passthrough" if "Passthrough" in d.create_type else "Non-passthrough"
        call.out("Disk %s is a %s Raw Device Mapping\nMaps to: vml.0200000000%s\n"
                 % (path, kind, os.path.basename(data_path(d)).replace("naa.", "")))
        return 0

    def stat_info(self, call, path):
        try:
            chain = self.load(self.real(call, path))
        except DiskError as e:
            return self.fail(call, "Failed to open '%s': " % path, e)
        used = sum(os.stat(data_path(d)).st_blocks * 512 for d in chain)
        call.out("Capacity bytes: %d \nUsed bytes: %d \nUnshared bytes: %d \n"
                 % (chain[0].capacity, used, used))
        return 0

    def geometry(self, call, path):
        try:
            d = self.load(self.real(call, path))[-1]
        except DiskError as e:
            return self.fail(call, "Failed to open '%s': " % path, e)
        call.out("Geometry information C/H/S is %s/%s/%s\n" % tuple(
            d.ddb.get("geometry." + k, "0") for k in ("cylinders", "heads", "sectors")))
        return 0

    def chain_check(self, call, path):
        try:
            self.load(self.real(call, path))
        except DiskError as e:
            call.out("Disk chain is not consistent : %s (%d).\n" % (e.text, e.code))
            return 255
        call.out("Disk chain is consistent.\n")
        return 0

    def uuid(self, call, what, path):
        real = self.real(call, path)
        try:
            d = Descriptor.load(real)
        except (OSError, ValueError):
            return self.fail(call, "Failed to open '%s': " % path, NOT_FOUND)
        if what == "setuuid":
            h = "6000c29" + secrets.token_hex(13)[:25]
            pairs = re.findall("..", h)
            d.ddb["uuid"] = " ".join(pairs[:8]) + "-" + " ".join(pairs[8:])
            d.save()
            return 0
        call.out("UUID is %s\n" % d.ddb.get("uuid", "").replace("-", " "))
        return 0

    def delete(self, call, path):
        real = self.real(call, path)
        prefix = "Failed to delete virtual disk: "
        try:
            d = Descriptor.load(real)
        except FileNotFoundError:
            return self.fail(call, prefix, NOT_FOUND)
        except ValueError:
            return self.fail(call, prefix, NOT_A_DISK)
        if self.host.lock_mode(data_path(d)):
            return self.fail(call, prefix, LOCKED)
        self.host.delete_own(d.extent_path)
        self.host.delete_own(real)
        return 0

    def rename(self, call, old, new):
        a, b = self.real(call, old), self.real(call, new)
        prefix = "Failed to rename '%s' to '%s': " % (old, new)
        try:
            d = Descriptor.load(a)
        except FileNotFoundError:
            return self.fail(call, prefix, NOT_FOUND)
        except ValueError:
            return self.fail(call, prefix, NOT_A_DISK)
        if os.path.exists(b):
            return self.fail(call, prefix, EXISTS)
        if self.host.lock_mode(data_path(d)):
            return self.fail(call, prefix, LOCKED)
        old_data = d.extent_path
        d.extent = re.sub(r"\.vmdk$", "", os.path.basename(b)) + re.sub(
            "^" + re.escape(re.sub(r"\.vmdk$", "", os.path.basename(a))), "", d.extent)
        d.path = b
        os.rename(old_data, d.extent_path)
        d.save()
        os.unlink(a)
        for gone, made in ((a, b), (old_data, d.extent_path)):
            if self.host.shown(gone) in self.host.owned:
                self.host.owned.discard(self.host.shown(gone))
                self.host.own(made)
        return 0

    # the extent map

    def map(self, call, path):
        how = self.host.knobs["t0"]
        try:
            chain = self.load(self.real(call, path))
        except DiskError as e:
            call.err("Failed to open virtual disk: %s %d\n" % (e.text, e.code))
            return 255
        if how == "fail" or chain[0].extent_type != "VMFS":
            call.err("Could not open file for mapping: 24\n")
            return 255
        d = chain[0]
        store = self.host.datastore_of(os.path.dirname(d.path))
        if store is None or store.kind.startswith("NFS"):
            call.err("Could not open file for mapping: 24\n")
            return 255
        call.out("Mapping for file %s (%d bytes in size):\n" % (path, d.capacity))
        rows = self.map_rows(d, store, how)
        if how == "cut":
            call.out("".join(rows[:len(rows) // 2])[:-20])
            return 0
        call.out("".join(rows) + "\n")
        return 0

    def map_rows(self, d, store, how):
        extents = allocation(d.extent_path, d.capacity)
        if how == "per-block":
            extents = [(at, min(MB, start + length - at), data)
                       for start, length, data in extents
                       for at in range(start, start + length, MB)]
        if how == "lie":
            last = max((n for n, x in enumerate(extents) if x[2]), default=None)
            extents = [(start, length, data and n != last)
                       for n, (start, length, data) in enumerate(extents)]
        z = self.host.knobs["t0-z"]
        thick = d.ddb.get("thinProvisioned") != "1"
        reserved = z == "all" or (z == "thick" and thick)
        first = 1024 * MB + os.stat(d.extent_path).st_ino % 100000 * MB
        rows = []
        for start, length, data in extents:
            head = "[% 12d:% 12d] --> " % (start, length)
            if data or reserved:
                place = first + start
                rows.append("%s[VMFS %s- LVID:%s/%s/1:(% 12d --> % 12d)]\n" % (
                    head, "-" if data else "Z", store.uuid, store.uuid, place, place + length))
            else:
                rows.append("%s[NOMP -- :(% 12d --> % 12d)]\n" % (head, 0, length))
        return rows

    # new disks

    def create(self, call, a):
        options, names = split_options(a, ("-c", "-d", "-a", "-W"))
        path = names[0]
        kind = options.get("-d", "zeroedthick")
        prefix = "Failed to create virtual disk: "
        m = re.match(r"^(\d+)([bBsSkKmMgGtT]?)$", options["-c"])
        if not m:
            call.err("Invalid size: %s\n" % options["-c"])
            return 1
        size = int(m.group(1)) * {"": 1, "b": 1, "s": 512, "k": 1 << 10, "m": MB, "g": 1 << 30,
                                  "t": 1 << 40}[m.group(2).lower()]
        real = self.real(call, path)
        if os.path.exists(real):
            return self.fail(call, prefix, EXISTS)
        if not os.path.isdir(os.path.dirname(real)):
            return self.fail(call, prefix, NOT_FOUND)
        if self.host.knobs.on("out-of-space") or not self.has_room(real, size, kind):
            return self.fail(call, prefix, NO_SPACE)
        self.new_disk(real, size, kind, None)
        call.out("\rCreate: 100% done.\n")
        return 0

    def has_room(self, real, size, kind):
        store = self.host.datastore_of(os.path.dirname(real))
        return kind in ("thin", "2gbsparse") or store is None or \
            self.host.free_bytes(store) >= size

    def new_disk(self, real, size, kind, like):
        """Descriptor and an empty -flat; like: the base whose database is taken over."""
        d = Descriptor(real)
        d.sectors = -(-size // 512)
        d.cid = like.cid if like else "%08x" % (secrets.randbits(32) & 0xfffffffe)
        d.ddb = {"adapterType": "lsilogic", "virtualHWVersion": "14",
                 "longContentID": secrets.token_hex(12) + d.cid, **geometry(d.sectors, "scsi")}
        pairs = re.findall("..", "6000c29" + secrets.token_hex(13)[:25])
        d.ddb["uuid"] = " ".join(pairs[:8]) + "-" + " ".join(pairs[8:])
        if like:
            d.ddb["adapterType"] = like.ddb.get("adapterType", "lsilogic")
        if kind == "thin":
            d.ddb["thinProvisioned"] = "1"
        d.extent = re.sub(r"\.vmdk$", "", os.path.basename(real)) + "-flat.vmdk"
        fd = os.open(d.extent_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, d.sectors * 512)
        d.save()
        return fd

    def clone(self, call, a):
        options, names = split_options(a, ("-i", "-d", "-a", "-W"))
        source, target = options["-i"], names[0]
        kind = options.get("-d", "zeroedthick")
        real, copy = self.real(call, source), self.real(call, target)
        try:
            descriptors = self.load(real)
        except DiskError as e:
            return self.fail(call, "Failed to open '%s': " % source, e)
        if kind not in ("thin", "zeroedthick", "eagerzeroedthick"):
            return self.fail(call, "Failed to clone disk: ", DiskError(
                24, "The specified feature is not supported by this version"))
        call.out("Destination disk format: %s\nCloning disk '%s'...\n" % (FORMATS[kind], source))
        if os.path.exists(copy):
            return self.fail(call, "Failed to clone disk: ", EXISTS)
        if not os.path.isdir(os.path.dirname(copy)):
            return self.fail(call, "Failed to clone disk: ", NOT_FOUND)
        if self.host.knobs.on("out-of-space") or not self.has_room(
                copy, descriptors[0].capacity, kind):
            return self.fail(call, "Failed to clone disk: ", NO_SPACE)
        held = [data_path(d) for d in descriptors]
        for path in held:
            self.reading(path, True)
        try:
            fd = self.new_disk(copy, descriptors[0].capacity, kind, descriptors[-1])
            try:
                return self.copy(call, real, fd)
            finally:
                os.close(fd)
        finally:
            for path in held:
                self.reading(path, False)

    def copy(self, call, real, fd):
        """Copy the flattened chain with progress; a partial copy stays when it fails."""
        knobs = self.host.knobs
        fail_at = knobs["clone-fail-at"]
        shown = -1
        done = 0
        with Chain(real) as chain:
            for start, stop in chain.ranges():
                for at in range(start, stop, PIECE):
                    if call.gone():
                        return 1
                    data = chain.read(at, min(PIECE, stop - at))
                    os.pwrite(fd, data, at)
                    done += len(data)
                    if knobs.number("clone-rate"):
                        time.sleep(len(data) / knobs.number("clone-rate"))
                    percent = min(99, (at + len(data)) * 100 // chain.capacity)
                    if percent != shown:
                        shown = percent
                        call.out("\rClone: %d%% done." % percent)
                    if fail_at and percent >= int(fail_at):
                        return self.fail(call, "Failed to clone disk: ", IO_ERROR)
        if fail_at:
            return self.fail(call, "Failed to clone disk: ", IO_ERROR)
        call.out("\rClone: 100% done.\n")
        return 0


def split_options(a, with_value):
    options, names = {}, []
    at = 0
    while at < len(a):
        if a[at] in with_value:
            options[a[at]] = a[at + 1]
            at += 2
            continue
        if not a[at].startswith("-"):
            names.append(a[at])
        at += 1
    return options, names


def allocation(path, capacity):
    """(start, length, has data) of a file in VMFS blocks of 1 MiB, merged, covering all of it."""
    out = []
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def add(start, stop, data):
        if start >= stop:
            return
        if out and out[-1][2] == data:
            out[-1] = (out[-1][0], stop - out[-1][0], data)
        else:
            out.append((start, stop - start, data))
    try:
        covered = at = 0
        while at < capacity:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                break
            stop = os.lseek(fd, start, os.SEEK_HOLE)
            begin = max(covered, start // MB * MB)
            end = min(capacity, -(-stop // MB) * MB)
            add(covered, begin, False)
            add(begin, end, True)
            covered = max(covered, end)
            at = stop
        add(covered, capacity, False)
    finally:
        os.close(fd)
    return out
