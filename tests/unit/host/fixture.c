#include "tests/unit/host/fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "tests/unit/cmocka_all.h"

int fixture_set_up(void **state)
{
    struct fixture *x = calloc(1, sizeof *x);
    struct err e;

    log_set_level(LOG_ERROR);
    if (x == NULL)
        return -1;
    fake_host_init(&x->f);
    strcpy(x->path, "/tmp/vmferry-host-XXXXXX");
    if (mkdtemp(x->path) == NULL)
        return -1;
    x->folder = open(x->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = x;
    if (journal_open(&x->j, x->folder, INSTALL, &e) != 0 ||
        host_vm(&x->f.host, 7, &x->vm, &e) != 0 || host_vm_details(&x->f.host, &x->vm, &e) != 0 ||
        host_datastores(&x->f.host, &x->stores, &e) != 0) {
        fprintf(stderr, "%s\n", e.text);
        return -1;
    }
    return 0;
}

int fixture_tear_down(void **state)
{
    struct fixture *x = *state;
    char command[128];

    vm_free(&x->vm);
    datastore_list_free(&x->stores);
    journal_close(x->j);
    close(x->folder);
    snprintf(command, sizeof command, "rm -r %s", x->path);
    if (system(command) != 0)
        return -1;
    fake_host_free(&x->f);
    free(x);
    return 0;
}

size_t fixture_entries(struct fixture *x, enum journal_state *state)
{
    struct journal_list l;
    struct err e;
    size_t n;

    assert_int_equal(journal_list(x->j, &l, &e), 0);
    n = l.count;
    if (n > 0 && state != NULL)
        *state = l.items[0].state;
    journal_list_free(&l);
    return n;
}

int fixture_take(struct fixture *x, struct snapshot **s, struct err *e)
{
    *s = NULL;
    return snapshot_create(&x->f.host, x->j, &x->vm, &x->wish, s, e);
}
