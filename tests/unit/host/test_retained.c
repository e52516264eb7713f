/* Kept snapshots: their record, what they cost, and how long the reaper lets them be. */
#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/host/chain.h"
#include "receiver/host/datastores.h"
#include "receiver/host/inventory.h"
#include "receiver/host/reaper.h"
#include "receiver/host/retained.h"
#include "receiver/host/retained_room.h"
#include "receiver/host/snapshot.h"
#include "tests/unit/host/fixture.h"

#define TOKEN "00112233445566778899aabbccddeeff"
#define STORE "/vmfs/volumes/5f000000-00000001-0001-000000000001"
#define EPOCH INT64_C(1763600000)

static unsigned long delta_kib; /* of each delta, for the fake's own command */

/* `du -k` of the deltas: one of the two names is there. */
static bool answer_du(struct fake_host *f, char **words, size_t count, struct fake_reply *r)
{
    (void)f;
    if (count < 2 || strcmp(words[0], "du") != 0)
        return false;
    for (size_t i = 2; i < count; i++) {
        if (strstr(words[i], "-sesparse.vmdk") != NULL)
            fake_print(r, "%lu\t%s\n", delta_kib, words[i]);
        else
            r->status = 1;
    }
    return true;
}

static int set_up(void **state)
{
    struct fixture *x;

    if (fixture_set_up(state) != 0)
        return -1;
    x = *state;
    x->f.extra = answer_du;
    delta_kib = 100;
    return 0;
}

static void add_disk(struct retained *r, const char *slot, const char *stem, const char *store)
{
    struct retained_disk *d = retained_add_disk(r, NULL);
    char path[300];

    assert_non_null(d);
    snprintf(d->slot, sizeof d->slot, "%s", slot);
    strcpy(d->uuid, "60 00 C2 90");
    d->capacity_bytes = 10485760;
    memset(d->root.b, 0xab, sizeof d->root.b);
    snprintf(path, sizeof path, "%s/%s-000001.vmdk", store, stem);
    d->leaf_path = strdup(path);
    for (unsigned i = 0; i < 2; i++) {
        struct chain_link *l = retained_add_link(d, NULL);

        assert_non_null(l);
        l->cid = 0x0badf00d + i;
        strcpy(l->type, i == 0 ? "seSparse" : "vmfs");
        snprintf(path, sizeof path, "%s/%s-%u.vmdk", store, stem, i);
        l->descriptor_path = strdup(path);
        snprintf(path, sizeof path, "%s/%s-%u-flat.vmdk", store, stem, i);
        l->data_path = strdup(path);
    }
}

static void make_record(struct retained *r, const char *store)
{
    *r = (struct retained){ .generation = 12,
                            .booted = EPOCH - 1000,
                            .uptime = 1000,
                            .vmid = 7,
                            .snapshot_id = 3,
                            .created = EPOCH };
    strcpy(r->token, TOKEN);
    strcpy(r->store_id, "mirror:aa");
    strcpy(r->generation_id, "0011");
    strcpy(r->host_uuid, "host");
    strcpy(r->vm_uuid, "52aa");
    strcpy(r->vmx, "[ds1] web 01/w\\eb\x01.vmx");
    add_disk(r, "scsi0:0", "a", store);
    add_disk(r, "nvme0:1", "b c", store);
}

/* ---- the text form ---- */

static char *text_of(const struct retained *r, size_t *count)
{
    struct bytes text = { .ceiling = JOURNAL_RECORD_BYTES_MAX };
    char *copy;

    assert_int_equal(retained_write(r, &text, NULL), 0);
    copy = malloc(text.count); /* the exact size, so that a sanitizer sees one byte too many */
    assert_non_null(copy);
    memcpy(copy, text.data, text.count);
    *count = text.count;
    bytes_free(&text);
    return copy;
}

