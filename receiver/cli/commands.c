#include "receiver/cli/commands.h"

#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/cli/options.h"
#include "receiver/cli/table.h"

#define BIT OPTION_BIT
/* What opens an encrypted repository. */
#define KEYS                                                                                       \
    (BIT(OPTION_REPO_PASSWORD_FILE) | BIT(OPTION_REPO_PASSWORD_COMMAND) | BIT(OPTION_KEY_FILE))
#define STORES (BIT(OPTION_MIRROR) | BIT(OPTION_REPO))

enum { MANY = 1000000, HELP_COLUMNS = 79 };

static const struct command commands[] = {
    {
        .name = "doctor",
        .operands = "HOST [VM...]",
        .summary = "try every prerequisite for real and say what to mend",
        .text = "Logs in, tries the shell, the agent, the data channel, free room and the "
                "reading of each disk (of the named VMs, or of all), and looks for "
                "leftovers.  One line for each check: ok, warn or fail, with the remedy.  "
                "Ends with 1 when one failed.",
        .examples = "  vmferry doctor esx1.example.com\n"
                    "  vmferry doctor root@10.0.0.7:2222 web01 --json\n",
        .operands_min = 1,
        .operands_max = MANY,
        .accepts = BIT(OPTION_AGENT_DIR) | BIT(OPTION_MIN_FREE),
        .list_like = true,
        .run = cmd_doctor,
    },
    {
        .name = "vms",
        .operands = "HOST [VM...]",
        .summary = "list the virtual machines of a host",
        .text = "Name, id, power, guest, CPUs, memory, disks (provisioned/used), snapshots "
                "and change tracking of all VMs, or of those that the operands name.",
        .examples = "  vmferry vms esx1\n"
                    "  vmferry vms esx1 'web*' --json\n",
        .operands_min = 1,
        .operands_max = MANY,
        .list_like = true,
        .run = cmd_vms,
    },
    {
        .name = "datastores",
        .operands = "HOST",
        .summary = "list the datastores of a host",
        .text = "Name, type, size, free room and path of each mounted datastore.",
        .examples = "  vmferry datastores esx1\n",
        .operands_min = 1,
        .operands_max = 1,
        .list_like = true,
        .run = cmd_datastores,
    },
    {
        .name = "mirror",
        .operands = "HOST VM... DIR",
        .summary = "make or refresh a sparse local mirror of VMs",
        .text = "Takes a snapshot of each VM, brings its disks up to date in DIR/NAME/ as "
                "plain sparse images, and removes the snapshot.  The first run reads all "
                "that is allocated, later ones send only what has changed.  A run that is "
                "cut goes on where it was.",
        .examples = "  vmferry mirror esx1 web01 /srv/mirrors\n"
                    "  vmferry mirror esx1 'web*' '#12' /srv/mirrors --keep 7\n"
                    "  vmferry mirror esx1 db01 /srv/mirrors --exclude-disk scsi0:1 --bwlimit 40M\n"
                    "  vmferry mirror esx1 files01 /srv/mirrors --retain-snapshot\n",
        .operands_min = 3,
        .operands_max = MANY,
        .accepts = BIT(OPTION_KEEP) | BIT(OPTION_BLOCK_SIZE) | BIT(OPTION_DRY_RUN) |
                   BIT(OPTION_FULL) | BIT(OPTION_COMPRESS) | BIT(OPTION_BWLIMIT) |
                   BIT(OPTION_QUIESCE) | BIT(OPTION_EXCLUDE_DISK) | BIT(OPTION_ONLY_DISK) |
                   BIT(OPTION_MAX_SNAPSHOT_AGE) | BIT(OPTION_RETAIN_SNAPSHOT) |
                   BIT(OPTION_MAX_RETAINED_AGE) | BIT(OPTION_MIN_FREE) | BIT(OPTION_STALL_TIMEOUT) |
                   BIT(OPTION_AGENT_DIR) | BIT(OPTION_PARALLEL) | BIT(OPTION_YES),
        .run = cmd_mirror,
    },
    {
        .name = "list",
        .operands = "(--repo REPO|--mirror DIR) [VM]",
        .summary = "list the generations that a store holds",
        .text = "The generations of every VM in the repository, or of every mirror in DIR, or of "
                "one VM: number, time, size, and what was read, sent and stored.",
        .examples = "  vmferry list --mirror /srv/mirrors\n"
                    "  vmferry list --repo /srv/repo web01 --json\n",
        .operands_min = 0,
        .operands_max = 1,
        .accepts = STORES | KEYS,
        .needs_one = STORES,
        .list_like = true,
        .run = cmd_list,
    },
    {
        .name = "restore",
        .operands = "GEN (--repo REPO|--mirror DIR) --output DIR2|-|DEVICE",
        .summary = "write a generation's disks and configuration to a directory",
        .text = "GEN is VM@N, a bare N where one VM is meant, VM@latest, VM@2026-11-20 or an "
                "id.  DIR2 is made; it must be absent or empty.  Every block is checked "
                "while it is copied.  Of a repository single disks may be asked for.  One disk "
                "alone goes to standard output with -, or to a block device, which needs "
                "--force-device.",
        .examples =
            "  vmferry restore web01@latest --mirror /srv/mirrors --output /tmp/web01\n"
            "  vmferry restore 3 --mirror /srv/mirrors/web01 --output /tmp/web01-3\n"
            "  vmferry restore web01@7 --repo /srv/repo --only-disk scsi0:1 --output /tmp/d\n"
            "  vmferry restore web01@2026-11-20 --mirror /srv/mirrors --output /tmp/w\n"
            "  vmferry restore web01@7 --repo /srv/repo --output - | xz > web01.raw.xz\n"
            "d.xz\n"
            "  vmferry restore web01@7 --repo /srv/repo --output /dev/sdx --force-device\n",
        .operands_min = 1,
        .operands_max = 1,
        .accepts =
            STORES | KEYS | BIT(OPTION_OUTPUT) | BIT(OPTION_ONLY_DISK) | BIT(OPTION_FORCE_DEVICE),
        .needs = BIT(OPTION_OUTPUT),
        .needs_one = STORES,
        .run = cmd_restore,
    },
    {
        .name = "check",
        .operands = "(--repo REPO|--mirror DIR) [GEN]",
        .summary = "check that a store is whole",
        .text =
            "Structure of the repository, or of every mirror in DIR, or of what GEN names; with "
            "--read-data every byte is read and compared with its digest.  Damaged blocks of "
            "a repository are set aside: the next backup that has them stores them again.  "
            "Ends with 5 when there is damage.",
        .examples = "  vmferry check --mirror /srv/mirrors\n"
                    "  vmferry check --mirror /srv/mirrors web01 --read-data\n"
                    "  vmferry check --repo /srv/repo --read-data=2/7\n",
        .operands_min = 0,
        .operands_max = 1,
        .accepts = STORES | KEYS | BIT(OPTION_READ_DATA),
        .needs_one = STORES,
        .run = cmd_check,
    },
    {
        .name = "backup",
        .operands = "HOST VM... --repo REPO | --file NAME=DISK... --repo REPO",
        .summary = "add a generation of VMs to a repository",
        .text = "Takes a snapshot of each VM, stores what changed since its last generation in "
                "the repository, and removes the snapshot.  With --file local images are stored "
                "instead: equal NAMEs are one VM's disks in order; a name that ends with .vmdk is "
                "a VMDK chain, every other one a raw image.  A run that is cut goes on where it "
                "was.  Over a slow link the host names changed blocks by ids first, and sends only "
                "those that no generation of it has (--ask-first).",
        .examples =
            "  vmferry backup esx1 web01 'db*' --repo /srv/repo\n"
            "  vmferry backup esx1 web01 --repo /srv/repo --tag before-upgrade\n"
            "  vmferry backup --file old=/vm/a.vmdk --file old=/vm/b.raw --repo /srv/repo\n",
        .operands_max = MANY,
        .accepts =
            BIT(OPTION_REPO) | KEYS | BIT(OPTION_FILE) | BIT(OPTION_TAG) | BIT(OPTION_VOLUME) |
            BIT(OPTION_BLOCK_SIZE) | BIT(OPTION_DRY_RUN) | BIT(OPTION_FULL) | BIT(OPTION_COMPRESS) |
            BIT(OPTION_BWLIMIT) | BIT(OPTION_QUIESCE) | BIT(OPTION_EXCLUDE_DISK) |
            BIT(OPTION_ONLY_DISK) | BIT(OPTION_MAX_SNAPSHOT_AGE) | BIT(OPTION_RETAIN_SNAPSHOT) |
            BIT(OPTION_MAX_RETAINED_AGE) | BIT(OPTION_MIN_FREE) | BIT(OPTION_STALL_TIMEOUT) |
            BIT(OPTION_AGENT_DIR) | BIT(OPTION_PARALLEL) | BIT(OPTION_YES) | BIT(OPTION_ASK_FIRST),
        .needs = BIT(OPTION_REPO),
        .run = cmd_backup,
    },
    {
        .name = "init",
        .operands = "--repo REPO",
        .summary = "make a new repository",
        .text = "Makes REPO, which must be absent or empty, and tries there what a repository "
                "relies on.  With --encrypt a passphrase is asked for; without it nothing can be "
                "read again.",
        .examples = "  vmferry init --repo /srv/repo\n"
                    "  vmferry init --repo /srv/repo --encrypt --repo-password-file /root/pass\n",
        .accepts = BIT(OPTION_REPO) | BIT(OPTION_ENCRYPT) | BIT(OPTION_APPEND_ONLY) |
                   BIT(OPTION_BLOCK_SIZE) | BIT(OPTION_REPO_PASSWORD_FILE) |
                   BIT(OPTION_REPO_PASSWORD_COMMAND),
        .needs = BIT(OPTION_REPO),
        .run = cmd_init,
    },
    {
        .name = "stats",
        .operands = "--repo REPO [VM]",
        .summary = "show who uses what in a repository",
        .text = "For each VM its generations and what they cost; for the repository its size, and "
                "how much deduplication and compression save.",
        .examples = "  vmferry stats --repo /srv/repo\n"
                    "  vmferry stats --repo /srv/repo --json\n",
        .operands_max = 1,
        .accepts = BIT(OPTION_REPO) | KEYS,
        .needs = BIT(OPTION_REPO),
        .list_like = true,
        .run = cmd_stats,
    },
    {
        .name = "forget",
        .operands = "GEN... | [VM...] --keep-... --repo REPO",
        .summary = "drop generations of a repository",
        .text = "Drops the named generations, or of each VM (or the named ones) those that no "
                "rule keeps.  The newest good one of a VM, pinned ones, and partial ones newer "
                "than any good one always stay.  Room is given back by prune.  --dry-run shows "
                "which stay, and why.",
        .examples = "  vmferry forget web01@3 web01@4 --repo /srv/repo\n"
                    "  vmferry forget --keep-daily 7 --keep-weekly 5 --repo /srv/repo --dry-run\n"
                    "  vmferry forget web01 --roll-out 10 --repo /srv/repo\n"
                    "  vmferry forget web01@7 --pin --repo /srv/repo\n",
        .operands_max = MANY,
        .accepts = BIT(OPTION_REPO) | KEYS | BIT(OPTION_KEEP_LAST) | BIT(OPTION_KEEP_HOURLY) |
                   BIT(OPTION_KEEP_DAILY) | BIT(OPTION_KEEP_WEEKLY) | BIT(OPTION_KEEP_MONTHLY) |
                   BIT(OPTION_KEEP_YEARLY) | BIT(OPTION_KEEP_WITHIN) | BIT(OPTION_KEEP_TAG) |
                   BIT(OPTION_ROLL_OUT) | BIT(OPTION_MIN_AGE) | BIT(OPTION_PIN) |
                   BIT(OPTION_UNPIN) | BIT(OPTION_DRY_RUN) | BIT(OPTION_YES),
        .needs = BIT(OPTION_REPO),
        .run = cmd_forget,
    },
    {
        .name = "prune",
        .operands = "--repo REPO",
        .summary = "give back the room of what was forgotten",
        .text = "Finds what no generation refers to, copies what is left in packs that are "
                "mostly dead, and removes those packs.  Looking and copying go on beside running "
                "backups; the removal waits until it is alone, at most --lock-wait.",
        .examples = "  vmferry prune --repo /srv/repo --dry-run\n"
                    "  vmferry prune --repo /srv/repo\n",
        .accepts = BIT(OPTION_REPO) | KEYS | BIT(OPTION_DRY_RUN),
        .needs = BIT(OPTION_REPO),
        .run = cmd_prune,
    },
    {
        .name = "diff",
        .operands = "GEN GEN --repo REPO",
        .summary = "show what changed between two generations",
        .text = "For each disk how many bytes differ, and in how many regions; with --json also "
                "which.  Nothing that is equal is read.",
        .examples = "  vmferry diff web01@3 web01@latest --repo /srv/repo\n",
        .operands_min = 2,
        .operands_max = 2,
        .accepts = BIT(OPTION_REPO) | KEYS,
        .needs = BIT(OPTION_REPO),
        .list_like = true,
        .run = cmd_diff,
    },
    {
        .name = "key",
        .operands = "list | add | remove SLOT | change | export FILE --repo REPO",
        .summary = "look after the keys of an encrypted repository",
        .text = "Lists what opens the repository, adds or removes a passphrase, changes the one "
                "that opened it, or writes a key file that opens it without one.  The last key is "
                "never removed; the one that opened it only with --yes.",
        .examples = "  vmferry key list --repo /srv/repo\n"
                    "  vmferry key change --repo /srv/repo\n"
                    "  vmferry key export /media/usb/repo.key --repo /srv/repo\n",
        .operands_min = 1,
        .operands_max = 2,
        .accepts = BIT(OPTION_REPO) | KEYS | BIT(OPTION_NEW_PASSWORD_FILE) | BIT(OPTION_YES),
        .needs = BIT(OPTION_REPO),
        .run = cmd_key,
    },
    {
        .name = "rebuild-index",
        .operands = "--repo REPO",
        .summary = "make missing or wrong indexes of a repository anew",
        .text = "Looks at every pack and gives it an index that says what is in it.  Waits until "
                "nobody else is at work, at most --lock-wait.",
        .examples = "  vmferry rebuild-index --repo /srv/repo\n",
        .accepts = BIT(OPTION_REPO) | KEYS,
        .needs = BIT(OPTION_REPO),
        .run = cmd_rebuild_index,
    },
    {
        .name = "cleanup",
        .operands = "HOST",
        .summary = "remove what earlier runs of ours left on a host",
        .text = "Snapshots and agents that a run could not take away, found by our journal "
                "and by nothing else.  Lists snapshots of other receivers, which --foreign "
                "removes one by one.",
        .examples = "  vmferry cleanup esx1\n"
                    "  vmferry cleanup esx1 --dry-run\n"
                    "  vmferry cleanup esx1 --foreign 0123456789abcdef0123456789abcdef\n",
        .operands_min = 1,
        .operands_max = 1,
        .accepts =
            BIT(OPTION_DRY_RUN) | BIT(OPTION_RETAINED) | BIT(OPTION_FOREIGN) | BIT(OPTION_YES),
        .run = cmd_cleanup,
    },
    {
        .name = "info",
        .operands = "FILE.vmdk",
        .summary = "look into a local VMDK disk and its chain",
        .text = "The links of a disk from FILE down to its base: format, grain, what each holds, "
                "content ids, and what is wrong.  All tables are read, no data.  Parents and "
                "extents are looked for in FILE's folder and in the folders of --volume, and "
                "nowhere else.  Ends with 0 when the disk can be read.",
        .examples = "  vmferry info /srv/copies/web01/web01-000002.vmdk\n"
                    "  vmferry info clone.vmdk --volume /vmfs/volumes/5f0d-1a2b=/srv/ds1 --json\n",
        .operands_min = 1,
        .operands_max = 1,
        .accepts = BIT(OPTION_VOLUME),
        .list_like = true,
        .run = cmd_info,
    },
    {
        .name = "convert",
        .operands = "FILE.vmdk --output FILE.raw",
        .summary = "read a local VMDK disk into a sparse raw file",
        .text = "Reads the chain from FILE down to its base and writes what a guest would see "
                "into a raw file with holes, which appears when it is whole.  A file that is "
                "there already is replaced only with --yes.",
        .examples =
            "  vmferry convert web01.vmdk --output web01.raw\n"
            "  vmferry convert web01-000002.vmdk --output /srv/web01.raw --volume /srv/base\n",
        .operands_min = 1,
        .operands_max = 1,
        .accepts = BIT(OPTION_OUTPUT) | BIT(OPTION_VOLUME) | BIT(OPTION_YES),
        .needs = BIT(OPTION_OUTPUT),
        .run = cmd_convert,
    },
    {
        .name = "completion",
        .operands = "bash",
        .summary = "print the shell completion script",
        .text = "A script that lets a shell complete our commands and options.",
        .examples = "  source <(vmferry completion bash)\n"
                    "  vmferry completion bash > /etc/bash_completion.d/vmferry\n",
        .operands_min = 1,
        .operands_max = 1,
        .hidden = true,
        .run = cmd_completion,
    },
};

