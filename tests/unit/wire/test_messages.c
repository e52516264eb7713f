/* Every message of messages.def there and back, made from the list itself. */
#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/wire/messages.h"

static void fill(void *out, size_t count, unsigned seed)
{
    uint8_t *b = out;

    srand(seed);
    for (size_t i = 0; i < count; i++)
        b[i] = (uint8_t)rand();
}

/* Fields are set one by one: padding must not matter. */
#define MESSAGE(name, number, version, way, tail_max)                                              \
    static void name##_goes_there_and_back(void **state)                                           \
    {                                                                                              \
        const size_t limit = tail_max, tail_bytes = limit < 37 ? limit : 37;                       \
        const size_t fixed = (size_t)MSG_FIXED_##name - MESSAGE_HEADER_BYTES;                      \
        struct msg_##name in, out;                                                                 \
        uint8_t tail[37], buffer[1024];                                                            \
        struct push p = { .at = buffer, .left = sizeof buffer };                                   \
        struct message_header header;                                                              \
        struct err e;                                                                              \
        size_t count;                                                                              \
                                                                                                   \
        (void)state;                                                                               \
        fill(&in, sizeof in, number);                                                              \
        fill(tail, sizeof tail, number + 1);                                                       \
        in.tail = tail;                                                                            \
        in.tail_bytes = tail_bytes;                                                                \
        msg_##name##_encode(&in, 0x01020304, &p);                                                  \
        assert_false(p.full);                                                                      \
        count = sizeof buffer - p.left;                                                            \
        assert_int_equal(count, MSG_FIXED_##name + tail_bytes);                                    \
        assert_int_equal(message_header_decode(&header, buffer, count, &e), 0);                    \
        assert_int_equal(header.type, number);                                                     \
        assert_int_equal(header.stream, 0x01020304);                                               \
        assert_string_equal(message_name(number), #name);                                          \
        assert_int_equal(message_payload_max(number), MSG_FIXED_##name + limit);                   \
        assert_int_equal(msg_##name##_decode(&out, buffer + MESSAGE_HEADER_BYTES,                  \
                                             count - MESSAGE_HEADER_BYTES, &e), 0);                \
        assert_int_equal(out.tail_bytes, tail_bytes);                                              \
        assert_memory_equal(out.tail, tail, tail_bytes);
#define FIELD(type, name) assert_true(in.name == out.name);
#define ARRAY(name, count) assert_memory_equal(in.name, out.name, sizeof in.name);
#define END(name)                                                                                  \
        /* One byte less than the fields is refused. */                                            \
        if (fixed > 0) {                                                                           \
            assert_int_equal(msg_##name##_decode(&out, buffer + MESSAGE_HEADER_BYTES, fixed - 1,   \
                                                 &e), -1);                                         \
            assert_int_equal(e.code, ERR_PEER);                                                    \
        }                                                                                          \
    }
#include "protocol/wire/messages.def"

static void what_no_message_is_is_refused(void **state)
{
    uint8_t b[64] = { 0x01, 0x00 }; /* hello */
    struct message_header h;
    struct err e;

    (void)state;
    assert_int_equal(message_header_decode(&h, b, MESSAGE_HEADER_BYTES - 1, &e), -1);
    b[2] = 1; /* reserved */
    assert_int_equal(message_header_decode(&h, b, sizeof b, &e), -1);
    b[2] = 0;
    b[0] = 0xee; /* unknown */
    assert_int_equal(message_header_decode(&h, b, sizeof b, &e), -1);
    b[0] = MSG_quit; /* with a tail it does not have */
    assert_int_equal(message_header_decode(&h, b, sizeof b, &e), -1);
    assert_int_equal(e.code, ERR_PEER);
    assert_string_equal(message_name(0xeeee), "unknown");
    assert_int_equal(message_payload_max(0xeeee), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define MESSAGE(name, number, version, way, tail_max) cmocka_unit_test(name##_goes_there_and_back),
#define FIELD(type, name)
#define ARRAY(name, count)
#define END(name)
#include "protocol/wire/messages.def"
        cmocka_unit_test(what_no_message_is_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
