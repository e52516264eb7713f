#include "policy.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Room for one more item; the daemon is trusted, so there is no ceiling. */
static void *grow(void *items, size_t count, size_t item_bytes)
{
    void *bigger;

    if ((count & (count - 1)) != 0)
        return items;
    bigger = realloc(items, (count == 0 ? 1 : count * 2) * item_bytes);
    if (bigger == NULL)
        abort();
    return bigger;
}

static void add_lock(struct policy *p, char mode, uint64_t dev, uint64_t ino)
{
    p->locks = grow(p->locks, p->lock_count, sizeof *p->locks);
    p->locks[p->lock_count++] =
        (struct policy_lock){ .dev = dev, .ino = ino, .exclusive = mode == 'X' };
}

static void add_range(struct policy *p, const struct policy_range *r)
{
    p->ranges = grow(p->ranges, p->range_count, sizeof *p->ranges);
    p->ranges[p->range_count++] = *r;
}

static void add_ports(struct policy *p, unsigned first, unsigned last)
{
    p->ports = grow(p->ports, p->port_count, sizeof *p->ports);
    p->ports[p->port_count++] = (struct policy_ports){ .first = first, .last = last };
}

static void take_session(struct policy *p, const char *name, const char *value)
{
    if (strcmp(name, "threads") == 0)
        p->threads = strcmp(value, "on") == 0;
    else if (strcmp(name, "reads") == 0)
        p->watch_reads = strcmp(value, "watched") == 0;
    else if (strcmp(name, "seek-hole") == 0)
        p->seek_hole = strcmp(value, "on") == 0;
    else if (strcmp(name, "shell") == 0)
        p->shell = strcmp(value, "on") == 0;
    else if (strcmp(name, "memory") == 0)
        p->memory_mib = (unsigned)strtoul(value, NULL, 10);
}

static void take_line(struct policy *p, const char *line)
{
    char word[32];
    char value[32];
    char mode;
    unsigned a, b;
    struct policy_range r = { 0 };
    uint64_t dev, ino;

    if (sscanf(line, "exec %31s", word) == 1)
        p->exec_installed_only = strcmp(word, "installed-only") == 0;
    else if (sscanf(line, "firewall %31s", word) == 1)
        p->firewall = strcmp(word, "open") == 0   ? FIREWALL_OPEN
                      : strcmp(word, "drop") == 0 ? FIREWALL_DROP
                                                  : FIREWALL_REJECT;
    else if (sscanf(line, "allow %u %u", &a, &b) == 2)
        add_ports(p, a, b);
    else if (sscanf(line, "blackhole4 %u", &a) == 1)
        p->blackhole4 = a;
    else if (sscanf(line, "blackhole6 %u", &a) == 1)
        p->blackhole6 = a;
    else if (sscanf(line, "lock %c %" SCNu64 " %" SCNu64, &mode, &dev, &ino) == 3)
        add_lock(p, mode, dev, ino);
    else if (sscanf(line, "eio %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &r.dev, &r.ino,
                    &r.start, &r.end) == 4)
        add_range(p, &r);
    else if (sscanf(line, "stall %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %u", &r.dev,
                    &r.ino, &r.start, &r.end, &r.stall_ms) == 5)
        add_range(p, &r);
    else if (sscanf(line, "session %31s %31s", word, value) == 2)
        take_session(p, word, value);
}

void policy_refresh(struct policy *p, int dir)
{
    struct stat st;
    char line[256];
    FILE *in;
    int fd;

    if (fstatat(dir, "run/policy", &st, 0) != 0)
        return;
    if (st.st_ino == p->file_ino && st.st_mtim.tv_sec == p->file_time.tv_sec &&
        st.st_mtim.tv_nsec == p->file_time.tv_nsec)
        return;
    fd = openat(dir, "run/policy", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    in = fdopen(fd, "r");
    if (in == NULL) {
        close(fd);
        return;
    }
    p->port_count = p->lock_count = p->range_count = 0;
    p->exec_installed_only = false;
    p->firewall = FIREWALL_OPEN;
    p->blackhole4 = p->blackhole6 = 0;
    while (fgets(line, sizeof line, in) != NULL)
        take_line(p, line);
    if (fstat(fd, &st) == 0) {
        p->file_ino = st.st_ino;
        p->file_time = st.st_mtim;
    }
    fclose(in);
}
