#include "protocol/base/cursor.h"

#include <string.h>

const uint8_t *pull_bytes(struct pull *p, size_t count)
{
    const uint8_t *here = p->at;

    if (p->spent || count > p->left) {
        p->spent = true;
        return NULL;
    }
    p->at += count;
    p->left -= count;
    return here;
}

static uint64_t pull_number(struct pull *p, size_t count)
{
    const uint8_t *b = pull_bytes(p, count);
    uint64_t v = 0;

    if (b != NULL)
        for (size_t i = count; i > 0; i--)
            v = v << 8 | b[i - 1];
    return v;
}

uint8_t pull_u8(struct pull *p)
{
    return (uint8_t)pull_number(p, 1);
}

uint16_t pull_u16(struct pull *p)
{
    return (uint16_t)pull_number(p, 2);
}

uint32_t pull_u32(struct pull *p)
{
    return (uint32_t)pull_number(p, 4);
}

uint64_t pull_u64(struct pull *p)
{
    return pull_number(p, 8);
}

void pull_copy(struct pull *p, void *out, size_t count)
{
    const uint8_t *b = pull_bytes(p, count);

    if (b != NULL)
        memcpy(out, b, count);
    else
        memset(out, 0, count);
}

void push_copy(struct push *p, const void *data, size_t count)
{
    if (p->full || count > p->left) {
        p->full = true;
        return;
    }
    if (count > 0)
        memcpy(p->at, data, count);
    p->at += count;
    p->left -= count;
}

static void push_number(struct push *p, uint64_t v, size_t count)
{
    uint8_t b[8];

    for (size_t i = 0; i < count; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    push_copy(p, b, count);
}

void push_u8(struct push *p, uint8_t v)
{
    push_number(p, v, 1);
}

void push_u16(struct push *p, uint16_t v)
{
    push_number(p, v, 2);
}

void push_u32(struct push *p, uint32_t v)
{
    push_number(p, v, 4);
}

void push_u64(struct push *p, uint64_t v)
{
    push_number(p, v, 8);
}
