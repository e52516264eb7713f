/*
 * The supervisor of one session: answers the system calls that its seccomp filter hands over.
 *
 * It stands in the same root (chroot) as the session, so that a path means the same to both; /proc
 * and the instance's folder are descriptors opened before.  Calls that are in order are let go on
 * (SECCOMP_USER_NOTIF_FLAG_CONTINUE); between our look and the kernel's a file could be exchanged,
 * which no test of ours does.
 */
#include "policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>
#include <inttypes.h>

enum { PATH_BYTES = 4096, PENDING_MAX = 64 };

/* A call whose answer comes later: a read that waits, or a blocking connect into nothing. */
struct pending {
    uint64_t id;
    int64_t due_ms; /* then: go on, or ETIMEDOUT for a connect */
    int socket;     /* of the connect, or -1 */
};

struct supervisor {
    int listener, dir, proc, log;
    struct policy policy;
    struct pending pending[PENDING_MAX];
    size_t pending_count;
};

struct verdict {
    int error;  /* 0: go on */
    bool later; /* already put into the pending list */
};

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void answer(const struct supervisor *s, uint64_t id, int error)
{
    struct seccomp_notif_resp r = { .id = id, .error = -error };

    if (error == 0)
        r.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    /* ENOENT: the caller has died or was interrupted; nobody waits. */
    (void)ioctl(s->listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
}

/* A zero-terminated string of the caller; false when it cannot be read. */
static bool read_path(pid_t pid, uint64_t address, char *out)
{
    size_t got = 0;

    while (got < PATH_BYTES) {
        size_t part = 4096 - ((address + got) & 4095);
        struct iovec here, there;
        ssize_t n;

        if (part > PATH_BYTES - got)
            part = PATH_BYTES - got;
        here = (struct iovec){ out + got, part };
        there = (struct iovec){ (void *)(uintptr_t)(address + got), part };
        n = process_vm_readv(pid, &here, 1, &there, 1, 0);
        if (n <= 0)
            return false;
        if (memchr(out + got, 0, (size_t)n) != NULL)
            return true;
        got += (size_t)n;
    }
    return false;
}

static bool read_memory(pid_t pid, uint64_t address, void *out, size_t bytes)
{
    struct iovec here = { out, bytes };
    struct iovec there = { (void *)(uintptr_t)address, bytes };

    return process_vm_readv(pid, &here, 1, &there, 1, 0) == (ssize_t)bytes;
}

/* The directory from which a relative path of the caller counts; close it. */
static int base_directory(const struct supervisor *s, pid_t pid, int dirfd)
{
    char link[64];

    if (dirfd == AT_FDCWD)
        snprintf(link, sizeof link, "%d/cwd", pid);
    else
        snprintf(link, sizeof link, "%d/fd/%d", pid, dirfd);
    return openat(s->proc, link, O_PATH | O_CLOEXEC);
}

/* Open the caller's path as O_PATH: no effect on the file.  -1 when it is not there. */
static int open_path(const struct supervisor *s, pid_t pid, int dirfd, uint64_t address,
                     bool follow)
{
    char path[PATH_BYTES];
    int flags = O_PATH | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW);
    int base = -1;
    int fd;

    if (!read_path(pid, address, path))
        return -1;
    if (path[0] != '/') {
        base = base_directory(s, pid, dirfd);
        if (base < 0)
            return -1;
    }
    fd = openat(base, path, flags);
    if (base >= 0)
        close(base);
    return fd;
}

static const struct policy_lock *find_lock(const struct policy *p, int fd)
{
    struct stat st;

    if (fd < 0 || p->lock_count == 0 || fstat(fd, &st) != 0)
        return NULL;
    for (size_t i = 0; i < p->lock_count; i++)
        if (p->locks[i].ino == st.st_ino && p->locks[i].dev == st.st_dev)
            return &p->locks[i];
    return NULL;
}

/* Is the caller's path a locked file, for a use that changes or only reads it? */
static int check_lock(const struct supervisor *s, pid_t pid, int dirfd, uint64_t address,
                      bool follow, bool changes)
{
    const struct policy_lock *lock;
    int fd;

    if (s->policy.lock_count == 0)
        return 0;
    fd = open_path(s, pid, dirfd, address, follow);
    lock = find_lock(&s->policy, fd);
    if (fd >= 0)
        close(fd);
    return lock != NULL && (changes || lock->exclusive) ? EBUSY : 0;
}

