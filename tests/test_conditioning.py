"""Labels: whatever squeeze_patch runs a conditional generator for sees those that were given; others are refused."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.conditioning import drawn_labels
from squeeze_patch.sampling import latents, sample
from squeeze_patch.testing import trained
from tests.helpers import SMALL
from tests.hosts import Host
from tests.hosts.flat import FlatHost

#: labels of three entries, alike as those of neighbouring cameras are, and unlike any class
ROWS = torch.tensor([[0.2, 3.0, -1.0], [0.4, 3.0, -1.0], [0.3, 3.1, -1.0]])


def drawn(n: int, c_dim: int) -> torch.Tensor:
    return drawn_labels(n, c_dim, torch.Generator().manual_seed(0))


def as_json(values: List[Any]) -> bytes:
    return json.dumps({"labels": [[f"{i}.png", value] for i, value in enumerate(values)]}).encode()


def in_folder(path: Path, values: List[Any]) -> Path:
    path.mkdir()
    (path / "dataset.json").write_bytes(as_json(values))
    return path


def in_zip(path: Path, values: List[Any]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dataset.json", as_json(values))
    return path


def in_json(path: Path, values: List[Any]) -> Path:
    path = path.with_suffix(".json")
    path.write_bytes(as_json(values))
    return path


def in_npy(path: Path, values: List[Any]) -> Path:
    path = path.with_suffix(".npy")
    np.save(path, np.array(values))
    return path


FORMS: Dict[str, Callable[[Path, List[Any]], Any]] = {
    "list": lambda _, values: values,
    "array": lambda _, values: np.array(values),
    "tensor": lambda _, values: torch.tensor(values),
    "folder": in_folder,
    "zip": in_zip,
    "json": in_json,
    "npy": in_npy,
    "a path as text": lambda path, values: str(in_npy(path, values)),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rows_and_classes_in_every_form(form: Callable[[Path, List[Any]], Any], tmp_path: Path) -> None:
    with squeeze_patch.labels(form(tmp_path / "rows", ROWS.tolist())):
        found = drawn(64, 3)
    assert found.dtype == torch.float32
    assert torch.equal(found.unique(dim=0), ROWS.unique(dim=0))
    with squeeze_patch.labels(form(tmp_path / "classes", [2, 0, 2, 2])):
        found = drawn(64, 4)
    assert found.unique(dim=0).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert found[:, 2].mean() > 0.5  # as often as there


def test_coarse_tensors() -> None:
    with squeeze_patch.labels(torch.tensor([[0.5, 3.0]], dtype=torch.bfloat16)):
        assert drawn(1, 2).tolist() == [[0.5, 3.0]]


def test_without_labels_every_class_is_as_frequent() -> None:
    with squeeze_patch.labels(None):
        found = drawn(4000, 4)
    assert torch.equal(found.sum(dim=1), torch.ones(4000))
    # a class of chance 1/4 is seen 1000 times, give or take five standard deviations of a binomial, 27 each
    assert (found.sum(dim=0) - 1000).abs().max() < 137
    assert drawn(3, 0).shape == (3, 0)


NO_LABELS: Dict[str, Any] = {
    "nothing": [],
    "text": ["a", "b"],
    "uneven rows": [[1.0], [1.0, 2.0]],
    "classes that are no whole numbers": [0.5, 1.0],
    "three dimensions": np.zeros([2, 2, 2]),
    "a number": np.float32(3),
    "not finite": [[0.0, float("nan")]],
    "below 0": [0, -1],
    "no numbers": [[None, 1.0]],
    "too large": [[0.0, 1e300]],
    "classes that are too large": np.array([2**63 + 5], dtype=np.uint64),
    "no numbers at hand": torch.zeros([2, 2], device="meta"),
}


@pytest.mark.parametrize("rows", NO_LABELS.values(), ids=NO_LABELS)
def test_what_is_no_labels_is_said(rows: Any) -> None:
    with pytest.raises(squeeze_patch.LabelsError), squeeze_patch.labels(rows):
        raise AssertionError("entered")


def test_files_without_labels_are_named(tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text('{"labels": null}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "pairs.json").write_text('{"labels": [1, 2]}')
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "objects.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((((")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("0.png", b"")
    with zipfile.ZipFile(tmp_path / "damaged.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dataset.json", as_json([*range(200)]))
    whole = (tmp_path / "damaged.zip").read_bytes()
    (tmp_path / "damaged.zip").write_bytes(whole[:60] + bytes(60) + whole[120:])
    (tmp_path / "folder").mkdir()
    places = [*sorted(tmp_path.iterdir()), tmp_path / "missing.npy", tmp_path / "missing"]
    assert len(places) == 11
    for place in places:
        with pytest.raises(squeeze_patch.LabelsError, match=place.name), squeeze_patch.labels(place):
            raise AssertionError(f"entered with {place}")


def test_labels_that_the_generator_does_not_take() -> None:
    for rows, c_dim in ((ROWS, 4), ([0, 4], 4), (ROWS, 0), ([0], 0)):
        with squeeze_patch.labels(rows), pytest.raises(squeeze_patch.LabelsError, match="the generator"):
            drawn(2, c_dim)


def test_blocks_nest_and_end_with_errors() -> None:
    with squeeze_patch.labels([1]):
        with pytest.raises(KeyError), squeeze_patch.labels(ROWS):
            raise KeyError
        assert drawn(1, 2).tolist() == [[0, 1]]
        with squeeze_patch.labels(None):
            assert len(drawn(64, 2).unique(dim=0)) == 2
    assert len(drawn(64, 2).unique(dim=0)) == 2


def test_a_start_goes_by_them(draggan: Host) -> None:
    """Its images with such labels are nearer to the dense ones than those of a start that saw classes."""
    dense = trained(draggan.generator(**SMALL, c_dim=3))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad(), squeeze_patch.labels(ROWS[:1]):
        z = torch.randn([4, dense.z_dim], generator=random)
        styles = locate(dense).sample_w(4, 0)
        assert torch.equal(styles, dense.mapping(z, ROWS[:1].expand(4, -1))[:, 0])

    def start(rows: Any) -> Any:
        with squeeze_patch.labels(rows):
            return squeeze_patch.apply(copy.deepcopy(dense), ratio=2)

    blind, seeing = start(None), start(ROWS)
    with squeeze_patch.labels(ROWS):
        wanted, *images = (sample(G, 512, 1, noise_mode="none") for G in (dense, blind, seeing))
    errors = [(found - wanted).square().mean(dim=(1, 2, 3)) for found in images]
    nearer = errors[0] - errors[1]  # of each of 512 images
    assert nearer.mean() > 5 * nearer.std() / 512**0.5  # five standard errors of their mean


def test_families_without_labels_refuse_them(rosinality: FlatHost, lucidrains: Any) -> None:
    for G in (rosinality.generator(resolution=8), lucidrains.generator(resolution=8)):
        with squeeze_patch.labels([0]):
            for run in (lambda G=G: squeeze_patch.apply(G), lambda G=G: squeeze_patch.compare(G, G, samples=2)):
                with pytest.raises(squeeze_patch.LabelsError, match="takes none"):
                    run()
        assert squeeze_patch.status(G).state == "dense"


def test_comparisons_and_conversions_say_which(draggan: Host, tmp_path: Path) -> None:
    G = trained(draggan.generator(**SMALL, c_dim=3))
    with squeeze_patch.labels(ROWS):
        found = squeeze_patch.compare(G, G, samples=4)
        assert found.setting.endswith("labels of the 3 given")
        assert torch.isin(latents(locate(G).sampler(), 8, 0)[1], ROWS).all()
    assert squeeze_patch.compare(G, G, samples=4).labels == "one of 3 classes an image, each as often"
    (tmp_path / "dense.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    for rows, words in ((ROWS, "of the 3 given"), (None, "one of 3 classes an image, each as often")):
        with squeeze_patch.labels(rows):
            done = convert(tmp_path / "dense.pkl", tmp_path / "out.pkl", ratio=2, init="weights", force=True)
        assert done.labels == words
    assert convert(tmp_path / "dense.pkl", tmp_path / "random.pkl", init="random").labels == ""


def test_a_recovery_goes_on_with_the_labels_that_it_began_with(draggan: Host, tmp_path: Path) -> None:
    dense = trained(draggan.generator(**SMALL, c_dim=3))
    student = squeeze_patch.apply(copy.deepcopy(dense), ratio=2, init="weights", keep_original=False)
    how: Dict[str, Any] = {"steps": 2, "batch": 2, "state": tmp_path / "state"}
    with squeeze_patch.labels(ROWS):
        squeeze_patch.recover(student, dense, **how)
    for rows in (None, ROWS[:2]):
        with squeeze_patch.labels(rows), pytest.raises(squeeze_patch.RecoveryError, match="labels '.*', now"):
            squeeze_patch.recover(student, dense, **how)
    with squeeze_patch.labels(ROWS.numpy().astype(np.float64)):
        assert squeeze_patch.recover(student, dense, **how).resumed_at == 2


class Scene(torch.nn.Module):
    """A renderer around a backbone, as EG3D's generator is one: it has a mapping of its own, which scales cameras."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.z_dim, self.c_dim, self.img_resolution = backbone.z_dim, backbone.c_dim, backbone.img_resolution
        self.rendering_kwargs = {"c_scale": 0.5}

    def mapping(self, z: torch.Tensor, c: torch.Tensor) -> Any:
        return self.backbone.mapping(z, c * self.rendering_kwargs["c_scale"])


