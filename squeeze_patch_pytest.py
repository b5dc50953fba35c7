"""The pytest plug-in of squeeze_patch: every check of a configuration is a test; fixtures give what is checked.

Every run of pytest where squeeze_patch is installed imports this module. It needs nothing but pytest and the standard
library until a check runs or a fixture is used, since to import squeeze_patch takes the seconds that torch takes.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
import os
import runpy
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import pytest

FILE, TABLE, BASELINE = "squeeze.toml", "squeeze-patch", "squeeze-baseline.json"
MARK = "squeeze"
#: property of a report that says what was recorded; reports reach the terminal from other processes, too
RECORDED = "squeeze_recorded"
CONFIGURE = f"squeeze_config = {FILE} in pytest's ini file, or pytest --squeeze={FILE}"
#: in the order of their weight: what a test of several generators is
STATES = ("short", "unknown", "holds", "skipped")
_PATH = pytest.StashKey[Optional[Path]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("squeeze_config", f"{FILE} or pyproject.toml, from the rootdir, whose checks are tests")
    group = parser.getgroup("squeeze_patch", "checks of squeezed generators (squeeze_patch)")
    group.addoption(
        "--squeeze",
        metavar="FILE",
        nargs="?",
        const="",
        help=f"run the checks of FILE, too (default: squeeze_config of the ini file, or the {FILE} in the rootdir)",
    )
    group.addoption(
        "--squeeze-record", action="store_true", help="in place of the checks, write the baseline they are held against"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}: a check of squeeze_patch's configuration")
    path = _configured(config)
    config.stash[_PATH] = path
    if path is None:
        return
    asked = config.getoption("squeeze") is not None or config.getoption("squeeze_record")
    everything = not config.getoption("file_or_dir") and config.invocation_params.dir == config.rootpath
    if (asked or everything) and not _is_walked_over(path, config):
        with contextlib.suppress(ValueError):  # another drive: the path stays absolute
            path = Path(os.path.relpath(path, config.invocation_params.dir))
        config.args.append(str(path))
    if config.getoption("squeeze_record") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recording(), "squeeze-patch-recording")


def _is_walked_over(path: Path, config: pytest.Config) -> bool:
    """Whether pytest comes across a file by itself, in a folder that it is to look through."""
    folders = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return any(folder == path.resolve() or folder in path.resolve().parents for folder in folders)


def _configured(config: pytest.Config) -> Optional[Path]:
    """The configuration whose checks are tests, None = there shall be none."""
    given, ini = config.getoption("squeeze"), str(config.getini("squeeze_config"))
    if given:
        path = config.invocation_params.dir / given
        if not path.is_file() or path.suffix != ".toml":
            raise pytest.UsageError(
                f"--squeeze={given}: this is no {FILE} or pyproject.toml; where a path of tests is meant, write it in "
                "front of --squeeze"
            )
    elif ini:
        path = config.rootpath / ini
        if not path.is_file():
            raise pytest.UsageError(f"squeeze_config = {ini}: there is no such file in {config.rootpath}")
    elif given is not None or config.getoption("squeeze_record"):
        path = config.rootpath / FILE
        if not path.is_file():
            path = config.rootpath / "pyproject.toml"
        if not path.is_file():
            raise pytest.UsageError(f"there is no {FILE} in {config.rootpath}; {CONFIGURE} says where it is")
    else:
        return None
    return Path(os.path.abspath(path))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Optional[pytest.Collector]:
    path = parent.config.stash.get(_PATH, None)
    if path is None or file_path.name != path.name or not file_path.samefile(path):
        return None
    found: pytest.Collector = CheckFile.from_parent(parent, path=file_path)
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Once each, where a folder and the file in it are both collected; a record comes before tests that read it."""
    if config.stash.get(_PATH, None) is None:
        return
    once = {item.nodeid: item for item in items if isinstance(item, _Item)}
    kept = [item for item in items if not isinstance(item, _Item) or once[item.nodeid] is item]
    items[:] = sorted(kept, key=lambda item: not isinstance(item, RecordItem))


class CheckFile(pytest.File):
    """A configuration; its checks are made of what its text says, without the generators."""

    _held: Optional[_Held] = None

    def collect(self) -> Iterator[pytest.Item]:
        if self.config.getoption("squeeze_record"):
            yield RecordItem.from_parent(self, name="record")
            return
        checks, generators = _listed(self.path)
        for check in checks:
            names: Sequence[Optional[str]] = generators if check.per_generator and generators else [None]
            for index, name in enumerate(names):
                title = f"{check.name}[{_plain(name)}]" if name is not None and len(names) > 1 else check.name
                yield CheckItem.from_parent(
                    self,
                    name=title,
                    nodeid=f"{self.nodeid}::{title}",  # as a text, of which pytest 9.2 takes the brackets apart
                    check=check,
                    generator=name,
                    others=index == 0,
                )

    @property
    def held(self) -> _Held:
        if self._held is None:
            self._held = _Held(self.path)
        return self._held

    def teardown(self) -> None:
        """Tests of other files come next, and need the memory."""
        self._held = None


