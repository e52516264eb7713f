/*
 * Cursors for little-endian structures of the wire and of files.  Decode every field, then ask
 * once: a reading cursor that would leave its bytes yields 0 and stays `spent`; a writing cursor
 * that would leave its room writes nothing and stays `full`.
 */
#ifndef PROTOCOL_BASE_CURSOR_H
#define PROTOCOL_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pull {
    const uint8_t *at;
    size_t left;
    bool spent;
};

uint8_t pull_u8(struct pull *p);
uint16_t pull_u16(struct pull *p);
uint32_t pull_u32(struct pull *p);
uint64_t pull_u64(struct pull *p);
/* count bytes inside the cursor's memory, or NULL when there are not as many. */
const uint8_t *pull_bytes(struct pull *p, size_t count);
/* Copies count bytes, or zeros when there are not as many. */
void pull_copy(struct pull *p, void *out, size_t count);

struct push {
    uint8_t *at;
    size_t left;
    bool full;
};

void push_u8(struct push *p, uint8_t v);
void push_u16(struct push *p, uint16_t v);
void push_u32(struct push *p, uint32_t v);
void push_u64(struct push *p, uint64_t v);
void push_copy(struct push *p, const void *data, size_t count);

#endif
