/* Is the host the one that it should be?  Asked before any credential is sent. */
#include "receiver/ssh/connection.h"

#include <stdio.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "receiver/ssh/known_hosts.h"

/* Types in order of preference, with the names of the algorithms that use keys of that type. */
static const struct {
    const char *type;
    const char *methods;
    bool legacy;
} key_types[] = {
    { "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", false },
    { "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384", false },
    { "ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521", false },
    { "ssh-ed25519", "ssh-ed25519", false },
    /* ssh-rsa (SHA-1) is the only form that libssh2 1.10 has. */
    { "ssh-rsa", "rsa-sha2-512,rsa-sha2-256,ssh-rsa", false },
    { "ssh-dss", "ssh-dss", true },
};

int host_key_lookup(struct known_host *h, const struct ssh_options *o, struct err *e)
{
    if (known_host_init(h, o->host, o->port, e) != 0)
        return -1;
    for (size_t i = 0; i < o->known_hosts_count; i++)
        if (known_host_read(h, o->known_hosts[i], e) != 0)
            return -1;
    if (o->own_known_hosts != NULL && known_host_read(h, o->own_known_hosts, e) != 0)
        return -1;
    if (h->bad_lines > 0)
        session_info(o, "%zu lines of the known-hosts files cannot be read and were skipped",
                     h->bad_lines);
    return 0;
}

static bool knows_type(const struct known_host *h, const char *type)
{
    for (size_t i = 0; i < h->count; i++)
        if (!h->keys[i].revoked && strcmp(h->keys[i].type, type) == 0)
            return true;
    return false;
}

void host_key_types(const struct known_host *h, bool legacy, char *out, size_t room)
{
    size_t at = 0;

    out[0] = 0;
    for (int known = 1; known >= 0; known--)
        for (size_t i = 0; i < ARRAY_COUNT(key_types); i++) {
            int n;

            if (knows_type(h, key_types[i].type) != (known != 0) ||
                (key_types[i].legacy && !legacy))
                continue;
            n = snprintf(out + at, room - at, "%s%s", at > 0 ? "," : "", key_types[i].methods);
            if (n < 0 || (size_t)n >= room - at) {
                out[at] = 0;
                return;
            }
            at += (size_t)n;
        }
}

static int changed(const struct known_host *h, const struct known_key *other, const char *type,
                   const char *fingerprint, struct err *e)
{
    char known[FINGERPRINT_TEXT_MAX] = "";

    known_hosts_fingerprint(other->blob, other->blob_bytes, known, sizeof known, NULL);
    return err_set(
        e, ERR_AUTH,
        "THE HOST KEY HAS CHANGED: %s shows %s %s, but %s line %zu holds %s %s; somebody may "
        "stand in between, or the host was installed anew. No credential was sent. If the new "
        "key is right, remove that line and accept the new one",
        h->name, type, fingerprint, other->file, other->line, other->type, known);
}

static int accept_key(const struct known_host *h, const struct ssh_options *o, const uint8_t *blob,
                      size_t blob_bytes, const char *type, const char *fingerprint, struct err *e)
{
    if (!o->accept_new_host_key)
        return err_set(
            e, ERR_AUTH,
            "the host key is unknown: %s %s; compare it with the one shown on the host's console "
            "and run again with --accept-new-host-key",
            type, fingerprint);
    if (o->own_known_hosts == NULL)
        return err_set(e, ERR_USAGE, "there is no file to remember the host key in");
    if (known_hosts_add(o->own_known_hosts, h, blob, blob_bytes, e) != 0)
        return err_add(e, "remembering the host key");
    if (o->accepted != NULL) {
        char line[4096];

        snprintf(line, sizeof line, "%s: new host key %s %s, remembered in %s", h->name, type,
                 fingerprint, o->own_known_hosts);
        o->accepted(o->context, line);
    }
    return 0;
}

int host_key_verify(struct connection *c, const struct known_host *h, const struct ssh_options *o,
                    struct err *e)
{
    size_t blob_bytes = 0;
    int kind = 0;
    const uint8_t *blob = (const uint8_t *)libssh2_session_hostkey(c->session, &blob_bytes, &kind);
    const struct known_key *which = NULL;
    char fingerprint[FINGERPRINT_TEXT_MAX];
    char type[40];

    if (blob == NULL || blob_bytes == 0)
        return err_set(e, ERR_AUTH, "the host showed no key");
    known_hosts_blob_type(blob, blob_bytes, type, sizeof type);
    if (type[0] == 0)
        return err_set(e, ERR_AUTH, "the host showed a key of an unknown kind");
    if (known_hosts_fingerprint(blob, blob_bytes, fingerprint, sizeof fingerprint, e) != 0)
        return -1;
    switch (known_host_check(h, blob, blob_bytes, &which)) {
    case KNOWN_HOST_MATCH:
        return 0;
    case KNOWN_HOST_UNKNOWN:
        return accept_key(h, o, blob, blob_bytes, type, fingerprint, e);
    case KNOWN_HOST_CHANGED:
        return changed(h, which, type, fingerprint, e);
    case KNOWN_HOST_REVOKED:
        return err_set(e, ERR_AUTH,
                       "THE HOST KEY IS REVOKED: %s %s by %s line %zu; no credential was sent",
                       type, fingerprint, which->file, which->line);
    }
    return err_set(e, ERR_AUTH, "the host key was not checked");
}