def test_cameras_are_asked_for_and_scaled_as_the_generator_scales_them(draggan: Host) -> None:
    G = Scene(trained(draggan.generator(**SMALL, c_dim=3))).train()
    before = copy.deepcopy(G.state_dict())
    with torch.no_grad(), squeeze_patch.labels(ROWS[:1]), warnings.catch_warnings():
        warnings.simplefilter("error")
        styles = locate(G).sample_w(2, 0)
        z = torch.randn([2, G.z_dim], generator=torch.Generator().manual_seed(0))
        assert torch.equal(styles, G.eval().mapping(z, ROWS[:1].expand(2, -1))[:, 0])
    G.train()
    with pytest.warns(squeeze_patch.LabelsWarning, match="Scene is conditioned on cameras"):
        squeeze_patch.apply(G, ratio=2, init="weights", verify=False)
    with warnings.catch_warnings():  # labels that change no style are not missing, nor where there is no trained start
        warnings.simplefilter("ignore", squeeze_patch.UnprovedWarning)
        squeeze_patch.remove(G)
        squeeze_patch.apply(copy.deepcopy(G), ratio=2, init="random")
        G.rendering_kwargs["c_scale"] = 0.0
        squeeze_patch.apply(G, ratio=2, init="weights", verify=False)
    assert all(module.training for module in G.modules() if module is not G.backbone.synthesis)
    assert torch.equal(before["backbone.mapping.w_avg"], G.backbone.mapping.w_avg)


class Trainer(torch.nn.Module):
    """Holds a generator, and something else that it calls a mapping."""

    def __init__(self, G: Any) -> None:
        super().__init__()
        self.G, self.z_dim, self.c_dim = G, G.z_dim, G.c_dim

    def mapping(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        raise AssertionError("this is no mapping network")


def test_a_mapping_of_something_else_makes_no_styles(draggan: Host) -> None:
    G = trained(draggan.generator(**SMALL))
    assert torch.equal(locate(Trainer(G)).sample_w(2, 0), locate(G).sample_w(2, 0))
