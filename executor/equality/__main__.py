"""Print how far every case is from one process; ends with 1 if one is too far."""

import argparse
import sys

from towtank.executor.equality.cases import CASES, NARROW_CASES
from towtank.executor.equality.compare import TOLERANCES
from towtank.executor.equality.processes import differences
from towtank.executor.equality.random_plans import random_case


def main() -> int:
    """Run the cases whose names contain all words."""
    parser = argparse.ArgumentParser(prog="python -m towtank.executor.equality", description=__doc__)
    parser.add_argument("words", nargs="*", help="only cases whose name or model contains all of these")
    parser.add_argument("--least", type=int, default=1, help="fewest processes")
    parser.add_argument("--most", type=int, default=8, help="most processes")
    parser.add_argument("--narrow", action="store_true", help="fp32 and bf16 too")
    parser.add_argument(
        "--random", type=int, metavar="N", help="instead: so many random plans for 4 and for 8"
    )
    options = parser.parse_args()
    known = (*CASES, *(NARROW_CASES if options.narrow else ()))
    if options.random:
        known = tuple(random_case(seed, devices) for devices in (4, 8) for seed in range(options.random))
    cases = [
        case
        for case in known
        if options.least <= case.plan.num_devices <= options.most
        and all(word in f"{case.name} {case.model}" for word in options.words)
    ]
    if not cases:
        parser.error(
            f"no case has {' and '.join(options.words) or 'so many processes'}; leave words out for all"
        )
    far = 0
    print(f"{'case':32} {'model':9} {'processes':>9} {'loss':>8} {'norm':>8} {'weights':>8}")
    for case, found in differences(cases):
        numbers = f"{found.loss:8.0e} {found.gradient_norm:8.0e} {found.weights:8.0e}"
        good = found.within(TOLERANCES[case.dtype])
        far += not good
        print(f"{case.name:32} {case.model:9} {case.plan.num_devices:9} {numbers}", "" if good else "  FAR")
        if not good:
            print(case.plan)
        if found.fault:
            print(found.fault)
        elif found.copies:
            print(f"  copies of weights differ by {found.copies:.0e}")
        sys.stdout.flush()
    return int(far > 0)


if __name__ == "__main__":
    sys.exit(main())
