"""What rosinality's generate.py needs of torchvision."""
