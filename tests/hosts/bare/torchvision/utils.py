"""save_image as the scripts know it; torchvision has renamed its ``range`` since."""

import torch


def save_image(images, path, nrow, normalize=False, range=None):
    assert range == ((-1, 1) if normalize else None)
    torch.save(images, path + ".pt")
