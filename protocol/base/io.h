/*
 * Whole reads and writes.  The only place that loops over short transfers and EINTR.
 * Every function returns 0, or -1 with the system's reason in e.
 */
#ifndef PROTOCOL_BASE_IO_H
#define PROTOCOL_BASE_IO_H

#include <stddef.h>
#include <stdint.h>

struct err;

/* Exactly count bytes; end of file before that is ERR_CORRUPT, naming the offset where it ended. */
int io_read_all(int fd, void *data, size_t count, struct err *e);
int io_pread_all(int fd, void *data, size_t count, uint64_t offset_bytes, struct err *e);

/*
 * Exactly count bytes of a pipe or socket, blocking or not, until the clock of io_clock_ms reaches
 * until_ms.  -1 with ERR_NETWORK when it ends or the time is up.
 */
int io_read_until(int fd, void *data, size_t count, uint64_t until_ms, struct err *e);

/* Wait for events of poll until then.  0, or -1 with ERR_NETWORK (the time is up) or ERR_SYSTEM. */
int io_wait_until(int fd, short events, uint64_t until_ms, struct err *e);

int io_write_all(int fd, const void *data, size_t count, struct err *e);
int io_pwrite_all(int fd, const void *data, size_t count, uint64_t offset_bytes, struct err *e);

/* fsync.  After a failure the file is written anew or given up, never synced again. */
int io_sync(int fd, struct err *e);

/* Close *fd, which turns -1 whatever happens; a failure is reported once and never retried. */
int io_close(int *fd, struct err *e);

/* Close quietly: for descriptors that were only read.  -1 is allowed. */
void io_drop(int *fd);

/* Set or clear O_NONBLOCK. */
int io_set_nonblocking(int fd, int on, struct err *e);

/* Milliseconds of a clock that only runs forward. */
uint64_t io_clock_ms(void);

#endif
