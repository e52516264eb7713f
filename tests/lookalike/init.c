/*
 * Process 1 of a look-alike: lookalike-init DIR PROGRAM ARGUMENTS...
 *
 * Makes a new pid name space, mounts its /proc on DIR/run/proc, runs PROGRAM (sshd) there and
 * reaps.  It ends when its stdin ends (the daemon has gone), and with it, by the kernel's hand,
 * every process of the name space: sshd, shells, agents, orphans.  The mount name space is the
 * daemon's own, so nothing is left to unmount.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int child_event[2];

static void on_child(int sig)
{
    int saved = errno;

    (void)sig;
    if (write(child_event[1], "", 1) < 0)
        errno = 0; /* the pipe is full: the loop will wake anyway */
    errno = saved;
}

static void die(const char *what)
{
    fprintf(stderr, "lookalike-init: %s: %s\n", what, strerror(errno));
    exit(1);
}

static pid_t start(char **argv)
{
    pid_t pid = fork();
    sigset_t none;

    if (pid != 0)
        return pid;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(argv[0], argv);
    die(argv[0]);
    return -1;
}

/* Until stdin ends or the program does.  Returns the exit status. */
static int reap(pid_t program)
{
    for (;;) {
        struct pollfd p[2] = { { .fd = 0, .events = POLLIN },
                               { .fd = child_event[0], .events = POLLIN } };
        char drop[64];
        int status;
        pid_t pid;

        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return 1;
        if (p[1].revents != 0 && read(child_event[0], drop, sizeof drop) < 0)
            return 1;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
            if (pid == program)
                return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        if (p[0].revents != 0 && read(0, drop, sizeof drop) <= 0)
            return 0;
    }
}

static int be_init(const char *dir, char **argv)
{
    struct sigaction action = { .sa_handler = on_child };
    char proc[4096];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(proc, sizeof proc, "%s/run/proc", dir);
    if (mount("proc", proc, "proc", 0, NULL) != 0)
        die("mount");
    if (pipe(child_event) != 0)
        die("pipe");
    sigaction(SIGCHLD, &action, NULL);
    return reap(start(argv));
}

int main(int argc, char **argv)
{
    pid_t pid;
    int status;

    if (argc < 3) {
        fprintf(stderr, "usage: lookalike-init DIR PROGRAM ARGUMENTS...\n");
        return 1;
    }
    if (unshare(CLONE_NEWPID) != 0)
        die("unshare");
    pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0)
        return be_init(argv[1], argv + 2);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
