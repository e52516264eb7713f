/*
 * Datastores as hosts list them (the first byte: esxcli's table or get.summary's dump), and the
 * paths that files name, which must never lead out of a datastore.
 */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/host/datastores.h"
#include "tests/fuzz/fuzz.h"

static void check_path(const char *path)
{
    FUZZ_CHECK(strlen(path) < DATASTORE_PATH_MAX && strncmp(path, "/vmfs/volumes/", 14) == 0);
    FUZZ_CHECK(strstr(path, "/../") == NULL && strstr(path, "/./") == NULL);
    FUZZ_CHECK(strlen(path) < 3 || strcmp(path + strlen(path) - 3, "/..") != 0);
}

static void paths(struct pull *p)
{
    static struct datastore stores[] = {
        { .name = "ds1", .uuid = "5e0f-1", .type = "VMFS-6", .path = "/vmfs/volumes/5e0f-1" },
        { .name = "a ]b[", .uuid = "5e0f-2", .type = "NFS", .path = "/vmfs/volumes/5e0f-2" },
    };
    const struct datastore_list list = { stores, 2 };
    char out[DATASTORE_PATH_MAX], shown[DATASTORE_PATH_MAX];
    char *path = fuzz_line(p), *name = fuzz_line(p);
    struct err e;

    if (datastore_absolute(&list, path, out, &e) == 0) {
        check_path(out);
        if (datastore_shown(&list, out, shown, &e) == 0) {
            FUZZ_CHECK(datastore_absolute(&list, shown, out, &e) == 0);
            check_path(out);
        }
    }
    datastore_of(&list, path);
    if (datastore_resolve(&list, "/vmfs/volumes/5e0f-1/vm/vm.vmdk", name, out, &e) == 0)
        check_path(out);
    free(path);
    free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct datastore_list list;
    struct pull p = { .at = data + 1, .left = size - 1 };
    struct err e;
    int rc = -1;

    if (size == 0)
        return 0;
    fuzz_begin();
    if (data[0] % 3 == 0) {
        char *text = fuzz_text(p.at, p.left);

        rc = datastores_read_esxcli(text, &list, &e);
        free(text);
    } else if (data[0] % 3 == 1) {
        uint8_t *exact = fuzz_copy(p.at, p.left);

        rc = datastores_read_summary((const char *)exact, p.left, &list, &e);
        free(exact);
    } else {
        paths(&p);
    }
    if (rc == 0) {
        FUZZ_CHECK(list.count <= DATASTORE_COUNT_MAX);
        for (size_t i = 0; i < list.count; i++)
            FUZZ_CHECK(list.items[i].free_bytes <= list.items[i].size_bytes &&
                       list.items[i].name != NULL && list.items[i].path != NULL);
        datastore_list_free(&list);
    }
    fuzz_end();
    return 0;
}
