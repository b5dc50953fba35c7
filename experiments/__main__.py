"""python -m experiments [NAME [OPTIONS]]"""

from __future__ import annotations

from benchmarks.menu import Entry, Menu

TEXT = """Studies of the method: what else was tried, and why the library does what it does.

Each line: the command, how long it takes on two cores, what it measures, and [the section of experiments/README.md
with its figures]. `python -m experiments NAME --help` lists its options.
"""

ENTRIES = {
    "ablation": Entry(
        "5 hours at --kimg 100", "trainings from scratch of other readings", "Other readings of the connection"
    ),
    "selection": Entry("2 minutes", "PSNR of the start by the algorithm that chooses channels", "Which channels stay"),
}

main = Menu("experiments", ENTRIES, TEXT)

if __name__ == "__main__":
    main(prog_name="python -m experiments")
