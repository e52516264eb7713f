#include "protocol/wire/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>

#include <sodium.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"

static int random_from_device(void *out, size_t count, struct err *e)
{
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    int rc = -1;

    if (fd < 0) {
        err_sys(e, "opening /dev/urandom");
        goto out;
    }
    if (io_read_all(fd, out, count, e) != 0) {
        err_add(e, "reading /dev/urandom");
        goto out;
    }
    rc = 0;

out:
    io_drop(&fd);
    if (rc != 0 && e != NULL)
        e->code = ERR_SYSTEM; /* whatever the reason: this is no missing file of the user's */
    return rc;
}

int crypto_random(void *out, size_t count, struct err *e)
{
    uint8_t *at = out;

    while (count > 0) {
        ssize_t got = getrandom(at, count, 0);

        if (got < 0 && errno == EINTR)
            continue;
        /* Old kernels and VMkernels lack the call; some answer EPERM instead of ENOSYS. */
        if (got <= 0)
            return random_from_device(at, count, e);
        at += got;
        count -= (size_t)got;
    }
    return 0;
}

static const char *sodium_source_name(void)
{
    return "vmferry";
}

static void sodium_source_fill(void *const out, const size_t count)
{
    /* It worked in crypto_start: this machine is broken, and weak keys are worse than an end. */
    if (crypto_random(out, count, NULL) != 0)
        abort();
}

static uint32_t sodium_source_u32(void)
{
    uint32_t v;

    sodium_source_fill(&v, sizeof v);
    return v;
}

int crypto_start(struct err *e)
{
    static randombytes_implementation source = {
        .implementation_name = sodium_source_name,
        .random = sodium_source_u32,
        .buf = sodium_source_fill,
    };
    static atomic_bool started; /* by any thread; two at once do the same thing twice */
    uint8_t probe;

    if (atomic_load(&started))
        return 0;
    if (crypto_random(&probe, sizeof probe, e) != 0)
        return err_add(e, "no source of random bytes");
    randombytes_set_implementation(&source);
    if (sodium_init() < 0)
        return err_set(e, ERR_SYSTEM, "libsodium does not start");
    atomic_store(&started, true);
    return 0;
}

void crypto_wipe(void *secret, size_t count)
{
    sodium_memzero(secret, count);
}
