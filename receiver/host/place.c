#include "receiver/host/place.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/failpoint.h"
#include "receiver/base/log.h"
#include "receiver/host/datastores.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/ssh/transport.h"

#define AGENT_NAME "vmferry-agent"
#define FOLDER_START ".vmferry-"
/* Free room that must stay beside the agent. */
#define PLACE_SPARE_BYTES (UINT64_C(64) << 20)
#define UPLOAD_MS UINT64_C(300000)
#define START_MS UINT64_C(30000)

enum {
    CANDIDATES_MAX = 8,
    REMOVE_TRIES = 3,
    AGENT_END_MS = 40000, /* an agent gives up after 30 s of silence */
    AGENT_POLL_MS = 500,
};

/* A local file in memory, with its hash. */
struct agent_bytes {
    uint8_t *data;
    size_t count;
    char sha256[65];
};

static void to_hex(const unsigned char *in, size_t count, char *out)
{
    for (size_t i = 0; i < count; i++)
        snprintf(out + 2 * i, 3, "%02x", in[i]);
}

static int load(const char *path, struct agent_bytes *out, struct err *e)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned hash_bytes;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = -1;

    *out = (struct agent_bytes){ 0 };
    if (fd < 0 || fstat(fd, &st) != 0) {
        err_sys(e, "the agent's file");
        e->code = ERR_USAGE;
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > PLACE_AGENT_BYTES_MAX) {
        err_set(e, ERR_USAGE, "this is no agent: no file of 1 byte to %d MiB",
                PLACE_AGENT_BYTES_MAX >> 20);
        goto out;
    }
    out->count = (size_t)st.st_size;
    out->data = malloc(out->count);
    if (out->data == NULL) {
        err_sys(e, "reading the agent");
        goto out;
    }
    if (io_read_all(fd, out->data, out->count, e) != 0)
        goto out;
    if (EVP_Digest(out->data, out->count, hash, &hash_bytes, EVP_sha256(), NULL) != 1 ||
        hash_bytes != 32) {
        err_set(e, ERR_SYSTEM, "no SHA-256");
        goto out;
    }
    to_hex(hash, 32, out->sha256);
    rc = 0;

out:
    io_drop(&fd);
    if (rc != 0) {
        free(out->data);
        out->data = NULL;
        return err_add(e, "%s", path);
    }
    return 0;
}

static const char *first_line(const char *text, char *out, size_t room)
{
    snprintf(out, room, "%.*s", (int)strcspn(text, "\r\n"), text);
    return out;
}

/* ---- removal ---- */

/* Only a folder that bears the entry's own token, in one of the two places where we put any. */
static bool folder_is_ours(const struct journal_entry *entry)
{
    const char *name = strrchr(entry->folder, '/');

    return name != NULL && strncmp(name + 1, FOLDER_START, sizeof FOLDER_START - 1) == 0 &&
           strcmp(name + 1 + sizeof FOLDER_START - 1, entry->token) == 0 &&
           (strncmp(entry->folder, "/vmfs/volumes/", 14) == 0 ||
            strncmp(entry->folder, "/tmp/", 5) == 0) &&
           strstr(entry->folder, "/../") == NULL && entry->file_count <= JOURNAL_FILES_MAX;
}

/* [ -e FOLDER ] || exit 44; rm -f FILES; rmdir FOLDER */
static int removal_command(const struct journal_entry *entry, struct bytes *command, struct err *e)
{
    char path[JOURNAL_TEXT_MAX + 80];
    static const char test[] = "[ -e ", missing[] = " ] || exit 44; ", rm[] = "rm -f ",
                      folder[] = "; rmdir ";

    if (bytes_append(command, test, sizeof test - 1, e) != 0 ||
        shell_quote(command, entry->folder, e) != 0 ||
        bytes_append(command, missing, sizeof missing - 1, e) != 0)
        return -1;
    for (size_t i = 0; i < entry->file_count; i++) {
        snprintf(path, sizeof path, "%s/%s", entry->folder, entry->files[i].name);
        if (bytes_append(command, i == 0 ? rm : " ", i == 0 ? sizeof rm - 1 : 1, e) != 0 ||
            shell_quote(command, path, e) != 0)
            return -1;
    }
    if (bytes_append(command, folder, sizeof folder - 1, e) != 0 ||
        shell_quote(command, entry->folder, e) != 0)
        return -1;
    return bytes_text(command, e) == NULL ? -1 : 0;
}

