#!/usr/bin/env python3
"""Kill what is at work on a repository: backups of VMs and of images, forget, prune, restore,
check and the rest run beside each other from two machines, plain and encrypted, and one or two of
them die at random moments or at named steps.  After each round everything that was acknowledged
must be there, check must be clean, and nothing of ours is left on the host after the next run.

    repo_kill_loop.py [--kills 500] [--seed N] [--at-least 5] [--prunes 50]
"""

import collections
import os
import shutil
import signal
import time

import tool
from repo_faults import KILLED, MB, SMALL_BLOCK, RepoFaults, Store, harness

PACKS = ["repo." + s for s in ("pack-published", "packs-durable", "index-published", "flushed")]
CACHE = ["repo.cache-run", "repo.cache-set"]
COMMIT = ["repo.commit", "repo.manifest-published", "repo.committed"]
STEPS = {
    "backup-vm": PACKS + COMMIT + ["journal.snapshot.created", "snapshot.removed"],
    "backup-file": PACKS + COMMIT + CACHE,
    "backup-cut": ["repo.partial-published"],
    "forget": ["repo.retired", "repo.forget", "repo.manifest-removed", "repo.forgotten"],
    "prune": ["repo.copied", *PACKS] + ["repo." + s for s in (
        "epoch-published", "epoch-durable", "index-removed", "retracted", "pack-removed",
        "collected")],
    "rebuild-index": ["repo.index-dropped", "repo.index-remade"],
    "key-change": ["repo.slot-published", "repo.slot-remove", "repo.slot-removed"],
}
# (operation, step): every one of these has to be hit.
WANTED = [(op, step) for op in STEPS for step in STEPS[op]]
READERS = ("check", "restore", "list", "stats", "diff")
WEIGHTS = {"backup-vm": 3, "backup-file": 4, "backup-cut": 1, "forget": 3, "prune": 5,
           "rebuild-index": 1, "key-change": 1, "check": 1, "restore": 1, "list": 1, "stats": 1}
KEEP = 5                # more generations than this and the oldest are forgotten
WAIT = "30s"
VMS = ("web 01", "web 02")              # each is its machine's
IMAGES = ("old 1", "old 2", "old 3")
VM_DISKS = {"scsi0:0": 2 * MB, "scsi0:1": MB + 512}


class Job:
    """One command of a round."""

    def __init__(self, op, machine, words, allowed=(0, 6), vm=None, number=None, out=None):
        self.op, self.machine, self.words, self.allowed = op, machine, words, allowed
        self.vm, self.number, self.out = vm, number, out
        self.order = self.running = self.result = None


