import torch


def save_image(images, path, nrow):
    torch.save(images, path + ".pt")
