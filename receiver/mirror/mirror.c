/* Finding or making a VM's folder, and opening it for a run. */
#include "receiver/mirror/mirror.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/names.h"
#include "receiver/mirror/run.h"
#include "receiver/mirror/sweep.h"

enum {
    NAME_ROOM = NAME_SAFE_MAX + 32,
    NAME_TRIES = 100,
    OPEN_TRIES = 16,
    TEST_BYTES = 16 << 20, /* of the file that tries whether holes are holes */
};

/* --- the target --- */

/* A name for a trial, of its own: several runs may try the same folder at once. */
static int trial_name(char out[LAYOUT_NAME_ROOM], struct err *e)
{
    uint64_t number;

    if (random_bytes(&number, sizeof number, e) != 0)
        return -1;
    layout_name(out, ".vmferry-tmp-%016" PRIx64, number);
    return 0;
}

/* Only something that can hold holes may hold images: try, before anything else is written. */
static int test_sparse(int dir, struct err *e)
{
    static const uint8_t byte = 1;
    char name[LAYOUT_NAME_ROOM];
    struct stat s;
    int fd, rc = -1;

    if (trial_name(name, e) != 0)
        return -1;
    fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(e, "creating a file");
    if (ftruncate(fd, TEST_BYTES) != 0) {
        err_sys(e, "making a sparse file");
        goto out;
    }
    if (io_pwrite_all(fd, &byte, 1, TEST_BYTES - 1, e) != 0 || io_sync(fd, e) != 0)
        goto out;
    if (fstat(fd, &s) != 0) {
        err_sys(e, "looking at a sparse file");
        goto out;
    }
    if ((uint64_t)s.st_blocks * 512 >= TEST_BYTES) {
        err_set(e, ERR_UNSUPPORTED, "this file system has no sparse files: mirror to another one");
        goto out;
    }
    rc = 0;

out:
    io_drop(&fd);
    unlinkat(dir, name, 0);
    return rc;
}

/* Exclusive create, rename without replace, fsync of the folder: what publishing stands on. */
static int test_publish(int dir, struct err *e)
{
    char name[LAYOUT_NAME_ROOM];
    struct err refused;
    int rc = -1;

    if (trial_name(name, e) != 0)
        return -1;
    if (publish_bytes(dir, name, "x", 1, 0600, PUBLISH_NEW, e) != 0)
        return -1;
    if (publish_bytes(dir, name, "y", 1, 0600, PUBLISH_NEW, &refused) == 0)
        err_set(e, ERR_UNSUPPORTED, "this file system replaces files when it must not");
    else
        rc = 0;
    unlinkat(dir, name, 0);
    return rc;
}

/* DIR itself, when only its last component is missing. */
static int make_dir(const char *path, struct err *e)
{
    char *copy = strdup(path);
    int parent = -1;
    int rc = -1;

    if (copy == NULL) {
        err_sys(e, "getting memory");
    } else if (mkdir(path, 0700) != 0 && errno != EEXIST) { /* another run made it just now */
        err_sys(e, "making the folder %s", path);
    } else {
        parent = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        rc = parent >= 0 ? io_sync(parent, e) : err_sys(e, "opening the folder of %s", path);
    }
    io_drop(&parent);
    free(copy);
    return rc;
}

