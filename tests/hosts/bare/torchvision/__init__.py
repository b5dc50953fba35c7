"""What lucidrains' data set and sample pictures ask of torchvision."""

from torchvision import transforms, utils

__all__ = ["transforms", "utils"]
