"""Is another reading of the connection better? Each of them trained from scratch, beside dense and squeezed.

    python -m experiments ablation --out FOLDER --host ada --kimg 100
    python -m experiments ablation --out FOLDER --host ada --variants "dense,squeezed,excite activated"

As `python -m benchmarks quality`: networks and loss of a host, resumable, every variant on the same images.
"""

from __future__ import annotations

from benchmarks.quality import training_command
from benchmarks.variants import VARIANTS
from experiments.readings import READINGS

KNOWN = {**VARIANTS, **READINGS}
main = training_command(__name__, ["dense", "squeezed", *READINGS], "ablation")
