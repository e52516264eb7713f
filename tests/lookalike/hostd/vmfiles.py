"""Making the files of a new VM from a test's description."""

import os
import random
import re
import secrets
import uuid

from .dictfile import Descriptor, Dictionary
from .snapshots import new_child

CONTROLLERS = {"scsi": "pvscsi", "sata": None, "nvme": None, "ide": None}


def vmware_uuid(text):
    """`56 4d 1a … -…`: 16 bytes as VMware writes them."""
    h = text.replace("-", "").replace(" ", "").lower()
    pairs = [h[i:i + 2] for i in range(0, 32, 2)]
    return " ".join(pairs[:8]) + "-" + " ".join(pairs[8:])


def parse_size(value):
    if isinstance(value, int):
        return value
    m = re.match(r"^(\d+)([kKmMgGtT]?)$", value)
    if not m:
        raise ValueError("%s is not a size" % value)
    return int(m.group(1)) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[m.group(2).lower()]


def copy_sparse(source, target_fd, length):
    with open(source, "rb") as f:
        at = 0
        while at < length:
            try:
                start = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            stop = min(os.lseek(f.fileno(), start, os.SEEK_HOLE), length)
            os.lseek(f.fileno(), start, os.SEEK_SET)
            os.lseek(target_fd, start, os.SEEK_SET)
            while start < stop:
                n = os.sendfile(target_fd, f.fileno(), start, min(stop - start, 1 << 26))
                if n == 0:
                    break
                start += n
            at = stop


def fill_seeded(fd, length, seed, share):
    """Blocks of 64 KiB at random places, about `share` of the disk, the same for equal seeds."""
    r = random.Random(seed)
    block = 65536
    for index in range((length + block - 1) // block):
        if r.random() < share:
            at = index * block
            os.pwrite(fd, r.randbytes(min(block, length - at)), at)


def fill_content(path, length, content, seed_default):
    content = content or {}
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, length)
        if "file" in content:
            copy_sparse(content["file"], fd, length)
        elif content.get("kind") != "empty":
            fill_seeded(fd, length, content.get("seed", seed_default), content.get("share", 0.3))
    finally:
        os.close(fd)


