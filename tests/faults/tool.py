"""The command line that all tools of this folder have."""

import argparse
import os
import sys
import time
import unittest


def main(test, text, **options):
    """Run the tests of a class.  options: name=(default, help); they and --seed become attributes of
    the class.  A default of False makes a flag."""
    parser = argparse.ArgumentParser(description=text,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, meaning) in options.items():
        kind = {"action": "store_true"} if default is False else {"type": type(default)}
        parser.add_argument("--" + name.replace("_", "-"), default=default, help=meaning, **kind)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root: the look-alike does")
        sys.exit(77)
    print("seed %d" % given.seed, flush=True)
    for name, value in vars(given).items():
        setattr(test, name, value)
    unittest.main(argv=sys.argv[:1], verbosity=2)
