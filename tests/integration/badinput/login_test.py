#!/usr/bin/env python3
"""Logging in: wrong passwords, wrong hosts, hosts that are none."""

import os
import socket
import subprocess
import threading

from harness import AUTH, BUSY, NETWORK, OK, SOURCE, UNSUPPORTED, USAGE, MirrorCase, main


def write(path, text, mode=0o600):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, mode)
    return path


class Server:
    """Something on a port that is no SSH server."""

    def __init__(self, say, close=True):
        self.say, self.close_after = say, close
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.heard = []
        self.kept = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            try:
                peer.settimeout(2)
                peer.sendall(self.say)
                self.heard.append(peer.recv(4096))
            except OSError:
                pass
            if self.close_after:
                peer.close()
            else:
                self.kept.append(peer)

    def stop(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for peer in self.kept:
            peer.close()


class Password(MirrorCase):
    def fails(self, *login, code=AUTH, says=()):
        """A refresh with another login; how often the host saw a wrong password."""
        before = self.host.state()["login_failures"]
        result = self.refresh("--known-hosts", self.host.known_hosts, *login, login=False,
                              expect=code, says=says)
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)
        return result, self.failures() - self.count_of(before)

    @staticmethod
    def count_of(failures):
        return sum(failures.values()) if isinstance(failures, dict) else failures

    def failures(self):
        return self.count_of(self.host.state()["login_failures"])

    def test_wrong_password_is_tried_once(self):
        wrong = write(os.path.join(self.folder, "wrong"), "not-the-password\n")
        result, attempts = self.fails("--password-file", wrong,
                                      says=("password", r"root", r"127\.0\.0\.1"))
        self.assertEqual(attempts, 1, str(result))
        self.assertNotIn("not-the-password", result.err + result.out)

    def test_wrong_password_is_tried_once_where_the_method_password_is_offered(self):
        self.turn("password-authentication", "yes")
        wrong = write(os.path.join(self.folder, "wrong"), "not-the-password\n")
        result, attempts = self.fails("--password-file", wrong, says=("password",))
        self.assertEqual(attempts, 1, str(result))

    def test_locked_account(self):
        self.turn("lockout", "1")
        wrong = write(os.path.join(self.folder, "wrong"), "not-the-password\n")
        self.fails("--password-file", wrong)
        self.fails("--password-file", self.host.password_file, says=("lock|too many|900",))

    def test_no_password_and_no_key(self):
        _, attempts = self.fails(says=("--password-file|--identity",))
        self.assertEqual(attempts, 0)

    def test_password_file_missing_or_empty_or_open_to_others(self):
        missing = os.path.join(self.folder, "missing")
        self.fails("--password-file", missing, code=USAGE, says=(missing,))
        empty = write(os.path.join(self.folder, "empty"), "")
        self.fails("--password-file", empty, code=USAGE, says=(empty,))
        loose = write(os.path.join(self.folder, "loose"), self.host.password + "\n", 0o644)
        _, attempts = self.fails("--password-file", loose, code=USAGE, says=(loose, "0600|chmod"))
        self.assertEqual(attempts, 0)

    def test_identity_that_is_no_key(self):
        bad = write(os.path.join(self.folder, "bad"), "no key at all\n")
        self.fails("--identity", bad, code=USAGE, says=(bad,))


class HostKey(MirrorCase):
    def fingerprints(self):
        """Of the host's keys, by ssh-keygen."""
        out = subprocess.run(["ssh-keygen", "-lf", self.host.known_hosts], capture_output=True,
                             check=True).stdout.decode()
        return [line.split()[1] for line in out.splitlines()]

    def other_key(self):
        """A line for our host with keys that it does not have."""
        lines = []
        for kind in ("ecdsa", "ed25519", "rsa"):
            path = os.path.join(self.folder, "key-" + kind)
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
            with open(path + ".pub", encoding="ascii") as f:
                words = f.read().split()
            lines.append("[%s]:%d %s %s" % (self.host.address, self.host.port, words[0], words[1]))
        return "\n".join(lines) + "\n"

    def fails(self, known_hosts, *options, says=()):
        before = self.attempts()
        result = self.refresh("--known-hosts", known_hosts, "--password-file",
                              self.host.password_file, *options, login=False, expect=AUTH, says=says)
        self.assertEqual(self.attempts(), before, "a credential was sent")
        self.assertTrue(any(f in result.err for f in self.fingerprints()), str(result))
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)
        return result

    def attempts(self):
        """Logins that sshd has seen try anything."""
        with open(os.path.join(self.host.dir, "log/sshd.log"), encoding="utf-8",
                  errors="replace") as f:
            return sum("Accepted" in line or "Failed" in line or "Postponed" in line for line in f)

    def test_unknown_key_stops_with_its_fingerprint(self):
        empty = write(os.path.join(self.folder, "known"), "")
        self.fails(empty, says=("unknown", "--accept-new-host-key", r"127\.0\.0\.1"))

    def test_known_hosts_file_missing(self):
        self.fails(os.path.join(self.folder, "none"), says=("unknown", "--accept-new-host-key"))

    def test_unknown_key_accepted_once_is_remembered(self):
        known = os.path.join(self.folder, "known")
        login = ("--known-hosts", known, "--password-file", self.host.password_file)
        self.run_it("vms", "--accept-new-host-key", *login, self.place(), login=False, expect=OK)
        with open(known, encoding="ascii") as f:
            self.assertIn("[127.0.0.1]:%d" % self.host.port, f.read())
        self.run_it("vms", *login, self.place(), login=False, expect=OK)

    def test_changed_key_is_refused_whatever_is_said(self):
        known = write(os.path.join(self.folder, "known"), self.other_key())
        self.fails(known, says=("changed", known))
        with open(known, encoding="ascii") as f:
            text = f.read()
        self.fails(known, "--accept-new-host-key", "--yes", says=("changed",))
        with open(known, encoding="ascii") as f:
            self.assertEqual(f.read(), text)

    def test_revoked_key(self):
        with open(self.host.known_hosts, encoding="ascii") as f:
            text = "".join("@revoked " + line for line in f)
        self.fails(write(os.path.join(self.folder, "known"), text), says=("revoked",))

    def test_known_hosts_that_is_junk(self):
        junk = os.path.join(self.folder, "known")
        with open(junk, "wb") as f:
            f.write(os.urandom(4096) + b"\n" + b"a" * 100000 + b"\n|1|x|y ssh-rsa\n")
        self.fails(junk, says=("unknown",))


