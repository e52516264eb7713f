#!/usr/bin/env python3
"""Write the repositories good-plain and good-sealed (passphrase `vector`), and asking.txt, from receiver/repo/FORMAT.md alone: a
second implementation, so that the text is known to be enough.  Needs libxxhash, libsodium and libzstd at run
time; nonces and keys are fixed, so that the result is always the same.  Run it in this folder."""
import ctypes
import ctypes.util
import hashlib
import hmac
import os
import shutil
import struct

BLOCK = 16384
REPOSITORY = bytes(range(0x10, 0x20))
SEAL_KEY, ID_KEY, NAME_KEY = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
SECRET = bytes((i * 7 + 5) % 256 for i in range(192))
PASSPHRASE = b"vector"
TIME = 1795000000
CAPACITY = 3 * BLOCK + 512

xxhash = ctypes.CDLL(ctypes.util.find_library("xxhash"))
sodium = ctypes.CDLL(ctypes.util.find_library("sodium"))
zstd = ctypes.CDLL(ctypes.util.find_library("zstd"))


class Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


xxhash.XXH3_64bits.restype = ctypes.c_uint64
xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
xxhash.XXH3_128bits_withSecret.restype = Hash128
xxhash.XXH3_128bits_withSecret.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
zstd.ZSTD_compress.restype = ctypes.c_size_t


def xxh64(data):
    return struct.pack("<Q", xxhash.XXH3_64bits(data, len(data)))


def digest(data):
    if not any(data):
        return bytes(16)
    h = xxhash.XXH3_128bits_withSecret(data, len(data), SECRET, len(SECRET))
    return struct.pack(">QQ", h.high, h.low)


def aead(key, nonce, ad, plain):
    out = ctypes.create_string_buffer(len(plain) + 16)
    n = ctypes.c_ulonglong()
    assert 0 == sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(
        out, ctypes.byref(n), plain, ctypes.c_ulonglong(len(plain)), ad, ctypes.c_ulonglong(len(ad)), None, nonce, key)
    return out.raw


def compressed(data):
    out = ctypes.create_string_buffer(len(data) + 1024)
    n = zstd.ZSTD_compress(out, ctypes.c_size_t(len(out)), data, ctypes.c_size_t(len(data)), 1)
    return out.raw[:n]


def text(s):
    return struct.pack("<H", len(s)) + s.encode()


class Repository:
    def __init__(self, folder, sealed):
        self.folder, self.sealed, self.nonces = folder, sealed, 0
        shutil.rmtree(folder, ignore_errors=True)

    def put(self, name, data):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)

    def seal(self, ad, plain):
        self.nonces += 1
        nonce = struct.pack("<Q", self.nonces) * 3
        return nonce + aead(SEAL_KEY, nonce, ad, plain)

    def document(self, kind, name, body):
        sealed = self.sealed and kind not in (1, 2)
        header = b"VFDOC\0\0\1" + struct.pack("<BBHI", kind, sealed, 1, 0) + REPOSITORY + struct.pack("<Q", len(body))
        proof = header + struct.pack("<H", len(name)) + name.encode()
        rest = self.seal(proof, body) if sealed else body + hashlib.sha256(proof + body).digest()
        self.put(name, header + rest)
        return header + rest

    def id(self, plain):
        if self.sealed:
            return hmac.new(ID_KEY, plain, "sha256").digest()
        return hashlib.sha256(plain).digest()

    def entry(self, kind, plain, pack=False):
        codec, coded = (1, compressed(plain)) if pack else (0, plain)
        size = len(coded) + (40 if self.sealed else 0)
        head = b"VFEN" + struct.pack("<BBBB", 1, kind, codec, self.sealed) + self.id(plain) + \
            struct.pack("<II", len(plain), size)
        payload = self.seal(REPOSITORY + head, coded) if self.sealed else coded
        head += xxh64(payload)
        return (self.id(plain), kind, codec, len(plain), size), head + xxh64(head) + payload

    def pack(self, key, kind, entries):
        name = key.hex()
        header = b"VFPACK\0\1" + REPOSITORY + key + bytes([kind]) + bytes(15)
        body = header + xxh64(header)
        lines = []
        for (ident, what, codec, plain, size), data in entries:
            lines.append((ident, what, struct.pack("<IIIBBH", len(body), size, plain, what, codec, 0)))
            body += data
        end = b"VFPEND\0\1" + struct.pack("<QQ", len(entries), len(body))
        body += end + xxh64(end)
        self.put(f"packs/{name[:2]}/{name}", body)
        lines.sort(key=lambda n: (n[0], n[1]))
        index = key + struct.pack("<BQI", kind, len(body), len(entries)) + b"".join(n[0] + n[2] for n in lines)
        self.document(3, f"index/{name[:2]}/{name}", index)

    def slot(self, config):
        body = struct.pack("<BQQ", 1, 1, 8192) + bytes(range(16)) + struct.pack("<Q", TIME) + text("first")
        key = ctypes.create_string_buffer(32)
        assert 0 == sodium.crypto_pwhash(key, ctypes.c_ulonglong(32), PASSPHRASE, ctypes.c_ulonglong(len(PASSPHRASE)),
                                         bytes(range(16)), ctypes.c_ulonglong(1), ctypes.c_size_t(8192), 2)
        nonce = bytes(range(24))
        wrapped = aead(key.raw, nonce, b"vmferry slot 1" + REPOSITORY + body,
                       hashlib.sha256(config).digest() + SEAL_KEY + ID_KEY + NAME_KEY)
        self.document(2, "keys/00112233aabbccdd", body + nonce + wrapped)