static int check_open(const struct supervisor *s, pid_t pid, int dirfd, uint64_t address,
                      uint64_t flags)
{
    bool changes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;

    if ((flags & O_PATH) != 0)
        return 0;
    return check_lock(s, pid, dirfd, address, (flags & O_NOFOLLOW) == 0, changes);
}

/* Installed: below one of the folders that come with the system. */
static bool is_installed(const char *path)
{
    static const char *const folders[] = { "/bin/", "/sbin/", "/lib/", "/lib64/", "/usr/" };

    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
        if (strncmp(path, folders[i], strlen(folders[i])) == 0)
            return true;
    return false;
}

static void log_exec(const struct supervisor *s, pid_t pid, const char *path, bool refused)
{
    char line[PATH_BYTES + 128];
    int n = snprintf(line, sizeof line, "%lld %d %s %s\n", (long long)time(NULL), (int)pid,
                     refused ? "refused" : "run", path);

    if (n > 0 && (size_t)n < sizeof line && write(s->log, line, (size_t)n) < 0)
        return; /* a log that cannot be written is missed by the test that wants it */
}

static int check_exec(const struct supervisor *s, pid_t pid, uint64_t address)
{
    char path[PATH_BYTES];
    char link[64];
    struct stat st;
    ssize_t n = -1;
    bool refused;
    int fd = open_path(s, pid, AT_FDCWD, address, true);

    if (fd < 0)
        return 0;
    snprintf(link, sizeof link, "self/fd/%d", fd);
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0111) != 0)
        n = readlinkat(s->proc, link, path, sizeof path - 1);
    close(fd);
    if (n < 0)
        return 0;
    path[n] = 0;
    if (is_installed(path))
        return 0;
    refused = s->policy.exec_installed_only;
    log_exec(s, pid, path, refused);
    return refused ? EPERM : 0;
}

static bool port_passes(const struct policy *p, unsigned port)
{
    if (p->firewall == FIREWALL_OPEN || port == p->blackhole4 || port == p->blackhole6)
        return true;
    for (size_t i = 0; i < p->port_count; i++)
        if (port >= p->ports[i].first && port <= p->ports[i].last)
            return true;
    return false;
}

/* The process to which a thread belongs. */
static pid_t thread_group(const struct supervisor *s, pid_t tid)
{
    char text[1024];
    char name[64];
    const char *at;
    ssize_t n;
    int fd;

    snprintf(name, sizeof name, "%d/status", tid);
    fd = openat(s->proc, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tid;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return tid;
    text[n] = 0;
    at = strstr(text, "\nTgid:");
    return at != NULL ? (pid_t)strtol(at + 6, NULL, 10) : tid;
}

/* The caller's own socket, as a descriptor of ours. */
static int take_socket(const struct supervisor *s, pid_t tid, int fd)
{
    int process = (int)syscall(SYS_pidfd_open, thread_group(s, tid), 0);
    int copy;

    if (process < 0)
        return -1;
    copy = (int)syscall(SYS_pidfd_getfd, process, fd, 0);
    close(process);
    return copy;
}

static int connect_blackhole(const struct policy *p, int fd, int family)
{
    if (family == AF_INET6) {
        struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };

        a.sin6_port = htons((uint16_t)p->blackhole6);
        return connect(fd, (struct sockaddr *)&a, sizeof a);
    }
    struct sockaddr_in a = { .sin_family = AF_INET };

    a.sin_port = htons((uint16_t)p->blackhole4);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(fd, (struct sockaddr *)&a, sizeof a);
}

static bool put_off(struct supervisor *s, uint64_t id, int64_t wait_ms, int socket)
{
    if (s->pending_count == PENDING_MAX)
        return false;
    s->pending[s->pending_count++] =
        (struct pending){ .id = id, .due_ms = now_ms() + wait_ms, .socket = socket };
    return true;
}

