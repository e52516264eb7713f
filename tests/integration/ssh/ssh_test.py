#!/usr/bin/env python3
"""Runs ssh_driver against real sshd processes on loopback: ssh_test.py DRIVER GROUP.

Must run as root in a mount namespace of its own (CTest starts it by `unshare --mount`): users, passwords
and PAM rules are files of ours, mounted over those of the machine.
"""
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../mirror"))
from proxy import Proxy  # noqa: E402

DRIVER = sys.argv[1]
PASSWORD = "correct horse"
SKIP = 77
HERE = os.path.dirname(os.path.abspath(__file__))
LEAKS = "lsan-rekey.supp" if sys.argv[2] == "rekey" else "lsan.supp"
os.environ["LSAN_OPTIONS"] = f"suppressions={HERE}/{LEAKS}:print_suppressions=0"
cases = 0
started = time.monotonic()


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def write(path, text, mode=0o600):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    os.chmod(path, mode)


def mount_private(top):
    """Our own accounts and PAM rules, seen by this process and its children only."""
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    os.mkdir("/run/sshd", 0o755)
    shadow = run("openssl", "passwd", "-6", PASSWORD).strip()
    write(f"{top}/passwd", "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
          "nobody:x:65534:65534::/:/usr/sbin/nologin\n", 0o644)
    write(f"{top}/shadow", f"root:{shadow}:19000:0:99999:7:::\nsshd:!:19000::::::\nnobody:!:19000::::::\n")
    os.mkdir(f"{top}/pam.d", 0o755)
    rest = "account required pam_permit.so\nsession required pam_permit.so\n"
    write(f"{top}/pam.d/sshd", "auth required pam_unix.so nodelay\n" + rest, 0o644)
    run("mount", "--bind", f"{top}/passwd", "/etc/passwd")
    run("mount", "--bind", f"{top}/shadow", "/etc/shadow")
    run("mount", "--bind", f"{top}/pam.d", "/etc/pam.d")
    return rest


def make_keys(top):
    for name, *kind in (("host_ecdsa", "ecdsa"), ("host_rsa", "rsa"), ("host_ed25519", "ed25519"),
                        ("other_ecdsa", "ecdsa"), ("user_ecdsa", "ecdsa"), ("user_ed25519", "ed25519"),
                        ("user_rsa", "rsa"), ("stranger", "ecdsa"), ("user_phrase", "ecdsa")):
        phrase = "open sesame" if name == "user_phrase" else ""
        run("ssh-keygen", "-q", "-t", kind[0], "-N", phrase, "-C", "", "-f", f"{top}/{name}")
    write(f"{top}/authorized", "".join(open(f"{top}/{n}.pub").read() for n in
                                       ("user_ecdsa", "user_ed25519", "user_rsa", "user_phrase")))


class Sshd:
    ESX8 = ["Ciphers aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr",
            "MACs hmac-sha2-256,hmac-sha2-512",
            "KexAlgorithms ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,"
            "diffie-hellman-group16-sha512,diffie-hellman-group14-sha256",
            "PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,rsa-sha2-256,rsa-sha2-512",
            "HostKeyAlgorithms ecdsa-sha2-nistp256,rsa-sha2-256,rsa-sha2-512",
            "PasswordAuthentication no", "KbdInteractiveAuthentication yes"]

    def __init__(self, top, options=(), host_keys=("ecdsa", "ed25519"), pam="yes"):
        self.top = top
        self.log = tempfile.mktemp(prefix="sshd-", suffix=".log", dir=top)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        lines = [f"Port {self.port}", "ListenAddress 127.0.0.1", f"UsePAM {pam}", "StrictModes no",
                 "PidFile none", "MaxSessions 10", "AllowTcpForwarding no", "PermitRootLogin yes",
                 "LogLevel VERBOSE", "UseDNS no", "PrintMotd no", f"AuthorizedKeysFile {top}/authorized"]
        # The first value of an option counts.
        lines = list(options) + [f"HostKey {top}/{k if '_' in k else 'host_' + k}" for k in host_keys] + lines
        config = self.log + ".config"
        write(config, "\n".join(lines) + "\n")
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", config, "-E", self.log],
                                        start_new_session=True)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                break
            assert self.process.poll() is None, open(self.log).read()
            time.sleep(0.05)
        self.known = f"{self.log}.known"
        write(self.known, "".join(f"[127.0.0.1]:{self.port} " + open(
            f"{top}/{k if '_' in k else 'host_' + k}.pub").read() for k in host_keys))

    def log_text(self):
        time.sleep(0.2)
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def children(self, pid=None):
        """All processes below sshd."""
        found = []
        for name in run("ps", "-eo", "pid=,ppid=").splitlines():
            child, parent = map(int, name.split())
            if parent == (pid or self.process.pid):
                found += [child] + self.children(child)
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in [self.process.pid] + self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def driver(server, *words, known=True, host="127.0.0.1", **more):
    command = [DRIVER, f"--host={host}", f"--port={server if isinstance(server, int) else server.port}"]
    if known and not isinstance(server, int):
        command.append(f"--known-hosts={server.known}")
    return subprocess.run(command + list(words), capture_output=True, text=True, timeout=200, **more)