def geometry(sectors, bus):
    heads, per_track = (16, 63) if bus == "ide" else (255, 63) if sectors >= 2097152 else (64, 32)
    return {"geometry.cylinders": str(min(65535, -(-sectors // (heads * per_track)))),
            "geometry.heads": str(heads), "geometry.sectors": str(per_track)}


def create_disk(host, path, spec, hw, slot):
    """Descriptor and data of one base disk."""
    size = parse_size(spec.get("size") or os.path.getsize(spec["content"]["file"]))
    if size % 512 != 0 or size == 0:
        raise ValueError("disk %s: %d bytes are not whole sectors" % (slot, size))
    stem = os.path.splitext(os.path.basename(path))[0]
    d = Descriptor(path)
    d.sectors = size // 512
    d.cid = "%08x" % (secrets.randbits(32) & 0xfffffffe)
    bus = re.match(r"\D+", slot).group(0)
    d.ddb = {"adapterType": "ide" if bus == "ide" else "lsilogic",
             "longContentID": secrets.token_hex(12) + d.cid, "virtualHWVersion": hw.split("-")[1]}
    d.ddb.update(geometry(d.sectors, bus))
    ddb_uuid = spec.get("uuid", "6000C29" + secrets.token_hex(13)[:25])
    if ddb_uuid:
        d.ddb["uuid"] = vmware_uuid(ddb_uuid)
    if host.profile == "8.0":
        d.ddb["deletable"] = "true"
    if spec.get("rdm"):
        create_rdm(host, d, spec, size, stem)
    else:
        if spec.get("thin", True):
            d.ddb["thinProvisioned"] = "1"
        d.extent = stem + "-flat.vmdk"
        fill_content(d.extent_path, size, spec.get("content"), "%s %s" % (stem, slot))
    if not spec.get("thin", True):
        d.ddb.pop("thinProvisioned", None)
    if spec.get("ctk"):
        d.add_change_track(host)
    d.save()
    host.own(d.path)
    host.own(d.extent_path)


def create_rdm(host, d, spec, size, stem):
    """A pointer file, and the device it points to."""
    physical = spec["rdm"] == "physical"
    d.create_type = "vmfsPassthroughRawDeviceMap" if physical else "vmfsRawDeviceMap"
    d.extent_type = "VMFSRDM"
    d.extent = stem + ("-rdmp.vmdk" if physical else "-rdm.vmdk")
    device = "/vmfs/devices/disks/naa." + secrets.token_hex(16)
    fill_content(host.root + device, size, spec.get("content"), device)
    host.own(host.root + device)
    with open(d.extent_path, "w", encoding="ascii") as f:
        f.write("RDM %s\n" % device)


def create_vm(host, spec):
    """Make the folder and files of a VM; the path of its .vmx on the host."""
    name = spec["name"]
    store = host.datastore(spec.get("datastore") or host.datastores[0].name)
    stem = spec.get("dir") or re.sub(r"[/\\\0\n|]", "_", name)
    folder = host.root + store.path + "/" + stem
    os.makedirs(folder)
    host.own(folder)
    hw = spec.get("hw") or host.facts["hw"]
    vmx = Dictionary()
    for key, value in (
            (".encoding", "UTF-8"), ("config.version", "8"),
            ("virtualHW.version", hw.split("-")[1]), ("nvram", stem + ".nvram"),
            ("displayName", name), ("extendedConfigFile", stem + ".vmxf"),
            ("guestOS", spec.get("guest", "debian11-64")),
            ("memSize", str(spec.get("memory", 1024))), ("numvcpus", str(spec.get("cpus", 1))),
            ("uuid.bios", vmware_uuid(spec.get("uuid") or "564d" + secrets.token_hex(14))),
            ("vc.uuid", vmware_uuid(spec.get("instance_uuid") or uuid.uuid4().hex)),
            ("uuid.location", vmware_uuid("564d" + secrets.token_hex(14))),
            ("ethernet0.present", "TRUE"), ("ethernet0.virtualDev", "vmxnet3"),
            ("ethernet0.networkName", "VM Network"), ("ethernet0.addressType", "generated"),
            ("ethernet0.generatedAddress", "00:0c:29:" + ":".join(
                re.findall("..", secrets.token_hex(3))))):
        vmx.set(key, value)
    if spec.get("notes"):
        vmx.set("annotation", spec["notes"])
    for n, disk in enumerate(spec.get("disks", ())):
        add_disk(host, vmx, folder, stem, n, dict(disk, deltas=spec.get("deltas")), hw)
    for key, value in spec.get("vmx", {}).items():
        vmx.set(key, value)
    path = os.path.join(folder, stem + ".vmx")
    vmx.save(path)
    os.chmod(path, 0o755)
    host.own(path)
    host.write_own(os.path.join(folder, stem + ".nvram"), b"MRVN" + secrets.token_bytes(8680))
    host.write_own(os.path.join(folder, stem + ".vmxf"),
                   b'<?xml version="1.0"?>\n<Foundry>\n<VM>\n</VM></Foundry>\n')
    host.write_own(os.path.join(folder, "vmware.log"), b"")
    return host.shown(path)


def clone_source(host, wanted):
    """(truth, path of the frozen link, label) of {"vm", "slot", "snapshot": id or name}."""
    m = host.machine(wanted["vm"])
    for s in m.record["snapshots"]:
        if str(wanted["snapshot"]) in (str(s["id"]), s["name"]):
            slot = wanted.get("slot", "scsi0:0")
            return m.truth(slot), s["disks"][slot], str(s["id"])
    raise ValueError("VM %s has no snapshot %s" % (wanted["vm"], wanted["snapshot"]))


def add_disk(host, vmx, folder, stem, number, spec, hw):
    """One disk of a VM: new, another VM's (`share`), or a linked clone of one (`clone_of`)."""
    slot = spec.get("slot") or "scsi0:%d" % number
    bus, controller = re.match(r"(\D+)(\d+):", slot).groups()
    vmx.set("%s%s.present" % (bus, controller), "TRUE")
    if CONTROLLERS[bus]:
        vmx.set("%s%s.virtualDev" % (bus, controller), CONTROLLERS[bus])
    if spec.get("share"):
        shown = spec["share"]
    else:
        file_stem = spec.get("file") or (stem if number == 0 else "%s_%d" % (stem, number))
        place = folder
        if spec.get("datastore"):
            place = host.root + host.datastore(spec["datastore"]).path + "/" + stem
            os.makedirs(place, exist_ok=True)
            host.own(place)
        path = os.path.join(place, file_stem + ".vmdk")
        if spec.get("clone_of"):
            parent = Descriptor.load(clone_source(host, spec["clone_of"])[1])
            path = new_child(host, parent, os.path.join(place, file_stem + "-000001"),
                             spec.get("deltas"))
        else:
            create_disk(host, path, spec, hw, slot)
        shown = os.path.basename(path) if place == folder else host.shown(path)
    vmx.set(slot + ".deviceType", "scsi-hardDisk" if bus == "scsi" else "disk")
    vmx.set(slot + ".fileName", shown)
    vmx.set(slot + ".present", "TRUE")
    if spec.get("mode", "persistent") != "persistent":
        vmx.set(slot + ".mode", spec["mode"])
    if spec.get("sharing"):
        vmx.set(slot + ".sharing", spec["sharing"])


__all__ = ["copy_sparse", "create_disk", "create_vm", "parse_size", "vmware_uuid"]
