"""The command squeeze-patch, which ``python -m squeeze_patch`` is, too. It begins here, without torch, whose import
takes seconds: Ctrl-C ends it from then on as it does later."""

import importlib
import sys
from typing import NoReturn

#: what click ends with at Ctrl-C
ABORTED = 1


def main() -> NoReturn:
    """Import the command line and run it."""
    try:
        command = importlib.import_module("squeeze_patch.cli").main
    except KeyboardInterrupt:
        print("\nAborted!", file=sys.stderr)
        sys.exit(ABORTED)
    command(prog_name="squeeze-patch")
    raise AssertionError("click leaves by SystemExit")


if __name__ == "__main__":
    main()
