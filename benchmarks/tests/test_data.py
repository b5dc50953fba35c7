"""Images of a folder or zip: sizes, order, classes, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

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


def grey(path: Path, value: int = 9, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (32, 32), value).save(path, **how)


def test_values_above_255(tmp_path: Path) -> None:
    """Of 16 bits the upper eight count; where nothing says which value is white, it is refused."""
    grey(tmp_path / "b" / "0.png")
    for name in ("0.png", "1.tif", "2.pgm"):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(np.full((32, 32), 100 * 256, np.uint16)).save(tmp_path / "a" / name)
    assert ((load(str(tmp_path), 16).images[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [100, 100, 100, 9]
    Image.fromarray(np.full((32, 32), 0.4, np.float32)).save(tmp_path / "a" / "3.tif")
    with pytest.raises(click.UsageError, match="a/3.tif cannot be read as an image: pixels of 32 bits"):
        load(str(tmp_path), 16)


def test_images_are_turned_as_the_camera_notes(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 32))
    image.paste((255, 255, 255), (0, 0, 32, 16))
    upside_down = image.getexif()
    upside_down[0x0112] = 3
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "0.jpg", exif=upside_down)
    assert load(str(tmp_path), 16).images[0, 0, :, 5].sign().tolist() == [-1] * 8 + [1] * 8


def test_what_lies_beside_images(tmp_path: Path) -> None:
    """Hidden files, a PDF and a folder that is called as an image are passed over; classes behind links are not."""
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for place in (folder / "a", folder / "b", elsewhere):
        grey(place / "0.png")
    (folder / "a" / "._0.png").write_bytes(b"resource")
    (folder / "a" / "about.pdf").write_bytes(b"%PDF")
    (folder / "b.png").mkdir()
    (folder / "c").symlink_to(elsewhere)
    (folder / "c" / "round").symlink_to(folder)
    assert load(str(folder), 16).labels.tolist() == [0, 1, 2]
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in ("a", "b"):
            archive.write(folder / name / "0.png", f"data/{name}/0.png")
            archive.writestr(f"__MACOSX/data/{name}/._0.png", b"resource")
    assert load(str(tmp_path / "data.zip"), 16).labels.tolist() == [0, 1]


def test_damaged_images_are_named(tmp_path: Path) -> None:
    folder, zipped = tmp_path / "data", tmp_path / "data.zip"
    grey(folder / "a" / "0.png")
    whole = (folder / "a" / "0.png").read_bytes()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a/0.png", whole)
    zipped.write_bytes(zipped.read_bytes().replace(b"IDAT", b"IDAD", 1))
    with pytest.raises(click.UsageError, match="data.zip: a/0.png cannot be read: Bad CRC-32"):
        load(str(zipped), 16)
    (folder / "a" / "0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(click.UsageError, match="data: a/0.png cannot be read as an image"):
        load(str(folder), 16)
