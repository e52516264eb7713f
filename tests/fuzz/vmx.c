/* .vmx files. */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/host/vmx.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vmx *v;
    struct err e;

    fuzz_begin();
    if (vmx_read(&v, (const char *)data, size, &e) == 0) {
        const char *name = vmx_get(v, "displayname");

        FUZZ_CHECK(name == NULL || strlen(name) <= size);
        FUZZ_CHECK(vmx_encoding(v) != NULL);
        vmx_is_true(v, "scsi0:0.present");
        vmx_get(v, "");
        vmx_free(v);
    }
    fuzz_end();
    return 0;
}
