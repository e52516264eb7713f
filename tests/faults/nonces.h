/* The form of VMFERRY_NONCE_LOG; nonces.c says more. */
#ifndef TESTS_FAULTS_NONCES_H
#define TESTS_FAULTS_NONCES_H

#include "protocol/wire/aead.h"

enum { NONCE_KEY_BYTES = 16, NONCE_LINE_BYTES = NONCE_KEY_BYTES + AEAD_NONCE_BYTES };

#endif
