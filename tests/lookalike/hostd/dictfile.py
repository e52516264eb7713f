"""The text files of a VM: dictionaries (.vmx, .vmsd) and disk descriptors (.vmdk)."""

import os
import re


# Absolute paths in descriptors and vmx files count from here: the host's root.
ROOT = ""


def resolve(folder, name):
    """A file name found in a file of `folder`, as a path of the machine."""
    path = ROOT + name if name.startswith("/") else os.path.join(folder, name)
    return os.path.normpath(path)


def name_from(folder, path):
    """How a file of `folder` names a file: bare beside it, else by its path on the host."""
    return os.path.basename(path) if os.path.dirname(path) == folder else path[len(ROOT):]


def escape(value):
    """A value as VMware writes it between quotes: control bytes, `"` and `|` become |HH."""
    out = []
    for char in value:
        if (ord(char) < 0x20 and char != "\t") or char in '"|\x7f':
            out.append("|%02X" % ord(char))
        else:
            out.append(char)
    return "".join(out)


def unescape(value):
    return re.sub(r"\|([0-9A-Fa-f]{2})", lambda m: chr(int(m.group(1), 16)), value)


LINE = re.compile(r'^[ \t]*([^\s=#]+)[ \t]*=[ \t]*(?:"([^"]*)"|([^"#]*?))[ \t]*(?:#.*)?$')


class Dictionary:
    """An ordered set of keys, compared without case; the last of equal keys wins."""

    def __init__(self):
        self.items = {}
        self.names = {}

    @classmethod
    def load(cls, path):
        self = cls()
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            for line in f.read().splitlines():
                m = LINE.match(line)
                if m:
                    value = m.group(2) if m.group(2) is not None else m.group(3)
                    self.set(m.group(1), unescape(value))
        return self

    def get(self, name, default=None):
        return self.items.get(name.lower(), default)

    def true(self, name):
        return (self.get(name, "") or "").lower() in ("true", "1", "yes")

    def set(self, name, value):
        self.items[name.lower()] = value
        self.names.setdefault(name.lower(), name)

    def drop(self, prefix):
        for key in [k for k in self.items if k.startswith(prefix.lower())]:
            del self.items[key], self.names[key]

    def text(self):
        rows = ['%s = "%s"' % (self.names[k], escape(v)) for k, v in self.items.items()]
        return "\n".join(rows) + "\n"

    def save(self, path):
        write_file(path, self.text())


def write_file(path, text):
    """Replace a file, whole or not at all, with the mode that it had."""
    part = path + "~"
    mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o600
    with open(part, "w", encoding="utf-8", errors="surrogateescape") as f:
        f.write(text)
    os.chmod(part, mode)
    os.rename(part, path)


class Descriptor:
    """A VMDK descriptor with one extent."""

    def __init__(self, path):
        self.path = path
        self.cid = "fffffffe"
        self.parent_cid = "ffffffff"
        self.create_type = "vmfs"
        self.parent_hint = None
        self.sectors = 0
        self.extent_type = "VMFS"
        self.extent = ""
        self.change_track = None
        self.ddb = {}

    @classmethod
    def load(cls, path):
        self = cls(path)
        if os.path.getsize(path) > 65536:
            raise ValueError("not a descriptor: " + path)
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            lines = f.read().splitlines()
        if not lines or not lines[0].lower().startswith("# disk descriptorfile"):
            raise ValueError("not a descriptor: " + path)
        for line in lines:
            m = re.match(r'^(\w+)\s*=\s*"?([^"]*)"?\s*$', line)
            if m:
                self._header(m.group(1), m.group(2))
            m = re.match(r'^ddb\.(\S+)\s*=\s*"(.*)"\s*$', line)
            if m:
                self.ddb[m.group(1)] = m.group(2)
            m = re.match(r'^(RW|RDONLY)\s+(\d+)\s+(\S+)\s+"(.*)"', line)
            if m:
                self.sectors = int(m.group(2))
                self.extent_type = m.group(3)
                self.extent = m.group(4)
        return self

    def _header(self, name, value):
        if name == "CID":
            self.cid = value
        elif name == "parentCID":
            self.parent_cid = value
        elif name == "createType":
            self.create_type = value
        elif name == "parentFileNameHint":
            self.parent_hint = value
        elif name == "changeTrackPath":
            self.change_track = value

    @property
    def capacity(self):
        return self.sectors * 512

    @property
    def extent_path(self):
        return resolve(os.path.dirname(self.path), self.extent)

    @property
    def change_track_path(self):
        return resolve(os.path.dirname(self.path), self.change_track)

    def add_change_track(self, host):
        """Change tracking: a file of a layout that nobody knows, so of random bytes here."""
        self.change_track = re.sub(r"\.vmdk$", "-ctk.vmdk", os.path.basename(self.path))
        host.write_own(self.change_track_path, os.urandom(4096))

    @property
    def parent_path(self):
        if self.parent_hint is None:
            return None
        return resolve(os.path.dirname(self.path), self.parent_hint)

    @property
    def is_delta(self):
        return self.extent_type in ("VMFSSPARSE", "SESPARSE")

    @property
    def is_rdm(self):
        return self.extent_type == "VMFSRDM"

    def text(self):
        rows = ["# Disk DescriptorFile", "version=%d" % (3 if self.change_track else 1),
                'encoding="UTF-8"', "CID=" + self.cid, "parentCID=" + self.parent_cid,
                'createType="%s"' % self.create_type]
        if self.parent_hint is not None:
            rows.append('parentFileNameHint="%s"' % self.parent_hint)
        else:
            rows.append("")
        rows += ["# Extent description",
                 'RW %d %s "%s"' % (self.sectors, self.extent_type, self.extent), ""]
        if self.change_track:
            rows += ["# Change Tracking File", 'changeTrackPath="%s"' % self.change_track, ""]
        rows += ["# The Disk Data Base ", "#DDB", ""]
        rows += ['ddb.%s = "%s"' % (k, self.ddb[k]) for k in sorted(self.ddb)]
        return "\n".join(rows) + "\n"

    def save(self):
        write_file(self.path, self.text())
