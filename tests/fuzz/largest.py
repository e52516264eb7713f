#!/usr/bin/env python3
"""The largest inputs that the readers accept, shaped to be slow: each replay must keep to the limits of
fuzz.h.  A fuzzer's inputs are short and do not show work that grows with the square of a length.

    largest.py DIRECTORY-OF-THE-PROGRAMS
"""
import os
import struct
import subprocess
import sys
import tempfile

import make_seeds

DUMP = (4 << 20) - 200  # VIMDUMP_BYTES_MAX, HOST_ANSWER_MAX
LIST = b"Vmid   Name   File   Guest OS   Version   Annotation\n"
DISK = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"vmfs\"\n"
COLUMNS = "Mount Point  Volume Name  UUID  Mounted  Type  Size  Free\n"
DASHES = "-----------  -----------  ----  -------  ----  ----  ----\n"


def fields(count, value):
    return "(t) {\n" + "".join(f"   a{i} = {value}, \n" for i in range(count)) + "   z = 1\n}\n"


def cases():
    yield "vimdump", "(t) {\n   a = \"" + "x\"\n" * (DUMP // 3)
    yield "vimdump", "(t) {\n   a = \"" + "x\", \n" * (DUMP // 5) + "\"\n}\n"
    yield "vimdump", fields(100000, '""')
    yield "vimdump", fields(100000, '"x"\n   y"')
    yield "vimdump", "(t) [\n" + "   1, \n" * 120000 + "   1\n]\n"
    yield "vimdump", "a\n" * (DUMP // 2)
    yield "vimdump", "(\n" * (DUMP // 2)
    yield "vimdump", "(a) {" * (DUMP // 5)
    yield "inventory", b"\0" + LIST + b"".join(b"%d   x   [ds] a/a.vmx   g   vmx-7\n" % i for i in range(1, 4097))
    yield "inventory", b"\0" + LIST + b"1   x  [" * (DUMP // 8)
    yield "inventory", b"\0" + LIST + b"1 [a] vmx-1 " * (DUMP // 12)
    snapshot = "--Snapshot Name : x\n--Snapshot Id : 1\n--Snapshot Created On : 1/1/2020 1:1:1\n"
    yield "snapshots", "\1Get Snapshot:\n" + snapshot * 1024 + "x\n" * (DUMP // 2 - 50000)
    yield "datastores", "\0" + COLUMNS + DASHES + "/vmfs/vol    a            b     true     VMFS  10    1\n" * 1024
    yield "datastores", "\0" + COLUMNS + "-  " * (DUMP // 3)
    yield "descriptor", DISK + "RW 1 VMFS \"a\"\n" + "".join(f"ddb.a{i} = \"x\"\n" for i in range(40000))
    yield "descriptor", DISK + "RW 1 VMFS \"a\"\n" * 40000
    yield "descriptor", "#\n" * 500000
    yield "vmx", "".join(f"key{i} = \"v|22\"\n" for i in range(16384))
    yield "vmx", "a = \"v\"\n" * 100000
    yield "journal", "vmferry-journal 1\nkind=snapshot\nvm_name=" + "\\x41" * 16000 + "\n"
    yield "journal", "vmferry-journal 1\n" + "file=\n" * 10000
    hashed = "|1|AAECAwQFBgcICQoLDA0ODxAREhM=|AAECAwQFBgcICQoLDA0ODxAREhM= ssh-rsa AAAA\n"
    yield "known_hosts", "\0esx1\n\n" + hashed * 100000
    patterns = ",".join(["*a" * 10 + "*b"] * 700) + " ssh-rsa AAAA\n"
    yield "known_hosts", "\0" + "a" * 1000 + "\n\n" + patterns * 400
    extents = "".join(f"[ {i * 512}: 512] --> [{'NOMP' if i % 2 else 'VMFS'} -- :( 0 --> 512)]\n" for i in range(200000))
    yield "map", b"\xff\xff\x10Mapping for file /x (4294901760 bytes in size):\n" + extents.encode()
    yield "map", b"\x01\0\x14Mapping for file /x (1048576 bytes in size):\n[0:1] --> [VMFS -- " + b":(" * 2000000
    yield "generation", "@" * 4000 + "latest"
    yield "sizes", b"\xff" + b"\x1b" * 300000
    yield "handshake", b"\3" + b"\nvmferry-agent 0000000" * 3000
    yield "manifest", b"\0" + make_seeds.manifest(2500).encode()
    lines = "".join(f'RW 1 FLAT "{"n" * 700}" {i}\n' for i in range(1024)) + "".join(
        f'ddb.{"k" * 500}{i} = "{"v" * 500}"\n' for i in range(256))
    yield "descriptor", f'# D\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="custom"\n{lines}'
    # Vast directories: of nothing, and of one table named again and again.
    base = make_seeds.vmdk_link("b", "custom", "RW 4294967288 ZERO", cid=1)
    delta = make_seeds.vmdk_link("c", "vmfsSparse", 'RW 4294967288 VMFSSPARSE "d"', "b", 2, 1)
    for entry in (0, 9000):
        pieces = [(at, struct.pack("<I", entry) * 15000) for at in range(2048, 2048 + (4 << 20) - 60000, 60000)]
        header = struct.pack("<4s7I", b"COWD", 1, 3, 4294967288, 1, 4, 1 << 20, 0)
        yield "vmdk_chain", make_seeds.vmdk_files(delta, make_seeds.vmdk_file("d", 64 << 20, [(0, header)] + pieces), base)
    damages = "damages 60000\n" + "".join(f"damage {i} 1 7\n" for i in range(1, 60001))
    yield "manifest", b"\0" + make_seeds.manifest(1).replace("damages 1\ndamage 2 1 7\n", damages).encode()


def main():
    programs = sys.argv[1]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (target, data) in enumerate(cases()):
            path = os.path.join(folder, f"{target}-{number}")
            with open(path, "wb") as f:
                f.write(data if isinstance(data, bytes) else data.encode())
            done = subprocess.run([os.path.join(programs, "fuzz_" + target), path], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, errors="replace", timeout=120, check=False)
            if done.returncode != 0:
                failed += 1
                print(f"case {number} of {target}:\n{done.stdout[-2000:]}")
            os.unlink(path)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
