#include "receiver/cli/progress.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/log.h"
#include "receiver/base/sizes.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/report.h"
#include "receiver/cli/screen.h"
#include "receiver/job/run.h"

enum {
    DRAW_MS = 100,
    PLAIN_MS = 10000,
    STATUS_MS = 1000,
    RATE_MS = 1000,  /* how often a rate is taken anew */
    DISKS_MAX = 256, /* more are not shown */
    LINE_BYTES = 1024,
    PLAIN_COLUMNS = 200,
};

struct shown_disk {
    char vm[256];
    char name[300]; /* "VM slot" or what is done, raw */
    uint64_t done, total, read, sent, same;
    bool ended;
    uint64_t began_ms, rate_ms, status_ms;
    uint64_t rate_done, rate_read, rate_sent; /* counts at rate_ms */
    double done_rate, read_rate, sent_rate;   /* bytes per second, smoothed */
    bool rates_known;
};

/* What one VM is at. */
struct shown_step {
    char vm[256];
    char text[400];
};

struct progress {
    struct progress_options o;
    pthread_mutex_t lock; /* guards all below; never held while logging */
    struct shown_step steps[PARALLEL_MAX];
    size_t step_count;
    struct shown_disk *disks;
    size_t count;
    unsigned drawn; /* lines on the screen */
    uint64_t drawn_ms, plain_ms;
};

/* ---- One line ---- */

/* "18.0/40.0G": both in the unit of the whole. */
static void part_of(char *out, size_t room, uint64_t done, uint64_t total)
{
    static const char units[] = "BKMGTPE";
    double d = (double)done, t = (double)total;
    size_t unit = 0;

    while (t >= 1023.5 && unit + 2 < sizeof units) {
        d /= 1024;
        t /= 1024;
        unit++;
    }
    if (unit == 0)
        snprintf(out, room, "%.0f/%.0fB", d, t);
    else
        snprintf(out, room, t < 99.95 ? "%.1f/%.1f%c" : "%.0f/%.0f%c", d, t, units[unit]);
}

/* "9.8M/s", "98M/s" */
static void short_rate(char *out, size_t room, uint64_t rate)
{
    static const char units[] = "BKMGTPE";
    double value = (double)rate;
    size_t unit = 0;

    while (value >= 999.5 && unit + 2 < sizeof units) {
        value /= 1024;
        unit++;
    }
    snprintf(out, room, unit > 0 && value < 9.95 ? "%.1f%c/s" : "%.0f%c/s", value, units[unit]);
}

/* Everything behind the name, piece by piece in order of importance. */
static size_t pieces_of(char pieces[6][40], const struct progress_line *l)
{
    char part[32], read[32], sent[32], time[SIZE_TEXT_BYTES];
    unsigned percent =
        l->total == 0 ? 100
                      : (unsigned)((double)min_u64(l->done, l->total) * 100 / (double)l->total);
    unsigned same =
        l->read == 0 ? 0 : (unsigned)((double)min_u64(l->same, l->read) * 100 / (double)l->read);
    size_t n = 0;

    /* 100 % is said only when nothing is missing. */
    if (percent == 100 && !l->ended && l->done < l->total)
        percent = 99;
    part_of(part, sizeof part, l->done, l->total);
    snprintf(pieces[n++], 40, "%3u%%", percent);
    snprintf(pieces[n++], 40, "%s", part);
    if (!l->rates_known)
        return n;
    short_rate(read, sizeof read, l->read_rate);
    short_rate(sent, sizeof sent, l->sent_rate);
    snprintf(pieces[n++], 40, "read %s", read);
    snprintf(pieces[n++], 40, "sent %s", sent);
    snprintf(pieces[n++], 40, "same %u%%", same);
    if (l->ended)
        snprintf(pieces[n++], 40, "done");
    else if (l->left_known)
        snprintf(pieces[n++], 40, "left %s", duration_text(time, l->left_s));
    return n;
}

