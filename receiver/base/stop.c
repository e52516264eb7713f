#include "receiver/base/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "signal handlers count with atomic_int");

/* Signals come to the process, so what they leave behind is the process's too. */
static atomic_int first_signal; /* lock-free: handlers may use them, and any thread reads them */
static atomic_int signal_count;
static atomic_bool stopped;
static int pipe_read = -1;
static int pipe_write = -1;

void stop_raise(int signal)
{
    int kept = errno, none = 0;

    atomic_compare_exchange_strong(&first_signal, &none, signal);
    atomic_store(&stopped, true);
    if (atomic_load(&signal_count) < 100)
        atomic_fetch_add(&signal_count, 1);
    /* A full pipe is readable already, so the result does not matter. */
    if (pipe_write >= 0 && write(pipe_write, "", 1) < 0)
        errno = 0;
    errno = kept;
}

static int catch_signal(int number, struct err *e)
{
    struct sigaction was, now;

    if (sigaction(number, NULL, &was) != 0)
        return err_sys(e, "asking about signal %d", number);
    if (was.sa_handler == SIG_IGN)
        return 0;
    memset(&now, 0, sizeof now);
    now.sa_handler = stop_raise;
    sigemptyset(&now.sa_mask);
    /* No SA_RESTART: a blocked call returns with EINTR and its loop sees the flag. */
    if (sigaction(number, &now, NULL) != 0)
        return err_sys(e, "catching signal %d", number);
    return 0;
}

int stop_install(struct err *e)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
    int ends[2];

    if (pipe_read < 0) {
        if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
            return err_sys(e, "making the pipe for signals");
        pipe_read = ends[0];
        pipe_write = ends[1];
    }
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++) {
        if (catch_signal(numbers[i], e) != 0)
            return -1;
    }
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR || signal(SIGXFSZ, SIG_IGN) == SIG_ERR)
        return err_sys(e, "ignoring a signal");
    return 0;
}

int stop_fd(void)
{
    return pipe_read;
}

bool stop_requested(void)
{
    return atomic_load(&first_signal) != 0;
}

const atomic_bool *stop_flag(void)
{
    return &stopped;
}

bool stop_hurried(void)
{
    return atomic_load(&signal_count) > 1;
}

int stop_signal(void)
{
    return atomic_load(&first_signal);
}

int stop_check(struct err *e)
{
    int number = atomic_load(&first_signal);

    if (number == 0)
        return 0;
    return err_set(e, ERR_STOPPED, "stopped by signal %d (%s)", number,
                   sigabbrev_np(number) != NULL ? sigabbrev_np(number) : "?");
}

int stop_sleep(uint64_t ms, struct err *e)
{
    uint64_t end = io_clock_ms() + ms;
    struct pollfd p = { .fd = pipe_read, .events = POLLIN };

    for (;;) {
        uint64_t now = io_clock_ms();

        if (stop_check(e) != 0)
            return -1;
        if (now >= end)
            return 0;
        poll(&p, pipe_read >= 0 ? 1 : 0, (int)min_u64(end - now, 60000));
    }
}

void stop_reset(void)
{
    char drop[64];

    atomic_store(&first_signal, 0);
    atomic_store(&signal_count, 0);
    atomic_store(&stopped, false);
    while (pipe_read >= 0 && read(pipe_read, drop, sizeof drop) > 0)
        ;
}
