"""Images of a folder or zip: sizes, order, classes, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.data import load


def folder_of_two_classes(folder: Path) -> Path:
    """Cats are 32x32 and grey 0 to 2, dogs 64x64 and red; a text lies beside them."""
    for index in range(3):
        (folder / "cat").mkdir(parents=True, exist_ok=True)
        Image.new("L", (32, 32), index).save(folder / "cat" / f"{index}.png")
    (folder / "dog").mkdir()
    Image.new("RGB", (64, 64), (255, 0, 0)).save(folder / "dog" / "0.PNG")
    (folder / "dog" / "about.txt").write_text("not an image")
    return folder


def test_a_folder_and_its_zip_are_the_same_data(tmp_path: Path) -> None:
    folder = folder_of_two_classes(tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder))
    for data in (load(str(folder), 16), load(str(tmp_path / "data.zip"), 16)):
        assert data.images.shape == (4, 3, 16, 16)
        assert data.labels.tolist() == [0, 0, 0, 1]
        assert data.classes == 2
        assert ((data.images[:3, 0, 0, 0] + 1) * 127.5).round().tolist() == [0, 1, 2]
        assert data.images[3, :, 5, 5].tolist() == [1, -1, -1]


def test_images_are_averaged_down(tmp_path: Path) -> None:
    """Not sampled: a chessboard of single pixels becomes grey."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        board = np.indices((32, 32)).sum(axis=0) % 2 * 255
        Image.fromarray(board.astype(np.uint8)).save(tmp_path / name / "0.png")
    images = load(str(tmp_path), 16).images
    assert torch.allclose(images, torch.zeros(()), atol=1 / 127.5)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    Image.new("L", (32, 32)).save(tmp_path / "one" / "0.png")
    with pytest.raises(click.UsageError, match="1 images in 1 folders; two folders, one a class, or more"):
        load(str(tmp_path), 16)
    with pytest.raises(click.UsageError, match="neither digits, nor photos, nor a folder or zip"):
        load(str(tmp_path / "absent"), 16)
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(click.UsageError, match="neither digits"):
        load(str(tmp_path / "text.zip"), 16)
