"""What docs say of trainings from scratch against the results that are stored."""

from __future__ import annotations

import math
import re
import statistics
from typing import Any, Dict

from scipy import stats

from tests.docs.pages import Page
from tests.docs.stored_results import results

FIGURES = Page("docs/benchmarks.md")
README = Page("README.md")


def paired(over: Dict[str, Any], under: Dict[str, Any], kimg: str) -> str:
    """Geometric mean of paired ratios, with the interval of Student's t."""
    seeds = [seed for seed in over if kimg in over[seed] and kimg in under.get(seed, {})]
    logs = [math.log(over[seed][kimg] / under[seed][kimg]) for seed in seeds]
    half = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    mean = statistics.fmean(logs)
    return "{:.2f} ({:.2f} to {:.2f})".format(*(math.exp(x) for x in (mean, mean - half, mean + half)))


def late_in(curves: Dict[str, Any], end: int = 180) -> Dict[str, Any]:
    """{variant: {seed: {"180": the last quarter's geometric mean}}} of curves {variant: {seed: {kimg: figure}}}."""

    def of(curve: Dict[str, float]) -> Dict[str, float]:
        last = [value for kimg, value in curve.items() if 0.75 * end < float(kimg) <= end]
        return {f"{end}": statistics.geometric_mean(last)}

    return {name: {seed: of(curve) for seed, curve in seeds.items()} for name, seeds in curves.items()}


def test_cifar_on_a_gpu() -> None:
    stored, text = results("quality-cifar32-h100-180kimg.json"), " ".join(FIGURES.text.split())
    frechet, sliced, recall = (late_in(stored[name]) for name in ("frechet", "sliced_wasserstein", "recall"))
    for name, label in {
        "dense": "dense",
        "squeezed": "squeezed, 12 % fewer parameters (default)",
        "ratio 4": "**squeezed at ratio 4, 37 % fewer**",
        "narrowed as ratio 4": "dense, narrowed as ratio 4",
    }.items():
        at = [figures["180"] for figures in frechet[name].values()]
        distance = f"{statistics.fmean(at):.2f} ({min(at):.2f} to {max(at):.2f})"
        assert f"| {label} | {stored['parameters'][name]:,} | {distance} |" in text
        assert name == "dense" or paired(frechet[name], frechet["dense"], "180") in README.text
        row = next(
            line for line in FIGURES.text.splitlines() if line.startswith(f"| {label} | {stored['parameters'][name]:,}")
        )
        assert row.endswith(f"| {statistics.fmean(figures['180'] for figures in recall[name].values()):.2f} |")
        assert name == "dense" or paired(frechet[name], frechet["dense"], "180") in row
    ours, dense, narrowed = "ratio 4", "dense", "narrowed as ratio 4"
    assert f"narrowed at equal parameters: **{paired(frechet[ours], frechet[narrowed], '180')}**" in text
    assert f"over ratio 1.5: {paired(frechet[ours], frechet['squeezed'], '180')}" in text
    ratios = (paired(each[ours], each[other], "180") for each in (sliced, recall) for other in (dense, narrowed))
    assert "distance says {} and {}, recall {} and {}, precision".format(*ratios) in text
    kid = [paired(stored["kid"][ours], stored["kid"][other], "end") for other in (dense, narrowed, "squeezed")]
    assert "is {} of dense, {} of narrowed and {} of ratio 1.5".format(*kid) in text
    training = " ".join(Page("docs/training.md").text.split())
    assert paired(frechet[ours], frechet[dense], "180").replace("(", "(95 % interval ") in training
    assert paired(frechet[ours], frechet[narrowed], "180") in training
    assert paired(frechet["squeezed"], frechet[dense], "180") in training