class _Item(pytest.Item):
    """What both kinds have in common."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_marker(getattr(pytest.mark, MARK))
        if self.config.pluginmanager.hasplugin("xdist"):  # with --dist loadgroup, one process makes the generators
            self.add_marker(pytest.mark.xdist_group(MARK))

    def reportinfo(self) -> Tuple[Path, int, str]:
        return self.path, 0, self.name


class CheckItem(_Item):
    """One check of one generator; ``generator`` None = of all; ``others`` = also of those that are not recorded."""

    def __init__(self, *, check: Any, generator: Optional[str], others: bool, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.check, self.generator, self.others = check, generator, others
        self.extra_keyword_matches.add(check.group)

    def runtest(self) -> None:
        assert isinstance(self.parent, CheckFile)
        with _plain_errors(self), _own_warnings():
            outcomes = self.parent.held.outcomes(self.check.name, self.generator, self.others)
        state = min((outcome.state for outcome in outcomes), key=STATES.index)
        said = [outcome for outcome in outcomes if outcome.state in (STATES[:2] if state in STATES[:2] else state)]
        lines = [f"{one.name}: {one.message}" if len(outcomes) > 1 else one.message for one in said]
        if state == "short":
            pytest.fail("\n".join(lines), pytrace=False)
        if state == "unknown":
            pytest.fail("\n".join(f"could not be run: {line}" for line in lines), pytrace=False)
        if state == "skipped":
            skipped = pytest.skip.Exception("; ".join(lines))
            setattr(skipped, "_use_item_location", True)  # noqa: B010 - where it is known: the configuration, not here
            raise skipped
        self.add_report_section("call", "squeeze_patch", "\n".join(lines))


class RecordItem(_Item):
    """Writes the baseline; a test, so that it runs in one process of several."""

    def runtest(self) -> None:
        with _plain_errors(self), _own_warnings():
            runner = _module("checks.runner")
            config = runner.configured(self.path)
            baseline = runner.record(config)
        names = ", ".join(_plain(name) or "one generator" for name in baseline.generators)
        where = os.path.relpath(config.baseline, self.path.parent)
        self.user_properties.append((RECORDED, f"recorded {names} in {_plain(where)}; commit it"))


class _Recording:
    """Says what was recorded; where nothing was, by the exit code, too."""

    def __init__(self) -> None:
        self.recorded: List[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.recorded += [str(value) for name, value in report.user_properties if name == RECORDED]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        nothing_ran = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if not self.recorded and nothing_ran and not session.config.getoption("collectonly"):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not terminalreporter.config.getoption("collectonly"):
            terminalreporter.section("squeeze_patch")
            terminalreporter.line("\n".join(self.recorded) or "nothing was recorded; the baseline is as it was")


class _Held:
    """The generators of a configuration, made when the first of its checks runs, and the same ones for all of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.running: Any = None
        self.trouble: Optional[Exception] = None

    def outcomes(self, check: str, generator: Optional[str], others: bool) -> List[Any]:
        """What a check finds; raises whatever stopped the making of the generators, without trying again."""
        if self.trouble is not None:
            raise self.trouble
        with contextlib.ExitStack() as stack:
            try:
                if self.running is None:
                    runner = _module("checks.runner")
                    self.running = runner.running(runner.configured(self.path))
                session = stack.enter_context(self.running)
            except Exception as error:
                self.trouble = error
                raise
            return self._outcomes(session, check, generator, others)

    def _outcomes(self, session: Any, check: str, generator: Optional[str], others: bool) -> List[Any]:
        baseline = session.context.baseline
        recorded = set() if baseline is None else set(baseline.generators)
        jobs = [job for job in session.jobs() if job[0].name == check]
        if generator is not None:
            jobs = [(one, name) for one, name in jobs if name == generator or (others and name not in recorded)]
            if generator not in session.context.subjects:
                made = ", ".join(map(repr, session.context.subjects))
                raise _module("errors").ConfigError(
                    f"the baseline has a generator {generator!r} that the configuration does not make (but {made}); "
                    "where it is meant so, pytest --squeeze-record"
                )
        return [session.outcome(*job) for job in jobs]


