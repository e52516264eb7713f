#include "receiver/image/local_chain.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "protocol/base/err.h"
#include "protocol/vmdk/chain.h"
#include "protocol/vmdk/files.h"
#include "receiver/base/codec_zlib.h"

static const char DATASTORES[] = "/vmfs/volumes/";

/* The volumes while they are put together; 0 is the tip's own folder. */
struct volumes {
    struct vmdk_volume list[1 + LOCAL_VOLUMES_MAX];
    char *owned[2 * (1 + LOCAL_VOLUMES_MAX)];
    size_t count, owned_count;
};

static void volumes_free(struct volumes *v)
{
    for (size_t i = 0; i < v->owned_count; i++)
        free(v->owned[i]);
}

/* The folder with all links resolved: what the user names is trusted, what files name is not. */
static int add_folder(struct volumes *v, const char *folder, const char *alias, struct err *e)
{
    char *path = realpath(folder, NULL);
    struct stat s;

    if (path == NULL)
        return err_sys(e, "%s", folder);
    v->owned[v->owned_count++] = path;
    if (stat(path, &s) != 0)
        return err_sys(e, "%s", folder);
    if (!S_ISDIR(s.st_mode))
        return err_set(e, ERR_USAGE, "%s is no folder", folder);
    v->list[v->count++] = (struct vmdk_volume){ .path = path, .alias = alias };
    return 0;
}

static int add_volume(struct volumes *v, const char *text, struct err *e)
{
    const char *equals = strchr(text, '=');
    char *alias = NULL;
    size_t count;

    /* Only this form has a name in front, so that a folder may have a '=' in its own. */
    if (equals != NULL && strncmp(text, DATASTORES, sizeof DATASTORES - 1) == 0) {
        count = (size_t)(equals - text);
        while (count > sizeof DATASTORES && text[count - 1] == '/')
            count--;
        alias = strndup(text, count);
        if (alias == NULL)
            return err_sys(e, "getting memory");
        v->owned[v->owned_count++] = alias;
        text = equals + 1;
    }
    if (add_folder(v, text, alias, e) != 0) {
        /* A wrong option is a mistake of the command line, whatever the system calls it. */
        e->code = e->code == ERR_SYSTEM ? ERR_USAGE : e->code;
        return err_add(e, "--volume");
    }
    return 0;
}

/* The tip's folder becomes the first volume; *tip its absolute name. */
static int find_tip(struct volumes *v, const char *file, char **tip, struct err *e)
{
    char *folder = strdup(file), *name = strdup(file);
    const char *base;
    int rc = -1;

    if (folder == NULL || name == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    base = basename(name);
    if (file[0] == 0 || file[strlen(file) - 1] == '/' || !vmdk_name_is_bare(base)) {
        err_set(e, ERR_USAGE, "\"%s\" names no file", file);
        goto out;
    }
    if (add_folder(v, dirname(folder), NULL, e) != 0)
        goto out;
    if (asprintf(tip, "%s/%s", strcmp(v->list[0].path, "/") == 0 ? "" : v->list[0].path, base) <
        0) {
        *tip = NULL;
        err_sys(e, "getting memory");
        goto out;
    }
    rc = 0;

out:
    free(folder);
    free(name);
    return rc;
}

int local_chain_open(struct local_chain *out, const char *file, const char *const *volumes,
                     size_t volume_count, unsigned flags, struct err *e)
{
    struct volumes v = { .count = 0 };
    struct local_chain l = { .files = NULL };
    struct vmdk_config config = { .codec = &codec_zlib, .flags = flags };
    int rc = -1;

    *out = (struct local_chain){ .files = NULL };
    if (volume_count > LOCAL_VOLUMES_MAX)
        return err_set(e, ERR_USAGE, "more than %d volumes", LOCAL_VOLUMES_MAX);
    if (find_tip(&v, file, &l.tip, e) != 0)
        goto out;
    for (size_t i = 0; i < volume_count; i++) {
        if (add_volume(&v, volumes[i], e) != 0)
            goto out;
    }
    if (vmdk_local_files_new(&l.files, v.list, v.count, e) != 0)
        goto out;
    config.files = l.files;
    if (vmdk_chain_open(&l.chain, &config, l.tip, e) != 0)
        goto out;
    *out = l;
    l = (struct local_chain){ .files = NULL };
    rc = 0;

out:
    local_chain_close(&l);
    volumes_free(&v);
    return rc;
}

void local_chain_close(struct local_chain *l)
{
    vmdk_chain_close(l->chain);
    vmdk_files_close(l->files);
    free(l->tip);
    *l = (struct local_chain){ .files = NULL };
}