class Unreachable(MirrorCase):
    def refused(self, place, code, *says):
        result = self.run_it("mirror", place, self.name, self.dir, expect=code, says=says)
        self.assertLess(result.seconds, 60)
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)
        return result

    def server(self, *how):
        s = Server(*how)
        self.addCleanup(s.stop)
        return s

    def test_closed_port(self):
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        self.refused("127.0.0.1:%d" % port, NETWORK, r"127\.0\.0\.1", str(port))

    def test_name_that_does_not_exist(self):
        self.refused("no-such-host.invalid", NETWORK, "no-such-host.invalid")

    def test_http_server(self):
        s = self.server(b"HTTP/1.1 400 Bad Request\r\n\r\n<html>\r\n")
        self.refused("127.0.0.1:%d" % s.port, NETWORK, r"127\.0\.0\.1")
        self.assertNotIn(self.host.password.encode(), b"".join(s.heard))

    def test_server_that_hangs_up(self):
        s = self.server(b"")
        self.refused("127.0.0.1:%d" % s.port, NETWORK, r"127\.0\.0\.1")

    def test_server_that_says_nothing(self):
        s = self.server(b"", False)
        self.refused("127.0.0.1:%d" % s.port, NETWORK, r"127\.0\.0\.1")

    def test_server_that_says_junk_for_ever(self):
        s = self.server(b"SSH-2.0-x\r\n" + os.urandom(1 << 16), False)
        self.refused("127.0.0.1:%d" % s.port, NETWORK, r"127\.0\.0\.1")

    def test_bad_host_operands(self):
        for place in ("", "@", "root@", "h:0", "h:70000", "h:x", "[::1", "a b", "-h"):
            result = self.run_it("mirror", "--", place, self.name, self.dir)
            self.assertEqual(result.code, USAGE, "%r\n%s" % (place, result))


class NoEsxi(MirrorCase):
    def test_no_shell(self):
        self.turn("shell", "off")
        self.refresh_fails(UNSUPPORTED, "shell", r"127\.0\.0\.1")

    def test_ssh_but_no_esxi(self):
        moved = []
        for folder in ("bin", "sbin"):
            for name in ("vim-cmd", "vmware", "esxcli", "localcli", "vmkfstools"):
                path = os.path.join(self.host.root, folder, name)
                if os.path.lexists(path):
                    os.rename(path, path + ".away")
                    moved.append(path)
        try:
            result = self.refresh(expect=UNSUPPORTED, says=("ESXi", r"127\.0\.0\.1"))
        finally:
            for path in moved:
                os.rename(path + ".away", path)
        self.assert_untouched(self.dir, self.before)
        self.assertNotIn("Traceback", result.err)

    def test_host_that_talks(self):
        """Banners and a message of the day change nothing."""
        self.turn("banner", "Welcome!\x1b[31m\nSSH-2.0-fake\n(vim.fault.NotFound) { }\n")
        self.turn("motd", "The time and date of this login have been sent to the system logs.\n")
        result = self.refresh(expect=OK)
        self.assertNotIn("\x1b", result.out + result.err)
        self.assert_true_image(self.name, self.dir)

    def test_vim_cmd_fails_for_a_moment(self):
        self.turn("vim-cmd", "bad-alloc")
        self.turn("vim-cmd-fail-times", "1")
        self.refresh(expect=OK)
        self.assert_true_image(self.name, self.dir)

    def test_esxcli_fails_or_is_cut(self):
        """No answer, or half of one, is an error that is told, never a guess."""
        for how in ("fail", "cut"):
            with self.subTest(how):
                self.turn("esxcli", how)
                result = self.refresh(says=("UUID|datastore", r"127\.0\.0\.1|web 01"))
                self.assert_code(result, SOURCE)
                self.assert_clean()
                self.assert_untouched(self.dir, self.before)

    def test_map_of_holes_that_cannot_be_used(self):
        """It is only a hint: the image is right without it."""
        for how in ("fail", "cut", "merged", "per-block"):
            for holes in ("thick", "all"):
                with self.subTest("%s %s" % (how, holes)):
                    self.turn("t0", how)
                    self.turn("t0-z", holes)
                    self.refresh(expect=OK)
                    self.assert_true_image(self.name, self.dir)

    def test_vim_cmd_cannot_log_in(self):
        self.turn("vim-cmd", "login-failure")
        self.refresh(expect=BUSY, says=(r"127\.0\.0\.1", "hostd"))
        self.assert_untouched(self.dir, self.before)

    def test_vim_cmd_has_no_memory(self):
        self.turn("vim-cmd", "bad-alloc")
        result = self.refresh(says=(r"127\.0\.0\.1|vim-cmd",))
        self.assert_code(result, BUSY)
        self.assert_untouched(self.dir, self.before)


if __name__ == "__main__":
    main()
