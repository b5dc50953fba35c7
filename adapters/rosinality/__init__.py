"""rosinality's stylegan2-pytorch, basicsr and gfpgan."""
