"""squeeze.toml, or [tool.squeeze-patch] in pyproject.toml: what is checked, and how strictly."""

from __future__ import annotations

import difflib
import importlib
import math
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Tuple, Union

from squeeze_patch.checkpoints.checksums import is_sha256
from squeeze_patch.checks.catalogue import BY_NAME, CHECKS, GROUPS, Check, Setting
from squeeze_patch.errors import ConfigError

FILE, TABLE = "squeeze.toml", "squeeze-patch"
BASELINE = "squeeze-baseline.json"
#: "package.module:function"
FACTORY = re.compile(r"[^:.]+(\.[^:.]+)*:[^:]+")
#: {setting: the least that makes sense}; fewer pairs would never be beyond doubt, and the check always hold
LEAST = {"batch": 1, "pairs": 16}
#: in front of a setting's name, what is wrong with it is said of it
_TOP = ("generator", "dense", "checks", "baseline", "pictures", "device", "threads")


@dataclass(frozen=True)
class Recipe:
    """How a generator is made.

    Attributes:
        factory: "package.module:function", imported from the configuration's folder, or, in Python, the function; it
            returns a generator, or a dict {"G": ..., "G_ema": ...} of several.
        checkpoint: a file, or its address, instead; or, with a factory, what is loaded into the generator that the
            factory returns (`squeeze_patch.load`).
        sha256: of the checkpoint, "" = any. An address with it is downloaded once.
        key: which network of a checkpoint, "" = all generators in it.
        trust: whether code in the checkpoint may be run.
        host: folder of the host's checkout, where the checkpoint, or the factory, needs its modules.
    """

    factory: Union[str, Callable[[], Any]] = ""
    checkpoint: str = ""
    key: str = ""
    trust: bool = False
    host: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class CheckConfig:
    """What is checked.

    Attributes:
        path: of the file that it comes from.
        generator: how the squeezed generator is made.
        dense: how the trained dense one is made that it came from, None = it is not at hand.
        baseline: path of the recorded baseline.
        pictures: folder for pictures of what fell short.
        device: where generators run.
        threads: of torch, 0 = as it is.
        checks: {name: settings} of those that run.
        named: names of those that the file names.
    """

    path: Path
    generator: Recipe
    dense: Optional[Recipe] = None
    baseline: Path = Path(BASELINE)
    pictures: Path = Path("squeeze-pictures")
    device: str = "cpu"
    threads: int = 0
    checks: Mapping[str, Mapping[str, Setting]] = field(default_factory=dict)
    named: Tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Against which paths count, and from which factories are imported."""
        return self.path.resolve().parent

    @classmethod
    def of(cls, factory: Callable[[], Any]) -> CheckConfig:
        """Of a function that makes the generator, with the usual checks, and without a baseline."""
        checks = {check.name: check.settings for check in CHECKS if check.on}
        return cls(Path(FILE), Recipe(factory), checks=checks)

    def only(self, wanted: Iterable[str], unwanted: Iterable[str] = ()) -> CheckConfig:
        """The same with fewer checks: those named, by group or by name, less those unwanted.

        Raises:
            ConfigError: no check or group has such a name.
        """
        chosen, less = _expanded(wanted), _expanded(unwanted)
        checks = {} if chosen else dict(self.checks)
        for name in chosen:
            checks[name] = self.checks.get(name, BY_NAME[name].settings)
        ordered = {check.name: checks[check.name] for check in CHECKS if check.name in checks}
        return replace(self, checks={name: value for name, value in ordered.items() if name not in less})


def find_config(start: Path) -> Path:
    """The configuration in ``start`` or the nearest folder above it.

    Raises:
        ConfigError: there is none.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        found = _config_in(folder)
        if found is not None:
            return found
    raise ConfigError(
        f"{start}: neither here nor in a folder above is there a {FILE} or a pyproject.toml with [tool.{TABLE}]; "
        f"name one that is elsewhere (squeeze-patch check FOLDER/{FILE}); docs/checks.md has one to begin with"
    )


def _config_in(folder: Path) -> Optional[Path]:
    """The configuration in this very folder."""
    if (folder / FILE).is_file():
        return folder / FILE
    pyproject = folder / "pyproject.toml"
    return pyproject if pyproject.is_file() and TABLE in _tools(_parse(pyproject)) else None