def expect(result, pattern, what):
    """The driver's last line must match; "ok" also needs exit 0."""
    global cases
    cases += 1
    last = (result.stdout.strip().splitlines() or [""])[-1]
    good = re.search(pattern, last) is not None and result.returncode == (0 if last == "ok" else 3)
    if not good:
        print(f"FAILED {what}: wanted /{pattern}/, got exit {result.returncode}: {result.stdout}{result.stderr}")
        sys.exit(1)
    print(f"{time.monotonic() - started:6.1f} s  {what}: {last[:150]}", flush=True)


def old_libssh2():
    return "1.10" in run("pkg-config", "--modversion", "libssh2")


def test_login(top, pam_rest):
    key = f"--identity={top}/user_ecdsa"
    password = f"--password={PASSWORD}"
    write(f"{top}/issue", "Authorized people only\n" * 20)
    with Sshd(top, Sshd.ESX8 + [f"Banner {top}/issue"], ("ecdsa", "rsa")) as s:
        expect(driver(s, key, "login"), "^ok$", "esx8, ECDSA key")
        expect(driver(s, password, "login"), "^ok$", "esx8, keyboard-interactive")
        expect(driver(s, password, "--methods=4", "login"), "^auth: .*no way to log in", "password not offered")
        expect(driver(s, "--password=wrong", "login"), "^auth: .*one attempt", "wrong password")
        assert s.log_text().count("Failed keyboard-interactive") == 1, s.log_text()
        expect(driver(s, "login"), "^auth: .*no way to log in.*keyboard-interactive", "nothing to log in with")
        expect(driver(s, f"--identity={top}/stranger", "login"), "^auth: .*1 keys were tried", "a key refused")
        expect(driver(s, f"--identity={top}/stranger", password, "login"), "^ok$", "key refused, then password")
        expect(driver(s, f"--identity={top}/user_phrase", "login"), "^auth: .*passphrase.*ssh-agent",
               "a passphrase without a terminal")
        expect(driver(s, f"--identity={top}/user_phrase", "--ask=open sesame", "login"), "^ok$", "a passphrase")
        expect(driver(s, f"--identity={top}/absent", "login"), "^not-found: .*absent", "no such key file")
        expect(driver(s, f"--identity={top}/user_ecdsa.pub", "login"), "^(usage|auth): ", "a public key file")
        expect(driver(s, f"--identity={top}/user_rsa", "login"),
               "^auth: .*libssh2 1.10.*ECDSA" if old_libssh2() else "^ok$", "RSA user key")
        expect(driver(s, f"--ask={PASSWORD}", "login"), "^ok$", "the password asked for")
    with Sshd(top, ["PasswordAuthentication yes", "KbdInteractiveAuthentication no"]) as s:
        expect(driver(s, password, "login"), "^ok$", "method password")
        expect(driver(s, "--password=wrong", "login"), "^auth: .*one attempt", "method password, wrong")
        assert s.log_text().count("Failed password") == 1, s.log_text()
    with Sshd(top, ["PasswordAuthentication yes", "KbdInteractiveAuthentication yes"]) as s:
        expect(driver(s, "--password=wrong", "login"), "^auth: .*one attempt", "both methods, wrong")
        assert len(re.findall("Failed (password|keyb)", s.log_text())) == 1, s.log_text()
        test_agent(top, s)
    with Sshd(top, ["MaxAuthTries 1", "KbdInteractiveAuthentication yes"]) as s:
        expect(driver(s, "--password=wrong", "login"), "^auth: .*ended the connection", "the host hangs up after one failure")
    test_expired(top, pam_rest)
    test_host_keys(top)
    test_algorithms(top)
    test_unreachable()
    test_cut_in_login(top)


