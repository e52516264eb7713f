#include "protocol/wire/handshake.h"

#include <string.h>

#include <sodium.h>

#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/wire/crypto.h"
#include "protocol/wire/hkdf.h"

enum { MAGIC_BYTES = 8, MAC_BYTES = 32 };

/* The line ends show a channel that rewrites text, the 0x1a ends a listing of it. */
static const uint8_t m1_magic[MAGIC_BYTES] = { 'V', 'M', 'F', '1', '\r', '\n', 0x1a, '\n' };
static const uint8_t m2_magic[MAGIC_BYTES] = { 'V', 'M', 'F', '2', '\r', '\n', 0x1a, '\n' };

static const char m1_label[] = "vmferry 1 m1";
static const char m2_label[] = "vmferry 1 m2";
static const char to_responder_label[] = "vmferry 1 initiator to responder ";
static const char to_initiator_label[] = "vmferry 1 responder to initiator ";

struct m1 {
    bool is_m1;
    uint16_t version;
    struct handshake_offer offer;
    uint8_t session_id[SESSION_ID_BYTES];
};

/* --- keys --- */

int session_secret_make(struct session_secret *s, struct err *e)
{
    if (crypto_random(s->id, sizeof s->id, e) != 0 ||
        crypto_random(s->key, sizeof s->key, e) != 0) {
        session_secret_wipe(s);
        return err_add(e, "making the session's secret");
    }
    return 0;
}

void session_secret_wipe(struct session_secret *s)
{
    crypto_wipe(s, sizeof *s);
}

void handshake_keys_wipe(struct handshake_keys *keys)
{
    crypto_wipe(keys, sizeof *keys);
}

/* The MAC under the key that S gives for this label, over first and then second. */
static void mac_of(const struct session_secret *s, const char *label, size_t label_bytes,
                   const uint8_t *first, size_t first_bytes, const uint8_t *second,
                   size_t second_bytes, uint8_t mac[MAC_BYTES])
{
    crypto_auth_hmacsha256_state state;
    uint8_t root[HKDF_KEY_BYTES], key[HKDF_KEY_BYTES];

    hkdf_extract(root, s->id, sizeof s->id, s->key, sizeof s->key);
    hkdf_expand(key, sizeof key, root, (const uint8_t *)label, label_bytes);
    crypto_auth_hmacsha256_init(&state, key, sizeof key);
    crypto_auth_hmacsha256_update(&state, first, first_bytes);
    if (second_bytes > 0)
        crypto_auth_hmacsha256_update(&state, second, second_bytes);
    crypto_auth_hmacsha256_final(&state, mac);
    sodium_memzero(root, sizeof root);
    sodium_memzero(key, sizeof key);
    sodium_memzero(&state, sizeof state);
}

static void m1_mac(const struct session_secret *s, const uint8_t m1[HANDSHAKE_M1_BYTES],
                   uint8_t mac[MAC_BYTES])
{
    mac_of(s, m1_label, sizeof m1_label - 1, m1, HANDSHAKE_M1_BYTES - MAC_BYTES, NULL, 0, mac);
}

static void m2_mac(const struct session_secret *s, const uint8_t m1[HANDSHAKE_M1_BYTES],
                   const uint8_t m2[HANDSHAKE_M2_BYTES], uint8_t mac[MAC_BYTES])
{
    mac_of(s, m2_label, sizeof m2_label - 1, m1, HANDSHAKE_M1_BYTES, m2,
           HANDSHAKE_M2_BYTES - MAC_BYTES, mac);
}

static void direction_key(const uint8_t root[HKDF_KEY_BYTES], const char *label, size_t label_bytes,
                          uint32_t connection, uint8_t key[AEAD_KEY_BYTES])
{
    uint8_t info[64];
    struct push p = { .at = info, .left = sizeof info };

    push_copy(&p, label, label_bytes);
    push_u32(&p, connection);
    hkdf_expand(key, AEAD_KEY_BYTES, root, info, sizeof info - p.left);
}

