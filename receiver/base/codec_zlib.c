#include "receiver/base/codec_zlib.h"

#include <limits.h>
#define ZLIB_CONST
#include <zlib.h>

#include "protocol/base/err.h"
#include "protocol/vmdk/codec.h"

enum { LEVEL = 1 }; /* what VMware's own tools use: their streams begin with 78 01 */

static int zlib_inflate(const void *in, size_t in_bytes, void *out, size_t room, size_t *made,
                        struct err *e)
{
    z_stream z = { .next_in = in, .next_out = out };
    int rc;

    if (in_bytes > UINT_MAX || room > UINT_MAX)
        return err_set(e, ERR_LIMIT, "a compressed grain of %zu bytes", in_bytes);
    z.avail_in = (uInt)in_bytes;
    z.avail_out = (uInt)room;
    if (inflateInit(&z) != Z_OK)
        return err_set(e, ERR_SYSTEM, "getting memory to unpack");
    rc = inflate(&z, Z_FINISH);
    *made = room - z.avail_out;
    inflateEnd(&z);
    if (rc == Z_MEM_ERROR)
        return err_set(e, ERR_SYSTEM, "getting memory to unpack");
    /* Not its end: cut short, or more than a grain.  A preset dictionary is no stream's own. */
    if (rc != Z_STREAM_END)
        return err_set(e, ERR_CORRUPT, "the compressed bytes are damaged, cut short or too long");
    if (z.avail_in != 0)
        return err_set(e, ERR_CORRUPT, "%u bytes stand behind the compressed ones", z.avail_in);
    return 0;
}

static int zlib_deflate(const void *in, size_t in_bytes, void *out, size_t room, size_t *made,
                        struct err *e)
{
    z_stream z = { .next_in = in, .next_out = out };
    int rc;

    if (in_bytes > UINT_MAX || room > UINT_MAX)
        return err_set(e, ERR_LIMIT, "a grain of %zu bytes", in_bytes);
    z.avail_in = (uInt)in_bytes;
    z.avail_out = (uInt)room;
    if (deflateInit(&z, LEVEL) != Z_OK)
        return err_set(e, ERR_SYSTEM, "getting memory to pack");
    rc = deflate(&z, Z_FINISH);
    *made = room - z.avail_out;
    deflateEnd(&z);
    return rc == Z_STREAM_END ? 0
                              : err_set(e, ERR_LIMIT, "a grain packs to more than %zu bytes", room);
}

const struct vmdk_codec codec_zlib = { zlib_inflate, zlib_deflate };
