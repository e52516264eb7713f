/*
 * What a power cut would leave: every call that changes files is watched, and whenever the store
 * publishes something, all that it stands on must have been made durable before.  Killing a process
 * cannot show a missing fsync, as the kernel writes what a dead process wrote.
 */
#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/mirror/fixture.h"

enum { INODES_MAX = 4096 };

/* Inodes with changes that no fsync has covered yet; all on one file system. */
static struct {
    ino_t dirty[INODES_MAX];
    size_t count;
    const char *place; /* the folder of mirrors */
    const char *what;  /* what is being published */
    ino_t allowed;     /* the folder in which the name changes just now */
    unsigned commits, generations, checkpoints, folders;
    char fault[512]; /* the first breach; "" if none */
} watch;

static bool inode_at(int dir, const char *name, struct stat *st)
{
    return (name == NULL ? fstat(dir, st) : fstatat(dir, name, st, AT_SYMLINK_NOFOLLOW)) == 0;
}

static bool is_dirty(ino_t inode)
{
    for (size_t i = 0; i < watch.count; i++)
        if (watch.dirty[i] == inode)
            return true;
    return false;
}

static void set_dirty(ino_t inode)
{
    if (is_dirty(inode))
        return;
    assert_true(watch.count < INODES_MAX);
    watch.dirty[watch.count++] = inode;
}

static void set_clean(ino_t inode)
{
    for (size_t i = 0; i < watch.count; i++)
        if (watch.dirty[i] == inode) {
            watch.dirty[i] = watch.dirty[--watch.count];
            return;
        }
}

static void breach(const char *path)
{
    if (watch.fault[0] == '\0')
        snprintf(watch.fault, sizeof watch.fault, "%.200s is not durable when %.200s is published",
                 path, watch.what);
}

static int look_at(const char *path, const struct stat *st, int kind, struct FTW *f)
{
    const char *name = path + f->base;

    (void)kind;
    /* The room for apply holds nothing, and a temporary is nobody's yet. */
    if (is_dirty(st->st_ino) && st->st_ino != watch.allowed && strcmp(name, "scratch") != 0 &&
        strncmp(name, ".vmferry-tmp-", 13) != 0)
        breach(path);
    return 0;
}

/* All files and folders below the mirrors must be durable now. */
static void all_must_be_durable(const char *what, ino_t allowed)
{
    watch.what = what;
    watch.allowed = allowed;
    nftw(watch.place, look_at, 16, FTW_PHYS);
}

static void watch_rename(const struct fault_call *c)
{
    struct stat st, dir;

    if (!c->done) {
        watch.what = c->to_name;
        assert_true(inode_at(c->to, NULL, &dir));
        if (inode_at(c->fd, c->name, &st) && S_ISREG(st.st_mode) && is_dirty(st.st_ino))
            breach(c->name);
        if (strcmp(c->to_name, "commit") == 0) {
            watch.commits++;
            all_must_be_durable("commit", 0);
        } else if (strncmp(c->to_name, "generation-", 11) == 0) {
            watch.generations++;
            all_must_be_durable(c->to_name, dir.st_ino);
        } else if (strstr(c->to_name, ".checkpoint") != NULL) {
            watch.checkpoints++;
            all_must_be_durable(c->to_name, dir.st_ino);
        } else if (strcmp(c->to_name, "web01") == 0) {
            watch.folders++;
            all_must_be_durable("the folder", 0);
        }
        if (inode_at(c->to, c->to_name, &st))
            set_clean(st.st_ino); /* about to be replaced */
        return;
    }
    if (inode_at(c->fd, NULL, &st))
        set_dirty(st.st_ino);
    if (inode_at(c->to, NULL, &st))
        set_dirty(st.st_ino);
}

/*
 * A name that goes need not be durable: what comes back after a power cut is swept again.  But a
 * commit record that came back would find its redo gone.
 */
static void watch_remove(const struct fault_call *c)
{
    bool is_commit = strcmp(c->name, "commit") == 0;
    struct stat st, dir;

    assert_true(inode_at(c->fd, NULL, &dir));
    if (c->done) {
        if (is_commit)
            set_dirty(dir.st_ino);
        return;
    }
    if (inode_at(c->fd, c->name, &st))
        set_clean(st.st_ino);
    if (is_commit)
        all_must_be_durable("the end of the commit", 0);
    watch.what = "the end of a redo";
    if (strncmp(c->name, "redo-", 5) == 0 && is_dirty(dir.st_ino))
        breach("the end of the commit");
}

