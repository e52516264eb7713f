#!/usr/bin/env python3
"""Write the seeds of the corpora: corpus/TARGET/seed-*, as formats look when they are right and when they
are damaged.  Findings in the same folders have other names and are left alone.  Run it in this folder."""
import os
import struct
import zlib

HEX16 = "33" * 16
SECRET = "0102" * 96


def put(target, name, data):
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", target)
    os.makedirs(folder, exist_ok=True)
    if isinstance(data, str):
        data = data.encode()
    with open(os.path.join(folder, "seed-" + name), "wb") as f:
        f.write(data)


# ---- what hosts print ----

SUMMARY = """Listsummary:

(vim.vm.Summary) {
   vm = 'vim.VirtualMachine:7', 
   runtime = (vim.vm.RuntimeInfo) {
      host = 'vim.HostSystem:ha-host', 
      connectionState = "connected", 
      powerState = "poweredOn", 
      question = (vim.vm.QuestionInfo) null, 
      consolidationNeeded = false
   }, 
   guest = (vim.vm.Summary.GuestSummary) {
      guestId = <unset>
   }, 
   config = (vim.vm.Summary.ConfigSummary) {
      name = "web "01"", 
      template = false, 
      vmPathName = "[ds1] web/web.vmx", 
      memorySizeMB = 4096, 
      numCpu = 2, 
      uuid = "564d0000-0000-0000-0000-000000000001", 
      instanceUuid = "52aa0000-0000-0000-0000-000000000001", 
      guestId = "debian11_64Guest", 
      guestFullName = "Debian GNU/Linux 11 (64-bit)", 
      annotation = "a note
   with = lines, 
"
   }, 
   storage = (vim.vm.Summary.StorageSummary) {
      committed = 1073741824, 
      uncommitted = 42, 
      unshared = 1, 
      timestamp = "2026-11-20T08:15:00.5Z"
   }
}
"""

DEVICES = """Devices:

(vim.vm.VirtualHardware) {
   device = (vim.vm.device.VirtualDevice) [
      (vim.vm.device.VirtualLsiLogicController) {
         key = 1000, 
         busNumber = 0, 
         sharedBus = "noSharing"
      }, 
      (vim.vm.device.VirtualDisk) {
         key = 2000, 
         deviceInfo = (vim.Description) {
            label = "Hard disk 1", 
            summary = "1,024 KB"
         }, 
         backing = (vim.vm.device.VirtualDisk.FlatVer2BackingInfo) {
            fileName = "[ds1] web/web-000001.vmdk", 
            diskMode = "persistent", 
            thinProvisioned = true, 
            uuid = "6000C293-0000-0000-0000-000000000001", 
            contentId = "fffffffe", 
            changeId = "52 aa/3", 
            parent = (vim.vm.device.VirtualDisk.FlatVer2BackingInfo) {
               fileName = "[ds1] web/web.vmdk", 
               diskMode = "persistent", 
               parent = (vim.vm.device.VirtualDisk.FlatVer2BackingInfo) null
            }, 
            sharing = "sharingNone"
         }, 
         controllerKey = 1000, 
         unitNumber = 0, 
         capacityInKB = 1024, 
         capacityInBytes = 1048576
      }, 
      (vim.vm.device.VirtualDisk) {
         key = 2001, 
         backing = (vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo) {
            fileName = "[ds1] web/rdm.vmdk", 
            compatibilityMode = "physicalMode", 
            diskMode = "independent_persistent"
         }, 
         controllerKey = 1000, 
         unitNumber = 1, 
         capacityInKB = 2048
      }
   ]
}
"""

# One flat disk without snapshots, as the chain of host_answers wants it.
ONE_DISK = DEVICES[: DEVICES.index("parent = ")].replace("web-000001", "web").replace("capacityInKB = 1024", "") + """sharing = "sharingNone"
         }, 
         controllerKey = 1000, 
         unitNumber = 0, 
         capacityInKB = 1024, 
         capacityInBytes = 1048576
      }
   ]
}
"""

GETALL = """Vmid           Name                                      File                   Guest OS          Version   Annotation
7      web           [ds1] web/web.vmx                   debian11_64Guest        vmx-17    a note

 with lines
12     "b [x]"       [ds 2] b/b c.vmx                    otherGuest              vmx-08
Skipping invalid VM '13'
"""

SNAPINFO = """Get Snapshot:
(vim.vm.SnapshotInfo) {
   currentSnapshot = 'vim.vm.Snapshot:7-snapshot-3', 
   rootSnapshotList = (vim.vm.SnapshotTree) [
      (vim.vm.SnapshotTree) {
         snapshot = 'vim.vm.Snapshot:7-snapshot-1', 
         vm = 'vim.VirtualMachine:7', 
         name = "before", 
         description = "", 
         id = 1, 
         createTime = "2026-11-20T08:15:00.5Z", 
         state = "poweredOff", 
         quiesced = false, 
         childSnapshotList = (vim.vm.SnapshotTree) [
            (vim.vm.SnapshotTree) {
               snapshot = 'vim.vm.Snapshot:7-snapshot-3', 
               vm = 'vim.VirtualMachine:7', 
               name = "vmferry-0123456789abcdef-run-0123456789abcdef0123456789abcdef", 
               id = 3, 
               createTime = "2026-11-20T09:15:00Z", 
               quiesced = true
            }
         ], 
         replaySupported = false
      }
   ]
}
"""