static int open_dir(struct mirror *m, struct err *e)
{
    m->dir_fd = open(m->dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (m->dir_fd < 0 && errno == ENOENT && !m->dry) {
        if (make_dir(m->dir_path, e) != 0)
            return -1;
        m->dir_fd = open(m->dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (m->dir_fd < 0 && errno == ENOTDIR)
        return err_set(e, ERR_USAGE, "%s is no folder, or lies in none", m->dir_path);
    if (m->dir_fd < 0)
        return m->dry && errno == ENOENT ? 0 : err_sys(e, "opening %s", m->dir_path);
    if (!m->dry && (test_sparse(m->dir_fd, e) != 0 || test_publish(m->dir_fd, e) != 0))
        return err_add(e, "%s", m->dir_path);
    return 0;
}

/* --- finding the folder --- */

struct search {
    struct mirror *m;
    bool shared;
    unsigned found, found_path; /* by identity; of those, with our vmx path */
    char name[256], name_path[256];
};

static int path_join(char **out, const char *dir, const char *name, struct err *e)
{
    free(*out);
    if (asprintf(out, "%s/%s", dir, name) >= 0)
        return 0;
    *out = NULL;
    return err_sys(e, "getting memory");
}

/* A hidden folder counts only when it is a first mirror under way. */
static bool may_be_mirror(const char *name)
{
    size_t count = strlen(name);
    size_t suffix = sizeof LAYOUT_PART_SUFFIX - 1;

    return name[0] != '.' ||
           (count > suffix + 1 && strcmp(name + count - suffix, LAYOUT_PART_SUFFIX) == 0);
}

static int search_entry(void *context, const char *name, struct err *e)
{
    struct search *q = context;
    struct store s;
    struct err ignored;
    const char *path;

    if (!may_be_mirror(name) || strlen(name) >= sizeof q->name)
        return 0;
    if (store_open(&s, q->m->dir_fd, name, name, &q->m->store.env, &ignored) != 0) {
        if (ignored.code != ERR_NOT_FOUND && ignored.os != ENOTDIR && ignored.code != ERR_SYSTEM)
            env_warn(&q->m->store.env, "%s/%s", q->m->dir_path, ignored.text);
        return 0;
    }
    (void)e;
    if (strcmp(s.identity.host_uuid, q->m->host_uuid) != 0 ||
        strcmp(s.identity.vm_uuid, q->m->vm_uuid) != 0)
        goto out;
    path = s.identity.vmx_path;
    if (store_load_newest(&s, &ignored) == 0 && s.newest.number > 0)
        path = s.newest.vmx_path;
    q->found++;
    snprintf(q->name, sizeof q->name, "%s", name);
    if (strcmp(path, q->m->vmx_path) == 0) {
        q->found_path++;
        snprintf(q->name_path, sizeof q->name_path, "%s", name);
    }

out:
    store_close(&s);
    return 0;
}

/* 1 found: its name is in q->name; 0 none; -1 error. */
static int find_folder(struct mirror *m, bool shared, struct search *q, struct err *e)
{
    *q = (struct search){ .m = m, .shared = shared };
    if (m->dir_fd < 0)
        return 0;
    if (folder_each(m->dir_fd, search_entry, q, e) != 0)
        return -1;
    if (q->found_path > 1)
        return err_set(e, ERR_REFUSED,
                       "%s: %u folders claim to be the mirror of this VM; move all but one away",
                       m->dir_path, q->found_path);
    if (q->found_path == 1)
        memcpy(q->name, q->name_path, sizeof q->name);
    else if (q->found > 1 && !shared)
        return err_set(e, ERR_REFUSED,
                       "%s: %u folders have this VM's UUID and none its path %s; move away what is "
                       "not its mirror",
                       m->dir_path, q->found, m->vmx_path);
    else if (shared)
        return 0; /* another VM's folder, of the same uuid */
    return q->found > 0 ? 1 : 0;
}

/* A name is taken by whatever stands there, also by a first mirror under way. */
static bool is_taken(const struct mirror *m, const char *name)
{
    char part[NAME_ROOM + 8];

    if (m->dir_fd < 0)
        return false;
    snprintf(part, sizeof part, ".%s%s", name, LAYOUT_PART_SUFFIX);
    return folder_has(m->dir_fd, name) || folder_has(m->dir_fd, part);
}

static void uuid8(const char *uuid, char out[9])
{
    size_t count = 0;

    for (; *uuid != 0 && count < 8; uuid++)
        if ((*uuid >= '0' && *uuid <= '9') || (*uuid >= 'a' && *uuid <= 'f') ||
            (*uuid >= 'A' && *uuid <= 'F'))
            out[count++] = (char)(*uuid >= 'A' && *uuid <= 'F' ? *uuid - 'A' + 'a' : *uuid);
    out[count] = 0;
}

/* The first name that is not taken. */
static int choose_name(const struct mirror *m, bool (*taken)(const struct mirror *, const char *),
                       char out[NAME_ROOM], struct err *e)
{
    char safe[NAME_SAFE_ROOM], eight[9];

    name_made_safe(m->vm_name, safe);
    uuid8(m->vm_uuid, eight);
    for (unsigned i = 0; i < NAME_TRIES; i++) {
        if (i == 0)
            snprintf(out, NAME_ROOM, "%s", safe);
        else if (i == 1)
            snprintf(out, NAME_ROOM, "%s-%s", safe, eight);
        else
            snprintf(out, NAME_ROOM, "%s-%s-%u", safe, eight, i);
        if (!taken(m, out))
            return 0;
    }
    return err_set(e, ERR_REFUSED, "%s: all names for %s are taken", m->dir_path, safe);
}

static int make_identity(struct mirror *m, int store_fd, struct err *e)
{
    struct mirror_identity i = { .host_uuid = m->host_uuid,
                                 .vm_uuid = m->vm_uuid,
                                 .vmx_path = m->vmx_path,
                                 .vm_name = m->vm_name,
                                 .made = (uint64_t)time(NULL) };

    if (random_bytes(i.mirror, sizeof i.mirror, e) != 0)
        return -1;
    return identity_save(&i, store_fd, e);
}

/* A part folder that died before it had an identity is taken over: under the lock of DIR. */
static int make_part(struct mirror *m, const char *part, struct err *e)
{
    int folder = -1, store = -1;
    bool made;
    int rc = -1;

    if (publish_directory(m->dir_fd, part, 0700, &made, e) != 0)
        return -1;
    folder = openat(m->dir_fd, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (folder < 0) {
        err_sys(e, "opening %s", part);
        goto out;
    }
    if (publish_directory(folder, LAYOUT_STORE, 0700, &made, e) != 0)
        goto out;
    store = openat(folder, LAYOUT_STORE, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (store < 0) {
        err_sys(e, "opening %s", part);
        goto out;
    }
    rc = make_identity(m, store, e);

out:
    io_drop(&store);
    io_drop(&folder);
    return rc;
}

static int is_foreign(void *context, const char *name, struct err *e)
{
    (void)context;
    return strcmp(name, LAYOUT_STORE) == 0 ? 0 : err_set(e, ERR_REFUSED, "%s is not ours", name);
}

/* Taken, unless by the remains of a part folder that died before it had an identity. */
static bool is_taken_by_somebody(const struct mirror *m, const char *name)
{
    char part[NAME_ROOM + 8], identity[NAME_ROOM + 40];
    struct err e;
    int fd;
    bool taken;

    if (folder_has(m->dir_fd, name))
        return true;
    snprintf(part, sizeof part, ".%s%s", name, LAYOUT_PART_SUFFIX);
    if (!folder_has(m->dir_fd, part))
        return false;
    snprintf(identity, sizeof identity, "%s/" LAYOUT_STORE "/" LAYOUT_IDENTITY, part);
    fd = openat(m->dir_fd, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    taken = fd < 0 || folder_has(m->dir_fd, identity) || folder_each(fd, is_foreign, NULL, &e) != 0;
    io_drop(&fd);
    return taken;
}

/* --- opening --- */

static int set_name(struct mirror *m, const char *folder_name, struct err *e)
{
    size_t count = strlen(folder_name);

    m->part = folder_name[0] == '.';
    if (m->part) {
        folder_name++;
        count -= 1 + sizeof LAYOUT_PART_SUFFIX - 1;
    }
    free(m->name);
    m->name = strndup(folder_name, count);
    if (m->name == NULL)
        return err_sys(e, "getting memory");
    return path_join(&m->folder, m->dir_path, m->name, e);
}

/* Is the folder that we hold open still the one of that name? */
static bool still_there(const struct mirror *m, const char *name)
{
    struct stat a, b;

    return fstat(m->store.folder_fd, &a) == 0 &&
           fstatat(m->dir_fd, name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* Find or make the folder under the lock of DIR; its name goes to found. */
static int locate(struct mirror *m, bool shared, char found[256], struct err *e)
{
    struct lock lock = LOCK_EMPTY;
    char name[NAME_ROOM];
    struct search q;
    int rc;

    if (lock_take(&lock, m->dir_fd, LAYOUT_DIR_LOCK, LOCK_EXCLUSIVE, m->store.env.lock_wait_ms,
                  m->store.env.stop, e) != 0)
        return err_add(e, "%s", m->dir_path);
    rc = find_folder(m, shared, &q, e);
    if (rc > 0) {
        memcpy(found, q.name, sizeof q.name);
        rc = 0;
    } else if (rc == 0) {
        rc = choose_name(m, is_taken_by_somebody, name, e);
        if (rc == 0) {
            snprintf(found, 256, ".%s%s", name, LAYOUT_PART_SUFFIX);
            rc = make_part(m, found, e);
        }
    }
    lock_release(&lock);
    return rc;
}

/* One try: 1 when the folder changed its name under our hands. */
static int try_open(struct mirror *m, bool shared, struct err *e)
{
    struct mirror_env env = m->store.env;
    char found[256];

    if (locate(m, shared, found, e) != 0 || set_name(m, found, e) != 0)
        return -1;
    if (store_open(&m->store, m->dir_fd, found, m->folder, &env, e) != 0) {
        m->store = STORE_EMPTY;
        m->store.env = env;
        return -1;
    }
    m->there = true;
    if (lock_take(&m->run_lock, m->store.store_fd, LAYOUT_RUN_LOCK, LOCK_EXCLUSIVE,
                  env.lock_wait_ms, env.stop, e) != 0)
        return err_add(e, "%s: another run is at work", m->folder);
    if (still_there(m, found))
        return 0;
    lock_release(&m->run_lock);
    store_close(&m->store);
    m->store.env = env;
    m->there = false;
    return 1;
}

/* A first mirror that died between its commit and the rename of its folder. */
static int finish_part(struct mirror *m, struct err *e)
{
    if (!m->part || m->store.newest.number == 0)
        return 0;
    env_warn(&m->store.env, "%s: a first mirror was complete; publishing it", m->folder);
    return mirror_publish_folder(m, e);
}

/* Readers where nothing can be written need a lock file that is there. */
static int make_lock(struct mirror *m, struct err *e)
{
    struct lock lock = LOCK_EMPTY;

    if (folder_has(m->store.store_fd, LAYOUT_LOCK))
        return 0;
    if (lock_take(&lock, m->store.store_fd, LAYOUT_LOCK, LOCK_EXCLUSIVE, m->store.env.lock_wait_ms,
                  m->store.env.stop, e) != 0)
        return -1;
    lock_release(&lock);
    return io_sync(m->store.store_fd, e);
}

static int open_for_run(struct mirror *m, bool shared, struct err *e)
{
    int rc = 1;

    for (int i = 0; i < OPEN_TRIES && rc > 0; i++)
        rc = try_open(m, shared, e);
    if (rc > 0)
        return err_set(e, ERR_BUSY, "%s: the folder keeps changing", m->folder);
    if (rc < 0)
        return -1;
    m->store.for_run = true;
    if (make_lock(m, e) != 0 || store_finish(&m->store, e) != 0 || finish_part(m, e) != 0 ||
        publish_sweep(m->store.store_fd, e) != 0 || publish_sweep(m->store.folder_fd, e) != 0 ||
        store_sweep(&m->store, SWEEP_ORPHANS, e) != 0)
        return -1;
    return 0;
}

/* Nothing is made, locked or finished: only looked at. */
static int open_dry(struct mirror *m, bool shared, struct err *e)
{
    struct mirror_env env = m->store.env;
    char name[NAME_ROOM];
    struct search q;
    int rc = find_folder(m, shared, &q, e);

    if (rc < 0)
        return -1;
    if (rc == 0) {
        if (choose_name(m, is_taken, name, e) != 0)
            return -1;
        return set_name(m, name, e);
    }
    if (set_name(m, q.name, e) != 0 ||
        store_open(&m->store, m->dir_fd, q.name, m->folder, &env, e) != 0) {
        m->store = STORE_EMPTY;
        m->store.env = env;
        return -1;
    }
    m->there = true;
    if (store_is_pending(&m->store))
        env_warn(&env, "%s: an interrupted refresh would be finished first", m->folder);
    return store_load_newest(&m->store, e);
}

static int copy_vm(struct mirror *m, const struct mirror_vm *vm, struct err *e)
{
    const struct {
        char **to;
        const char *from;
    } texts[] = {
        { &m->host_uuid, vm->host_uuid }, { &m->host_name, vm->host_name },
        { &m->vm_uuid, vm->uuid },        { &m->vmx_path, vm->vmx_path },
        { &m->vm_name, vm->name },
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].from != NULL && strlen(texts[i].from) > MIRROR_TEXT_MAX)
            return err_set(e, ERR_LIMIT, "a name or path of more than %d bytes", MIRROR_TEXT_MAX);
        if (text_set(texts[i].to, texts[i].from, e) != 0)
            return -1;
    }
    if (m->host_uuid[0] == 0 || m->vm_uuid[0] == 0)
        return err_set(e, ERR_USAGE, "a VM without UUID cannot be told from others");
    return 0;
}

int mirror_open_vm(struct mirror **out, const char *dir, const struct mirror_vm *vm, bool dry_run,
                   const struct mirror_env *env, struct err *e)
{
    struct mirror *m = calloc(1, sizeof *m);

    if (m == NULL)
        return err_sys(e, "getting memory");
    m->store = STORE_EMPTY;
    if (env != NULL)
        m->store.env = *env;
    m->dir_fd = -1;
    m->run_lock = LOCK_EMPTY;
    m->dry = dry_run;
    if (text_set(&m->dir_path, dir, e) != 0 || copy_vm(m, vm, e) != 0 || open_dir(m, e) != 0)
        goto fail;
    if (vm->uuid_shared)
        env_warn(&m->store.env,
                 "VM %s: another VM of this host has the same instance UUID; they are told apart "
                 "by their paths",
                 vm->name);
    if ((dry_run ? open_dry(m, vm->uuid_shared, e) : open_for_run(m, vm->uuid_shared, e)) != 0)
        goto fail;
    *out = m;
    return 0;

fail:
    mirror_close(m);
    return -1;
}

void mirror_close(struct mirror *m)
{
    if (m == NULL)
        return;
    lock_release(&m->run_lock);
    store_close(&m->store);
    io_drop(&m->dir_fd);
    free(m->dir_path);
    free(m->name);
    free(m->folder);
    free(m->host_uuid);
    free(m->host_name);
    free(m->vm_uuid);
    free(m->vmx_path);
    free(m->vm_name);
    free(m);
}

/* Under which name the part folder may appear now: its own part does not stand in its way. */
static bool is_taken_for_publishing(const struct mirror *m, const char *name)
{
    if (folder_has(m->dir_fd, name))
        return true;
    return strcmp(name, m->name) != 0 && is_taken_by_somebody(m, name);
}

int mirror_publish_folder(struct mirror *m, struct err *e)
{
    struct lock lock = LOCK_EMPTY;
    char part[NAME_ROOM + 8], name[NAME_ROOM];
    int rc = -1;

    assert(m->part);
    snprintf(part, sizeof part, ".%s%s", m->name, LAYOUT_PART_SUFFIX);
    snprintf(name, sizeof name, "%s", m->name);
    if (lock_take(&lock, m->dir_fd, LAYOUT_DIR_LOCK, LOCK_EXCLUSIVE, m->store.env.lock_wait_ms,
                  m->store.env.stop, e) != 0)
        return err_add(e, "%s", m->dir_path);
    if (is_taken_for_publishing(m, name) && choose_name(m, is_taken_for_publishing, name, e) != 0)
        goto out;
    if (publish_rename(m->dir_fd, part, m->dir_fd, name, PUBLISH_NEW, e) != 0 ||
        set_name(m, name, e) != 0)
        goto out;
    rc = text_set(&m->store.path, m->folder, e);

out:
    lock_release(&lock);
    return rc;
}

const char *mirror_folder(const struct mirror *m)
{
    return m->folder;
}

uint64_t mirror_newest(const struct mirror *m)
{
    return m->part ? 0 : m->store.newest.number;
}

void mirror_head(const struct mirror *m, struct mirror_head *out)
{
    *out = (struct mirror_head){ 0 };
    id_hex(m->store.identity.mirror, out->mirror);
    out->number = mirror_newest(m);
    if (out->number > 0)
        id_hex(m->store.newest.id, out->id);
}

unsigned mirror_keep(const struct mirror *m)
{
    return (unsigned)m->store.newest.keep;
}
