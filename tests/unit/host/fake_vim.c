/* What vim-cmd of the scripted host answers, and the descriptors of the VM's disk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/unit/host/fake_parts.h"

#define CAPACITY "10485760"

static void print_summary(struct fake_host *f, struct fake_reply *r)
{
    fake_print(
        r,
        "Listsummary:\n\n(vim.vm.Summary) {\n   vm = 'vim.VirtualMachine:%u', \n"
        "   runtime = (vim.vm.RuntimeInfo) {\n      connectionState = \"connected\", \n"
        "      powerState = \"%s\", \n      question = (vim.vm.QuestionInfo) null, \n"
        "      consolidationNeeded = %s\n   }, \n   config = (vim.vm.Summary.ConfigSummary) {\n"
        "      name = \"web 01\", \n      template = false, \n"
        "      vmPathName = \"[ds1] web 01/web 01.vmx\", \n      memorySizeMB = 2048, \n"
        "      numCpu = 2, \n      uuid = \"564d0000-0000-0000-0000-000000000007\", \n"
        "      instanceUuid = \"%s\", \n      guestId = \"debian12_64Guest\", \n"
        "      guestFullName = \"Debian GNU/Linux 12 (64-bit)\", \n      annotation = \"\"\n"
        "   }, \n   storage = (vim.vm.Summary.StorageSummary) {\n      committed = 1048576, \n"
        "      uncommitted = 0\n   }\n}\n",
        f->vmid, f->power, f->consolidation ? "true" : "false", f->instance_uuid);
}

static const char *link_name(unsigned link, char out[64])
{
    if (link == 0)
        snprintf(out, 64, "[ds1] web 01/web 01.vmdk");
    else
        snprintf(out, 64, "[ds1] web 01/web 01-%06u.vmdk", link);
    return out;
}

/* The backing of a disk with its parents, the live link first. */
static void print_backing(struct fake_host *f, struct fake_reply *r)
{
    char name[64];
    int indent = 6;

    for (unsigned link = f->links;; link--) {
        fake_print(r,
                   "%*s%s = (vim.vm.device.VirtualDisk.%sBackingInfo) {\n"
                   "%*sfileName = \"%s\", \n%*sdiskMode = \"%s\", \n%*sthinProvisioned = true, \n"
                   "%*suuid = \"6000C290-aaaa-bbbb-cccc-000000000001\", \n"
                   "%*ssharing = \"sharingNone\", \n",
                   indent, "", link == f->links ? "backing" : "parent", f->disk_backing, indent + 3,
                   "", link_name(link, name), indent + 3, "", f->disk_mode, indent + 3, "",
                   indent + 3, "", indent + 3, "");
        if (link == 0)
            break;
        indent += 3;
    }
    fake_print(r, "%*sparent = (vim.vm.device.VirtualDisk.%sBackingInfo) null\n", indent + 3, "",
               f->disk_backing);
    for (; indent >= 6; indent -= 3)
        fake_print(r, "%*s}%s\n", indent, "", indent == 6 ? ", " : "");
}

static void print_devices(struct fake_host *f, struct fake_reply *r)
{
    fake_print(r, "Devices:\n\n(vim.vm.device.VirtualDevice) [\n"
                  "   (vim.vm.device.ParaVirtualSCSIController) {\n      key = 1000, \n"
                  "      busNumber = 0, \n      sharedBus = \"noSharing\"\n   }, \n"
                  "   (vim.vm.device.VirtualDisk) {\n      key = 2000, \n"
                  "      deviceInfo = (vim.Description) {\n         label = \"Hard disk 1\", \n"
                  "         summary = \"10,240 KB\"\n      }, \n");
    print_backing(f, r);
    fake_print(r, "      controllerKey = 1000, \n      unitNumber = 0, \n"
                  "      capacityInKB = 10240, \n      capacityInBytes = " CAPACITY "\n   }\n]\n");
}