def test_cifar_on_a_gpu_twice_as_long() -> None:
    """To 360 kimg, on other seeds; and what both studies say of the kimg that both have come to."""
    stored, before = (results(f"quality-cifar32-h100-{kimg}kimg.json") for kimg in (360, 180))
    text, training = (" ".join(Page(name).text.split()) for name in ("docs/benchmarks.md", "docs/training.md"))
    assert not stored["frechet"]["dense"].keys() & before["frechet"]["dense"].keys()
    ours, others = "ratio 4", ("dense", "narrowed as ratio 4")
    frechet, recall = (late_in(stored[name], 360) for name in ("frechet", "recall"))
    for name, label in {
        ours: "squeezed at ratio 4, 37 % fewer",
        **dict(zip(others, ("dense", "dense, narrowed as ratio 4"))),
    }.items():
        at = [figures["360"] for figures in frechet[name].values()]
        ratio = "" if name == "dense" else paired(frechet[name], frechet["dense"], "360")
        distance = f"{statistics.fmean(at):.2f} ({min(at):.2f} to {max(at):.2f})"
        shown = f"| {label} | {stored['parameters'][name]:,} | {distance} | {ratio}"
        (row,) = (line for line in FIGURES.text.splitlines() if line.startswith(shown))
        assert row.endswith(f"| {statistics.fmean(figures['360'] for figures in recall[name].values()):.2f} |")
        assert name == "dense" or ratio in README.text
    for other in others:
        until = {kimg: late_in(stored["frechet"], kimg) for kimg in range(120, 361, 40)}
        ratios = [paired(curves[ours], curves[other], f"{kimg}") for kimg, curves in until.items()]
        assert f"| {other} | {' | '.join(ratios)} |" in text
        assert ratios[-1] in training
    last = {name: sorted(curve["360"] for curve in seeds.values()) for name, seeds in stored["frechet"].items()}
    said = "are ({:.1f} to {:.1f} at the last evaluation; ratio 4 {:.1f} to {:.1f}), two have not ({:.1f})"
    assert said.format(*last["dense"][:4:3], *last[ours][::5], last["dense"][4]) in text
    both = {
        name: {
            seed: {"160": curve["160"]} for study in (before, stored) for seed, curve in study["frechet"][name].items()
        }
        for name in (ours, *others)
    }
    assert len(both[ours]) == 12
    dense, narrowed = (paired(both[ours], both[other], "160") for other in others)
    assert f"is {dense} of dense and {narrowed} of narrowed" in text
    kid = stored["kid"]
    at_the_end = paired(kid[others[1]], kid["dense"], "end")
    for other, label in zip(others, ("dense", f"narrowed as ratio 4, which is {at_the_end} of dense at the end")):
        earlier, end = (paired(kid[ours], kid[other], when) for when in ("before", "end"))
        assert f"| {label} | {earlier} | {end} |" in text
    ends = [kimg for seeds in stored["end"].values() for kimg in seeds.values()]
    assert f"| {min(ends):.0f} to {max(ends):.0f} kimg, the end |" in text


def test_cifar_at_equal_parameters() -> None:
    stored, text = results("quality-cifar32-h100-80kimg.json"), " ".join(FIGURES.text.split())
    frechet, rival, ours = stored["frechet"], "narrowed", "ratio 4 widened"
    for name, label in {
        rival: "dense, narrowed as the default: 59 and 31 channels",
        ours: "**squeezed at ratio 4, widened to 78 and 39 channels**",
        "torgb reads a quarter budget": "toRGB reads 16 of the 51 channels behind conv1 (last block 8 of 32)",
        "half": "dense, narrowed to half the parameters",
    }.items():
        at = [curve["80"] for curve in frechet[name].values()]
        assert len(at) == 6
        distance = f"{statistics.fmean(at):.2f} ({min(at):.2f} to {max(at):.2f})"
        recall = f"{statistics.fmean(curve['80'] for curve in stored['recall'][name].values()):.2f}"
        shown = f"| {label} | {stored['parameters'][name]:,} | {distance} | "
        (row,) = (line for line in FIGURES.text.splitlines() if line.startswith(shown))
        assert row.endswith(f" | {recall} |")
        assert name == rival or paired(frechet[name], frechet[rival], "80") in row
    assert (
        f"Wasserstein distance says {paired(*(stored['sliced_wasserstein'][n] for n in (ours, rival)), '80')}" in text
    )
    assert f"EfficientNet-Lite's features {paired(stored['kid'][ours], stored['kid'][rival], '80')}" in text
    later = paired(frechet["torgb reads a quarter budget"], frechet[rival], "120")
    assert f"at 120 kimg no longer: {later[:-1]}; three seeds)" in text


