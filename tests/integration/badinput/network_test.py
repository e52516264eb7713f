#!/usr/bin/env python3
"""Connections that are cut, reads that fail or hang, strangers, closed and busy data ports."""

import os
import socket
import threading
import time

from harness import CLEANUP, MB, NETWORK, OK, SOURCE, MirrorCase, main

PORTS = (31031, 44046, 8000)


def slowly(rate):
    return ("--json", "--bwlimit", rate, "--compress", "none")


class CutForGood(MirrorCase):
    """sshd goes away and stays away: before the commit 12, after it 9; then all is put right."""

    def cut_at(self, step, pause=0.3, knobs=(), rate="500k"):
        for name, value in knobs:
            self.turn(name, value)
        self.write(self.name, length=2 * MB)
        run = self.start("mirror", *slowly(rate), self.place(), self.name, self.dir)
        run.wait_line(step)
        time.sleep(pause)
        self.host.knob("connections", "0")
        self.host.ask("kill-sessions")
        result = run.finish()
        self.host.knob("connections", "")
        for name, value in knobs:
            self.host.knob(name, "ok" if name.endswith("result") else "0")
        self.assert_says(result, "web 01|127.0.0.1")
        self.assertEqual(result.summary()["exit_code"], result.code)
        return result

    def put_right(self):
        """Whatever the host still has is known, and the next command takes it away."""
        if self.host.leftovers()["snapshots"] or self.host.leftovers()["files"]:
            self.assertNotEqual(self.journal(), [])
        deadline = time.monotonic() + 15    # an agent without its peer ends by itself
        while self.host.leftovers()["processes"]:
            self.assertLess(time.monotonic(), deadline, self.host.leftovers())
            time.sleep(0.2)
        self.run_it("cleanup", self.place(), expect=OK)
        for name in self.journal():     # an intention without a snapshot waits half an hour
            os.unlink(os.path.join(self.state, "journal", name))
        self.assert_clean()

    def fails(self, *how, **knobs):
        result = self.cut_at(*how, **knobs)
        self.assert_code(result, NETWORK)
        self.assert_untouched(self.dir, self.before)
        self.put_right()
        self.refresh_works()

    def test_while_the_agent_is_placed(self):
        self.fails("placing the agent", 0.0)

    def test_while_the_snapshot_is_made(self):
        self.fails("taking the snapshot", 1.0, knobs=(("create-delay", "3"),))

    def test_while_data_comes(self):
        self.fails("starting the transfer", 1.0)


class CutForGoodLate(CutForGood):
    test_while_the_agent_is_placed = test_while_the_snapshot_is_made = None
    test_while_data_comes = None

    def test_while_the_snapshot_is_removed(self):
        result = self.cut_at("removing the snapshot", 0.5, knobs=(("remove-delay", "3"),))
        self.assert_code(result, CLEANUP)
        self.assertEqual(result.summary()["vms"][0]["outcome"], "ok")
        self.check(self.dir)
        self.assert_true_image(self.name, self.dir)
        time.sleep(3)
        self.put_right()

    def test_before_anything(self):
        self.host.knob("connections", "0")
        self.refresh(expect=NETWORK)
        self.host.knob("connections", "")
        self.assert_untouched(self.dir, self.before)


class Reads(MirrorCase):
    """An error of the host's disk is the end, and never a run of zeros."""
    name = "reads"      # the knob takes no path with a blank

    def flat(self, slot=0):
        disk = self.host.vm(self.name)["disks"][slot]["path"]
        # The base, whatever snapshots there were; as sessions see it.
        return disk.replace(".vmdk", "-flat.vmdk")

    def fault(self, how, start, length=65536):
        self.turn("read-fault", "%s@%s:%d+%d" % (how, self.flat(), start, length))

    def test_read_error_through_the_agent(self):
        self.fault("eio", 5 * MB)
        self.refresh_fails(SOURCE, self.name, "scsi0:0", "input/output error|I/O error",
                           "byte 5242880")
        self.host.knob("read-fault", "")
        self.refresh_works()

    def test_read_error_through_dd(self):
        self.turn("exec-installed-only", "1")
        self.fault("eio", 5 * MB)
        self.refresh_fails(SOURCE, self.name, "scsi0:0", "input/output error|I/O error",
                           "byte 5242880")

    def test_read_error_at_a_first_mirror(self):
        self.fault("eio", 5 * MB)
        folder = os.path.join(self.folder, "m")
        self.mirror(self.name, folder, expect=SOURCE, says=(self.name, "scsi0:0"))
        self.assert_nothing_published(folder)
        self.assert_clean()
        self.host.knob("read-fault", "")
        self.good_mirror(self.name, folder)
        self.assert_true_image(self.name, folder)

    def test_read_that_stalls_for_too_long(self):
        self.fault("stall:12000", 5 * MB)
        result = self.refresh("--stall-timeout", "2s", expect=SOURCE)
        self.assert_says(result, self.name)
        self.assertLess(result.seconds, 60)
        self.assert_untouched(self.dir, self.before)

    def test_read_that_stalls_for_too_long_through_dd(self):
        self.turn("exec-installed-only", "1")
        self.fault("stall:12000", 5 * MB)
        result = self.refresh("--stall-timeout", "2s", expect=SOURCE)
        self.assert_says(result, self.name)
        self.assertLess(result.seconds, 60)
        self.assert_untouched(self.dir, self.before)

    def test_read_that_stalls_a_little(self):
        self.fault("stall:3000", 5 * MB)
        self.refresh("--stall-timeout", "30s", expect=OK)
        self.assert_true_image(self.name, self.dir)


