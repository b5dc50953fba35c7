"""Options that the TensorFlow StyleGAN2's networks were made with: which can be, and whether variables agree."""

from __future__ import annotations

import math
from typing import Any, Dict, Mapping, Tuple

from squeeze_patch.adapters.records import is_plain
from squeeze_patch.errors import UnsupportedModelError, shown

#: options of how it is trained and called, and of how wide layers are, which shapes say
_FREE = frozenset(
    [
        "augment_strength",
        "dlatent_avg_beta",
        "dlatent_broadcast",
        "dtype",
        "fmap_base",
        "fmap_decay",
        "fmap_max",
        "fmap_min",
        "force_clean_graph",
        "freeze_layers",
        "fused_modconv",
        "is_template_graph",
        "is_training",
        "is_validation",
        "num_fp16_res",
        "pagan_fade",
        "pagan_num",
        "randomize_noise",
        "return_dlatents",
        "structure",
        "style_mixing_prob",
        "truncation_cutoff",
        "truncation_cutoff_val",
        "truncation_psi",
        "truncation_psi_val",
        "w_avg_beta",
    ]
)
#: options that are read where they matter
_READ = frozenset({"conv_clamp", "mapping_lrmul", "mbstd_group_size"})
#: {option: values that a StyleGAN2 of the PyTorch hosts can have}
_ALLOWED: Dict[str, Tuple[Any, ...]] = {
    "nonlinearity": ("lrelu",),
    "mapping_nonlinearity": ("lrelu",),
    "normalize_latents": (True,),
    "resample_kernel": ([1, 3, 3, 1], (1, 3, 3, 1)),
    "fmap_const": (None,),
    "mapping_func": ("G_mapping",),
    "synthesis_func": ("G_synthesis", "G_synthesis_stylegan2"),
    "use_noise": (True, False),
    "use_pagan": (False,),
    "use_spectral_norm": (False,),
    "adaptive_dropout": (0,),
    "score_size": (1,),
    "score_max": (1,),
}


def check_options(options: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
    """Options are known, and say what variables say.

    Args:
        options: {name: value, of any kind}.
        sizes: {option: what variables say of it, None where they say nothing}.

    Raises:
        ValueError: the two do not agree.
        UnsupportedModelError: one is not known, or has a value that no PyTorch host has.
    """
    for name, value in options.items():
        if name in _FREE or name in _READ:
            continue
        if name in sizes and is_plain(value):
            if value is not None and sizes[name] is not None and value != sizes[name]:
                raise ValueError(f"{name} is {shown(value)}, where its variables say {sizes[name]!r}")
        elif not (name in _ALLOWED and is_plain(value) and value in _ALLOWED[name]):
            raise UnsupportedModelError(
                f"it was made with {name[:40]} = {shown(value)}, which no StyleGAN2 of the PyTorch hosts knows"
            )


def number(options: Mapping[str, Any], name: str, usual: float) -> float:
    """A positive number among the options; ValueError where it is something else."""
    value = options.get(name, usual)
    if not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {shown(value)}")
    return float(value)
