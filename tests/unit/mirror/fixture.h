/*
 * A host made of memory: disks whose content the tests set, and a source that walks them as the
 * stream engine does, straight into a sink.
 */
#ifndef TESTS_UNIT_MIRROR_FIXTURE_H
#define TESTS_UNIT_MIRROR_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/base/err.h"
#include "receiver/mirror/mirror.h"
#include "receiver/mirror/mirror_read.h"

#define UUID_A "60 00 C2 91 00 00 00 00-00 00 00 00 00 00 00 0a"
#define UUID_B "60 00 C2 92 00 00 00 00-00 00 00 00 00 00 00 0b"

enum { BLOCK = 16 << 10, DISKS_MAX = 4, WARNINGS_BYTES = 16 << 10 };

struct disk {
    char slot[24];
    char uuid[64];
    uint64_t capacity;
    uint8_t *data;
    bool included;
};

struct host {
    char dir[64]; /* scratch folder; the mirrors are in dir/m */
    char place[80];
    struct mirror_vm vm;
    struct disk disks[DISKS_MAX];
    size_t count;
    struct mirror_env env;
    char warnings[WARNINGS_BYTES];
    int keep;
    bool keep_lower;
    int64_t time;
};

struct walk {
    uint64_t stop_at;          /* the connection dies before this block; 0: never */
    bool full;                 /* send all that is not zeros */
    bool raw;                  /* do not compress */
    bool unstage;              /* what an unfinished run has left is thrown away */
    uint64_t same, zero, sent; /* out: blocks */
    bool distrusted, resumed;  /* out: of any disk */
    bool held;                 /* out: of the last disk */
    struct digest held_root;
};

void host_new(struct host *h);
void host_free(struct host *h); /* removes the folder */
/* The same around each test of cmocka, whose *state is the host. */
int host_setup(void **state);
int host_teardown(void **state);

struct disk *host_add(struct host *h, const char *slot, const char *uuid, uint64_t capacity);
void disk_set(struct disk *d, uint64_t block, unsigned seed); /* 0: zeros */
void disk_grow(struct disk *d, uint64_t capacity);
void disk_copy(struct disk *to, const struct disk *from);
/* A disk of 101 blocks: 16 with content, holes, and a short last one. */
struct disk *some_disk(struct host *h, const char *slot, const char *uuid);

/* Walk one disk into a sink.  -1 when it was stopped or the sink failed. */
struct sink;
int walk_disk(struct sink *s, const struct disk *d, struct walk *w, struct err *e);

/* A whole run; *number is the generation. */
int host_run(struct host *h, struct walk *w, uint64_t *number, struct err *e);
void must_run(struct host *h, struct walk *w); /* w may be NULL */
struct mirror_facts some_facts(const struct host *h);
/* The same, but die in the middle without closing anything in order. */
int host_run_until_commit(struct host *h, struct walk *w, struct mirror **m, struct mirror_run **r,
                          struct err *e);

/* Must hold: the image of slot in this folder is the disk, byte for byte. */
void assert_image(const char *folder, const char *file, const struct disk *d);
bool image_is(const char *folder, const char *file, const struct disk *d);

/* path/to/file below the VM's folder `name`. */
const char *in_mirror(const struct host *h, const char *name, const char *file);

/* Restore what the user typed to a new folder, whose path goes to out. */
int restore_gen(struct host *h, const char *gen, char out[128], struct err *e);
/* It works, and `file` of it is the disk. */
void must_restore(struct host *h, const char *gen, const char *file, const struct disk *d);

/* Check of the folder; problems found are counted and the first is kept. */
struct problems {
    unsigned count;
    char object[256], text[512];
};
int check_mirror(struct host *h, const char *name, bool read_data, struct problems *p,
                 struct err *e);
void must_be_clean(struct host *h, const char *name); /* data read, too */

/* --- faults (fault.c) --- */

enum fault_kind { FAULT_KILL, FAULT_ERROR };

/* The nth system call that changes files from here on kills the process, or fails with `os`; from
 * then on all of them do, if `for_ever`. */
void fault_arm(unsigned long nth, enum fault_kind kind, int os, bool for_ever);
bool fault_fired(void);
void fault_disarm(void);

/* One of those calls: told before it is made, and again with `done` when it went well. */
struct fault_call {
    enum { CALL_OTHER, CALL_WRITE, CALL_SYNC, CALL_MKDIR, CALL_RENAME, CALL_REMOVE } kind;
    int fd; /* the file, or the folder of `name` */
    const char *name;
    int to; /* CALL_RENAME: the folder of `to_name` */
    const char *to_name;
    bool done;
};
extern void (*fault_watch)(const struct fault_call *call); /* NULL: nobody looks */

/* A run in a process of its own.  The exit status: 0, 1 failed (the text is on standard error), 99
 * killed. */
int host_run_forked(struct host *h, unsigned long kill_at, enum fault_kind kind, int os);

void assert_ok(int rc, const struct err *e);

#endif
