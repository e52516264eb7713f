/* The words by which a user names a generation (GEN), over a folder with three mirrors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "receiver/mirror/layout.h"
#include "receiver/mirror/manifest.h"
#include "receiver/mirror/mirror_read.h"
#include "tests/fuzz/fuzz.h"

static void set(char **field, const char *text)
{
    struct err e;

    FUZZ_CHECK(text_set(field, text, &e) == 0);
}

static void put_manifest(int store, const struct mirror_identity *i, uint64_t number, bool ok)
{
    struct manifest m = { .number = number, .keep = 5, .next_disk = 1 };
    char name[LAYOUT_NAME_ROOM];
    char **plain[] = { &m.kind,      &m.consistency,   &m.data_channel,
                       &m.read_path, &m.change_source, &m.snapshot };
    struct err e;

    m.time = 1795000000 + number * 3600;
    memcpy(m.mirror, i->mirror, sizeof m.mirror);
    memset(m.id, (int)number + i->mirror[0] * 16, sizeof m.id);
    for (size_t k = 0; k < sizeof plain / sizeof plain[0]; k++)
        set(plain[k], "x");
    set(&m.outcome, ok ? "ok" : "partial");
    set(&m.host_uuid, i->host_uuid);
    set(&m.host_name, "esx1");
    set(&m.vm_uuid, i->vm_uuid);
    set(&m.vmx_path, i->vmx_path);
    set(&m.vm_name, number == 1 ? "old" : i->vm_name);
    layout_name(name, "generation-%u", (unsigned)number);
    FUZZ_CHECK(manifest_save(&m, store, name, PUBLISH_REPLACE, &e) == 0);
    manifest_free(&m);
}

static void put_mirror(const char *name, uint8_t seed)
{
    struct mirror_identity i = { .made = 1 };
    char path[128];
    struct err e;
    int store;

    snprintf(path, sizeof path, "%s", name);
    FUZZ_CHECK(mkdirat(fuzz_folder(), path, 0700) == 0);
    snprintf(path, sizeof path, "%s/" LAYOUT_STORE, name);
    FUZZ_CHECK(mkdirat(fuzz_folder(), path, 0700) == 0);
    store = openat(fuzz_folder(), path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_CHECK(store >= 0);
    memset(i.mirror, seed, sizeof i.mirror);
    set(&i.host_uuid, "h");
    set(&i.vm_uuid, name);
    set(&i.vmx_path, "[ds] a/a.vmx");
    set(&i.vm_name, name);
    FUZZ_CHECK(identity_save(&i, store, &e) == 0);
    for (uint64_t n = 1; n <= 3; n++)
        put_manifest(store, &i, n, n != 3);
    identity_free(&i);
    close(store);
}

static const struct mirror_list *list(void)
{
    static struct mirror_list *l;
    struct mirror_env env = { 0 };
    struct err e;

    if (l != NULL)
        return l;
    put_mirror("web", 1);
    put_mirror("a@b", 2);
    put_mirror("2026", 3);
    FUZZ_CHECK(mirror_list_load(&l, fuzz_folder_path(), &env, &e) == 0);
    FUZZ_CHECK(mirror_list_count(l) == 9);
    return l;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct mirror_list *l = list();
    const struct generation_item *item = NULL;
    uint64_t partial = 77;
    struct err e;
    char *gen;

    fuzz_begin();
    gen = fuzz_text(data, size);
    if (mirror_find(l, gen, &item, &partial, &e) == 0) {
        FUZZ_CHECK(item != NULL && item->number >= 1 && item->number <= 3);
        FUZZ_CHECK(partial == 0 || partial > item->number);
    } else {
        FUZZ_CHECK(e.code == ERR_NOT_FOUND || e.code == ERR_USAGE);
    }
    generation_is_of_vm(mirror_list_at(l, 0), gen);
    free(gen);
    fuzz_end();
    return 0;
}
