"""sshd as ESXi 6.7 and 8.0 set it up, with accounts of its own.

Private copies of passwd, shadow, nsswitch.conf and pam.d/sshd are bound over the machine's in the
daemon's mount name space; the machine's own files are neither read nor changed.
"""

import crypt
import os
import shutil
import subprocess
import warnings

from . import isolate

warnings.filterwarnings("ignore", category=DeprecationWarning)

FIPS_KEX = ("ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,"
            "diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,"
            "diffie-hellman-group18-sha512,diffie-hellman-group14-sha256")
CIPHERS = ("aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr")
# Signatures of user keys: FIPS mode refuses ed25519.
USER_KEYS = "rsa-sha2-256,rsa-sha2-512,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521"

PROFILES = {
    "6.7": {
        "host_keys": ["rsa"],
        "HostKeyAlgorithms": "rsa-sha2-512,rsa-sha2-256,ssh-rsa",
        "MACs": "hmac-sha2-256,hmac-sha2-512,hmac-sha1",
        "PubkeyAcceptedAlgorithms": USER_KEYS + ",ssh-rsa",
        "more": ["AllowStreamLocalForwarding yes", "PermitTunnel no"],
    },
    "8.0": {
        "host_keys": ["rsa", "ecdsa"],
        "HostKeyAlgorithms": "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,"
                             "rsa-sha2-256,rsa-sha2-512",
        "MACs": "hmac-sha2-256,hmac-sha2-512",
        "PubkeyAcceptedAlgorithms": USER_KEYS,
        "more": ["AllowStreamLocalForwarding no", "PermitTunnel no", "GatewayPorts no",
                 "Compression no"],
    },
}


