"""What a test can turn: name, default, meaning.  Values are text; README.md lists them by theme."""

# name: (default, or {profile: default}; meaning)
KNOBS = {
    # time
    "delay": ("0", "seconds that every VMware command takes"),
    "delay-vim-cmd": ("", "the same for vim-cmd alone; empty: as delay"),
    "delay-vmkfstools": ("", "the same for vmkfstools"),
    "delay-esxcli": ("", "the same for esxcli and localcli"),
    # snapshots
    "create-delay": ("0", "seconds that snapshot.create's task runs before the snapshot is there"),
    "create-result": ("ok", "ok | silent (nothing happens, rc 0) | fault (text, rc 1) | fault0 "
                            "(text, rc 0) | busy (Another task is already in progress)"),
    "create-late": ("0", "seconds by which the snapshot appears after vim-cmd has answered; the "
                         "answer is that of create-result (with ok: rc 0)"),
    "create-late-hidden": ("off", "on: no task is listed while the late snapshot is under way"),
    "create-quiesce": ("ok", "ok | fail | timeout: what a quiesced create does"),
    "independent": ("allow", "allow | fault: snapshot of a VM with independent disks"),
    "remove-delay": ("0", "seconds that consolidation takes"),
    "remove-result": ("ok", "ok | early (answers before the end) | leaves-children (gone from the "
                            "tree, deltas stay) | fault (text, rc 1, nothing done) | fault0"),
    "remove-while-read": ("consolidation-needed", "consolidation-needed | refuse | allow: what a "
                          "removal does while somebody has the base open"),
    "deltas": ("auto", "auto (by datastore and size, as on ESXi) | vmfsSparse | seSparse: the form "
                       "of new deltas where neither VM nor datastore says"),
    "journal": ("clean", "clean | leaf | SECONDS | stuck: the replay mark of a running VM's "
                         "seSparse leaf: never set, or set until it is frozen, so long after "
                         "that, for ever"),
    "zero-writes": ("mark", "mark | store: a guest's write of zeros alone becomes a zero entry of "
                            "the delta, or stored zeros"),
    # vim-cmd
    "vim-cmd": ("ok", "ok | bad-alloc | login-failure | hang, for every call"),
    "vim-cmd-fail-times": ("0", "the failure of vim-cmd holds for so many calls; 0: for all"),
    "vim-cmd-match": ("", "only calls whose words contain this text fail"),
    "power-on": ("ok", "ok | fail | question (waits for an answer)"),
    "old-texts": ("off", "on: faults carry the dynamicType line of 6.0 and before"),
    # vmkfstools
    "t0": ("ok", "ok | fail | cut (output ends early) | merged | per-block | lie (the last data is "
                 "called a hole): the extent map"),
    "t0-z": ("thick", "thick | all | none: which holes are shown as Z- extents, not NOMP"),
    "lock-base": ("off", "on: the base under a snapshot stays locked (16392, EBUSY)"),
    "clone-rate": ("0", "bytes per second of vmkfstools -i; 0: unlimited"),
    "clone-fail-at": ("", "percent at which vmkfstools -i fails with an input/output error"),
    "out-of-space": ("off", "on: vmkfstools -c and -i fail with code 13"),
    # esxcli and host
    "esxcli": ("ok", "ok | cut (half of the output, rc 0) | fail"),
    "free-space": ("", "DATASTORE=BYTES,...: what the host claims to have free"),
    "license": ({"6.7": "esxEnterprisePlus", "8.0": "esxBasic"}, "the vmodl key shown"),
    "exec-installed-only": ({"6.7": "absent", "8.0": "1"}, "absent | 0 | 1: the runtime option"),
    "exec-boot": ("FALSE", "TRUE: the boot option, which the runtime option cannot undo"),
    "keep-truth": ("on", "off: what disks held at a snapshot is not kept (faster guest writes)"),
    "tmp-full": ("off", "on: no room in /tmp"),
    # network
    "firewall-out": ("profile", "profile | open | closed | PORT[-PORT],...: outgoing TCP"),
    "firewall-action": ("drop", "drop | reject: what happens to the other ports"),
    # sessions; those below hold for sessions that start afterwards
    "threads": ("on", "off: no process can make a thread"),
    "seek-hole": ("off", "on: SEEK_HOLE and SEEK_DATA work"),
    "shell": ("on", "off: login ends at once"),
    "memory": ("800", "MiB of address space of a session's process; 0: unlimited"),
    "read-fault": ("", "eio|stall:MS@FILE:START+LENGTH, several divided by blanks; FILE is a path "
                       "in the root.  Reads in sessions started afterwards are watched"),
    # sshd; a change holds for connections made afterwards
    "rekey-limit": ({"6.7": "default none", "8.0": "1G 1h"}, "sshd's RekeyLimit"),
    "tcp-forwarding": ({"6.7": "yes", "8.0": "no"}, "sshd's AllowTcpForwarding"),
    "password-authentication": ("no", "yes: sshd offers the method `password` too"),
    "pubkey": ("yes", "no: sshd refuses keys"),
    "two-prompts": ("off", "on: keyboard-interactive asks twice for the password"),
    "auth-message": ("", "text that keyboard-interactive shows before it asks"),
    "max-sessions": ("10", "sshd's MaxSessions"),
    "max-startups": ("10:30:100", "sshd's MaxStartups"),
    "client-alive": ("200 3", "ClientAliveInterval and ClientAliveCountMax"),
    "sftp": ("on", "off: no sftp subsystem"),
    "banner": ("", "text shown before the login"),
    "motd": ("", "text of /etc/motd, shown to shells"),
    "profile-noise": ("", "text that every session's start prints to stdout"),
    "connections": ("", "so many more connections are taken, then sshd is gone; empty: no limit"),
    "lockout": ("5", "wrong passwords until the account is locked for 900 s"),
}

