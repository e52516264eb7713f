/*
 * A disk read by `dd` over an exec channel, where no agent may run.  One dd is kept going while
 * reads ascend and is started anew after a jump.  Anything else than the bytes that were asked for
 * (a short output, error text, a status other than 0, record counts that do not fit) is ERR_SOURCE;
 * never zeros.
 */
#ifndef RECEIVER_HOST_DD_SOURCE_H
#define RECEIVER_HOST_DD_SOURCE_H

#include <stdint.h>

struct disk_map;
struct err;
struct host;
struct source;

/*
 * path is absolute on the host.  map may be NULL (everything is data); it is copied.  stall_ms: the
 * longest wait for the next byte (0: 600 s).  h is borrowed and must outlive the source.
 * 0, or -1: ERR_SOURCE (the size of the file differs from capacity_bytes), host_run's codes.
 */
int dd_source_open(struct source **out, struct host *h, const char *path, uint64_t capacity_bytes,
                   const struct disk_map *map, uint64_t stall_ms, struct err *e);

/* The same for a caller who has just asked the host for the size. */
int dd_source_open_sized(struct source **out, struct host *h, const char *path,
                         uint64_t capacity_bytes, const struct disk_map *map, uint64_t stall_ms,
                         struct err *e);

/* End the dd that runs, if one does; the next read starts another.  It gives its channel back. */
void dd_source_pause(struct source *s);

#endif
