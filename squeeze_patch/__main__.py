"""``python -m squeeze_patch`` is the command squeeze-patch."""

from squeeze_patch.cli import main

main(prog_name="squeeze-patch")
