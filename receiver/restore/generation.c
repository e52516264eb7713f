/* The generation that a user means: GEN of the command line. */
#include "receiver/restore/generation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "protocol/base/err.h"

enum { GEN_MAX = 4096, ID_PREFIX_LEAST = 4, NUMBER_DIGITS = 9 };

static bool is_named(const struct generation_item *i, const char *name)
{
    if (strncmp(name, "uuid:", 5) == 0 && strcasecmp(name + 5, i->uuid) == 0)
        return true;
    return strcmp(i->vm, name) == 0 || strcmp(i->vm_now, name) == 0 ||
           (i->called != NULL && strcmp(i->called, name) == 0);
}

bool generation_is_of_vm(const struct generation_item *item, const char *vm)
{
    const char *slash = strchr(vm, '/');

    if (is_named(item, vm))
        return true;
    return slash != NULL && (size_t)(slash - vm) == strlen(item->host) &&
           strncmp(vm, item->host, (size_t)(slash - vm)) == 0 && is_named(item, slash + 1);
}

/* An old name counts for the whole VM: does any generation of this place match? */
static bool vm_matches(const struct generation_list *l, const char *place, const char *vm)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct generation_item *item = l->at(l->context, i);

        if (strcmp(item->place, place) == 0 && generation_is_of_vm(item, vm))
            return true;
    }
    return false;
}

static const char *name_of(const struct generation_item *item)
{
    return item->called != NULL ? item->called : item->vm_now;
}

int generation_find_vm(const struct generation_list *l, const char *vm, const char **out,
                       struct err *e)
{
    const char *found = NULL, *last = NULL;
    char names[300] = "";
    unsigned count = 0;

    for (size_t i = 0; i < l->count; i++) {
        const struct generation_item *item = l->at(l->context, i);
        size_t used = strlen(names);

        if ((last != NULL && strcmp(item->place, last) == 0) ||
            (vm != NULL && !vm_matches(l, item->place, vm)))
            continue;
        last = found = item->place;
        count++;
        snprintf(names + used, sizeof names - used, "%s%s (%s)", count > 1 ? ", " : "",
                 name_of(item), item->host);
    }
    if (count == 1) {
        *out = found;
        return 0;
    }
    if (count == 0)
        return vm != NULL ? err_set(e, ERR_NOT_FOUND, "no generation of a VM %s is here", vm)
                          : err_set(e, ERR_NOT_FOUND, "no generation is here");
    return err_set(e, ERR_NOT_FOUND, "%s means more than one VM: %s", vm != NULL ? vm : "that",
                   names);
}

static int by_number(const struct generation_list *l, const char *place, uint64_t number,
                     const struct generation_item **out, struct err *e)
{
    const char *name = "it";

    for (size_t i = 0; i < l->count; i++) {
        const struct generation_item *item = l->at(l->context, i);

        if (strcmp(item->place, place) != 0)
            continue;
        name = name_of(item);
        if (item->number == number) {
            *out = item;
            return 0;
        }
    }
    return err_set(e, ERR_NOT_FOUND, "%s has no generation %" PRIu64, name, number);
}

/* The newest ok one in [from, to), and a partial one that is newer. */
static int by_time(const struct generation_list *l, const char *place, int64_t from, int64_t to,
                   const struct generation_item **out, uint64_t *newer_partial)
{
    uint64_t partial = 0;

    *out = NULL;
    for (size_t i = 0; i < l->count; i++) {
        const struct generation_item *item = l->at(l->context, i);

        if (strcmp(item->place, place) != 0 || item->time < from || item->time >= to)
            continue;
        if (strcmp(item->outcome, "ok") == 0)
            *out = item;
        else
            partial = item->number;
    }
    if (*out == NULL)
        return -1;
    if (newer_partial != NULL)
        *newer_partial = partial > (*out)->number ? partial : 0;
    return 0;
}

/* --- dates --- */

static bool digits(const char **at, unsigned count, int least, int most, int *out)
{
    int n = 0;

    for (unsigned i = 0; i < count; i++) {
        if ((*at)[i] < '0' || (*at)[i] > '9')
            return false;
        n = n * 10 + ((*at)[i] - '0');
    }
    *at += count;
    *out = n;
    return n >= least && n <= most;
}

/* "Z", "+01:30", or nothing: local.  Seconds east of UTC. */
static bool zone(const char *at, bool *local, int64_t *east)
{
    int hours, minutes, sign = *at == '-' ? -1 : 1;

    *local = *at == 0;
    *east = 0;
    if (*at == 0 || strcmp(at, "Z") == 0)
        return true;
    if (*at != '+' && *at != '-')
        return false;
    at++;
    if (!digits(&at, 2, 0, 23, &hours))
        return false;
    if (*at == ':')
        at++;
    if (!digits(&at, 2, 0, 59, &minutes) || *at != 0)
        return false;
    *east = sign * (hours * 3600 + minutes * 60);
    return true;
}