void progress_format(char *out, size_t room, const struct progress_line *line, unsigned columns)
{
    enum { NAME_LEAST = 13, GAP = 2 };
    char pieces[6][40], shown[600], tail[300] = "";
    size_t count = pieces_of(pieces, line);
    size_t name_columns, tail_columns = 0, at;

    utf8_show(shown, sizeof shown, line->name);
    name_columns = utf8_columns(shown);
    for (size_t i = 0; i < count; i++) {
        size_t more = strlen(pieces[i]) + GAP;

        if (tail_columns + more + min_u64(name_columns, NAME_LEAST) > columns)
            break;
        snprintf(tail + strlen(tail), sizeof tail - strlen(tail), "  %s", pieces[i]);
        tail_columns += more;
    }
    /* A long name loses its middle, for the slot at its end tells the disks of a VM apart. */
    if (name_columns > columns - tail_columns) {
        const char *slot = strrchr(shown, ' ');
        size_t slot_columns = slot != NULL ? strlen(slot) : 0;
        size_t space = columns - tail_columns;

        if (slot_columns + 3 > space)
            slot_columns = 0;
        utf8_cut(out, room, shown, space - slot_columns);
        at = strlen(out);
        snprintf(out + at, room - at, "%s%s", slot_columns > 0 ? slot : "", tail);
        return;
    }
    snprintf(out, room, "%s%s", shown, tail);
}

/* ---- What the lines are made of ---- */

static uint64_t now_of(const struct progress *p)
{
    return p->o.clock_ms != NULL ? p->o.clock_ms() : io_clock_ms();
}

static void smooth(double *rate, uint64_t before, uint64_t now, double seconds, bool first)
{
    double fresh = now > before ? (double)(now - before) / seconds : 0;

    *rate = first ? fresh : 0.6 * *rate + 0.4 * fresh;
}

static void take_rates(struct shown_disk *d, uint64_t now)
{
    double seconds = (double)(now - d->rate_ms) / 1000;
    bool first = !d->rates_known;

    if (now - d->rate_ms < RATE_MS)
        return;
    smooth(&d->done_rate, d->rate_done, d->done, seconds, first);
    smooth(&d->read_rate, d->rate_read, d->read, seconds, first);
    smooth(&d->sent_rate, d->rate_sent, d->sent, seconds, first);
    d->rate_ms = now;
    d->rate_done = d->done;
    d->rate_read = d->read;
    d->rate_sent = d->sent;
    d->rates_known = true;
}

/* Of an ended disk the rates of the whole time are told. */
static void final_rates(struct shown_disk *d, uint64_t now)
{
    double seconds = (double)(now - d->began_ms) / 1000;

    if (now == d->began_ms)
        return;
    d->read_rate = (double)d->read / seconds;
    d->sent_rate = (double)d->sent / seconds;
    d->rates_known = true;
}

static struct progress_line line_of(const struct shown_disk *d)
{
    struct progress_line l = {
        .name = d->name,
        .done = d->done,
        .total = d->total,
        .same = d->same,
        .read = d->read,
        .read_rate = (uint64_t)d->read_rate,
        .sent_rate = (uint64_t)d->sent_rate,
        .rates_known = d->rates_known,
        .ended = d->ended,
    };

    if (d->done_rate >= 1 && d->total >= d->done) {
        double left = (double)(d->total - d->done) / d->done_rate;

        l.left_known = left < 100.0 * 86400;
        l.left_s = l.left_known ? (uint64_t)left : 0;
    }
    return l;
}

/* The place of a disk, a new one if need be; NULL when there are too many or no memory. */
static struct shown_disk *find(struct progress *p, const struct disk_progress *d, uint64_t now)
{
    char name[sizeof p->disks->name];
    struct shown_disk *more;

