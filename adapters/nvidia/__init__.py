"""NVIDIA's StyleGAN2 networks and their relatives."""
