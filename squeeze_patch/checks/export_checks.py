"""Whether what a repository exports is still what its generator is."""

from __future__ import annotations

import importlib
import tempfile
import warnings
from pathlib import Path
from typing import Any, Dict, Mapping, Sequence

import torch

from squeeze_patch.checks.answers import Answer, Context, holds, short
from squeeze_patch.checks.fixed_inputs import fixed_latents
from squeeze_patch.checks.subjects import Subject
from squeeze_patch.errors import ConfigError, MissingPackageError
from squeeze_patch.sampling import draw, evaluation


class Images(torch.nn.Module):
    """z [N, z_dim], c [N, c_dim] -> images with the stored noise: tensors in, one tensor out, as exporters want it."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.G = subject.root
        self.sampler = subject.found.sampler()

    def forward(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return draw(self.sampler, z, c)


def onnx(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """The repository's ONNX file, or one made now, run by onnxruntime."""
    runtime = _package("onnxruntime")
    z, c = fixed_latents(subject.found.sampler(), 1)
    module = Images(subject).eval()
    with evaluation(subject.root), tempfile.TemporaryDirectory(prefix="squeeze_patch_") as folder:
        expected = module(z, c).cpu()
        path = context.config.folder / settings["file"] if settings["file"] else _exported(module, z, c, folder)
        if not path.is_file():
            raise ConfigError(f"[checks] onnx file: there is no {path}")
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        feed = fed([one.name for one in session.get_inputs()], {"z": z.numpy(), "c": c.numpy()})
        got = torch.from_numpy(session.run(None, feed)[0]).float()
    return _judged(subject, context, expected, got, "onnxruntime's", place=settings["file"])


def fed(names: Sequence[str], given: Mapping[str, Any]) -> Dict[str, Any]:
    """What the inputs ``names`` of an ONNX file get of z and c, in ``given``: by name, and those that are called
    otherwise what is left, z first.

    Raises:
        ConfigError: there are more inputs than that.
    """
    if len(names) > len(given):
        raise ConfigError(
            f"[checks] onnx file: it has the inputs {', '.join(names)}, and no more than latents and classes are known "
            "here; export the generator with these alone"
        )
    left = iter([name for name in given if name not in names])
    return {name: given[name if name in given else next(left)] for name in names}


def compiled(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """torch.compile with the backend of the settings."""
    if not hasattr(torch, "compile"):
        raise MissingPackageError(f"a compiled generator needs torch 2.0 or newer, not {torch.__version__}")
    z, c = fixed_latents(subject.found.sampler(), 1)
    module = Images(subject).eval()
    with evaluation(subject.root), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = module(z, c).cpu()
        torch._dynamo.reset()
        backend = _Counting(settings["backend"])
        got = torch.compile(module, backend=backend)(z, c).cpu()
    if not backend.graphs:
        return Answer(
            "unknown",
            "torch.compile compiled nothing, and ran the generator as it is",
            cure="it is switched off, by TORCH_COMPILE_DISABLE, TORCHDYNAMO_DISABLE or torch.compiler.set_stance: run "
            "the check without that",
        )
    return _judged(subject, context, expected, got, "the compiled generator's")


class _Counting:
    """A backend of torch.compile that knows how often it was asked."""

    def __init__(self, name: str) -> None:
        self._backend = torch._dynamo.lookup_backend(name)
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return self._backend(graph, inputs)


def _judged(
    subject: Subject, context: Context, expected: torch.Tensor, got: torch.Tensor, whose: str, place: str = ""
) -> Answer:
    limit = context.tolerance(subject, 0.0) * float(expected.abs().max())
    apart = float((expected - got).abs().max()) if expected.shape == got.shape else float("inf")
    figures = {"largest_difference": apart, "limit": limit}
    if not apart <= limit:
        return short(
            f"{whose} images differ by {apart:.2g}",
            wanted=f"{limit:.1g} at most, which is float error",
            place=place,
            cure="export it anew",
            figures=figures,
        )
    return holds(f"{whose} images differ by {apart:.1g} at most", figures=figures)


def _exported(module: torch.nn.Module, z: torch.Tensor, c: torch.Tensor, folder: str) -> Path:
    path = Path(folder) / "generator.onnx"
    _package("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(module, (z, c), str(path), input_names=["z", "c"], output_names=["images"])
    return path


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(f"the check of an ONNX file needs {name}: pip install {name}") from error
