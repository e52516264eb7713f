#include "receiver/cli/report.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/json.h"
#include "receiver/base/log.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/cli/table.h"
#include "receiver/job/run.h"

struct report {
    struct report_options o;
    pthread_mutex_t lock; /* guards all below: lines never mix */
    char *line;
    size_t line_bytes;
    FILE *memory;
    struct json json;
    int failed; /* errno of the first failed write, 0 if none */
};

/* A line is gathered whole and written at once, under the lock. */
static bool line_begin(struct report *r)
{
    pthread_mutex_lock(&r->lock);
    r->line = NULL;
    r->memory = open_memstream(&r->line, &r->line_bytes);
    if (r->memory == NULL) {
        r->failed = errno;
        pthread_mutex_unlock(&r->lock);
        return false;
    }
    json_start(&r->json, r->memory);
    return true;
}

static void line_end(struct report *r)
{
    fputc('\n', r->memory);
    if (fclose(r->memory) != 0)
        r->failed = errno;
    else if (fwrite(r->line, 1, r->line_bytes, r->o.out) != r->line_bytes || fflush(r->o.out) != 0)
        r->failed = r->failed != 0 ? r->failed : errno;
    free(r->line);
    r->line = NULL;
    r->memory = NULL;
    pthread_mutex_unlock(&r->lock);
}

static bool object_begin(struct report *r, const char *type)
{
    if (!line_begin(r))
        return false;
    json_object(&r->json, NULL);
    json_text(&r->json, "type", type);
    return true;
}

static void object_end(struct report *r)
{
    json_close(&r->json);
    line_end(r);
}

static void see_log(void *context, enum log_level level, const char *text)
{
    struct report *r = context;

    if (level != LOG_WARNING || !r->o.json || r->o.list_like || !object_begin(r, "warning"))
        return;
    json_text(&r->json, "message", text);
    object_end(r);
}

int report_open(struct report **out, const struct report_options *options, struct err *e)
{
    struct report *r = calloc(1, sizeof *r);

    if (r == NULL)
        return err_sys(e, "getting memory for the report");
    r->o = *options;
    pthread_mutex_init(&r->lock, NULL);
    log_set_observer(see_log, r);
    *out = r;
    return 0;
}

bool report_is_json(const struct report *r)
{
    return r->o.json;
}