static void print_time(struct fake_reply *r, int64_t t)
{
    char text[40];
    struct tm tm;
    time_t time = (time_t)t;

    gmtime_r(&time, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S.123456Z", &tm);
    fake_print(r, "\"%s\"", text);
}

static void appear_late(struct fake_host *f)
{
    if (f->late_name[0] != '\0' && f->late_looks-- == 0) {
        fake_host_add_snapshot(f, f->late_name, fake_now(f));
        f->late_name[0] = '\0';
        f->task_open = false;
    }
}

static void print_snapshots(struct fake_host *f, struct fake_reply *r)
{
    int indent = 6;

    appear_late(f);
    fake_print(r, "Get Snapshot Info:\n\n");
    if (f->snapshot_count == 0) {
        fake_print(r, "(vim.vm.SnapshotInfo) null\n");
        return;
    }
    fake_print(r,
               "(vim.vm.SnapshotInfo) {\n"
               "   currentSnapshot = 'vim.vm.Snapshot:7-snapshot-%u', \n"
               "   rootSnapshotList = (vim.vm.SnapshotTree) [\n",
               f->snapshots[f->snapshot_count - 1].id);
    for (size_t i = 0; i < f->snapshot_count; i++, indent += 6) {
        fake_print(r,
                   "%*s(vim.vm.SnapshotTree) {\n%*sname = \"%s\", \n%*sid = %u, \n%*screateTime = ",
                   indent, "", indent + 3, "", f->snapshots[i].name, indent + 3, "",
                   f->snapshots[i].id, indent + 3, "");
        print_time(r, f->snapshots[i].created);
        fake_print(r, ", \n%*sstate = \"poweredOff\", \n%*squiesced = true", indent + 3, "",
                   indent + 3, "");
        if (i + 1 < f->snapshot_count)
            fake_print(r, ", \n%*schildSnapshotList = (vim.vm.SnapshotTree) [\n", indent + 3, "");
        else
            fake_print(r, "\n");
    }
    for (size_t i = f->snapshot_count; i-- > 0;) {
        indent -= 6;
        fake_print(r, "%*s}\n%*s]\n", indent, "", indent - 3, "");
    }
    fake_print(r, "}\n");
}

static void print_fault(struct fake_reply *r, const char *type, const char *message)
{
    fake_print(r,
               "(%s) {\n   faultCause = (vmodl.MethodFault) null, \n   faultMessage = <unset>, \n"
               "   msg = \"%s\"\n}\n",
               type, message);
    r->status = 1;
}

static void create(struct fake_host *f, char **words, struct fake_reply *r)
{
    bool quiesce = strcmp(words[6], "1") == 0;

    fake_print(r, "Create Snapshot:\n");
    if (f->create_busy > 0) {
        f->create_busy--;
        print_fault(r, "vim.fault.TaskInProgress", "Another task is already in progress.");
    } else if (f->create_fault != NULL && (quiesce || !f->create_fault_quiesced)) {
        print_fault(r, "vim.fault.SnapshotFault", f->create_fault);
    } else if (f->create_late_looks > 0) {
        snprintf(f->late_name, sizeof f->late_name, "%s", words[3]);
        f->late_looks = f->create_late_looks;
        f->task_open = true;
    } else if (!f->create_silent) {
        if (f->appears_before != NULL)
            fake_host_add_snapshot(f, f->appears_before, fake_now(f) - 60);
        f->appears_before = NULL;
        fake_host_add_snapshot(f, words[3], fake_now(f));
        if (f->create_twice)
            fake_host_add_snapshot(f, words[3], fake_now(f));
    }
}

static void remove_snapshot(struct fake_host *f, char **words, struct fake_reply *r)
{
    unsigned id = (unsigned)strtoul(words[3], NULL, 10);

    fake_print(r, "Remove Snapshot:\n");
    if (strcmp(words[4], "0") != 0)
        abort(); /* nobody may ask for the children to go */
    if (f->remove_busy > 0) {
        f->remove_busy--;
        print_fault(r, "vim.fault.TaskInProgress", "Another task is already in progress.");
        return;
    }
    if (f->remove_does_nothing)
        return;
    for (size_t i = 0; i < f->snapshot_count; i++)
        if (f->snapshots[i].id == id) {
            memmove(&f->snapshots[i], &f->snapshots[i + 1],
                    (f->snapshot_count - i - 1) * sizeof f->snapshots[0]);
            f->snapshot_count--;
            if (f->remove_leaves_files)
                f->consolidation = true;
            else
                f->links--;
            return;
        }
    print_fault(r, "vim.fault.NotFound", "The specified snapshot does not exist");
}

void fake_vim(struct fake_host *f, char **words, size_t count, struct fake_reply *r)
{
    const char *what = words[1];
    char id[16];

    if (f->bad_alloc > 0) {
        f->bad_alloc--;
        fake_complain(r, 134, "terminate called after throwing an instance of 'std::bad_alloc'");
        return;
    }
    snprintf(id, sizeof id, "%u", f->vmid);
    if (strcmp(what, "vmsvc/getallvms") == 0) {
        fake_print(r,
                   "Vmid    Name             File                      Guest OS    Version   "
                   "Annotation\n%-7u web 01   [ds1] web 01/web 01.vmx   debian12_64Guest   vmx-19"
                   "   \n%s",
                   f->vmid, f->list_extra == NULL ? "" : f->list_extra);
    } else if (strcmp(what, "vimsvc/task_info") == 0) {
        fake_print(r,
                   "(vim.TaskInfo) {\n   key = \"%s\", \n   state = \"running\", \n"
                   "   progress = 42\n}\n",
                   words[2]);
    } else if (count > 2 && strcmp(words[2], id) != 0) {
        print_fault(r, "vim.fault.NotFound", "Unable to find a VM corresponding to \"x\"");
    } else if (strcmp(what, "vmsvc/get.summary") == 0) {
        print_summary(f, r);
    } else if (strcmp(what, "vmsvc/device.getdevices") == 0) {
        print_devices(f, r);
    } else if (strcmp(what, "vmsvc/get.config") == 0) {
        fake_print(r, "Configuration:\n\n(vim.vm.ConfigInfo) {\n   changeVersion = \"1\", \n"
                      "   changeTrackingEnabled = false\n}\n");
    } else if (strcmp(what, "vmsvc/get.filelayout") == 0) {
        fake_print(r, "Filelayout:\n\n(vim.vm.FileLayout) {\n   configFile = (string) [\n"
                      "      \"web 01.nvram\", \n      \"web 01.vmsd\"\n   ], \n"
                      "   logFile = (string) [\n      \"vmware.log\"\n   ]\n}\n");
    } else if (strcmp(what, "vmsvc/get.snapshotinfo") == 0) {
        print_snapshots(f, r);
    } else if (strcmp(what, "vmsvc/get.tasklist") == 0) {
        fake_print(r, f->task_open
                          ? "(ManagedObjectReference) [\n   'vim.Task:haTask-7-vim.VirtualMachine."
                            "createSnapshot-11'\n]\n"
                          : "(ManagedObjectReference) []\n");
    } else if (strcmp(what, "vmsvc/snapshot.create") == 0 && count == 7) {
        create(f, words, r);
    } else if (strcmp(what, "vmsvc/snapshot.remove") == 0 && count == 5) {
        remove_snapshot(f, words, r);
    } else {
        fake_complain(r, 1, "Invalid command");
    }
}

bool fake_descriptor(struct fake_host *f, const char *path, struct fake_reply *r)
{
    unsigned link = 0;

    if (strcmp(path, STORE "/web 01/web 01.vmdk") == 0) {
        fake_print(r,
                   "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=%08x\n"
                   "parentCID=ffffffff\ncreateType=\"%s\"\n\n# Extent description\n"
                   "RW 20480 VMFS \"web 01-flat.vmdk\"\n\n# The Disk Data Base \n#DDB\n\n"
                   "ddb.adapterType = \"lsilogic\"\nddb.thinProvisioned = \"1\"\n"
                   "ddb.uuid = \"60 00 C2 90 aa aa bb bb-cc cc 00 00 00 00 00 01\"\n%s",
                   f->base_cid, f->base_type, f->base_ddb != NULL ? f->base_ddb : "");
        return true;
    }
    if (sscanf(path, STORE "/web 01/web 01-%6u.vmdk", &link) != 1 || link == 0 || link > f->links)
        return false;
    fake_print(r,
               "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=%08x\nparentCID=%08x\n"
               "createType=\"seSparse\"\nparentFileNameHint=\"web 01%s.vmdk\"\n"
               "# Extent description\nRW 20480 SESPARSE \"web 01-%06u-sesparse.vmdk\"\n",
               f->base_cid + link, f->base_cid + link - 1 + (f->strange_cid && link == 1 ? 1 : 0),
               link == 1 ? "" : "-000001", link);
    return true;
}
