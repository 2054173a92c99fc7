"""`python -m benchmarks NAME [--smoke | --verify | --settle] [--seeds N]`, `--list`, `--table`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks import harness, tables
from lilliput.errors import LilliputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run claims; 0 when all goals hold (a smoke run only has to finish), 1 when one is missed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = _parser().parse_args(given)
    try:
        if asked.table:
            return _tables(check=asked.check)
        if asked.list or not asked.claims:
            print("\n".join(harness.names()))
            return 0
        return max(_one(name, asked, given) for name in asked.claims)
    except LilliputError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _one(name: str, asked: argparse.Namespace, given: Sequence[str]) -> int:
    options = harness.Options(name=name, smoke=asked.smoke, seeds=tuple(range(asked.seeds)))
    command = ["python", "-m", "benchmarks", *given]
    claim = harness.run(options, command=command, verify=asked.verify or asked.settle)
    print(tables.table(claim))
    for row in harness.settle(claim) if asked.settle else ():
        print(f"settled: {row.name} ({row.isa}): {tables.figure_text(row)}")
    for row in claim.missed:
        print(f"missed: {row.name}: {tables.figure_text(row)}, goal {row.goal}")
    return 1 if claim.missed and not asked.smoke else 0


def _tables(*, check: bool) -> int:
    if check:
        old = tables.stale(tables.documents())
        for path in old:
            print(f"{path} differs from the results: run `python -m benchmarks --table`")
        return 1 if old else 0
    for path in tables.renew(tables.documents()):
        print(f"rewrote {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("claims", nargs="*", metavar="NAME", help="claims to run")
    parser.add_argument("--smoke", action="store_true", help="a minute-long version, for CI")
    parser.add_argument("--verify", action="store_true", help="measure the committed files again")
    parser.add_argument(
        "--settle", action="store_true", help="verify, and fill the result's open rows with it"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds to repeat with")
    parser.add_argument("--list", action="store_true", help="name the claims")
    parser.add_argument("--table", action="store_true", help="rewrite the tables of README, docs")
    parser.add_argument("--check", action="store_true", help="with --table: only compare")
    return parser


if __name__ == "__main__":
    sys.exit(main())