/* A firewall that drops: the caller's socket really connects, to a port that never answers. */
static struct verdict drop_connect(struct supervisor *s, const struct seccomp_notif *n, int family)
{
    int fd = take_socket(s, (pid_t)n->pid, (int)n->data.args[0]);
    int flags = fd >= 0 ? fcntl(fd, F_GETFL) : -1;
    int error;

    if (flags < 0)
        return (struct verdict){ .error = ETIMEDOUT };
    if ((flags & O_NONBLOCK) == 0)
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    error = connect_blackhole(&s->policy, fd, family) == 0 ? 0 : errno;
    if ((flags & O_NONBLOCK) == 0) {
        fcntl(fd, F_SETFL, flags);
        if (error == EINPROGRESS && put_off(s, n->id, 75000, fd))
            return (struct verdict){ .later = true };
    }
    close(fd);
    return (struct verdict){ .error = error == 0 ? ETIMEDOUT : error };
}

static struct verdict check_connect(struct supervisor *s, const struct seccomp_notif *n)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a;
    size_t bytes = (size_t)n->data.args[2];
    unsigned port;

    memset(&a, 0, sizeof a);
    if (bytes < sizeof a.v4)
        return (struct verdict){ 0 };
    if (bytes > sizeof a)
        bytes = sizeof a;
    if (!read_memory((pid_t)n->pid, n->data.args[1], &a, bytes))
        return (struct verdict){ 0 };
    if (a.any.sa_family == AF_INET)
        port = ntohs(a.v4.sin_port);
    else if (a.any.sa_family == AF_INET6)
        port = ntohs(a.v6.sin6_port);
    else
        return (struct verdict){ 0 };
    if (port_passes(&s->policy, port))
        return (struct verdict){ 0 };
    if (s->policy.firewall == FIREWALL_REJECT)
        return (struct verdict){ .error = ECONNREFUSED };
    return drop_connect(s, n, a.any.sa_family);
}

static uint64_t vector_bytes(pid_t pid, uint64_t address, uint64_t count)
{
    struct iovec v[64];
    uint64_t sum = 0;

    if (count > 64)
        count = 64;
    if (!read_memory(pid, address, v, count * sizeof *v))
        return 0;
    for (uint64_t i = 0; i < count; i++)
        sum += v[i].iov_len;
    return sum;
}

/* Where a plain read of the caller would begin. */
static uint64_t file_position(const struct supervisor *s, pid_t pid, int fd)
{
    char text[256];
    char name[64];
    ssize_t n;
    int info;

    snprintf(name, sizeof name, "%d/fdinfo/%d", pid, fd);
    info = openat(s->proc, name, O_RDONLY | O_CLOEXEC);
    if (info < 0)
        return 0;
    n = read(info, text, sizeof text - 1);
    close(info);
    if (n <= 0)
        return 0;
    text[n] = 0;
    return strncmp(text, "pos:", 4) == 0 ? strtoull(text + 4, NULL, 10) : 0;
}

static struct verdict check_read(struct supervisor *s, const struct seccomp_notif *n)
{
    const struct seccomp_data *d = &n->data;
    pid_t pid = (pid_t)n->pid;
    bool vector = d->nr == SYS_readv || d->nr == SYS_preadv;
    bool placed = d->nr == SYS_pread64 || d->nr == SYS_preadv;
    uint64_t start, end;
    struct stat st;
    char name[64];

    if (s->policy.range_count == 0)
        return (struct verdict){ 0 };
    snprintf(name, sizeof name, "%d/fd/%d", pid, (int)d->args[0]);
    if (fstatat(s->proc, name, &st, 0) != 0 || !S_ISREG(st.st_mode))
        return (struct verdict){ 0 };
    start = placed ? d->args[3] : file_position(s, pid, (int)d->args[0]);
    end = start + (vector ? vector_bytes(pid, d->args[1], d->args[2]) : d->args[2]);
    for (size_t i = 0; i < s->policy.range_count; i++) {
        const struct policy_range *r = &s->policy.ranges[i];

        if (r->ino != st.st_ino || r->dev != st.st_dev || start >= r->end || end <= r->start)
            continue;
        if (r->stall_ms == 0)
            return (struct verdict){ .error = EIO };
        if (put_off(s, n->id, r->stall_ms, -1))
            return (struct verdict){ .later = true };
    }
    return (struct verdict){ 0 };
}

