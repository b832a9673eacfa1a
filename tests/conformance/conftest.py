"""Options of the kit, the programs that it tests, strict expected failures, and the printed report."""

from pathlib import Path

import pytest

from tests.conformance import cases_audit, generate
from tests.conformance.case import GROUPS, Case, discover
from tests.conformance.commands import External, ours

HERE = Path(__file__).parent
OURS = {"receipt", "log", "witness", "report", "audit"}


def pytest_addoption(parser):
    kit = parser.getgroup("conformance")
    kit.addoption("--auditor-command", help="The auditor's program to test.  [default: prune-auditor, in this process]")
    kit.addoption("--owner-command", help="The owner's program to test.  [default: prune-owner, in this process]")
    kit.addoption(
        "--only", help=f"Groups that the programs have, of {', '.join(GROUPS)}.  [default: those of the commands]"
    )
    kit.addoption(
        "--xfails", help="Expected failures, one case id a line.  [default: <program>.xfails, if there is one]"
    )
    kit.addoption("--time-limit", type=float, default=60.0, help="Seconds that one call may take.")


def option(config, name):
    # Not registered when the whole suite is run from the top: pytest reads this file too late for that.
    return config.getoption(name, default=None)


def programs(config):
    """Both programs; one that was not named is ours, if the other was not named either."""
    limit = option(config, "--time-limit") or 60.0
    auditor, owner = option(config, "--auditor-command"), option(config, "--owner-command")
    return (
        External.parse(auditor, limit=limit) if auditor else ours("prune-auditor"),
        External.parse(owner, limit=limit) if owner else ours("prune-owner"),
    )


def groups(config):
    """The groups to test."""
    only = option(config, "--only")
    auditor, owner = option(config, "--auditor-command"), option(config, "--owner-command")
    if only:
        chosen = {name.strip() for name in only.split(",")}
        if not chosen <= set(GROUPS):
            raise pytest.UsageError(f"--only takes groups of {', '.join(GROUPS)}")
        return chosen
    if auditor and not owner:
        return OURS
    return {"owner"} if owner and not auditor else set(GROUPS)


def expected_failures(config):
    """Ids of cases that are expected to fail, by file."""
    given = option(config, "--xfails")
    files = [Path(given)] if given else []
    for name in () if given else ("--auditor-command", "--owner-command"):
        command = option(config, name)
        words = External.parse(command, limit=0).command if command else ()
        files += [Path(f"{word}.xfails") for word in words if Path(f"{word}.xfails").is_file()]
    found = set()
    for path in files:
        if not path.is_file():
            raise pytest.UsageError(f"{path}: no such file of expected failures")
        lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
        found |= {line for line in lines if line}
    return found


@pytest.fixture(scope="session")
def auditor_program(request):
    return programs(request.config)[0]


@pytest.fixture(scope="session")
def owner_program(request):
    return programs(request.config)[1]


def known_cases(config) -> list[Case]:
    if not hasattr(config, "_conformance_cases"):
        import tempfile

        folder = tempfile.TemporaryDirectory(prefix="conformance-")
        config.add_cleanup(folder.cleanup)
        root = Path(folder.name)
        generate.generate(root / "cases")
        config._conformance_folder = root / "cases"
        config._conformance_cases = discover(root / "cases") + discover(HERE / "cases")
    return config._conformance_cases


def _strict(case_id, xfails):
    return [pytest.mark.xfail(reason="expected", strict=True)] if case_id in xfails else []


def pytest_generate_tests(metafunc):
    if "audit_case" in metafunc.fixturenames:
        xfails = expected_failures(metafunc.config)
        metafunc.parametrize(
            "audit_case",
            [pytest.param(name, id=name, marks=_strict(name, xfails)) for name in cases_audit.IDS],
        )
    if "case" not in metafunc.fixturenames:
        return
    config = metafunc.config
    cases, wanted, xfails = known_cases(config), groups(config), expected_failures(config)
    metafunc.parametrize(
        "case",
        [
            pytest.param(case, id=case.id, marks=_strict(case.id, xfails))
            for case in cases
            if case.group in wanted
        ],
    )  # fmt: skip


@pytest.fixture(scope="session")
def audit_cases(tmp_path_factory):
    """Cases of `audit` by id, made once."""
    folder = tmp_path_factory.mktemp("audit")
    cases_audit.write(folder / "cases", folder / "work")
    return {case.id: case for case in discover(folder / "cases")}


@pytest.fixture(scope="session")
def generated_cases(request):
    """The folder of generated cases."""
    known_cases(request.config)
    return request.config._conformance_folder


def pytest_collection_modifyitems(config, items):
    wanted = groups(config)
    for item in items:
        mark = item.get_closest_marker("conformance")
        if mark is not None and not set(mark.args) & wanted:
            item.add_marker(pytest.mark.skip(reason=f"the group {'/'.join(mark.args)} was not asked for"))


def pytest_configure(config):
    config.addinivalue_line("markers", "conformance(*groups): a test of the kit, for these groups of commands")


def pytest_terminal_summary(terminalreporter, config):
    """The report: cases by group, and every failure with its reason."""
    rows, failures = {}, []
    for outcome in ("passed", "failed", "xfailed", "xpassed", "skipped", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            told = dict(getattr(report, "user_properties", ()))
            if "conformance" in told and (report.when == "call" or outcome != "passed"):
                rows.setdefault(told["conformance"], {}).setdefault(outcome, 0)
                rows[told["conformance"]][outcome] += 1
                if outcome in ("failed", "error", "xpassed"):
                    problem = told.get("problem", outcome) or "passed, and was expected to fail"
                    failures.append((told.get("case", report.nodeid), problem))
    if not rows:
        return
    external = any(option(config, name) for name in ("--auditor-command", "--owner-command"))
    if not external and not failures and config.getoption("verbose") < 1:
        return
    terminalreporter.section("conformance")
    for group in GROUPS:
        if group in rows:
            counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(rows[group].items()))
            terminalreporter.write_line(f"{group:9} {counts}")
    for name, problem in sorted(failures):
        terminalreporter.write_line(f"FAILED {name}: {problem}")
    verdict = "does NOT conform" if failures else "conforms, as far as these cases go"
    terminalreporter.write_line(f"the program {verdict}")


@pytest.fixture(scope="session")
def workshop(small_demo, tmp_path_factory):
    """A copy of the small world in which adversaries can sign their bundles."""
    from tests.auditor.workshop import Workshop

    return Workshop(small_demo, tmp_path_factory.mktemp("adversaries") / "world")
