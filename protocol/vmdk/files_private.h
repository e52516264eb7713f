/* For tests of what only hosts need. */
#ifndef PROTOCOL_VMDK_FILES_PRIVATE_H
#define PROTOCOL_VMDK_FILES_PRIVATE_H

#include "protocol/vmdk/files.h"

/* Open files from now on as where the system has answered that it knows no openat. */
void local_files_forget_openat(struct vmdk_files *f);

#endif