static void every_field_comes_back(void **state)
{
    struct retained a, b;
    size_t count, again;
    char *text, *second;
    struct err e;

    (void)state;
    make_record(&a, STORE);
    text = text_of(&a, &count);
    assert_int_equal(retained_read(&b, text, count, &e), 0);
    assert_string_equal(b.vmx, a.vmx);
    assert_int_equal(b.uptime, 1000);
    assert_int_equal(b.vmid, 7);
    assert_int_equal(b.disk_count, 2);
    assert_int_equal(b.disks[1].link_count, 2);
    assert_int_equal(b.disks[1].links[1].cid, 0x0badf00e);
    assert_string_equal(b.disks[1].links[0].type, "seSparse");
    assert_ptr_equal(retained_disk(&b, "nvme0:1"), &b.disks[1]);
    assert_null(retained_disk(&b, "nvme0:2"));
    second = text_of(&b, &again);
    assert_int_equal(again, count);
    assert_memory_equal(text, second, count);
    free(text);
    free(second);
    retained_free(&a);
    retained_free(&b);
}

static void a_cut_or_changed_record_is_damaged(void **state)
{
    struct retained a, b;
    size_t count;
    char *text;
    struct err e;

    (void)state;
    make_record(&a, STORE);
    text = text_of(&a, &count);
    for (size_t n = 0; n < count; n++) {
        assert_int_equal(retained_read(&b, text, n, &e), -1);
        assert_int_equal(e.code, ERR_CORRUPT);
    }
    for (size_t n = 0; n < count; n++) {
        text[n] ^= 1;
        assert_int_equal(retained_read(&b, text, count, &e), -1);
        assert_int_equal(e.code, ERR_CORRUPT);
        assert_null(b.disks);
        text[n] ^= 1;
    }
    free(text);
    retained_free(&a);
}

/* What a writer with the right sum, but other ideas, could have written. */
static void values_that_cannot_be_are_refused(void **state)
{
    struct retained a, b;
    struct bytes text = { .ceiling = JOURNAL_RECORD_BYTES_MAX };
    struct err e;

    (void)state;
    for (unsigned what = 0; what < 12; what++) {
        make_record(&a, STORE);
        switch (what) {
        case 0:
            a.token[31] = 'g';
            break;
        case 1:
            a.store_id[0] = '\0';
            break;
        case 2:
            a.generation = 0;
            break;
        case 3:
            a.generation_id[0] = '\0';
            break;
        case 4:
            a.snapshot_id = 0;
            break;
        case 5:
            strcpy(a.disks[1].slot, "scsi0:0"); /* twice */
            break;
        case 6:
            a.disks[0].slot[0] = '\0';
            break;
        case 7:
            a.disks[0].capacity_bytes = 0;
            break;
        case 8:
            a.disks[0].leaf_path[0] = 'x'; /* not absolute */
            break;
        case 9:
            a.disks[1].links[1].data_path[0] = '.';
            break;
        case 10:
            a.disks[0].capacity_bytes = UINT64_MAX;
            break;
        default:
            a.disks[0].links[0].type[0] = '\0';
            break;
        }
        text.count = 0;
        assert_int_equal(retained_write(&a, &text, NULL), 0);
        assert_int_equal(retained_read(&b, (char *)text.data, text.count, &e), -1);
        assert_int_equal(e.code, ERR_CORRUPT);
        retained_free(&a);
    }
    bytes_free(&text);
}

