#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "tests/unit/mirror/fixture.h"

static const char UUID_A[] = "60 00 C2 91 00 00 00 00-00 00 00 00 00 00 00 0a";
static const char UUID_B[] = "60 00 C2 92 00 00 00 00-00 00 00 00 00 00 00 0b";

static int setup(void **state)
{
    struct host *h = malloc(sizeof *h);

    host_new(h);
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    host_free(*state);
    free(*state);
    return 0;
}

/* A disk with some content, holes, and a short last block. */
static struct disk *some_disk(struct host *h, const char *slot, const char *uuid)
{
    struct disk *d = host_add(h, slot, uuid, 100 * BLOCK + 1536);

    for (unsigned b = 0; b < 40; b += 3)
        disk_set(d, b, b + 1);
    disk_set(d, 90, 7);
    disk_set(d, 100, 9);
    return d;
}

static void first_mirror_and_refreshes(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    struct walk w = { 0 };
    uint64_t number;
    struct stat s;
    struct err e;

    assert_ok(host_run(h, &w, &number, &e), &e);
    assert_int_equal(number, 1);
    assert_int_equal(w.sent, 16);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    assert_int_equal(stat(in_mirror(h, "web01", "disk-scsi0-0.raw"), &s), 0);
    assert_int_equal(s.st_mode & 07777, 0444);
    assert_true((uint64_t)s.st_blocks * 512 <= 16 * BLOCK + 8192);
    assert_string_equal(h->warnings, "");

    disk_set(d, 3, 0);   /* became zero */
    disk_set(d, 4, 11);  /* was a hole */
    disk_set(d, 6, 12);
    disk_set(d, 100, 13);
    w = (struct walk){ 0 };
    assert_ok(host_run(h, &w, &number, &e), &e);
    assert_int_equal(number, 2);
    assert_int_equal(w.sent, 3);
    assert_int_equal(w.zero, 1);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    assert_int_equal(access(in_mirror(h, "web01", "REFRESH-INTERRUPTED"), F_OK), -1);
    assert_int_equal(access(in_mirror(h, "web01", "config/web01.vmx"), F_OK), 0);

    w = (struct walk){ 0 };
    assert_ok(host_run(h, &w, &number, &e), &e);
    assert_int_equal(number, 3);
    assert_int_equal(w.sent + w.zero, 0);
    w = (struct walk){ .full = true };
    assert_ok(host_run(h, &w, &number, &e), &e);
    assert_int_equal(number, 4);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    assert_string_equal(h->warnings, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(first_mirror_and_refreshes, setup, teardown),
    };

    (void)UUID_B;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