static void derive_keys(const struct session_secret *s, const uint8_t m1[HANDSHAKE_M1_BYTES],
                        const uint8_t m2[HANDSHAKE_M2_BYTES], uint32_t connection,
                        uint8_t to_responder[AEAD_KEY_BYTES], uint8_t to_initiator[AEAD_KEY_BYTES])
{
    crypto_hash_sha256_state state;
    uint8_t salt[crypto_hash_sha256_BYTES], root[HKDF_KEY_BYTES];

    crypto_hash_sha256_init(&state);
    crypto_hash_sha256_update(&state, m1, HANDSHAKE_M1_BYTES);
    crypto_hash_sha256_update(&state, m2, HANDSHAKE_M2_BYTES);
    crypto_hash_sha256_final(&state, salt);
    hkdf_extract(root, salt, sizeof salt, s->key, sizeof s->key);
    direction_key(root, to_responder_label, sizeof to_responder_label - 1, connection,
                  to_responder);
    direction_key(root, to_initiator_label, sizeof to_initiator_label - 1, connection,
                  to_initiator);
    sodium_memzero(root, sizeof root);
}

/* --- M1 --- */

void handshake_offer_with(const struct session_secret *s, const struct handshake_offer *offer,
                          const uint8_t nonce[HANDSHAKE_NONCE_BYTES],
                          uint8_t m1[HANDSHAKE_M1_BYTES])
{
    struct push p = { .at = m1, .left = HANDSHAKE_M1_BYTES };

    push_copy(&p, m1_magic, sizeof m1_magic);
    push_u16(&p, WIRE_VERSION);
    push_u8(&p, offer->aead_set);
    push_u8(&p, offer->mode_set);
    push_u32(&p, offer->connection);
    push_copy(&p, s->id, sizeof s->id);
    push_copy(&p, nonce, HANDSHAKE_NONCE_BYTES);
    m1_mac(s, m1, p.at);
}

int handshake_offer(const struct session_secret *s, const struct handshake_offer *offer,
                    uint8_t m1[HANDSHAKE_M1_BYTES], struct err *e)
{
    uint8_t nonce[HANDSHAKE_NONCE_BYTES];

    if (crypto_random(nonce, sizeof nonce, e) != 0)
        return err_add(e, "opening a data connection");
    handshake_offer_with(s, offer, nonce, m1);
    return 0;
}

static struct m1 m1_decode(const uint8_t m1[HANDSHAKE_M1_BYTES])
{
    struct pull p = { .at = m1, .left = HANDSHAKE_M1_BYTES };
    struct m1 d;

    d.is_m1 = memcmp(pull_bytes(&p, MAGIC_BYTES), m1_magic, MAGIC_BYTES) == 0;
    d.version = pull_u16(&p);
    d.offer.aead_set = pull_u8(&p);
    d.offer.mode_set = pull_u8(&p);
    d.offer.connection = pull_u32(&p);
    pull_copy(&p, d.session_id, sizeof d.session_id);
    return d;
}

bool handshake_m1_session(const uint8_t m1[HANDSHAKE_M1_BYTES], uint8_t id[SESSION_ID_BYTES])
{
    struct m1 d = m1_decode(m1);

    memcpy(id, d.session_id, SESSION_ID_BYTES);
    return d.is_m1;
}

int handshake_read_m1(const struct session_secret *s, const uint8_t m1[HANDSHAKE_M1_BYTES],
                      struct handshake_offer *offer, struct err *e)
{
    struct m1 d = m1_decode(m1);
    uint8_t mac[MAC_BYTES];

    m1_mac(s, m1, mac);
    if (sodium_memcmp(mac, m1 + HANDSHAKE_M1_BYTES - MAC_BYTES, MAC_BYTES) != 0 || !d.is_m1 ||
        memcmp(d.session_id, s->id, SESSION_ID_BYTES) != 0)
        return err_set(e, ERR_AUTH, "the peer does not know the session's secret");
    if (d.version != WIRE_VERSION)
        return err_set(e, ERR_PEER, "the peer speaks version %u of the protocol, not %d", d.version,
                       WIRE_VERSION);
    if (d.offer.aead_set == 0 || (d.offer.aead_set & ~AEAD_SET_ALL) != 0 || d.offer.mode_set == 0 ||
        (d.offer.mode_set & ~RECORD_MODE_SET_ALL) != 0)
        return err_set(e, ERR_PEER, "the peer offers ciphers 0x%02x and modes 0x%02x",
                       d.offer.aead_set, d.offer.mode_set);
    *offer = d.offer;
    return 0;
}

