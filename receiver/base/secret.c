#include "receiver/base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/stop.h"

/* One page of its own for each secret, so that locking and wiping touch nothing else. */
enum { SECRET_ROOM = 4096 };

extern char **environ;

static int get_room(struct secret *s, struct err *e)
{
    void *page =
        mmap(NULL, SECRET_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return err_sys(e, "getting memory for a password");
    /* Best effort: an unprivileged process may have no room for locked memory. */
    (void)mlock(page, SECRET_ROOM);
    (void)madvise(page, SECRET_ROOM, MADV_DONTDUMP);
    s->text = page;
    s->count = 0;
    return 0;
}

void secret_free(struct secret *s)
{
    if (s == NULL || s->text == NULL)
        return;
    explicit_bzero(s->text, SECRET_ROOM);
    munmap(s->text, SECRET_ROOM);
    s->text = NULL;
    s->count = 0;
}

int secret_set(struct secret *s, const char *text, size_t count, struct err *e)
{
    struct secret made = { 0 };

    if (count > SECRET_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "a password is at most %d bytes long", SECRET_BYTES_MAX);
    if (memchr(text, 0, count) != NULL)
        return err_set(e, ERR_USAGE, "a password cannot hold a NUL byte");
    if (get_room(&made, e) != 0)
        return -1;
    memcpy(made.text, text, count);
    made.count = count;
    secret_free(s);
    *s = made;
    return 0;
}

/* What was gathered in s->text[0..s->count) becomes its first line.  -1 when it is none. */
static int keep_first_line(struct secret *s, struct err *e)
{
    char *end = memchr(s->text, '\n', s->count);

    if (end != NULL)
        s->count = (size_t)(end - s->text);
    if (s->count > 0 && s->text[s->count - 1] == '\r')
        s->count--;
    if (s->count > SECRET_BYTES_MAX)
        return err_set(e, ERR_USAGE, "its first line is longer than %d bytes", SECRET_BYTES_MAX);
    if (memchr(s->text, 0, s->count) != NULL)
        return err_set(e, ERR_USAGE, "its first line holds a NUL byte");
    if (s->count == 0)
        return err_set(e, ERR_USAGE, "its first line is empty");
    explicit_bzero(s->text + s->count, SECRET_ROOM - s->count);
    return 0;
}

/* Add what fd gives next.  1 when the first line or the end is there, 0 when there may be more. */
static int take_some(struct secret *s, int fd, struct err *e)
{
    ssize_t got;

    do
        got = read(fd, s->text + s->count, SECRET_ROOM - s->count);
    while (got < 0 && errno == EINTR && !stop_requested());
    if (got < 0)
        return errno == EINTR ? stop_check(e) : err_sys(e, "reading it");
    s->count += (size_t)got;
    return got == 0 || s->count == SECRET_ROOM ||
           memchr(s->text + s->count - got, '\n', (size_t)got) != NULL;
}

/* A private file of ours, checked on the open descriptor so that nobody can change it meanwhile. */
static int check_private(int fd, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return err_sys(e, "looking at it");
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_USAGE, "it is no regular file");
    if (st.st_uid != geteuid())
        return err_set(e, ERR_USAGE, "it belongs to uid %u, not to us (uid %u)",
                       (unsigned)st.st_uid, (unsigned)geteuid());
    if ((st.st_mode & 077) != 0)
        return err_set(e, ERR_USAGE, "others can get at it (mode %04o); chmod 600 mends that",
                       (unsigned)st.st_mode & 07777);
    return 0;
}

int secret_from_file(struct secret *out, const char *path, struct err *e)
{
    struct secret s = { 0 };
    int fd = -1;
    int rc = -1;
    int more;

    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        if (errno == ELOOP)
            err_set(e, ERR_USAGE, "it is a symbolic link; name the file itself");
        else
            err_sys(e, "opening it");
        goto out;
    }
    if (check_private(fd, e) != 0 || get_room(&s, e) != 0)
        goto out;
    do
        more = take_some(&s, fd, e);
    while (more == 0);
    if (more < 0 || keep_first_line(&s, e) != 0)
        goto out;
    secret_free(out);
    *out = s;
    s.text = NULL;
    rc = 0;

out:
    io_drop(&fd);
    secret_free(&s);
    return rc == 0 ? 0 : err_add(e, "password file %s", path);
}

/*
 * Start command with its output in *out_fd.  Where nobody can be asked it gets a process group of
 * its own, so that it can be ended with all that it started; on a terminal it must stay in ours,
 * for it may want to ask there.
 */
