"""Which trainings: data set, host, the host's own configuration and length, dense and squeezed.

The paper names its data sets (CIFAR-10, FFHQ, LSUN, AFHQ), resolutions and the two methods that it builds on. Lengths,
configurations and categories are the hosts' published ones for these data sets: its own were not available to us.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, List, Tuple

#: the hosts' own metrics: FID, KID, precision and recall, inception score, on 50,000 generated images
METRICS = ("fid50k_full", "kid50k_full", "pr50k3_full", "is50k")
#: {resolution: the share of the parameters that ratio 4 saves}, in the hosts' configurations
SAVED_AT_4 = {32: 0.384, 256: 0.336, 512: 0.338}
#: {variant: what stands in front of the host's train.py, `saved` to be filled in}; dense by the same word, because
#: hosts of 2020 stop on a current torch; squeezed by the paper's share; ratio4 is what was better than dense in our
#: own, small trainings; narrowed ones are plain generators of as many parameters, which anybody would try first
VARIANTS = {
    "dense": ("--dense",),
    "squeezed": ("--reduction=0.121",),
    "narrowed": ("--method=narrow", "--reduction=0.121"),
    "ratio4": ("--ratio=4",),
    "narrowed4": ("--method=narrow", "--reduction={saved}"),
}
#: {--variant: those that it trains}
CHOICES = {**{variant: (variant,) for variant in VARIANTS}, "both": ("dense", "squeezed"), "all": tuple(VARIANTS)}


@dataclass(frozen=True)
class Experiment:
    """One training.

    Attributes:
        name: data set, host.
        host: the repository to be checked out.
        resolution: height and width of the images.
        kimg: length, thousands of real images shown to the discriminator.
        gpus: how many the host's configuration is meant for.
        options: of the host's train.py, beside those that every training has.
        data: how the host's dataset_tool.py makes the data set; GGDR has none of its own, use the other host's.
    """

    name: str
    host: str
    resolution: int
    kimg: int
    gpus: int
    options: Tuple[str, ...]
    data: str

    def words(self, variant: str) -> List[str]:
        """In front of the host's train.py."""
        return [word.format(saved=SAVED_AT_4[self.resolution]) for word in VARIANTS[variant]]


ADA, GGDR = "NVlabs/stylegan2-ada-pytorch", "naver-ai/GGDR"
_TOOL = "dataset_tool.py --source={} --dest={}.zip"
_PAPER256, _PAPER512 = ("--cfg=paper256",), ("--cfg=paper512", "--mirror=1")
_RESIZED = " --width=256 --height=256"
_BASES = (
    Experiment("cifar10", ADA, 32, 100_000, 2, ("--cfg=cifar",), _TOOL.format("cifar-10-python.tar.gz", "cifar10")),
    Experiment(
        *("ffhq256", ADA, 256, 25_000, 8, (*_PAPER256, "--mirror=1")),
        data=_TOOL.format("ffhq/tfrecords", "ffhq256") + _RESIZED,
    ),
    Experiment(
        *("lsuncat256", ADA, 256, 25_000, 8, _PAPER256),
        data=_TOOL.format("cat_lmdb", "lsuncat256") + f" --transform=center-crop{_RESIZED} --max_images=200000",
    ),
    *(
        Experiment(
            *(f"afhq{kind}", ADA, 512, 25_000, 8, _PAPER512), data=_TOOL.format(f"afhq/train/{kind}", f"afhq{kind}")
        )
        for kind in ("cat", "dog", "wild")
    ),
)


def _ggdr(base: Experiment) -> Experiment:
    """GGDR reads the generator's features at 64x64, of CIFAR-10 at a quarter of the resolution (its README)."""
    features = 64 if base.resolution > 64 else base.resolution // 4
    options = (*base.options, "--reg_type=ggdr", f"--ggdr_res={features}")
    return replace(base, name=f"{base.name}-ggdr", host=GGDR, options=options)


EXPERIMENTS: Dict[str, Experiment] = {
    experiment.name: experiment
    for base in _BASES
    for experiment in (replace(base, name=f"{base.name}-ada"), _ggdr(base))
}