const struct command *command_at(size_t index)
{
    return index < ARRAY_COUNT(commands) ? &commands[index] : NULL;
}

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

int command_check(const struct command *c, const struct options *o, struct err *e)
{
    uint64_t missing = c->needs & ~o->given;

    if (options_check(o, c->name, c->accepts, e) != 0)
        return -1;
    for (unsigned id = 0; id < OPTION_COUNT; id++) {
        if ((missing & BIT(id)) != 0)
            return err_set(e, ERR_USAGE, "%s needs --%s; usage: vmferry %s %s", c->name,
                           options_word((enum option_id)id).long_name, c->name, c->operands);
    }
    if (c->needs_one != 0 && (c->needs_one & o->given) == 0)
        return err_set(e, ERR_USAGE, "%s: which store is missing; usage: vmferry %s %s", c->name,
                       c->name, c->operands);
    if ((c->needs_one & o->given & ((c->needs_one & o->given) - 1)) != 0)
        return err_set(e, ERR_USAGE, "%s: give one store, not two; usage: vmferry %s %s", c->name,
                       c->name, c->operands);
    if (o->operand_count < c->operands_min)
        return err_set(e, ERR_USAGE, "%s: an operand is missing; usage: vmferry %s %s", c->name,
                       c->name, c->operands);
    if (o->operand_count > c->operands_max) {
        char shown[80];

        utf8_show(shown, sizeof shown, o->operands[c->operands_max]);
        return err_set(e, ERR_USAGE, "%s: \"%s\" is one operand too many; usage: vmferry %s %s",
                       c->name, shown, c->name, c->operands);
    }
    return 0;
}

