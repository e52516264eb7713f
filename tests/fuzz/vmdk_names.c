/*
 * Names that descriptors hold, over a real folder: whatever they say, only its regular files are
 * opened, and their place is below the volume.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/vmdk/files_private.h"
#include "tests/fuzz/fuzz.h"

/* VOLUME/vm/a.vmdk and VOLUME/b.vmdk are files; all else leads out, or is none. */
static struct vmdk_files *make_files(const char **volume, bool by_path)
{
    static char path[128];
    static struct vmdk_files *files[2];
    struct vmdk_volume v = { path, "/vmfs/volumes/ds" };
    struct err e;

    if (path[0] == '\0') {
        int dir = fuzz_folder(), inside;

        snprintf(path, sizeof path, "%s/volume", fuzz_folder_path());
        FUZZ_CHECK(mkdirat(dir, "volume", 0700) == 0 && mkdirat(dir, "volume/vm", 0700) == 0);
        fuzz_file(dir, "outside", "x", 1);
        inside = openat(dir, "volume", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        FUZZ_CHECK(inside >= 0);
        fuzz_file(inside, "vm/a.vmdk", "a", 1);
        fuzz_file(inside, "b.vmdk", "b", 1);
        FUZZ_CHECK(symlinkat("../outside", inside, "l") == 0);
        FUZZ_CHECK(symlinkat("..", inside, "u") == 0);
        FUZZ_CHECK(symlinkat("a.vmdk", inside, "vm/l") == 0);
        FUZZ_CHECK(mkfifoat(inside, "f", 0600) == 0);
        close(inside);
    }
    *volume = path;
    if (files[by_path] == NULL) {
        FUZZ_CHECK(vmdk_local_files_new(&files[by_path], &v, 1, &e) == 0);
        if (by_path)
            local_files_forget_openat(files[by_path]);
    }
    return files[by_path];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pull p = { .at = data, .left = size };
    unsigned how = pull_u8(&p);
    enum vmdk_role role = (enum vmdk_role)(how % 3);
    struct vmdk_file found = { 0 };
    const char *volume;
    struct vmdk_files *files = make_files(&volume, (how & 4) != 0);
    char *name = fuzz_text(p.at, p.left), from[160];
    struct err e;

    fuzz_begin();
    snprintf(from, sizeof from, "%s/vm/d.vmdk", volume);
    if (files->open(files, role == VMDK_TIP ? NULL : from, name, role, &found, &e) == 0) {
        size_t bytes = strlen(volume);

        FUZZ_CHECK(strncmp(found.place, volume, bytes) == 0);
        FUZZ_CHECK(strcmp(found.place + bytes, "/vm/a.vmdk") == 0 ||
                   strcmp(found.place + bytes, "/b.vmdk") == 0);
        FUZZ_CHECK(role != VMDK_EXTENT || vmdk_name_is_bare(name));
        FUZZ_CHECK(files->unchanged(files, &found, &e) == 0);
        vmdk_file_close(&found);
    } else {
        FUZZ_CHECK(e.text[0] != '\0');
    }
    free(name);
    fuzz_end();
    return 0;
}
