/* The agent: copied to a host, started through SSH, gone when its control input closes. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>
#include <zstd.h>

#include "esxi-agent/agent.h"
#include "protocol/base/err.h"
#include "protocol/wire/aead.h"
#include "protocol/wire/handshake.h"
#include "version.h"

/* One line with what this build holds, so that a wrong one on a host can be told from its output.
 */
static int print_version(void)
{
    printf("vmferry-agent %s protocol %d zstd %s libsodium %s ciphers 0x%02x\n", VMFERRY_VERSION,
           WIRE_VERSION, ZSTD_versionString(), sodium_version_string(),
           (unsigned)aead_sodium_offer());
    return fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct err e = { 0 };

    signal(SIGPIPE, SIG_IGN);
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return print_version();
    if (argc != 2 || strcmp(argv[1], "--serve") != 0) {
        fprintf(stderr,
                "vmferry-agent is started by vmferry, not by hand; --version tells what it is\n");
        return 2;
    }
    if (agent_run(&e) == 0)
        return 0;
    fprintf(stderr, "vmferry-agent: %s\n", e.text);
    return 1;
}
