/* The host journal: what is durable at each step, and who may touch an entry. */
#include "tests/unit/cmocka_all.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/host/journal.h"

#define INSTALL "0123456789abcdef"

struct fixture {
    char path[64];
    int folder;
    struct journal *j;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err e;

    if (f == NULL)
        return -1;
    strcpy(f->path, "/tmp/vmferry-journal-XXXXXX");
    if (mkdtemp(f->path) == NULL)
        return -1;
    f->folder = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = f;
    return journal_open(&f->j, f->folder, INSTALL, &e);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    char command[128];

    journal_close(f->j);
    close(f->folder);
    snprintf(command, sizeof command, "rm -r %s", f->path);
    if (system(command) != 0)
        return -1;
    free(f);
    return 0;
}

static struct journal_entry an_entry(void)
{
    struct journal_entry e = {
        .kind = JOURNAL_SNAPSHOT, .purpose = JOURNAL_RUN, .vmid = 7, .port = 22
    };

    strcpy(e.host_uuid, "5e0f");
    strcpy(e.address, "esx1");
    strcpy(e.user, "root");
    strcpy(e.vm_name, "a \\ name\nwith = lines\x01");
    strcpy(e.vm_uuid, "52aa");
    strcpy(e.vmx, "[ds] a/a.vmx");
    return e;
}

static size_t files_ending(const struct fixture *f, const char *end)
{
    char path[100];
    struct dirent *d;
    size_t n = 0;
    DIR *dir;

    snprintf(path, sizeof path, "%s/journal", f->path);
    dir = opendir(path);
    assert_non_null(dir);
    while ((d = readdir(dir)) != NULL)
        n += strlen(d->d_name) > strlen(end) &&
             strcmp(d->d_name + strlen(d->d_name) - strlen(end), end) == 0;
    closedir(dir);
    return n;
}

static void text_form_keeps_every_field(void **state)
{
    struct journal_entry a = an_entry(), b;
    struct bytes text = { .ceiling = JOURNAL_ENTRY_BYTES_MAX };
    struct err e;

    (void)state;
    strcpy(a.token, "00112233445566778899aabbccddeeff");
    strcpy(a.install_id, INSTALL);
    a.state = JOURNAL_READING;
    a.created = 1763600000;
    a.changed = 1763600001;
    a.snapshot_id = 3;
    a.purpose = JOURNAL_KEEP;
    a.expires = 1763700000;
    strcpy(a.store, "mirror /b");
    strcpy(a.folder, "/vmfs/volumes/x");
    memset(a.files[0].sha256, 'a', 64);
    strcpy(a.files[0].name, "vmferry-agent");
    a.file_count = 1;
    assert_int_equal(journal_entry_write(&a, &text, &e), 0);
    assert_int_equal(journal_entry_read(&b, (char *)text.data, text.count, &e), 0);
    assert_memory_equal(&a, &b, sizeof a);

    /* Cut anywhere, or with a byte too many, it is damaged. */
    for (size_t n = 0; n < text.count; n++) {
        assert_int_equal(journal_entry_read(&b, (char *)text.data, n, &e), -1);
        assert_int_equal(e.code, ERR_CORRUPT);
    }
    assert_int_equal(bytes_append(&text, "x", 1, &e), 0);
    assert_int_equal(journal_entry_read(&b, (char *)text.data, text.count, &e), -1);
    bytes_free(&text);
}

static void damaged_texts_are_refused(void **state)
{
    static const char *const from[] = { "state=intent", "port=22", "vmid=7",   "kind=snapshot",
                                        "token=00",     "end\n",   "user=root" };
    static const char *const to[] = { "state=later", "port=22x", "vmid=99999999999", "kind=none",
                                      "token=0g",    "end",      "user=\\x0z" };
    struct journal_entry a = an_entry(), b;
    struct bytes text = { .ceiling = JOURNAL_ENTRY_BYTES_MAX };
    struct err e;
    char *whole;

    (void)state;
    strcpy(a.token, "00112233445566778899aabbccddeeff");
    strcpy(a.install_id, INSTALL);
    assert_int_equal(journal_entry_write(&a, &text, &e), 0);
    whole = bytes_text(&text, &e);
    for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
        char changed[8192];
        char *at = strstr(whole, from[i]);

        assert_non_null(at);
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - whole), whole, to[i],
                 at + strlen(from[i]));
        if (journal_entry_read(&b, changed, strlen(changed), &e) == 0)
            fail_msg("%s was taken", to[i]);
    }
    bytes_free(&text);
}

