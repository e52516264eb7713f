/*
 * Options and operands.  One table (options.c) drives parsing, --help and the shell completion.
 * Options stand anywhere after the program's name; `--` ends them.  Long options are never
 * abbreviated, so that a script's meaning does not change when an option is added.  Values are
 * checked here, as far as that needs no host and no file.
 */
#ifndef RECEIVER_CLI_OPTIONS_H
#define RECEIVER_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "receiver/job/retention.h"
#include "receiver/job/run.h"

struct err;

enum option_id {
    /* Accepted by every command. */
    OPTION_JSON,
    OPTION_QUIET,
    OPTION_VERBOSE,
    OPTION_PROGRESS,
    OPTION_NO_PROGRESS,
    OPTION_LOG_FILE,
    OPTION_CONFIG,
    OPTION_STATE_DIR,
    OPTION_IDENTITY,
    OPTION_PASSWORD_FILE,
    OPTION_PASSWORD_COMMAND,
    OPTION_KNOWN_HOSTS,
    OPTION_ACCEPT_NEW_HOST_KEY,
    OPTION_LOCK_WAIT,
    OPTION_DATA_CHANNEL,
    OPTION_DATA_LISTEN,
    OPTION_DATA_CONNECT,
    OPTION_DATA_SECURITY,
    OPTION_AGENT_FILE,
    OPTION_VERSION,
    OPTION_HELP,
    OPTION_COMMON_COUNT,
    /* Accepted by the commands that name them. */
    OPTION_KEEP = OPTION_COMMON_COUNT,
    OPTION_BLOCK_SIZE,
    OPTION_DRY_RUN,
    OPTION_FULL,
    OPTION_COMPRESS,
    OPTION_BWLIMIT,
    OPTION_QUIESCE,
    OPTION_EXCLUDE_DISK,
    OPTION_ONLY_DISK,
    OPTION_RETAIN_SNAPSHOT,
    OPTION_MAX_SNAPSHOT_AGE,
    OPTION_MAX_RETAINED_AGE,
    OPTION_MIN_FREE,
    OPTION_STALL_TIMEOUT,
    OPTION_AGENT_DIR,
    OPTION_YES,
    OPTION_MIRROR,
    OPTION_OUTPUT,
    OPTION_READ_DATA,
    OPTION_RETAINED,
    OPTION_FOREIGN,
    OPTION_VOLUME,
    OPTION_REPO,
    OPTION_REPO_PASSWORD_FILE,
    OPTION_REPO_PASSWORD_COMMAND,
    OPTION_KEY_FILE,
    OPTION_NEW_PASSWORD_FILE,
    OPTION_ENCRYPT,
    OPTION_APPEND_ONLY,
    OPTION_FILE,
    OPTION_KEEP_LAST,
    OPTION_KEEP_HOURLY,
    OPTION_KEEP_DAILY,
    OPTION_KEEP_WEEKLY,
    OPTION_KEEP_MONTHLY,
    OPTION_KEEP_YEARLY,
    OPTION_KEEP_WITHIN,
    OPTION_KEEP_TAG,
    OPTION_ROLL_OUT,
    OPTION_MIN_AGE,
    OPTION_TAG,
    OPTION_PIN,
    OPTION_UNPIN,
    OPTION_FORCE_DEVICE,
    OPTION_PARALLEL,
    OPTION_ASK_FIRST,
    OPTION_COUNT
};

/* A set of options: a bit for each that some commands accept, and one for all that every command
 * does. */
_Static_assert(OPTION_COUNT - OPTION_COMMON_COUNT <= 63, "a set of options is 64 bits");

#define OPTIONS_COMMON (UINT64_C(1) << 63)
#define OPTION_BIT(id)                                                                             \
    ((id) < OPTION_COMMON_COUNT ? OPTIONS_COMMON : UINT64_C(1) << ((id)-OPTION_COMMON_COUNT))

struct options {
    uint64_t given; /* OPTION_BIT of each option that was there */
    bool json;
    unsigned quiet, verbose;
    enum { PROGRESS_AUTO, PROGRESS_YES, PROGRESS_NO } progress;
    const char *log_file, *state_dir, *password_file, *password_command, *known_hosts;
    const char **identities; /* identity_count of them */
    size_t identity_count;
    bool accept_new_host_key, help, version;
    uint64_t lock_wait_s; /* 600 */
    struct data_options data;
    const char *agent_file, *agent_dir;

    uint32_t keep;
    uint32_t block_bytes; /* of new disks; 0: the default */
    bool dry_run, full, yes, retained;
    uint8_t compress;  /* COMPRESS_AUTO, 0 for none, or a level */
    uint64_t bwlimit;  /* 0: none */
    uint8_t ask_first; /* enum asking_when */
    enum snapshot_quiesce quiesce;
    const char **exclude, **only; /* slots */
    size_t exclude_count, only_count;
    uint64_t max_snapshot_age_s; /* 86400 */
    bool retain_snapshot;
    uint64_t max_retained_age_s;   /* 691200 */
    struct size_or_share min_free; /* 10 % */
    uint64_t stall_timeout_s;      /* 600 */
    const char *mirror, *output, *foreign;
    const char *repo, *repo_password_file, *repo_password_command, *key_file, *new_password_file;
    bool encrypt, append_only, pin, unpin, force_device;
    unsigned parallel;  /* VMs at once; 1 */
    const char **files; /* NAME=DISK */
    size_t file_count;
    struct keep_policy keep_policy; /* its tags are keep_tags */
    const char **keep_tags, **tags;
    size_t tag_count;
    uint64_t min_age_s;   /* 0 */
    const char **volumes; /* of local VMDK chains */
    size_t volume_count;
    uint32_t read_data_k, read_data_n; /* slice k of n, 1 of 1 without a value */

    const char *command;   /* the first operand, or NULL */
    const char **operands; /* those behind it */
    size_t operand_count;
};

/*
 * Parse argv[1..argc).  Texts are borrowed from argv.  A wrong option does not end the parsing: the
 * first error is kept, so that --json and the command are known when it is reported.
 * 0, or -1 with ERR_USAGE (or ERR_SYSTEM); *out is to be freed in both cases.
 */
int options_parse(struct options *out, int argc, char *const *argv, struct err *e);
void options_free(struct options *o);

/*
 * What the command cannot honour, and what cannot stand together.  accepts: OPTION_BITs beside the
 * common ones.  0, or -1 with ERR_USAGE naming the option.
 */
int options_check(const struct options *o, const char *command, uint64_t accepts, struct err *e);

/* The lines of --help for a set of options. */
void options_print_help(FILE *out, uint64_t set);

/* One option's names for the completion script: "-n --dry-run"; whether it takes a value, and which
 * words that may be (NULL: any; "file", "dir" stand for themselves). */
struct option_word {
    const char *long_name;
    char short_name; /* 0: none */
    bool takes_value;
    bool value_optional;
    const char *values; /* words separated by blanks, "FILE", "DIR" or NULL */
};
struct option_word options_word(enum option_id id);

#endif
