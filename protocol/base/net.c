#include "protocol/base/net.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "protocol/base/err.h"

int net_address(const char *address, uint16_t port, struct sockaddr_storage *out, socklen_t *bytes,
                struct err *e)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *bytes = sizeof *v4;
        return 0;
    }
    if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *bytes = sizeof *v6;
        return 0;
    }
    *bytes = 0;
    return err_set(e, ERR_USAGE, "%s is no numeric address", address);
}
