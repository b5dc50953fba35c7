"""python -m squeeze_patch.cli"""

from squeeze_patch.cli import main

main()
