#include "protocol/vmdk/pages.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"

enum { NO_PAGE = -1 };

struct page {
    uint64_t number; /* of the file, in units of PAGE_BYTES */
    uint32_t file_id;
    int32_t next; /* in its bucket */
    bool used;    /* holds something */
    bool recent;  /* read since the hand came by */
};

struct pages {
    pthread_mutex_t lock; /* guards all below */
    struct page *items;
    int32_t *buckets;
    uint8_t *bytes;
    size_t count; /* of items and of buckets; a power of two */
    size_t hand;
};

int pages_new(struct pages **out, size_t bytes, struct err *e)
{
    struct pages *p;

    if (bytes < VMDK_CACHE_BYTES_MIN || bytes > VMDK_CACHE_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "a cache of tables of %zu bytes", bytes);
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return err_sys(e, "getting memory for tables");
    p->count = 1;
    while (p->count * 2 * PAGE_BYTES <= bytes)
        p->count *= 2;
    p->items = calloc(p->count, sizeof *p->items);
    p->buckets = malloc(p->count * sizeof *p->buckets);
    p->bytes = malloc(p->count * PAGE_BYTES);
    if (p->items == NULL || p->buckets == NULL || p->bytes == NULL) {
        err_sys(e, "getting memory for tables");
        free(p->items);
        free(p->buckets);
        free(p->bytes);
        free(p);
        return -1;
    }
    for (size_t i = 0; i < p->count; i++)
        p->buckets[i] = NO_PAGE;
    pthread_mutex_init(&p->lock, NULL);
    *out = p;
    return 0;
}

void pages_free(struct pages *p)
{
    if (p == NULL)
        return;
    pthread_mutex_destroy(&p->lock);
    free(p->items);
    free(p->buckets);
    free(p->bytes);
    free(p);
}

static size_t bucket_of(const struct pages *p, uint32_t file_id, uint64_t number)
{
    uint64_t h = (number ^ (uint64_t)file_id << 40) * UINT64_C(0x9e3779b97f4a7c15);

    return (size_t)(h >> 32) & (p->count - 1);
}

static int32_t find(const struct pages *p, uint32_t file_id, uint64_t number)
{
    int32_t i = p->buckets[bucket_of(p, file_id, number)];

    while (i != NO_PAGE && (p->items[i].number != number || p->items[i].file_id != file_id))
        i = p->items[i].next;
    return i;
}

/* Copy from the page if it is there. */
static bool take(struct pages *p, uint32_t file_id, uint64_t number, size_t at, void *out,
                 size_t count)
{
    int32_t i;

    pthread_mutex_lock(&p->lock);
    i = find(p, file_id, number);
    if (i != NO_PAGE) {
        p->items[i].recent = true;
        memcpy(out, p->bytes + (size_t)i * PAGE_BYTES + at, count);
    }
    pthread_mutex_unlock(&p->lock);
    return i != NO_PAGE;
}

static void unlink_page(struct pages *p, int32_t index)
{
    int32_t *at = &p->buckets[bucket_of(p, p->items[index].file_id, p->items[index].number)];

    while (*at != index)
        at = &p->items[*at].next;
    *at = p->items[index].next;
}

/* Put a page in, in the place of one that was not read lately. */
static void put(struct pages *p, uint32_t file_id, uint64_t number, const uint8_t *bytes,
                size_t count)
{
    size_t bucket = bucket_of(p, file_id, number);
    struct page *page;

    pthread_mutex_lock(&p->lock);
    if (find(p, file_id, number) != NO_PAGE) { /* another thread was faster */
        pthread_mutex_unlock(&p->lock);
        return;
    }
    while (p->items[p->hand].recent) {
        p->items[p->hand].recent = false;
        p->hand = (p->hand + 1) & (p->count - 1);
    }
    page = &p->items[p->hand];
    if (page->used)
        unlink_page(p, (int32_t)p->hand);
    *page = (struct page){ number, file_id, p->buckets[bucket], true, true };
    p->buckets[bucket] = (int32_t)p->hand;
    memcpy(p->bytes + p->hand * PAGE_BYTES, bytes, count);
    p->hand = (p->hand + 1) & (p->count - 1);
    pthread_mutex_unlock(&p->lock);
}

static int load(struct pages *p, struct source *file, uint32_t file_id, uint64_t number, size_t at,
                void *out, size_t count, struct err *e)
{
    uint8_t bytes[PAGE_BYTES];
    uint64_t start = number * PAGE_BYTES;
    size_t whole = (size_t)min_u64(PAGE_BYTES, file->capacity_bytes - start);

    if (source_read(file, start, bytes, whole, e) != 0)
        return -1;
    memcpy(out, bytes + at, count);
    put(p, file_id, number, bytes, whole);
    return 0;
}

int pages_read(struct pages *p, struct source *file, uint32_t file_id, uint64_t offset_bytes,
               void *out, size_t count, struct err *e)
{
    uint8_t *to = out;

    if (offset_bytes > file->capacity_bytes || count > file->capacity_bytes - offset_bytes)
        return err_set(e, ERR_CORRUPT, "a table at byte %" PRIu64 " lies past the end of the file",
                       offset_bytes);
    while (count > 0) {
        uint64_t number = offset_bytes / PAGE_BYTES;
        size_t at = (size_t)(offset_bytes % PAGE_BYTES);
        size_t step = (size_t)min_u64(count, PAGE_BYTES - at);

        if (!take(p, file_id, number, at, to, step) &&
            load(p, file, file_id, number, at, to, step, e) != 0)
            return -1;
        to += step;
        offset_bytes += step;
        count -= step;
    }
    return 0;
}
