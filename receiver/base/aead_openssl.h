/*
 * AEADs by OpenSSL for the record layer: two to three times as fast as libsodium's, same bytes on
 * the wire.  Same rules as protocol/wire/aead.h.
 */
#ifndef RECEIVER_BASE_AEAD_OPENSSL_H
#define RECEIVER_BASE_AEAD_OPENSSL_H

#include <stdint.h>

#include "protocol/wire/aead.h"

/* NULL when the id is unknown or this OpenSSL does not offer it (a FIPS configuration, say). */
const struct aead *aead_openssl_find(uint8_t id);

/* The set that aead_openssl_find answers here. */
uint8_t aead_openssl_offer(void);

#endif
