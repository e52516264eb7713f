"""What others do on the host at a chosen moment: before or after a certain command is carried out, or
when a session has a certain file open.

An event waits for the nth command whose words match its pattern; what it then does are requests of
control.py, done one after the other while the command waits.
"""

import re
import threading
import time

LOOK_SECONDS = 0.002


class Event:
    def __init__(self, match, requests, nth, when):
        if when not in ("before", "after", "open"):
            raise ValueError("an event happens before or after a command, not " + when)
        self.match = re.compile(match)
        self.requests = requests
        self.left = nth
        self.when = when
        self.fired = False
        self.errors = []

    def told(self):
        return {"match": self.match.pattern, "when": self.when, "fired": self.fired,
                "errors": self.errors}

    def happen(self, run):
        for request in self.requests:
            try:
                run(dict(request))
            except Exception as e:          # a revert of what is gone: the test decides
                self.errors.append("%s: %s" % (request.get("do"), e))
        self.fired = True


class Events:
    def __init__(self, run):
        self.run = run              # does one request
        self.lock = threading.Lock()
        self.waiting = []
        self.all = []

    def add(self, match, requests, nth=1, when="before"):
        event = Event(match, requests, nth, when)
        with self.lock:
            self.waiting.append(event)
            self.all.append(event)

    def clear(self):
        with self.lock:
            self.waiting.clear()
            self.all.clear()

    def told(self):
        with self.lock:
            return [event.told() for event in self.all]

    def due(self, words, when):
        """Events that wait no longer, taken out of those that do."""
        with self.lock:
            due = []
            for event in self.waiting:
                if event.when != when or not event.match.search(words):
                    continue
                event.left -= 1
                if event.left == 0:
                    due.append(event)
            self.waiting = [e for e in self.waiting if e not in due]
        return due

    def happen(self, argv, when):
        """To be called around each command."""
        for event in self.due(" ".join(argv), when):
            event.happen(self.run)

    def when_open(self, path, is_open, requests):
        """As soon as a session has the file open, beside whatever goes on."""
        event = Event(re.escape(path), requests, 1, "open")
        with self.lock:
            self.all.append(event)

        def watch():
            while not is_open(path):
                with self.lock:
                    if event not in self.all:
                        return
                time.sleep(LOOK_SECONDS)
            event.happen(self.run)
        threading.Thread(target=watch, daemon=True).start()
