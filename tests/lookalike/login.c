/*
 * The login shell of the look-alike: what sshd starts for root.
 *
 * Enters the instance's root, puts the seccomp filter on (filter.c), gives the filter's listener
 * to a supervisor process (supervise.c) and becomes busybox ash.  The instance's folder comes in
 * LOOKALIKE_DIR, which sshd sets (SetEnv).  The supervisor outlives the shell while anything of
 * the session still runs: an orphaned agent stays under the same policy.
 */
#include "policy.h"
#include "filter.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "lookalike-login: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Line of log/sessions.log: time, pid, command with its line ends as |0A.  Like shell.log of a
 * host.  One write, so that the lines of sessions do not mix. */
static void log_session(int dir, const char *command)
{
    int fd = openat(dir, "log/sessions.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const char *text = command != NULL ? command : "(login)";
    char *line = malloc(strlen(text) * 3 + 64);
    size_t count;

    if (fd < 0 || line == NULL)
        die("log/sessions.log");
    count = (size_t)sprintf(line, "%lld %d ", (long long)time(NULL), (int)getpid());
    for (; *text != 0; text++) {
        if (*text == '\n') {
            memcpy(line + count, "|0A", 3);
            count += 3;
        } else {
            line[count++] = *text;
        }
    }
    line[count++] = '\n';
    if (write(fd, line, count) != (ssize_t)count)
        die("log/sessions.log");
    free(line);
    close(fd);
}

static void send_listener(int to, int listener)
{
    char byte = 0;
    struct iovec v = { &byte, 1 };
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct msghdr m = { .msg_iov = &v,
                        .msg_iovlen = 1,
                        .msg_control = control.room,
                        .msg_controllen = sizeof control.room };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof listener);
    memcpy(CMSG_DATA(c), &listener, sizeof listener);
    if (sendmsg(to, &m, 0) != 1)
        _exit(1);
}

static int receive_listener(int from)
{
    char byte;
    struct iovec v = { &byte, 1 };
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr m = { .msg_iov = &v,
                        .msg_iovlen = 1,
                        .msg_control = control.room,
                        .msg_controllen = sizeof control.room };
    struct cmsghdr *c;
    int fd = -1;

    if (recvmsg(from, &m, MSG_CMSG_CLOEXEC) != 1)
        return -1;
    c = CMSG_FIRSTHDR(&m);
    if (c != NULL && c->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

/* A process of its own, no child of the shell: the shell must see no child that it did not make.
 * It holds neither the session's stdin nor its output, so sshd sees their end in time. */
static void start_supervisor(int channel, int other, int dir, int proc)
{
    pid_t pid = fork();
    int listener, null;

    if (pid < 0)
        die("fork");
    if (pid > 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
        return;
    }
    close(other);
    setsid();
    if (fork() != 0)
        _exit(0);
    signal(SIGHUP, SIG_IGN);
    null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
    for (int fd = 3; fd < 256; fd++)
        if (fd != channel && fd != dir && fd != proc)
            close(fd);
    if (fchdir(dir) != 0 || chroot("root") != 0 || chdir("/") != 0)
        _exit(1);
    listener = receive_listener(channel);
    if (listener < 0)
        _exit(1);
    close(channel);
    supervise(listener, dir, proc);
}

/* What an administrator's rc files print before the command does. */
static void print_noise(int dir)
{
    char text[4096];
    int fd = openat(dir, "run/noise", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;

    if (n > 0 && write(1, text, (size_t)n) != n)
        exit(1);
    if (fd >= 0)
        close(fd);
}

static void keep_environment(void)
{
    static const char *const names[] = { "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "TERM",
                                         "SSH_ORIGINAL_COMMAND" };
    char *values[sizeof names / sizeof names[0]];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);

        values[i] = value != NULL ? strdup(value) : NULL;
    }
    clearenv();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (values[i] != NULL)
            setenv(names[i], values[i], 1);
    setenv("PATH", "/bin:/sbin", 1);
    setenv("HOME", "/", 1);
    setenv("USER", "root", 1);
    setenv("LOGNAME", "root", 1);
    setenv("SHELL", "/bin/sh", 1);
}

static void limit_memory(unsigned mib)
{
    struct rlimit limit = { .rlim_cur = (rlim_t)mib << 20, .rlim_max = (rlim_t)mib << 20 };

    if (mib != 0 && setrlimit(RLIMIT_AS, &limit) != 0)
        die("setrlimit");
}

int main(int argc, char **argv)
{
    const char *folder = getenv("LOOKALIKE_DIR");
    const char *command = argc == 3 && strcmp(argv[1], "-c") == 0 ? argv[2] : NULL;
    struct policy policy = { .threads = true, .shell = true };
    int channel[2];
    int dir, proc, listener;

    if (folder == NULL || (argc > 1 && command == NULL)) {
        fprintf(stderr, "lookalike-login: started by sshd of a look-alike only\n");
        return 1;
    }
    dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    proc = dir >= 0 ? openat(dir, "run/proc", O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    if (proc < 0)
        die(folder);
    policy_refresh(&policy, dir);
    log_session(dir, command);
    if (!policy.shell) {
        fprintf(stderr, "This account is currently not available.\n");
        return 1;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0)
        die("socketpair");
    start_supervisor(channel[1], channel[0], dir, proc);
    close(channel[1]);
    if (fchdir(dir) != 0 || chroot("root") != 0 || chdir("/") != 0)
        die("chroot");
    print_noise(dir);
    keep_environment();
    limit_memory(policy.memory_mib);
    listener = filter_install(&policy);
    if (listener < 0)
        die("seccomp");
    send_listener(channel[0], listener);
    close(listener);
    close(channel[0]);
    if (command != NULL)
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    else
        execl("/bin/sh", "-sh", (char *)NULL);
    die("/bin/sh");
    return 1;
}
