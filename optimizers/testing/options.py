"""The suite's options for pytest, a plugin by the entry point ``pytest11``.

pytest reads options before it resolves ``--pyargs``, so a conftest cannot add them. The wheel carries this file
outside of the package, as ``_optimizers_testing_options``: pytest imports it at every start, and nothing else. Where
the sources are only on the path, ``-p optimizers.testing.options`` does the same.
"""

from typing import Any

import pytest

SUBJECT = "optimizers_testing_subject"  # as in optimizers.testing.command, which imports torch


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, once."""
    group = parser.getgroup("optimizers.testing", "conformance of aggregators (pytest --pyargs optimizers.testing)")
    if group.options:
        return
    group.addoption(
        "--aggregator", metavar="MODULE:NAME", help="run the suite on this, or on MODULE:NAME(option=value)"
    )
    group.addoption("--require", metavar="PROPERTY,…", default="", help="fail where these do not hold, or 'all'")
    group.addoption("--aggregator-takes", choices=("gramian", "matrix"), help="where its signature does not say")
    group.addoption("--aggregator-tasks", metavar="FEWEST-MOST", default="1-5", help="numbers of tasks (1-5)")
    group.addoption("--aggregator-examples", metavar="N", type=int, default=300, help="cases tried a property (300)")
    group.addoption("--aggregator-tolerance", metavar="X", type=float, default=1e-6, help="relative violation (1e-6)")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a bad aggregator or property before anything runs."""
    if not config.getoption("--aggregator"):
        if config.option.pyargs and "optimizers.testing" in config.args:
            raise pytest.UsageError("optimizers.testing needs --aggregator MODULE:NAME, the aggregator to test")
        return
    if not hasattr(config, SUBJECT):
        from optimizers.testing.command import options

        try:
            chosen = options(
                config.getoption("--aggregator"),
                require=config.getoption("--require"),
                takes=config.getoption("--aggregator-takes"),
                tasks=config.getoption("--aggregator-tasks"),
                examples=config.getoption("--aggregator-examples"),
                tolerance=config.getoption("--aggregator-tolerance"),
            )
        except (ImportError, TypeError, ValueError) as error:
            raise pytest.UsageError(f"--aggregator {config.getoption('--aggregator')}: {error}") from error
        setattr(config, SUBJECT, chosen)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table of properties and verdicts."""
    chosen = getattr(config, SUBJECT, None)
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    rows = [dict(getattr(report, "user_properties", ())).get("conformance") for report in reports]
    found = {row[0]: row for row in rows if row}
    if chosen is None or not found:
        return
    from optimizers.testing.command import summary
    from optimizers.testing.verdict import Verdict

    delattr(config, SUBJECT)  # printed once, even where this file is a plugin under both names
    terminalreporter.section(f"conformance of {chosen.subject.name}")
    terminalreporter.write_line(summary(chosen, [Verdict(*found[name]) for name in chosen.properties if name in found]))