int handshake_choose(const struct handshake_offer *offer, uint8_t aead_set, uint8_t mode_set,
                     struct handshake_choice *choice, struct err *e)
{
    /* Numbers are given in the order of preference. */
    for (uint8_t aead = 1; aead < AEAD_ID_END; aead++)
        for (uint8_t mode = 1; mode < RECORD_MODE_END; mode++)
            if ((offer->aead_set & aead_set & aead_bit(aead)) != 0 &&
                (offer->mode_set & mode_set & record_mode_bit(mode)) != 0) {
                *choice = (struct handshake_choice){ .aead = aead, .mode = mode };
                return 0;
            }
    return err_set(e, ERR_PEER,
                   "the peer offers ciphers 0x%02x, modes 0x%02x; we have 0x%02x, 0x%02x",
                   offer->aead_set, offer->mode_set, aead_set, mode_set);
}

/* --- M2 --- */

static bool choice_offered(const struct handshake_choice *choice,
                           const struct handshake_offer *offer)
{
    return (aead_bit(choice->aead) & offer->aead_set) != 0 &&
           (record_mode_bit(choice->mode) & offer->mode_set) != 0;
}

int handshake_answer_with(const struct session_secret *s, const uint8_t m1[HANDSHAKE_M1_BYTES],
                          const struct handshake_choice *choice,
                          const uint8_t nonce[HANDSHAKE_NONCE_BYTES],
                          uint8_t m2[HANDSHAKE_M2_BYTES], struct handshake_keys *keys,
                          struct err *e)
{
    struct push p = { .at = m2, .left = HANDSHAKE_M2_BYTES };
    struct handshake_offer offer;

    if (handshake_read_m1(s, m1, &offer, e) != 0)
        return -1;
    if (!choice_offered(choice, &offer))
        return err_set(e, ERR_PEER, "cipher %u and mode %u were not offered", choice->aead,
                       choice->mode);
    push_copy(&p, m2_magic, sizeof m2_magic);
    push_u16(&p, WIRE_VERSION);
    push_u8(&p, choice->aead);
    push_u8(&p, choice->mode);
    push_u32(&p, 0);
    push_copy(&p, nonce, HANDSHAKE_NONCE_BYTES);
    m2_mac(s, m1, m2, p.at);
    keys->connection = offer.connection;
    keys->choice = *choice;
    derive_keys(s, m1, m2, offer.connection, keys->receive, keys->send);
    return 0;
}

int handshake_answer(const struct session_secret *s, const uint8_t m1[HANDSHAKE_M1_BYTES],
                     const struct handshake_choice *choice, uint8_t m2[HANDSHAKE_M2_BYTES],
                     struct handshake_keys *keys, struct err *e)
{
    uint8_t nonce[HANDSHAKE_NONCE_BYTES];

    if (crypto_random(nonce, sizeof nonce, e) != 0)
        return err_add(e, "answering a data connection");
    return handshake_answer_with(s, m1, choice, nonce, m2, keys, e);
}

int handshake_finish(const struct session_secret *s, const uint8_t m1[HANDSHAKE_M1_BYTES],
                     const uint8_t m2[HANDSHAKE_M2_BYTES], struct handshake_keys *keys,
                     struct err *e)
{
    struct pull p = { .at = m2, .left = HANDSHAKE_M2_BYTES };
    const struct m1 ours = m1_decode(m1);
    struct handshake_choice choice;
    uint8_t mac[MAC_BYTES];
    uint16_t version;
    uint32_t reserved;
    bool is_m2;

    m2_mac(s, m1, m2, mac);
    is_m2 = memcmp(pull_bytes(&p, MAGIC_BYTES), m2_magic, MAGIC_BYTES) == 0;
    version = pull_u16(&p);
    choice.aead = pull_u8(&p);
    choice.mode = pull_u8(&p);
    reserved = pull_u32(&p);
    if (sodium_memcmp(mac, m2 + HANDSHAKE_M2_BYTES - MAC_BYTES, MAC_BYTES) != 0 || !is_m2)
        return err_set(e, ERR_AUTH, "the peer does not know the session's secret");
    if (version != WIRE_VERSION || reserved != 0)
        return err_set(e, ERR_PEER, "the peer speaks version %u of the protocol, not %d", version,
                       WIRE_VERSION);
    if (!choice_offered(&choice, &ours.offer))
        return err_set(e, ERR_PEER, "the peer chose cipher %u and mode %u, which were not offered",
                       choice.aead, choice.mode);
    keys->connection = ours.offer.connection;
    keys->choice = choice;
    derive_keys(s, m1, m2, keys->connection, keys->send, keys->receive);
    return 0;
}
