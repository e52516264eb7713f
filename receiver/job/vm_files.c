#include "receiver/job/vm_files.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/host/datastores.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/ssh/transport.h"

enum { FILE_BYTES_MAX = 16 << 20, COMPLAINT_MAX = 4096 };

/* The raw bytes of one file (nvram is binary), by cat. */
static int read_file(struct host *h, const char *path, struct bytes *out, struct err *e)
{
    struct bytes command = { .ceiling = 8192 }, complaint = { .ceiling = COMPLAINT_MAX };
    struct remote_exit ended = { 0 };
    const char *line, *why;
    int rc = -1;

    if (shell_command(&command, e, "cat", path, (char *)NULL) != 0 ||
        (line = bytes_text(&command, e)) == NULL ||
        transport_run(h->transport, line, NULL, 0, HOST_COMMAND_MS, out, &complaint, &ended, e) !=
            0)
        goto out;
    if (ended.signalled || ended.status != 0) {
        why = bytes_text(&complaint, e);
        err_set(e, ERR_SOURCE, "%.200s", why != NULL ? why : "cat failed");
        goto out;
    }
    rc = 0;
out:
    bytes_free(&command);
    bytes_free(&complaint);
    return rc;
}

static int keep(struct vm_config *c, const char *path, struct bytes *content, struct err *e)
{
    const char *slash = strrchr(path, '/');
    struct vm_config_file *f = &c->items[c->count];

    f->name = strdup(slash != NULL ? slash + 1 : path);
    if (f->name == NULL)
        return err_sys(e, "getting memory for a file");
    f->data = content->data;
    f->bytes = content->count;
    *content = (struct bytes){ 0 };
    c->count++;
    return 0;
}

int vm_config_read(struct host *h, const struct vm *vm, const struct datastore_list *stores,
                   struct vm_config *out, struct err *e)
{
    char path[DATASTORE_PATH_MAX];
    struct vm_files files = { 0 };
    bool vmx = false;
    int rc = -1;

    *out = (struct vm_config){ 0 };
    if (host_vm_files(h, vm, &files, e) != 0)
        return -1;
    out->items = calloc(files.count > 0 ? files.count : 1, sizeof *out->items);
    if (out->items == NULL) {
        err_sys(e, "getting memory for files");
        goto out;
    }
    for (size_t i = 0; i < files.count; i++) {
        struct bytes content = { .ceiling = FILE_BYTES_MAX };
        struct err why;

        if (datastore_absolute(stores, files.items[i].path, path, &why) == 0 &&
            read_file(h, path, &content, &why) == 0) {
            if (keep(out, path, &content, e) != 0) {
                bytes_free(&content);
                goto out;
            }
            vmx = vmx || files.items[i].kind == VM_FILE_VMX;
            continue;
        }
        bytes_free(&content);
        if (why.code == ERR_NETWORK || files.items[i].kind == VM_FILE_VMX) {
            *e = why;
            err_add(e, "%s", files.items[i].path);
            goto out;
        }
        log_info("%s: %s is left out: %s", vm->name, files.items[i].path, why.text);
    }
    if (!vmx) {
        err_set(e, ERR_SOURCE, "its configuration file is not to be found");
        goto out;
    }
    rc = 0;
out:
    vm_files_free(&files);
    return rc;
}

void vm_config_free(struct vm_config *c)
{
    for (size_t i = 0; i < c->count; i++) {
        free(c->items[i].name);
        free(c->items[i].data);
    }
    free(c->items);
    *c = (struct vm_config){ 0 };
}
