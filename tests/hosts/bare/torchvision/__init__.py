"""What hosts' scripts ask of torchvision, for pictures that have the size of the training already."""

from torchvision import transforms, utils

__all__ = ["transforms", "utils"]
