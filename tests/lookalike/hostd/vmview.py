"""A VM as the data objects that vim-cmd prints."""

import os
import re
import time

from .dataobject import Array, Null, Obj, Ref
from .dictfile import Descriptor

GUESTS = {"debian11-64": ("debian11_64Guest", "Debian GNU/Linux 11 (64-bit)"),
          "windows2019srv-64": ("windows2019srv_64Guest", "Microsoft Windows Server 2019 (64-bit)"),
          "other": ("otherGuest", "Other (32-bit)")}
POWER = {"on": "poweredOn", "off": "poweredOff", "suspended": "suspended"}


def guest_id(vmx):
    text = vmx.get("guestOS", "other")
    if text in GUESTS:
        return GUESTS[text][0]
    return text if text.endswith("Guest") else text.replace("-", "_") + "Guest"


def shown_name(m):
    return m.name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


def dashed(text):
    h = re.sub(r"[^0-9a-f]", "", (text or "").lower())
    if len(h) != 32:
        return ""
    return "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:]))


def iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def allocated(path):
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0


def delta_bytes(m):
    out = 0
    for path in m.links():
        d = Descriptor.load(path)
        if d.is_delta:
            out += allocated(d.extent_path)
    return out


def runtime(host, m):
    return Obj(
        "vim.vm.RuntimeInfo", device=None, host=Ref("vim.HostSystem:ha-host"),
        connectionState="connected" if m.valid() else "invalid", powerState=POWER[m.power],
        faultToleranceState="notConfigured", toolsInstallerMounted=False,
        suspendTime=None, bootTime=iso(m.record["boot_time"]) if m.power == "on" else None,
        suspendInterval=0, question=Null("vim.vm.QuestionInfo") if m.question is None else
        Obj("vim.vm.QuestionInfo", id=str(m.question["id"]), text="msg.uuid.altered:This virtual "
            "machine might have been moved or copied."),
        memoryOverhead=None, maxCpuUsage=2400, maxMemoryUsage=1024, numMksConnections=0,
        recordReplayState="inactive", cleanPowerOff=True, needSecondaryReason=None,
        onlineStandby=False, minRequiredEVCModeKey=None,
        consolidationNeeded=m.needs_consolidation())


def guest(m):
    running = m.power == "on"
    return Obj("vim.vm.GuestInfo", toolsStatus="toolsOk" if running else "toolsNotRunning",
               toolsVersionStatus="guestToolsCurrent",
               toolsRunningStatus="guestToolsRunning" if running else "guestToolsNotRunning",
               hostName="guest%d" % m.vmid if running else None, ipAddress=None,
               guestState="running" if running else "notRunning")


def summary(host, m):
    if not m.valid():
        return Obj("vim.vm.Summary", vm=Ref("vim.VirtualMachine:%d" % m.vmid),
                   runtime=runtime(host, m), guest=Null("vim.vm.Summary.GuestSummary"),
                   config=Obj("vim.vm.Summary.ConfigSummary", name="Unknown", template=False,
                              vmPathName=host.bracket(m.vmx_path)),
                   storage=Null("vim.vm.Summary.StorageSummary"), overallStatus="red",
                   customValue=Null("vim.CustomFieldsManager.Value"))
    vmx = m.vmx()
    disks = m.disks(vmx)
    committed = sum(allocated(os.path.join(m.folder, f)) for f in os.listdir(m.folder))
    total = sum(Descriptor.load(d.path).capacity for d in disks if os.path.exists(d.path))
    ident = GUESTS.get(vmx.get("guestOS", ""), (guest_id(vmx), guest_id(vmx)))
    g = guest(m)
    return Obj(
        "vim.vm.Summary", vm=Ref("vim.VirtualMachine:%d" % m.vmid), runtime=runtime(host, m),
        guest=Obj("vim.vm.Summary.GuestSummary", guestId=None, guestFullName=None,
                  **{k: v for k, v in g.fields if k not in ("guestState",)}),
        config=Obj(
            "vim.vm.Summary.ConfigSummary", name=shown_name(m), template=False,
            vmPathName=host.bracket(m.vmx_path),
            memorySizeMB=int(vmx.get("memSize", vmx.get("memsize", "0"))), cpuReservation=0,
            memoryReservation=0, numCpu=int(vmx.get("numvcpus", "1")), numEthernetCards=1,
            numVirtualDisks=len(disks), uuid=dashed(vmx.get("uuid.bios")),
            instanceUuid=dashed(vmx.get("vc.uuid")), guestId=ident[0], guestFullName=ident[1],
            annotation=vmx.get("annotation", ""), product=Null("vim.vapp.ProductInfo"),
            installBootRequired=False, ftInfo=Null("vim.vm.FaultToleranceConfigInfo"),
            managedBy=Null("vim.ext.ManagedByInfo")),
        storage=Obj("vim.vm.Summary.StorageSummary", committed=committed,
                    uncommitted=max(0, total - committed), unshared=committed,
                    timestamp=iso(time.time())),
        quickStats=Obj("vim.vm.Summary.QuickStats", overallCpuUsage=0, guestMemoryUsage=0,
                       hostMemoryUsage=0, guestHeartbeatStatus="green",
                       uptimeSeconds=int(time.time() - m.record["boot_time"])
                       if m.power == "on" else 0),
        overallStatus="green", customValue=Null("vim.CustomFieldsManager.Value"))


