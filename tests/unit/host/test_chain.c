/* The chain below a snapshot: what is read, skipped or refused, and what changes under the reader.
 */
#include "tests/unit/cmocka_all.h"

#include <string.h>

#include "protocol/base/err.h"
#include "receiver/host/chain.h"
#include "tests/unit/host/fixture.h"

static void plan(struct fixture *x, struct chain_plan *p)
{
    struct err e;

    vm_free(&x->vm);
    assert_int_equal(host_vm(&x->f.host, 7, &x->vm, &e), 0);
    assert_int_equal(host_vm_details(&x->f.host, &x->vm, &e), 0);
    if (chain_plan_read(&x->f.host, &x->vm, NULL, &x->stores, p, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(p->count, 1);
}

static void forms_have_their_outcomes(void **state)
{
    static const struct {
        const char *power, *mode, *backing, *type;
        enum chain_outcome outcome;
    } cases[] = {
        { "poweredOn", "persistent", "FlatVer2", "vmfs", CHAIN_READ },
        { "poweredOff", "persistent", "FlatVer2", "vmfs", CHAIN_READ },
        { "suspended", "persistent", "FlatVer2", "vmfs", CHAIN_READ_DIRECT },
        { "poweredOn", "independent_persistent", "FlatVer2", "vmfs", CHAIN_SKIPPED },
        { "poweredOff", "independent_nonpersistent", "FlatVer2", "vmfs", CHAIN_READ_DIRECT },
        { "poweredOn", "persistent", "RawDiskMappingVer1", "vmfs", CHAIN_SKIPPED },
        { "poweredOn", "persistent", "LocalPMem", "vmfs", CHAIN_REFUSED },
        { "poweredOn", "persistent", "FlatVer2", "vsanSparse", CHAIN_REFUSED },
        { "poweredOn", "persistent", "FlatVer2", "monolithicFlat", CHAIN_REFUSED },
    };
    struct fixture *x = *state;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct chain_plan p;

        if (i == 5)
            continue; /* needs a physical mode; below */
        x->f.power = cases[i].power;
        x->f.disk_mode = cases[i].mode;
        x->f.disk_backing = cases[i].backing;
        x->f.base_type = cases[i].type;
        plan(x, &p);
        if (p.items[0].outcome != cases[i].outcome)
            fail_msg("case %zu: %d: %s", i, p.items[0].outcome, p.items[0].reason.text);
        chain_plan_free(&p);
    }
}

static void a_device_that_forbids_snapshots_needs_the_vm_off(void **state)
{
    struct fixture *x = *state;
    enum chain_way way;
    char why[300];
    struct err e;

    x->f.disk_backing = "RawDiskMappingVer1"; /* without a mode it counts as physical */
    assert_int_equal(host_vm_details(&x->f.host, &x->vm, &e), 0);
    assert_int_equal(x->vm.disks.items[0].kind, VM_DISK_RDM_PHYSICAL);
    assert_int_equal(chain_way_of(&x->vm, &way, why, sizeof why, &e), -1);
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    x->vm.power = VM_OFF;
    assert_int_equal(chain_way_of(&x->vm, &way, why, sizeof why, &e), 0);
    assert_int_equal(way, CHAIN_DIRECTLY);
    assert_true(why[0] != '\0');
}

static void filters_in_a_descriptor_are_a_warning(void **state)
{
    struct fixture *x = *state;
    struct chain_plan p;

    plan(x, &p);
    assert_string_equal(p.items[0].reason.text, "");
    chain_plan_free(&p);
    x->f.base_ddb = "ddb.iofilters = \"maker_cache\"\n";
    plan(x, &p);
    assert_int_equal(p.items[0].outcome, CHAIN_READ);
    assert_non_null(strstr(p.items[0].reason.text, "I/O filters (maker_cache)"));
    chain_plan_free(&p);
}

static void changes_while_reading_are_seen(void **state)
{
    struct fixture *x = *state;
    struct chain_plan p;
    struct snapshot *s;
    struct err e;

    assert_int_equal(fixture_take(x, &s, &e), 0);
    assert_int_equal(chain_plan_read(&x->f.host, &x->vm, s, &x->stores, &p, &e), 0);
    x->f.base_cid += 16; /* both links change together, so they still fit each other */
    assert_int_equal(chain_recheck(&x->f.host, &x->vm, s, &x->stores, &p, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    x->f.base_cid -= 16;
    assert_int_equal(chain_recheck(&x->f.host, &x->vm, s, &x->stores, &p, &e), 0);
    x->f.snapshots[0].id = 9;
    assert_int_equal(chain_recheck(&x->f.host, &x->vm, s, &x->stores, &p, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    x->f.snapshots[0].id = s->id;
    fake_host_add_snapshot(&x->f, "somebody's on top", 0);
    assert_int_equal(chain_recheck(&x->f.host, &x->vm, s, &x->stores, &p, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    chain_plan_free(&p);
    snapshot_free(s);
}

static void a_vm_switched_on_under_a_direct_read_is_seen(void **state)
{
    struct fixture *x = *state;
    struct chain_plan p;
    struct err e;

    x->f.power = "suspended";
    plan(x, &p);
    assert_int_equal(chain_recheck(&x->f.host, &x->vm, NULL, &x->stores, &p, &e), 0);
    x->f.power = "poweredOn";
    assert_int_equal(chain_recheck(&x->f.host, &x->vm, NULL, &x->stores, &p, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    chain_plan_free(&p);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(forms_have_their_outcomes),
        T(a_device_that_forbids_snapshots_needs_the_vm_off),
        T(filters_in_a_descriptor_are_a_warning),
        T(changes_while_reading_are_seen),
        T(a_vm_switched_on_under_a_direct_read_is_seen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