SNAPGET = """Get Snapshot:
|-ROOT
--Snapshot Name        : before
--Snapshot Id        : 1
--Snapshot Desciption  : a
--Snapshot Created On  : 11/20/2026 8:15:0
--Snapshot State       : powered off
--|-CHILD
----Snapshot Name        : vmferry-0123456789abcdef-run-0123456789abcdef0123456789abcdef
----Snapshot Id        : 3
----Snapshot Desciption  : 
----Snapshot Created On  : 11/20/2026 9:15:0
----Snapshot State       : powered off
"""

VMFS = """Mount Point                                        Volume Name                                 UUID                                 Mounted  Type             Size           Free
-------------------------------------------------  ------------------------------------------  -----------------------------------  -------  ------  -------------  -------------
/vmfs/volumes/00000000-00000000-0000-000000000001  ds1                                         00000000-00000000-0000-000000000001     true  VMFS-6   118380036096    74551656448
/vmfs/volumes/00000000-00000000-0000-000000000004                                              00000000-00000000-0000-000000000004     true  vfat       4293591040     4122804224
"""

DSDUMP = """Datastore summary:
(vim.Datastore.Summary) [
   (vim.Datastore.Summary) {
      datastore = 'vim.Datastore:5e0f-1', 
      name = "ds1", 
      url = "/vmfs/volumes/00000000-00000000-0000-000000000001", 
      capacity = 118380036096, 
      freeSpace = 74551656448, 
      uncommitted = 0, 
      accessible = true, 
      multipleHostAccess = <unset>, 
      type = "VMFS", 
      maintenanceMode = "normal"
   }
]
"""

MAP = """Mapping for file /vmfs/volumes/ds1/web/web.vmdk (1048576 bytes in size):
[           0:      524288] --> [VMFS -- LVID:5e0f-1:(    1048576 -->     1572864)]
[      524288:      262144] --> [NOMP -- :(          0 -->      262144)]
[      786432:      262144] --> [VMFS Z- LVID:5e0f:1:(   9048576 -->     9310720)]
"""

VMX = """.encoding = "UTF-8"
config.version = "8"
displayName = "web |22 01"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web.vmdk"
annotation = "a|0Ab"
"""

DESCRIPTOR = """# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID=ffffffff
isNativeSnapshot="no"
createType="vmfs"

# Extent description
RW 2048 VMFS "web-flat.vmdk"

# Change Tracking File
changeTrackPath="web-ctk.vmdk"

# The Disk Data Base 
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "1"
ddb.longContentID = "0123456789abcdef0123456789abcdef"
ddb.thinProvisioned = "1"
ddb.uuid = "60 00 C2 93 00 00 00 00-00 00 00 00 00 00 00 01"
ddb.virtualHWVersion = "17"
"""
DELTA = DESCRIPTOR.replace("parentCID=ffffffff", "parentCID=0000000a\nparentFileNameHint=\"web.vmdk\"") \
    .replace("\"vmfs\"", "\"vmfsSparse\"").replace("VMFS \"web-flat", "VMFSSPARSE \"web-000001-delta")


def answers(what, *texts):
    """Input of host_answers: status and text of each command."""
    out = bytes([what])
    for t in texts:
        status = 0
        if isinstance(t, tuple):
            status, t = t
        t = t.encode()
        out += struct.pack("<BH", status, len(t)) + t
    return out


