/* What vim-cmd says about VMs: the first byte chooses getallvms, get.summary or device.getdevices.
 */
#include <stdlib.h>

#include "protocol/base/err.h"
#include "receiver/host/inventory.h"
#include "tests/fuzz/fuzz.h"

static void ids(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    struct vm_problem *problems;
    unsigned *ids;
    size_t count, bad;
    struct err e;

    if (inventory_read_ids(text, &ids, &count, &problems, &bad, &e) == 0) {
        FUZZ_CHECK(count <= VM_COUNT_MAX);
        for (size_t i = 0; i < count; i++)
            for (size_t k = 0; k < i && count < 64; k++)
                FUZZ_CHECK(ids[i] != ids[k]);
        free(ids);
        free(problems);
    }
    free(text);
}

static void summary(const uint8_t *data, size_t size)
{
    struct vm vm;
    struct err e;

    if (inventory_read_summary((const char *)data, size, 7, &vm, &e) != 0)
        return;
    FUZZ_CHECK(vm.name != NULL && vm.vmx != NULL && vm.vmid == 7);
    vm_free(&vm);
}

static void disks(const uint8_t *data, size_t size)
{
    struct vm_disks d;
    struct err e;

    if (inventory_read_disks((const char *)data, size, &d, &e) != 0)
        return;
    FUZZ_CHECK(d.count <= VM_DISKS_MAX);
    for (size_t i = 0; i < d.count; i++)
        FUZZ_CHECK(d.items[i].slot[0] != '\0' && d.items[i].parent_count <= VM_CHAIN_MAX);
    vm_disks_free(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const read[])(const uint8_t *, size_t) = { ids, summary, disks };
    uint8_t *exact;

    if (size == 0)
        return 0;
    fuzz_begin();
    exact = fuzz_copy(data + 1, size - 1);
    read[data[0] % 3](exact, size - 1);
    free(exact);
    fuzz_end();
    return 0;
}
