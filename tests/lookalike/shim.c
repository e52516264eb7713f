/*
 * One small program behind every VMware command of the look-alike's root.
 *
 * vim-cmd, vmkfstools, esxcli, ... are links to it.  It sends its arguments to the daemon that
 * plays hostd, over a Unix socket inside the root, and prints what comes back, as it comes.
 * Two names are handled here, because only the option syntax differs from Debian's busybox:
 * dd (no iflag, no oflag) and timeout (the old `-t SECS` form when the file /etc/old-timeout
 * is there).  Linked statically: it runs inside the root.
 *
 * Request:  u32 count, then count strings, each u32 length and bytes: cwd, pid, argv[0...]
 * Answer:   frames of u8 kind, u32 length, bytes: 1 stdout, 2 stderr, 3 exit status, 4 signal
 * All numbers little-endian; both ends are on one machine.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FRAME_STDOUT = 1, FRAME_STDERR = 2, FRAME_EXIT = 3, FRAME_SIGNAL = 4 };

static const char socket_path[] = "/var/run/hostd.sock";
static const char busybox[] = "/usr/lib/vmware/busybox/bin/busybox";

static int write_all(int fd, const void *data, size_t bytes)
{
    const char *at = data;

    while (bytes > 0) {
        ssize_t n = write(fd, at, bytes);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int read_all(int fd, void *data, size_t bytes)
{
    char *at = data;

    while (bytes > 0) {
        ssize_t n = read(fd, at, bytes);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int send_string(int fd, const char *text)
{
    uint32_t length = (uint32_t)strlen(text);

    return write_all(fd, &length, sizeof length) != 0 ? -1 : write_all(fd, text, length);
}

static int send_request(int fd, int argc, char **argv)
{
    char cwd[4096];
    char pid[32];
    uint32_t count = (uint32_t)argc + 2;

    if (getcwd(cwd, sizeof cwd) == NULL)
        strcpy(cwd, "/");
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    if (write_all(fd, &count, sizeof count) != 0 || send_string(fd, cwd) != 0 ||
        send_string(fd, pid) != 0)
        return -1;
    for (int i = 0; i < argc; i++)
        if (send_string(fd, argv[i]) != 0)
            return -1;
    return 0;
}

/* Copy length bytes of the answer to fd.  When the reader of fd has gone, the rest is read and
 * dropped with the process: SIGPIPE ends it, as it ends the real command. */
static int copy_out(int from, int to, uint32_t length)
{
    char buffer[65536];

    while (length > 0) {
        uint32_t part = length < sizeof buffer ? length : (uint32_t)sizeof buffer;

        if (read_all(from, buffer, part) != 0 || write_all(to, buffer, part) != 0)
            return -1;
        length -= part;
    }
    return 0;
}

/* Print frames until the exit frame; the process's exit status. */
static int relay(int fd)
{
    for (;;) {
        uint8_t kind;
        uint32_t length;
        int32_t status;

        if (read_all(fd, &kind, 1) != 0 || read_all(fd, &length, sizeof length) != 0)
            break;
        if (kind == FRAME_STDOUT || kind == FRAME_STDERR) {
            if (copy_out(fd, kind, length) != 0)
                return 1;
            continue;
        }
        if (length != sizeof status || read_all(fd, &status, sizeof status) != 0)
            break;
        if (kind == FRAME_SIGNAL) {
            signal(status, SIG_DFL);
            raise(status);
        }
        return status;
    }
    fprintf(stderr, "Connect to localhost failed: Connection failure\n");
    return 1;
}

static int run_dd(char **argv)
{
    for (int i = 1; argv[i] != NULL; i++)
        if (strncmp(argv[i], "iflag=", 6) == 0 || strncmp(argv[i], "oflag=", 6) == 0 ||
            strncmp(argv[i], "status=", 7) == 0) {
            fprintf(stderr, "BusyBox v1.22.1 (2017-09-23 00:00:00 UTC) multi-call binary.\n\n"
                            "Usage: dd [if=FILE] [of=FILE] [bs=N] [count=N] [skip=N]\n"
                            "\t[seek=N] [conv=notrunc|noerror|sync|fsync|swab]\n");
            return 1;
        }
    execv(busybox, argv);
    perror("dd");
    return 127;
}

/* timeout [-t SECS] [-s SIG] PROG ARGS, 10 seconds when not given: the syntax before 1.30. */
static int run_old_timeout(int argc, char **argv)
{
    const char *seconds = "10";
    const char *sig = "TERM";
    char **out = calloc((size_t)argc + 8, sizeof *out);
    size_t count = 0;
    int i = 1;

    if (out == NULL)
        return 127;
    for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
        if (strcmp(argv[i], "-t") == 0)
            seconds = argv[i + 1];
        else if (strcmp(argv[i], "-s") == 0)
            sig = argv[i + 1];
        else
            break;
    }
    if (i >= argc || argv[i][0] == '-') {
        fprintf(stderr, "Usage: timeout [-t SECS] [-s SIG] PROG ARGS\n");
        return 1;
    }
    out[count++] = (char *)"timeout";
    out[count++] = (char *)"-s";
    out[count++] = (char *)sig;
    out[count++] = (char *)seconds;
    while (i < argc)
        out[count++] = argv[i++];
    execv(busybox, out);
    perror("timeout");
    return 127;
}

int main(int argc, char **argv)
{
    struct sockaddr_un where = { .sun_family = AF_UNIX };
    const char *name = argc > 0 ? argv[0] : "";
    const char *slash = strrchr(name, '/');
    int fd;

    name = slash != NULL ? slash + 1 : name;
    if (strcmp(name, "dd") == 0)
        return run_dd(argv);
    if (strcmp(name, "timeout") == 0) {
        if (access("/etc/old-timeout", F_OK) == 0)
            return run_old_timeout(argc, argv);
        execv(busybox, argv);
        return 127;
    }
    strcpy(where.sun_path, socket_path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&where, sizeof where) != 0 ||
        send_request(fd, argc, argv) != 0) {
        fprintf(stderr, "Connect to localhost failed: Connection failure\n");
        return 1;
    }
    return relay(fd);
}