@pytest.fixture
def squeezed_generator(request: pytest.FixtureRequest) -> Any:
    """The reference generator of the configuration (the moving average, or the only one), in evaluation mode; made anew
    for every test, so that no test finds what another one has left."""
    path = _path_for(request, "squeezed_generator")
    with _plain_errors(request.node), _own_warnings():
        config, subjects = _module("checks.config").read_config(path), _module("checks.subjects")
        with subjects.importable(config):
            return next(iter(subjects.make_subjects(config).values())).root


@pytest.fixture
def squeeze_baseline(request: pytest.FixtureRequest) -> Any:
    """The recorded baseline of the configuration: ``squeeze_baseline.generators[name]``, read anew for every test."""
    path = _path_for(request, "squeeze_baseline")
    with _plain_errors(request.node), _own_warnings():
        config = _module("checks.config").read_config(path)
        baseline = _module("checks.baseline").read_baseline(config.baseline)
    if baseline is None:
        pytest.fail(f"{config.baseline}: nothing is recorded; pytest --squeeze-record records it", pytrace=False)
    return baseline


def _path_for(request: pytest.FixtureRequest, fixture: str) -> Path:
    path = request.config.stash.get(_PATH, None)
    if path is None:
        pytest.fail(f"the fixture {fixture} needs a configuration of checks: {CONFIGURE}", pytrace=False)
    return path


@dataclass(frozen=True)
class _Listed:
    """What collecting has to know of a check."""

    name: str
    group: str
    per_generator: bool


def _listed(path: Path) -> Tuple[List[_Listed], List[str]]:
    """The checks of a configuration, and the generators in its baseline, without importing torch.

    Raises:
        CollectError: the configuration cannot be used.
    """
    try:
        data = _toml(path)
        data = data["tool"][TABLE] if path.name == "pyproject.toml" else data
        named = data.get("checks", {})
        checks = [check for check in _catalogue() if named.get(check.name, check.on) is not False]
        if set(named) - {check.name for check in _catalogue()}:
            raise KeyError("checks")
        baseline = path.parent / data.get("baseline", BASELINE)
    except Exception:  # squeeze_patch says it better
        try:
            with _own_warnings():
                config = _module("checks.config").read_config(path)
        except Exception as error:
            raise pytest.Collector.CollectError(_plain(error)) from error
        known = {check.name: check for check in _catalogue()}
        checks, baseline = [known[name] for name in config.checks], config.baseline
    listed = [_Listed(check.name, check.group, check.per_generator) for check in checks]
    try:
        return listed, list(json.loads(baseline.read_text(encoding="utf-8"))["generators"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return listed, []  # none, or a damaged one, which the checks tell of


def _toml(path: Path) -> Dict[str, Any]:
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    found: Dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    return found


@functools.cache
def _catalogue() -> Sequence[Any]:
    """squeeze_patch.checks.catalogue.CHECKS, without the package around it, which would import torch."""
    package = importlib.util.find_spec("squeeze_patch")
    assert package is not None
    assert package.origin is not None
    names = runpy.run_path(str(Path(package.origin).parent / "checks" / "catalogue.py"), run_name="_squeeze_catalogue")
    found: Sequence[Any] = names["CHECKS"]
    return found


def _module(name: str) -> Any:
    return importlib.import_module(f"squeeze_patch.{name}")


def _plain(words: object) -> str:
    """In one line, without characters that steer a terminal."""
    line = " ".join(str(words).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


@contextlib.contextmanager
def _own_warnings() -> Iterator[None]:
    """Python's own filters: where warnings are errors in a repository's tests, those of torch are none in a check."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        yield


@contextlib.contextmanager
def _plain_errors(node: pytest.Item) -> Iterator[None]:
    """Errors in one line; of those that were not raised on purpose, where the repository's code raised them, too."""
    try:
        yield
    except Exception as error:
        ours = str(Path(_module("errors").__file__).parent) if "squeeze_patch.errors" in sys.modules else ""
        purpose = bool(ours) and isinstance(error, _module("errors").SqueezeError)
        if not purpose:
            frames = [
                frame
                for frame in traceback.extract_tb(error.__traceback__)
                if frame.filename != __file__ and not (ours and frame.filename.startswith(ours))
            ]
            phase = "call" if isinstance(node, _Item) else "setup"
            node.add_report_section(phase, "traceback", "".join(traceback.format_list(frames)))
        words = _plain(error) if purpose else f"{type(error).__name__}: {_plain(error)}"
        failure = f"could not be run: {words}" if isinstance(node, _Item) else words
        raise pytest.fail.Exception(failure, pytrace=False) from None
