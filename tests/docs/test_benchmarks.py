"""docs/benchmarks.md, experiments/README.md and the README's table against the results that are stored."""

from __future__ import annotations

import re
import statistics
from typing import Any, Dict, List, Sequence

import pytest

from tests.docs.pages import ROOT, Page
from tests.docs.stored_results import results

PAGE = Page("docs/benchmarks.md")
README = Page("README.md")
STUDIES = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
DISTILLED = {
    "16x16 digits": "distillation-mnist16.json",
    "the demo's 32x32 digits": "distillation-demo.json",
    "CIFAR-10 at 32x32": "distillation-cifar32.json",
}


def psnr(file: str, row: str, reduction: str, steps: Sequence[str]) -> List[List[float]]:
    """Of every length of the training, one a seed."""
    cells = results(file)["cells"]
    found = {
        step: [c["psnr"] for key, c in cells.items() if key.startswith(f"{row} | {reduction} | {step} |")]
        for step in steps
    }
    return list(found.values())


def test_labels() -> None:
    """Every cell is the stored one, and so is what they are worth."""
    stored = results("labels.json")["starts"]
    lines = re.findall(r"^\| ((?:squeezed|narrowed).*?) \|((?: [\d.]+ dB \|){4})$", PAGE.text, flags=re.MULTILINE)
    shown = {name: [float(cell) for cell in re.findall(r"[\d.]+", cells)] for name, cells in lines}
    assert list(shown) == list(stored["cameras"])
    for name, cells in shown.items():
        assert cells == [round(value, 1) for kind in ("cameras", "attributes") for value in stored[kind][name]]
    gains = [seeing - blind for starts in stored.values() for blind, seeing in starts.values()]
    assert f"worth {min(gains):.1f} to {max(gains):.1f} dB" in PAGE.text


@pytest.mark.parametrize("digits", DISTILLED)
@pytest.mark.parametrize("fewer", ["12.1 %", "25 %", "50 %"])
def test_all_rows_of_distillation(digits: str, fewer: str) -> None:
    """Every cell is the stored one, and what is stored is in the table."""
    (table,) = re.findall(rf"^\| {digits}, {fewer} fewer.*?\n\n", PAGE.text, flags=re.DOTALL | re.MULTILINE)
    data, reduction = results(DISTILLED[digits]), f"{float(fewer[:-2]) / 100:g}"
    shown = set()
    head, _, *lines = table.strip().splitlines()
    steps = [re.sub(r"\D", "", cell) or "0" for cell in head.strip("|").split("|")[3:]]
    assert set(steps) == {key.split(" | ")[2] for key in data["cells"] if key.split(" | ")[1] == reduction}
    for line in lines:
        row, cost, share, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        shown.add(row)
        assert cost == f"{data['costs'][f'{row} | {reduction}'][1]:.2f}", line
        assert share == f"{data['shares'][f'{row} | {reduction}'][2]:.2f}", line
        assert len(cells) == len(steps)
        for cell, seeds in zip(cells, psnr(DISTILLED[digits], row, reduction, steps)):
            assert bool(cell) == bool(seeds), line
            assert not seeds or cell.startswith(f"{statistics.fmean(seeds):.1f}, "), line
            assert not seeds or cell.endswith(f" ({len(seeds)})") == (len(seeds) > 1), line
    assert shown == {key.split(" | ")[0] for key in data["cells"] if key.split(" | ")[1] == reduction}


def test_equal_multiply_adds() -> None:
    cells = [results(f"distillation-{name}-multiply-adds.json")["cells"] for name in ("mnist16", "demo")]
    (text,) = re.findall(r"^\| 0.65 of the multiply-adds.*?\n\n", PAGE.text, flags=re.DOTALL | re.MULTILINE)
    lines = text.strip().splitlines()[2:]
    assert len(lines) == 4
    for line in lines:
        row, *shown = (cell.strip() for cell in line.strip("|").split("|"))
        stored = [found.get(f"{row} | 0.35 | {steps} | 0") for found in cells for steps in (0, 300)]
        assert shown == ["" if cell is None else f"{cell['psnr']:.1f}" for cell in stored], line


@pytest.mark.parametrize(("file", "column"), [("scanners.json", "hostile"), ("scanners-picklescan.json", "theirs")])
def test_scanners(file: str, column: str) -> None:
    (text,) = re.findall(rf"^\| scanner \| {column}.*?\n\n", PAGE.text, flags=re.DOTALL | re.MULTILINE)
    stored = results(file)
    lines = text.strip().splitlines()[2:]
    assert len(lines) == len(stored)
    for line, (name, found) in zip(lines, stored.items()):
        label, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        hostile = [answer for what, answer in found["answers"].items() if what.startswith("hostile: ")]
        harmless = [answer for what, answer in found["answers"].items() if what.startswith("harmless: ")]
        words = ("dangerous", "suspicious", "nothing", "unreadable")
        assert label == f"{name} {found['version']}".strip()
        assert cells[:4] == [str(hostile.count(word)) for word in words]
        assert cells[4] == f"{sum(answer != 'nothing' for answer in harmless)} of {len(harmless)}"
        assert f"{len(hostile)} hostile" in PAGE.text


