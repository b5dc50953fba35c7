"""The files that a command reads: local ones, and those behind addresses."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

import click

from squeeze_patch.checkpoints.addresses import is_url, redacted
from squeeze_patch.checkpoints.checksums import check_sum, is_sha256, sha256_of
from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.cli.errors import printable
from squeeze_patch.cli.output import progress_bar


@dataclass(frozen=True)
class Sources:
    """How a command's files are had.

    Attributes:
        sums: SHA-256 of the first files, in the order in which the command takes them.
        cached: whether downloads are kept, and found again.
    """

    sums: Tuple[str, ...] = ()
    cached: bool = True

    def local(self, *sources: Optional[str], quiet: bool = False) -> List[Path]:
        """The files behind paths and addresses, checked where a sum is given; None is left out.

        Raises:
            CheckpointError: an address cannot be read, or a file is not the one whose sum is given.
        """
        names = [source for source in sources if source is not None]
        if len(self.sums) > len(names):
            raise click.UsageError(f"{len(self.sums)} --sha256 for {len(names)} files")
        wanted = [*self.sums, *[None] * len(names)]
        return [self._local(name, one, quiet) for name, one in zip(names, wanted)]

    def _local(self, source: str, sha256: Optional[str], quiet: bool) -> Path:
        if not is_url(source):
            path = Path(source)
            if sha256 is not None and path.is_file():
                check_sum(sha256_of(path), sha256, source)
            return path
        folder = None
        if not self.cached:
            passing = tempfile.TemporaryDirectory(prefix="squeeze_patch_")
            folder = Path(click.get_current_context().with_resource(passing))
        with progress_bar(f"downloading {printable(redacted(source))}", unit=1_000_000, quiet=quiet) as step:
            return fetch(source, lambda done, total: step("", done, total), sha256=sha256, folder=folder)


def sums(context: click.Context, parameter: click.Parameter, values: Tuple[str, ...]) -> Tuple[str, ...]:
    """The values of --sha256."""
    for value in values:
        if not is_sha256(value):
            raise click.BadParameter(f"{value} is no SHA-256: it has 64 hexadecimal digits, as sha256sum prints them")
    return values
