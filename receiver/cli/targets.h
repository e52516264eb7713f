/* Operands and option values that name places: hosts, addresses, datastore folders, disk slots. */
#ifndef RECEIVER_CLI_TARGETS_H
#define RECEIVER_CLI_TARGETS_H

#include <stdbool.h>
#include <stdint.h>

#include "receiver/job/run.h"

struct err;

enum { HOST_USER_BYTES = 64, HOST_NAME_BYTES = 256 };

/* HOST: [user@]name[:port], [user@][v6addr]:port, or a bare IPv6 address. */
struct host_target {
    char user[HOST_USER_BYTES]; /* "root" unless given */
    char name[HOST_NAME_BYTES]; /* without brackets */
    uint16_t port;              /* 22 unless given */
};

/* 0, or -1 with ERR_USAGE. */
int host_target_parse(struct host_target *out, const char *text, struct err *e);

/* ADDR[:PORT], [v6addr][:PORT], a bare IPv6 address, or :PORT alone.  ERR_USAGE. */
int data_address_parse(struct data_address *out, const char *text, struct err *e);

/* A place on a host's datastore: "[name]" or "[name] folder". */
bool is_datastore_place(const char *text);
int datastore_place_check(const char *text, struct err *e);

/* "scsi0:1"; also ide, sata, nvme.  ERR_USAGE. */
int disk_slot_check(const char *text, struct err *e);

#endif
