"""Runs one program and says what it cost: wall time, CPU of it and of its helpers, peak memory,
bytes over loopback.

CPU is counted by control groups (version 2's cpu.stat, else version 1's cpuacct), so that nothing a
program starts gets lost: sshd, the shell of a session, the agent.
"""

import contextlib
import json
import os
import subprocess
import threading
import time

SAMPLE_SECONDS = 0.1


def hierarchy():
    """(folder, version) of a control group hierarchy that counts CPU time."""
    with open("/proc/mounts", encoding="ascii", errors="replace") as f:
        mounts = [line.split() for line in f]
    for _, place, kind, options in (m[:4] for m in mounts):
        if kind == "cgroup2":
            return place, 2
        if kind == "cgroup" and "cpuacct" in options.split(","):
            return place, 1
    raise SystemExit("bench: no control groups here: CPU time could not be counted")


class Group:
    """A control group of ours; everything started in it is counted."""

    def __init__(self, name):
        place, self.version = hierarchy()
        self.path = os.path.join(place, "vmferry-bench-%d-%s" % (os.getpid(), name))
        self.outside = place
        os.mkdir(self.path)

    def enter(self):
        """The calling process, and what it starts from then on."""
        with open(os.path.join(self.path, "cgroup.procs"), "w", encoding="ascii") as f:
            f.write("0")

    def leave(self):
        with open(os.path.join(self.outside, "cgroup.procs"), "w", encoding="ascii") as f:
            f.write("0")

    def processes(self):
        with open(os.path.join(self.path, "cgroup.procs"), encoding="ascii") as f:
            return [int(word) for word in f.read().split()]

    def seconds(self):
        if self.version == 1:
            with open(os.path.join(self.path, "cpuacct.usage"), encoding="ascii") as f:
                return int(f.read()) / 1e9
        with open(os.path.join(self.path, "cpu.stat"), encoding="ascii") as f:
            return int(dict(line.split() for line in f)["usage_usec"]) / 1e6

    def remove(self):
        for _ in range(200):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.02)


def loopback_bytes():
    with open("/sys/class/net/lo/statistics/tx_bytes", encoding="ascii") as f:
        return int(f.read())


def status_of(pid):
    """{field: KiB or text} of /proc/PID/status; empty when it is gone."""
    try:
        with open("/proc/%d/status" % pid, encoding="ascii", errors="replace") as f:
            return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    except OSError:
        return {}


def kib(status, field):
    return int(status.get(field, "0 kB").split()[0]) << 10


class Sampler(threading.Thread):
    """Peaks of the receiver's and of the agent's memory while they run."""

    def __init__(self, receiver, host_group):
        super().__init__(daemon=True)
        self.receiver, self.host_group = receiver, host_group
        self.ended = threading.Event()
        self.agent = None
        self.peaks = {"receiver_hwm": 0, "receiver_anon": 0, "agent_hwm": 0}

    def look(self):
        p = self.peaks
        s = status_of(self.receiver)
        p["receiver_hwm"] = max(p["receiver_hwm"], kib(s, "VmHWM"))
        p["receiver_anon"] = max(p["receiver_anon"], kib(s, "RssAnon"))
        if self.host_group is None:
            return
        # What looking costs is charged to nobody, but it slows our side: one process each time.
        s = status_of(self.agent) if self.agent else {}
        if not s:
            for pid in self.host_group.processes():
                s = status_of(pid)
                if s.get("Name", "").startswith("vmferry-agent"):
                    self.agent = pid
                    break
            else:
                return
        p["agent_hwm"] = max(p["agent_hwm"], kib(s, "VmHWM"))

    def run(self):
        while not self.ended.wait(SAMPLE_SECONDS):
            self.look()

    def end(self):
        self.ended.set()
        self.join()
        return self.peaks


class Failed(Exception):
    pass


memory = contextlib.nullcontext()      # a memory.Memory, of whoever measures copies


def run(command, host_group=None, ok=(0,), shell=False, stdin=subprocess.DEVNULL):
    with memory:
        return run_now(command, host_group, ok, shell, stdin)


def run_now(command, host_group, ok, shell, stdin):
    """Run it; {wall, cpu, host_cpu, peaks, lo_bytes, load} and, of --json, steps and summary."""
    group = Group("run")
    steps, summary, lines = [], None, []
    process = sampler = None
    try:
        host_began = host_group.seconds() if host_group else 0
        lo_began, load = loopback_bytes(), os.getloadavg()[0]
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, shell=shell,
                                   stderr=subprocess.PIPE, preexec_fn=group.enter, text=True,
                                   executable="/bin/bash" if shell else None)
        sampler = Sampler(process.pid, host_group)
        sampler.start()
        errors = []
        drain = threading.Thread(target=lambda: errors.append(process.stderr.read()), daemon=True)
        drain.start()
        for line in process.stdout:
            lines.append(line)
            if not line.startswith("{"):
                continue
            event = json.loads(line)
            if event.get("type") == "status" and "step" in event and "disk" not in event:
                steps.append([event["step"], round(time.monotonic() - began, 3)])
            elif event.get("type") == "summary":
                summary = event
        code = process.wait()
        wall = time.monotonic() - began
        drain.join(5)
        peaks = sampler.end()
        if code not in ok:
            raise Failed("%s ended with %d:\n%s%s" % (
                command if shell else " ".join(command), code, "".join(lines[-5:]),
                "".join(errors)[-2000:]))
        # What the host still does after our end belongs to the run: the session's clean-up.
        return {"wall": wall, "cpu": group.seconds(), "load": load,
                "host_cpu": host_group.seconds() - host_began if host_group else 0,
                "lo_bytes": loopback_bytes() - lo_began, "peaks": peaks, "steps": steps,
                "summary": summary}
    finally:
        if sampler is not None:
            sampler.end()
        if process is not None and process.poll() is None:      # we were interrupted
            process.terminate()
            process.wait()
        group.remove()
