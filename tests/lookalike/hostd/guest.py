"""A guest that writes to its disks, by a seed, until it is stopped."""

import random
import threading


class Guest:
    """pattern: random (single 4 KiB blocks), runs (up to 256 KiB), zero (some writes are zeros),
    mixed (all of these).  rate: writes per second."""

    def __init__(self, machine, slots, seed, rate, pattern):
        self.machine = machine
        self.slots = slots
        self.random = random.Random(seed)
        self.rate = rate
        self.pattern = pattern
        self.writes = 0
        self.failure = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def stop(self):
        self.ended.set()
        if threading.current_thread() is not self.thread:
            # Not longer: the caller may hold the VM's lock, for which the thread may wait.  Once
            # it has the lock it sees `ended` and writes no more.
            self.thread.join(0.2)
        self.machine.guest = None

    def run(self):
        while not self.ended.wait(1.0 / self.rate):
            try:
                with self.machine.lock:
                    if self.ended.is_set() or self.machine.power != "on":
                        return
                    self.write_once()
            except (OSError, ValueError, KeyError) as e:
                self.failure = repr(e)
                return

    def write_once(self):
        r = self.random
        slot = r.choice(self.slots)
        capacity = self.machine.capacity(slot)
        length = 4096
        if self.pattern in ("runs", "mixed"):
            length *= r.choice((1, 1, 2, 16, 64))
        length = min(length, capacity)
        offset = r.randrange(0, capacity - length + 1) // 512 * 512
        zero = self.pattern in ("zero", "mixed") and r.random() < 0.2
        data = bytes(length) if zero else r.randbytes(length)
        self.machine.write(slot, offset, data)
        self.writes += 1
