/*
 * What the look-alike's daemon tells the login program and its supervisor.
 *
 * The daemon writes the text file run/policy of the instance and replaces it by rename; the
 * supervisor reads it again whenever its inode or time has changed, so a change holds for the
 * next system call of every session.  Lines (words divided by one blank):
 *   exec installed-only | exec any       may files outside the installed folders be run
 *   firewall open|drop|reject            what happens to ports that no rule allows
 *   allow FIRST LAST                     outgoing TCP ports that pass
 *   blackhole4 PORT, blackhole6 PORT     a loopback port that never answers, for `drop`
 *   lock X|R DEV INO                     X: every open is EBUSY; R: opens for writing are
 *   eio DEV INO START END                reads that touch these bytes fail with EIO
 *   stall DEV INO START END MS           reads that touch these bytes wait so long
 *   session threads on|off, session reads plain|watched, session seek-hole on|off,
 *   session shell on|off, session memory MIB
 * The `session` lines are read once, when a session starts: a seccomp filter cannot change.
 */
#ifndef LOOKALIKE_POLICY_H
#define LOOKALIKE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

enum firewall_action { FIREWALL_OPEN, FIREWALL_DROP, FIREWALL_REJECT };

struct policy_lock {
    uint64_t dev, ino;
    bool exclusive;
};

struct policy_range { /* bytes of one file */
    uint64_t dev, ino, start, end;
    unsigned stall_ms; /* 0: EIO */
};

struct policy_ports {
    unsigned first, last;
};

struct policy {
    bool exec_installed_only;
    enum firewall_action firewall;
    unsigned blackhole4, blackhole6;
    struct policy_ports *ports;
    struct policy_lock *locks;
    struct policy_range *ranges;
    size_t port_count, lock_count, range_count;
    bool threads, watch_reads, seek_hole, shell;
    unsigned memory_mib; /* RLIMIT_AS of a session's processes; 0: none */
    ino_t file_ino;      /* of the file that this was read from */
    struct timespec file_time;
};

/* Read run/policy below dir again if it is another file than last time.  A file that cannot be
 * read leaves the policy as it was.  p starts zeroed. */
void policy_refresh(struct policy *p, int dir);

/* Serve the seccomp listener until no process of the session is left.  Never returns.
 * dir: the instance's folder; proc: /proc of the session's pid name space; both opened before
 * the process entered the root by chroot, which it must have done. */
void supervise(int listener, int dir, int proc) __attribute__((noreturn));

#endif
