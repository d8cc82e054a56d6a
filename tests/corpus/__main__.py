"""`make corpus`: builds every image that this host can build, checks every function of each, and prints the summary."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time

from corpus import summary
from corpus.check import Outcome
from corpus.recipes import Unavailable, recipes
from corpus.run import Image, results


def main() -> int:
    """The exit status is 0 if every image was there and objdump agrees with every verdict."""
    parser = argparse.ArgumentParser(prog="python -m corpus", description=__doc__)
    parser.add_argument("--only", default="*", help="images whose name matches, such as 'gcc/*' or 'real/nginx'")
    parser.add_argument("--every", type=int, default=1, help="look at every so many-th function of each image")
    parser.add_argument("--processes", type=int, default=2, help="that analyse at the same time")
    chosen = parser.parse_args()
    started = time.monotonic()
    images, missing = [], []
    for recipe in recipes():
        if not fnmatch.fnmatch(recipe.name, chosen.only):
            continue
        try:
            images.append(Image.of(recipe.name, recipe.obtain()))
        except Unavailable as error:
            missing.append(f"{recipe.name}: {error}")
    found: dict[str, list[Outcome]] = {}
    for image, outcomes in results(images, every=chosen.every, processes=chosen.processes):
        found[image.name] = outcomes
        print(f"[{time.monotonic() - started:6.0f} s] {image.name}: {len(outcomes):,} functions", file=sys.stderr, flush=True)
    ordered = {image.name: found[image.name] for image in images}
    wrong = summary.faults(ordered)
    for title, lines in (
        ("", summary.table(ordered)),
        ("Why not exact:", summary.reasons(ordered)),
        ("objdump sees it differently:", wrong[:200]),
        ("Not on this host:", missing),
    ):
        if lines:
            print("\n".join((*filter(None, ("", title)), *lines)))
    return 1 if wrong or missing or not images else 0


if __name__ == "__main__":
    sys.exit(main())