int place_remove_entry(struct host *h, const struct journal_entry *entry, bool *removed,
                       struct err *e)
{
    struct bytes command = { .ceiling = HOST_COMMAND_MAX };
    char line[300] = "";
    int rc = -1;

    *removed = false;
    if (!folder_is_ours(entry))
        return err_set(e, ERR_REFUSED, "%s is no folder of ours", entry->folder);
    if (removal_command(entry, &command, e) != 0)
        goto out;
    for (unsigned i = 0; i < REMOVE_TRIES; i++) {
        struct host_answer a;
        int status;

        if (i > 0)
            host_pause(h, 2000);
        if (host_run(h, (const char *)command.data, HOST_COMMAND_MS, &a, e) != 0)
            goto out;
        status = a.status;
        first_line(a.complaint, line, sizeof line);
        host_answer_free(&a);
        if (status == 0 || status == 44) {
            *removed = *removed || status == 0 || i > 0;
            rc = 0;
            goto out;
        }
    }
    err_set(e, ERR_CLEANUP, "the agent's folder %s could not be removed: %s", entry->folder, line);

out:
    bytes_free(&command);
    return rc;
}

int place_wait_ended(struct host *h, const char *folder, struct err *e)
{
    const char *slash = strrchr(folder, '/');
    const char *name = slash != NULL ? slash + 1 : folder;
    uint64_t start = host_clock_ms(h);

    for (;;) {
        struct host_answer a;
        bool runs;

        if (host_call(h, &a, HOST_COMMAND_MS, e, "ps", "-c", NULL) != 0)
            return -1;
        runs = a.status == 0 && strstr(a.out, name) != NULL;
        host_answer_free(&a);
        if (!runs)
            return 0;
        if (host_clock_ms(h) - start >= AGENT_END_MS)
            return err_set(e, ERR_CLEANUP, "the agent in %s still runs on the host", folder);
        host_pause(h, AGENT_POLL_MS);
    }
}

int place_remove(struct host *h, struct placed *p, struct err *e)
{
    bool removed;
    int rc;

    if (p->ticket == NULL)
        return 0;
    /* Written down or not: the folder goes. */
    if (journal_step(p->ticket, JOURNAL_REMOVING, host_now(h), e) != 0)
        log_warning("%s", e->text);
    if (failpoint("place.remove", e) != 0 ||
        place_remove_entry(h, journal_entry_of(p->ticket), &removed, e) != 0 ||
        failpoint("place.removed", e) != 0)
        return -1;
    rc = journal_done(p->ticket, e);
    p->ticket = NULL;
    return rc;
}

void placed_free(struct placed *p)
{
    free(p->path);
    free(p->folder);
    journal_leave(p->ticket);
    *p = (struct placed){ 0 };
}

/* ---- placing ---- */

static int candidate(char (*list)[DATASTORE_PATH_MAX], size_t *count, const char *path)
{
    for (size_t i = 0; i < *count; i++)
        if (strcmp(list[i], path) == 0)
            return 0;
    if (*count < CANDIDATES_MAX)
        snprintf(list[(*count)++], DATASTORE_PATH_MAX, "%s", path);
    return 0;
}