def test_cifar_by_the_learning_rate_of_torgb() -> None:
    """Trainings on a CPU, and those on a GPU beside them."""
    curves = {
        name: seeds
        for study in ("quality-cifar32-40kimg.json", "quality-cifar32-h100-80kimg.json")
        for name, seeds in results(study)["frechet"].items()
    }
    dense = curves["dense"]
    for name, label in {
        "dense": "dense | CPU",
        "dense torgb learns at half": "dense, toRGB's learning rate halved | CPU",
        "dense torgb learns at a quarter": "dense, a quarter of that rate | CPU",
        "narrowed": "dense, narrowed as the default | H100",
        "half": "dense, narrowed to half the parameters | H100",
        "ratio 4 widened": "squeezed at ratio 4, widened | H100",
        "torgb reads a quarter budget": "toRGB reads 16 of the 51 channels behind conv1 | H100",
    }.items():
        at = [curve["40"] for curve in curves[name].values()]
        ratio = "" if name == "dense" else paired(curves[name], dense, "40")
        shown = f"| {label} | {len(at)} | {statistics.fmean(at):.1f} ({min(at):.1f} to {max(at):.1f}) | {ratio} |"
        assert shown in FIGURES.text
    assert f"as far as {len(dense)} seeds can tell" in " ".join(FIGURES.text.split())


def test_cifar_of_a_demodulated_torgb_and_few_channels() -> None:
    stored = results("quality-cifar32-40kimg-few-channels.json")
    frechet, swd = stored["frechet"], stored["sliced_wasserstein"]
    for name, label in {
        "dense": "dense",
        "dense torgb demodulated": "dense, toRGB demodulated",
        "torgb reads half": "toRGB reads a half of conv1's channels",
        "torgb reads an eighth": "toRGB reads an eighth of them",
        "ratio 2": "squeezed at ratio 2",
        "ratio 8": "squeezed at ratio 8",
    }.items():
        at = [curve["40"] for curve in frechet[name].values()]
        ratios = ["", ""] if name == "dense" else [paired(each[name], each["dense"], "40") for each in (frechet, swd)]
        distance = f"{statistics.fmean(at):.1f} ({min(at):.1f} to {max(at):.1f})"
        cells = (label, f"{stored['parameters'][name]:,}", f"{len(at)}", distance, *ratios)
        assert f"| {' | '.join(cells)} |" in FIGURES.text


def test_cifar_where_capacity_is_short() -> None:
    """The report's own rows, under the table's words."""
    rows = results("quality-cifar16-8channels.json")["table"][1:]
    labels = ("dense", "dense, narrowed to 2", "squeezed, 12 %", "squeezed at ratio 4", "toRGB reads 2")
    for label in (*labels, "dense, narrowed as ratio 4: 6"):
        size, *figures = re.split(r"\s{2,}", rows.pop(0).strip())[1:]
        shown = next(
            line for line in FIGURES.text.splitlines() if line.startswith(f"| {label}") and f"| {size} |" in line
        )
        assert [cell.strip() for cell in shown.strip("| ").split("|")][1:] == [size, *figures]
    assert rows == []
    curves = results("quality-cifar16-8channels.json")["curves"]
    frechet = {
        name: {seed: {f"{point['kimg']}": point["frechet"] for point in curve} for seed, curve in seeds.items()}
        for name, seeds in curves.items()
    }
    late, text = late_in(frechet, 60), " ".join(FIGURES.text.split())
    default, harder = (paired(late[name], late["narrowed as ratio 4"], "60") for name in ("squeezed", "ratio 4"))
    assert f"the default is {default} and ratio 4 is {harder}: neither can be told" in text
    reads = paired(late["torgb reads a quarter budget"], late["dense"], "60")
    assert f"the distance is {reads} of dense" in text


def test_cifar_on_a_gpu_before() -> None:
    curves, text = results("quality-cifar32-h100.json")["frechet"], " ".join(FIGURES.text.split())
    told = {
        name: paired(curves[name], curves["dense"], "80")
        for name in ("squeezed", "ratio 4", "narrowed", "narrowed as ratio 4")
    }
    shown = text.replace("squeezed / dense", "squeezed")
    assert all(f"{name} {ratio}" in shown for name, ratio in told.items())