class Strangers(MirrorCase):
    """Whoever calls at the data port and is not our agent gets nothing, not even an answer."""

    def strangers(self, *says):
        self.write(self.name, length=3 * MB)
        run = self.start("mirror", *slowly("1M"), self.place(), self.name, self.dir)
        peers = []
        deadline = time.monotonic() + 20
        while not peers:
            try:
                peers.append(socket.create_connection((self.address, PORTS[0]), 2))
            except OSError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
        answers = []
        for say in says:
            peer = peers.pop() if peers else socket.create_connection((self.address, PORTS[0]), 2)
            try:
                peer.sendall(say)
            except OSError:
                pass
            answers.append(peer)
        result = run.finish()
        self.assert_code(result, OK)
        for peer in answers:
            peer.settimeout(1)
            try:
                self.assertEqual(peer.recv(1000), b"", "a stranger was answered")
            except ConnectionError:
                pass
            peer.close()
        self.assertEqual(result.summary()["vms"][0]["data_channel"], "tcp")
        self.assert_true_image(self.name, self.dir)
        self.check(self.dir)
        return result

    def test_silence(self):
        self.strangers(b"", b"", b"")

    def test_junk(self):
        self.strangers(os.urandom(7), os.urandom(5000))

    def test_http(self):
        self.strangers(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    def test_junk_of_the_right_size(self):
        self.strangers(*[os.urandom(n) for n in (64, 96, 128, 160, 192, 256)])

    def test_ssh_and_tls(self):
        self.strangers(b"SSH-2.0-OpenSSH_9.2\r\n", bytes.fromhex("1603010200010001fc0303") + bytes(512))

    def test_many(self):
        self.strangers(*[b"x"] * 60)

    def test_repeated_first_words_of_our_agent(self):
        """What an eavesdropper has heard opens nothing: it is said to the next run's port."""
        heard = []
        with socket.create_server((self.address, 44046)) as tap:
            threading.Thread(target=self.tap, args=(tap, heard), daemon=True).start()
            self.write(self.name)
            self.mirror(self.name, self.dir, "--data-connect", "%s:44046" % self.address, expect=OK)
        self.assertTrue(heard and heard[0], "the agent did not come by")
        self.strangers(heard[0])

    @staticmethod
    def tap(server, heard):
        try:
            peer, _ = server.accept()
            heard.append(peer.recv(4096))
            peer.close()
        except OSError:
            pass


class Ports(MirrorCase):
    def busy(self, *ports):
        for port in ports:
            s = socket.create_server((self.address, port), reuse_port=False)
            self.addCleanup(s.close)

    def channel(self, *options, expect=OK):
        result = self.refresh(*options, expect=expect, json_lines=True)
        self.assert_true_image(self.name, self.dir)
        return result.summary()["vms"][0]["data_channel"]

    def test_busy_ports_are_passed_over(self):
        for taken in (PORTS[:1], PORTS[1:2]):
            self.busy(*taken)
            self.assertEqual(self.channel(), "tcp")
        self.busy(PORTS[2])
        self.assertEqual(self.channel(), "ssh")

    def test_all_busy_and_forced(self):
        self.busy(*PORTS)
        self.refresh("--data-channel", "tcp", expect=NETWORK,
                     says=(self.address.replace(".", r"\."), "--data-listen"))
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)

    def test_closed_by_the_firewall_falls_back(self):
        for action in ("reject", "drop"):
            with self.subTest(action):
                self.turn("firewall-out", "closed")
                self.turn("firewall-action", action)
                result = self.refresh(expect=OK, json_lines=True, says=("SSH",))
                self.assertEqual(result.summary()["vms"][0]["data_channel"], "ssh")
                self.assertLess(result.seconds, 25)

    def test_closed_by_the_firewall_and_forced(self):
        for action in ("reject", "drop"):
            with self.subTest(action):
                self.turn("firewall-out", "closed")
                self.turn("firewall-action", action)
                self.refresh_fails(NETWORK, "web 01", self.address.replace(".", r"\."),
                                   options=("--data-channel", "tcp"))

    def test_somebody_else_listens_where_the_agent_dials(self):
        """A server that talks, and one that is silent: SSH carries the data."""
        for say, port in ((b"220 mail.example.com ESMTP\r\n", 8000), (b"", 44046)):
            with self.subTest(say):
                with socket.create_server((self.address, port)) as server:
                    threading.Thread(target=self.talk, args=(server, say), daemon=True).start()
                    result = self.refresh("--data-connect", "%s:%d" % (self.address, port),
                                          expect=OK, json_lines=True)
                self.assertEqual(result.summary()["vms"][0]["data_channel"], "ssh")
                self.assert_true_image(self.name, self.dir)

    @staticmethod
    def talk(server, say):
        kept = []
        while True:
            try:
                peer, _ = server.accept()
                peer.sendall(say)
                kept.append(peer)
            except OSError:
                return

    def test_address_that_is_not_ours(self):
        result = self.run_it("mirror", *self.login(), "--data-listen", "192.0.2.1", self.place(),
                             self.name, self.dir, own_data=False, login=False)
        self.assertNotEqual(result.code, OK)
        self.assert_says(result, r"192\.0\.2\.1")
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)

    def login(self):
        return ("--known-hosts", self.host.known_hosts, "--password-file", self.host.password_file)


if __name__ == "__main__":
    main()
