/* zlib as the codec of compressed VMDK grains (protocol/vmdk/codec.h). */
#ifndef RECEIVER_BASE_CODEC_ZLIB_H
#define RECEIVER_BASE_CODEC_ZLIB_H

struct vmdk_codec;

extern const struct vmdk_codec codec_zlib;

#endif
