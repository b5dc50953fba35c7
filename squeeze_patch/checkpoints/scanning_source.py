"""Source text that a file brings, judged by its syntax tree; it is neither compiled nor run.

What is unusual for the source of a network is told by names: a text can hide what it does from that, and a text that
hides nothing can do harm with usual names. So "nothing unusual" is no promise.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Optional, Set, Union

from squeeze_patch.adapters import pickle_families
from squeeze_patch.checkpoints.scanning_findings import RUNS_CODE, UNKNOWN, words
from squeeze_patch.checkpoints.scanning_names import runs_code

#: characters of a text that is parsed, and of one that is looked at for being source
LONGEST, SHORTEST = 1 << 20, 80
_KEYWORDS = re.compile(rb"\b(import|from|def|class|return|lambda|for|while|if|exec|eval|with|try)\b")
_USUAL_IMPORTS = words(
    """
    torch numpy scipy math cmath copy re warnings typing typing_extensions collections functools itertools
    dataclasses enum abc numbers random contextlib __future__ PIL einops logging time string operator textwrap
    """
)
_DECODING = frozenset({"base64", "binascii", "zlib", "bz2", "lzma", "gzip", "codecs", "types", "builtins", "ast", "io"})
_RUNNING_BUILTINS = words(
    """
    eval exec compile __import__ globals __builtins__ __loader__ __spec__
    """
)
#: builtins whose names are used for other things, too
_RUNNING_CALLS = frozenset({"locals", "vars", "input", "breakpoint"})
#: attributes that lead from anything to everything, or from a module to another one
_TELLING = words(
    """
    system popen __globals__ __builtins__ __subclasses__ __code__ __import__ __getattribute__ __mro__ __bases__
    __loader__ __spec__ f_globals f_builtins tb_frame gi_frame os sys subprocess builtins importlib
    """
)
#: harmless where source uses them, other than in a pickle, or than others in their modules
_HARMLESS = words(
    """
    operator functools torch.jit torch.testing torch.compile torch.distributed.is_initialized
    torch.distributed.is_available torch.distributed.get_rank torch.distributed.get_world_size
    torch.distributed.broadcast torch.distributed.all_gather torch.distributed.all_reduce
    """
)
_WRITING = re.compile("[wax+]")
_TOP_LEVEL = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Pass)


@dataclass(frozen=True)
class Oddity:
    """Something in source that networks do not need: how bad, what, and on which line."""

    level: str
    what: str
    line: int


@dataclass
class _Judge:
    found: List[Oddity] = field(default_factory=list)
    #: {name in the text: module, or name in a module, that it stands for}
    imported: Dict[str, str] = field(default_factory=dict)

    def add(self, level: str, what: str, node: ast.AST) -> None:
        self.found.append(Oddity(level, what, getattr(node, "lineno", 0)))


def judge_source(text: str, own: str = "") -> Optional[List[Oddity]]:
    """What in a module's text is unusual for a network's; None where it is no Python that can be parsed.

    Args:
        own: text that squeeze_patch adds to the files that it writes. Where whole statements of ``text`` are just
            these, they are not judged.
    """
    tree = _parsed(text)
    if tree is None:
        return None
    judge, nodes = _Judge(), list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            _judge_import(judge, node)
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        _judge_node(judge, node, id(node) in inner)
    for statement in _run_on_loading(tree.body):
        if not _is_usual_statement(judge, statement):
            judge.add(UNKNOWN, f"{_kind(statement)} at the top", statement)
    ours = _lines_of(own, text, tree)
    return sorted(
        {each for each in judge.found if each.line not in ours}, key=lambda oddity: (oddity.line, oddity.what)
    )


def reads_like_source(raw: memoryview) -> bool:
    """Whether a text has several of Python's keywords; parsing it has to tell more."""
    if not SHORTEST <= len(raw) <= LONGEST:
        return False
    seen: Set[bytes] = set()
    for match in _KEYWORDS.finditer(raw):
        seen.add(match[0])
        if len(seen) >= 3:
            return True
    return False