static void counts_have_limits(void **state)
{
    struct retained r = { .disks = NULL };
    struct err e;

    (void)state;
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        assert_non_null(retained_add_disk(&r, &e));
    assert_null(retained_add_disk(&r, &e));
    assert_int_equal(e.code, ERR_LIMIT);
    for (unsigned i = 0; i < CHAIN_LINKS_MAX; i++)
        assert_non_null(retained_add_link(&r.disks[0], &e));
    assert_null(retained_add_link(&r.disks[0], &e));
    assert_int_equal(e.code, ERR_LIMIT);
    retained_free(&r);
    assert_int_equal(retained_read(&r, "", JOURNAL_RECORD_BYTES_MAX, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
}

/* ---- in the journal ---- */

/* A kept snapshot as a run leaves it. */
static void keep_one(struct fixture *x, bool recorded, char token[JOURNAL_TOKEN_ROOM])
{
    struct snapshot_wish wish = { .purpose = JOURNAL_KEEP,
                                  .store = "mirror /backup",
                                  .expires = EPOCH + 8 * 86400 };
    struct snapshot *s = NULL;
    struct retained r;
    struct err e;

    assert_int_equal(snapshot_create(&x->f.host, x->j, &x->vm, &wish, &s, &e), 0);
    strcpy(token, journal_entry_of(s->ticket)->token);
    make_record(&r, x->stores.items[0].path);
    strcpy(r.token, token);
    if (recorded)
        assert_int_equal(retained_publish(s->ticket, &r, &e), 0);
    retained_free(&r);
    snapshot_free(s);
}

static bool has_record(struct fixture *x, const char *token)
{
    char name[80];

    snprintf(name, sizeof name, "journal/%s.kept", token);
    return faccessat(x->folder, name, F_OK, 0) == 0;
}

static void reap(struct fixture *x, const struct reaper_options *options, enum reaped_kind kind,
                 const char *text)
{
    struct reaped_list l;
    struct err e;

    assert_int_equal(reaper_run(&x->f.host, x->j, options, &l, &e), 0);
    assert_int_equal(l.count, 1);
    if (l.items[0].kind != kind || strstr(l.items[0].text, text) == NULL)
        fail_msg("kind %d, not %d: %s", l.items[0].kind, kind, l.items[0].text);
    reaped_list_free(&l);
    assert_int_equal(x->f.snapshot_count, kind == REAPED_REMOVED ? 0 : 1);
}

static void a_record_goes_with_its_entry(void **state)
{
    struct fixture *x = *state;
    char token[JOURNAL_TOKEN_ROOM];
    struct journal_ticket *ticket;
    struct retained r;
    struct err e;

    keep_one(x, true, token);
    assert_int_equal(retained_load(x->j, token, &r, &e), 0);
    assert_string_equal(r.token, token);
    retained_free(&r);
    assert_int_equal(retained_load(x->j, TOKEN, &r, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(journal_take(x->j, token, &ticket, &e), 0);
    assert_int_equal(journal_done(ticket, &e), 0);
    assert_false(has_record(x, token));
}

static void another_entrys_record_is_none(void **state)
{
    struct fixture *x = *state;
    char one[JOURNAL_TOKEN_ROOM], command[300];
    struct retained r;
    struct err e;

    keep_one(x, true, one);
    snprintf(command, sizeof command, "mv %s/journal/%s.kept %s/journal/%s.kept", x->path, one,
             x->path, TOKEN);
    assert_int_equal(system(command), 0);
    assert_int_equal(retained_load(x->j, TOKEN, &r, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    /* Without an entry it is swept away. */
    journal_close(x->j);
    assert_int_equal(journal_open(&x->j, x->folder, INSTALL, &e), 0);
    assert_false(has_record(x, TOKEN));
}

static void it_stays_until_its_time(void **state)
{
    struct fixture *x = *state;
    const struct reaper_options none = { 0 }, limits = { .limits = true };
    char token[JOURNAL_TOKEN_ROOM];
    struct reaped_list l;
    struct err e;

    keep_one(x, true, token);
    reap(x, &none, REAPED_RETAINED, "snapshot kept for mirror /backup");
    assert_int_equal(reaper_run(&x->f.host, x->j, &limits, &l, &e), 0);
    assert_int_equal(l.count, 0);
    reaped_list_free(&l);
    x->f.clock_ms += UINT64_C(8) * 86400 * 1000;
    reap(x, &limits, REAPED_REMOVED, "its time is over");
    assert_false(has_record(x, token));
}

static void a_shorter_time_holds_for_it_too(void **state)
{
    struct fixture *x = *state;
    const struct reaper_options hour = { .retained_age = 3600 }, ever = { .retained_age = 1 << 30 };
    char token[JOURNAL_TOKEN_ROOM];

    keep_one(x, true, token);
    x->f.clock_ms += UINT64_C(3599) * 1000;
    reap(x, &hour, REAPED_RETAINED, "");
    x->f.clock_ms += UINT64_C(2) * 1000;
    reap(x, &ever, REAPED_RETAINED, "");
    reap(x, &hour, REAPED_REMOVED, "its time is over");
}

static void without_a_record_it_goes(void **state)
{
    struct fixture *x = *state;
    const struct reaper_options none = { 0 };
    char token[JOURNAL_TOKEN_ROOM], name[80];
    int fd;

    keep_one(x, false, token);
    reap(x, &none, REAPED_REMOVED, "did not end well");
    keep_one(x, true, token);
    snprintf(name, sizeof name, "journal/%s.kept", token);
    fd = openat(x->folder, name, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "X", 1, 40), 1);
    close(fd);
    reap(x, &none, REAPED_REMOVED, "its record is damaged");
}

static void it_goes_when_asked_for(void **state)
{
    struct fixture *x = *state;
    const struct reaper_options all = { .retained = true };
    char token[JOURNAL_TOKEN_ROOM];

    keep_one(x, true, token);
    reap(x, &all, REAPED_REMOVED, "snapshot kept for mirror /backup removed");
}

static void deltas_may_take_a_quarter_of_the_free_room(void **state)
{
    struct fixture *x = *state;
    const struct reaper_options none = { 0 };
    uint64_t free_kib = x->stores.items[0].free_bytes / 1024;
    char token[JOURNAL_TOKEN_ROOM];

    keep_one(x, true, token);
    delta_kib = (unsigned long)(free_kib / 8); /* two disks */
    reap(x, &none, REAPED_RETAINED, "of changes");
    delta_kib++;
    reap(x, &none, REAPED_REMOVED, "are free");
}

static void leftovers_tell_what_is_kept(void **state)
{
    struct fixture *x = *state;
    char token[JOURNAL_TOKEN_ROOM];
    struct leftover_list l;
    struct err e;

    keep_one(x, true, token);
    assert_int_equal(reaper_leftovers(&x->f.host, x->j, &l, &e), 0);
    assert_int_equal(l.count, 1);
    assert_string_equal(l.items[0].store, "mirror /backup");
    assert_int_equal(l.items[0].delta_bytes, 2 * 100 * 1024);
    assert_int_equal(l.items[0].expires, EPOCH + 8 * 86400);
    leftover_list_free(&l);
}

static void sizes_are_read_from_lines_that_name_a_delta(void **state)
{
    struct fixture *x = *state;
    const char *at = x->stores.items[0].path;
    struct retained_cost cost;
    struct retained r;
    struct err e;
    char text[2000];

    make_record(&r, at);
    snprintf(text, sizeof text,
             "du: nothing here\n"
             "12\t%s/a-000001-delta.vmdk\n"
             "x12\t%s/a-000001-delta.vmdk\n"
             "7  %s/b c-000001-sesparse.vmdk\n"
             "99\t%s/a-flat.vmdk\n"
             "99999999999999999999\t%s/a-000001-sesparse.vmdk\n"
             "\n5",
             at, at, at, at, at);
    assert_int_equal(retained_cost_read(text, &r, &x->stores, &cost, &e), 0);
    assert_int_equal(cost.bytes, 19 * 1024);
    assert_string_equal(cost.crowded, "");
    snprintf(text, sizeof text,
             "18014398509481983\t%s/a-000001-delta.vmdk\n"
             "18014398509481983\t%s/b c-000001-delta.vmdk\n",
             at, at);
    assert_int_equal(retained_cost_read(text, &r, &x->stores, &cost, &e), 0);
    assert_true(cost.bytes == UINT64_MAX);
    assert_string_equal(cost.crowded, x->stores.items[0].name);
    retained_free(&r);
}

#define WITH_HOST(f) cmocka_unit_test_setup_teardown(f, set_up, fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_comes_back),
        cmocka_unit_test(a_cut_or_changed_record_is_damaged),
        cmocka_unit_test(values_that_cannot_be_are_refused),
        cmocka_unit_test(counts_have_limits),
        WITH_HOST(a_record_goes_with_its_entry),
        WITH_HOST(another_entrys_record_is_none),
        WITH_HOST(it_stays_until_its_time),
        WITH_HOST(a_shorter_time_holds_for_it_too),
        WITH_HOST(without_a_record_it_goes),
        WITH_HOST(it_goes_when_asked_for),
        WITH_HOST(deltas_may_take_a_quarter_of_the_free_room),
        WITH_HOST(leftovers_tell_what_is_kept),
        WITH_HOST(sizes_are_read_from_lines_that_name_a_delta),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
