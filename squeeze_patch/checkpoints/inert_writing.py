"""Inert values written back as what they were read from."""

from __future__ import annotations

import pickle
from typing import IO, Any, Callable, ClassVar, Dict, Optional

from squeeze_patch.adapters.records import Global, Inert, InertDict, Record
from squeeze_patch.checkpoints.inert_values import Known

_InPython: Any = pickle._Pickler


class InertPickler(_InPython):  # type: ignore[misc]
    """Writes inert values as what they were read from."""

    dispatch: ClassVar[Dict[Any, Callable[..., None]]] = dict(_InPython.dispatch)

    def save(self, obj: Any, *options: Any, **named: Any) -> None:
        origin = _name(obj)
        if origin is not None:
            super().save(origin) if self.memo.get(id(origin)) else self._save_inert(origin)
            return
        if isinstance(obj, (Global, Inert, InertDict)) and self.memo.get(id(obj)) is None:
            self._save_inert(obj)
            return
        super().save(obj, *options, **named)

    def _save_inert(self, obj: Any) -> None:
        if isinstance(obj, Global):
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
            self.memoize(obj)
        elif isinstance(obj, Record):
            self.save(obj.rebuild)
            self.save((obj.meta,))
            if id(obj) in self.memo:  # it is in its own argument
                raise RecursionError("an object that holds itself")
            self.write(pickle.REDUCE)
            self.memoize(obj)
        else:
            self.save(type(obj).origin)
            self.save(())
            self.write(pickle.NEWOBJ)
            self.memoize(obj)
            if isinstance(obj, InertDict):
                self._batch_setitems(obj.items())
            if vars(obj):
                self.save(vars(obj))
                self.write(pickle.BUILD)


def _name(obj: Any) -> Optional[Global]:
    """What a file calls a function or a class that was read, None where it is neither."""
    if isinstance(obj, Known):
        return obj.origin
    is_inert = isinstance(obj, type) and issubclass(obj, (Inert, InertDict)) and "origin" in vars(obj)
    return obj.origin if is_inert else None


def dump(data: Any, stream: IO[bytes], protocol: int) -> None:
    """Write what `load` returned."""
    InertPickler(stream, protocol).dump(data)
