#include "receiver/cli/options.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/digest.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/targets.h"
#include "receiver/mirror/mirror.h"

enum { SLICES_MAX = 10000 };

struct option_row {
    const char *long_name;
    char short_name;
    const char *value; /* its value's name in --help; NULL: it takes none; "[=x]": optional */
    const char *words; /* for the completion, see struct option_word */
    const char *help;
};

static const struct option_row rows[OPTION_COUNT] = {
    [OPTION_JSON] = { "json", 0, NULL, NULL, "results as JSON lines on standard output" },
    [OPTION_QUIET] = { "quiet", 'q', NULL, NULL, "no notes; twice: errors only" },
    [OPTION_VERBOSE] = { "verbose", 'v', NULL, NULL, "each step; twice: in detail" },
    [OPTION_PROGRESS] = { "progress", 0, NULL, NULL, "show progress even without a terminal" },
    [OPTION_NO_PROGRESS] = { "no-progress", 0, NULL, NULL, "show no progress" },
    [OPTION_LOG_FILE] = { "log-file", 0, "FILE", "FILE", "add what happens, with times, to FILE" },
    [OPTION_CONFIG] = { "config", 0, "FILE", "FILE", "configuration file (not used yet)" },
    [OPTION_STATE_DIR] = { "state-dir", 0, "DIR", "DIR",
                           "journal and known hosts; ~/.local/state/vmferry" },
    [OPTION_IDENTITY] = { "identity", 'i', "KEYFILE", "FILE",
                          "private key to log in with; repeatable" },
    [OPTION_PASSWORD_FILE] = { "password-file", 0, "FILE", "FILE",
                               "password: first line of FILE (yours, mode 0600)" },
    [OPTION_PASSWORD_COMMAND] = { "password-command", 0, "CMD", "",
                                  "password: first line that CMD prints" },
    [OPTION_KNOWN_HOSTS] = { "known-hosts", 0, "FILE", "FILE",
                             "host keys; ~/.ssh/known_hosts and our own" },
    [OPTION_ACCEPT_NEW_HOST_KEY] = { "accept-new-host-key", 0, NULL, NULL,
                                     "trust the key of a host never seen before" },
    [OPTION_LOCK_WAIT] = { "lock-wait", 0, "TIME", "", "wait for other runs at most TIME; 10m" },
    [OPTION_DATA_CHANNEL] = { "data-channel", 0, "HOW", "auto tcp ssh",
                              "how disk data travels: auto, tcp or ssh" },
    [OPTION_DATA_LISTEN] = { "data-listen", 0, "ADDR[:PORT]", "",
                             "listen for data here; ports 31031, 44046, 8000" },
    [OPTION_DATA_CONNECT] = { "data-connect", 0, "ADDR[:PORT]", "",
                              "what the host dials instead, for NAT" },
    [OPTION_DATA_SECURITY] = { "data-security", 0, "HOW", "encrypt auth",
                               "seal data over TCP: encrypt or auth" },
    [OPTION_AGENT_FILE] = { "agent-file", 0, "FILE", "FILE", "agent to upload instead of ours" },
    [OPTION_VERSION] = { "version", 0, NULL, NULL, "print the version" },
    [OPTION_HELP] = { "help", 'h', NULL, NULL, "print this help" },

    [OPTION_KEEP] = { "keep", 0, "N", "", "keep N earlier generations; the mirror remembers N" },
    [OPTION_BLOCK_SIZE] = { "block-size", 0, "SIZE", "16k 32k 64k 128k 256k 512k 1M 2M 4M",
                            "new disks: compare and send SIZE at a time; 64k" },
    [OPTION_DRY_RUN] = { "dry-run", 'n', NULL, NULL, "show what would be done, change nothing" },
    [OPTION_FULL] = { "full", 0, NULL, NULL, "read and send everything that is allocated" },
    [OPTION_COMPRESS] = { "compress", 0, "LEVEL", "auto none 1 3 6 9 12 15 19",
                          "auto, none, or 1 to 19" },
    [OPTION_BWLIMIT] = { "bwlimit", 0, "RATE", "",
                         "at most RATE bytes per second of data, like 20M" },
    [OPTION_QUIESCE] = { "quiesce", 0, "HOW", "try require no",
                         "still the guest's file systems: try, require or no" },
    [OPTION_EXCLUDE_DISK] = { "exclude-disk", 0, "SLOT", "",
                              "leave out a disk (scsi0:1); repeatable" },
    [OPTION_ONLY_DISK] = { "only-disk", 0, "SLOT", "", "take only this disk; repeatable" },
    [OPTION_RETAIN_SNAPSHOT] = { "retain-snapshot", 0, NULL, NULL,
                                 "keep the snapshot: the next run reads only changes" },
    [OPTION_MAX_RETAINED_AGE] = { "max-retained-age", 0, "TIME", "",
                                  "remove a kept snapshot that is older; 8d" },
    [OPTION_MAX_SNAPSHOT_AGE] = { "max-snapshot-age", 0, "TIME", "",
                                  "give up a run whose snapshot is older; 24h" },
    [OPTION_MIN_FREE] = { "min-free", 0, "SIZE|P%", "", "room to leave on each datastore; 10%" },
    [OPTION_STALL_TIMEOUT] = { "stall-timeout", 0, "TIME", "",
                               "give up a read that takes longer; 600s" },
    [OPTION_AGENT_DIR] = { "agent-dir", 0, "'[ds] dir'", "", "where the agent goes on the host" },
    [OPTION_YES] = { "yes", 0, NULL, NULL, "answer questions with yes" },
    [OPTION_MIRROR] = { "mirror", 0, "DIR", "DIR",
                        "the mirrors' directory, or one VM's folder in it" },
    [OPTION_OUTPUT] = { "output", 0, "PATH", "FILE", "what to make: a file, or a directory" },
    [OPTION_READ_DATA] = { "read-data", 0, "[=K/N]", "", "read everything, or slice K of N" },
    [OPTION_RETAINED] = { "retained", 0, NULL, NULL, "remove kept snapshots of ours as well" },
    [OPTION_FOREIGN] = { "foreign", 0, "TOKEN", "",
                         "remove another receiver's snapshot, by its token" },
    [OPTION_VOLUME] = { "volume", 0, "DIR", "DIR",
                        "parents and extents may lie in DIR too; repeatable" },
    [OPTION_REPO] = { "repo", 'r', "REPO", "DIR", "the repository: a directory" },
    [OPTION_REPO_PASSWORD_FILE] = { "repo-password-file", 0, "FILE", "FILE",
                                    "passphrase: first line of FILE (mode 0600)" },
    [OPTION_REPO_PASSWORD_COMMAND] = { "repo-password-command", 0, "CMD", "",
                                       "passphrase: first line that CMD prints" },
    [OPTION_KEY_FILE] = { "key-file", 0, "FILE", "FILE", "open it with FILE of key export" },
    [OPTION_NEW_PASSWORD_FILE] = { "new-password-file", 0, "FILE", "FILE",
                                   "the new passphrase: first line of FILE" },
    [OPTION_ENCRYPT] = { "encrypt", 0, NULL, NULL, "encrypt all that is stored" },
    [OPTION_APPEND_ONLY] = { "append-only", 0, NULL, NULL, "refuse forget and prune for ever" },
    [OPTION_FILE] = { "file", 0, "NAME=DISK", "", "a local disk image of the VM NAME; repeatable" },
    [OPTION_KEEP_LAST] = { "keep-last", 0, "N", "", "keep the N newest" },
    [OPTION_KEEP_HOURLY] = { "keep-hourly", 0, "N", "", "keep the newest of each of N hours" },
    [OPTION_KEEP_DAILY] = { "keep-daily", 0, "N", "", "keep the newest of each of N days" },
    [OPTION_KEEP_WEEKLY] = { "keep-weekly", 0, "N", "", "keep the newest of each of N weeks" },
    [OPTION_KEEP_MONTHLY] = { "keep-monthly", 0, "N", "", "keep the newest of each of N months" },
    [OPTION_KEEP_YEARLY] = { "keep-yearly", 0, "N", "", "keep the newest of each of N years" },
    [OPTION_KEEP_WITHIN] = { "keep-within", 0, "TIME", "", "keep all that are younger, like 30d" },
    [OPTION_KEEP_TAG] = { "keep-tag", 0, "TAG", "", "keep all with this tag; repeatable" },
    [OPTION_ROLL_OUT] = { "roll-out", 0, "N", "", "the same as --keep-last N" },
    [OPTION_MIN_AGE] = { "min-age", 0, "TIME", "", "leave alone what is younger; 0s" },
    [OPTION_TAG] = { "tag", 0, "TAG", "", "give the generation a tag; repeatable" },
    [OPTION_PIN] = { "pin", 0, NULL, NULL, "forget nothing: pin the generations" },
    [OPTION_ASK_FIRST] = { "ask-first", 0, "WHEN", "auto yes no",
                           "name blocks first, send new ones: auto, yes or no" },
    [OPTION_UNPIN] = { "unpin", 0, NULL, NULL, "forget nothing: take the pins away" },
    [OPTION_FORCE_DEVICE] = { "force-device", 0, NULL, NULL,
                              "overwrite the block device that --output names" },
    [OPTION_PARALLEL] = { "parallel", 0, "N", "1 2 3 4 6 8", "work on N VMs at once; 1" },
};