def test_expired(top, pam_rest):
    """The host takes the password and then asks for a new one: more than a password answers."""
    shadow = open("/etc/shadow").read()
    write("/etc/shadow", shadow.replace(":19000:", ":0:", 1))
    write("/etc/pam.d/sshd", "auth required pam_unix.so nodelay\naccount required pam_unix.so\n"
          "password required pam_unix.so\nsession required pam_permit.so\n", 0o644)
    with Sshd(top, Sshd.ESX8, ("ecdsa",)) as s:
        password = f"--password={PASSWORD}"
        expect(driver(s, password, "login"), "^auth: .*more than a password", "an expired password, no terminal")
        result = driver(s, password, "--ask=x", "login")
        expect(result, "^auth: ", "an expired password, a terminal")
        assert "asked: " in result.stderr and "password: " in result.stderr, result.stderr
    write("/etc/shadow", shadow)
    write("/etc/pam.d/sshd", "auth required pam_unix.so nodelay\n" + pam_rest, 0o644)


def test_agent(top, s):
    socket_path = f"{top}/agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket_path], stdout=subprocess.DEVNULL)
    environment = {**os.environ, "SSH_AUTH_SOCK": socket_path}
    try:
        while not os.path.exists(socket_path):
            time.sleep(0.05)
        for name in ("stranger", "other_ecdsa", "user_ed25519"):
            run("ssh-add", "-q", f"{top}/{name}", env=environment)
        expect(driver(s, "--methods=2", "login", env=environment), "^ok$", "ssh-agent, third identity")
        before = s.log_text().count("Failed publickey")
        expect(driver(s, "--methods=2", f"--identity={top}/user_ed25519", "login", env=environment), "^ok$",
               "ssh-agent, the named identity only")
        assert s.log_text().count("Failed publickey") == before, s.log_text()
        expect(driver(s, "--methods=2", f"--identity={top}/user_ecdsa", "login", env=environment), "^auth: ",
               "ssh-agent does not hold the named key")
        for i in range(8):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{top}/many{i}")
        run("ssh-add", "-q", "-D", env=environment)
        for i in range(8):
            run("ssh-add", "-q", f"{top}/many{i}", env=environment)
        expect(driver(s, "--methods=14", f"--password={PASSWORD}", "login", env=environment), "^ok$",
               "many identities leave room for the password")
        expect(driver(s, "--methods=2", "login", env={**os.environ, "SSH_AUTH_SOCK": "/nowhere"}), "^auth: ",
               "no ssh-agent")
    finally:
        agent.kill()
        agent.wait()


