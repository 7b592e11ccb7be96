"""``python -m optimizers.testing MODULE:NAME …``: the table of each aggregator, without pytest."""

import argparse
import sys
from collections.abc import Sequence

from optimizers.testing.command import options, summary
from optimizers.testing.properties import PROPERTIES
from optimizers.testing.verdict import EXAMPLES, TOLERANCE, judge, unmet


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 1 where a required property does not hold, otherwise 0."""
    parser = argparse.ArgumentParser(prog="python -m optimizers.testing", description=__doc__)
    parser.add_argument("aggregators", nargs="+", metavar="MODULE:NAME", help="or 'MODULE:NAME(option=value)'")
    parser.add_argument(
        "--require", default="", metavar="PROPERTY,…", help="exit with 1 where these do not hold, or 'all'"
    )
    parser.add_argument("--takes", choices=("gramian", "matrix"), help="where the signature does not say")
    parser.add_argument("--tasks", default="1-5", metavar="FEWEST-MOST")
    parser.add_argument("--examples", type=int, default=EXAMPLES, metavar="N", help="cases tried a property")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="X", help="relative violation")
    given = vars(parser.parse_args(arguments))
    failed = False
    for spec in given.pop("aggregators"):
        try:
            chosen = options(spec, **given)
        except (ImportError, TypeError, ValueError) as error:
            parser.error(f"{spec}: {error}")
        verdicts = [judge(PROPERTIES[name], chosen.subject, **chosen.effort) for name in chosen.properties]
        print(f"{chosen.subject.name}\n{summary(chosen, verdicts)}\n")
        failed |= bool(unmet(verdicts, chosen.required))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
