#include "receiver/storage/open_files.h"

#include <stdio.h>
#include <string.h>

#include "protocol/base/io.h"

void open_files_init(struct open_files *o)
{
    memset(o, 0, sizeof *o);
    pthread_mutex_init(&o->lock, NULL);
    for (size_t i = 0; i < OPEN_FILES_MAX; i++)
        o->files[i].fd = -1;
}

void open_files_close(struct open_files *o)
{
    for (size_t i = 0; i < OPEN_FILES_MAX; i++)
        io_drop(&o->files[i].fd);
    pthread_mutex_destroy(&o->lock);
}

/* With the lock held. */
static struct open_file *find(struct open_files *o, const char *name)
{
    for (size_t i = 0; i < OPEN_FILES_MAX; i++) {
        struct open_file *f = &o->files[i];

        if (f->fd >= 0 && !f->gone && strcmp(f->name, name) == 0)
            return f;
    }
    return NULL;
}

static struct open_file *use(struct open_files *o, struct open_file *f)
{
    f->users++;
    f->used = ++o->clock;
    return f;
}

struct open_file *open_files_take(struct open_files *o, const char *name)
{
    struct open_file *f;

    pthread_mutex_lock(&o->lock);
    f = find(o, name);
    if (f != NULL)
        use(o, f);
    pthread_mutex_unlock(&o->lock);
    return f;
}

/* A free place, or the one whose file was not used for longest. */
static struct open_file *find_place(struct open_files *o)
{
    struct open_file *best = NULL;

    for (size_t i = 0; i < OPEN_FILES_MAX; i++) {
        struct open_file *f = &o->files[i];

        if (f->fd < 0)
            return f;
        if (f->users == 0 && (best == NULL || f->used < best->used))
            best = f;
    }
    return best;
}

struct open_file *open_files_keep(struct open_files *o, const char *name, int fd)
{
    struct open_file *f;

    pthread_mutex_lock(&o->lock);
    /* Two threads may keep the same one: the older goes when its turn comes. */
    f = find_place(o);
    if (f != NULL) {
        io_drop(&f->fd);
        *f = (struct open_file){ .fd = fd };
        snprintf(f->name, sizeof f->name, "%s", name);
        use(o, f);
    }
    pthread_mutex_unlock(&o->lock);
    return f;
}

void open_files_give(struct open_files *o, struct open_file *f)
{
    pthread_mutex_lock(&o->lock);
    f->users--;
    if (f->gone && f->users == 0)
        io_drop(&f->fd);
    pthread_mutex_unlock(&o->lock);
}

void open_files_forget(struct open_files *o, const char *name)
{
    struct open_file *f;

    pthread_mutex_lock(&o->lock);
    while ((f = find(o, name)) != NULL) {
        f->gone = true;
        if (f->users == 0)
            io_drop(&f->fd);
    }
    pthread_mutex_unlock(&o->lock);
}
