"""The command ``python -m benchmarks.corpus``."""

from __future__ import annotations

import argparse
from pathlib import Path

import benchmarks.corpus as package
from benchmarks.corpus.generate import PARTS, generate, plans


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.corpus",
        description=package.__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("out", type=Path, nargs="?", default=Path("build/corpus"))
    parser.add_argument("--seeds", type=int, default=2, help="turns through all faults and traps")
    parser.add_argument("--only", action="append", metavar="TEXT", help="runs whose name contains it")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--part", choices=PARTS, help="programs of this part only")
    given = parser.parse_args()
    chosen = [
        p
        for p in plans(given.seeds)
        if (not given.only or any(t in p.name for t in given.only)) and given.part in (None, p.part)
    ]
    generate(given.out, chosen, given.jobs)


if __name__ == "__main__":
    main()