void report_close(struct report *r)
{
    if (r == NULL)
        return;
    log_set_observer(NULL, NULL);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void report_failure(struct report *r, const char *vm, const struct err *e)
{
    if (vm != NULL)
        log_error("%s: %s", vm, e->text);
    else
        log_error("%s", e->text);
    if (!r->o.json || !object_begin(r, "error"))
        return;
    json_text(&r->json, "command", r->o.command);
    if (vm != NULL)
        json_text(&r->json, "vm", vm);
    json_integer(&r->json, "exit_code", exit_code_of(e->code));
    json_text(&r->json, "class", err_code_name(e->code));
    json_text(&r->json, "message", e->text);
    object_end(r);
}

void report_step(struct report *r, const char *vm, const char *what)
{
    if (!r->o.json || r->o.list_like || !object_begin(r, "status"))
        return;
    json_text(&r->json, "vm", vm);
    json_text(&r->json, "step", what);
    object_end(r);
}

void report_progress(struct report *r, const struct disk_progress *p, uint64_t ms)
{
    if (!r->o.json || r->o.list_like || !object_begin(r, "status"))
        return;
    json_text(&r->json, "vm", p->vm[0] != 0 ? p->vm : NULL);
    json_text(&r->json, "disk", p->disk[0] != 0 ? p->disk : NULL);
    if (p->what != NULL)
        json_text(&r->json, "step", p->what);
    json_number(&r->json, "done", p->done_bytes);
    json_number(&r->json, "total", p->total_bytes);
    json_number(&r->json, "read", p->read_bytes);
    json_number(&r->json, "sent", p->sent_bytes);
    json_number(&r->json, "same", p->same_bytes);
    json_bool(&r->json, "ended", p->ended);
    json_seconds(&r->json, "seconds", ms);
    object_end(r);
}

struct json *report_array_begin(struct report *r)
{
    if (!line_begin(r))
        return NULL;
    json_array(&r->json, NULL);
    return &r->json;
}

void report_array_end(struct report *r)
{
    json_close(&r->json);
    line_end(r);
}

/* ---- The summary ---- */

/* Why something failed or is partial; nulls when nothing did. */
static void put_error(struct json *j, const struct err *why)
{
    if (why->code == ERR_NONE) {
        json_null(j, "class");
        json_null(j, "error");
    } else {
        json_text(j, "class", err_code_name(why->code));
        json_text(j, "error", why->text);
    }
}

static void put_disk(struct json *j, const struct disk_result *d)
{
    char root[DIGEST_HEX_BYTES];

    json_object(j, NULL);
    json_text(j, "disk", d->disk);
    json_number(j, "capacity", d->capacity);
    json_text(j, "read_path", read_path_name(d->read_path));
    json_number(j, "allocated", d->allocated);
    json_number(j, "read", d->read);
    json_number(j, "sampled", d->sampled);
    json_number(j, "changed", d->changed);
    json_number(j, "sent", d->sent);
    json_number(j, "stored", d->stored);
    if (d->root_known)
        digest_hex(&d->root, root);
    json_text(j, "root", d->root_known ? root : NULL);
    json_seconds(j, "seconds", d->ms);
    json_bool(j, "left_out", d->left_out);
    put_error(j, &d->why);
    json_close(j);
}

static void put_vm(struct json *j, const struct vm_result *v)
{
    json_object(j, NULL);
    json_text(j, "vm", v->vm);
    if (v->vmid_known)
        json_number(j, "vmid", v->vmid);
    else
        json_null(j, "vmid");
    json_text(j, "uuid", v->uuid[0] != 0 ? v->uuid : NULL);
    if (v->generation > 0)
        json_number(j, "generation", v->generation);
    else
        json_null(j, "generation");
    json_text(j, "id", v->id[0] != 0 ? v->id : NULL);
    json_text(j, "outcome", vm_outcome_name(v->outcome));
    json_integer(j, "exit_code", exit_code_of_vm(v));
    json_text(j, "consistency", consistency_name(v->consistency));
    json_text(j, "data_channel", data_carrier_name(v->data_channel));
    json_text(j, "read_path", read_path_name(v->read_path));
    json_text(j, "change_source", change_source_name(v->change_source));
    json_seconds(j, "seconds", v->ms);
    put_error(j, &v->why);
    json_array(j, "disks");
    for (size_t i = 0; i < v->disk_count; i++)
        put_disk(j, &v->disks[i]);
    json_close(j);
    json_close(j);
}

void report_summary(struct report *r, const struct run_result *result, int exit_code, uint64_t ms,
                    void (*more)(void *context, struct json *j), void *context)
{
    struct json *j = &r->json;

    if (!r->o.json || r->o.list_like || !object_begin(r, "summary"))
        return;
    json_text(j, "command", r->o.command);
    json_integer(j, "exit_code", exit_code);
    json_seconds(j, "seconds", ms);
    json_array(j, "vms");
    for (size_t i = 0; result != NULL && i < result->count; i++)
        put_vm(j, &result->vms[i]);
    json_close(j);
    if (more != NULL)
        more(context, j);
    object_end(r);
}

/* ---- For people ---- */

static void people_disks(FILE *out, const struct vm_result *v, unsigned width)
{
    static const struct table_column columns[] = {
        { "DISK", false, false },   { "SIZE", true, false }, { "READ", true, false },
        { "CHANGED", true, false }, { "SENT", true, false }, { "STORED", true, false },
        { "TIME", true, false },    { "RATE", true, false },
    };
    struct table *t = NULL;

    if (table_new(&t, columns, 8, NULL) != 0)
        return;
    for (size_t i = 0; i < v->disk_count; i++) {
        const struct disk_result *d = &v->disks[i];
        char size[SIZE_TEXT_BYTES], read[SIZE_TEXT_BYTES], changed[SIZE_TEXT_BYTES];
        char sent[SIZE_TEXT_BYTES], stored[SIZE_TEXT_BYTES], time[SIZE_TEXT_BYTES];
        char rate[SIZE_TEXT_BYTES];
        const char *cells[] = {
            d->disk,
            size_text(size, d->capacity),
            size_text(read, d->read),
            size_text(changed, d->changed),
            size_text(sent, d->sent),
            size_text(stored, d->stored),
            duration_text(time, (d->ms + 500) / 1000),
            rate_text(rate, d->read, d->ms),
        };

        if (!d->left_out)
            table_row(t, cells, NULL);
    }
    table_print(t, out, width, 2);
    table_free(t);
}

static void people_vm(FILE *out, const struct vm_result *v, unsigned width, bool dry_run)
{
    char name[512], why[1024], time[SIZE_TEXT_BYTES];
    const char *consistency = consistency_name(v->consistency);

    utf8_show(name, sizeof name, v->vm);
    fprintf(out, "%s: ", name);
    if (dry_run && (v->outcome == OUTCOME_OK || v->outcome == OUTCOME_SKIPPED)) {
        fprintf(out, "nothing was done (dry run)\n");
        return;
    }
    fputs(vm_outcome_name(v->outcome), out);
    if (exit_code_of_vm(v) != EXIT_OK)
        fprintf(out, " (%d)", exit_code_of_vm(v));
    if (v->generation > 0)
        fprintf(out, ", generation %llu", (unsigned long long)v->generation);
    if (consistency != NULL)
        fprintf(out, ", %s%s", consistency,
                v->consistency == CONSISTENCY_CRASH ? "-consistent" : "");
    if (v->read_path != READ_PATH_UNKNOWN)
        fprintf(out, ", read by %s", read_path_name(v->read_path));
    if (v->data_channel != CARRIER_UNKNOWN)
        fprintf(out, " over %s", data_carrier_name(v->data_channel));
    if (v->ms > 0)
        fprintf(out, ", %s", duration_text(time, (v->ms + 500) / 1000));
    fputc('\n', out);
    /* Why it failed stands on standard error; what was done to its disks came to nothing. */
    if (v->outcome == OUTCOME_FAILED || v->outcome == OUTCOME_SKIPPED)
        return;
    for (size_t i = 0; i < v->disk_count; i++) {
        if (!v->disks[i].left_out)
            continue;
        utf8_show(why, sizeof why, v->disks[i].why.text);
        fprintf(out, "  %s: left out%s%s\n", v->disks[i].disk,
                v->disks[i].why.code != ERR_NONE ? ": " : "",
                v->disks[i].why.code != ERR_NONE ? why : "");
    }
    people_disks(out, v, width);
}

void report_people(FILE *out, const struct run_result *result, unsigned width, bool dry_run)
{
    size_t counts[4] = { 0 }, left = 0;

    for (size_t i = 0; i < result->count; i++) {
        people_vm(out, &result->vms[i], width, dry_run);
        counts[result->vms[i].outcome]++;
        left += result->vms[i].cleanup_left;
    }
    if (result->count < 2)
        return;
    fprintf(out, "%zu VMs:", result->count);
    for (unsigned o = 0, shown = 0; o < 4; o++) {
        if (counts[o] > 0)
            fprintf(out, "%s %zu %s", shown++ > 0 ? "," : "", counts[o],
                    vm_outcome_name((enum vm_outcome)o));
    }
    if (left > 0)
        fprintf(out, "; clean-up is incomplete for %zu", left);
    fputc('\n', out);
}

int report_flush(struct report *r, struct err *e)
{
    int failed;

    pthread_mutex_lock(&r->lock);
    errno = 0;
    if (fflush(r->o.out) != 0 || ferror(r->o.out)) {
        if (r->failed == 0)
            r->failed = errno != 0 ? errno : EIO;
    }
    failed = r->failed;
    pthread_mutex_unlock(&r->lock);
    if (failed == 0)
        return 0;
    errno = failed;
    err_sys_write(e, "writing the results to standard output");
    if (e != NULL && e->code == ERR_NETWORK)
        e->code = ERR_SYSTEM; /* a closed pipe is no matter of the network here */
    return -1;
}