/* Places to try in order: what the user said; or the VM's datastore, those with most room, /tmp. */
static int list_candidates(const struct place_wish *wish, size_t agent_count,
                           char (*list)[DATASTORE_PATH_MAX], size_t *count, struct err *e)
{
    const struct datastore_list *stores = wish->stores;
    const struct datastore *own = NULL;
    bool used[DATASTORE_COUNT_MAX] = { false };

    *count = 0;
    if (wish->agent_dir != NULL) {
        if (datastore_absolute(stores, wish->agent_dir, list[0], e) != 0) {
            e->code = ERR_USAGE;
            return err_add(e, "--agent-dir");
        }
        *count = 1;
        return 0;
    }
    if (wish->vm != NULL)
        own = datastore_of(stores, wish->vm->vmx);
    if (own != NULL && own->files && own->free_bytes >= agent_count + PLACE_SPARE_BYTES)
        candidate(list, count, own->path);
    while (*count < CANDIDATES_MAX - 1) {
        const struct datastore *best = NULL;

        for (size_t i = 0; i < stores->count; i++)
            if (!used[i] && stores->items[i].files &&
                (best == NULL || stores->items[i].free_bytes > best->free_bytes))
                best = &stores->items[i];
        if (best == NULL || best->free_bytes < agent_count + PLACE_SPARE_BYTES)
            break;
        used[best - stores->items] = true;
        candidate(list, count, best->path);
    }
    if (agent_count <= PLACE_TMP_BYTES_MAX)
        candidate(list, count, "/tmp");
    if (*count == 0)
        return err_set(e, ERR_SPACE, "no datastore of the host has room for the agent");
    return 0;
}

static int begin(struct host *h, struct journal *j, const char *parent,
                 const struct agent_bytes *agent, struct placed *out, struct err *e)
{
    struct journal_entry *entry = calloc(1, sizeof *entry);
    struct journal_entry *live;
    int rc = -1;

    if (entry == NULL)
        return err_sys(e, "placing the agent");
    entry->kind = JOURNAL_AGENT;
    entry->port = h->port;
    snprintf(entry->host_uuid, sizeof entry->host_uuid, "%s", h->uuid);
    snprintf(entry->address, sizeof entry->address, "%s", h->address);
    snprintf(entry->user, sizeof entry->user, "%s", h->user);
    snprintf(entry->files[0].name, sizeof entry->files[0].name, AGENT_NAME);
    memcpy(entry->files[0].sha256, agent->sha256, sizeof agent->sha256);
    entry->file_count = 1;
    if (journal_begin(j, entry, host_now(h), &out->ticket, e) != 0)
        goto out;
    /* The folder's name is the token's, so it is known only now; nothing exists on the host yet. */
    live = journal_entry_of(out->ticket);
    if (snprintf(live->folder, sizeof live->folder, "%s/" FOLDER_START "%s", parent, live->token) >=
        (int)sizeof live->folder) {
        err_set(e, ERR_LIMIT, "the path of the agent's folder is too long");
        goto out;
    }
    if (journal_write(out->ticket, host_now(h), e) != 0)
        goto out;
    out->folder = strdup(live->folder);
    if (out->folder == NULL || asprintf(&out->path, "%s/" AGENT_NAME, live->folder) < 0) {
        out->path = NULL;
        err_set(e, ERR_SYSTEM, "no memory for a path");
        goto out;
    }
    rc = 0;

out:
    free(entry);
    return rc;
}

static int make_folder(struct host *h, const char *folder, struct err *e)
{
    struct bytes command = { .ceiling = HOST_COMMAND_MAX };
    static const char start[] = "umask 077; mkdir ";
    struct host_answer a = { 0 };
    char line[300];
    int rc = -1;

    if (bytes_append(&command, start, sizeof start - 1, e) != 0 ||
        shell_quote(&command, folder, e) != 0 || bytes_text(&command, e) == NULL ||
        host_run(h, (const char *)command.data, HOST_COMMAND_MS, &a, e) != 0)
        goto out;
    if (a.status != 0) {
        first_line(a.complaint, line, sizeof line);
        err_set(e, strstr(line, "No space") != NULL ? ERR_SPACE : ERR_REFUSED,
                "the host makes no folder: %s", line);
        goto out;
    }
    rc = 0;

out:
    host_answer_free(&a);
    bytes_free(&command);
    return rc;
}