def test_host_keys(top):
    key = f"--identity={top}/user_ecdsa"
    own = f"{top}/own"
    with Sshd(top, (), ("ecdsa", "ed25519")) as s:
        print_of = run("ssh-keygen", "-lf", f"{top}/host_ecdsa.pub").split()[1]
        name = f"[127.0.0.1]:{s.port}"
        ecdsa = open(f"{top}/host_ecdsa.pub").read()
        other = open(f"{top}/other_ecdsa.pub").read()
        ed25519 = open(f"{top}/host_ed25519.pub").read()
        expect(driver(s, key, f"--own={own}", "login", known=False),
               f"^auth: .*unknown.*{re.escape(print_of)}.*--accept-new-host-key", "unknown host key")
        assert not os.path.exists(own)
        expect(driver(s, key, f"--own={own}", "--accept", "login", known=False), "^ok$", "a key accepted")
        assert open(own).read() == f"{name} {' '.join(ecdsa.split()[:2])}\n"
        expect(driver(s, key, f"--own={own}", "login", known=False), "^ok$", "and then known")
        assert "Failed" not in s.log_text()
        count = s.log_text().count("Connection closed by auth")
        for what, lines, wanted in (
                ("changed", f"{name} {other}", "^auth: .*HAS CHANGED"),
                ("only another type known", f"{name} {ed25519}", "^ok$"),
                ("revoked", f"{name} {ecdsa}@revoked * {ecdsa}", "^auth: .*REVOKED"),
                ("an authority is no key", f"@cert-authority * {ecdsa}", "^auth: .*unknown"),
                ("bad lines around it", f"nonsense\n@what x y z\n{name} {ecdsa}\nx ssh-rsa AAAA\n", "^ok$")):
            write(f"{top}/lines", lines)
            expect(driver(s, key, "--accept", f"--own={top}/unused", f"--known-hosts={top}/lines", "login",
                          known=False) if "authority" not in what else
                   driver(s, key, f"--known-hosts={top}/lines", "login", known=False), wanted, what)
        assert not os.path.exists(f"{top}/unused")
        write(f"{top}/hashed", f"{name} {ecdsa}")
        run("ssh-keygen", "-H", "-f", f"{top}/hashed")
        assert "|1|" in open(f"{top}/hashed").read()
        expect(driver(s, key, f"--known-hosts={top}/hashed", "login", known=False), "^ok$", "a hashed name")
        del count
    with Sshd(top, (), ("other_ecdsa",)) as s:
        # Keys of another type only: not a reason to accept a new one.
        write(f"{top}/lines", f"[127.0.0.1]:{s.port} " + open(f"{top}/host_ed25519.pub").read())
        expect(driver(s, f"--password={PASSWORD}", "--accept", f"--own={top}/unused",
                      f"--known-hosts={top}/lines", "login", known=False), "^auth: .*HAS CHANGED",
               "known by another type of key")
        assert not re.search("(Failed|Accepted|userauth)", s.log_text()), "a credential was sent"


def test_algorithms(top):
    key = f"--identity={top}/user_ecdsa"
    old = old_libssh2()
    advice = "^unsupported: .*libssh2 1.10.*1.11 or later" if old else "^ok$"
    with Sshd(top, Sshd.ESX8, ("rsa",)) as s:
        expect(driver(s, key, "login"), advice, "esx8-rsa")
    with Sshd(top, ["Ciphers aes256-gcm@openssh.com"]) as s:
        expect(driver(s, key, "login"), advice, "gcm-only")
    with Sshd(top, ["KexAlgorithms diffie-hellman-group14-sha1", "HostKeyAlgorithms ssh-rsa",
                    "MACs hmac-sha1", "Ciphers aes128-ctr"], ("rsa",)) as s:
        expect(driver(s, key, "login"), "^ok$", "old")
    with Sshd(top, ["Ciphers 3des-cbc"]) as s:
        expect(driver(s, key, "login"), "^unsupported: ", "3des is off")
        expect(driver(s, key, "--legacy", "login"), "^ok$", "3des on request")


