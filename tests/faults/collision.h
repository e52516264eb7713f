/* Two blocks of equal XXH3-64 and XXH3-128 without secret, as anybody can make them. */
#ifndef TESTS_FAULTS_COLLISION_H
#define TESTS_FAULTS_COLLISION_H

#include <stddef.h>
#include <stdint.h>

/* Fill two blocks of this length, more than 240 bytes, that differ. */
void collision_make(uint8_t *a, uint8_t *b, size_t bytes);

#endif
