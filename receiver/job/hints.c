#include "receiver/job/hints.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "protocol/base/err.h"
#include "receiver/base/names.h"
#include "receiver/base/publish.h"

enum { HINT_NAME_BYTES = NAME_SAFE_ROOM + 32 };

/* The UUID is what the host says: it becomes a name like any other from outside. */
static void file_name(const char *host_uuid, char out[HINT_NAME_BYTES])
{
    char safe[NAME_SAFE_ROOM];

    name_made_safe(host_uuid, safe);
    snprintf(out, HINT_NAME_BYTES, "no-hole-maps-%s", safe);
}

bool hints_maps_are_off(int state, const char *host_uuid)
{
    char name[HINT_NAME_BYTES];
    struct stat st;

    file_name(host_uuid, name);
    return fstatat(state, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int hints_turn_maps_off(int state, const char *host_uuid, struct err *e)
{
    static const char text[] = "A map of this host called a range empty that held data.\n"
                               "Remove this file to trust its maps again.\n";
    char name[HINT_NAME_BYTES];

    file_name(host_uuid, name);
    return publish_bytes(state, name, text, sizeof text - 1, 0600, PUBLISH_REPLACE, e);
}
