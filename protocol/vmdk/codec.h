/*
 * How compressed grains are packed and unpacked: a table filled by the program (the receiver has
 * zlib: receiver/base/codec_zlib.h).  The agent has none, and refuses such extents.
 */
#ifndef PROTOCOL_VMDK_CODEC_H
#define PROTOCOL_VMDK_CODEC_H

#include <stddef.h>

struct err;

struct vmdk_codec {
    /*
     * One whole zlib stream (RFC 1950) of exactly in_bytes, with its checksum, into out of room
     * bytes; *made is what came out.  0, or -1: ERR_CORRUPT (no such stream, cut short, a byte
     * behind it, more than room, a preset dictionary), ERR_SYSTEM.
     */
    int (*inflate)(const void *in, size_t in_bytes, void *out, size_t room, size_t *made,
                   struct err *e);
    /* The way back, at the level that VMware's tools use.  0, or -1: ERR_LIMIT (room), ERR_SYSTEM.
     */
    int (*deflate)(const void *in, size_t in_bytes, void *out, size_t room, size_t *made,
                   struct err *e);
};

#endif