BACKINGS = {"VMFS": "FlatVer2", "VMFSSPARSE": "SparseVer2", "SESPARSE": "SeSparse",
            "VMFSRDM": "RawDiskMappingVer1"}


def backing(host, path, mode, sharing):
    """The backing of a link, its parents nested in it."""
    d = Descriptor.load(path)
    kind = "vim.vm.device.VirtualDisk.%sBackingInfo" % BACKINGS.get(d.extent_type, "FlatVer2")
    store = host.datastore_of(os.path.dirname(path))
    fields = {"fileName": host.bracket(path),
              "datastore": Ref("vim.Datastore:" + store.uuid) if store else None,
              "backingObjectId": "", "diskMode": mode.replace("-", "_")}
    if d.is_rdm:
        fields.update(lunUuid="0200000000", deviceName="vml.0200000000", compatibilityMode=(
            "physicalMode" if "Passthrough" in d.create_type else "virtualMode"))
    else:
        fields.update(split=False, writeThrough=False)
        if d.extent_type == "VMFS":
            fields.update(thinProvisioned=d.ddb.get("thinProvisioned") == "1", eagerlyScrub=False)
    fields.update(uuid=uuid_of(d), contentId=d.ddb.get("longContentID"), changeId=None)
    parent = d.parent_path
    fields["parent"] = Null(kind) if parent is None or not os.path.exists(parent) else \
        backing(host, parent, mode, sharing)
    if d.is_delta:
        fields["deltaDiskFormat"] = ("seSparseFormat" if d.extent_type == "SESPARSE"
                                     else "redoLogFormat")
    fields["sharing"] = "sharingMultiWriter" if sharing.lower() == "multi-writer" else "sharingNone"
    return Obj(kind, **fields)


def uuid_of(d):
    """ddb.uuid of the link or of the nearest link below that has one."""
    while d is not None:
        if "uuid" in d.ddb:
            return dashed(d.ddb["uuid"]).upper()
        try:
            d = Descriptor.load(d.parent_path) if d.parent_path else None
        except (OSError, ValueError):
            return ""
    return ""


