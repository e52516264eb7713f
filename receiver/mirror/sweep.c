#include "receiver/mirror/sweep.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/mirror/store.h"

struct sweeper {
    struct store *s;
    enum sweep what;
    uint64_t oldest; /* kept generation */
};

/* A decimal number as this store writes it; moves *at behind it. */
static bool number_at(const char **at, uint64_t *out)
{
    const char *p = *at;
    uint64_t n = 0;

    while (*p >= '0' && *p <= '9' && p - *at < 18)
        n = n * 10 + (uint64_t)(*p++ - '0');
    if (p == *at || **at == '0')
        return false;
    *at = p;
    *out = n;
    return true;
}

static bool starts(const char **at, const char *prefix)
{
    size_t count = strlen(prefix);

    if (strncmp(*at, prefix, count) != 0)
        return false;
    *at += count;
    return true;
}

static bool is_staged(const char *name)
{
    uint64_t disk;

    if (strcmp(name, LAYOUT_CONFIG_STAGED) == 0)
        return true;
    if (starts(&name, "redo-"))
        return number_at(&name, &disk) &&
               (strcmp(name, ".index") == 0 || strcmp(name, ".blocks") == 0 ||
                strcmp(name, ".staged") == 0 || strcmp(name, ".checkpoint") == 0);
    if (starts(&name, "image-"))
        return number_at(&name, &disk) &&
               (strcmp(name, ".raw") == 0 || strcmp(name, ".digests") == 0 ||
                strcmp(name, ".disk") == 0 || strcmp(name, ".checkpoint") == 0);
    return false;
}

static bool is_orphan(const struct sweeper *w, const char *name)
{
    uint64_t newest = w->s->newest.number;
    uint64_t number, disk;

    if (strcmp(name, LAYOUT_SCRATCH) == 0)
        return true;
    if (starts(&name, "generation-"))
        return number_at(&name, &number) && *name == 0 && number < w->oldest;
    if (starts(&name, "delta-"))
        return number_at(&name, &number) && starts(&name, "-") && number_at(&name, &disk) &&
               (strcmp(name, ".index") == 0 || strcmp(name, ".blocks") == 0) &&
               (number < w->oldest || number >= newest);
    if (starts(&name, "config-"))
        return number_at(&name, &number) && *name == 0 && (number < w->oldest || number > newest);
    if (starts(&name, "digests-") || starts(&name, "suspect-"))
        return number_at(&name, &disk) && *name == 0 && manifest_disk(&w->s->newest, disk) == NULL;
    return false;
}

static int sweep_entry(void *context, const char *name, struct err *e)
{
    const struct sweeper *w = context;
    bool staged = is_staged(name);

    if (!(staged && w->what == SWEEP_ALL) && !is_orphan(w, name))
        return 0;
    if (strncmp(name, "config-", 7) == 0)
        return folder_remove(w->s->store_fd, name, e);
    return file_remove(w->s->store_fd, name, e);
}

int store_sweep(struct store *s, enum sweep what, struct err *e)
{
    struct sweeper w = { .s = s, .what = what, .oldest = 1 };

    if (s->newest.number > s->newest.keep)
        w.oldest = s->newest.number - s->newest.keep;
    /* Without a generation nothing is known that could tell what is needed. */
    if (s->newest.number > 0 && folder_each(s->store_fd, sweep_entry, &w, e) != 0)
        return -1;
    return io_sync(s->store_fd, e);
}
