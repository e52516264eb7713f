/* Disks of any size whose content is computed; stub_source.c says how the agent comes by them. */
#ifndef TESTS_FAULTS_STUB_SOURCE_H
#define TESTS_FAULTS_STUB_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

enum { STUB_PLACES = 10, STUB_PAGE_BYTES = 4096 };

struct stub_disk {
    uint64_t capacity_bytes; /* a multiple of 1 MiB */
    uint64_t version;        /* 0: nothing that differs from other versions */
    bool full;
};

/* One page of the disk. */
void stub_page(const struct stub_disk *d, uint64_t page, uint8_t out[STUB_PAGE_BYTES]);

/* Is it one of the places that only this version has? */
bool stub_is_special(const struct stub_disk *d, uint64_t page);

#endif
