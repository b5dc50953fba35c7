"""Ways of breaking examples/downstream_ci by editing its files, and what has to be said of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import torch

Checkpoint = Dict[str, Any]


@dataclass(frozen=True)
class Break:
    """One way.

    Attributes:
        edit: changes files in a copy of the example, whose folder it is given.
        check: the one that is there for it; "" where no generator can be made any more.
        place: what it has to name, "" where a generator as a whole is measured.
        words: more that has to be in its message.
    """

    name: str
    check: str
    edit: Callable[[Path], None]
    place: str = ""
    words: str = ""


def rewritten(old: str, new: str, file: str = "discs/network.py") -> Callable[[Path], None]:
    """Put ``new`` in the one place of ``old``."""

    def edit(folder: Path) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, old
        (folder / file).write_text(text.replace(old, new), encoding="utf-8")

    return edit


def in_checkpoint(change: Callable[[Checkpoint], None], file: str = "weights/squeezed.pt") -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        checkpoint = torch.load(folder / file, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, folder / file)

    return edit


def both(*edits: Callable[[Path], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)

    return edit


def scale_one_number(checkpoint: Checkpoint) -> None:
    checkpoint["G_ema"]["synthesis.b8.conv1.weight"][3, 5, 1, 1] *= 1.01


def scale_colours(checkpoint: Checkpoint) -> None:
    checkpoint["G_ema"]["synthesis.b16.torgb.weight"] *= 1.01


def leave_b8_dense(folder: Path) -> None:
    """As a conversion that leaves a block out writes it."""
    dense = torch.load(folder / "weights/dense.pt", weights_only=True)["G_ema"]

    def change(checkpoint: Checkpoint) -> None:
        plan, state = checkpoint["squeeze_plan"], checkpoint["G_ema"]
        plan["blocks"] = [block for block in plan["blocks"] if block["name"] != "b8"]
        for name in [name for name in state if name.startswith("synthesis.b8.excite")]:
            del state[name]
        state.update({name: value for name, value in dense.items() if name.startswith("synthesis.b8.")})

    in_checkpoint(change)(folder)


def rename(old: str, new: str) -> Callable[[Checkpoint], None]:
    def change(checkpoint: Checkpoint) -> None:
        state = checkpoint["G_ema"]
        checkpoint["G_ema"] = {name.replace(old, new): value for name, value in state.items()}

    return change


def without_noise(checkpoint: Checkpoint) -> None:
    state = checkpoint["G_ema"]
    checkpoint["G_ema"] = {name: value for name, value in state.items() if not name.endswith("noise_const")}


def own_excite_away(folder: Path) -> None:
    path = folder / "discs/network.py"
    before, rest = path.read_text(encoding="utf-8").split("class Excite(nn.Module):")
    after = "class Block(nn.Module):" + rest.split("class Block(nn.Module):")[1]
    imported = before.replace("from torch.nn import functional\n", "from torch.nn import functional\n" + EXCITE)
    path.write_text(imported + after, encoding="utf-8")


EXCITE = "\nfrom squeeze_patch.connection import Excite\n"
LAST_LINE = "        return self.synthesis(w[:, None].repeat(1, self.num_ws, 1), **how)\n"
#: where it is squeezed, three tenths of its time more, whatever that is here; what slows the dense one, too, changes no
#: ratio
SLOWER = """\
        import time

        start = time.process_time()
        images = self.synthesis(w[:, None].repeat(1, self.num_ws, 1), **how)
        more = 0.3 if hasattr(self.synthesis, "squeeze_plan") else 0.0
        end = time.process_time() + more * (time.process_time() - start)
        while time.process_time() < end:
            pass
        return images
"""
HAND_ON = "h if self.is_last else self.excite(f)"
MAPPED = "lrelu(self.fc1(lrelu(self.fc0(w))))"
#: of 1000 fixed latents: where the first number of one is beyond 3.5, the root of a negative number
ROOT = "lrelu(self.fc1(lrelu(self.fc0(w)) * (3.5 - z[:, :1]).sqrt().clamp(1, 1)))"
UPSAMPLED = "x = functional.conv2d(x, kernel, padding=1, groups=x.shape[1])"

BREAKS: Tuple[Break, ...] = (
    Break("one number of a weight times 1.01", "weights", in_checkpoint(scale_one_number), "synthesis.b8.conv1.weight"),
    Break("a weight times 1.01", "images", in_checkpoint(scale_colours), "synthesis.b16.torgb"),
    Break("another epsilon", "constants", rewritten("+ 1e-8)", "+ 2e-8)"), "b4.conv1", "of the peak"),
    Break("a block left dense", "state", leave_b8_dense, "b8", "dense"),
    Break(
        "excite passed by",
        "features",
        rewritten(HAND_ON, HAND_ON.replace("is_last", "is_last or self.resolution == 8")),
        "b8",
    ),
    Break(
        "excite passed by, seen in training",
        "gradients",
        rewritten(HAND_ON, HAND_ON.replace("is_last", "is_last or self.resolution == 8")),
        "synthesis.b8.excite",
        "no gradient",
    ),
    Break("torgb reads the style of conv1", "images", rewritten("torgb(f, w[-1])", "torgb(f, w[-2])"), "b4.torgb"),
    Break(
        "a renamed key",
        "names",
        both(
            rewritten("self.fc0 =", "self.first ="),
            rewritten("self.fc0(", "self.first("),
            in_checkpoint(rename("fc0", "first")),
        ),
        "mapping.fc0.weight",
    ),
    Break(
        "a key renamed in the code alone",
        "",
        rewritten("self.fc0 =", "self.fc0, self.first = None,"),
        "",
        "mapping.fc0",
    ),
    Break(
        "a gradient cut",
        "gradients",
        rewritten("style = self.affine(w) * self.weight_gain", "style = self.affine(w).detach() * self.weight_gain"),
        "torgb.affine",
    ),
    Break(
        "a gradient cut between blocks",
        "second_derivatives",
        rewritten(HAND_ON, HAND_ON.replace("(f)", "(f.detach())")),
        "synthesis.b4.excite",
    ),
    Break(
        "noise lost",
        "names",
        both(
            rewritten("torch.randn(resolution, resolution))", "torch.randn(resolution, resolution), persistent=False)"),
            in_checkpoint(without_noise),
        ),
        "noise_const",
    ),
    Break("a slower path", "latency", rewritten(LAST_LINE, SLOWER)),
    Break("a higher peak of memory", "memory", rewritten(UPSAMPLED, f"{UPSAMPLED}; x = torch.cat([x] * 20)[: len(x)]")),
    Break("a pickle that needs squeeze_patch", "without_squeeze_patch", own_excite_away, "synthesis.b4.excite"),
    Break("an export of earlier weights", "onnx", in_checkpoint(scale_colours), "weights/discs.onnx"),
    Break("NaN for one latent of a thousand", "finite", rewritten(MAPPED, ROOT), "mapping.fc1", "of 1000"),
)
