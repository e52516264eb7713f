#!/usr/bin/env python3
"""Out of images of all forms vmferry reads what qemu-img reads, and what the image's model holds.

    differential_test.py [--images N] [--first SEED] [--keep FOLDER]

Each image follows from its seed; a failure names the seed, and --first SEED --images 1 makes the
image again (--keep: in a folder that stays).
"""

import argparse
import os
import shutil
import sys
import tempfile
import time

import images
from harness import OK, convert, first_difference, info, qemu_convert


def try_one(seed, folder):
    """What is wrong with the image of a seed, or None; and the image."""
    image = images.make(seed, folder)
    ours, theirs = folder + "/ours.raw", folder + "/qemu.raw"
    rc, _, err = convert(image.tip, ours)
    if rc != OK:
        return "vmferry ended with %d: %s" % (rc, err.strip()), image
    at = first_difference(ours, image.model)
    if at is not None and not image.model_is_a_wish:
        return "differs from the model at %d" % at, image
    if at is not None:
        print("seed %d (%s): qemu-io wrote something else at %d" % (seed, image.what, at))
    if image.qemu:
        failure = qemu_convert(image.tip, theirs)
        if failure:
            return "qemu-img: " + failure, image
        at = first_difference(ours, theirs)
        if at is not None:
            return "differs from qemu at %d" % at, image
    if seed % 4 == 0:
        rc, found = info(image.tip)
        if rc != OK or not found["readable"]:
            return "info ended with %d: %s" % (rc, found), image
        if found["capacity"] != os.path.getsize(image.model):
            return "info: capacity %d" % found["capacity"], image
    return None, image


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--keep")
    a = parser.parse_args()
    failed, kinds, began = 0, {}, time.monotonic()
    for seed in range(a.first, a.first + a.images):
        folder = a.keep or tempfile.mkdtemp(prefix="vmferry-diff-")
        os.makedirs(folder, exist_ok=True)
        try:
            wrong, image = try_one(seed, folder)
        finally:
            if not a.keep:
                shutil.rmtree(folder)
        kind = " ".join(image.what.split(" of ")[0].split()[:3])
        kinds[kind] = kinds.get(kind, 0) + 1
        if wrong:
            failed += 1
            print("seed %d (%s): %s" % (seed, image.what, wrong), flush=True)
    print("%d images, %d failed, %.0f s" % (a.images, failed, time.monotonic() - began))
    for kind in sorted(kinds):
        print("  %5d %s" % (kinds[kind], kind))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
