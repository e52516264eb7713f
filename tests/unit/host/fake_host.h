/*
 * A scripted ESXi for the tests of receiver/host: one or two VMs whose snapshots have state, behind
 * a struct transport.  Each test sets the knobs of the failure that it wants to see.
 */
#ifndef TESTS_UNIT_HOST_FAKE_HOST_H
#define TESTS_UNIT_HOST_FAKE_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "receiver/host/host.h"
#include "receiver/ssh/transport.h"

enum { FAKE_SNAPSHOTS_MAX = 16, FAKE_FILES_MAX = 32, FAKE_COMMANDS_MAX = 4096 };

struct fake_snapshot {
    unsigned id;
    char name[128];
    int64_t created;
};

struct fake_file {
    char path[256];
    char *data;
    size_t count;
    bool folder;
};

struct fake_reply;

struct fake_host {
    struct transport transport;
    struct host host; /* its clock moves only by pauses */
    uint64_t clock_ms;
    bool stop;

    /* The VM: id 7, "web 01" on [ds1] web 01/web 01.vmx. */
    const char *power; /* "poweredOn" */
    const char *instance_uuid;
    unsigned vmid;
    bool consolidation;
    const char *disk_mode;    /* "persistent" */
    const char *disk_backing; /* "FlatVer2" */
    const char *base_type;    /* createType of the base */
    uint32_t base_cid;
    const char *base_ddb;                               /* more lines of the base's descriptor */
    bool strange_cid;                                   /* the first delta expects another base */
    struct fake_snapshot snapshots[FAKE_SNAPSHOTS_MAX]; /* one line, the oldest first */
    size_t snapshot_count;
    unsigned last_id;
    unsigned links; /* deltas above the base: the number of snapshots unless something went wrong */

    /* Knobs. */
    const char *create_fault;   /* message of a fault; the snapshot is not made */
    bool create_fault_quiesced; /* only when quiescing */
    bool create_silent;         /* status 0, nothing is made */
    unsigned create_late_looks; /* appears when the tree has been looked at that often */
    bool create_twice;
    unsigned create_busy; /* so often: another task is in progress */
    bool remove_does_nothing;
    bool remove_leaves_files; /* gone from the tree, delta and consolidationNeeded remain */
    unsigned remove_busy;
    const char *appears_before; /* a snapshot of this name is in the tree just before ours */
    unsigned bad_alloc;         /* so many vim-cmd calls die */
    bool cut;                   /* every exec fails */
    bool task_open;             /* the task list shows a running creation */
    bool exec_refused;          /* Operation not permitted */
    bool mkdir_fails_on_ds;     /* only /tmp takes folders */
    bool corrupt_upload;
    const char *list_extra; /* printed behind getallvms' rows */
    struct fake_file files[FAKE_FILES_MAX];
    size_t file_count;

    /* The pending late snapshot. */
    char late_name[128];
    unsigned late_looks;

    char *commands[FAKE_COMMANDS_MAX];
    size_t command_count;
    /* A test's own command, looked at first; true when it answered. */
    bool (*extra)(struct fake_host *f, char **words, size_t count, struct fake_reply *r);
};

/* What a command prints. */
struct fake_reply {
    char *out;
    size_t out_bytes, out_room;
    char errors[1024];
    int status;
};
void fake_print(struct fake_reply *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void fake_print_bytes(struct fake_reply *r, const void *data, size_t count);

void fake_host_init(struct fake_host *f);
void fake_host_free(struct fake_host *f);

/* How many commands so far start with this text (after quotes are taken away). */
size_t fake_host_ran(const struct fake_host *f, const char *start);
struct fake_snapshot *fake_host_add_snapshot(struct fake_host *f, const char *name,
                                             int64_t created);
bool fake_host_has(const struct fake_host *f, const char *name);
struct fake_file *fake_host_file(struct fake_host *f, const char *path);
void fake_host_put(struct fake_host *f, const char *path, const void *data, size_t count);

#endif
