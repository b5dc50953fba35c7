"""A data set of four random images, in the place of a file of the database lmdb."""

import contextlib
import io
import random

from PIL import Image


class _Environment:
    @contextlib.contextmanager
    def begin(self, write):
        assert not write
        yield self

    def get(self, key):
        if key == b"length":
            return b"4"
        size, index = (int(part) for part in key.split(b"-"))
        pixels = random.Random(index).randbytes(3 * size * size)
        stream = io.BytesIO()
        Image.frombytes("RGB", (size, size), pixels).save(stream, "PNG")
        return stream.getvalue()


def open(path, **_options):
    return _Environment()
