/*
 * The messages, as C.  messages.def is the list; PROTOCOL.md says what they mean and when they may be
 * sent.  A message travels as the payload of one record:
 *     u16 type, u16 zero, u32 stream, the fields in order, the tail.
 */
#ifndef PROTOCOL_WIRE_MESSAGES_H
#define PROTOCOL_WIRE_MESSAGES_H

#include <stddef.h>
#include <stdint.h>

#include "protocol/base/cursor.h"

struct err;

enum {
    PROTOCOL_VERSION_MIN = 1, /* what this end speaks: from it to PROTOCOL_VERSION */
    PROTOCOL_VERSION = 2,
    PROTOCOL_VERSION_ASKS = 2, /* the least that has `asking`, `ask`, `answer` */
    MESSAGE_HEADER_BYTES = 8,
};

enum message_type {
#define MESSAGE(name, number, version, way, tail_max) MSG_##name = number,
#define FIELD(type, name)
#define ARRAY(name, count)
#define END(name)
#include "protocol/wire/messages.def"
};

typedef uint8_t wire_u8;
typedef uint16_t wire_u16;
typedef uint32_t wire_u32;
typedef uint64_t wire_u64;

/* The tail is borrowed: from the caller when encoding, from the payload when decoding. */
#define MESSAGE(name, number, version, way, tail_max) struct msg_##name {
#define FIELD(type, name) wire_##type name;
#define ARRAY(name, count) uint8_t name[count];
#define END(name)                                                                                  \
        const uint8_t *tail;                                                                       \
        size_t tail_bytes;                                                                         \
    };
#include "protocol/wire/messages.def"

/* Bytes of a payload before its tail, header included. */
enum message_fixed_bytes {
#define MESSAGE(name, number, version, way, tail_max) MSG_FIXED_##name = MESSAGE_HEADER_BYTES
#define FIELD(type, name) + (int)sizeof(wire_##type)
#define ARRAY(name, count) + (count)
#define END(name) ,
#include "protocol/wire/messages.def"
};

struct message_header {
    uint16_t type;
    uint32_t stream;
};

/*
 * Encode the message behind its header; p is full when it did not fit.  Decode reads the fields of a
 * payload whose header was taken: 0, or -1 with ERR_PEER (too short, or the tail is over its limit).
 */
#define MESSAGE(name, number, version, way, tail_max)                                              \
    void msg_##name##_encode(const struct msg_##name *m, uint32_t stream, struct push *p);         \
    int msg_##name##_decode(struct msg_##name *m, const uint8_t *body, size_t body_bytes,          \
                            struct err *e);
#define FIELD(type, name)
#define ARRAY(name, count)
#define END(name)
#include "protocol/wire/messages.def"

/* The header of a payload; the body follows it.  0, or -1 with ERR_PEER (short, unknown, too long). */
int message_header_decode(struct message_header *h, const uint8_t *payload, size_t payload_bytes,
                          struct err *e);

const char *message_name(uint16_t type); /* "data"; "unknown" */

/* The longest payload of a type, header included; 0 when the type is unknown. */
size_t message_payload_max(uint16_t type);

/* The longest payload of any message. */
enum { MESSAGE_PAYLOAD_MAX = MSG_FIXED_data + 4194304 };

/* The number of the connection over which the session was bootstrapped. */
enum { CONTROL_CONNECTION = 1 };

/* What the numbers in fields mean. */
enum disk_format {
    DISK_FLAT = 1, /* one file that is the disk */
    DISK_CHAIN = 2 /* VMDK links as ESXi keeps them, from the tip down to the base */
};
enum hole_knowledge { HOLES_NONE = 0, HOLES_SEEK = 1, HOLES_MAP = 2 };
enum warning_code {
    WARNING_HOLES_WRONG = 1, /* a claimed hole holds data: all is read */
    WARNING_HINT_WRONG = 2   /* what a change hint calls kept has changed: the stream fails */
};
enum plan_kind {
    PLAN_READ = 0,  /* will be read */
    PLAN_ZERO = 1,  /* known to be zeros */
    PLAN_UNREAD = 2 /* a hint says that nothing changed since the sink's store saw it */
};
enum run_kind {
    RUN_SAME = 0,
    RUN_UNREAD = 1,
    RUN_ZERO = 2,
    RUN_KNOWN = 3 /* asked for and answered with "known" */
};
enum asking_when {
    ASKING_NEVER = 0,
    ASKING_SLOW = 1, /* once the link turns out to be slow */
    ASKING_ALWAYS = 2
};
enum { ASK_BYTES = 8 + 16 + 32, ASKS_OF_MESSAGE = 256 };
enum stream_flags {
    STREAM_IGNORE_HOLES = 1u << 0, /* read claimed holes as well */
    STREAM_NO_SAMPLE = 1u << 1,    /* claimed holes were checked in an earlier opening */
    STREAM_IGNORE_HINTS = 1u << 2, /* read what a change hint calls unchanged as well */
    STREAM_FLAGS_KNOWN = 7u
};
enum { COMPRESS_AUTO = 255, COMPRESS_LEVEL_MAX = 19 };

#endif
