"""vim-cmd: the client of the management daemon."""

import threading
import time

from . import vmview
from .dataobject import Array, Null, Obj, Ref, show, show_fault
from .host import Task
from .machine import Fault


FOR_INVALID_TOO = ("vmsvc/get.summary", "vmsvc/get.runtime", "vmsvc/unregister",
                   "vmsvc/power.getstate", "vmsvc/get.tasklist", "vmsvc/message")


class Usage(Exception):
    pass


def iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + ".%06dZ" % (
        int(seconds * 1000000) % 1000000)


class VimCmd:
    def __init__(self, host):
        self.host = host
        self.failures = 0
        self.commands = {
            "vmsvc/getallvms": (self.getallvms, 0, ""),
            "vmsvc/get.summary": (self.summary, 1, "vmid"),
            "vmsvc/get.config": (self.config, 1, "vmid"),
            "vmsvc/get.runtime": (self.runtime, 1, "vmid"),
            "vmsvc/get.guest": (self.guest, 1, "vmid"),
            "vmsvc/get.datastores": (self.vm_datastores, 1, "vmid"),
            "vmsvc/get.filelayout": (self.filelayout, 1, "vmid"),
            "vmsvc/get.snapshotinfo": (self.snapshotinfo, 1, "vmid"),
            "vmsvc/get.tasklist": (self.tasklist, 1, "vmid"),
            "vmsvc/get.spaceNeededForConsolidation": (self.space_needed, 1, "vmid"),
            "vmsvc/device.getdevices": (self.getdevices, 1, "vmid"),
            "vmsvc/message": (self.message, 1, "vmid [messageId] [messageChoice]"),
            "vmsvc/power.getstate": (self.getstate, 1, "vmid"),
            "vmsvc/power.on": (self.power_on, 1, "vmid"),
            "vmsvc/power.off": (self.power_off, 1, "vmid"),
            "vmsvc/power.shutdown": (self.power_shutdown, 1, "vmid"),
            "vmsvc/power.suspend": (self.power_suspend, 1, "vmid"),
            "vmsvc/snapshot.get": (self.snapshot_get, 1, "vmid"),
            "vmsvc/snapshot.create": (self.snapshot_create, 1, "vmid [snapshotName] "
                                      "[snapshotDescription] [includeMemory] [quiesced]"),
            "vmsvc/snapshot.remove": (self.snapshot_remove, 2, "vmid snapshotId [removeChildren]"),
            "vmsvc/snapshot.removeall": (self.snapshot_removeall, 1, "vmid"),
            "vmsvc/snapshot.revert": (self.snapshot_revert, 3, "vmid snapshotId suppressPowerOn"),
            "vmsvc/unregister": (self.unregister, 1, "vmid"),
            "vmsvc/reload": (self.reload, 1, "vmid"),
            "vmsvc/destroy": (self.destroy, 1, "vmid"),
            "solo/registervm": (self.registervm, 1, "cfg [name] [resourcePool]"),
            "vimsvc/task_info": (self.task_info, 1, "task"),
            "vimsvc/task_cancel": (self.task_cancel, 1, "task"),
            "vimsvc/license": (self.license, 1, "--show"),
            "hostsvc/datastore/listsummary": (self.datastore_summaries, 0, ""),
            "hostsvc/datastore/info": (self.datastore_info, 1, "datastore"),
            "hostsvc/hostsummary": (self.hostsummary, 0, ""),
            "hostsvc/autostartmanager/get_autostartseq": (self.autostart, 0, ""),
        }

    def run(self, call):
        """One invocation; the exit status."""
        if len(call.argv) < 2:
            call.out("Commands available under /:\nhbrsvc/       internalsvc/  solo/         "
                     "vmsvc/\nhostsvc/      proxysvc/     vimsvc/       help\n")
            return 0
        broken = self.broken(call)
        if broken is not None:
            return broken
        name = call.argv[1].strip("/")
        if name not in self.commands:
            call.err("Invalid command '%s'.\n" % call.argv[1])
            return 1
        function, least, usage = self.commands[name]
        arguments = call.argv[2:]
        try:
            if len(arguments) < least:
                raise Usage()
            if name.startswith("vmsvc/") and least > 0 and name not in FOR_INVALID_TOO and \
                    not self.host.require(arguments[0]).valid():
                raise Fault("vim.fault.InvalidState",
                            "The operation is not allowed in the current state.")
            try:
                return function(call, arguments) or 0
            except FileNotFoundError:       # unregistered or deleted while we looked
                raise Fault("vmodl.fault.ManagedObjectNotFound", "The object has already been "
                            "deleted or has not been completely created",
                            obj="'vim.VirtualMachine:%s'" % (arguments or "?")[0]) from None
        except Usage:
            call.out("Insufficient arguments.\nUsage: %s %s\n" % (name.rsplit("/", 1)[-1], usage))
            return 1
        except Fault as fault:
            call.out(show_fault(fault, self.host.knobs.on("old-texts")))
            return 1

    def broken(self, call):
        """The failures that the knob vim-cmd turns on; None when there is none."""
        knobs = self.host.knobs
        how = knobs["vim-cmd"]
        if how == "ok" or (knobs["vim-cmd-match"] and
                           knobs["vim-cmd-match"] not in " ".join(call.argv)):
            return None
        self.failures += 1
        times = int(knobs.number("vim-cmd-fail-times"))
        if times and self.failures >= times:
            knobs.set("vim-cmd", "ok")
            self.failures = 0
        if how == "bad-alloc":
            call.err("terminate called after throwing an instance of 'std::bad_alloc'\n"
                     "  what():  std::bad_alloc\n")
            return call.die(6)
        if how == "login-failure":
            call.out("Failed to login: Connection reset by peer\n")
            return 1
        if how == "hang":
            call.wait_gone(3600)
            return 1
        raise Fault("vmodl.fault.SystemError", "A general system error occurred: " + how)

    # inventory

    def getallvms(self, call, _):
        rows = []
        for line in self.host.invalid_lines:
            call.err(line + "\n")
        for m in sorted(self.host.machines.values(), key=lambda m: str(m.vmid)):
            if not m.valid():
                call.err("Skipping invalid VM '%d'\n" % m.vmid)
                continue
            vmx = m.vmx()
            rows.append((str(m.vmid), vmview.shown_name(m), self.host.bracket(m.vmx_path),
                         vmview.guest_id(vmx), "vmx-%02d" % int(vmx.get("virtualHW.version", "13")),
                         vmx.get("annotation", "")))
        head = ("Vmid", "Name", "File", "Guest OS", "Version", "Annotation")
        widths = [max([len(head[i])] + [len(r[i]) for r in rows]) for i in range(5)]
        widths[0] = max(widths[0], 4)
        call.out("   ".join([head[0].ljust(widths[0])] + [head[i].center(widths[i])
                                                         for i in range(1, 5)] + [head[5]]) + "\n")
        for r in rows:
            cells = [r[0].ljust(widths[0])] + [r[i].ljust(widths[i]) for i in range(1, 5)]
            note = r[5] if r[5] or self.host.profile != "8.0" else " " * 60
            call.out(("   ".join(cells) + "   " + note).rstrip("\n") + "\n")

    def summary(self, call, a):
        call.out("Listsummary:\n\n%s\n" % show(vmview.summary(self.host, self.host.require(a[0]))))

    def config(self, call, a):
        call.out("Configuration:\n\n%s\n" % show(vmview.config(self.host, self.host.require(a[0]))))

    def runtime(self, call, a):
        m = self.host.require(a[0])
        call.out("Runtime information\n\n%s\n" % show(vmview.runtime(self.host, m)))

    def guest(self, call, a):
        m = self.host.require(a[0])
        call.out("Guest information:\n\n%s\n" % show(vmview.guest(m)))

    def vm_datastores(self, call, a):
        m = self.host.require(a[0])
        stores = {self.host.datastore_of(d.path).name: self.host.datastore_of(d.path)
                  for d in m.disks() if self.host.datastore_of(d.path)}
        home = self.host.datastore_of(m.folder)
        stores[home.name] = home
        for d in stores.values():
            call.out("name                 %s\nurl                  %s\ncapacity             %d\n"
                     "freeSpace            %d\naccessible           true\n"
                     "type                 %s\nmultipleHostAccess   false\n\n"
                     % (d.name, self.host.facts["url"] % d.uuid, d.size, self.host.free_bytes(d),
                        d.kind.split("-")[0]))

    def getdevices(self, call, a):
        m = self.host.require(a[0])
        call.out("Devices:\n\n%s\n" % show(Obj("vim.vm.VirtualHardware",
                                              **vmview.hardware(self.host, m))))

    def filelayout(self, call, a):
        m = self.host.require(a[0])
        call.out("%s\n" % show(vmview.filelayout(self.host, m)))

    def space_needed(self, call, a):
        m = self.host.require(a[0])
        call.out("Space needed for consolidation: %d\n" % (vmview.delta_bytes(m)))

    # power

    def getstate(self, call, a):
        m = self.host.require(a[0])
        call.out("Retrieved runtime info\n%s\n" % {"on": "Powered on", "off": "Powered off",
                                                   "suspended": "Suspended"}[m.power])

    def power(self, call, m, name, action, text, failed):
        task = Task(self.host, name, m.vmid)
        call.out(text + "\n")
        try:
            action()
        except Fault as fault:
            task.finish(fault)
            if self.host.knobs.on("old-texts"):
                call.out(show_fault(fault, True))
            else:
                call.out(failed + "\n")
            return 1
        task.finish()
        return 0

    def power_on(self, call, a):
        m = self.host.require(a[0])
        how = self.host.knobs["power-on"]
        if how == "question" and m.power != "on":
            m.question = {"id": 27, "answered": threading.Event()}
            while not m.question["answered"].wait(0.05):
                if call.gone():
                    break
            m.question = None

        def action():
            if how == "fail":
                raise Fault("vim.fault.GenericVmConfigFault", "Power on failed.")
            m.power_on()
        return self.power(call, m, "vim.VirtualMachine.powerOn", action, "Powering on VM:",
                          "Power on failed")

    def power_off(self, call, a):
        m = self.host.require(a[0])
        return self.power(call, m, "vim.VirtualMachine.powerOff", m.power_off, "Powering off VM:",
                          "Power off failed")

    def power_suspend(self, call, a):
        m = self.host.require(a[0])
        return self.power(call, m, "vim.VirtualMachine.suspend", lambda: m.power_off(True),
                          "Suspending VM:", "Suspend failed")

    def power_shutdown(self, call, a):
        m = self.host.require(a[0])
        if m.power != "on":
            raise Fault("vim.fault.InvalidPowerState", "The attempted operation cannot be "
                        "performed in the current state (Powered off).")
        m.power_off()

    def message(self, call, a):
        m = self.host.require(a[0])
        if m.question is None:
            call.out("No message.\n")
            return 0
        if len(a) < 3:
            call.out("Virtual machine message %d:\nmsg.uuid.altered:This virtual machine might "
                     "have been moved or copied.\nIn order to configure certain management and "
                     "networking features, VMware ESX needs to know if this virtual machine was "
                     "moved or copied.\n\nIf you don't know, answer \"I Copied It\".\n"
                     "   0. Cancel (Cancel)\n   1. I Moved It (I Moved It)\n"
                     "   2. I Copied It (I Copied It) [default]\n" % m.question["id"])
            return 0
        if a[1] == str(m.question["id"]):
            m.question["answered"].set()
        return 0

    # snapshots

    def tree_lines(self, m):
        out = []

        def walk(parent, depth):
            for s in m.record["snapshots"]:
                if s["parent"] != parent:
                    continue
                dash = "--" * depth
                out.append("%s|-%s" % (dash, "ROOT" if depth == 0 else "CHILD"))
                t = time.gmtime(s["created"] / 1000000)
                dash += "--"
                out.extend([
                    "%sSnapshot Name        : %s" % (dash, s["name"]),
                    "%sSnapshot Id        : %d" % (dash, s["id"]),
                    "%sSnapshot Desciption  : %s" % (dash, s["description"]),
                    "%sSnapshot Created On  : %d/%d/%d %d:%d:%d" % (
                        dash, t.tm_mon, t.tm_mday, t.tm_year, t.tm_hour, t.tm_min, t.tm_sec),
                    "%sSnapshot State       : powered %s" % (dash, s["state"])])
                walk(s["id"], depth + 1)
        walk(0, 0)
        return "".join(line + "\n" for line in out)

    def snapshot_get(self, call, a):
        m = self.host.require(a[0])
        call.out("Get Snapshot:\n" + self.tree_lines(m))

    def snapshotinfo(self, call, a):
        m = self.host.require(a[0])
        current = m.record["current"]
        call.out("Get Snapshot Info:\n\n%s\n" % show(Obj(
            "vim.vm.SnapshotInfo",
            currentSnapshot=vmview.snapshot_ref(m, current) if current else Null("vim.vm.Snapshot"),
            rootSnapshotList=Array("vim.vm.SnapshotTree", vmview.snapshot_tree(m, 0)))
            if m.record["snapshots"] else Null("vim.vm.SnapshotInfo")))

    def claim(self, m, name):
        """One snapshot operation at a time."""
        with self.host.lock:
            if m.busy is not None or self.host.knobs["create-result"] == "busy":
                raise Fault("vim.fault.TaskInProgress", "Another task is already in progress.")
            m.busy = name

    def in_task(self, m, name, work, hidden=False):
        """Run work in a task that goes on when vim-cmd has gone.  (task, thread).

        work gets a function with which it waits; that ends the task when the host goes down.
        """
        task = Task(self.host, name, m.vmid)
        if hidden:
            self.host.tasks.remove(task)
        power_cut = self.host.power_cut

        def pause(seconds):
            if power_cut.wait(seconds):
                raise Fault("vmodl.fault.HostCommunication", "The host went down.")

        def body():
            fault = None
            try:
                work(pause)
            except Fault as f:
                fault = f
            except Exception as f:     # a defect here must not look like a running task for ever
                fault = Fault("vmodl.fault.SystemError", "A general system error occurred: %r" % f)
            finally:
                m.busy = None
                task.finish(fault)
        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        return task, thread

    def flag(self, text):
        return text.lower() in ("1", "true", "yes")

    def snapshot_create(self, call, a):
        m = self.host.require(a[0])
        knobs = self.host.knobs
        result = knobs["create-result"]
        late = knobs.number("create-late")
        name = a[1] if len(a) > 1 else ""
        description = a[2] if len(a) > 2 else ""
        memory = self.flag(a[3]) if len(a) > 3 else False
        quiesce = self.flag(a[4]) if len(a) > 4 else False
        refused = Fault("vim.fault.GenericVmConfigFault", "An error occurred while taking a "
                        "snapshot: Failed to quiesce the virtual machine.")
        call.out("Create Snapshot:\n")
        self.claim(m, "create")

        def work(pause):
            pause(knobs.number("create-delay") + late)
            if result in ("fault", "fault0") and not late:
                raise refused
            if result == "silent" and not late:
                return
            m.create_snapshot(name, description, memory, quiesce)
        task, thread = self.in_task(m, "vim.VirtualMachine.createSnapshot", work,
                                    late and knobs.on("create-late-hidden"))
        if late:
            return self.end_of_create(call, refused if result.startswith("fault") else None, result)
        thread.join()
        return self.end_of_create(call, task.fault, result)

    def end_of_create(self, call, fault, result):
        if fault is None:
            return 0
        call.out("Create snapshot failed\n" + show_fault(fault, self.host.knobs.on("old-texts")))
        return 0 if result == "fault0" else 1

    def find_snapshot(self, m, text):
        s = m.snapshot(int(text)) if text.isdigit() else None
        if s is None:
            raise Fault("vim.fault.NotFound", "The specified snapshot does not exist")
        return s

    def snapshot_remove(self, call, a):
        m = self.host.require(a[0])
        s = self.find_snapshot(m, a[1])
        children = self.flag(a[2]) if len(a) > 2 else False
        return self.remove(call, m, "vim.vm.Snapshot.remove", "Remove Snapshot:",
                           lambda: m.remove_snapshot(s["id"], children))

    def remove(self, call, m, task_name, title, action):
        knobs = self.host.knobs
        result = knobs["remove-result"]
        call.out(title + "\n")
        self.claim(m, "remove")

        def work(pause):
            if result in ("fault", "fault0"):
                raise Fault("vim.fault.GenericVmConfigFault", "An error occurred while "
                            "consolidating disks: Disk problem.")
            pause(knobs.number("remove-delay"))
            action()
        task, thread = self.in_task(m, task_name, work)
        if result != "early":
            thread.join()
        if task.fault is not None:
            call.out("Remove snapshot failed\n" + show_fault(task.fault, knobs.on("old-texts")))
            return 0 if result == "fault0" else 1
        call.out(self.tree_lines(m))
        return 0

    def snapshot_removeall(self, call, a):
        m = self.host.require(a[0])

        def action():
            for s in [s["id"] for s in m.record["snapshots"] if s["parent"] == 0]:
                m.remove_snapshot(s, True)
            m.consolidate()
        return self.remove(call, m, "vim.VirtualMachine.removeAllSnapshots",
                           "Remove All Snapshots:", action)

    def snapshot_revert(self, call, a):
        m = self.host.require(a[0])
        s = self.find_snapshot(m, a[1])
        call.out("Revert Snapshot:\n")
        self.claim(m, "revert")
        task, thread = self.in_task(m, "vim.vm.Snapshot.revert",
                                    lambda pause: m.revert(s["id"]))
        thread.join()
        if task.fault is not None:
            raise task.fault
        call.out(self.tree_lines(m))

    # tasks

    def live_tasks(self, vmid):
        now = time.time()
        self.host.tasks[:] = [t for t in self.host.tasks
                              if t.completed is None or now - t.completed < 600]
        return [t for t in self.host.tasks if t.vmid == vmid]

    def tasklist(self, call, a):
        m = self.host.require(a[0])
        call.out(show(Array("ManagedObjectReference", [
            Ref("vim.Task:" + t.key) for t in self.live_tasks(m.vmid)])) + "\n")

    def find_task(self, key):
        key = key[len("vim.Task:"):] if key.startswith("vim.Task:") else key
        for t in self.host.tasks:
            if t.key == key:
                return t
        raise Fault("vmodl.fault.ManagedObjectNotFound", "The object has already been deleted or "
                    "has not been completely created", obj="'vim.Task:%s'" % key)

    def task_info(self, call, a):
        t = self.find_task(a[0])
        fault = Null("vmodl.MethodFault")
        if t.fault is not None:
            fault = Obj(t.fault.kind, faultCause=Null("vmodl.MethodFault"), faultMessage=None,
                        msg=t.fault.message)
        m = self.host.machines.get(t.vmid)
        call.out(show(Obj(
            "vim.TaskInfo", key=t.key, task=Ref("vim.Task:" + t.key), description=None,
            name=Ref(t.name), descriptionId=t.name.replace("vim.", "", 1),
            entity=Ref("vim.VirtualMachine:%s" % t.vmid), entityName=m.name if m else "",
            state=t.state, cancelled=False, cancelable=False, error=fault, result=None,
            progress=t.progress if t.state == "running" else None,
            reason=Obj("vim.TaskReasonUser", userName="root"), queueTime=iso(t.queued),
            startTime=iso(t.queued), completeTime=iso(t.completed) if t.completed else None,
            eventChainId=0)) + "\n")

    def task_cancel(self, call, a):
        self.find_task(a[0])
        raise Fault("vmodl.fault.NotSupported", "The operation is not supported on the object.")

    # registration, host

    def registervm(self, call, a):
        call.out("%d\n" % self.host.register(self.host.real(a[0], call.cwd)))

    def unregister(self, call, a):
        self.host.unregister(self.host.require(a[0]))

    def destroy(self, call, a):
        self.host.destroy(self.host.require(a[0]))

    def reload(self, call, a):
        m = self.host.require(a[0])
        with m.lock:
            m.close_chains()
            self.host.changed()

    def license(self, call, a):
        if a[0] != "--show":
            raise Usage()
        key = self.host.knobs["license"]
        name = "vSphere 8 Hypervisor" if key == "esxBasic" else "vSphere 6 Enterprise Plus"
        call.out("[200] Sending request for installed licenses...[200] Complete, reply received."
                 "\nserial: 00000-00000-00000-00000-00000\nvmodl key: %s\nname: %s\ntotal: 0\n"
                 "used: 2\nunit: cpuPackage:8core\n" % (key, name))

    def datastore_summaries(self, call, _):
        call.out(show(Array("vim.Datastore.Summary", [
            vmview.datastore_summary(self.host, d) for d in self.host.datastores])) + "\n")

    def datastore_info(self, call, a):
        d = self.host.datastore(a[0])
        call.out(show(Obj(
            "vim.Datastore", summary=vmview.datastore_summary(self.host, d),
            info=Obj("vim.host.VmfsDatastoreInfo", name=d.name, url="/vmfs/volumes/" + d.uuid,
                     freeSpace=self.host.free_bytes(d),
                     vmfs=Obj("vim.host.VmfsVolume", type="VMFS", name=d.name, capacity=d.size,
                              blockSizeMb=1, uuid=d.uuid, version=d.kind[-1:] + ".81")))) + "\n")

    def hostsummary(self, call, _):
        f = self.host.facts
        call.out(show(Obj(
            "vim.host.Summary", host=Ref("vim.HostSystem:ha-host"),
            hardware=Obj("vim.host.Summary.HardwareSummary", vendor="Look-alike", model="Stand-in",
                         uuid=self.host.uuid, memorySize=17179869184,
                         cpuModel="Virtual CPU", cpuMhz=2400, numCpuPkgs=1, numCpuCores=4,
                         numCpuThreads=4, numNics=1, numHBAs=1),
            runtime=Obj("vim.host.RuntimeInfo", connectionState="connected",
                        powerState="poweredOn", inMaintenanceMode=False,
                        bootTime=iso(self.host.boot_time)),
            config=Obj("vim.host.Summary.ConfigSummary", name="localhost", port=902,
                       product=Obj("vim.AboutInfo", name="VMware ESXi",
                                   fullName="VMware ESXi %s build-%s" % (f["version"], f["build"]),
                                   vendor="VMware, Inc.", version=f["version"], build=f["build"],
                                   osType="vmnix-x86", productLineId="embeddedEsx",
                                   apiType="HostAgent", apiVersion=f["api"]),
                       vmotionEnabled=False),
            quickStats=Obj("vim.host.Summary.QuickStats", overallCpuUsage=100,
                           overallMemoryUsage=2048,
                           uptime=self.host.uptime_us() // 1000000),
            overallStatus="green", rebootRequired=False)) + "\n")

    def autostart(self, call, _):
        call.out(show(Array("vim.host.AutoStartManager.AutoPowerInfo", [
            Obj("vim.host.AutoStartManager.AutoPowerInfo", key=Ref("vim.VirtualMachine:%s" % vmid),
                startOrder=n + 1, startDelay=120, waitForHeartbeat="no", startAction="powerOn",
                stopDelay=120, stopAction="systemDefault")
            for n, vmid in enumerate(self.host.autostart)])) + "\n")
