/*
 * Start of libsodium and random bytes, without libsodium's habit of ending the process: on a host
 * where getrandom is missing and poll or fcntl are refused, sodium_init alone would call abort.
 * All functions may be called from any thread.
 */
#ifndef PROTOCOL_WIRE_CRYPTO_H
#define PROTOCOL_WIRE_CRYPTO_H

#include <stddef.h>

struct err;

/*
 * Must have succeeded before libsodium is used; wire/ calls it where it needs it, repeating costs
 * nothing.  0, or -1 with ERR_SYSTEM.
 */
int crypto_start(struct err *e);

/* Random bytes fit for keys: getrandom, else /dev/urandom.  0, or -1 with ERR_SYSTEM. */
int crypto_random(void *out, size_t count, struct err *e);

/* Overwrite a secret so that the compiler cannot leave it out. */
void crypto_wipe(void *secret, size_t count);

#endif