def hosts():
    put("vimdump", "summary", SUMMARY)
    put("vimdump", "devices", DEVICES)
    put("vimdump", "snapshots", SNAPINFO)
    put("vimdump", "imitation", SUMMARY.replace("web \"01\"", "x\", \n      template = true, \n      z = \"y"))
    put("vimdump", "cut", DEVICES[: len(DEVICES) // 2])
    for i, (name, text) in enumerate((("ids", GETALL), ("summary", SUMMARY), ("disks", DEVICES))):
        put("inventory", name, bytes([i]) + text.encode())
        put("inventory", name + "-cut", bytes([i]) + text[: len(text) * 2 // 3].encode())
    put("snapshots", "info", b"\0" + SNAPINFO.encode())
    put("snapshots", "info-none", b"\0Get Snapshot:\n(vim.vm.SnapshotInfo) null\n")
    put("snapshots", "get", b"\1" + SNAPGET.encode())
    put("snapshots", "get-vast-id", b"\1" + SNAPGET.replace("Id        : 3", "Id        : 4294967299").encode())
    put("snapshots", "name", b"\2vmferry-0123456789abcdef-keep-0123456789abcdef0123456789abcdef")
    put("datastores", "esxcli", b"\0" + VMFS.encode())
    put("datastores", "esxcli-bad", b"\0" + VMFS.replace("true", "yes ").encode())
    put("datastores", "summary", b"\1" + DSDUMP.encode())
    for n, (path, name) in enumerate((
            ("[ds1] vm/vm.vmdk", "vm-flat.vmdk"), ("/vmfs/volumes/5e0f-2/a/b", "../x/y.vmdk"),
            ("/vmfs/volumes/a ]b[/c", "/vmfs/volumes/ds1/a/b.vmdk"), ("[a ]b[] c/../d", "../../../etc"))):
        put("datastores", f"path-{n}", f"\2{path}\n{name}\n")
    put("map", "whole", struct.pack("<HB", 1, 20) + MAP.encode())
    put("map", "gap", struct.pack("<HB", 1, 20) + MAP.replace("786432:", "786433:").encode())
    put("map", "unknown", struct.pack("<HB", 1, 20) + MAP.replace("NOMP", "????").encode())
    put("vmx", "whole", VMX)
    put("vmx", "twice", VMX + "DISPLAYNAME = \"x\"\n")
    put("vmx", "odd", VMX + "a = b = \"c\"\n = \nx\n#c\n")
    put("descriptor", "base", DESCRIPTOR)
    put("descriptor", "delta", DELTA)
    put("descriptor", "extents", DESCRIPTOR.replace(
        "RW 2048 VMFS \"web-flat.vmdk\"", "RW 100 FLAT \"a.vmdk\" 0\nRDONLY 5 ZERO\nNOACCESS 7 SPARSE \"b\""))
    put("descriptor", "padded", DESCRIPTOR.encode() + b"\0" * 100)
    put("descriptor", "huge", DESCRIPTOR.replace("2048", "18446744073709551615"))
    put("descriptor", "cut", DESCRIPTOR[:200])

    identity = ("VMkernel\nVMware ESXi 8.0.2 build-22380479\nVMware ESXi 8.0 Update 2\n",
                "5e0f0000-0000-0000-0000-000000000001\n", "123456789\n",
                "   Int Value: 1\n   Default Int Value: 1\n")
    put("host_answers", "identity", answers(4, *identity))
    put("host_answers", "no-esxi", answers(4, "Linux\n"))
    put("host_answers", "vms", answers(0, GETALL, SUMMARY, SUMMARY, DEVICES, SNAPINFO, SUMMARY))
    put("host_answers", "vm", answers(1, GETALL, SUMMARY, SUMMARY, SUMMARY, DEVICES))
    put("host_answers", "tasks", answers(2, "(ManagedObjectReference) [\n   'vim.Task:haTask-7-vim.VirtualMachine."
        "createSnapshot-1'\n]\n", "(vim.TaskInfo) {\n   name = \"createSnapshot\", \n   state = \"running\", \n"
        "   progress = 7, \n   error = (vmodl.MethodFault) null\n}\n", SNAPINFO, SNAPGET))
    put("host_answers", "stores", answers(3, VMFS, VMFS, DSDUMP))
    put("host_answers", "chain", answers(5, SUMMARY, SUMMARY, ONE_DISK, DESCRIPTOR, SUMMARY, SUMMARY,
                                         ONE_DISK, DESCRIPTOR))
    put("host_answers", "chain-rdm", answers(5, SUMMARY, SUMMARY, DEVICES))
    put("host_answers", "chain-off", answers(5, *[SUMMARY.replace("poweredOn", "poweredOff")] * 2))
    put("host_answers", "chain-delta", answers(5, SUMMARY, SUMMARY, ONE_DISK, DELTA, DESCRIPTOR))
    put("host_answers", "map", answers(6, MAP))
    put("host_answers", "remove", answers(7, SUMMARY, SNAPINFO, "Remove Snapshot:\n", SNAPINFO, SUMMARY))
    put("host_answers", "busy", answers(7, SUMMARY, SNAPINFO, (5, "(vim.fault.TaskInProgress) {\n   msg = \"busy\"\n}"),
                                        (5, ""), (0x7F, "")))


# ---- our own files ----

def journal(kind="snapshot", files=0):
    fields = (("kind", kind), ("state", "created"), ("token", "0123456789abcdef" * 2), ("install_id", "0123456789abcdef"),
              ("created", 1795000000), ("changed", 1795000001), ("host_uuid", "5e0f"), ("address", "esx1"),
              ("port", 22), ("user", "root"), ("purpose", "run"), ("vm_name", "a \\x5c name\\x0awith = lines"),
              ("vm_uuid", "52aa"), ("vmx", "[ds] a/a.vmx"), ("vmid", 7), ("snapshot_id", 3), ("store", "mirror /b"),
              ("expires", 0), ("folder", "" if kind == "snapshot" else "/vmfs/volumes/5e0f-1/vmferry-x"))
    return ("vmferry-journal 1\n" + "".join(f"{k}={v}\n" for k, v in fields) +
            "".join(f"file={'ab' * 32} agent{i}\n" for i in range(files)) + "end\n")


def retained(disks=1, links=2):
    head = (("token", "0123456789abcdef" * 2), ("store_id", "mirror:" + HEX16), ("generation", 5),
            ("generation_id", HEX16), ("host_uuid", "5e0f"), ("host_booted", 1795000000), ("host_uptime", 3600),
            ("vm_uuid", "52aa"), ("vmx", "[ds] a\\x5cb/a.vmx"), ("vmid", 7), ("snapshot_id", 3),
            ("created", 1795003600))
    out = "vmferry-retained 1\n" + "".join(f"{k}={v}\n" for k, v in head)
    for d in range(disks):
        at = f"/vmfs/volumes/5e0f/a/d{d}"
        out += f"disk=scsi0:{d}\ndisk_uuid=60 00 {d}\ncapacity=1048576\nroot={HEX16}\nleaf={at}-000002.vmdk\n"
        for n in range(links):
            out += f"link={d:04x}{n:04x} seSparse\nlink_file={at}-{n}.vmdk\nlink_data={at}-{n}-sesparse.vmdk\n"
    return out + f"end={disks}\n"


def manifest(disks=1, number=3):
    texts = "".join(f"{k} {v}\n" for k, v in (
        ("kind", "refresh"), ("outcome", "ok"), ("consistency", "crash"), ("data-channel", "tcp"),
        ("read-path", "agent"), ("change-source", "digest"), ("snapshot", "vmferry-x"), ("host-uuid", "h"),
        ("host-name", "esx1"), ("vm-uuid", "u"), ("vmx-path", "[ds] a/a.vmx"), ("vm-name", "web%0A1")))
    out = (f"vmferry-mirror 1\nrecord generation\nmirror {HEX16}\nnumber {number}\nid {HEX16}\ntime 1795000000\n"
           f"{texts}keep 4\nnext-disk {disks + 1}\nconfigs 1\nconfig 12 {'ab' * 32} web.vmx\ndamages 1\ndamage 2 1 7\n"
           f"disks {disks}\n")
    for d in range(1, disks + 1):
        patch = f"redo 3 {HEX16} 4096\ndelta none\n" if d == 1 else "redo none\ndelta none\n"
        out += (f"disk {d}\nstate read\nslot scsi0:{d}\nuuid 60 00\nlabel Hard disk 1\nfile disk-scsi0-{d}.raw\nwas \n"
                f"capacity 1048576\nblock 65536\nsecret {SECRET}\nroot {HEX16}\nof {number}\n"
                f"stat 1 2 3 4 5 6 7\nread-path agent\nallocated 1\nread-bytes 2\nsampled 3\nchanged 4\nsent 5\n"
                f"stored 6\nmilliseconds 7\n{patch}")
    return out


def mirrors():
    put("journal", "snapshot", journal())
    put("journal", "agent", journal("agent", 2))
    put("journal", "files", journal("agent", 5))
    put("journal", "cut", journal()[:200])
    put("journal", "word", journal().replace("created\n", "x\n"))
    put("journal", "twice", journal().replace("vmid=7", "vmid=7\nvmid=8"))
    for disks, links in ((1, 1), (2, 3), (0, 0), (300, 1), (1, 300)):
        put("retained", f"disks-{disks}-links-{links}", b"\0" + retained(disks, links).encode())
    put("retained", "no-sum", b"\1" + retained().encode())
    put("retained", "twice", b"\0" + retained(2).replace("scsi0:1", "scsi0:0").encode())
    put("retained", "relative", b"\0" + retained().replace("leaf=/", "leaf=").encode())
    put("retained", "cut", b"\0" + retained(3).encode()[:900])
    for n in (0, 1, 3):
        put("manifest", f"disks-{n}", b"\0" + manifest(n).encode())
    put("manifest", "no-hash", b"\1" + manifest().encode())
    put("manifest", "other-format", b"\0" + manifest().replace("mirror 1\n", "mirror 2\n", 1).encode())
    put("manifest", "many", b"\0" + manifest().replace("disks 1", "disks 4096").encode())
    put("manifest", "slash", b"\0" + manifest().replace("disk-scsi0-1.raw", "../x").encode())
    put("identity", "identity", f"\0vmferry-mirror 1\nrecord identity\nmirror {HEX16}\nhost-uuid h\nvm-uuid u\n"
        "vmx-path [ds] a/a.vmx\nvm-name a%25b\nmade 12\n")
    put("identity", "new-disk", f"\2vmferry-mirror 1\nrecord new-disk\ndisk 3\nslot scsi0:1\nuuid 60\n"
        f"capacity 1048576\nblock 65536\nsecret {SECRET}\n")
    put("identity", "verified", f"\4vmferry-mirror 1\nrecord verified\nmirror {HEX16}\n"
        "generation 7 1795000000\ngeneration 8 1795000001\n")
    put("identity", "unhashed", b"\1vmferry-mirror 1\nrecord identity\n")
    head = b"VFCHECK1" + struct.pack("<II", 1, 16384) + b"m" * 16
    put("checkpoint", "whole", b"\0" + head + struct.pack("<QQQQQ", 3, 2, 77, 128, 4096) + b"h" * 16 + b"\0" * 8)
    put("checkpoint", "far", b"\0" + head + struct.pack("<QQQQQ", 3, 2, 1 << 60, 0, 1 << 63) + b"h" * 16 + b"\0" * 8)
    put("checkpoint", "sum", b"\1" + head + b"\0" * 64)
    put("patch", "made", bytes([0x41]) + bytes((
        0, 0x01, 5, 0, 0x05, 9, 0, 0x22, 0, 0, 0x13, 0, 0, 0x45, 7, 0, 0xC1, 3)))
    put("patch", "harm", bytes([0x40]) + bytes((0, 0x01, 5, 0, 0x0D, 20, 3, 0, 0x0A, 8, 1, 0, 1, 0xFF)))
    put("patch", "vast", bytes([0xFF]) + bytes((0, 0x32, 0)) * 40)
    put("patch", "many", bytes([0xFC]) + bytes((0, 0x41, 1)) * 30 + bytes((0, 0x02, 0)) * 500)
    raw = struct.pack("<QQIBBH", 1 << 63, (1 << 64) - 1, 0, 2, 0, 0) + b"\0" * 16
    put("patch", "raw", bytes([0x40]) + b"\xF0" + raw)
    put("patch", "cut", bytes([0x40]) + bytes((0, 0x01, 5, 0xFE, 7)))
    put("digests", "right", bytes([0, 12, 0] + [0x11, 0, 0x41, 1] * 4))
    put("digests", "wrong", bytes([4, 0xA7, 1] + [0x13, 2, 0x43, 3, 0x20] * 8))
    put("digests", "short", bytes([1, 30, 3] + [0x51] * 31 + [1, 0, 9]))
    for n, gen in enumerate(("web@2", "web@latest", "old@1", "esx1/web@2026-11-20", "a@b@2026-11-18T12:30:05+01:00",
                             "uuid:web@latest", "1111", "7", "2026@latest", "web@2026-02-30", "@", "web@9999-12-31 23:59:60Z")):
        put("generation", f"{n}", gen)


def others():
    key = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    put("known_hosts", "plain", f"\0esx1\nkey\nesx1,10.0.0.1 ssh-ed25519 {key} a comment\n#x\n\n"
        f"@revoked * ssh-ed25519 {key}\n@cert-authority *.x ssh-rsa AAAA\n")
    put("known_hosts", "port", f"\1esx1\n\n[esx1]:23 ssh-ed25519 {key}\n!esx1,e?x* ssh-ed25519 {key}\n")
    put("known_hosts", "hashed", f"\0esx1\n\n|1|AAECAwQFBgcICQoLDA0ODxAREhM=|AAECAwQFBgcICQoLDA0ODxAREhM= "
        f"ssh-ed25519 {key}\n|1|x|y ssh-rsa AAAA\n")
    put("known_hosts", "odd", b"\0::1\n\n\xff\xfe 1 2 3\nesx1 1024 35 1234\n[::1]:22 ssh-rsa ====\n")
    for n, text in enumerate(("4096", "64k", "16E", "10%", "101%", "90s", "7d", "112M/s", "18446744073709551616", "3999",
                              "2026-11-20T08:15:00.5+01:00", "2026-11-20 14:30:60Z", "0000-01-01T00:00:00Z",
                              "a\x1b[31m\u202e\u4e2d\U0001F600\\n")):
        put("sizes", f"{n}", b"\x20" + text.encode())
    put("sizes", "bytes", b"\x09\xf0\x28\x8c\x28\xc0\x80\xed\xa0\x80\xff a")
    # Programs of messages; see the targets for the words.
    all_read, all_kept = (0, 0, 4), (0, 0, 6)
    put("sink_stream", "zeros", bytes((0x03,) + all_read + (1, 0xF2, 3, 0)))
    put("sink_stream", "data", bytes((0x02,) + all_read + (2, 8, 9, 2, 0x11, 30, 2, 0x41, 5, 3, 0)))
    put("sink_stream", "same", bytes((0x24,) + all_read + (5, 0xFF, 0xFF, 9, 1, 0x10, 1, 0x12, 1, 0x22, 3, 0)))
    put("sink_stream", "unread", bytes((0x34,) + all_kept + (5, 0xFF, 0xFF, 9, 1, 0x31, 1, 0xF1, 3, 0)))
    put("sink_stream", "odd-end", bytes((0x45,) + all_read + (1, 0xF2, 3, 1)))
    put("sink_stream", "plans", bytes((0x17,)) + bytes((0, 15) + (0x11, 0x10) * 8) * 20)
    put("sink_stream", "damaged", bytes((0x02,) + all_read + (2, 15, 9, 3, 0, 1, 0, 1, 0, 0, 6, 1, 2, 8, 9)))
    put("sink_stream", "asked", bytes((0x84,) + all_read + (7, 1, 0, 1, 8, 1, 0, 1, 1, 0xF2, 3, 0)))
    put("sink_stream", "known-unasked", bytes((0x84,) + all_read + (8, 1, 0, 1)))
    put("sink_stream", "asked-oddly", bytes((0x94,) + all_read + (7, 3, 0x40, 0x88, 0x3C, 2, 7, 0, 0, 8, 0, 0)))
    put("sink_stream", "raw", bytes((0x02, 4, 2, 1, 8, 0)) + b"\1" * 8)
    full = (0, 0, 0, 2, 0, 0, 0, 3, 0, 5, 0, 0xFF, 0xFF, 5, 4, 0xFF, 0xFF)
    put("source_stream", "full", bytes(full + (6, 0)))
    put("source_stream", "holes", bytes((0, 1, 0, 1, 0x61, 1, 9, 9, 40, 40, 4, 8, 2, 0, 0, 1, 3, 0, 5, 4, 0xFF, 0xFF)))
    put("source_stream", "digests", bytes((0, 0, 0, 2, 2, 0, 0, 3, 2, 5, 4, 0xFF, 0xFF, 6, 1)))
    put("source_stream", "from", bytes((0, 0, 0, 2, 8, 0x30, 0, 4, 3, 5, 4, 0xFF, 0xFF, 3, 0)))
    put("source_stream", "second", bytes((0, 0, 0, 7, 2, 8, 2, 1, 0, 0, 3, 0x80, 5, 0x84, 0xFF, 0xFF, 10, 1)))
    put("source_stream", "dying", bytes((7, 2, 0x8A, 1, 0x89, 0, 0, 0, 0, 8)))
    put("source_stream", "many", bytes((0, 0, 0)) + bytes((2, 0, 0, 0)) * 70)
    put("source_stream", "big", bytes((0, 0, 0)) + bytes((2, 6, 8, 0)) * 12)
    for n in range(3):
        put("source_stream", f"repeat-{n}", bytes((0, 0, 0, 2, 0, 0, 0, 11, 255, n, 0x25, 0, 0)))
    put("source_stream", "asking", bytes((0, 0, 0, 2, 0, 0, 0, 12, 2, 3, 0, 13, 1, 1, 2, 5, 4, 0xFF, 0xFF, 13, 0, 9, 6, 0)))
    put("source_stream", "asking-slow", bytes((0, 0, 0, 0x82, 0x20, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0,
                                               0, 0, 12, 1, 3, 0, 12, 0, 13, 0x19, 1)))
    put("source_stream", "answer-unasked", bytes((0, 0, 0, 2, 0, 0, 0, 13, 0x18, 4)))
    put("source_stream", "hint", bytes((0, 2, 0, 2, 0, 0, 2, 4, 2, 3, 0, 4, 6, 5, 4, 0xFF, 0xFF, 6, 0)))
    vast = (0, 12, 0, 2, 0, 0, 12)
    put("source_stream", "vast", bytes(vast + (3, 1, 5, 4, 0xFF, 0xFF)))
    put("source_stream", "digests-without-end", bytes(vast + (0x8B, 255, 0, 0x15) * 60))
    put("source_stream", "holes-again", bytes((0, 0, 0) + (0x8B, 255, 1, 0x21, 0, 1, 1) * 290))
    put("handshake", "stranger", b"\0VMF1\r\n\x1a\n" + bytes(range(168)))
    put("handshake", "good", b"\1" + struct.pack("<IBBBBH", 2, 3, 3, 1, 1, 0xFFFF) + b"n" * 32)
    put("handshake", "choose", b"\1" + struct.pack("<IBBBBH", 9, 2, 1, 0x80, 0, 0xFFFF) + b"n" * 32)
    put("handshake", "flip", b"\1" + struct.pack("<IBBBBH", 2, 3, 3, 1, 1, 700) + b"n" * 32)
    put("handshake", "flip-m2", b"\1" + struct.pack("<IBBBBH", 2, 3, 3, 1, 1, 900) + b"n" * 32)
    boot = b"\2VMFB\r\n\x1a\n" + struct.pack("<HBBIQII", 1, 3, 3, 4, 64 << 20, 3600, 30000) + b"i" * 16 + b"k" * 32
    put("handshake", "bootstrap", boot.ljust(97, b"\0"))
    put("handshake", "bootstrap-tail", boot.ljust(97, b"\1"))
    put("handshake", "noise", b"\3Welcome to ESXi\nvmferry-agent 1\n\nvmferry-agent 00000001\nxyz")
    for kind in range(8):
        put("record", f"kind-{kind}", bytes((kind, 3, 9, 9, 0, 0, 0, 0)) + b"payload of several records")
    put("record", "flip", bytes((1, 3, 1, 9, 5, 0, 0, 0)) + b"payload")
    put("record", "lost", bytes((1, 3, 9, 1, 5, 0, 0, 0)) + b"payload")
    put("record", "header", bytes((0, 7, 0, 0, 0, 1, 0, 0, 0)) + b"p" * 23)
    for kind in (1, 2, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29,
                 0x2A, 0x7F):
        put("message", f"{kind:02x}", struct.pack("<HHI", kind, 0, 1) + bytes(24 if kind != 0x20 else 240))


# ---- repositories: what a second implementation wrote (tests/data/repo) ----


def repositories():
    top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "repo")
    objects = {}
    for kind in ("plain", "sealed"):
        for folder, _, files in os.walk(os.path.join(top, "good-" + kind)):
            for name in files:
                path = os.path.join(folder, name)
                with open(path, "rb") as f:
                    objects[kind + "/" + os.path.relpath(path, os.path.join(top, "good-" + kind))] = f.read()
    for name, data in sorted(objects.items()):
        kind, what = name.split("/")[:2]
        body = data[40:-32]
        if kind == "plain" and what == "generations":
            put("repo_manifest", "good", body)
            put("repo_manifest", "two-disks", body.replace(b"\1\0\0\0\1\7\0scsi", b"\2\0\0\0\1\7\0scsi"))
            put("repo_manifest", "cut", body[:-9])
        elif kind == "plain" and what == "partial":
            put("repo_partial", "good", body)
            put("repo_partial", "far", body.replace(struct.pack("<QQ", 2, 1795000000), struct.pack("<QQ", 9, 1)))
        elif kind == "plain" and what == "index":
            put("repo_index", name[-2:], body)
            put("repo_index", name[-2:] + "-many", body[:25] + b"\xff\xff\x0f\0" + body[29:])
        elif what == "packs" and len(data) < 1000:
            put("repo_pack", kind, b"\1" + data)
            put("repo_pack", kind + "-damaged", b"\0" + data[:100] + b"\0" + data[101:])
        elif what == "packs" and kind == "plain":
            put("repo_pack", "blocks", b"\1" + data[:64] + data[16512:])
        if what in ("config", "keys"):
            put("repo_document", kind + "-" + what, bytes([(1 if what == "config" else 2) << 2 | 1]) + data)
        elif len(data) < 200:
            put("repo_document", kind + "-" + what, bytes([data[8] << 2 | 1 | (kind == "sealed") << 1]) + data)
    cells = bytes(range(48)) + bytes(48) + b"\7" * 48
    node = b"VFND" + struct.pack("<BBHII", 1, 1, 0, 3, 0)
    put("repo_node", "good", bytes((1, 2, 0)) + node + cells)
    put("repo_node", "half", bytes((1, 2, 0)) + node + cells[:100] + b"\0" * 44)
    head = b"VFRUN\0\0\1" + bytes([7]) + bytes(15) + struct.pack("<QQQII", 5, 3, 2, 1, 65536) + bytes(16) + \
        struct.pack("<I", 0x01020304)
    head = head.ljust(128, b"\0") + b"a" * 16 + b"b" * 16
    head = head.ljust(192, b"\0") + struct.pack("<III", 0, 2, 3)
    entries = b"".join(bytes([n]) * 32 + struct.pack("<IIII", pack, 64, 50, 16384 | 1 << 24)
                       for n, pack in ((1, 0), (1, 1), (200, 1)))
    put("repo_run", "good", head.ljust(512, b"\0") + entries)
    put("repo_run", "far-pack", head.ljust(512, b"\0") + entries.replace(struct.pack("<II", 1, 64), b"\xff" * 8))
    put("repo_run", "fan", head[:192] + struct.pack("<III", 9, 2, 90).ljust(320, b"\0") + entries)


# ---- VMDK files: see vmdk_input.h ----


def vmdk_file(name, size, pieces):
    out = bytes((len(name),)) + name.encode() + struct.pack("<IH", size, len(pieces))
    return out + b"".join(struct.pack("<IH", at, len(data)) + data for at, data in pieces)


def vmdk_files(*files, flags=0):
    return bytes((flags, len(files) - 1)) + b"".join(files)


def vmdk_link(name, create_type, line, parent=None, cid=1, parent_cid=0):
    hint = f'parentFileNameHint="{parent}"\n' if parent else ""
    text = (f"# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID={parent_cid if parent else 0xFFFFFFFF:08x}\n"
            f'createType="{create_type}"\n{hint}{line}\n').encode()
    return vmdk_file(name, len(text), [(0, text)])


def cowd(name, sectors, entries, grain=1, size=1 << 17, **fields):
    """One table at sector 5; entries: its first ones."""
    header = struct.pack("<4s7I", b"COWD", fields.get("version", 1), fields.get("flags", 3), sectors, grain, 4,
                         fields.get("count", -(-sectors // (4096 * grain))), 0)
    return vmdk_file(name, size, [(0, header), (2048, struct.pack("<I", fields.get("table", 5))),
                                  (5 * 512, struct.pack(f"<{len(entries)}I", *entries)), (40 * 512, b"data" * 300),
                                  (1648, struct.pack("<I", fields.get("unclean", 0)))])


def sesparse(name, sectors, entries, size=8 << 20, **fields):
    regions = fields.get("regions", (2048, 6144, 2048, 8192, 2048, 10240, 2048, 12288, 1 << 20))
    header = struct.pack("<26Q", 0xCAFEBABE, fields.get("version", 0x200000001), sectors, 8, 64, 0,
                         fields.get("reserved", 0x200), 0, 0, 0, 1, 1, 2, 2, 2048, 2048, 4096, *regions)
    return vmdk_file(name, size, [(0, header), (512, struct.pack("<4Q", 0xCAFECAFE, 1, 7, fields.get("replay", 0))),
                                  (4096 * 512, struct.pack("<2Q", fields.get("table", 1 << 60), 0)),
                                  (regions[1] * 512, struct.pack(f"<{len(entries)}Q", *entries)),
                                  (min(regions[7] * 512 + 4096, 0xFFFFFFFF), b"grain one " * 400)])


def kdmv(sectors, flags, gd, over, rgd=0, algorithm=0, version=1, descriptor=0):
    return struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", version, flags, sectors, 128, 1 if descriptor else 0, descriptor, 512,
                       rgd, gd, over, 0, b"\n \r\n", algorithm)


def hosted(name, sectors, entries, size=1 << 19, flags=7):
    tables = b"".join(struct.pack("<I", e) for e in entries)
    return vmdk_file(name, size, [(0, kdmv(sectors, flags, 6, 128, 1)), (512, struct.pack("<I", 2)), (2 * 512, tables),
                                  (6 * 512, struct.pack("<I", 7)), (7 * 512, tables), (128 * 512, b"grain" * 999)])


def stream(sectors, grains, cut=0, level=1, progress=False, text=None):
    """A stream as ovftool writes it; grains: (first sector, bytes)."""
    text = text or (f"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n"
                    f'RW {sectors} SPARSE "a.vmdk"\n')
    out = kdmv(sectors, 0x30001, 2 ** 64 - 1, 8, 0, 1, 3, 4).ljust(512, b"\0") + text.encode()
    out = out.ljust(8 * 512, b"\0")
    table = [0] * 512

    def pad(data):
        return data + b"\0" * (-len(data) % 512)

    def marker(count, kind, rest=b""):
        return (struct.pack("<QII", count, 0, kind) + rest).ljust(512, b"\0")
    for sector, data in grains:
        packed = zlib.compress(data, level)
        table[sector // 128 % 512] = len(out) // 512
        out += pad(struct.pack("<QI", sector, len(packed)) + packed)
        if progress:
            out += marker(0, 4, struct.pack("<Q", sector))
    out += marker(4, 1)
    gt = len(out) // 512
    out += struct.pack("<512I", *table) + marker(-(-sectors // (65536 * 128)), 2)
    gd = len(out) // 512
    out += pad(struct.pack("<I", gt)) + marker(1, 3)
    out += kdmv(sectors, 0x30001, gd, 8, 0, 1, 3, 4).ljust(512, b"\0") + marker(0, 0)
    return out[:len(out) - cut]


def stream_files(data):
    return vmdk_files(vmdk_file("a.vmdk", len(data), [(at, data[at:at + 60000]) for at in range(0, len(data), 60000)]))


def vmdks():
    flat = vmdk_file("base-flat.vmdk", 9000 * 512, [(0, b"first"), (8999 * 512, b"last")])
    base = vmdk_link("base.vmdk", "vmfs", 'RW 9000 VMFS "base-flat.vmdk"', cid=16)
    delta = vmdk_link("c.vmdk", "vmfsSparse", 'RW 9000 VMFSSPARSE "c-delta.vmdk"', "base.vmdk", 17, 16)
    upper = vmdk_link("s.vmdk", "seSparse", 'RW 9000 SESPARSE "s-sesparse.vmdk"', "c.vmdk", 18, 17)
    grains = (0, 1, 40, 41, 45, 44)
    states = (0, 1 << 60, 2 << 60 | 5, 3 << 60 | 1 << 48, 3 << 60)
    put("vmdk_chain", "flat", vmdk_files(base, flat, flags=1))
    put("vmdk_chain", "cowd", vmdk_files(delta, cowd("c-delta.vmdk", 9000, grains), base, flat, flags=1))
    put("vmdk_chain", "sesparse", vmdk_files(upper, sesparse("s-sesparse.vmdk", 9000, states), delta,
                                             cowd("c-delta.vmdk", 9000, grains), base, flat, flags=1))
    for name, fields in (("unclean", {"unclean": 1}), ("flags", {"flags": 1}), ("count", {"count": 1}),
                         ("table-in-header", {"table": 3}), ("table-past-end", {"table": 250})):
        put("vmdk_chain", "cowd-" + name, vmdk_files(delta, cowd("c-delta.vmdk", 9000, grains, **fields), base, flat))
    put("vmdk_chain", "cowd-shared", vmdk_files(delta, cowd("c-delta.vmdk", 9000, (40, 40, 6)), base, flat))
    put("vmdk_chain", "cowd-large-grain", vmdk_files(delta, cowd("c-delta.vmdk", 9000, (40, 1, 48), 8), base, flat))
    lone = vmdk_link("s.vmdk", "seSparse", 'RW 9000 SESPARSE "s-sesparse.vmdk"', "base.vmdk", 18, 16)
    for name, fields in (("replay", {"replay": 1}), ("version", {"version": 0x200000002}), ("reserved", {"reserved": 1}),
                         ("table", {"table": 1 << 60 | 999}), ("table-form", {"table": 77})):
        put("vmdk_chain", "sesparse-" + name, vmdk_files(lone, sesparse("s-sesparse.vmdk", 9000, states, **fields), base,
                                                         flat))
    put("vmdk_chain", "sesparse-far", vmdk_files(lone, sesparse("s-sesparse.vmdk", 9000, (3 << 60 | 1,)), base, flat))
    put("vmdk_chain", "loop", vmdk_files(vmdk_link("a", "seSparse", 'RW 9000 SESPARSE "d"', "a", 1, 1),
                                         sesparse("d", 9000, states)))
    put("vmdk_chain", "describe", vmdk_files(lone, sesparse("s-sesparse.vmdk", 9000, states), flags=2))
    split = vmdk_link("k.vmdk", "custom", 'RW 9000 SPARSE "k-s001.vmdk"\nRW 64 ZERO\nRW 100 FLAT "base-flat.vmdk" 8900')
    put("vmdk_chain", "split", vmdk_files(split, hosted("k-s001.vmdk", 9000, (128, 0, 1, 256)), flat))
    put("vmdk_chain", "split-shared", vmdk_files(split, hosted("k-s001.vmdk", 9000, (128, 128)), flat))
    put("vmdk_chain", "split-no-zeros", vmdk_files(split, hosted("k-s001.vmdk", 9000, (128, 1), flags=3), flat))
    put("vmdk_chain", "split-between", vmdk_files(split, hosted("k-s001.vmdk", 9000, (129,)), flat))
    wide = vmdk_link("w.vmdk", "seSparse", 'RW 137438953472 SESPARSE "d"', "b", 1, 2)
    vast = (1 << 16, 4096 + (1 << 16), 1 << 28, 1 << 29, 8, (1 << 29) + 8, 8, 1 << 30, 1 << 37)
    put("vmdk_chain", "vast", vmdk_files(wide, sesparse("d", 1 << 37, states[:3], 64 << 20, regions=vast),
                                         vmdk_link("b", "custom", "RW 137438953472 ZERO", cid=2)))
    short = (0, b"a" * 65536), (128, bytes(range(256)) * 256), (384, b"tail" * 16384)
    put("vmdk_stream", "plain", stream(500, short))
    put("vmdk_stream", "progress", stream(500, short, progress=True))
    put("vmdk_stream", "short-tail", stream(387, short[:2] + ((384, b"t" * 1536),)))
    put("vmdk_stream", "wrong-tail", stream(387, short[:2] + ((384, b"t" * 1537),)))
    put("vmdk_stream", "unordered", stream(500, short[::-1]))
    put("vmdk_stream", "twice", stream(500, short + short[:1]))
    put("vmdk_stream", "past-end", stream(300, short))
    put("vmdk_stream", "no-end", stream(500, short, 512))
    put("vmdk_stream", "cut", stream(500, short, 5000))
    put("vmdk_stream", "behind-end", stream(500, short) + b"more")
    put("vmdk_stream", "bomb", stream(1 << 20, [(0, bytes(1 << 22))], level=9))
    put("vmdk_stream", "delta", stream(500, short, text=DELTA))
    put("vmdk_stream", "empty", stream(500, ()))
    put("vmdk_chain", "stream", stream_files(stream(500, short)))
    put("vmdk_chain", "stream-unordered", stream_files(stream(500, short[::-1], progress=True)))
    put("vmdk_chain", "stream-cut", stream_files(stream(500, short, 512)))
    for n, (how, name) in enumerate(((0, "/vmfs/volumes/ds/vm/a.vmdk"), (1, "a.vmdk"), (1, "../b.vmdk"), (2, "a.vmdk"),
                                     (5, "../vm/a.vmdk"), (4, "/vmfs/volumes/ds/b.vmdk"), (1, "../../outside"),
                                     (1, "../l"), (5, "../u/outside"), (5, "../f"), (1, "l"), (2, "../b.vmdk"),
                                     (6, "a.vmdk"), (1, "../vm/./..//b.vmdk"), (1, "vsan://1"), (1, "a\\b"))):
        put("vmdk_names", f"{n}", bytes((how,)) + name.encode())


if __name__ == "__main__":
    repositories()
    vmdks()
    hosts()
    mirrors()
    others()