static void a_life_from_intent_to_gone(void **state)
{
    struct fixture *f = *state;
    struct journal_entry entry = an_entry();
    struct journal_ticket *t;
    struct journal_list l;
    struct err e;

    assert_int_equal(journal_begin(f->j, &entry, 100, &t, &e), 0);
    assert_int_equal(strlen(entry.token), 32);
    assert_int_equal(files_ending(f, ".entry"), 1);
    assert_int_equal(journal_list(f->j, &l, &e), 0);
    assert_int_equal(l.count, 1);
    assert_true(l.locked[0]);
    assert_int_equal(l.items[0].state, JOURNAL_INTENT);
    assert_string_equal(l.items[0].vm_name, entry.vm_name);
    journal_list_free(&l);

    journal_entry_of(t)->snapshot_id = 5;
    assert_int_equal(journal_step(t, JOURNAL_CREATED, 101, &e), 0);
    assert_int_equal(journal_step(t, JOURNAL_READING, 102, &e), 0);
    assert_int_equal(journal_list(f->j, &l, &e), 0);
    assert_int_equal(l.items[0].state, JOURNAL_READING);
    assert_int_equal(l.items[0].snapshot_id, 5);
    assert_int_equal(l.items[0].created, 100);
    assert_int_equal(l.items[0].changed, 102);
    journal_list_free(&l);

    assert_int_equal(journal_done(t, &e), 0);
    assert_int_equal(files_ending(f, ".entry"), 0);
    assert_int_equal(files_ending(f, "f.lock") + files_ending(f, "0.lock"), 0);
    assert_int_equal(journal_list(f->j, &l, &e), 0);
    assert_int_equal(l.count, 0);
    journal_list_free(&l);
}

static void every_attempt_has_its_own_token(void **state)
{
    struct fixture *f = *state;
    struct journal_entry a = an_entry(), b = an_entry();
    struct journal_ticket *t, *u;
    struct err e;

    assert_int_equal(journal_begin(f->j, &a, 1, &t, &e), 0);
    assert_int_equal(journal_begin(f->j, &b, 1, &u, &e), 0);
    assert_string_not_equal(a.token, b.token);
    journal_leave(t);
    journal_leave(u);
    assert_int_equal(files_ending(f, ".entry"), 2);
}

static void a_held_entry_cannot_be_taken(void **state)
{
    struct fixture *f = *state;
    struct journal_entry entry = an_entry();
    struct journal_ticket *t, *u = NULL;
    struct err e;

    assert_int_equal(journal_begin(f->j, &entry, 1, &t, &e), 0);
    assert_int_equal(journal_take(f->j, entry.token, &u, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    journal_leave(t);
    assert_int_equal(journal_take(f->j, entry.token, &u, &e), 0);
    assert_string_equal(journal_entry_of(u)->vmx, entry.vmx);
    assert_int_equal(journal_done(u, &e), 0);
    assert_int_equal(journal_take(f->j, entry.token, &u, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

/* Killed after each step: the next process finds the state that was made durable, and may take it.
 */
static void a_killed_process_leaves_its_last_step_unlocked(void **state)
{
    struct fixture *f = *state;

    for (int steps = 0; steps <= 3; steps++) {
        struct journal_list l;
        struct journal_ticket *t;
        struct err e;
        pid_t child = fork();
        int status;

        if (child == 0) {
            struct journal *j;
            struct journal_entry entry = an_entry();

            if (journal_open(&j, f->folder, INSTALL, &e) != 0 ||
                journal_begin(j, &entry, 10, &t, &e) != 0)
                _exit(1);
            for (int i = 1; i <= steps; i++)
                if (journal_step(t, (enum journal_state)i, 10 + i, &e) != 0)
                    _exit(1);
            kill(getpid(), SIGKILL);
        }
        assert_true(child > 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(journal_list(f->j, &l, &e), 0);
        assert_int_equal(l.count, 1);
        assert_false(l.locked[0]);
        assert_int_equal(l.items[0].state, steps);
        assert_int_equal(journal_take(f->j, l.items[0].token, &t, &e), 0);
        assert_int_equal(journal_done(t, &e), 0);
        journal_list_free(&l);
    }
}

static void opening_sweeps_what_crashes_left_but_nothing_held(void **state)
{
    struct fixture *f = *state;
    struct journal_entry entry = an_entry();
    struct journal_ticket *t;
    struct journal *again;
    struct err e;
    char path[200];
    int fd;

    assert_int_equal(journal_begin(f->j, &entry, 1, &t, &e), 0);
    snprintf(path, sizeof path, "%s/journal/ffffffffffffffffffffffffffffffff.lock", f->path);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(journal_open(&again, f->folder, INSTALL, &e), 0);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(files_ending(f, ".entry"), 1);
    snprintf(path, sizeof path, "%s/journal/%s.lock", f->path, entry.token);
    assert_int_equal(access(path, F_OK), 0);
    journal_close(again);
    journal_leave(t);
}

static void an_unreadable_entry_is_told_and_hides_no_other(void **state)
{
    struct fixture *f = *state;
    struct journal_entry entry = an_entry();
    struct journal_ticket *t;
    struct journal_list l;
    struct err e;
    char path[200];
    FILE *file;

    assert_int_equal(journal_begin(f->j, &entry, 1, &t, &e), 0);
    journal_leave(t);
    snprintf(path, sizeof path, "%s/journal/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee.entry", f->path);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs("garbage", file);
    fclose(file);
    assert_int_equal(journal_list(f->j, &l, &e), 0);
    assert_int_equal(l.count, 1);
    assert_int_equal(l.bad_count, 1);
    assert_string_equal(l.bad[0], "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee");
    journal_list_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_form_keeps_every_field),
        cmocka_unit_test(damaged_texts_are_refused),
        cmocka_unit_test_setup_teardown(a_life_from_intent_to_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_attempt_has_its_own_token, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_held_entry_cannot_be_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_killed_process_leaves_its_last_step_unlocked, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(opening_sweeps_what_crashes_left_but_nothing_held, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_unreadable_entry_is_told_and_hides_no_other, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
