/* known_hosts files: the first line of the input is the host, the second a key in hex, the rest a
 * file. */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/ssh/known_hosts.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct known_host h;
    struct pull p = { .at = data, .left = size };
    char type[40], print[FINGERPRINT_TEXT_MAX];
    const struct known_key *which;
    uint16_t port;
    char *host, *blob, *file;
    struct err e;

    fuzz_begin();
    port = (uint16_t)(22 + (pull_u8(&p) & 1));
    host = fuzz_line(&p);
    blob = fuzz_line(&p);
    file = (char *)fuzz_copy(p.at, p.left);
    memset(&h, 0, sizeof h);
    if (known_host_init(&h, host, port, &e) == 0) {
        known_host_parse(&h, "file", file, p.left, &e);
        FUZZ_CHECK(h.count <= KNOWN_HOSTS_KEYS_MAX);
        known_host_check(&h, (const uint8_t *)blob, strlen(blob), &which);
        for (size_t i = 0; i < h.count; i++) {
            const struct known_key *k = &h.keys[i];
            enum known_verdict v = known_host_check(&h, k->blob, k->blob_bytes, &which);

            FUZZ_CHECK(k->blob_bytes <= KNOWN_HOSTS_KEY_MAX);
            FUZZ_CHECK(v == (k->revoked ? KNOWN_HOST_REVOKED : v));
            FUZZ_CHECK(v == KNOWN_HOST_MATCH || v == KNOWN_HOST_REVOKED);
            known_hosts_fingerprint(k->blob, k->blob_bytes, print, sizeof print, &e);
        }
        known_host_free(&h);
    }
    known_hosts_blob_type((const uint8_t *)blob, strlen(blob), type, sizeof type);
    free(host);
    free(blob);
    free(file);
    fuzz_end();
    return 0;
}
