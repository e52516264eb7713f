/* The disks that the receiver asks for: flat files, and chains inside the folders it has named. */
#ifndef ESXI_AGENT_DISKS_H
#define ESXI_AGENT_DISKS_H

#include <stddef.h>

#include "protocol/vmdk/files.h"
#include "protocol/wire/messages.h"

struct err;
struct source;

/* Empty value: { 0 }. */
struct disks {
    char *volume_paths[VMDK_VOLUMES_MAX], *volume_aliases[VMDK_VOLUMES_MAX];
    size_t volume_count;
    struct vmdk_files *files; /* made with the first chain; no volume is added after that */
};

/* Chains may lie in this folder, too.  0, or -1: ERR_PEER (too late), ERR_LIMIT, ERR_SYSTEM. */
int disks_volume(struct disks *d, const char *path, const char *alias, struct err *e);

/* 0, or -1: ERR_PEER (nothing to be opened by anybody), the codes of files and chains. */
int disks_open(struct disks *d, const struct msg_disk_open *m, struct source **out,
               enum hole_knowledge *holes, struct err *e);

void disks_free(struct disks *d); /* when all sources are closed */

#endif