def test_readmes_row_of_images() -> None:
    """25 % fewer parameters, at the start and after 300 steps: squeezed, the best of all that are pruned, narrowed."""
    (line,) = re.findall(r"^\| the demo's digits.*$", README.text, flags=re.MULTILINE)
    data = results("distillation-demo.json")
    means = {
        row: psnr("distillation-demo.json", row, "0.25", ("0", "300"))
        for row in (key.split(" | ")[0] for key in data["cells"])
    }
    said = []
    for step in (0, 1):
        at = {row: statistics.fmean(found[step]) for row, found in means.items() if found[step]}
        rivals = [value for row, value in at.items() if row.startswith("pruned")]
        said += [at["squeezed, allocated"], max(rivals), at["narrowed, allocated"]]
    figures = re.findall(r"(?<![\d.])\d\d\.\d(?![\d.]| %)", line)
    assert figures == [f"{figure:.1f}" for figure in said]


@pytest.mark.parametrize("name", ["ablation-digits16.json", "ablation-digits16-400kimg.json", "quality-digits16.json"])
def test_training_from_scratch(name: str) -> None:
    """Every line of the stored table."""
    for line in results(name)["table"][1:]:
        row, parameters, seeds, distance, ratio = re.match(  # type: ignore[union-attr]
            r"(.+?)\s+([\d,]+)\s+(\d)\s+([\d.]+ \(.*?\))\s*([\d.]+ \(.*\))?", line
        ).groups()
        if name.startswith("ablation"):
            assert f"| {row} | {parameters} | {seeds} | {distance} | {ratio or ''} |" in STUDIES
            continue
        assert distance in PAGE.text
        assert (ratio or "") in PAGE.text
        assert row != "squeezed" or ratio in Page("docs/training.md").text


def test_allocated_starts() -> None:
    found = results("allocated.json")["starts"]
    for reduction, label in {"0.121": "12.1 %", "0.25": "25 %", "0.5": "50 %"}.items():
        cells = []
        for method in ("squeeze", "narrow"):
            pairs = [starts for case, starts in found.items() if case.endswith(f"| {reduction} | {method}")]
            both = [(s["uniform"][0], s["spectral"][0]) for s in pairs if s["uniform"] is not None]
            ahead = [allocated - uniform for uniform, allocated in both]
            reached = "" if len(both) == len(pairs) == 12 else f" ({len(both)} of {len(pairs)})"
            means = statistics.fmean(u for u, _ in both), statistics.fmean(s["spectral"][0] for s in pairs)
            cells += [f"{means[0]:.1f}{reached}", f"{means[1]:.1f}", f"{min(ahead):+.1f} to {max(ahead):+.1f}"]
        assert f"| {label} | {' | '.join(cells)} |" in PAGE.text


def quartiles(found: Dict[str, float]) -> str:
    return "{median:.2f} ({lower:.2f} to {upper:.2f})".format(**found)


def test_fused_latency() -> None:
    """Rows of all sizes and batches, and what of them is the connection's."""
    found = [*results("latency-256.json")["results"], *results("latency-1024.json")["results"]]
    sizes = [{(row["generator"], row["called"]): row for row in each["rows"]} for each in found]

    def fastest(rows: Dict[Any, Any], name: str) -> Any:
        return min((row for way, row in rows.items() if way[0] == name), key=lambda row: row["milliseconds"]["median"])

    for label, cells in {
        "dense, default flags": [rows["dense", "default"] for rows in sizes],
        "squeezed, default flags": [rows["squeezed", "default"] for rows in sizes],
        "squeezed, its fastest flags": [fastest(rows, "squeezed") for rows in sizes],
        "dense with the kernels of fused ones": [rows["same kernels", "default"] for rows in sizes],
        "fused": [rows["fused", "default"] for rows in sizes],
    }.items():
        off = [f"{each([row['difference'] for row in cells]):.0e}" for each in (min, max)]
        said = "" if label.startswith(("dense, ", "squeezed, ")) else f"{' to '.join(off)} "
        assert f"| {label} | {' | '.join(quartiles(row['to best']) for row in cells)} | {said}|" in PAGE.text
    said = [
        ", ".join(f"{row(rows)['to best']['median']:.2f}" for rows in sizes[:2])
        for row in (
            lambda rows: fastest(rows, "squeezed"),
            lambda rows: rows["fused", "default"],
            lambda rows: rows["same kernels", "default"],
        )
    ]
    row = "| {}; [fused](docs/fuse.md) {} | a dense generator with the same kernels: {}."
    assert row.format(*said) in README.text
    medians = [
        [rows[name, "default"]["milliseconds"]["median"] for name in ("fused", "same kernels")] for rows in sizes
    ]
    text = " ".join(PAGE.text.split())
    one, eight, large = (f"{fused / same:.2f}" for fused, same in medians)
    assert f"by the medians: {one} at batch 1 and {eight} at batch 8" in text
    assert f"and {large} at 1024x1024" in text