def read_config(path: Union[str, Path]) -> CheckConfig:
    """The configuration in a file, or in a folder's.

    Raises:
        ConfigError: it is not there, no TOML, or says what is not known, by line of thought: what, where, the cure.
    """
    file = Path(path)
    if file.is_dir():
        inside = _config_in(file)
        if inside is None:
            raise ConfigError(f"{file}: in this folder is neither a {FILE} nor a pyproject.toml with [tool.{TABLE}]")
        file = inside
    if not file.is_file():
        raise ConfigError(f"{file}: there is no such file; docs/checks.md has one to begin with")
    data = _parse(file)
    if file.name == "pyproject.toml":
        if TABLE not in _tools(data):
            raise ConfigError(f"{file}: it has no table [tool.{TABLE}]")
        data = _tools(data)[TABLE]
    try:
        return _config(file, _table(data, f"[tool.{TABLE}]"))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _parse(file: Path) -> Dict[str, Any]:
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        return toml.loads(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    except (toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: this is no TOML: {error}") from error


def _tools(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table [tool] of a pyproject.toml."""
    tools = data.get("tool")
    return tools if isinstance(tools, Mapping) else {}


def _config(file: Path, data: Mapping[str, Any]) -> CheckConfig:
    _known(data, _TOP, "the file")
    if "generator" not in data:
        raise ConfigError(
            'it has no table [generator] that says how yours is made: factory = "package.module:function"'
        )
    folder = file.resolve().parent
    named = _table(data.get("checks", {}), "[checks]")
    _known(named, BY_NAME, "[checks]")
    return CheckConfig(
        path=file,
        generator=_source(data["generator"], "[generator]"),
        dense=_source(data["dense"], "[dense]") if "dense" in data else None,
        baseline=folder / _value(data.get("baseline", BASELINE), "", "baseline"),
        pictures=folder / _value(data.get("pictures", "squeeze-pictures"), "", "pictures"),
        device=_value(data.get("device", "cpu"), "", "device"),
        threads=_value(data.get("threads", 0), 0, "threads"),
        checks={
            check.name: _settings(check, named.get(check.name, check.on))
            for check in CHECKS
            if named.get(check.name, check.on) is not False
        },
        named=tuple(named),
    )


def _source(data: Any, where: str) -> Recipe:
    table = _table(data, where)
    defaults = vars(Recipe())
    _known(table, defaults, where)
    source = Recipe(**{name: _value(value, defaults[name], f"{where} {name}") for name, value in table.items()})
    if not (source.factory or source.checkpoint):
        raise ConfigError(f'{where} needs a factory ("package.module:function") or a checkpoint (a file)')
    if source.sha256 and not (source.checkpoint and is_sha256(source.sha256)):
        raise ConfigError(f"{where} sha256 is of a checkpoint, and has 64 hexadecimal digits, as sha256sum prints them")
    if isinstance(source.factory, str) and source.factory and not FACTORY.fullmatch(source.factory):
        raise ConfigError(f'{where} factory has to be "package.module:function", not {source.factory!r}')
    return source


def _settings(check: Check, given: Any) -> Dict[str, Setting]:
    if given is True:
        return dict(check.settings)
    where = f"[checks] {check.name}"
    table = _table(given, where)
    _known(table, check.settings, where)
    found = {
        name: _value(table.get(name, default), default, f"{where} {name}") for name, default in check.settings.items()
    }
    for name, least in LEAST.items():
        if name in found and found[name] < least:
            raise ConfigError(f"{where} {name} has to be {least} or more, not {found[name]}")
    if found.get("at_least", 0) >= 1:
        raise ConfigError(f"{where} at_least has to be a share below 1, not {found['at_least']}: 0.121 means 12.1 %")
    return found


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} has to be a table, true or false, not {value!r}")
    return value


def _value(value: Any, default: Any, where: str) -> Any:
    """``value`` where it is of the kind of ``default``; whole numbers are numbers."""
    kind = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, kind) or (isinstance(value, bool) and not isinstance(default, bool)):
        words = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
        raise ConfigError(f"{where} has to be {words[type(default)]}, not {value!r}")
    if isinstance(value, (int, float)) and not 0 <= value < math.inf:  # nothing is larger than NaN
        raise ConfigError(f"{where} has to be a number of 0 or more, not {value}")
    return value


def _known(table: Iterable[str], names: Iterable[str], where: str) -> None:
    known = list(names)
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known) or 'none'}"
            raise ConfigError(f"{where} has {name!r}, which is not known; {hint}")


def _expanded(names: Iterable[str]) -> Tuple[str, ...]:
    """Checks of these names and groups, in the order of the catalogue."""
    wanted = list(names)
    _known(wanted, [*GROUPS, *BY_NAME], "the choice of checks")
    return tuple(check.name for check in CHECKS if check.name in wanted or check.group in wanted)
