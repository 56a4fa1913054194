"""Kill a tiny training with two readers and discriminators many times; ``python tests/kills.py 20 --seed 1``."""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from support.kills import kill_and_compare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = 40 + 3 * arguments.kills
        print(kill_and_compare(Path(folder), arguments.kills, seed=arguments.seed, steps=steps))


if __name__ == "__main__":
    main()
