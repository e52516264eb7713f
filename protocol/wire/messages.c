#include "protocol/wire/messages.h"

#include "protocol/base/err.h"

static void header_encode(uint16_t type, uint32_t stream, struct push *p)
{
    push_u16(p, type);
    push_u16(p, 0);
    push_u32(p, stream);
}

#define MESSAGE(name, number, version, way, tail_max)                                              \
    void msg_##name##_encode(const struct msg_##name *m, uint32_t stream, struct push *p)          \
    {                                                                                              \
        header_encode(number, stream, p);
#define FIELD(type, name) push_##type(p, m->name);
#define ARRAY(name, count) push_copy(p, m->name, count);
#define END(name)                                                                                  \
        push_copy(p, m->tail, m->tail_bytes);                                                      \
    }
#include "protocol/wire/messages.def"

static int tail_check(const char *name, const struct pull *p, size_t tail_max, struct err *e)
{
    if (p->spent)
        return err_set(e, ERR_PEER, "message `%s` is too short", name);
    if (p->left > tail_max)
        return err_set(e, ERR_PEER, "message `%s` is too long", name);
    return 0;
}

#define MESSAGE(name, number, version, way, tail_max)                                              \
    int msg_##name##_decode(struct msg_##name *m, const uint8_t *body, size_t body_bytes,          \
                            struct err *e)                                                         \
    {                                                                                              \
        struct pull p = { .at = body, .left = body_bytes };                                        \
        const size_t limit = tail_max;
#define FIELD(type, name) m->name = pull_##type(&p);
#define ARRAY(name, count) pull_copy(&p, m->name, count);
#define END(name)                                                                                  \
        m->tail = p.at;                                                                            \
        m->tail_bytes = p.left;                                                                    \
        return tail_check(#name, &p, limit, e);                                                    \
    }
#include "protocol/wire/messages.def"

struct message_facts {
    uint16_t type;
    const char *name;
    size_t payload_max;
};

static const struct message_facts facts[] = {
#define MESSAGE(name, number, version, way, tail_max) { number, #name, MESSAGE_HEADER_BYTES + tail_max
#define FIELD(type, name) + sizeof(wire_##type)
#define ARRAY(name, count) + (count)
#define END(name) },
#include "protocol/wire/messages.def"
};

static const struct message_facts *find(uint16_t type)
{
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++)
        if (facts[i].type == type)
            return &facts[i];
    return NULL;
}

int message_header_decode(struct message_header *h, const uint8_t *payload, size_t payload_bytes,
                          struct err *e)
{
    struct pull p = { .at = payload, .left = payload_bytes };
    const struct message_facts *f;
    uint16_t reserved;

    h->type = pull_u16(&p);
    reserved = pull_u16(&p);
    h->stream = pull_u32(&p);
    if (p.spent)
        return err_set(e, ERR_PEER, "a message of %zu bytes is too short", payload_bytes);
    f = find(h->type);
    if (f == NULL || reserved != 0)
        return err_set(e, ERR_PEER, "message 0x%04x is unknown", h->type);
    if (payload_bytes > f->payload_max)
        return err_set(e, ERR_PEER, "message `%s` is too long", f->name);
    return 0;
}

const char *message_name(uint16_t type)
{
    const struct message_facts *f = find(type);

    return f != NULL ? f->name : "unknown";
}

size_t message_payload_max(uint16_t type)
{
    const struct message_facts *f = find(type);

    return f != NULL ? f->payload_max : 0;
}