    if (d->what != NULL)
        snprintf(name, sizeof name, "%.250s%s%s", d->vm, d->vm[0] != 0 ? ": " : "", d->what);
    else
        snprintf(name, sizeof name, "%.*s %s", (int)(sizeof name - DISK_SLOT_BYTES - 2), d->vm,
                 d->disk);
    for (size_t i = 0; i < p->count; i++) {
        if (strcmp(p->disks[i].name, name) == 0)
            return &p->disks[i];
    }
    if (p->count == DISKS_MAX)
        return NULL;
    more = reallocarray(p->disks, p->count + 1, sizeof *more);
    if (more == NULL)
        return NULL;
    p->disks = more;
    more = &p->disks[p->count++];
    memset(more, 0, sizeof *more);
    memcpy(more->name, name, sizeof name);
    snprintf(more->vm, sizeof more->vm, "%s", d->vm);
    more->began_ms = more->rate_ms = now;
    return more;
}

/* ---- The screen ---- */

static void erase(struct progress *p)
{
    if (p->drawn == 0)
        return;
    fprintf(p->o.out, "\r\x1b[%uA\x1b[J", p->drawn);
    p->drawn = 0;
}

static void draw(struct progress *p)
{
    unsigned columns = p->o.columns != 0 ? p->o.columns : screen_columns(fileno(p->o.out));
    unsigned rows = p->o.rows != 0 ? p->o.rows : screen_rows(fileno(p->o.out));
    unsigned lines = 0;
    char text[LINE_BYTES], shown[LINE_BYTES];

    /* The last column stays free: some terminals wrap as soon as it is written. */
    columns = columns > 1 ? columns - 1 : 1;
    erase(p);
    for (size_t i = 0; i < p->step_count && lines + 1 < rows; i++, lines++) {
        utf8_show(shown, sizeof shown, p->steps[i].text);
        utf8_cut(text, sizeof text, shown, columns);
        fprintf(p->o.out, "%s\n", text);
    }
    for (size_t i = 0; i < p->count && lines + 1 < rows; i++) {
        struct progress_line l = line_of(&p->disks[i]);

        progress_format(text, sizeof text, &l, columns);
        fprintf(p->o.out, "%s\n", text);
        lines++;
    }
    fflush(p->o.out);
    p->drawn = lines;
}

static void plain(struct progress *p, const struct shown_disk *d)
{
    struct progress_line l = line_of(d);
    char text[LINE_BYTES];

    progress_format(text, sizeof text, &l, PLAIN_COLUMNS);
    fprintf(p->o.out, "%s\n", text);
    fflush(p->o.out);
}

/* Something has changed: show it if it is time. */
static void refresh(struct progress *p, uint64_t now, bool at_once)
{
    if (p->o.draw && (at_once || p->drawn == 0 || now - p->drawn_ms >= DRAW_MS)) {
        draw(p);
        p->drawn_ms = now;
    }
    if (p->o.plain && now - p->plain_ms >= PLAIN_MS) {
        for (size_t i = 0; i < p->count; i++) {
            if (!p->disks[i].ended)
                plain(p, &p->disks[i]);
        }
        p->plain_ms = now;
    }
}

/* ---- The interface ---- */

int progress_open(struct progress **out, const struct progress_options *options, struct err *e)
{
    struct progress *p = calloc(1, sizeof *p);

    if (p == NULL)
        return err_sys(e, "getting memory for the progress display");
    p->o = *options;
    pthread_mutex_init(&p->lock, NULL);
    p->plain_ms = p->drawn_ms = now_of(p);
    if (p->o.draw)
        log_set_screen(progress_hide, progress_show, p);
    *out = p;
    return 0;
}

void progress_close(struct progress *p)
{
    if (p == NULL)
        return;
    if (p->o.draw) {
        log_set_screen(NULL, NULL, NULL);
        progress_hide(p);
    }
    pthread_mutex_destroy(&p->lock);
    free(p->disks);
    free(p);
}