static void look(const struct fault_call *c)
{
    struct stat st;

    switch (c->kind) {
    case CALL_WRITE:
        if (c->done && inode_at(c->fd, NULL, &st) && S_ISREG(st.st_mode))
            set_dirty(st.st_ino);
        return;
    case CALL_SYNC:
        if (c->done && inode_at(c->fd, NULL, &st))
            set_clean(st.st_ino);
        return;
    case CALL_MKDIR:
        if (c->done && inode_at(c->fd, NULL, &st))
            set_dirty(st.st_ino);
        return;
    case CALL_RENAME:
        watch_rename(c);
        return;
    case CALL_REMOVE:
        watch_remove(c);
        return;
    default:
        return;
    }
}

static void watched_run(struct host *h, unsigned commits, unsigned folders)
{
    struct walk w = { 0 };
    uint64_t number;
    struct err e;

    memset(&watch, 0, sizeof watch);
    watch.place = h->place;
    fault_watch = look;
    assert_ok(host_run(h, &w, &number, &e), &e);
    fault_watch = NULL;
    if (watch.fault[0] != '\0')
        fail_msg("%s", watch.fault);
    assert_int_equal(watch.commits, commits);
    assert_int_equal(watch.generations, commits);
    assert_int_equal(watch.folders, folders);
}

static void nothing_is_published_before_what_it_stands_on(void **state)
{
    struct host h;
    struct disk *a, *b;

    (void)state;
    host_new(&h);
    h.keep = 2;
    a = host_add(&h, "scsi0:0", "60 00 C2 91 00 00 00 00-00 00 00 00 00 00 00 0a", 20 * BLOCK);
    b = host_add(&h, "scsi0:1", "60 00 C2 92 00 00 00 00-00 00 00 00 00 00 00 0b", 9 * BLOCK + 512);
    for (unsigned i = 0; i < 20; i += 3)
        disk_set(a, i, i + 1);
    disk_set(b, 9, 40);
    watched_run(&h, 1, 1);
    /* A refresh with data in holes, zeros over data, and a kept generation. */
    disk_set(a, 0, 50);
    disk_set(a, 3, 0);
    disk_set(a, 7, 51);
    disk_set(b, 2, 52);
    watched_run(&h, 1, 0);
    /* One with disks that change places, and one that grows. */
    disk_set(a, 1, 60);
    snprintf(a->slot, sizeof a->slot, "scsi0:1");
    snprintf(b->slot, sizeof b->slot, "scsi0:0");
    disk_grow(b, 12 * BLOCK);
    disk_set(b, 11, 61);
    watched_run(&h, 1, 0);
    host_free(&h);
}

/* What a run cut short calls durable, is. */
static void a_checkpoint_stands_on_what_is_durable(void **state)
{
    struct host h;
    struct disk *a;

    (void)state;
    host_new(&h);
    a = host_add(&h, "scsi0:0", "60 00 C2 91 00 00 00 00-00 00 00 00 00 00 00 0a", 20 * BLOCK);
    for (unsigned i = 0; i < 20; i++)
        disk_set(a, i, i + 1);
    watched_run(&h, 1, 1);
    for (int refresh = 0; refresh < 2; refresh++) {
        struct walk w = { .stop_at = 9 };
        struct mirror_run *r = NULL;
        struct mirror *m = NULL;
        struct err e;

        for (unsigned i = 0; i < 12; i++)
            disk_set(a, i, 100 * (unsigned)(refresh + 1) + i);
        memset(&watch, 0, sizeof watch);
        watch.place = h.place;
        fault_watch = look;
        assert_int_equal(host_run_until_commit(&h, &w, &m, &r, &e), -1);
        fault_watch = NULL;
        mirror_run_end(r);
        mirror_close(m);
        assert_int_equal(watch.commits, 0);
        assert_true(watch.checkpoints > 0);
        if (watch.fault[0] != '\0')
            fail_msg("%s", watch.fault);
    }
    host_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_published_before_what_it_stands_on),
        cmocka_unit_test(a_checkpoint_stands_on_what_is_durable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