class SshServer:
    def __init__(self, folder, profile, address, port, login):
        self.folder = folder
        self.etc = os.path.join(folder, "etc")
        self.profile = PROFILES[profile]
        self.address = address
        self.port = port
        self.login = login
        self.config = os.path.join(self.etc, "sshd_config")

    def key(self, kind):
        return os.path.join(self.etc, "ssh_host_%s_key" % kind)

    def prepare(self, password):
        """Keys and account files; once per instance."""
        os.makedirs(self.etc, exist_ok=True)
        for kind in self.profile["host_keys"]:
            if not os.path.exists(self.key(kind)):
                bits = ["-b", "2048"] if kind == "rsa" else ["-b", "256"]
                subprocess.run(["ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-C", "",
                                "-f", self.key(kind)], check=True)
        self.write("passwd", "root:x:0:0:Administrator:/:%s\n"
                             "sshd:x:74:74:sshd:/run/sshd:/usr/sbin/nologin\n"
                             "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n" % self.login)
        self.write("group", "root:x:0:\nsshd:x:74:\nnogroup:x:65534:\ntty:x:5:\n")
        self.set_password(password)
        self.write("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n")
        self.write("hosts", "127.0.0.1 localhost\n")

    def set_password(self, password):
        salt = crypt.mksalt(crypt.METHOD_SHA512, rounds=1000)
        self.write("shadow", "root:%s:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n"
                   % crypt.crypt(password, salt), 0o600)

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.etc, name)
        # In place, not by rename: the file may be bound over the machine's one.
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, mode)

    def write_config(self, knobs, port=None):
        """sshd_config and the PAM rules for the knobs as they are now."""
        interval, count = knobs["client-alive"].split()
        rows = [
            "ListenAddress %s" % self.address, "Port %d" % (port or self.port),
            *("HostKey " + self.key(kind) for kind in self.profile["host_keys"]),
            "PidFile none", "UsePAM yes", "PermitRootLogin yes", "LogLevel VERBOSE",
            "StrictModes no",        # the instance may lie below /tmp, which is open to all
            "AuthorizedKeysFile %s/root/etc/ssh/keys-%%u/authorized_keys" % self.folder,
            "PubkeyAuthentication " + knobs["pubkey"],
            "PasswordAuthentication " + knobs["password-authentication"],
            "KbdInteractiveAuthentication yes", "PermitEmptyPasswords no",
            "PrintMotd no", "PrintLastLog no", "UseDNS no", "X11Forwarding no",
            "PermitUserEnvironment no", "AllowAgentForwarding no",
            "KexAlgorithms " + FIPS_KEX, "Ciphers " + CIPHERS, "MACs " + self.profile["MACs"],
            "HostKeyAlgorithms " + self.profile["HostKeyAlgorithms"],
            "PubkeyAcceptedAlgorithms " + self.profile["PubkeyAcceptedAlgorithms"],
            "RekeyLimit " + knobs["rekey-limit"],
            "AllowTcpForwarding " + knobs["tcp-forwarding"],
            "MaxSessions " + knobs["max-sessions"], "MaxStartups " + knobs["max-startups"],
            "ClientAliveInterval " + interval, "ClientAliveCountMax " + count,
            "SetEnv LOOKALIKE_DIR=" + self.folder, *self.profile["more"],
        ]
        if knobs.on("sftp"):
            rows.append("Subsystem sftp /usr/lib/vmware/openssh/bin/sftp-server -f LOCAL5 -l INFO")
        if knobs["banner"]:
            self.write("banner", knobs["banner"] + "\n")
            rows.append("Banner " + os.path.join(self.etc, "banner"))
        self.write("sshd_config", "\n".join(rows) + "\n")
        self.write("pam-sshd", self.pam(knobs))

    def pam(self, knobs):
        tally = "nodelay dir=%s deny=%s unlock_time=900 even_deny_root root_unlock_time=900" % (
            os.path.join(self.folder, "run/faillock"), knobs["lockout"])
        rows = ["auth required pam_faillock.so preauth silent " + tally]
        if knobs.on("two-prompts"):
            rows.append("auth requisite %s [Second password:] %s" % (
                os.path.join(os.path.dirname(self.login), "lookalike-pam.so"),
                os.path.join(self.folder, "password")))
        if knobs["auth-message"]:
            self.write("auth-message", knobs["auth-message"] + "\n")
            rows.append("auth optional pam_echo.so file=" + os.path.join(self.etc, "auth-message"))
        rows += [
            "auth [success=1 default=ignore] pam_unix.so nodelay",
            "auth [default=die] pam_faillock.so authfail " + tally,
            "auth sufficient pam_faillock.so authsucc " + tally,
            "auth required pam_deny.so",
            "account required pam_permit.so",
            "session required pam_permit.so",
            "password required pam_deny.so",
        ]
        return "\n".join(rows) + "\n"

    def mount(self):
        """In the daemon's mount name space."""
        isolate.mount("tmpfs", "/run", "tmpfs", 0, "size=1m,mode=755")
        os.mkdir("/run/sshd", 0o755)
        for name, target in (("passwd", "/etc/passwd"), ("shadow", "/etc/shadow"),
                             ("group", "/etc/group"), ("nsswitch.conf", "/etc/nsswitch.conf"),
                             ("hosts", "/etc/hosts"), ("pam-sshd", "/etc/pam.d/sshd")):
            if os.path.exists(target):
                isolate.bind(os.path.join(self.etc, name), target)

    def command(self):
        program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin") or "/usr/sbin/sshd"
        return [program, "-D", "-f", self.config, "-E", os.path.join(self.folder, "log/sshd.log")]

    def known_hosts(self):
        """Lines for a known_hosts file."""
        name = self.address if self.port == 22 else "[%s]:%d" % (self.address, self.port)
        rows = []
        for kind in self.profile["host_keys"]:
            with open(self.key(kind) + ".pub", encoding="ascii") as f:
                rows.append("%s %s" % (name, " ".join(f.read().split()[:2])))
        return "\n".join(rows) + "\n"

    def failures(self):
        """Wrong passwords that pam_faillock counts against root."""
        path = os.path.join(self.folder, "run/faillock/root")
        try:
            with open(path, "rb") as f:
                data = f.read()
        except FileNotFoundError:
            return 0
        # struct tally: source[52], u16 reserved, u16 status (bit 0: valid), u64 time
        return sum(1 for i in range(0, len(data) - 63, 64) if data[i + 54] & 1)