PROFILES = {
    "6.7": {
        "version": "6.7.0", "build": "8169922", "level": "GA", "update": "0", "patch": "0",
        "built": "Apr  3 2018 14:48:22", "api": "6.7", "hw": "vmx-14", "sesparse_reserved": 0,
        "url": "/vmfs/volumes/%s",
    },
    "8.0": {
        "version": "8.0.2", "build": "22380479", "level": "Update 2", "update": "2", "patch": "0",
        "built": "Sep  4 2023 15:00:49", "api": "8.0.2.0", "hw": "vmx-21",
        "sesparse_reserved": 0x200,
        "url": "ds:///vmfs/volumes/%s/",
    },
}

# Outgoing TCP ports that are open at install (ESXi host facts, 3).
OPEN_PORTS = [(902, 902), (8000, 8000), (31031, 31031), (44046, 44046), (80, 80), (9000, 9100),
              (8300, 8300), (53, 53), (427, 427), (5671, 5671)]

SSHD_KNOBS = {"rekey-limit", "tcp-forwarding", "password-authentication", "pubkey", "two-prompts",
              "auth-message",
              "max-sessions", "max-startups", "client-alive", "sftp", "banner", "lockout"}


class KnobError(ValueError):
    pass


class Knobs:
    """The values of one instance; saved with its state."""

    def __init__(self, profile, values=None):
        self.values = {}
        for name, (default, _) in KNOBS.items():
            self.values[name] = default[profile] if isinstance(default, dict) else default
        for name, value in (values or {}).items():
            self.set(name, value)

    def set(self, name, value):
        if name not in KNOBS:
            raise KnobError("no such knob: %s; the knobs are %s" % (name, ", ".join(KNOBS)))
        if "\0" in value or ("\n" in value and name not in ("banner", "motd", "profile-noise")):
            raise KnobError("knob %s: the value is not one line" % name)
        self.values[name] = value

    def __getitem__(self, name):
        return self.values[name]

    def on(self, name):
        return self.values[name] in ("on", "1", "yes", "TRUE")

    def number(self, name):
        value = self.values[name]
        return float(value) if value else 0.0

    def delay_of(self, command):
        special = self.values.get("delay-" + command, "")
        return float(special if special else self.values["delay"] or 0)


def parse_ports(text):
    """[(first, last)] of `31031,44046,9000-9100`."""
    out = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        out.append((int(first), int(last or first)))
    return out
