# SPDX-License-Identifier: Apache-2.0
"""Live frames to a 3D ultrasound: `usreg evaluate --protocol s2v` on the subjects that were set aside.

Weights are trained on subjects from 3000 on and chosen on 3100:3104; 3200:3205 are those of the figures that count.
Missing subjects are made, a minute and a half each. Methods without weights are left out; what has been run before
in the folder of the results is not run again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from usreg import cli

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str]) -> None:
    """Further options go to `usreg evaluate` and replace these."""
    build = ROOT / "build" / "bench"
    given = {"--protocol": "s2v", "--data": build / "subjects", "--out": build / "s2v", "--threads": 2,
             "--liver": ROOT.parent / "shared" / "data" / "liver_sweep"}  # fmt: skip
    named = {argument.partition("=")[0] for argument in arguments}
    words = [str(word) for pair in given.items() if pair[0] not in named for word in pair]
    sys.argv = ["usreg", "evaluate", *words, *arguments]
    cli.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