static int64_t moment(struct tm tm, bool local, int64_t east)
{
    tm.tm_isdst = -1;
    return local ? (int64_t)mktime(&tm) : (int64_t)timegm(&tm) - east;
}

/* 2026-11-20, 2026-11-20T10:30, 2026-11-20T10:30:15, each with a zone: the seconds it spans. */
static bool parse_time(const char *at, int64_t *from, int64_t *to)
{
    struct tm tm = { 0 }, end;
    int year, month;
    int64_t east;
    bool local;

    if (!digits(&at, 4, 1970, 9999, &year) || *at++ != '-' || !digits(&at, 2, 1, 12, &month) ||
        *at++ != '-' || !digits(&at, 2, 1, 31, &tm.tm_mday))
        return false;
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    end = tm;
    end.tm_mday++;
    if (*at == 'T' || *at == ' ') {
        at++;
        if (!digits(&at, 2, 0, 23, &tm.tm_hour) || *at++ != ':' ||
            !digits(&at, 2, 0, 59, &tm.tm_min))
            return false;
        end = tm;
        if (*at == ':') {
            at++;
            if (!digits(&at, 2, 0, 60, &tm.tm_sec))
                return false;
            end.tm_sec = tm.tm_sec + 1;
        } else {
            end.tm_min++;
        }
    }
    if (!zone(at, &local, &east))
        return false;
    *from = moment(tm, local, east);
    *to = moment(end, local, east);
    return true;
}

/* --- the forms --- */

static bool all_digits(const char *text, size_t most)
{
    size_t count = strlen(text);

    return count > 0 && count <= most && strspn(text, "0123456789") == count && text[0] != '0';
}

static int by_id(const struct generation_list *l, const char *prefix,
                 const struct generation_item **out, struct err *e)
{
    size_t count = strlen(prefix);
    unsigned found = 0;

    for (size_t i = 0; i < l->count; i++)
        if (strncmp(l->at(l->context, i)->id, prefix, count) == 0) {
            *out = l->at(l->context, i);
            found++;
        }
    if (found == 1)
        return 0;
    return err_set(e, ERR_NOT_FOUND,
                   found == 0 ? "no generation has an id that begins with %s"
                              : "more than one generation has an id that begins with %s",
                   prefix);
}

static int only_number(const struct generation_list *l, const char *gen,
                       const struct generation_item **out, struct err *e)
{
    const char *place;

    if (generation_find_vm(l, NULL, &place, e) != 0)
        return err_add(e, "%s", gen);
    return by_number(l, place, strtoull(gen, NULL, 10), out, e);
}

static int without_vm(const struct generation_list *l, const char *gen,
                      const struct generation_item **out, struct err *e)
{
    size_t count = strlen(gen);
    bool is_number = all_digits(gen, NUMBER_DIGITS);
    bool is_id = count >= ID_PREFIX_LEAST && count < GENERATION_ID_ROOM &&
                 strspn(gen, "0123456789abcdef") == count;
    struct err none;

    if (is_number) {
        if (only_number(l, gen, out, e) == 0)
            return 0;
        /* The start of an id may happen to be digits alone. */
        return is_id && by_id(l, gen, out, &none) == 0 ? 0 : -1;
    }
    if (is_id)
        return by_id(l, gen, out, e);
    return err_set(e, ERR_USAGE,
                   "%s: a generation is VM@N, VM@latest, VM@2026-11-20, N, or the start of its id",
                   gen);
}

int generation_find(const struct generation_list *l, const char *gen,
                    const struct generation_item **out, uint64_t *newer_partial, struct err *e)
{
    const char *at = strrchr(gen, '@');
    int64_t from = INT64_MIN, to = INT64_MAX;
    const char *place;
    char *vm;
    int rc;

    if (newer_partial != NULL)
        *newer_partial = 0;
    if (strlen(gen) > GEN_MAX)
        return err_set(e, ERR_USAGE, "that is too long for a generation");
    if (at == NULL)
        return without_vm(l, gen, out, e);
    vm = strndup(gen, (size_t)(at - gen));
    if (vm == NULL)
        return err_sys(e, "getting memory");
    rc = generation_find_vm(l, vm, &place, e);
    free(vm);
    if (rc != 0)
        return -1;
    if (all_digits(at + 1, 18))
        return by_number(l, place, strtoull(at + 1, NULL, 10), out, e);
    if (strcmp(at + 1, "latest") != 0 && !parse_time(at + 1, &from, &to))
        return err_set(e, ERR_USAGE, "%s: what follows the @ is a number, `latest` or a date", gen);
    if (by_time(l, place, from, to, out, newer_partial) != 0)
        return err_set(e, ERR_NOT_FOUND, "%s: there is no good generation of that time", gen);
    return 0;
}
