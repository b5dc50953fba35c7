"""lucidrains' stylegan2-pytorch."""
