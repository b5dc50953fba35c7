import numpy as np
import torch


def Lambda(function):
    return function


def Resize(size):
    return _checked(size)


def CenterCrop(size):
    return _checked(size)


def RandomResizedCrop(size, scale, ratio):
    return _checked(size)


def _checked(size):
    def same(image):
        assert image.size == (size, size)
        return image

    return same


def RandomHorizontalFlip():
    return lambda image: image


def ToTensor():
    return lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def Normalize(mean, std, inplace):
    assert mean == std == (0.5, 0.5, 0.5)
    return lambda x: 2 * x - 1


def Compose(steps):
    def apply(image):
        for step in steps:
            image = step(image)
        return image

    return apply
