"""The pytest plug-in of squeeze_patch: every check of a configuration is a test; fixtures give what is checked.

Every run of pytest where squeeze_patch is installed imports this module. It needs nothing but pytest and the standard
library until a check runs or a fixture is used, since to import squeeze_patch takes the seconds that torch takes.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import runpy
import sys
import traceback
import warnings
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
    record = config.getoption("squeeze_record")
    asked = record or config.getoption("squeeze") is not None
    everything = not config.getoption("file_or_dir", []) and config.invocation_params.dir == config.rootpath
    if (asked or everything) and not _is_walked_over(path, config):
        with contextlib.suppress(ValueError):  # another drive: the path stays absolute
            path = Path(os.path.relpath(path, config.invocation_params.dir))
        config.args.append(str(path))
    if record and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recording(), "squeeze-patch-recording")


def _is_walked_over(path: Path, config: pytest.Config) -> bool:
    """Whether pytest comes across a file by itself, in a folder that it is to look through."""
    folders = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return any(folder == path.resolve() or folder in path.resolve().parents for folder in folders)


def _configured(config: pytest.Config) -> Optional[Path]:
    """The configuration whose checks are tests, None = there shall be none."""
    given, ini = config.getoption("squeeze"), str(config.getini("squeeze_config"))
    path = config.rootpath / FILE
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
        path = path if path.is_file() else path.with_name("pyproject.toml")
        if not path.is_file():
            raise pytest.UsageError(f"there is no {FILE} in {config.rootpath}; {CONFIGURE} says where it is")
    else:
        return None
    return Path(os.path.abspath(path))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Optional[pytest.Collector]:
    path = parent.config.stash.get(_PATH, None)
    if path is None or file_path.name != path.name or not file_path.samefile(path):
        return None
    return CheckFile.from_parent(parent, path=file_path)  # type: ignore[no-any-return]


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

    def collect(self) -> Iterator[pytest.Item]:
        if self.config.getoption("squeeze_record"):
            yield RecordItem.from_parent(self, name="record")
            return
        checks, generators = _listed(self.path)
        for check in checks:
            names: Sequence[Optional[str]] = generators if check.per_generator and generators else [None]
            for index, name in enumerate(names):
                title = f"{check.name}[{_plain(name)}]" if name is not None and len(names) > 1 else check.name
                more = {"check": check, "generator": name, "others": index == 0}
                # its id as a text, of which pytest 9.2 takes the brackets apart
                yield CheckItem.from_parent(self, name=title, nodeid=f"{self.nodeid}::{title}", **more)

    def setup(self) -> None:
        self.held = _Held(self.path)

    def teardown(self) -> None:
        """Tests of other files come next, and need the memory."""
        del self.held


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
        with _guarded(self):
            outcomes = self.parent.held.outcomes(self.check.name, self.generator, self.others)
        state = min((one.state for one in outcomes), key=STATES.index)
        shown = STATES[:2] if state in STATES[:2] else (state,)
        text = "\n".join(
            f"{'could not be run: ' if one.state == 'unknown' else ''}"
            f"{one.name + ': ' if len(outcomes) > 1 else ''}{one.message}"
            for one in outcomes
            if one.state in shown
        )
        if state in STATES[:2]:
            pytest.fail(text, pytrace=False)
        if state == "skipped":
            skipped = pytest.skip.Exception(text)
            setattr(skipped, "_use_item_location", True)  # noqa: B010 - where it is known: the configuration, not here
            raise skipped
        self.add_report_section("call", "squeeze_patch", text)


class RecordItem(_Item):
    """Writes the baseline; a test, so that it runs in one process of several."""

    def runtest(self) -> None:
        with _guarded(self):
            config = _module("checks.runner").configured(self.path)
            baseline = _module("checks.recording").record(config)
        names = ", ".join(_plain(name) or "one generator" for name in baseline.generators)
        where = os.path.relpath(config.baseline, self.path.parent)
        words = f"recorded {names} in {_plain(where)}; commit it"
        if os.environ.get("CI"):
            words += f"\nWarning: {_module('checks.recording').IN_CI}"
        self.user_properties.append((RECORDED, words))


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
            found: List[Any] = session.outcomes(check, generator, others)
            return found


@pytest.fixture
def squeezed_generator(request: pytest.FixtureRequest) -> Any:
    """The reference generator of the configuration (the moving average, or the only one), in evaluation mode; made anew
    for every test, so that no test finds what another one has left."""
    path = _path_for(request, "squeezed_generator")
    with contextlib.ExitStack() as modules:
        with _guarded(request.node):
            config, subjects = _module("checks.config").read_config(path), _module("checks.subjects")
            modules.enter_context(subjects.importable(config))  # until the test ends: it may import when it runs
            G = next(iter(subjects.make_subjects(config).values())).root
        yield G


@pytest.fixture
def squeeze_baseline(request: pytest.FixtureRequest) -> Any:
    """The recorded baseline of the configuration: ``squeeze_baseline.generators[name]``, read anew for every test."""
    path = _path_for(request, "squeeze_baseline")
    with _guarded(request.node):
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


def _listed(path: Path) -> Tuple[List[Any], List[str]]:
    """The checks of a configuration (`Check`), and the generators in its baseline, without importing torch.

    Raises:
        CollectError: the configuration cannot be used.
    """
    known = _catalogue()
    try:
        toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
        data = toml.loads(path.read_text(encoding="utf-8"))
        data = data["tool"][TABLE] if path.name == "pyproject.toml" else data
        named = data.get("checks", {})
        checks = [check for check in known.values() if named.get(check.name, check.on) is not False]
        if set(named) - set(known):
            raise KeyError("checks")
        baseline = path.parent / data.get("baseline", BASELINE)
    except Exception:  # squeeze_patch says it better
        try:
            with _own_warnings():
                config = _module("checks.config").read_config(path)
        except Exception as error:
            raise pytest.Collector.CollectError(_plain(error)) from error
        checks, baseline = [known[name] for name in config.checks], config.baseline
    try:
        return checks, list(json.loads(baseline.read_text(encoding="utf-8"))["generators"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return checks, []  # none, or a damaged one, which the checks tell of


def _module(name: str) -> Any:
    return importlib.import_module(f"squeeze_patch.{name}")


def _folder() -> Path:
    """Of squeeze_patch, which is not imported for it."""
    package: Any = importlib.util.find_spec("squeeze_patch")
    return Path(package.origin).parent


def _catalogue() -> Dict[str, Any]:
    """`squeeze_patch.checks.catalogue.BY_NAME`, without the package around it, which would import torch."""
    path = _folder() / "checks" / "catalogue.py"
    return dict(runpy.run_path(str(path), run_name="_squeeze_catalogue")["BY_NAME"])


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
def _guarded(node: pytest.Item) -> Iterator[None]:
    """Warnings as of `_own_warnings`; errors in one line, and of those that were not raised on purpose, where in the
    repository's code they were."""
    try:
        with _own_warnings():
            yield
    except (Exception, pytest.skip.Exception) as error:  # no repository's code says that a check is skipped
        words, check = _plain(error), isinstance(node, _Item)
        on_purpose = any(kind.__module__ == "squeeze_patch.errors" for kind in type(error).__mro__)
        origin = error.__cause__ if on_purpose and error.__cause__ is not None else error
        ours = (__file__, str(_folder()), contextlib.__file__)
        frames = [one for one in traceback.extract_tb(origin.__traceback__) if not one.filename.startswith(ours)]
        if frames:
            node.add_report_section("call" if check else "setup", "traceback", "".join(traceback.format_list(frames)))
        words = words if on_purpose else f"{type(error).__name__}: {words}"
        raise pytest.fail.Exception(f"could not be run: {words}" if check else words, pytrace=False) from None
