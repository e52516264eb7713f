"""The daemon's own mount and host name spaces, and what is mounted there.

Nothing is mounted outside, so nothing can be left mounted: the kernel drops it all with the last
process of the instance.
"""

import ctypes
import os
import socket

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MS_NOSUID = 2

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, "%s: %s" % (name, os.strerror(error)))


def mount(source, target, kind=None, flags=0, options=None):
    def text(value):
        return None if value is None else os.fsencode(value)

    call("mount", text(source), text(target), text(kind), ctypes.c_ulong(flags), text(options))


def unmount(target):
    call("umount2", os.fsencode(target), 2)     # MNT_DETACH


def enter():
    """Before any thread is started."""
    call("unshare", CLONE_NEWNS | CLONE_NEWUTS)
    make_private()


def make_private():
    """Keep our mounts from spreading to the machine's.  In a chroot `/` is no mount point, so the
    true root of the name space is entered for a moment: setns does that."""
    here = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    work = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    me = os.pidfd_open(os.getpid())
    call("setns", me, CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    os.fchdir(here)
    os.chroot(".")
    os.fchdir(work)
    for fd in (here, work, me):
        os.close(fd)


def set_hostname(name):
    socket.sethostname(name)


def mount_devices(dev):
    """A /dev with the few nodes that programs on the host use."""
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "size=64k,mode=755")
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(os.path.join(dev, name), 0o020666, os.makedev(1, minor))
        os.chmod(os.path.join(dev, name), 0o666)
    os.mknod(os.path.join(dev, "tty"), 0o020666, os.makedev(5, 0))


def bind(source, target):
    mount(source, target, None, MS_BIND)
