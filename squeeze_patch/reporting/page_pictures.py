"""Images of several generators on the same latents, with a slider that wipes between two of them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Dict, List, Mapping, Tuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from squeeze_patch.errors import MeasurementError
from squeeze_patch.reporting.markup import escaped, table

#: characters of images in one `Pictures`: browsers get slow at pages of some hundred MB
MOST_CHARACTERS = 48 * 2**20
#: without scripts, small images are enlarged to about this many pixels
SMALLEST = 128
#: enlarged images are at most this many pixels wide
WIDEST = 4096
AMPLIFICATIONS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images of the same N latents, by layers, "dense" and "squeezed", say.

    Of two layers and more, two at a time lie on each other: a slider wipes between them, or their difference is shown,
    amplified. Without scripts all images are shown, small ones enlarged, row by row.

    They are embedded as PNG, pixel for pixel. N images of R x R of L layers take at most 4 N L R^2 bytes of the page,
    photographs about half: 8 latents of two generators 0.3 MB at 64x64, 4 MB at 256x256, up to 64 MB at 1024x1024. Of
    more than `MOST_CHARACTERS` the last latents are left out, and the page says so; nothing is shrunk.

    Attributes:
        layers: {name: images [N, H, W, 3], uint8}, all of one shape.
        note: a paragraph above the images.

    Raises:
        MeasurementError: there are no images, or layers that do not fit each other.
    """

    title: str
    layers: Mapping[str, NDArray[np.uint8]]
    note: str = ""

    def __post_init__(self) -> None:
        shapes = {name: [*images.shape] for name, images in self.layers.items()}
        if not shapes or any(len(shape) != 4 or shape[3] != 3 or 0 in shape for shape in shapes.values()):
            raise MeasurementError(f"images have to be of shape [N, H, W, 3], not {shapes}")
        if len(set(map(tuple, shapes.values()))) > 1:
            raise MeasurementError(f"layers of images have to be of one shape, not {shapes}")
        types = {str(images.dtype) for images in self.layers.values()}
        if types != {"uint8"}:
            raise MeasurementError(f"images have to be uint8, not {', '.join(sorted(types))}")

    def html(self) -> str:
        """What stands below the title."""
        latents, height, width, _ = next(iter(self.layers.values())).shape
        embedded = self._embedded(latents)
        shown = len(next(iter(embedded.values())))
        missing = (
            f"<p>Shown are the first {shown} of {latents} latents: the others would make this page too large.</p>\n"
            if shown < latents
            else ""
        )
        viewer = self._viewer(shown, height, width) if len(self.layers) > 1 else ""
        return f"{missing}{viewer}{self._strip(embedded, height, width)}"

    def _embedded(self, latents: int) -> Dict[str, List[str]]:
        """{layer: addresses of its images} of the first latents that there is room for, of the first one at least."""
        found: Dict[str, List[str]] = {name: [] for name in self.layers}
        room = MOST_CHARACTERS
        for latent in range(latents):
            addresses = {name: png_address(images[latent]) for name, images in self.layers.items()}
            room -= sum(map(len, addresses.values()))
            if room < 0 and latent:
                break
            for name, address in addresses.items():
                found[name].append(address)
        return found

    def _viewer(self, latents: int, height: int, width: int) -> str:
        """Controls, which do nothing without the script, and are hidden until it runs; it fills the stage."""
        names = list(self.layers)
        zooms = [("fit", "to fit")] + [(str(n), f"{n}x") for n in (1, 2, 4, 8, 16, 32) if n == 1 or n * width <= WIDEST]
        views = [("wipe", "slider")] + [(str(n), f"difference x {n}") for n in AMPLIFICATIONS]
        layers = [(str(index), name) for index, name in enumerate(names)]
        controls = (
            _choice("latent", "Latent", [(str(index), str(index + 1)) for index in range(latents)]),
            _choice("left", "Left", layers),
            _choice("right", "Right", layers, chosen=1),
            _choice("view", "View", views),
            _choice("zoom", "Zoom", zooms),
        )
        return (
            '<div class="viewer" hidden>\n<div class="controls">' + "\n".join(controls) + "</div>\n"
            '<div class="desk">\n<p class="names" aria-hidden="true"><span></span><span></span></p>\n'
            '<div class="frame" tabindex="0" role="region" aria-label="Images on each other">'
            f'<div class="stage" data-width="{width}" data-height="{height}"></div></div>\n'
            '<label class="wipe"><span class="unseen">Share of the left images, in percent</span>'
            '<input type="range" name="wipe" min="0" max="100" value="50" autocomplete="off"></label>\n</div>\n</div>\n'
        )

    def _strip(self, embedded: Mapping[str, List[str]], height: int, width: int) -> str:
        """All images: a row a layer, a column a latent."""
        scale = max(1, SMALLEST // max(width, height))
        size = f'width="{width * scale}" height="{height * scale}"'
        count = len(next(iter(embedded.values())))
        columns = ["latent", *(f'<span class="unseen">latent </span>{latent + 1}' for latent in range(count))]
        rows = [
            [escaped(name)]
            + [
                f'<img src="{address}" alt="{escaped(name)}, latent {latent}" {size}>'
                for latent, address in enumerate(addresses, 1)
            ]
            for name, addresses in embedded.items()
        ]
        kind = "strip pixelated" if max(width, height) <= SMALLEST else "strip"
        return table(f"{self.title}: all images", columns, rows, kind)


def png_address(image: NDArray[np.uint8]) -> str:
    """An image [H, W, 3] as a PNG inside of a data: address."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _choice(name: str, label: str, options: List[Tuple[str, str]], chosen: int = 0) -> str:
    items = "".join(
        f'<option value="{value}"{" selected" if index == chosen else ""}>{escaped(words)}</option>'
        for index, (value, words) in enumerate(options)
    )
    return f'<label>{label} <select name="{name}" autocomplete="off">{items}</select></label>'