def hardware(host, m):
    vmx = m.vmx()
    devices = [Obj("vim.vm.device.VirtualIDEController", key=200,
                   deviceInfo=Obj("vim.Description", label="IDE 0", summary="IDE 0"), busNumber=0)]
    seen = {}
    for d in m.disks(vmx):
        bus, number, unit = re.match(r"(\D+)(\d+):(\d+)", d.slot).groups()
        controller = {"scsi": 1000, "ide": 200, "sata": 15000, "nvme": 31000}[bus] + int(number)
        if bus != "ide" and controller not in seen:
            seen[controller] = True
            kind = {"scsi": "ParaVirtualSCSIController", "sata": "VirtualAHCIController",
                    "nvme": "VirtualNVMEController"}[bus]
            devices.append(Obj(
                "vim.vm.device." + kind, key=controller, deviceInfo=Obj(
                    "vim.Description", label="%s controller %s" % (bus.upper(), number),
                    summary=kind), busNumber=int(number)))
    for n, d in enumerate(m.disks(vmx)):
        bus, number, unit = re.match(r"(\D+)(\d+):(\d+)", d.slot).groups()
        controller = {"scsi": 1000, "ide": 200, "sata": 15000, "nvme": 31000}[bus] + int(number)
        try:
            capacity = Descriptor.load(d.path).capacity
            back = backing(host, d.path, d.mode, d.sharing)
        except (OSError, ValueError):
            capacity, back = 0, Null("vim.vm.device.VirtualDevice.BackingInfo")
        devices.append(Obj(
            "vim.vm.device.VirtualDisk", key=d.key,
            deviceInfo=Obj("vim.Description", label="Hard disk %d" % (n + 1),
                           summary="{:,} KB".format(capacity // 1024)),
            backing=back, connectable=Null("vim.vm.device.VirtualDevice.ConnectInfo"),
            slotInfo=Null("vim.vm.device.VirtualDevice.BusSlotInfo"), controllerKey=controller,
            unitNumber=int(unit), capacityInKB=capacity // 1024, capacityInBytes=capacity,
            nativeUnmanagedLinkedClone=None))
    return {"numCPU": int(vmx.get("numvcpus", "1")), "numCoresPerSocket": 1,
            "memoryMB": int(vmx.get("memSize", "0")),
            "device": Array("vim.vm.device.VirtualDevice", devices)}


def config(host, m):
    vmx = m.vmx()
    path = host.bracket(m.vmx_path)
    folder = path.rsplit("/", 1)[0] + "/"
    skip = re.compile(r"^(scsi|sata|ide|nvme|ethernet)\d")
    extra = [Obj("vim.option.OptionValue", key=vmx.names[k], value=v)
             for k, v in vmx.items.items() if not skip.match(k) and k != "annotation"]
    return Obj(
        "vim.vm.ConfigInfo", changeVersion=iso(time.time()), modified="1970-01-01T00:00:00Z",
        name=shown_name(m), guestFullName=summary_guest(vmx), version="vmx-%02d" % int(
            vmx.get("virtualHW.version", "13")),
        uuid=dashed(vmx.get("uuid.bios")), instanceUuid=dashed(vmx.get("vc.uuid")),
        template=False, guestId=guest_id(vmx), annotation=vmx.get("annotation", ""),
        files=Obj("vim.vm.FileInfo", vmPathName=path, snapshotDirectory=folder,
                  suspendDirectory=folder, logDirectory=folder),
        hardware=Obj("vim.vm.VirtualHardware", **hardware(host, m)),
        extraConfig=Array("vim.option.OptionValue", extra), changeTrackingEnabled=vmx.true(
            "ctkEnabled"), firmware=vmx.get("firmware", "bios"))


def summary_guest(vmx):
    return GUESTS.get(vmx.get("guestOS", ""), (None, guest_id(vmx)))[1]


def filelayout(host, m):
    disks = []
    for d in m.disks():
        files = []
        path = d.path
        while path is not None and os.path.exists(path):
            files.insert(0, host.bracket(path))
            path = Descriptor.load(path).parent_path
        disks.append(Obj("vim.vm.FileLayout.DiskLayout", key=d.key,
                         diskFile=Array("string", files)))
    stem = os.path.splitext(os.path.basename(m.vmx_path))[0]
    snaps = [Obj("vim.vm.FileLayout.SnapshotLayout", key=snapshot_ref(m, s["id"]),
                 snapshotFile=Array("string", ["%s-Snapshot%d.vmsn" % (stem, s["id"])]))
             for s in m.record["snapshots"]]
    return Obj("vim.vm.FileLayout",
               configFile=Array("string", [stem + ".vmx", stem + ".nvram", stem + ".vmsd",
                                           stem + ".vmxf"]),
               logFile=Array("string", ["vmware.log"]),
               disk=Array("vim.vm.FileLayout.DiskLayout", disks),
               snapshot=Array("vim.vm.FileLayout.SnapshotLayout", snaps),
               swapFile=host.bracket(m.swap_file()) if m.power == "on" else None)


def snapshot_ref(m, uid):
    return Ref("vim.vm.Snapshot:%d-snapshot-%d" % (m.vmid, uid))


def snapshot_tree(m, parent):
    return [Obj("vim.vm.SnapshotTree", snapshot=snapshot_ref(m, s["id"]),
                vm=Ref("vim.VirtualMachine:%d" % m.vmid), name=s["name"],
                description=s["description"], id=s["id"],
                createTime=iso(s["created"] / 1000000),
                state="poweredOn" if s["state"] == "on" else "poweredOff", quiesced=s["quiesced"],
                backupManifest=None,
                childSnapshotList=Array("vim.vm.SnapshotTree", snapshot_tree(m, s["id"])),
                replaySupported=False)
            for s in m.record["snapshots"] if s["parent"] == parent]


def datastore_summary(host, d):
    return Obj("vim.Datastore.Summary", datastore=Ref("vim.Datastore:" + d.uuid), name=d.name,
               url=host.facts["url"] % d.uuid, capacity=d.size, freeSpace=host.free_bytes(d),
               uncommitted=0, accessible=True, multipleHostAccess=False,
               type=d.kind.split("-")[0], maintenanceMode="normal")