/* The place of a VM's step; the last one where there are too many. */
static struct shown_step *step_of(struct progress *p, const char *vm)
{
    struct shown_step *s;

    for (size_t i = 0; i < p->step_count; i++)
        if (strncmp(p->steps[i].vm, vm, sizeof p->steps[i].vm - 1) == 0)
            return &p->steps[i];
    s = &p->steps[p->step_count < PARALLEL_MAX ? p->step_count++ : PARALLEL_MAX - 1];
    snprintf(s->vm, sizeof s->vm, "%s", vm);
    return s;
}

void progress_step(struct progress *p, const char *vm, const char *what)
{
    struct shown_step *s;

    pthread_mutex_lock(&p->lock);
    s = step_of(p, vm);
    snprintf(s->text, sizeof s->text, "%.300s: %s", vm, what);
    if (p->o.plain) {
        char shown[LINE_BYTES];

        utf8_show(shown, sizeof shown, s->text);
        fprintf(p->o.out, "%s\n", shown);
        fflush(p->o.out);
    }
    refresh(p, now_of(p), true);
    pthread_mutex_unlock(&p->lock);
    if (p->o.report != NULL)
        report_step(p->o.report, vm, what);
}

void progress_disk(struct progress *p, const struct disk_progress *news)
{
    bool tell = false, ended_now = false;
    uint64_t now, began = 0;
    struct shown_disk *d;

    pthread_mutex_lock(&p->lock);
    now = now_of(p);
    d = find(p, news, now);
    if (d != NULL) {
        ended_now = news->ended && !d->ended;
        d->done = news->done_bytes;
        d->total = news->total_bytes;
        d->read = news->read_bytes;
        d->sent = news->sent_bytes;
        d->same = news->same_bytes;
        d->ended = news->ended;
        if (ended_now)
            final_rates(d, now);
        else if (!d->ended)
            take_rates(d, now);
        began = d->began_ms;
        tell = ended_now || d->status_ms == 0 || now - d->status_ms >= STATUS_MS;
        if (tell)
            d->status_ms = now;
        refresh(p, now, false);
    }
    pthread_mutex_unlock(&p->lock);
    if (tell && p->o.report != NULL)
        report_progress(p->o.report, news, now - began);
}

void progress_vm_end(struct progress *p)
{
    pthread_mutex_lock(&p->lock);
    if (p->o.draw) {
        erase(p);
        fflush(p->o.out);
    }
    p->step_count = 0;
    p->count = 0;
    pthread_mutex_unlock(&p->lock);
}

static bool is_of(const char *shown, size_t room, const char *vm)
{
    return shown[0] == 0 || strncmp(shown, vm, room - 1) == 0;
}

void progress_vm_done(struct progress *p, const char *vm)
{
    size_t steps = 0, disks = 0;

    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->step_count; i++)
        if (!is_of(p->steps[i].vm, sizeof p->steps[i].vm, vm))
            p->steps[steps++] = p->steps[i];
    for (size_t i = 0; i < p->count; i++)
        if (!is_of(p->disks[i].vm, sizeof p->disks[i].vm, vm))
            p->disks[disks++] = p->disks[i];
    p->step_count = steps;
    p->count = disks;
    if (p->o.draw) {
        erase(p);
        fflush(p->o.out);
        if (steps + disks > 0)
            draw(p);
    }
    pthread_mutex_unlock(&p->lock);
}

void progress_hide(void *progress)
{
    struct progress *p = progress;

    pthread_mutex_lock(&p->lock);
    erase(p);
    fflush(p->o.out);
    pthread_mutex_unlock(&p->lock);
}

void progress_show(void *progress)
{
    struct progress *p = progress;

    pthread_mutex_lock(&p->lock);
    if (p->step_count > 0 || p->count > 0)
        draw(p);
    pthread_mutex_unlock(&p->lock);
}
