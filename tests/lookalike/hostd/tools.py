"""The small commands of the host: uname, vmware, df, vdf, ps, hostname, vmfsfilelockinfo, lsof."""

import os


def uname(host, call):
    f = host.facts
    full = "VMkernel localhost %s #1 SMP Release build-%s %s x86_64 x86_64 x86_64 ESXi"
    fields = {"s": "VMkernel", "n": "localhost", "r": f["version"],
              "v": "#1 SMP Release build-%s %s" % (f["build"], f["built"]), "m": "x86_64",
              "p": "x86_64", "i": "x86_64", "o": "ESXi"}
    flags = "".join(a.lstrip("-") for a in call.argv[1:]) or "s"
    if "a" in flags:
        call.out(full % (f["version"], f["build"], f["built"]) + "\n")
    else:
        call.out(" ".join(fields[k] for k in "snrvmpio" if k in flags) + "\n")
    return 0


def vmware(host, call):
    f = host.facts
    flags = "".join(a.lstrip("-") for a in call.argv[1:])
    if "v" in flags:
        call.out("VMware ESXi %s build-%s\n" % (f["version"], f["build"]))
    if "l" in flags:
        short = f["version"] if host.profile == "6.7" else f["version"].rsplit(".", 1)[0]
        call.out("VMware ESXi %s %s\n" % (short, f["level"]))
    return 0


def human(value):
    for unit in ("B", "K", "M", "G"):
        if value < 1024:
            return "%.1f%s" % (value, unit)
        value /= 1024
    return "%.1fT" % value


def df(host, call):
    flags = "".join(a[1:] for a in call.argv[1:] if a.startswith("-"))
    if "h" in flags:
        head, form = ("Size", "Used", "Available"), human
    elif "k" in flags:
        head, form = ("1k-blocks", "Used", "Available"), lambda v: str(v // 1024)
    else:
        head, form = ("Bytes", "Used", "Available"), str
    rows = []
    for d in host.datastores:
        free = host.free_bytes(d)
        used = max(0, d.size - free)
        rows.append((d.kind, form(d.size), form(used), form(free),
                     "%d%%" % (100 * used // max(1, d.size)), "/vmfs/volumes/" + d.name))
    widths = [max(len(r[i]) for r in rows + [("Filesystem", *head)]) if i < 4 else 4
              for i in range(5)]
    call.out("%s %s %s %s Use%% Mounted on\n" % (
        "Filesystem".ljust(widths[0]), head[0].rjust(widths[1]), head[1].rjust(widths[2]),
        head[2].rjust(widths[3])))
    for r in rows:
        call.out("%s %s %s %s %s %s\n" % (
            r[0].ljust(widths[0]), r[1].rjust(widths[1]), r[2].rjust(widths[2]),
            r[3].rjust(widths[3]), r[4].rjust(4), r[5]))
    return 0


def vdf(host, call):
    st = os.statvfs(os.path.join(host.root, "tmp"))
    size = 262144
    used = (st.f_blocks - st.f_bfree) * st.f_frsize // 1024
    free = 0 if host.knobs.on("tmp-full") else size - used
    call.out("Tardisk                  Space      Used\n-----\n"
             "Ramdisk                   Size      Used Available Use% Mounted on\n")
    for name, total, left in (("root", 32768, 30000), ("etc", 28672, 28000), ("tmp", size, free)):
        call.out("%-20s%10d%10d%10d%4d%% %s\n" % (name, total, total - left, left,
                                                  100 * (total - left) // max(1, total), "--"))
    return 0


def ps(host, call):
    full = any("c" in a for a in call.argv[1:])
    call.out("%-9s %-9s %-20s %s\n" % ("WID", "CID", "WorldName", "Command"))
    rows = [(2097152 + 7, 2097152 + 7, "hostd", "/bin/hostd")]
    for m in host.machines.values():
        if m.power == "on" and m.valid():
            rows.append((2100001 + m.vmid * 10, 2100000 + m.vmid * 10, "vmx-vthread:" + m.name,
                         "/bin/vmx -s sched.group=host/user " + m.record["vmx"]))
    for pid in host.session_processes():
        if pid == call.pid:
            continue
        command = host.command_line(pid)
        name = os.path.basename(command.split(" ")[0]) if command else "?"
        rows.append((pid, pid, name[:20], command))
    for wid, cid, world, command in rows:
        call.out("%-9d %-9d %-20s %s\n" % (wid, cid, world,
                                           command if full else command.split(" ")[0]))
    return 0


def hostname(host, call):
    call.out("localhost\n")
    return 0


def vmfsfilelockinfo(host, call):
    path = call.argv[call.argv.index("-p") + 1] if "-p" in call.argv[:-1] else call.argv[-1]
    name = os.path.basename(path)
    mode = {"X": "Exclusive", "R": "Read-Only", "M": "Multi-Writer"}.get(
        host.lock_mode(host.real(path, call.cwd)))
    call.out("vmfsfilelockinfo Version 2.0\nLooking for lock owners on \"%s\"\n" % name)
    if mode is None:
        call.out("\"%s\" is not locked by any ESX host and is Free\n" % name)
    else:
        call.out("\"%s\" is locked in %s mode by host having mac address "
                 "['00:50:56:ab:cd:ef']\n" % (name, mode))
    call.out("Total time taken : 0.01 seconds.\n")
    return 0


def lsof(host, call):
    call.out("%-10s %-20s %-10s %-5s %s\n" % ("Cartel", "World name", "Type", "fd", "Description"))
    for pid in host.session_processes():
        folder = "%s/run/proc/%d/fd" % (host.folder, pid)
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for fd in sorted(names, key=int):
            try:
                target = os.readlink(os.path.join(folder, fd))
            except OSError:
                continue
            if target.startswith(host.root):
                call.out("%-10d %-20s %-10s %-5s %s\n" % (
                    pid, os.path.basename(host.executable(pid))[:20], "FILE", fd,
                    host.shown(target)))
    return 0


def silent(host, call):
    return 0


COMMANDS = {"uname": uname, "vmware": vmware, "df": df, "vdf": vdf, "ps": ps,
            "hostname": hostname, "vmfsfilelockinfo": vmfsfilelockinfo, "lsof": lsof,
            "esxcfg-info": silent, "vsish": silent}