static int start_command(const char *command, bool own_group, pid_t *pid, int *out_fd,
                         struct err *e)
{
    char shell[] = "/bin/sh", option[] = "-c";
    char *argv[] = { shell, option, (char *)(uintptr_t)command, NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    int ends[2];
    int failed;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_sys(e, "making a pipe");
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    /* What we ignore for ourselves is no business of the helper. */
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGXFSZ);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(
        &attributes, (short)(POSIX_SPAWN_SETSIGDEF | (own_group ? POSIX_SPAWN_SETPGROUP : 0)));
    failed = posix_spawn(pid, shell, &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    io_drop(&ends[1]);
    if (failed != 0) {
        io_drop(&ends[0]);
        errno = failed;
        return err_sys(e, "starting /bin/sh");
    }
    *out_fd = ends[0];
    return 0;
}

/* Read until the first line is there.  A helper that hangs is given up at end_ms. */
static int read_until(struct secret *s, int fd, uint64_t end_ms, struct err *e)
{
    for (;;) {
        struct pollfd p[2] = { { .fd = fd, .events = POLLIN },
                               { .fd = stop_fd(), .events = POLLIN } };
        uint64_t now = io_clock_ms();
        int more;

        if (stop_check(e) != 0)
            return -1;
        if (now >= end_ms)
            return err_set(e, ERR_USAGE, "it printed no line in time");
        if (poll(p, 2, (int)min_u64(end_ms - now, 60000)) <= 0 || p[0].revents == 0)
            continue;
        more = take_some(s, fd, e);
        if (more != 0)
            return more > 0 ? 0 : -1;
    }
}

/* Wait for the helper; one that does not end within 2 s of its line is ended. */
static int reap(pid_t pid, int *status)
{
    const struct timespec tick = { .tv_nsec = 10 * 1000 * 1000 };

    for (int i = 0; i < 200; i++) {
        if (waitpid(pid, status, WNOHANG) == pid)
            return 0;
        nanosleep(&tick, NULL);
    }
    kill(pid, SIGKILL);
    waitpid(pid, status, 0);
    return -1;
}

/* It had more to say than the one line that we took: itself, or a program that its shell ran. */
static bool ended_by_pipe(int status)
{
    return (WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE) ||
           (WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGPIPE);
}

int secret_from_command(struct secret *out, const char *command, unsigned timeout_s, struct err *e)
{
    bool own_group = !secret_can_ask();
    struct secret s = { 0 };
    pid_t pid = -1;
    int fd = -1;
    int rc = -1;
    int status = 0;

    if (get_room(&s, e) != 0 || start_command(command, own_group, &pid, &fd, e) != 0)
        goto out;
    if (read_until(&s, fd, io_clock_ms() + timeout_s * UINT64_C(1000), e) != 0) {
        kill(own_group ? -pid : pid, SIGTERM);
        goto out;
    }
    io_drop(&fd);
    if (reap(pid, &status) == 0 && status != 0 && !ended_by_pipe(status)) {
        pid = -1;
        err_set(e, ERR_USAGE, "it failed with %s %d", WIFEXITED(status) ? "status" : "signal",
                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        goto out;
    }
    pid = -1;
    if (keep_first_line(&s, e) != 0)
        goto out;
    secret_free(out);
    *out = s;
    s.text = NULL;
    rc = 0;

out:
    io_drop(&fd);
    if (pid > 0)
        reap(pid, &status);
    secret_free(&s);
    return rc == 0 ? 0 : err_add(e, "password command");
}

/* The terminal, while we are the ones whom it listens to; -1 when there is none. */
static int open_terminal(void)
{
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);

    /* In the background a read would stop the whole job. */
    if (fd >= 0 && tcgetpgrp(fd) != getpgrp())
        io_drop(&fd);
    return fd;
}

bool secret_can_ask(void)
{
    int fd = open_terminal();
    bool can = fd >= 0;

    io_drop(&fd);
    return can;
}

int secret_from_terminal(struct secret *out, const char *prompt, bool echo, struct err *e)
{
    struct secret s = { 0 };
    struct termios was, quiet;
    bool changed = false;
    int fd = -1;
    int rc = -1;

    fd = open_terminal();
    if (fd < 0) {
        err_set(e, ERR_USAGE,
                "there is no terminal to ask for a password on; use --password-file "
                "or --password-command");
        goto out;
    }
    if (get_room(&s, e) != 0)
        goto out;
    if (tcgetattr(fd, &was) != 0) {
        err_sys(e, "asking the terminal for its modes");
        goto out;
    }
    quiet = was;
    if (!echo)
        quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
    quiet.c_lflag |= ICANON | ISIG;
    if (tcsetattr(fd, TCSAFLUSH, &quiet) != 0) {
        err_sys(e, "switching off the terminal's echo");
        goto out;
    }
    changed = true;
    if (io_write_all(fd, prompt, strlen(prompt), e) != 0 || read_until(&s, fd, UINT64_MAX, e) != 0)
        goto out;
    if (keep_first_line(&s, e) != 0) {
        err_set(e, ERR_USAGE, "no password was typed");
        goto out;
    }
    secret_free(out);
    *out = s;
    s.text = NULL;
    rc = 0;

out:
    if (changed) {
        tcsetattr(fd, TCSAFLUSH, &was);
        if (!echo)
            io_write_all(fd, "\n", 1, NULL);
    }
    io_drop(&fd);
    secret_free(&s);
    return rc;
}
