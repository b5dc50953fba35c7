"""The rivals in `python -m benchmarks distillation`: pruned generators are what the papers' formulas say, and learn."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
import torch

import squeeze_patch
from benchmarks.distillation import BY, PRUNED, REFITTED, ROWS, Cost, distil, key, multiply_adds, student_of, table
from benchmarks.fidelity import images_of
from benchmarks.pruning import by_activation_energy, by_content, by_weight_norm, prune, pruned_to
from benchmarks.variants import count
from squeeze_patch.adapters import locate
from squeeze_patch.demo import trained_generator
from squeeze_patch.evaluation.pixels import psnr
from squeeze_patch.planning.cost import report
from squeeze_patch.planning.solver import DEFAULT_REDUCTION


@pytest.fixture(scope="module", autouse=True)
def _scored_once() -> Iterator[None]:
    """Scores of the demo's generator, which all tests but one prune, are computed once each."""
    known = {name: score(trained_generator()) for name, score in PRUNED.items()}
    with pytest.MonkeyPatch.context() as changes:
        for name, scores in known.items():
            changes.setitem(PRUNED, name, lambda _, scores=scores: scores)
        yield


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Of the dense generator."""
    found: torch.Tensor = images_of(trained_generator())
    return found


@pytest.mark.parametrize("name", PRUNED)
def test_pruning(name: str, images: torch.Tensor) -> None:
    """All channels kept is the generator itself; fewer are as many parameters as asked for, the best ones."""
    dense = trained_generator()
    score = PRUNED[name]
    scores = score(dense)
    whole = prune(dense, scores, 1.0)
    assert torch.equal(images_of(whole.G), images)
    target = squeeze_patch.plan(dense).parameters_after
    pruned = pruned_to(dense, target, score)
    assert abs(count(pruned.G) - target) / target < 0.02  # a channel of each layer is 3 % of the convolutions here
    by_cost = pruned_to(dense, 0.7 * multiply_adds(dense), score, multiply_adds)
    assert abs(multiply_adds(by_cost.G) / multiply_adds(dense) - 0.7) < 0.02
    block, kept = next(iter(pruned.kept.items()))
    assert scores[block, "conv1"][kept].min() >= scores[block, "conv1"].sort().values[-len(kept)]


def test_scores_by_hand() -> None:
    """A channel that nothing reads has no weight norm; one that is always zero has no energy."""
    G = trained_generator()
    with torch.no_grad():
        G.synthesis.b8.conv1.weight[:, 3] = 0
        G.synthesis.b8.conv0.bias[5] = 0
        G.synthesis.b8.conv0.weight[5] = 0
        G.synthesis.b8.conv0.noise_strength.zero_()
    assert by_weight_norm(G)["b8", "conv0"][3] == 0
    assert by_weight_norm(G)["b8", "conv0"][4] > 0
    assert by_activation_energy(G)["b8", "conv0"][5] == 0
    assert by_activation_energy(G)["b8", "conv0"][4] > 0
    content = by_content(G)
    assert content["b8", "conv0"].argmin() == 5  # weights that read zeros move by demodulation alone
    assert not any(parameter.requires_grad for parameter in G.parameters())  # as it was


@pytest.mark.parametrize("score", PRUNED)
def test_a_refit_helps_every_score(score: str, images: torch.Tensor) -> None:
    """The same channels and widths, as many parameters."""
    dense = trained_generator()
    plain, _ = student_of(f"pruned by {score}", dense, 0.25, BY[0], seed=0)
    fitted, pair = student_of(f"pruned by {score}{REFITTED}", dense, 0.25, BY[0], seed=0)
    assert count(plain) == count(fitted)
    assert psnr(images, images_of(fitted)) > psnr(images, images_of(plain)) + 1
    assert {name: len(kept) for name, kept in pair.handed.items()} == {
        name: getattr(plain.synthesis, name).conv1.weight.shape[0] for name in pair.tapped
    }


@pytest.mark.parametrize("row", ["squeezed, random", *(f"pruned by {score}" for score in PRUNED)])
def test_poor_starts_learn_in_three_steps(row: str, images: torch.Tensor) -> None:
    dense = trained_generator()
    G, pair = student_of(row, dense, 0.25, BY[0], seed=0)
    before = images_of(G)
    distil(pair, steps=3, seed=0)
    assert psnr(images, images_of(G)) > psnr(images, before)
    assert locate(dense)  # the dense one is as it was
    assert torch.equal(images_of(dense), images)
    assert all(not block._forward_hooks for block in dense.synthesis.children())


@pytest.mark.parametrize(("by", "sized"), [(BY[0], count), (BY[1], multiply_adds)], ids=BY)
def test_rows_have_one_size(by: str, sized: Any) -> None:
    pytest.importorskip("torch.utils.flop_counter", reason="torch before 2.1 does not count")
    dense = trained_generator()
    rows = [row for row in ROWS if not row.endswith(REFITTED)]  # of the size of what is refitted
    sizes = {row: sized(student_of(row, dense, 0.25, by, seed=0)[0]) for row in rows}
    assert max(sizes.values()) / min(sizes.values()) < 1.02  # as above


def test_multiply_adds_are_those_of_the_report() -> None:
    """But for the images' filter in squeezed blocks, a transposed convolution, which counts at input resolution."""
    pytest.importorskip("torch.utils.flop_counter", reason="torch before 2.1 does not count")
    dense = trained_generator()
    squeezed, _ = student_of(ROWS[0], dense, DEFAULT_REDUCTION, BY[0], 0)
    found = report(locate(squeezed))
    assert multiply_adds(dense) == found.multiply_adds_before
    pixels = 8**2 + 16**2 + 32**2
    assert multiply_adds(squeezed) == found.multiply_adds_after - 16 * (pixels - pixels // 4)


def test_table() -> None:
    cells = {key(ROWS[0], 0.25, 0, seed): {"psnr": 20.0 + seed, "frechet": 1.0} for seed in range(3)}
    lines = table(cells, dict.fromkeys(ROWS, Cost(1000, 0.5)), 0.25, [0, 100], 3)
    assert lines[1].split() == [*ROWS[0].split(), "1,000", "0.50", "21.0", "(20.0", "to", "22.0),", "1"]
    assert all(line.split() == [*row.split(), "1,000", "0.50"] for line, row in zip(lines[2:], ROWS[1:]))