def test_latency_on_two_threads() -> None:
    found = results("latency-256-two-threads.json")
    assert (found["clock"], "2 threads" in found["machine"]) == ("time", True)
    text = " ".join(PAGE.text.split())
    for label, name in {
        "squeezed, default flags": "squeezed",
        "dense with the kernels of fused ones": "same kernels",
        "fused": "fused",
    }.items():
        rows = (row for each in found["results"] for row in each["rows"])
        cells = [quartiles(row["to best"]) for row in rows if (row["generator"], row["called"]) == (name, "default")]
        assert len(cells) == 2
        assert f"{label} {', '.join(cells)}" in text


def test_latency_on_a_gpu() -> None:
    stored = results("latency-h100.json")
    assert "H100" in stored["machine"]
    sizes = [{(row["generator"], row["called"]): row for row in each["rows"]} for each in stored["results"]]
    labels = {"squeezed": "squeezed, its fastest flags", "same kernels": "dense with the kernels of fused ones"}
    for name in ("dense", "squeezed", "same kernels", "fused"):
        for how in ("eager", "CUDA graph"):
            cells = []
            for rows in sizes:
                ways = [
                    row
                    for way, row in rows.items()
                    if way[0] == name and way[1].startswith("graph") == (how != "eager")
                ]
                row = min(ways, key=lambda row: row["milliseconds"]["median"])
                is_dense = name == "dense"
                cells.append(f"{row['milliseconds']['median']:.1f}" if is_dense else quartiles(row["to best"]))
            label = "dense, its fastest flags, ms" if name == "dense" else labels.get(name, name)
            assert f"| {label} | {how} | {' | '.join(cells)} |" in PAGE.text


def test_compiled_kernels_on_a_gpu() -> None:
    stored, text = results("latency-h100-compiled.json"), " ".join(PAGE.text.split())
    assert "H100" in stored["machine"]
    fastest: Dict[str, List[Any]] = {name: [] for name in ("dense", "squeezed", "fused", "same kernels")}
    for each in stored["results"]:
        graphs = [row for row in each["rows"] if row["called"].startswith("graph")]
        for name, rows in fastest.items():
            own = [row for row in graphs if row["generator"] == name]
            rows.append(min(own, key=lambda row: row["milliseconds"]["median"]))
    dense = " and ".join(f"{row['milliseconds']['median']:.1f}" for row in fastest["dense"])
    squeezed, fused = (" and ".join(quartiles(row["to best"]) for row in fastest[n]) for n in ("squeezed", "fused"))
    same = " and ".join(f"{row['to best']['median']:.2f}" for row in fastest["same kernels"])
    assert f"dense {dense} ms, squeezed {squeezed}, fused {fused}, dense with the kernels of fused ones {same}." in text


def test_training_step_on_a_gpu() -> None:
    found = results("step-256-h100.json")["paper256"]
    said = f"float32, {quartiles(found['whole step'])} of the dense {found['seconds, dense']:.2f} s"
    assert said in " ".join(PAGE.text.split())
    assert f"G's main phase {found['Gmain']['median']:.2f}, D's {found['Dmain']['median']:.2f}" in PAGE.text
    mixed = results("step-256-h100-mixed.json")["paper256"]
    said = f"takes {quartiles(mixed['whole step'])} of the dense {mixed['seconds, dense']:.2f} s"
    assert said in " ".join(PAGE.text.split())


def test_fused_onnx() -> None:
    for size, label in (("cifar", "32x32"), ("paper256", "256x256")):
        for name, row in results("onnx.json")[size].items():
            time = "1" if name == "dense" else quartiles(row["to dense"])
            off = f"{row['difference']:.0e}"
            assert f"| {label} | {name} | {time} | {row['bytes'] / 1e6:.1f} | {off} |" in PAGE.text


def test_training_step() -> None:
    found = results("step-256.json")["paper256"]
    assert f"| {quartiles(found['whole step'])} | `python -m benchmarks step --sizes paper256" in PAGE.text
    medians = {phase: f"{found[phase]['median']:.2f}" for phase in ("Gmain", "Greg", "Dmain", "Dreg")}
    text = "phases take {Gmain} (images) and {Greg} (path lengths); the discriminator's, {Dmain} and {Dreg},"
    assert text.format(**medians) in " ".join(PAGE.text.split())
