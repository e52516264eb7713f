#include "receiver/job/hints.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "protocol/base/err.h"
#include "receiver/base/names.h"
#include "receiver/base/publish.h"

enum { HINT_NAME_BYTES = NAME_SAFE_ROOM + 32 };

static const struct {
    const char *name, *text;
} kinds[] = {
    [HINT_MAPS] = { "no-hole-maps", "A map of this host called a range empty that held data.\n"
                                    "Remove this file to trust its maps again.\n" },
    [HINT_CHANGES] = { "no-change-hints",
                       "Something had changed that a kept snapshot's delta called unchanged.\n"
                       "Remove this file to trust this host's deltas again.\n" },
};

/* The UUID is what the host says: it becomes a name like any other from outside. */
static void file_name(enum hint_kind kind, const char *host_uuid, char out[HINT_NAME_BYTES])
{
    char safe[NAME_SAFE_ROOM];

    name_made_safe(host_uuid, safe);
    snprintf(out, HINT_NAME_BYTES, "%s-%s", kinds[kind].name, safe);
}

bool hints_are_off(int state, enum hint_kind kind, const char *host_uuid)
{
    char name[HINT_NAME_BYTES];
    struct stat st;

    file_name(kind, host_uuid, name);
    return fstatat(state, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int hints_turn_off(int state, enum hint_kind kind, const char *host_uuid, struct err *e)
{
    const char *text = kinds[kind].text;
    char name[HINT_NAME_BYTES];

    file_name(kind, host_uuid, name);
    return publish_bytes(state, name, text, strlen(text), 0600, PUBLISH_REPLACE, e);
}
