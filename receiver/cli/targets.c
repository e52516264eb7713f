#include "receiver/cli/targets.h"

#include <stdio.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/utf8.h"

enum { SSH_PORT = 22, SHOWN_BYTES = 120 };

static int refuse(struct err *e, const char *text, const char *why)
{
    char shown[SHOWN_BYTES];

    utf8_show(shown, sizeof shown, text);
    return err_set(e, ERR_USAGE, "\"%s\": %s", shown, why);
}

/* Only printable ASCII without blanks can be a host, user or address. */
static bool is_plain(const char *text)
{
    for (; *text != 0; text++) {
        if (*text <= ' ' || *text > '~')
            return false;
    }
    return true;
}

static int port_parse(uint16_t *out, const char *digits, const char *text, struct err *e)
{
    uint64_t port;

    if (number_parse(&port, digits, 1, 65535, NULL) != 0)
        return refuse(e, text, "the port is not a number from 1 to 65535");
    *out = (uint16_t)port;
    return 0;
}

/*
 * name[:port] with brackets round an IPv6 address; a text with more than one colon and no bracket
 * is a bare IPv6 address.  *port stays untouched without one.
 */
static int name_and_port(const char *at, const char *text, char *name, size_t room, uint16_t *port,
                         struct err *e)
{
    const char *colon = strchr(at, ':');
    const char *end;
    size_t count;

    if (*at == '[') {
        at++;
        end = strchr(at, ']');
        if (end == NULL || (end[1] != 0 && end[1] != ':') ||
            memchr(at, ':', (size_t)(end - at)) == NULL)
            return refuse(e, text, "brackets go round an IPv6 address: [fe80::1]:22");
        colon = end[1] == ':' ? end + 1 : NULL;
    } else if (colon != NULL && strchr(colon + 1, ':') != NULL) {
        colon = NULL;
        end = at + strlen(at);
    } else {
        end = colon != NULL ? colon : at + strlen(at);
    }
    count = (size_t)(end - at);
    if (count >= room)
        return refuse(e, text, "the name is too long");
    memcpy(name, at, count);
    name[count] = 0;
    return colon != NULL ? port_parse(port, colon + 1, text, e) : 0;
}

int host_target_parse(struct host_target *out, const char *text, struct err *e)
{
    struct host_target t = { .user = "root", .port = SSH_PORT };
    const char *at = strrchr(text, '@');

    if (!is_plain(text))
        return refuse(e, text, "a host is [user@]name[:port], without blanks");
    if (at != NULL) {
        size_t count = (size_t)(at - text);

        if (count == 0 || count >= sizeof t.user)
            return refuse(e, text, "the user's name is empty or too long");
        memcpy(t.user, text, count);
        t.user[count] = 0;
    }
    at = at != NULL ? at + 1 : text;
    if (name_and_port(at, text, t.name, sizeof t.name, &t.port, e) != 0)
        return -1;
    if (t.name[0] == 0 || t.name[0] == '-' || strchr(t.name, '/') != NULL)
        return refuse(e, text, "this is no name of a host");
    *out = t;
    return 0;
}

int data_address_parse(struct data_address *out, const char *text, struct err *e)
{
    struct data_address a = { .port = 0 };

    if (!is_plain(text) || *text == 0)
        return refuse(e, text, "an address is ADDR[:PORT]");
    if (*text == ':' && strchr(text + 1, ':') == NULL) {
        if (port_parse(&a.port, text + 1, text, e) != 0)
            return -1;
    } else if (name_and_port(text, text, a.address, sizeof a.address, &a.port, e) != 0) {
        return -1;
    }
    *out = a;
    return 0;
}

bool is_datastore_place(const char *text)
{
    return text[0] == '[';
}

int datastore_place_check(const char *text, struct err *e)
{
    const char *end = strchr(text, ']');
    const char *part;

    if (text[0] != '[' || end == NULL || end == text + 1 || (end[1] != 0 && end[1] != ' '))
        return refuse(e, text, "a place on a datastore is written '[datastore1] folder'");
    part = end + 1 + (end[1] == ' ');
    while (*part != 0) {
        size_t count = strcspn(part, "/");

        if (count == 0 || (count == 1 && part[0] == '.') ||
            (count == 2 && part[0] == '.' && part[1] == '.'))
            return refuse(e, text, "the folder has an empty part, \".\" or \"..\"");
        part += count + (part[count] == '/');
    }
    return 0;
}

int disk_slot_check(const char *text, struct err *e)
{
    static const char *const buses[] = { "scsi", "sata", "ide", "nvme" };

    for (size_t i = 0; i < ARRAY_COUNT(buses); i++) {
        size_t count = strlen(buses[i]);
        char bus[8];
        const char *colon;
        uint64_t n;

        if (strncmp(text, buses[i], count) != 0)
            continue;
        text += count;
        colon = strchr(text, ':');
        if (colon == NULL || colon == text || (size_t)(colon - text) >= sizeof bus)
            break;
        memcpy(bus, text, (size_t)(colon - text));
        bus[colon - text] = 0;
        if (number_parse(&n, bus, 0, 99, NULL) == 0 &&
            number_parse(&n, colon + 1, 0, 255, NULL) == 0)
            return 0;
        break;
    }
    return refuse(e, text, "a disk is named by its slot, like scsi0:1, sata0:0 or nvme0:2");
}
