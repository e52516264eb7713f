#!/usr/bin/env python3
"""Prints the test vectors of protocol/PROTOCOL.md, made without any code of ours.

Needs the Python package `cryptography` for the AEADs.  The same numbers stand in test_handshake.c and
test_record.c; run this again when the protocol's version changes.
"""
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

SESSION_ID = bytes(range(0x10, 0x20))
SECRET = bytes(range(0x20, 0x40))
NONCE_1 = bytes(range(0x40, 0x60))
NONCE_2 = bytes(range(0x60, 0x80))
CONNECTION = 7


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def expand(root, info):
    return mac(root, info + b"\x01")


def handshake(aead, mode):
    root = mac(SESSION_ID, SECRET)
    m1 = b"VMF1\r\n\x1a\n" + struct.pack("<HBBI", 1, 3, 3, CONNECTION) + SESSION_ID + NONCE_1
    m1 += mac(expand(root, b"vmferry 1 m1"), m1)
    m2 = b"VMF2\r\n\x1a\n" + struct.pack("<HBBI", 1, aead, mode, 0) + NONCE_2
    m2 += mac(expand(root, b"vmferry 1 m2"), m1 + m2)
    root = mac(hashlib.sha256(m1 + m2).digest(), SECRET)
    number = struct.pack("<I", CONNECTION)
    return (m1, m2, expand(root, b"vmferry 1 initiator to responder " + number),
            expand(root, b"vmferry 1 responder to initiator " + number))


def record(aead, mode, key, counter, payload):
    cipher = (AESGCM if aead == 1 else ChaCha20Poly1305)(key)
    nonce = b"\0" * 4 + struct.pack("<Q", counter)
    header = struct.pack("<IBBH", len(payload), 1, 0, 0)
    if mode == 1:
        return header + cipher.encrypt(nonce, payload, header)
    return header + payload + cipher.encrypt(nonce, b"", header + payload)


def show(name, data):
    print(f"{name} ({len(data)} bytes)")
    text = data.hex()
    for at in range(0, len(text), 64):
        print("   ", text[at:at + 64])


def main():
    bootstrap = b"VMFB\r\n\x1a\n" + struct.pack("<HBBIQII", 1, 3, 1, 4, 64 << 20, 86400, 30000)
    bootstrap += SESSION_ID + SECRET + bytes(16)
    show("bootstrap", bootstrap)
    for aead, mode in (1, 1), (1, 2), (2, 1), (2, 2):
        m1, m2, there, back = handshake(aead, mode)
        print(f"\n== AEAD {aead}, mode {mode}")
        if (aead, mode) == (1, 1):
            show("M1", m1)
        show("M2", m2)
        show("key initiator to responder", there)
        show("key responder to initiator", back)
        show("record 0 initiator to responder", record(aead, mode, there, 0, b"first"))
        show("record 1 initiator to responder", record(aead, mode, there, 1, b"second record"))
        show("record 0 responder to initiator", record(aead, mode, back, 0, b"answer"))


main()
