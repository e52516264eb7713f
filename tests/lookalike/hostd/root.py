"""The host's root file system: busybox with ESXi's applets, links for VMware's commands, /etc."""

import os
import re
import shutil
import stat
import subprocess

# ESXi host facts, 1.6.  dd and timeout differ in their options and go through the shim.
APPLETS = """[ [[ awk basename bunzip2 bzip2 cat chgrp chmod chown chvt cksum clear cp crond cut
date diff dirname dnsdomainname du echo egrep env expr false fgrep find getty grep gunzip gzip halt
head hexdump init kill ln logger login ls md5sum mkdir mkfifo mknod mktemp more mv nohup
nslookup od printf readlink reset resize rm rmdir sed seq setsid sh sha1sum sha256sum sha512sum
sleep sort stat stty sum sync tail tar taskset tee test time touch true uniq unzip usleep vi watch
wc wget which who xargs zcat nc pidof""".split()

SHIMS = """vim-cmd vmkfstools esxcli localcli vmware uname df vdf ps hostname vmfsfilelockinfo
dd timeout lsof esxcfg-info vsish""".split()

BUSYBOX = "usr/lib/vmware/busybox/bin/busybox"
SFTP_SERVER = "usr/lib/vmware/openssh/bin/sftp-server"


def libraries(program):
    """The shared libraries that a program needs, its loader included."""
    text = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+)", re.sub(r"\(0x[0-9a-f]+\)", "", text))


def copy_program(source, root, place):
    target = os.path.join(root, place)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(source, target)
    os.chmod(target, 0o555)
    for library in libraries(source):
        copy = root + library
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        if not os.path.exists(copy):
            shutil.copyfile(library, copy)
            os.chmod(copy, 0o555)


def patch_busybox(path):
    """ESXi's ash has no `command` builtin.  The name in the sorted table becomes one that nobody
    types and that sorts at the same place."""
    with open(path, "rb") as f:
        data = f.read()
    if data.count(b"\x002command\x00") != 1:
        raise RuntimeError("this busybox is not the one we know: no `command` builtin found")
    os.chmod(path, 0o755)
    with open(path, "wb") as f:
        f.write(data.replace(b"\x002command\x00", b"\x002comman`\x00"))
    os.chmod(path, 0o555)


def find_busybox():
    """A busybox whose shell looks commands up in PATH (Debian's `busybox`; the one of
    `busybox-static` runs its own applets first, present in the folder or not)."""
    program = shutil.which("busybox")
    if program is None:
        raise RuntimeError("busybox is missing: apt-get install busybox")
    done = subprocess.run([program, "sh", "-c", "PATH=/nowhere; tr a b </dev/null"],
                          capture_output=True, check=False)
    if done.returncode == 0:
        raise RuntimeError("%s prefers its own applets: apt-get install busybox "
                           "(it replaces busybox-static)" % program)
    return program


def build(root, profile, shim):
    """Make the root below an empty folder.  Everything here counts as installed."""
    for folder in ("bin", "etc/ssh/keys-root", "etc/vmware", "lib64", "usr/lib/vmware", "tmp",
                   "dev", "proc", "var/run", "var/log", "vmfs/volumes", "vmfs/devices/disks",
                   "scratch", "tardisks"):
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    os.symlink("bin", os.path.join(root, "sbin"))
    os.symlink("../bin", os.path.join(root, "usr/bin"))
    os.symlink("../bin", os.path.join(root, "usr/sbin"))
    copy_program(find_busybox(), root, BUSYBOX)
    patch_busybox(os.path.join(root, BUSYBOX))
    for name in APPLETS:
        os.symlink("/" + BUSYBOX, os.path.join(root, "bin", name))
    copy_program(shim, root, "bin/vmkvsitools")
    for name in SHIMS:
        os.symlink("vmkvsitools", os.path.join(root, "bin", name))
    sftp = "/usr/lib/openssh/sftp-server"
    if os.path.exists(sftp):
        copy_program(sftp, root, SFTP_SERVER)
    write_etc(root, profile)


def write_etc(root, profile):
    def put(name, text, mode=0o644):
        path = os.path.join(root, "etc", name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, mode)

    put("passwd", "root:x:0:0:Administrator:/:/bin/sh\n")
    put("group", "root:x:0:root\n")
    put("issue", "")
    put("motd", "")
    put("profile", "export PATH=/bin:/sbin:/usr/bin:/usr/sbin\n"
                   "PS1=\"[\\u@\\h:\\w] \"\n[ -s /etc/motd ] && cat /etc/motd\n")
    put("vmware/esx.conf", "/system/uuid = \"\"\n", 0o600)
    if profile == "6.7":
        put("old-timeout", "")


def listing(root, skip):
    """Every path below root except below skip (paths from root), for comparing later."""
    found = set()
    skip = {os.path.join(root, s) for s in skip}
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if os.path.join(folder, f) not in skip]
        for name in files + folders:
            path = os.path.join(folder, name)
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                found.add("/" + os.path.relpath(path, root))
    return found