/* The words of a listed value, the first of which is the default. */
static int choose(int *out, const char *text, const char *const *words, size_t count, struct err *e)
{
    char all[64] = "", shown[64];

    for (size_t i = 0; i < count; i++) {
        size_t at = strlen(all);

        if (strcmp(text, words[i]) == 0) {
            *out = (int)i;
            return 0;
        }
        snprintf(all + at, sizeof all - at, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    utf8_show(shown, sizeof shown, text);
    return err_set(e, ERR_USAGE, "\"%s\" is none of %s", shown, all);
}

static int take_compress(struct options *o, const char *value, struct err *e)
{
    uint64_t level;

    if (strcmp(value, "auto") == 0) {
        o->compress = COMPRESS_AUTO;
    } else if (strcmp(value, "none") == 0) {
        o->compress = 0;
    } else if (number_parse(&level, value, 1, COMPRESS_LEVEL_MAX, NULL) == 0) {
        o->compress = (uint8_t)level;
    } else {
        return err_set(e, ERR_USAGE, "a level is auto, none, or a number from 1 to %d",
                       COMPRESS_LEVEL_MAX);
    }
    return 0;
}

static int take_slice(struct options *o, const char *value, struct err *e)
{
    char first[16];
    const char *slash = strchr(value, '/');
    uint64_t k, n;

    if (slash == NULL || (size_t)(slash - value) >= sizeof first)
        return err_set(e, ERR_USAGE, "a slice is K/N, like 2/7");
    memcpy(first, value, (size_t)(slash - value));
    first[slash - value] = 0;
    if (number_parse(&n, slash + 1, 1, SLICES_MAX, e) != 0 || number_parse(&k, first, 1, n, e) != 0)
        return -1;
    o->read_data_k = (uint32_t)k;
    o->read_data_n = (uint32_t)n;
    return 0;
}

/* A token is 32 hex digits; a whole snapshot name ends with one. */
static int take_token(struct options *o, const char *value, struct err *e)
{
    size_t count = strlen(value);
    const char *token = count > 32 ? value + count - 32 : value;

    if (strspn(token, "0123456789abcdef") != 32 || strlen(token) != 32 ||
        (count > 32 && strncmp(value, "vmferry-", 8) != 0))
        return err_set(e, ERR_USAGE,
                       "a token is the 32 hex digits at the end of a snapshot's name");
    o->foreign = token;
    return 0;
}

static int take_keep(struct options *o, const char *value, struct err *e)
{
    uint64_t keep;

    if (number_parse(&keep, value, 0, MIRROR_KEEP_MAX, e) != 0)
        return -1;
    o->keep = (uint32_t)keep;
    return 0;
}

static int take_block_size(struct options *o, const char *value, struct err *e)
{
    uint64_t size;

    if (size_parse(&size, value, e) != 0)
        return -1;
    if (!block_size_valid(size))
        return err_set(e, ERR_USAGE, "a block is a power of two from 16k to 4M");
    o->block_bytes = (uint32_t)size;
    return 0;
}

static int take_text(const char **out, const char *value, struct err *e)
{
    if (value[0] == 0)
        return err_set(e, ERR_USAGE, "its value is empty");
    *out = value;
    return 0;
}

static int take_slot(const char **list, size_t *count, const char *value, struct err *e)
{
    if (disk_slot_check(value, e) != 0)
        return -1;
    list[(*count)++] = value; /* as many places as there are arguments */
    return 0;
}

static int take_choice(struct options *o, enum option_id id, const char *value, struct err *e)
{
    static const char *const channels[] = { "auto", "tcp", "ssh" };
    static const char *const securities[] = { "encrypt", "auth" };
    static const char *const quiesce[] = { "try", "require", "no" };
    static const char *const ask_first[] = { "auto", "yes", "no" };
    static const uint8_t asking[] = { ASKING_SLOW, ASKING_ALWAYS, ASKING_NEVER };
    int n = 0;

    if (id == OPTION_DATA_CHANNEL) {
        if (choose(&n, value, channels, ARRAY_COUNT(channels), e) != 0)
            return -1;
        o->data.channel = (enum data_choice)n;
    } else if (id == OPTION_DATA_SECURITY) {
        if (choose(&n, value, securities, ARRAY_COUNT(securities), e) != 0)
            return -1;
        o->data.security = (enum data_security)n;
    } else if (id == OPTION_ASK_FIRST) {
        if (choose(&n, value, ask_first, ARRAY_COUNT(ask_first), e) != 0)
            return -1;
        o->ask_first = asking[n];
    } else {
        if (choose(&n, value, quiesce, ARRAY_COUNT(quiesce), e) != 0)
            return -1;
        o->quiesce = (enum snapshot_quiesce)n;
    }
    return 0;
}

/* A number of generations, or of hours, days … of which the newest stays. */
static int take_count(uint32_t *out, const char *value, struct err *e)
{
    uint64_t count;

    if (number_parse(&count, value, 0, KEEP_COUNT_MAX, e) != 0)
        return -1;
    *out = (uint32_t)count;
    return 0;
}

static int take_parallel(struct options *o, const char *value, struct err *e)
{
    uint64_t count;

    if (number_parse(&count, value, 1, PARALLEL_MAX, e) != 0)
        return -1;
    o->parallel = (unsigned)count;
    return 0;
}

static int take_tag(const char **list, size_t *count, const char *value, struct err *e)
{
    if (value[0] == 0 || strlen(value) > TAG_BYTES_MAX)
        return err_set(e, ERR_USAGE, "a tag is 1 to %d bytes", TAG_BYTES_MAX);
    list[(*count)++] = value;
    return 0;
}

static int take_file(struct options *o, const char *value, struct err *e)
{
    const char *equals = strchr(value, '=');

    if (equals == NULL || equals == value || equals[1] == 0)
        return err_set(e, ERR_USAGE, "it is NAME=DISK, like web01=/old/web01.vmdk");
    o->files[o->file_count++] = value;
    return 0;
}

/* Options of repositories.  1: not one of them. */
static int take_repo_value(struct options *o, enum option_id id, const char *value, struct err *e)
{
    switch (id) {
    case OPTION_REPO:
        return take_text(&o->repo, value, e);
    case OPTION_REPO_PASSWORD_FILE:
        return take_text(&o->repo_password_file, value, e);
    case OPTION_REPO_PASSWORD_COMMAND:
        return take_text(&o->repo_password_command, value, e);
    case OPTION_KEY_FILE:
        return take_text(&o->key_file, value, e);
    case OPTION_NEW_PASSWORD_FILE:
        return take_text(&o->new_password_file, value, e);
    case OPTION_FILE:
        return take_file(o, value, e);
    case OPTION_KEEP_LAST:
    case OPTION_ROLL_OUT:
        return take_count(&o->keep_policy.last, value, e);
    case OPTION_KEEP_HOURLY:
    case OPTION_KEEP_DAILY:
    case OPTION_KEEP_WEEKLY:
    case OPTION_KEEP_MONTHLY:
    case OPTION_KEEP_YEARLY:
        return take_count(&o->keep_policy.periods[id - OPTION_KEEP_HOURLY], value, e);
    case OPTION_KEEP_WITHIN:
        return duration_parse(&o->keep_policy.within_s, value, e);
    case OPTION_KEEP_TAG:
        return take_tag(o->keep_tags, &o->keep_policy.tag_count, value, e);
    case OPTION_MIN_AGE:
        return duration_parse(&o->min_age_s, value, e);
    case OPTION_TAG:
        return take_tag(o->tags, &o->tag_count, value, e);
    default:
        return 1;
    }
}

/* Options without a value. */
static void take_flag(struct options *o, enum option_id id)
{
    switch (id) {
    case OPTION_JSON:
        o->json = true;
        break;
    case OPTION_QUIET:
        o->quiet++;
        break;
    case OPTION_VERBOSE:
        o->verbose++;
        break;
    case OPTION_PROGRESS:
        o->progress = PROGRESS_YES;
        break;
    case OPTION_NO_PROGRESS:
        o->progress = PROGRESS_NO;
        break;
    case OPTION_ACCEPT_NEW_HOST_KEY:
        o->accept_new_host_key = true;
        break;
    case OPTION_VERSION:
        o->version = true;
        break;
    case OPTION_HELP:
        o->help = true;
        break;
    case OPTION_DRY_RUN:
        o->dry_run = true;
        break;
    case OPTION_FULL:
        o->full = true;
        break;
    case OPTION_YES:
        o->yes = true;
        break;
    case OPTION_RETAIN_SNAPSHOT:
        o->retain_snapshot = true;
        break;
    case OPTION_RETAINED:
        o->retained = true;
        break;
    case OPTION_ENCRYPT:
        o->encrypt = true;
        break;
    case OPTION_APPEND_ONLY:
        o->append_only = true;
        break;
    case OPTION_PIN:
        o->pin = true;
        break;
    case OPTION_UNPIN:
        o->unpin = true;
        break;
    case OPTION_FORCE_DEVICE:
        o->force_device = true;
        break;
    default:
        break;
    }
}

static int take_value(struct options *o, enum option_id id, const char *value, struct err *e)
{
    int rc = take_repo_value(o, id, value, e);

    if (rc <= 0)
        return rc;
    switch (id) {
    case OPTION_LOG_FILE:
        return take_text(&o->log_file, value, e);
    case OPTION_CONFIG: {
        const char *unused;

        return take_text(&unused, value, e);
    }
    case OPTION_STATE_DIR:
        return take_text(&o->state_dir, value, e);
    case OPTION_IDENTITY:
        return take_text(&o->identities[o->identity_count++], value, e);
    case OPTION_PASSWORD_FILE:
        return take_text(&o->password_file, value, e);
    case OPTION_PASSWORD_COMMAND:
        return take_text(&o->password_command, value, e);
    case OPTION_KNOWN_HOSTS:
        return take_text(&o->known_hosts, value, e);
    case OPTION_AGENT_FILE:
        return take_text(&o->agent_file, value, e);
    case OPTION_MIRROR:
        return take_text(&o->mirror, value, e);
    case OPTION_OUTPUT:
        return take_text(&o->output, value, e);
    case OPTION_VOLUME:
        return take_text(&o->volumes[o->volume_count++], value, e);
    case OPTION_LOCK_WAIT:
        return duration_parse(&o->lock_wait_s, value, e);
    case OPTION_MAX_SNAPSHOT_AGE:
        return duration_parse(&o->max_snapshot_age_s, value, e);
    case OPTION_MAX_RETAINED_AGE:
        return duration_parse(&o->max_retained_age_s, value, e);
    case OPTION_STALL_TIMEOUT:
        return duration_parse(&o->stall_timeout_s, value, e);
    case OPTION_DATA_CHANNEL:
    case OPTION_DATA_SECURITY:
    case OPTION_QUIESCE:
    case OPTION_ASK_FIRST:
        return take_choice(o, id, value, e);
    case OPTION_DATA_LISTEN:
        return data_address_parse(&o->data.listen, value, e);
    case OPTION_DATA_CONNECT:
        return data_address_parse(&o->data.connect, value, e);
    case OPTION_KEEP:
        return take_keep(o, value, e);
    case OPTION_BLOCK_SIZE:
        return take_block_size(o, value, e);
    case OPTION_COMPRESS:
        return take_compress(o, value, e);
    case OPTION_PARALLEL:
        return take_parallel(o, value, e);
    case OPTION_BWLIMIT:
        return rate_parse(&o->bwlimit, value, e);
    case OPTION_EXCLUDE_DISK:
        return take_slot(o->exclude, &o->exclude_count, value, e);
    case OPTION_ONLY_DISK:
        return take_slot(o->only, &o->only_count, value, e);
    case OPTION_MIN_FREE:
        return size_or_share_parse(&o->min_free, value, e);
    case OPTION_AGENT_DIR:
        o->agent_dir = value;
        return datastore_place_check(value, e);
    case OPTION_READ_DATA:
        return take_slice(o, value, e);
    case OPTION_FOREIGN:
        return take_token(o, value, e);
    default:
        return 0;
    }
}

/* ---- The walk over argv ---- */

struct walk {
    struct options *o;
    int argc, at;
    char *const *argv;
    struct err *e;
    bool failed; /* the first error is in e */
};

static void fail(struct walk *w, const struct err *why)
{
    if (!w->failed && w->e != NULL)
        *w->e = *why;
    w->failed = true;
}

static void fail_unknown(struct walk *w, const char *text)
{
    char shown[80];
    struct err e;

    utf8_show(shown, sizeof shown, text);
    err_set(&e, ERR_USAGE, "%s: no such option", shown);
    fail(w, &e);
}

/* value is NULL when none stands in the same argument. */
static void apply(struct walk *w, enum option_id id, const char *value)
{
    const struct option_row *row = &rows[id];
    struct err e = { .code = ERR_NONE };

    w->o->given |= OPTION_BIT(id);
    if (row->value == NULL) {
        if (value != NULL) {
            err_set(&e, ERR_USAGE, "--%s takes no value", row->long_name);
            fail(w, &e);
        } else {
            take_flag(w->o, id);
        }
        return;
    }
    if (value == NULL && row->value[0] == '[')
        return;
    if (value == NULL && w->at + 1 >= w->argc) {
        err_set(&e, ERR_USAGE, "--%s needs a value: %s", row->long_name, row->value);
        fail(w, &e);
        return;
    }
    if (value == NULL)
        value = w->argv[++w->at];
    if (take_value(w->o, id, value, &e) != 0) {
        err_add(&e, "--%s", row->long_name);
        fail(w, &e);
    }
}

static void take_long(struct walk *w, const char *text)
{
    const char *name = text + 2;
    size_t count = strcspn(name, "=");

    for (unsigned id = 0; id < OPTION_COUNT; id++) {
        if (strlen(rows[id].long_name) == count && memcmp(rows[id].long_name, name, count) == 0) {
            apply(w, (enum option_id)id, name[count] == '=' ? name + count + 1 : NULL);
            return;
        }
    }
    fail_unknown(w, text);
}

/* "-qv", "-i FILE", "-iFILE" */
static void take_short(struct walk *w, const char *text)
{
    for (const char *at = text + 1; *at != 0; at++) {
        unsigned id = 0;

        while (id < OPTION_COUNT && rows[id].short_name != *at)
            id++;
        if (id == OPTION_COUNT) {
            fail_unknown(w, text);
            return;
        }
        if (rows[id].value != NULL) {
            apply(w, (enum option_id)id, at[1] != 0 ? at + 1 : NULL);
            return;
        }
        apply(w, (enum option_id)id, NULL);
    }
}

static void take_operand(struct options *o, const char *text)
{
    if (o->command == NULL)
        o->command = text;
    else
        o->operands[o->operand_count++] = text;
}

static int get_lists(struct options *o, int argc, struct err *e)
{
    size_t count = argc > 0 ? (size_t)argc : 1;

    o->operands = calloc(count, sizeof *o->operands);
    o->identities = calloc(count, sizeof *o->identities);
    o->exclude = calloc(count, sizeof *o->exclude);
    o->only = calloc(count, sizeof *o->only);
    o->volumes = calloc(count, sizeof *o->volumes);
    o->files = calloc(count, sizeof *o->files);
    o->keep_tags = calloc(count, sizeof *o->keep_tags);
    o->tags = calloc(count, sizeof *o->tags);
    o->keep_policy.tags = o->keep_tags;
    if (o->files == NULL || o->keep_tags == NULL || o->tags == NULL || o->operands == NULL ||
        o->identities == NULL || o->exclude == NULL || o->only == NULL || o->volumes == NULL)
        return err_sys(e, "getting memory for the arguments");
    return 0;
}

int options_parse(struct options *out, int argc, char *const *argv, struct err *e)
{
    struct walk w = { .o = out, .argc = argc, .argv = argv, .e = e };
    bool ended = false;

    *out = (struct options){
        .lock_wait_s = 600,
        .compress = COMPRESS_AUTO,
        .ask_first = ASKING_SLOW,
        .max_snapshot_age_s = 86400,
        .max_retained_age_s = 8 * 86400,
        .min_free = { .is_share = true, .percent = 10 },
        .stall_timeout_s = 600,
        .read_data_k = 1,
        .read_data_n = 1,
        .parallel = 1,
    };
    if (get_lists(out, argc, e) != 0)
        return -1;
    for (w.at = 1; w.at < argc; w.at++) {
        const char *text = argv[w.at];

        if (ended || text[0] != '-' || text[1] == 0)
            take_operand(out, text);
        else if (strcmp(text, "--") == 0)
            ended = true;
        else if (text[1] == '-')
            take_long(&w, text);
        else
            take_short(&w, text);
    }
    return w.failed ? -1 : 0;
}

void options_free(struct options *o)
{
    free(o->operands);
    free(o->identities);
    free(o->exclude);
    free(o->only);
    free(o->volumes);
    free(o->files);
    free(o->keep_tags);
    free(o->tags);
    o->operands = o->identities = o->exclude = o->only = o->volumes = NULL;
}

int options_check(const struct options *o, const char *command, uint64_t accepts, struct err *e)
{
    uint64_t wrong = o->given & ~(OPTIONS_COMMON | accepts);

    for (unsigned id = 0; id < OPTION_COUNT; id++) {
        if ((wrong & OPTION_BIT(id)) != 0)
            return err_set(e, ERR_USAGE, "%s has no option --%s; see vmferry %s --help", command,
                           rows[id].long_name, command);
    }
    if (o->password_file != NULL && o->password_command != NULL)
        return err_set(e, ERR_USAGE, "--password-file and --password-command: give one of them");
    if ((o->repo_password_file != NULL) + (o->repo_password_command != NULL) +
            (o->key_file != NULL) >
        1)
        return err_set(e, ERR_USAGE,
                       "--repo-password-file, --repo-password-command and "
                       "--key-file: give one of them");
    if (o->exclude_count > 0 && o->only_count > 0)
        return err_set(e, ERR_USAGE, "--exclude-disk and --only-disk: give one of them");
    return 0;
}

void options_print_help(FILE *out, uint64_t set)
{
    for (unsigned id = 0; id < OPTION_COUNT; id++) {
        const struct option_row *row = &rows[id];
        char left[48];

        if ((set & OPTION_BIT(id)) == 0)
            continue;
        if (row->short_name != 0)
            snprintf(left, sizeof left, "-%c, --%s", row->short_name, row->long_name);
        else
            snprintf(left, sizeof left, "    --%s", row->long_name);
        if (row->value != NULL)
            snprintf(left + strlen(left), sizeof left - strlen(left), "%s%s",
                     row->value[0] == '[' ? "" : " ", row->value);
        if (strlen(left) <= 26)
            fprintf(out, "  %-26s  %s\n", left, row->help);
        else
            fprintf(out, "  %s\n  %-26s  %s\n", left, "", row->help);
    }
}

struct option_word options_word(enum option_id id)
{
    const struct option_row *row = &rows[id];

    return (struct option_word){
        .long_name = row->long_name,
        .short_name = row->short_name,
        .takes_value = row->value != NULL,
        .value_optional = row->value != NULL && row->value[0] == '[',
        .values = row->words != NULL && row->words[0] != 0 ? row->words : NULL,
    };
}
