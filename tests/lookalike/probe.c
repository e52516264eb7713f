/*
 * What a program that was copied to the look-alike meets: for its self-test.
 *
 *   calls            each call of absent.def and of the narrowed ones, `NAME errno`, one per line
 *   thread           makes a thread: `ok` or the error
 *   connect PORT MS  connects to 127.0.0.1, not blocking, waits so long: `ok`, `timeout`, an error
 *   connect-blocking PORT SECONDS   the same with a blocking socket and SO_SNDTIMEO
 *   hold FILE        opens FILE and sleeps until stdin ends
 *   memory MIB       maps so much: `ok` or the error
 *   pread FILE OFFSET LENGTH   the number of bytes read, or the error
 * Linked statically, like the agent.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int say(int error)
{
    printf("%s\n", error == 0 ? "ok" : strerror(error));
    return error == 0 ? 0 : 1;
}

static int probe_calls(void)
{
    static const struct {
        const char *name;
        long number;
    } calls[] = {
#define X(name) { #name, SYS_##name },
#include "absent.def"
#undef X
    };
    int fd = open("/bin/sh", O_RDONLY);

    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        errno = 0;
        syscall(calls[i].number, -1, 0, 0, 0, 0, 0);
        printf("%s %d\n", calls[i].name, errno);
    }
    errno = 0;
    lseek(fd, 0, SEEK_HOLE);
    printf("seek_hole %d\n", errno);
    errno = 0;
    lseek(fd, 0, SEEK_SET);
    printf("seek_set %d\n", errno);
    return 0;
}

static void *nothing(void *argument)
{
    return argument;
}

static int probe_thread(void)
{
    pthread_t t;
    int error = pthread_create(&t, NULL, nothing, NULL);

    if (error == 0)
        pthread_join(t, NULL);
    return say(error);
}

static int probe_connect(unsigned port, int wait_ms)
{
    struct sockaddr_in a = { .sin_family = AF_INET };
    struct pollfd p = { .events = POLLOUT };
    socklen_t length = sizeof(int);
    int error = 0;

    p.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    a.sin_port = htons((uint16_t)port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(p.fd, (struct sockaddr *)&a, sizeof a) == 0)
        return say(0);
    if (errno != EINPROGRESS)
        return say(errno);
    if (poll(&p, 1, wait_ms) == 0) {
        printf("timeout\n");
        return 1;
    }
    getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &error, &length);
    return say(error);
}

static int probe_connect_blocking(unsigned port, int seconds)
{
    struct sockaddr_in a = { .sin_family = AF_INET };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    a.sin_port = htons((uint16_t)port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    alarm((unsigned)seconds);
    return say(connect(fd, (struct sockaddr *)&a, sizeof a) == 0 ? 0 : errno);
}

static int probe_hold(const char *name)
{
    char byte;
    int fd = open(name, O_RDONLY);

    if (fd < 0)
        return say(errno);
    printf("ok\n");
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        continue;
    return 0;
}

static int probe_memory(size_t mib)
{
    void *at = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return say(at == MAP_FAILED ? errno : 0);
}

static int probe_pread(const char *name, off_t offset, size_t length)
{
    static char buffer[1 << 20];
    int fd = open(name, O_RDONLY);
    ssize_t n =
        fd >= 0 ? pread(fd, buffer, length <= sizeof buffer ? length : sizeof buffer, offset) : -1;

    if (n < 0)
        return say(errno);
    printf("%zd\n", n);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "calls") == 0)
        return probe_calls();
    if (strcmp(what, "thread") == 0)
        return probe_thread();
    if (strcmp(what, "connect") == 0 && argc == 4)
        return probe_connect((unsigned)atoi(argv[2]), atoi(argv[3]));
    if (strcmp(what, "connect-blocking") == 0 && argc == 4)
        return probe_connect_blocking((unsigned)atoi(argv[2]), atoi(argv[3]));
    if (strcmp(what, "hold") == 0 && argc == 3)
        return probe_hold(argv[2]);
    if (strcmp(what, "memory") == 0 && argc == 3)
        return probe_memory((size_t)atoi(argv[2]));
    if (strcmp(what, "pread") == 0 && argc == 5)
        return probe_pread(argv[2], (off_t)atoll(argv[3]), (size_t)atoll(argv[4]));
    fprintf(stderr, "usage: probe calls|thread|connect|connect-blocking|hold|memory|pread ...\n");
    return 2;
}
