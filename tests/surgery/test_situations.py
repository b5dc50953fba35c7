"""What users have set in torch, done to a generator, or put in the place of its parts."""

from __future__ import annotations

import contextlib
import copy
import inspect
import threading
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List

import pytest
import torch

import squeeze_patch
from squeeze_patch import fused_convolution
from squeeze_patch.demo import trained_generator
from squeeze_patch.evaluation.measure import measure
from squeeze_patch.progress import one_thread, own_settings
from squeeze_patch.recovery.distillation import run as recover
from squeeze_patch.recovery.session import Budget
from squeeze_patch.recovery.settings import Settings
from squeeze_patch.testing import float_error, trained
from tests.helpers import same, tensors
from tests.hosts import Host
from tests.hosts.flat import FlatHost

Change = Callable[[Any], None]


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def coarse_products() -> Iterator[None]:
    """bfloat16 on CPUs that can."""
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def default_device() -> ContextManager[Any]:
    device: Any = torch.device("meta")
    if not hasattr(device, "__enter__"):
        pytest.skip("torch has had a default device since 2.0")
    return device  # type: ignore[no-any-return]


SETTINGS: Dict[str, Callable[[], ContextManager[Any]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": default_device,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": deterministic,
    "coarse products": coarse_products,
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("init", ["calibrated", "weights", "random"])
def test_settings_change_no_start(name: str, init: str, draggan: Host) -> None:
    """The same bits as without; and the settings are afterwards what they were."""
    found = []
    for setting in (contextlib.nullcontext, SETTINGS[name]):
        torch.manual_seed(0)
        G = trained(draggan.generator())
        torch.manual_seed(1)
        with setting():
            before = (torch.get_default_dtype(), torch.empty(0).device, torch.is_grad_enabled())
            squeeze_patch.apply(G, ratio=2, init=init)
            assert (torch.get_default_dtype(), torch.empty(0).device, torch.is_grad_enabled()) == before
        found.append(tensors(G))
    assert same(*found)


SHORT = Settings(steps=1, batch=2, held_out=8)
FIGURES: Dict[str, Callable[[Any, Any], Any]] = {
    "compare": lambda G, dense: squeeze_patch.compare(dense, G, samples=4),
    "recover": lambda G, dense: recover(G, dense, SHORT, Budget()).psnr_before,
    "measure": lambda G, dense: measure(dense, G, repeats=2, fuse=True).fused.difference,  # type: ignore[union-attr]
}
#: those that change numbers of torch's own making
STRONG = ("float64", "default device", "autocast", "coarse products")


@pytest.mark.parametrize("what", FIGURES)
def test_settings_change_no_figure(what: str) -> None:
    dense = trained_generator()
    G = squeeze_patch.apply(trained_generator(), ratio=2, init="weights", keep_original=False)
    figures = []
    for setting in (contextlib.nullcontext, *(SETTINGS[name] for name in STRONG)):
        student = copy.deepcopy(G)
        with setting():
            figures.append(FIGURES[what](student, dense))
    assert figures == figures[:1] * len(figures)


@pytest.mark.parametrize("name", STRONG)
def test_settings_weaken_no_proof_of_fuse(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under autocast nothing runs fused, so that any layer would make the same images there."""
    G = squeeze_patch.apply(trained_generator(), ratio=2, init="weights", keep_original=False)
    monkeypatch.setattr(
        fused_convolution, "_with_ones", lambda x, channels: torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
    )
    with SETTINGS[name](), pytest.raises(squeeze_patch.ProofError, match="images .* are off by"):
        squeeze_patch.fuse(G)


def test_blocks_that_overlap_give_the_default_dtype_back() -> None:
    """As those of two threads do; a third one is inside of the second."""
    first, second = own_settings(), own_settings()
    with default_dtype(torch.float64):
        first.__enter__()
        second.__enter__()
        with own_settings():
            first.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float32
        second.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float64


def test_blocks_of_one_thread_that_overlap_give_the_number_back() -> None:
    """In two Python threads, the second of which begins within the first's block and ends after it."""
    began, over = threading.Event(), threading.Event()

    def second() -> None:
        with one_thread():
            began.set()
            over.wait(60)

    other = threading.Thread(target=second)
    torch.set_num_threads(3)
    try:
        with one_thread():
            other.start()
            began.wait(60)
            with one_thread():
                pass
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        over.set()
        other.join()
        found: List[int] = []
        new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        new.start()
        new.join()
        assert found == [3]
    finally:
        over.set()
        torch.set_num_threads(1)


def test_what_was_made_in_inference_mode_is_not_trained() -> None:
    with torch.inference_mode():
        G = squeeze_patch.apply(trained_generator(), ratio=2, init="weights")
    with pytest.raises(squeeze_patch.StateError, match=r"const .*made in inference mode.* copy.deepcopy\(G\)"):
        recover(G, trained_generator(), SHORT, Budget())
    assert recover(copy.deepcopy(G), trained_generator(), SHORT, Budget()).steps == 1


def test_checks_of_gradients_in_inference_mode() -> None:
    with torch.inference_mode():
        report = squeeze_patch.check(
            lambda: squeeze_patch.apply(trained_generator(), ratio=2, init="weights"), only=["gradients"]
        )
    assert report.holds, str(report)


def frozen_as_buffers(path: str) -> Change:
    def change(G: Any) -> None:
        for module in G.get_submodule(path).modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    del module._parameters[name]
                    module.register_buffer(name, parameter.detach())

    return change


class Around(torch.nn.Module):
    """A wrapper of the user's."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class Repeat(torch.nn.Module):
    """A mapping network without parameters."""

    def forward(self, z: torch.Tensor, c: torch.Tensor, **_: Any) -> torch.Tensor:
        return z[:, None].repeat(1, 8, 1)


class Traceable(Around):
    def forward(self, z: torch.Tensor, c: torch.Tensor) -> Any:
        return self.inner(z, c)


def traced(G: Any) -> None:
    example = (torch.randn(1, 32), torch.zeros(1, 0))
    mapping = torch.jit.trace(Traceable(G.mapping.eval()), example, check_trace=False)
    G.mapping = Repeat()
    G.mapping.forward = lambda z, c, **_: mapping(z, c)


PARTS: Dict[str, Change] = {
    "mapping of buffers": frozen_as_buffers("mapping"),
    "constant of buffers": frozen_as_buffers("synthesis.b4"),
    "conv1 of buffers": frozen_as_buffers("synthesis.b16.conv1"),
    "toRGB of buffers": frozen_as_buffers("synthesis.b16.torgb"),
    "conv0 of buffers": frozen_as_buffers("synthesis.b16.conv0"),
    "everything of buffers": frozen_as_buffers(""),
    "mapping in a wrapper": lambda G: setattr(G, "mapping", Around(G.mapping)),
    "mapping without parameters": lambda G: setattr(G, "mapping", Repeat()),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_another_kind(name: str, draggan: Host) -> None:
    G = trained(draggan.generator())
    PARTS[name](G)
    z, c = draggan.latents(G)
    dense = G(z, c, noise_mode="const")
    with squeeze_patch.squeezed(G, ratio=1):
        assert (G(z, c, noise_mode="const") - dense).abs().max() <= float_error(G, dense)
        if name == "conv1 of buffers":
            assert not G.synthesis.b16.conv1.weight.requires_grad
    assert torch.equal(G(z, c, noise_mode="const"), dense)


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # of torch, deprecated in one release, to go in another
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_mapping(draggan: Host) -> None:
    G = trained(draggan.generator())
    z, c = draggan.latents(G)
    dense = draggan.images(G, z, c)
    traced(G)
    squeeze_patch.apply(G, ratio=1)
    assert (G(z, c, noise_mode="const") - dense).abs().max() <= float_error(G, dense)


@pytest.mark.filterwarnings("ignore:FSDP is switching")
def test_sharded_generators(rosinality: FlatHost, tmp_path: Path) -> None:
    """FSDP has recorded the parameters as DistributedDataParallel has, and looks like the generator that it holds."""
    fsdp: Any = pytest.importorskip("torch.distributed.fsdp").FullyShardedDataParallel
    if int(torch.__version__.split(".")[0]) < 2 or "use_orig_params" not in inspect.signature(fsdp).parameters:
        pytest.skip("FSDP is for GPUs here")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        G = fsdp(trained(rosinality.generator()), device_id=torch.device("cpu"), use_orig_params=True)
        for each, where in ((G, "the object"), (torch.nn.Sequential(G), "Sequential.0")):
            with pytest.raises(squeeze_patch.UnsupportedModelError, match=f"^{where} is wrapped in FullyShardedData"):
                squeeze_patch.apply(each, ratio=2, init="weights")
        assert squeeze_patch.status(G).state == "dense"
    finally:
        torch.distributed.destroy_process_group()


LAYERS = ("conv0", "conv1", "torgb", "conv0.affine", "conv1.affine", "torgb.affine")


@pytest.mark.parametrize("layer", LAYERS)
def test_wrapped_layers_are_refused_by_name(layer: str, draggan: Host) -> None:
    G = trained(draggan.generator())
    parent, _, leaf = f"synthesis.b16.{layer}".rpartition(".")
    holder = G.get_submodule(parent)
    setattr(holder, leaf, Around(getattr(holder, leaf)))
    words = rf"b16.{layer.partition('.')[0]} \(.*\) has no .*weight.*an adapter, as LoRA"
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=words):
        squeeze_patch.apply(G, ratio=1.5)


def test_mappings_that_make_no_styles(draggan: Host) -> None:
    for mapping, words in (
        (torch.nn.Identity(), r"\(Identity\) does not run on latents \[n, 32\] and classes \[n, 0\]: TypeError"),
        (None, "no mapping network beside its synthesis network"),
    ):
        G = trained(draggan.generator())
        G.mapping = mapping
        with pytest.raises(squeeze_patch.UnsupportedModelError, match=words):
            squeeze_patch.apply(G, ratio=1.5)
        assert squeeze_patch.status(G).state == "dense"


@pytest.mark.parametrize("init", ["calibrated", "weights"])
def test_there_is_no_trained_start_on_meta(init: str, draggan: Host) -> None:
    G = draggan.generator().to("meta")
    with pytest.raises(squeeze_patch.SqueezeError, match="is on the meta device, without values"):
        squeeze_patch.apply(G, init=init)