static int check_hash(struct host *h, const char *path, const struct agent_bytes *agent,
                      struct err *e)
{
    struct host_answer a;
    int rc = 0;

    if (host_call(h, &a, HOST_COMMAND_MS, e, "sha256sum", path, NULL) != 0)
        return -1;
    if (a.status != 0 || strncmp(a.out, agent->sha256, 64) != 0 || a.out[64] != ' ')
        rc = err_set(e, ERR_CORRUPT,
                     "the agent on the host is not what was sent: its SHA-256 is %.64s, not %s",
                     a.out_bytes >= 64 ? a.out : "unknown", agent->sha256);
    host_answer_free(&a);
    return rc;
}

enum place_outcome place_judge_start(int status, const char *complaint, char *reason, size_t room)
{
    char line[200];

    first_line(complaint, line, sizeof line);
    if (strstr(complaint, "Operation not permitted") != NULL) {
        snprintf(
            reason, room,
            "the host runs only programs of its own (setting /User/execInstalledOnly: \"%s\"), so "
            "the disks are read over SSH with dd: slower, with the same result; --allow-exec, "
            "which "
            "is to lift that setting for the time of a run, is not there yet",
            line);
        return PLACE_REFUSED;
    }
    if (strstr(complaint, "Permission denied") != NULL)
        snprintf(reason, room,
                 "the host may not run the agent from this folder: \"%s\" (a datastore mounted "
                 "without the right to execute, or NFS with root_squash); name another with "
                 "--agent-dir",
                 line);
    else if (strstr(complaint, "Exec format error") != NULL ||
             strstr(complaint, "cannot execute") != NULL ||
             strstr(complaint, "syntax error") != NULL)
        snprintf(reason, room,
                 "the agent is not made for this host: \"%s\"; give another with "
                 "--agent-file",
                 line);
    else if (status == 127)
        snprintf(reason, room, "the host cannot start the agent: \"%s\"", line);
    else
        snprintf(reason, room,
                 "the agent does not work on this host: it ended with status %d, \"%s\"", status,
                 line);
    return PLACE_UNRUNNABLE;
}

/* *elsewhere: the fault is the folder's, so another place may do. */
static int try_start(struct host *h, struct placed *out, bool *elsewhere, struct err *e)
{
    struct host_answer a;

    if (host_call(h, &a, START_MS, e, out->path, "--version", NULL) != 0)
        return err_add(e, "trying the agent");
    out->outcome = PLACE_READY;
    if (a.status != 0 || a.out_bytes == 0)
        out->outcome = place_judge_start(a.status, a.complaint, out->reason, sizeof out->reason);
    else
        first_line(a.out, out->version, sizeof out->version);
    *elsewhere =
        out->outcome == PLACE_UNRUNNABLE && strstr(a.complaint, "Permission denied") != NULL;
    host_answer_free(&a);
    return 0;
}

static int place_at(struct host *h, struct journal *j, const char *parent,
                    const struct agent_bytes *agent, struct placed *out, bool *elsewhere,
                    struct err *e)
{
    if (begin(h, j, parent, agent, out, e) != 0 || make_folder(h, out->folder, e) != 0 ||
        failpoint("place.folder", e) != 0 ||
        journal_step(out->ticket, JOURNAL_CREATED, host_now(h), e) != 0)
        return -1;
    if (transport_upload(h->transport, agent->data, agent->count, -1, out->path, 0700, UPLOAD_MS,
                         e) != 0)
        return err_add(e, "sending the agent");
    if (failpoint("place.uploaded", e) != 0 || check_hash(h, out->path, agent, e) != 0)
        return -1;
    return try_start(h, out, elsewhere, e);
}

