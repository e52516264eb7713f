/*
 * The nonce audit of a whole program: with VMFERRY_NONCE_LOG=FILE each record that it seals leaves
 * NONCE_LINE_BYTES there, a hash of the key and the nonce.  Programs on both ends of a session, and
 * of several, write to one file: that no line comes twice is for `giant nonces` to see.
 */
#include "tests/faults/nonces.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/wire/record.h"

enum { KEYS_MAX = 4096 };

static int log_fd = -1;
static uint8_t key_hash[KEYS_MAX][NONCE_KEY_BYTES];

/* A key gets its number before anything is sealed with it, in the same or a later thread. */
static void note_key(uint64_t key, const uint8_t secret[AEAD_KEY_BYTES])
{
    if (key >= KEYS_MAX ||
        crypto_generichash(key_hash[key], NONCE_KEY_BYTES, secret, AEAD_KEY_BYTES, NULL, 0) != 0)
        abort();
}

static void note(uint64_t key, const uint8_t nonce[AEAD_NONCE_BYTES])
{
    uint8_t line[NONCE_LINE_BYTES];

    memcpy(line, key_hash[key], NONCE_KEY_BYTES);
    memcpy(line + NONCE_KEY_BYTES, nonce, AEAD_NONCE_BYTES);
    /* One write on a file opened to append: threads and processes do not mix their lines. */
    if (write(log_fd, line, sizeof line) != (ssize_t)sizeof line)
        abort();
}

__attribute__((constructor)) static void nonces_start(void)
{
    const char *file = getenv("VMFERRY_NONCE_LOG");

    if (file == NULL)
        return;
    log_fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) {
        perror(file);
        _exit(2);
    }
    record_key_audit = note_key;
    record_nonce_audit = note;
}