def _parsed(text: str) -> Optional[ast.Module]:
    if len(text) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the text has, which is not ours
            return ast.parse(text.lstrip("\ufeff"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _lines_of(own: str, text: str, tree: ast.Module) -> range:
    """The lines in which the statements at the top of a text are just those of ``own``."""
    at = text.find(own) if own else -1
    expected = _parsed(own) if at >= 0 else None
    if expected is None:
        return range(0)
    first = text.count("\n", 0, at)
    lines = range(first + 1, first + 1 + len(own.splitlines()))
    inside = [node for node in tree.body if node.lineno in lines]
    same = len(inside) == len(expected.body) and all(node.end_lineno in lines for node in inside)
    if not same or any(type(a) is not type(b) for a, b in zip(inside, expected.body)):
        return range(0)
    ends = [(a.lineno - first, a.end_lineno or 0) for a in inside]
    return lines if ends == [(b.lineno, (b.end_lineno or 0) + first) for b in expected.body] else range(0)


def _judge_import(judge: _Judge, node: Union[ast.Import, ast.ImportFrom]) -> None:
    base = "" if isinstance(node, ast.Import) else f"{'.' * node.level}{node.module or ''}"
    for alias in node.names:
        path = f"{base}.{alias.name}" if base else alias.name
        if base or alias.asname:
            judge.imported[alias.asname or alias.name] = path
        else:
            judge.imported[alias.name.split(".")[0]] = alias.name.split(".")[0]
        root = path.split(".")[0]
        if _is_running(path) or root in _DECODING:
            judge.add(RUNS_CODE, f"imports {path}", node)
        elif alias.name == "*":
            judge.add(UNKNOWN, f"imports all of {base}", node)
        elif not (root in _USUAL_IMPORTS or any(role.imports_usually(path) for role in pickle_families())):
            judge.add(UNKNOWN, f"imports {path}", node)


def _is_running(path: str) -> bool:
    """Whether a dotted path of a module and what is in it is known to run code, or leads to what does."""
    if any(path == name or path.startswith(f"{name}.") for name in _HARMLESS):
        return False
    module, _, name = path.partition(".")
    return runs_code(module, name)


def _runs_arguments(path: str) -> bool:
    """Whether it is a function of a host's that does."""
    module, _, name = path.rpartition(".")
    return any(role.judge(module, name) is False for role in pickle_families())


def _judge_node(judge: _Judge, node: ast.AST, inner: bool) -> None:
    if isinstance(node, ast.Name) and node.id in _RUNNING_BUILTINS:
        judge.add(RUNS_CODE, f"uses {node.id}", node)
    elif isinstance(node, ast.Attribute):
        path = "" if inner else _path(judge, node)  # of a chain the longest
        if node.attr in _TELLING or (path and _is_running(path)):
            judge.add(RUNS_CODE, f"uses {path or f'something of the name {node.attr}'}", node)
        elif path and _runs_arguments(path):
            judge.add(UNKNOWN, f"uses {path}, which runs what its arguments say", node)
        if isinstance(node.ctx, (ast.Store, ast.Del)) and path:
            judge.add(UNKNOWN, f"changes {path}", node)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        _judge_call(judge, node, node.func.id)


def _judge_call(judge: _Judge, node: ast.Call, name: str) -> None:
    if name in _RUNNING_CALLS:
        judge.add(RUNS_CODE, f"calls {name}", node)
    if name == "open":
        mode = node.args[1] if len(node.args) > 1 else next((k.value for k in node.keywords if k.arg == "mode"), None)
        reads = mode is None or (isinstance(mode, ast.Constant) and not _WRITING.search(str(mode.value)))
        judge.add(UNKNOWN if reads else RUNS_CODE, "opens a file" if reads else "opens a file for writing", node)
    if name in ("getattr", "setattr", "delattr") and len(node.args) > 1:
        path, key = _path(judge, node.args[0]), node.args[1]
        word = str(key.value) if isinstance(key, ast.Constant) else ""
        if path and not isinstance(key, ast.Constant):
            judge.add(RUNS_CODE, f"{name} of {path} with a computed name", node)
        elif word in _TELLING or (path and _is_running(f"{path}.{word}")):
            judge.add(RUNS_CODE, f"{name} of {path or 'something'} named {word}", node)


def _path(judge: _Judge, node: ast.AST) -> str:
    """What a chain of attributes of something imported is, as module and name; "" of anything else."""
    attributes: List[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    if not (isinstance(node, ast.Name) and node.id in judge.imported):
        return ""
    return ".".join([judge.imported[node.id], *reversed(attributes)])


def _run_on_loading(body: List[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is loaded: at the top, in classes, and inside if and try."""
    waiting = list(body)
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, (ast.If, ast.Try)):
            waiting.extend([*statement.body, *statement.orelse, *getattr(statement, "finalbody", ())])
            waiting.extend(inner for handler in getattr(statement, "handlers", ()) for inner in handler.body)
            continue
        yield statement
        if isinstance(statement, ast.ClassDef):
            waiting.extend(statement.body)


def _is_usual_statement(judge: _Judge, statement: ast.stmt) -> bool:
    if isinstance(statement, _TOP_LEVEL):
        return True
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)):
        return isinstance(statement, ast.Raise)
    calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return all(_path(judge, call.func) or isinstance(call.func, ast.Name) for call in calls)


def _kind(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return "a call"
    return f"a statement ({type(statement).__name__})"
