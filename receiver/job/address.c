#include "receiver/job/address.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "protocol/base/err.h"
#include "receiver/job/run.h"
#include "receiver/ssh/transport.h"

enum { NUMERIC_BYTES = 64 };

static int set(char **field, const char *text, struct err *e)
{
    free(*field);
    *field = strdup(text);
    return *field != NULL ? 0 : err_sys(e, "getting memory for an address");
}

static int resolve(const char *name, char **out, struct err *e)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    char numeric[NUMERIC_BYTES];
    int rc = getaddrinfo(name, NULL, &hints, &list);

    if (rc != 0)
        return err_set(e, ERR_USAGE, "%s: %s", name, gai_strerror(rc));
    rc = getnameinfo(list->ai_addr, list->ai_addrlen, numeric, sizeof numeric, NULL, 0,
                     NI_NUMERICHOST);
    freeaddrinfo(list);
    if (rc != 0)
        return err_set(e, ERR_USAGE, "%s: %s", name, gai_strerror(rc));
    return set(out, numeric, e);
}

int address_for_data(struct transport *t, const struct data_options *data, char **listen,
                     char **dial, struct err *e)
{
    char local[NUMERIC_BYTES];

    free(*dial);
    *dial = NULL;
    if (data->listen.address[0] != 0) {
        if (resolve(data->listen.address, listen, e) != 0)
            return -1;
    } else if (t->ops->local_address(t, local, sizeof local, e) != 0 ||
               set(listen, local, e) != 0) {
        return -1;
    }
    if (data->connect.address[0] == 0)
        return 0;
    return resolve(data->connect.address, dial, e);
}