def node(level, cells):
    return b"VFND" + struct.pack("<BBHII", 1, level, 0, len(cells), 0) + b"".join(cells)


def node_digest(level, cells):
    if not any(any(c) for c in cells):
        return bytes(16)
    data = bytes([level]) + b"".join(c[32:] for c in cells)
    return digest(data)


def make(folder, sealed):
    r = Repository(folder, sealed)
    config = r.document(1, "config", struct.pack("<IQQIBBBQ", 1, 0, 0, BLOCK, 2 if sealed else 1, sealed, 0, TIME) +
                        text("vector 1"))
    if sealed:
        r.slot(config)
    blocks = [bytes(i % 251 for i in range(BLOCK)), bytes(BLOCK), b"\x5a" * BLOCK, b"e" * 512]
    vmx = b"displayName = \"vector\"\n"
    cells = [bytes(48) if not any(b) else r.id(b) + digest(b) for b in blocks]
    top = node(1, cells)
    top_cell = r.id(top) + node_digest(1, cells)
    root = digest(b"root" + struct.pack("<QIB", CAPACITY, BLOCK, 1) + top_cell[32:])
    r.pack(bytes([0xab]) * 16, 1, [r.entry(1, blocks[0]), r.entry(1, blocks[2], True), r.entry(1, blocks[3]),
                                   r.entry(1, vmx)])
    r.pack(bytes([0x0c]) * 16, 2, [r.entry(2, top, True)])

    identity = b"vm\0" + b"host-uuid\0" + b"vm-uuid\0"
    hashed = hmac.new(NAME_KEY, identity, "sha256").digest() if sealed else hashlib.sha256(identity).digest()
    vm = hashed[:16]
    head = vm + struct.pack("<Q", 1) + bytes([7]) * 16 + struct.pack("<QQQ", 0, TIME, TIME + 5)
    for t in ("full", "ok", "quiesced", "tcp", "agent", "full", "vmferry-1-run-2", "host-uuid", "esx1", "vm-uuid",
              "[ds] v/v.vmx", "v\u00e9ctor", "vector 1"):
        head += struct.pack("<H", len(t.encode())) + t.encode()
    files = struct.pack("<I", 1) + text("v.vmx") + struct.pack("<Q", len(vmx)) + hashlib.sha256(vmx).digest() + \
        struct.pack("<I", 1) + r.id(vmx)
    disk = bytes([1]) + text("scsi0:0") + text("60 00") + text("[ds] v/v.vmdk") + text("agent") + \
        struct.pack("<QIB", CAPACITY, BLOCK, 1) + SECRET + root + top_cell + \
        struct.pack("<QQQQQQQ", CAPACITY, CAPACITY, 0, 2 * BLOCK + 512, 17000, 18000, 42) + struct.pack("<Q", 1)
    r.document(4, f"generations/{vm.hex()}/0000000001", head + files + struct.pack("<I", 1) + disk)

    spine = struct.pack("<BB", 1, 0) + struct.pack("<I", 2) + cells[0] + cells[1]
    r.document(5, f"partial/{vm.hex()}/00000000000000ff-00000000-00000003",
               vm + struct.pack("<Q", 1) + text("scsi0:0") + text("60 00") + struct.pack("<QI", CAPACITY, BLOCK) +
               SECRET + struct.pack("<QQ", 2, TIME) + spine)
    r.document(9, "epoch/0000000004", b"")
    r.document(6, f"retired/{vm.hex()}/0000000006", b"")
    r.document(11, "verified/" + "ee" * 16, struct.pack("<I", 2) + bytes([0xab]) * 16 + struct.pack("<QQ", 0, TIME + 9) +
               vm + struct.pack("<QQ", 1, TIME + 7))


def asking(sealed):
    """What host-uuid may ask for in that repository: a line of asking.txt."""
    r = Repository.__new__(Repository)
    r.sealed = sealed
    text_of_key = b"ask\0" + REPOSITORY + b"host-uuid\0"
    key = hmac.new(NAME_KEY, text_of_key, "sha256").digest() if sealed else hashlib.sha256(text_of_key).digest()
    words = ["good-sealed" if sealed else "good-plain", "host-uuid", key.hex()]
    for block in (bytes(i % 251 for i in range(BLOCK)), b"\x5a" * BLOCK, b"e" * 512):
        ask_id = hashlib.blake2b(hashlib.sha256(block).digest(), digest_size=32, key=key).digest()
        words += [r.id(block).hex(), ask_id.hex(), digest(block).hex()]
    return " ".join(words) + "\n"


if __name__ == "__main__":
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    sodium.sodium_init()
    make("good-plain", False)
    make("good-sealed", True)
    with open("asking.txt", "w", encoding="ascii") as out:
        out.write(asking(False) + asking(True))