void command_print_help(FILE *out, const struct command *c)
{
    fprintf(out, "vmferry %s %s\n\n", c->name, c->operands);
    text_wrap(out, "", c->text, 0, HELP_COLUMNS);
    fputc('\n', out);
    if (c->accepts != 0) {
        fputs("Options:\n", out);
        options_print_help(out, c->accepts);
        fputc('\n', out);
    }
    fputs("Options of every command:\n", out);
    options_print_help(out, OPTIONS_COMMON);
    fprintf(out, "\nSizes take k, M, G, T; times 30s, 5m, 2h, 7d.\n\nExamples:\n%s", c->examples);
    fprintf(out, "\nMore: man vmferry-%s\n", c->name);
}

void commands_print_help(FILE *out)
{
    fputs("vmferry COMMAND OPERANDS [OPTIONS]\n\n"
          "Takes virtual machines off VMware ESXi hosts over SSH, and brings them back.\n\n"
          "Commands:\n",
          out);
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        if (!commands[i].hidden)
            fprintf(out, "  %-13s %s\n", commands[i].name, commands[i].summary);
    }
    fputs("\nOptions of every command:\n", out);
    options_print_help(out, OPTIONS_COMMON);
    fputs("\nExit codes:\n", out);
    for (int code = EXIT_OK; code <= EXIT_NETWORK; code++)
        fprintf(out, "  %-5d %s\n", code, exit_code_meaning(code));
    fputs("  128+n ended by signal n\n\n"
          "HOST is [user@]name[:port], as a rule root at port 22.  VM is a display name, a\n"
          "pattern with * and ?, #12 for a VM id, or uuid:...\n\n"
          "vmferry COMMAND --help tells more about each, and so does man vmferry.\n",
          out);
}