/* Another place may do better. */
static bool is_local(const struct err *e)
{
    return e->code == ERR_SPACE || e->code == ERR_REFUSED;
}

int place_agent(struct host *h, struct journal *j, const struct place_wish *wish,
                struct placed *out, struct err *e)
{
    char(*list)[DATASTORE_PATH_MAX] = calloc(CANDIDATES_MAX, sizeof *list);
    struct agent_bytes agent = { 0 };
    struct err removal;
    size_t count = 0;
    int rc = -1;

    *out = (struct placed){ 0 };
    if (list == NULL) {
        err_sys(e, "placing the agent");
        goto out;
    }
    if (load(wish->agent_file, &agent, e) != 0 ||
        list_candidates(wish, agent.count, list, &count, e) != 0)
        goto out;
    for (size_t i = 0; i < count; i++) {
        bool elsewhere = false;

        rc = place_at(h, j, list[i], &agent, out, &elsewhere, e);
        if (rc == 0 && out->outcome == PLACE_READY)
            break;
        if (rc != 0 && e->code == ERR_NETWORK)
            break; /* the entry stays; nothing can be removed now */
        if (place_remove(h, out, &removal) != 0)
            log_warning("the agent's folder %s is left for now: %s", out->folder, removal.text);
        if (rc == 0 && (!elsewhere || i + 1 == count))
            break;
        log_info("placing the agent in %s: %s", list[i], rc == 0 ? out->reason : e->text);
        placed_free(out);
        if (rc != 0 && !is_local(e))
            break;
    }

out:
    if (rc != 0)
        placed_free(out);
    free(agent.data);
    free(list);
    if (rc != 0 && count > 0 && wish->agent_dir != NULL)
        err_add(e, "--agent-dir %s", wish->agent_dir); /* the path below it is the host's */
    return rc == 0 ? 0 : err_add(e, "placing the agent");
}

/* ---- policy ---- */

/* The value behind "   Int Value: ", or -1. */
static int int_value(const char *text)
{
    const char *at = strstr(text, "\n   Int Value: ");

    if (at == NULL)
        return -1;
    at += 15;
    return (*at == '0' || *at == '1') && (at[1] == '\n' || at[1] == '\0') ? *at - '0' : -1;
}

/* The fourth word of the option's row: its value at run time. */
static int kernel_value(const char *text)
{
    const char *row = strstr(text, "\nexecInstalledOnly ");
    char word[4][64];

    if (row == NULL || sscanf(row, "%63s %63s %63s %63s", word[0], word[1], word[2], word[3]) != 4)
        return -1;
    if (strcmp(word[3], "TRUE") == 0)
        return 1;
    return strcmp(word[3], "FALSE") == 0 ? 0 : -1;
}

int place_exec_policy(struct host *h, enum exec_policy *out, struct err *e)
{
    struct host_answer a;
    int runtime, boot;

    *out = EXEC_UNKNOWN;
    if (host_call(h, &a, HOST_COMMAND_MS, e, "/bin/esxcli", "system", "settings", "advanced",
                  "list", "-o", "/User/execInstalledOnly", NULL) != 0)
        return -1;
    runtime = a.status == 0 ? int_value(a.out) : -1; /* before 8.0 there is no such option */
    host_answer_free(&a);
    if (runtime == 1) {
        *out = EXEC_REFUSED;
        return 0;
    }
    if (host_call(h, &a, HOST_COMMAND_MS, e, "/bin/esxcli", "system", "settings", "kernel", "list",
                  "-o", "execInstalledOnly", NULL) != 0)
        return -1;
    boot = a.status == 0 ? kernel_value(a.out) : -1;
    host_answer_free(&a);
    if (boot == 1)
        *out = EXEC_REFUSED;
    else if (runtime == 0 || boot == 0)
        *out = EXEC_ALLOWED;
    return 0;
}
