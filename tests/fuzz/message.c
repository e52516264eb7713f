/* Messages: what is decoded is encoded to the same bytes again, so that no byte means nothing. */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/wire/messages.h"
#include "tests/fuzz/fuzz.h"

static void check(const struct message_header *h, const uint8_t *payload, size_t bytes)
{
    const uint8_t *body = payload + MESSAGE_HEADER_BYTES;
    size_t body_bytes = bytes - MESSAGE_HEADER_BYTES;
    uint8_t *again = malloc(bytes);
    struct push out = { .at = again, .left = bytes };
    struct err e;

    FUZZ_CHECK(again != NULL && bytes <= message_payload_max(h->type));
    FUZZ_CHECK(strcmp(message_name(h->type), "unknown") != 0);
    switch (h->type) {
#define MESSAGE(name, number, version, way, tail_max)                                              \
    case MSG_##name: {                                                                             \
        struct msg_##name m;                                                                       \
        if (msg_##name##_decode(&m, body, body_bytes, &e) != 0)                                    \
            break;                                                                                 \
        msg_##name##_encode(&m, h->stream, &out);                                                  \
        FUZZ_CHECK(!out.full && out.left == 0 && memcmp(again, payload, bytes) == 0);              \
        break;                                                                                     \
    }
#define FIELD(type, name)
#define ARRAY(name, count)
#define END(name)
#include "protocol/wire/messages.def"
    default:
        FUZZ_CHECK(0);
    }
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *exact;
    struct message_header h;
    struct err e;

    fuzz_begin();
    exact = fuzz_copy(data, size);
    if (message_header_decode(&h, exact, size, &e) == 0)
        check(&h, exact, size);
    free(exact);
    fuzz_end();
    return 0;
}
