"""Try hostile files on the readers: python -m tests.fuzz --format=tables --minutes=30"""

import argparse
import secrets
import sys
from pathlib import Path

from tests.fuzz.harness import FORMATS, run

parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
parser.add_argument(
    "--format", choices=FORMATS, help="all of them, one after another, if not given"
)
parser.add_argument("--minutes", type=float, help="for each format; 1 if --number is not given")
parser.add_argument("--number", type=int, help="of inputs for each format")
parser.add_argument("--seed", type=int, help="of the inputs; if not given, another every time")
parser.add_argument("--input", type=int, help="try this one alone")
parser.add_argument("--keep", type=Path, help="folder for inputs that are findings")
options = parser.parse_args()

seed = secrets.randbelow(2**31) if options.seed is None else options.seed
number = 1 if options.input is not None else options.number
minutes = options.minutes or (1 if number is None else None)
found = 0
for name in [options.format] if options.format else FORMATS:
    counts, findings = run(
        name,
        seed,
        first=options.input or 0,
        number=number,
        seconds=None if minutes is None else 60 * minutes,
        keep=options.keep,
    )
    found += len(findings)
    print(f"{name}, seed {seed}: {sum(counts.values())} inputs: {counts}", flush=True)
sys.exit(1 if found else 0)