class RepoKillLoop(RepoFaults, harness.HostTest):
    kills, at_least, prunes = 24, 0, 0

    def setUp(self):
        harness.HostTest.setUp(self)
        self.begin()
        self.hit = collections.Counter()        # (operation, step or "moment")
        self.codes = collections.Counter()      # (operation, exit code) of those left alone
        self.seconds = {op: 0.3 for op in WEIGHTS}
        self.todo = collections.deque()
        self.done = self.rounds = self.pruned = self.removed = self.restores = 0
        self.dirty = set()                      # VMs whose next run has to tidy the host

    # the world

    def make_world(self):
        base = [self.disk_of(size, [(0, size // 2)], seed=9) for size in VM_DISKS.values()]
        for vm in VMS:
            self.add_vm(vm, base)
        self.images = {}
        for name in IMAGES:
            disks = [self.path("%s-%d" % (name, n)) for n in range(1 + (name == "old 1"))]
            for n, path in enumerate(disks):
                shutil.copy(self.truth(VMS[0], "scsi0:%d" % n, None, "base"), path)
                self.scratch(path, 20)
            self.images[name] = disks
        # Random bytes that take long to compress: to be cut while they are read.
        self.images["large"] = [harness.write_raw(self.path("large"), 12 * MB,
                                                              [(0, 12 * MB)], self.seed)]
        shutil.rmtree(self.repo)
        self.phrase = self.secret("phrase-0", "phrase 0")
        self.phrases = 0
        plain = Store(self.path("plain"))
        sealed = Store(self.path("sealed"), ("--repo-password-file", self.phrase))
        self.vmferry("init", "--json", "--repo", plain.path, "--block-size", "16k")
        self.vmferry("init", "--json", "--repo", sealed.path, "--block-size", "16k", "--encrypt",
                     "--repo-password-file", self.phrase)
        self.on(sealed, "key", "export", self.path("key"))
        sealed.keys = ("--key-file", self.path("key"))
        self.stores = [plain, sealed]

    def guest_writes(self, vm):
        for slot, size in VM_DISKS.items():
            for _ in range(self.rng.randrange(1, 5)):
                offset = self.rng.randrange(size // SMALL_BLOCK) * SMALL_BLOCK
                seed = None if self.rng.random() < 0.2 else self.rng.randrange(1, 60)
                self.scribble(vm, slot, [(offset, SMALL_BLOCK)], seed)

    # commands

    def backup_words(self, store, vm, *options):
        return ["backup", "--json", *self.mirror_options, "--data-listen", self.data_address,
                self.target, vm, "--repo", store.path, *store.keys, "--lock-wait", WAIT, *options]

    def job_backup_vm(self, store, vm=None):
        vm = vm or self.rng.choice(VMS)
        if self.rng.random() < 0.7:
            self.guest_writes(vm)
        job = Job("backup-vm", VMS.index(vm), self.backup_words(store, vm), vm=vm)
        self.candidates[vm].append([self.truth(vm, slot, None, "now-%s-%s" % (vm, slot))
                                    for slot in VM_DISKS])
        return job

    def job_backup_file(self, store, name=None, op="backup-file", level="1"):
        name = name or self.rng.choice(IMAGES)
        if name not in self.candidates and self.rng.random() < 0.8:
            for path in self.images[name]:
                self.scratch(path)
        words = [w for path in self.images[name] for w in ("--file", "%s=%s" % (name, path))]
        self.candidates[name].append(self.images[name])
        return Job(op, self.rng.randrange(2), self.words_on(
            store, "backup", *words, "--compress", level, "--lock-wait", WAIT), vm=name)

    def job_backup_cut(self, store):
        with open(self.images["large"][0], "r+b") as f:
            f.seek(self.rng.randrange(11) * MB)
            f.write(self.rng.randbytes(MB))
        return self.job_backup_file(store, "large", "backup-cut", "19")

    def job_forget(self, store, newest=False):
        """By name, at most all but one; or by a rule.  The newest leaves its number behind."""
        vms = [vm for vm in store.truths if len(store.truths[vm]) > 1]
        if not vms:
            return None
        vm = self.rng.choice(vms)
        numbers = store.numbers(vm)
        words = None
        if newest:
            gone = numbers[-1:]
        elif self.rng.random() < 0.3:
            words = [vm, "--keep-last", str(self.rng.randrange(1, 4)), "--yes"]
            gone = numbers[:-1]
        else:
            gone = self.rng.sample(numbers, self.rng.randrange(1, len(numbers)))
        words = words or ["%s@%d" % (vm, n) for n in gone] + ["--yes"]
        self.may_go[vm] = self.may_go.get(vm, set()) | set(gone)
        return Job("forget", self.rng.randrange(2), self.words_on(
            store, "forget", *words, "--lock-wait", WAIT), vm=vm)

    def job_prune(self, store):
        wait = self.rng.choice((WAIT, WAIT, WAIT, "0s"))
        return Job("prune", self.rng.randrange(2), self.words_on(
            store, "prune", "--lock-wait", wait))

    def job_rebuild_index(self, store):
        return Job("rebuild-index", self.rng.randrange(2), self.words_on(
            store, "rebuild-index", "--lock-wait", WAIT))

    def job_key_change(self, store):
        self.phrases += 1
        self.next_phrase = self.secret("phrase-%d" % self.phrases, "phrase %d" % self.phrases)
        return Job("key-change", self.rng.randrange(2), [
            "key", "change", "--json", "--repo", store.path, "--repo-password-file", self.phrase,
            "--new-password-file", self.next_phrase, "--lock-wait", WAIT])

    def job_reader(self, store, op):
        words, out, allowed, vm, number = [], None, (0, 6), None, None
        if op in ("restore", "diff"):
            vms = [vm for vm in store.truths if store.truths[vm]]
            if not vms:
                return None
            vm = self.rng.choice(vms)
            number = self.rng.choice(store.numbers(vm))
            if number in self.may_go.get(vm, ()):
                allowed = (0, 2, 6)
            words = ["%s@%d" % (vm, number)]
        if op == "restore":
            self.copies += 1
            out = self.path("beside-%d" % self.copies)
            words += ["--output", out]
        elif op == "diff":
            words.append(words[0])
        elif op == "check" and self.rng.random() < 0.3:
            words.append("--read-data")
        return Job(op, self.rng.randrange(2), self.words_on(
            store, op, *words, "--lock-wait", WAIT), allowed, vm, number, out)

    def job(self, store, op, step=None):
        if op in READERS:
            return self.job_reader(store, op)
        if step == "repo.retired":
            return self.job_forget(store, newest=True)
        return getattr(self, "job_" + op.replace("-", "_"))(store)

    # a round

    def companions(self, store, victim):
        """What runs beside it: never two backups of one VM on the host."""
        out = []
        for _ in range(self.rng.randrange(1, 4)):
            op = self.rng.choice(("backup-vm", "backup-file", "backup-file", "forget", "prune",
                                  *READERS))
            job = None
            if op == "backup-vm":
                free = [vm for vm in VMS if vm not in self.candidates]
                job = self.job_backup_vm(store, free[0]) if free else None
            elif op == "forget" and any(j.op == "restore" for j in [victim, *out]):
                continue        # what it restores may go: allowed codes are fixed already
            else:
                job = self.job(store, op)
            if job is not None:
                out.append(job)
        return out

    def launch(self, job, delay):
        time.sleep(delay)
        job.running = self.start(job.words, job.machine, job.order)
        job.began = time.monotonic()

    def kill(self, job, op, step, number):
        """Let it die; True when it was hit."""
        if step is None:
            time.sleep(self.rng.uniform(0, 1.1 * self.seconds[op]))
            job.running.signal(number)
        elif op == "backup-cut":
            # It dies while it publishes how far it has come, because it was told to end.
            time.sleep(self.rng.uniform(0.1, 0.5))
            job.running.signal(signal.SIGTERM)
        job.result = job.running.end()
        if step is None:
            return job.result.code in KILLED
        return job.result.code == -signal.SIGKILL

    def play(self, store, op, step, number):
        """One victim and what runs beside it.  True when the victim was hit."""
        self.candidates, self.may_go = collections.defaultdict(list), {}
        self.next_phrase = None
        victim = self.job(store, op, step)
        if victim is None:
            return False
        if step is not None:
            nth = self.rng.randrange(1, 3) if step in PACKS or step.endswith("-removed") else 1
            if op == "prune" and step in PACKS:
                nth = 1
            victim.order = "%s:%d:kill" % (step, nth)
        beside = []
        if op != "rebuild-index":
            beside = self.companions(store, victim)
        before = beside[:self.rng.randrange(len(beside) + 1)]
        for job in before:
            self.launch(job, self.rng.uniform(0, 0.05))
        self.launch(victim, self.rng.uniform(0, 0.1))
        for job in beside[len(before):]:
            self.launch(job, self.rng.uniform(0, 0.05))
        vms = [j.vm for j in [victim, *beside] if j.op == "forget"]
        self.contested = {vm for vm in vms if vms.count(vm) > 1}
        hit = self.kill(victim, op, step, number)
        for job in beside:
            job.result = job.running.end()
        self.message = "seed %d, round %d: %s on %s killed at %s, exit %d, beside %s" % (
            self.seed, self.rounds, op, os.path.basename(store.path), step or "a random moment",
            victim.result.code, ", ".join("%s (%d)" % (j.op, j.result.code) for j in beside))
        if hit:
            if victim.op == "backup-vm":
                self.dirty.add(victim.vm)
        else:
            self.assert_ended(store, victim)
            if step is None:
                self.seconds[op] = 0.8 * self.seconds[op] + 0.2 * (time.monotonic() - victim.began)
        for job in beside:
            self.assert_ended(store, job)
        self.afterwards(store, victim, beside)
        return hit

    def assert_ended(self, store, job):
        r = job.result
        self.codes[(job.op, r.code)] += 1
        allowed = job.allowed
        if job.op == "backup-cut":
            allowed += (143,)
        if job.op == "forget" and job.vm in self.contested:
            allowed += (2, 11)          # gone already; or it would be the last
        self.assertIn(r.code, allowed, "%s: %s, machine %d: %s" % (
            self.message, job.op, job.machine, r))
        if job.op == "prune" and r.code == 0:
            self.pruned += 1
            self.removed += r.summary["removed_packs"]
        if job.op == "forget" and r.code == 0:
            for g in r.summary["generations"]:
                self.assertTrue(g["keep"] or g["generation"] in self.may_go[g["vm"]], self.message)
        if job.op == "restore" and r.code == 0:
            images = sorted(n for n in os.listdir(job.out) if n.endswith(".raw"))
            for image, truth in zip(images, store.truths[job.vm][job.number], strict=True):
                self.assertTrue(harness.same_bytes(os.path.join(job.out, image), truth),
                                "%s: restored beside: %s" % (self.message, image))
            self.restores += 1
        if job.out is not None:
            shutil.rmtree(job.out, ignore_errors=True)

    # what must be, once all is quiet

    def afterwards(self, store, victim, beside):
        machine = self.rng.randrange(2)
        good = collections.Counter(j.vm for j in [victim, *beside]
                                   if j.op.startswith("backup") and j.result.code == 0)
        if victim.out is not None:
            shutil.rmtree(victim.out, ignore_errors=True)
        if victim.op == "rebuild-index":
            self.on(store, "rebuild-index", machine=machine)
        for vm in list(self.dirty):
            self.tidy(store, vm)
        new = self.reconcile(store, self.message, self.candidates, self.may_go, machine)
        for vm, count in good.items():
            self.assertGreaterEqual(len(new[vm]), count, "%s: %s: success without a generation" % (
                self.message, vm))
        words = ("--read-data",) if self.rng.random() < 0.1 else ()
        self.assert_clean(store, self.message, *words, machine=1 - machine)
        for vm, numbers in new.items():
            for number in numbers:
                self.assert_restored(store, vm, number, self.message, machine)
        vms = [vm for vm in store.truths if store.truths[vm]]
        if vms:
            vm = self.rng.choice(vms)
            self.assert_restored(store, vm, self.rng.choice(store.numbers(vm)), self.message,
                                 1 - machine)
        if self.next_phrase is not None:
            self.settle_phrase(store, victim)
        self.limit(store)

    def tidy(self, store, vm):
        """The next run of a VM leaves nothing of it on the host."""
        machine = VMS.index(vm)
        r = self.vmferry_on(machine, self.backup_words(store, vm))
        self.assertEqual(r.code, 0, "%s: the next run of %s: %s" % (self.message, vm, r))
        self.candidates[vm].append([self.truth(vm, slot, None, "now-%s-%s" % (vm, slot))
                                    for slot in VM_DISKS])
        self.assertEqual(self.host.snapshots(vm), [], self.message)
        self.assertEqual(self.leftovers()["processes"], [], self.message)
        self.dirty.discard(vm)

    def vmferry_on(self, machine, words):
        self.state = self.machines[machine]
        return self.vmferry(*words, code=None)

    def opens(self, store, phrase):
        code = self.vmferry_on(0, ["key", "list", "--json", "--repo", store.path,
                                   "--repo-password-file", phrase]).code
        self.assertIn(code, (0, 7), self.message)
        return code == 0

    def settle_phrase(self, store, victim):
        """One of the two opens it; after success only the new one."""
        old, new = self.phrase, self.next_phrase
        if self.opens(store, new):
            self.phrase = new
            if victim.result.code == 0:
                self.assertFalse(self.opens(store, old), self.message)
        else:
            self.assertNotEqual(victim.result.code, 0, self.message)
            self.assertTrue(self.opens(store, old), self.message + ": no passphrase opens it")
        r = self.vmferry_on(0, ["key", "list", "--json", "--repo", store.path,
                                "--repo-password-file", self.phrase])
        for slot in r.summary["slots"]:
            if slot["kind"] == "passphrase" and not slot["own"]:
                self.on(store, "key", "remove", slot["slot"])

    def limit(self, store):
        """Not too many generations."""
        for vm in list(store.truths):
            if len(store.truths[vm]) > KEEP:
                numbers = store.numbers(vm)[:-2]
                self.on(store, "forget", vm, "--keep-last", "2", "--yes")
                self.reconcile(store, self.message, None, {vm: numbers})

    # the loop

    def plan(self):
        rounds = max(1, self.kills * 7 // (10 * len(WANTED)))
        named = [w for _ in range(rounds) for w in WANTED]
        self.rng.shuffle(named)
        named = named[:self.kills * 8 // 10]
        out = [(op, step, signal.SIGKILL) for op, step in named]
        ops = list(WEIGHTS)
        while len(out) < self.kills:
            op = self.rng.choices(ops, [WEIGHTS[o] for o in ops])[0]
            number = signal.SIGTERM if self.rng.random() < 0.2 else signal.SIGKILL
            out.append((op, None, number))
        self.rng.shuffle(out)
        self.todo.extend(out)

    def lose_an_index(self, store):
        """For rebuild-index to have something to do."""
        found = [os.path.join(d, n) for d, _, f in os.walk(os.path.join(store.path, "index"))
                 for n in f]
        if found:
            os.unlink(self.rng.choice(sorted(found)))

    def one(self, op, step, number):
        store = self.stores[op == "key-change" or self.rng.random() < 0.4]
        if op == "rebuild-index":
            self.lose_an_index(store)
        if op == "prune" and step is not None:
            self.make_garbage(store)
        return self.play(store, op, step, number)

    def make_garbage(self, store):
        """Packs of which nothing, and packs of which little is alive."""
        self.candidates, self.may_go = collections.defaultdict(list), {}
        self.message = "seed %d, round %d: garbage" % (self.seed, self.rounds)
        name = self.rng.choice(IMAGES)
        path = self.images[name][0]
        for _ in range(2):
            with open(path, "r+b") as f:        # of the first only a little stays
                f.write(self.rng.randbytes(40 * SMALL_BLOCK))
            job = self.job_backup_file(store, name)
            self.assertEqual(self.vmferry_on(0, job.words).code, 0)
            self.reconcile(store, self.message, self.candidates)
            with open(path, "r+b") as f:
                f.seek(2 * SMALL_BLOCK)
                f.write(self.rng.randbytes(38 * SMALL_BLOCK))
        self.on(store, "backup", "--file", "%s=%s" % (name, path), *[
            w for p in self.images[name][1:] for w in ("--file", "%s=%s" % (name, p))])
        self.candidates[name].append(self.images[name])
        self.reconcile(store, self.message, self.candidates)
        numbers = store.numbers(name)[:-1]
        self.on(store, "forget", name, "--keep-last", "1", "--yes")
        self.reconcile(store, self.message, None, {name: numbers})

    def test_loop(self):
        self.make_world()
        self.plan()
        began = time.monotonic()
        try:
            while self.todo or self.pruned < self.prunes:
                op, step, number = (self.todo.popleft() if self.todo
                                    else ("prune", None, signal.SIGKILL))
                self.rounds += 1
                self.assertLess(self.rounds, 3 * self.kills + 100, "most kills do not hit")
                if self.one(op, step, number):
                    self.done += 1
                    self.hit[(op, step or signal.Signals(number).name + " at a moment")] += 1
                    if self.done % 25 == 0:
                        print("%d kills, %d rounds, %d prunes, %.0f s" % (
                            self.done, self.rounds, self.pruned, time.monotonic() - began),
                            flush=True)
                elif self.done < self.kills:
                    self.todo.append((op, step, number))
            self.message = "at the end"
            for store in self.stores:
                self.assert_clean(store, "at the end", "--read-data")
                self.assert_all_restore(store, "at the end", 1)
        finally:
            self.report()
        for key in WANTED:
            self.assertGreaterEqual(self.hit[key], self.at_least, "%s at %s" % key)

    def report(self):
        print("%d kills in %d rounds, seed %d; %d prunes completed, %d packs removed by them; "
              "%d restores beside others" % (self.done, self.rounds, self.seed, self.pruned,
                                             self.removed, self.restores))
        print("hits")
        for (op, step), count in sorted(self.hit.items()):
            print("    %5d  %s at %s" % (count, op, step))
        print("exit codes of what was left alone")
        for (op, code), count in sorted(self.codes.items()):
            print("    %5d  %s: %d" % (count, op, code))


if __name__ == "__main__":
    tool.main(RepoKillLoop, __doc__, kills=(500, "how many"),
              at_least=(0, "hits that each step must have"),
              prunes=(0, "prunes that must have been completed"))
