"""Marks the expected failures of the suites, and prints their numbers: a plugin of pytest."""

from collections import Counter, defaultdict

import pytest
from expected_failures import EXPECTED_FAILURES
from suites import HAS_GENERATION_TESTS, Suite


OUTCOMES = ("passed", "expected failures", "failed", "skipped")
COUNTS: dict[str, Counter] = defaultdict(Counter)
SUITES: dict[str, type[Suite]] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    unknown = {(suite, name) for suite, reasons in EXPECTED_FAILURES.items() for name in reasons}
    for item in items:
        suite = item.cls.__name__
        SUITES[suite] = item.cls
        unknown.discard((suite, item.name))
        if reason := EXPECTED_FAILURES.get(suite, {}).get(item.name):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    if unknown and HAS_GENERATION_TESTS and not config.option.keyword:
        raise pytest.UsageError(f"expected_failures.py has tests that there are not: {sorted(unknown)}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    suite = report.nodeid.split("::")[1]
    if report.skipped:
        COUNTS[suite]["expected failures" if hasattr(report, "wasxfail") else "skipped"] += 1
    elif report.when == "call" or report.failed:
        COUNTS[suite][report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    write = terminalreporter.write_line
    write("")
    write(f"{'':36}{''.join(f'{name:>19}' for name in OUTCOMES)}")
    for suite in SUITES.values():
        for name in (suite.__name__, f"  beside {suite.control.__name__}" if suite.control else None):
            if name is not None:
                counts = COUNTS[name.split()[-1]]
                write(f"{name:36}{''.join(f'{counts[outcome]:>19}' for outcome in OUTCOMES)}")
    write("")
    for suite in SUITES:
        for name, reason in EXPECTED_FAILURES.get(suite, {}).items():
            write(f"{suite}::{name}: {reason}")
    if not HAS_GENERATION_TESTS:
        write("\nThe tests of generation were not run: the source distribution lacks them. See noxfile.py.")