def test_unreachable():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    expect(driver(port, "login"), "^network: .*refused", "nobody listens")
    expect(driver(port, "login", host="no-such-host.invalid"), "^network: .*no-such-host", "no such name")
    for what, say, wanted, more in (("silent", b"", "^network: .*in time", []),
                                    ("no SSH", b"220 mail\r\n" * 3, "^network: ", []),
                                    ("hangs up", None, "^network: ", []),
                                    ("given up by us", b"", "^stopped: ", ["--cancel"])):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            p = subprocess.Popen([DRIVER, "--host=127.0.0.1", f"--port={s.getsockname()[1]}",
                                  "--timeout-ms=1000", *more, "login"], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
            peer, _ = s.accept()
            if say is None:
                peer.close()
            else:
                peer.sendall(say)
            out, err = p.communicate(timeout=20)
            expect(subprocess.CompletedProcess([], p.returncode, out, err), wanted, what)
            peer.close()


def test_cut_in_login(top):
    """A connection that dies anywhere in the login is the network's fault, not the algorithms'."""
    key = f"--identity={top}/user_ecdsa"
    with Sshd(top) as s:
        proxy = Proxy("127.0.0.1", ("127.0.0.1", s.port), back=True)
        words = (proxy.port, key, "--accept", f"--own={top}/behind-proxy", "login")
        expect(driver(*words, known=False), "^ok$", "through a proxy")
        whole = proxy.carried
        for part in range(1, 20):
            proxy.limits.append(whole * part // 20)
            expect(driver(*words, known=False), "^network: ", f"cut at {part}/20 of the login")
        proxy.close()


def test_commands(top, _):
    key = f"--identity={top}/user_ecdsa"
    with Sshd(top, Sshd.ESX8, ("ecdsa",)) as s:
        expect(driver(s, key, "commands"), "^ok$", "commands")
        expect(driver(s, key, "channels"), "^ok$", "channels")
        expect(driver(s, key, "slow-reader"), "^ok$", "slow reader")
        expect(driver(s, key, "close-while-busy"), "^ok$", "close while busy")
        os.makedirs(f"{top}/up/small")
        run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", f"{top}/up/small")
        expect(driver(s, key, "upload", f"{top}/up"), "^ok$", "upload")
        run("umount", "-l", f"{top}/up/small")
        expect(driver(s, key, "duplex", "3", "20000000"), "^ok$", "binary data both ways")
    with Sshd(top, ["MaxSessions 3"]) as s:
        result = driver(s, key, "channels")
        assert "limit" in result.stdout and "MaxSessions" in result.stdout, result.stdout
    with Sshd(top, ["ClientAliveInterval 1", "ClientAliveCountMax 2"]) as s:
        expect(driver(s, key, "idle", "5"), "^ok$", "alive: the host's questions are answered")
    with Sshd(top) as s:
        expect(driver(s, key, "--keepalive-ms=300", "--silence-ms=2000", "idle", "4"), "^ok$",
               "our questions are answered")


def ciphers_of_library():
    old = ["aes128-ctr", "aes192-ctr", "aes256-ctr"]
    new = ["aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"]
    return old if old_libssh2() else old + new


def test_rekey(top, _):
    """Keys are exchanged while packets are half sent: without the send queue this hangs or fails."""
    key = f"--identity={top}/user_ecdsa"
    with Sshd(top, ["RekeyLimit 1M 1H", "LogLevel DEBUG1"], ("ecdsa",)) as s:
        for cipher in ciphers_of_library():
            for channels, count in ((1, 8000000), (2, 4000000), (4, 2000000)):
                expect(driver(s, key, f"--ciphers={cipher}", "--send-buffer=4608", "duplex", str(channels),
                              str(count)), "^ok$", f"{cipher}, {channels} channels")
        times = len(re.findall("rekey (?:in|out)|set_newkeys: rekeying", s.log_text()))
        print(f"{times} key exchanges in the log")
        assert times > 50, "the keys were not renewed"


def test_cut(top, _):
    """All waiters end with a network error, whoever dies."""
    key = f"--identity={top}/user_ecdsa"

    def one(what, deed, *options, wait=30):
        with Sshd(top) as s:
            p = subprocess.Popen([DRIVER, "--host=127.0.0.1", f"--port={s.port}", f"--known-hosts={s.known}",
                                  key, *options, "cut"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert p.stdout.readline() == "ready\n"
            start = time.monotonic()
            deed(s)
            out, err = p.communicate(timeout=wait)
            expect(subprocess.CompletedProcess([], p.returncode, out, err), "^ok$",
                   f"{what}, {time.monotonic() - start:.1f} s")

    def kill(s):
        for pid in s.children():
            try:
                if b"sshd" in open(f"/proc/{pid}/cmdline", "rb").read():
                    os.kill(pid, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                pass    # it has ended in between

    def freeze(s):
        for pid in s.children():
            os.kill(pid, signal.SIGSTOP)

    one("sshd killed", kill)
    one("the host frozen", freeze, "--keepalive-ms=500", "--silence-ms=2000")


def main():
    if os.geteuid() != 0:
        print("needs root")
        sys.exit(SKIP)
    with tempfile.TemporaryDirectory(prefix="vmferry-ssh-") as top:
        os.chmod(top, 0o755)
        rest = mount_private(top)
        make_keys(top)
        {"login": test_login, "commands": test_commands, "rekey": test_rekey, "cut": test_cut}[sys.argv[2]](
            top, rest)
    print(f"{cases} cases")


main()