static struct verdict judge(struct supervisor *s, const struct seccomp_notif *n)
{
    const struct seccomp_data *d = &n->data;
    pid_t pid = (pid_t)n->pid;
    struct verdict v = { 0 };

    switch (d->nr) {
    case SYS_open:
        v.error = check_open(s, pid, AT_FDCWD, d->args[0], d->args[1]);
        break;
    case SYS_openat:
        v.error = check_open(s, pid, (int)d->args[0], d->args[1], d->args[2]);
        break;
    case SYS_creat:
    case SYS_truncate:
        v.error = check_lock(s, pid, AT_FDCWD, d->args[0], true, true);
        break;
    case SYS_unlink:
        v.error = check_lock(s, pid, AT_FDCWD, d->args[0], false, true);
        break;
    case SYS_unlinkat:
        v.error = check_lock(s, pid, (int)d->args[0], d->args[1], false, true);
        break;
    case SYS_rename:
        v.error = check_lock(s, pid, AT_FDCWD, d->args[0], false, true);
        if (v.error == 0)
            v.error = check_lock(s, pid, AT_FDCWD, d->args[1], false, true);
        break;
    case SYS_renameat:
        v.error = check_lock(s, pid, (int)d->args[0], d->args[1], false, true);
        if (v.error == 0)
            v.error = check_lock(s, pid, (int)d->args[2], d->args[3], false, true);
        break;
    case SYS_execve:
        v.error = check_exec(s, pid, d->args[0]);
        break;
    case SYS_connect:
        v = check_connect(s, n);
        break;
    default:
        v = check_read(s, n);
        break;
    }
    return v;
}

static bool still_waits(const struct supervisor *s, uint64_t id)
{
    return ioctl(s->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

/* Answer what is due, forget whose caller has gone; the time to the next, -1 for none. */
static int serve_pending(struct supervisor *s)
{
    int64_t now = now_ms();
    int64_t next = -1;
    size_t kept = 0;

    for (size_t i = 0; i < s->pending_count; i++) {
        struct pending *p = &s->pending[i];
        bool due = p->due_ms <= now;

        if (due)
            answer(s, p->id, p->socket >= 0 ? ETIMEDOUT : 0);
        if (due || !still_waits(s, p->id)) {
            if (p->socket >= 0)
                close(p->socket);
            continue;
        }
        if (next < 0 || p->due_ms - now < next)
            next = p->due_ms - now;
        s->pending[kept++] = *p;
    }
    s->pending_count = kept;
    return next < 0 ? -1 : next > 200 ? 200 : (int)next;
}

static void serve_call(struct supervisor *s, struct seccomp_notif *n, size_t bytes)
{
    struct verdict v;

    memset(n, 0, bytes);
    if (ioctl(s->listener, SECCOMP_IOCTL_NOTIF_RECV, n) != 0)
        return;
    policy_refresh(&s->policy, s->dir);
    v = judge(s, n);
    if (!v.later)
        answer(s, n->id, v.error);
}

void supervise(int listener, int dir, int proc)
{
    struct supervisor s = { .listener = listener, .dir = dir, .proc = proc, .log = -1 };
    struct seccomp_notif_sizes sizes;
    struct seccomp_notif *n;
    size_t bytes = sizeof *n;

    /* The kernel's structure may be longer than the one we were compiled with. */
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) == 0 &&
        sizes.seccomp_notif > bytes)
        bytes = sizes.seccomp_notif;
    n = calloc(1, bytes);
    if (n == NULL)
        _exit(1);
    s.log = openat(dir, "log/exec.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    for (;;) {
        struct pollfd p = { .fd = listener, .events = POLLIN };
        int ready = poll(&p, 1, serve_pending(&s));

        if (ready < 0 && errno != EINTR)
            _exit(1);
        if (ready > 0 && (p.revents & POLLIN) != 0)
            serve_call(&s, n, bytes);
        else if (ready > 0)
            _exit(0); /* POLLHUP: the session's last process has ended */
    }
}
