/*
 * The virtual machines of a host.  Ids come from getallvms, everything else from get.summary and
 * its like for each id; a VM that vanishes meanwhile is left out.
 */
#ifndef RECEIVER_HOST_INVENTORY_H
#define RECEIVER_HOST_INVENTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct host;

enum {
    VM_COUNT_MAX = 4096,
    VM_DISKS_MAX = 256,
    VM_CHAIN_MAX = 256, /* links of one disk */
    VM_FILES_MAX = 4096,
};

enum vm_power { VM_OFF, VM_ON, VM_SUSPENDED };
enum vm_tracking { VM_TRACKING_UNKNOWN, VM_TRACKING_OFF, VM_TRACKING_ON };

enum vm_disk_kind {
    VM_DISK_FILE, /* a file chain on a datastore */
    VM_DISK_RDM_VIRTUAL,
    VM_DISK_RDM_PHYSICAL,
    VM_DISK_OTHER, /* backing that is no file we know: see backing */
};

struct vm_disk {
    char slot[16]; /* "scsi0:0"; also ide, sata, nvme */
    uint64_t key;  /* VMware's device key */
    char *label;   /* "Hard disk 1" */
    uint64_t capacity_bytes;
    enum vm_disk_kind kind;
    char *backing;  /* the type's name, "FlatVer2" */
    char *file;     /* descriptor of the leaf, "[ds] a/a.vmdk" */
    char **parents; /* descriptors below it, nearest first */
    size_t parent_count;
    bool independent; /* not part of snapshots */
    bool nonpersistent;
    bool shared; /* multi-writer */
    bool thin;
    char uuid[48];      /* as VMware prints it, "6000C293-…"; "" when missing */
    char change_id[80]; /* "" when there is none */
};

struct vm_disks {
    struct vm_disk *items;
    size_t count;
};

struct vm {
    unsigned vmid;
    char *name;  /* raw bytes as vim-cmd prints them: a slash is %2f */
    char *vmx;   /* "[ds] d/d.vmx" */
    char *guest; /* guestFullName or guestId; "" when unknown */
    char *guest_id;
    char uuid[40]; /* BIOS */
    char instance_uuid[40];
    enum vm_power power;
    unsigned cpus;
    uint64_t memory_bytes;
    uint64_t committed_bytes; /* storage that its files take */
    uint64_t uncommitted_bytes;
    bool is_template;
    bool connected;      /* false: invalid, inaccessible, orphaned… */
    char connection[24]; /* "connected" */
    bool consolidation_needed;
    bool question_pending;
    /* Filled by host_vm_details. */
    bool detailed;
    struct vm_disks disks;
    size_t snapshots;
    enum vm_tracking tracking;
};

/* A VM that could not be read, or is registered but invalid. */
struct vm_problem {
    unsigned vmid;
    char text[240];
};

struct vm_list {
    struct vm *items;
    size_t count;
    struct vm_problem *problems;
    size_t problem_count;
};

/* 0, or -1 with the codes of host_vim; no readable list is ERR_SOURCE; ERR_LIMIT, ERR_STOPPED. */
int host_vms(struct host *h, struct vm_list *out, struct err *e);
void vm_list_free(struct vm_list *l);

/* One VM again, by id.  *out is freed with vm_free.  ERR_NOT_FOUND when it is gone. */
int host_vm(struct host *h, unsigned vmid, struct vm *out, struct err *e);
void vm_free(struct vm *vm);

/* Disks, number of snapshots and change tracking. */
int host_vm_details(struct host *h, struct vm *vm, struct err *e);

/* The disks alone, in order of their slots. */
int host_vm_disks(struct host *h, unsigned vmid, struct vm_disks *out, struct err *e);
void vm_disks_free(struct vm_disks *d);

/*
 * Is this still the VM that we mean: same vmx path and same UUIDs under this id?
 * 0, or -1: ERR_SOURCE (another one), ERR_NOT_FOUND, host_vim's.
 */
int host_vm_same(struct host *h, const struct vm *vm, struct err *e);

/* Find the VM of a vmx path and instance UUID, whatever its id is now.  ERR_NOT_FOUND. */
int host_vm_find(struct host *h, const char *vmx, const char *instance_uuid, struct vm *out,
                 struct err *e);

/* Files that define a VM: configuration, and descriptors of disks; never data, swap or logs. */
enum vm_file_kind {
    VM_FILE_VMX,
    VM_FILE_NVRAM,
    VM_FILE_VMXF,
    VM_FILE_VMSD,
    VM_FILE_DESCRIPTOR,
    VM_FILE_OTHER
};
struct vm_file {
    enum vm_file_kind kind;
    char *path; /* "[ds] a/a.nvram" */
};
struct vm_files {
    struct vm_file *items;
    size_t count;
};
int host_vm_files(struct host *h, const struct vm *vm, struct vm_files *out, struct err *e);
void vm_files_free(struct vm_files *f);

/*
 * The VMs that one operand means: a literal name before a pattern with * and ?, "#12", "uuid:…".
 * picked[] takes indexes into l, at most l->count of them, ascending.
 * 0, or -1: ERR_NOT_FOUND (none, or several of one name: the text lists them), ERR_USAGE.
 */
int vm_select(const struct vm_list *l, const char *operand, size_t *picked, size_t *picked_count,
              struct err *e);

/* Does a whole name fit a pattern where * is any text and ? any one character? */
bool vm_name_fits(const char *name, const char *pattern);

/* Words of the JSON output. */
const char *vm_power_name(enum vm_power power);   /* "on", "off", "suspended" */
const char *vm_tracking_name(enum vm_tracking t); /* "on", "off", "unknown" */

/* For tests and for whoever has the text already. */
int inventory_read_ids(const char *text, unsigned **ids, size_t *count,
                       struct vm_problem **problems, size_t *problem_count, struct err *e);
int inventory_read_summary(const char *text, size_t bytes, unsigned vmid, struct vm *out,
                           struct err *e);
int inventory_read_disks(const char *text, size_t bytes, struct vm_disks *out, struct err *e);

#endif
