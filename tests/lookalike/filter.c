#include "filter.h"
#include "policy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fiemap.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Rules of the calls that ESXi does not have. */
static int add_absent(scmp_filter_ctx f)
{
    static const int absent[] = {
#define X(name) SCMP_SYS(name),
#include "absent.def"
#undef X
    };
    int rc = 0;

    for (size_t i = 0; i < sizeof absent / sizeof absent[0] && rc == 0; i++)
        rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), absent[i], 0);
    return rc;
}

/* Calls that exist but cannot do everything. */
static int add_narrowed(scmp_filter_ctx f, const struct policy *p)
{
    int rc = 0;

    if (!p->seek_hole) {
        rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(lseek), 1,
                              SCMP_A2_32(SCMP_CMP_EQ, SEEK_DATA));
        if (rc == 0)
            rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(lseek), 1,
                                  SCMP_A2_32(SCMP_CMP_EQ, SEEK_HOLE));
    }
    if (rc == 0)
        rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 1,
                              SCMP_A1_32(SCMP_CMP_EQ, (uint32_t)FS_IOC_FIEMAP));
    if (rc == 0)
        rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 1,
                              SCMP_A1_32(SCMP_CMP_EQ, (uint32_t)FICLONE));
    if (rc == 0 && !p->threads)
        rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(EAGAIN), SCMP_SYS(clone), 1,
                              SCMP_A0_32(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    return rc;
}

/* Calls that the supervisor decides. */
static int add_asked(scmp_filter_ctx f, const struct policy *p)
{
    static const int always[] = { SCMP_SYS(open),     SCMP_SYS(openat),   SCMP_SYS(creat),
                                  SCMP_SYS(truncate), SCMP_SYS(unlink),   SCMP_SYS(unlinkat),
                                  SCMP_SYS(rename),   SCMP_SYS(renameat), SCMP_SYS(execve),
                                  SCMP_SYS(connect) };
    static const int reads[] = { SCMP_SYS(read), SCMP_SYS(pread64), SCMP_SYS(readv),
                                 SCMP_SYS(preadv) };
    int rc = 0;

    for (size_t i = 0; i < sizeof always / sizeof always[0] && rc == 0; i++)
        rc = seccomp_rule_add(f, SCMP_ACT_NOTIFY, always[i], 0);
    for (size_t i = 0; i < sizeof reads / sizeof reads[0] && rc == 0 && p->watch_reads; i++)
        rc = seccomp_rule_add(f, SCMP_ACT_NOTIFY, reads[i], 0);
    return rc;
}

int filter_install(const struct policy *p)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
    int rc;

    if (f == NULL) {
        errno = ENOMEM;
        return -1;
    }
    /* A binary tree instead of a list: bulk reads must not pay for sixty comparisons. */
    rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    /* No mitigation of speculative stores: it would cost every call of the session. */
    if (rc == 0)
        rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_SSB, 1);
    if (rc == 0)
        rc = add_absent(f);
    if (rc == 0)
        rc = add_narrowed(f, p);
    if (rc == 0)
        rc = add_asked(f, p);
    if (rc == 0)
        rc = seccomp_load(f);
    if (rc != 0) {
        errno = -rc;
        return -1;
    }
    rc = seccomp_notify_fd(f);
    /* f is not released: that would close the listener; exec ends it. */
    return rc;
}
