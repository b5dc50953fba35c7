"""A training script in the form that the NVIDIA family's have, small and for the CPU, on whatever host is on the path.

The options, their names and their way to the processes are the family's; networks, loss, resume and snapshots are the
host's own. One tick is one step of 4 images per process.
"""

import copy
import os
import pickle
import tempfile

import click
import dnnlib
import legacy
import numpy as np
import torch
from torch_utils import misc, training_stats
from training import loss as host_loss


class Grey:
    """What scripts and training loops ask of a data set."""

    resolution, num_channels, label_dim = 8, 3, 0


def setup_training_loop_kwargs(steps, gpus, resume):
    synthesis = dnnlib.EasyDict(channel_base=256, channel_max=32, num_fp16_res=0, conv_clamp=None)
    G_kwargs = dnnlib.EasyDict(
        class_name="training.networks.Generator",
        z_dim=16,
        w_dim=16,
        mapping_kwargs=dnnlib.EasyDict(num_layers=2),
        synthesis_kwargs=synthesis,
    )
    D_kwargs = dnnlib.EasyDict(
        class_name="training.networks.Discriminator", channel_base=256, channel_max=32, num_fp16_res=0
    )
    options = dnnlib.EasyDict(G_kwargs=G_kwargs, D_kwargs=D_kwargs, steps=steps, num_gpus=gpus)
    options.training_set_kwargs = dnnlib.EasyDict(class_name="train.Grey")
    if resume:
        options.resume_pkl = resume
    return "mini", options


def subprocess_fn(rank, args, temp_dir):
    if args.num_gpus > 1:
        store = f"file://{os.path.join(temp_dir, 'store')}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=args.num_gpus)
    training_stats.init_multiprocessing(rank=rank, sync_device=None)
    training_loop(rank=rank, **args)
    if args.num_gpus > 1:
        torch.distributed.barrier()  # nobody leaves while another still talks to it
        torch.distributed.destroy_process_group()


def training_loop(rank, G_kwargs, D_kwargs, training_set_kwargs, steps, num_gpus, run_dir, resume_pkl=None):
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    images = dnnlib.util.construct_class_by_name(**training_set_kwargs)
    common = {"c_dim": images.label_dim, "img_resolution": images.resolution, "img_channels": images.num_channels}
    sampler = misc.InfiniteSampler(list(range(8)), rank=rank, num_replicas=num_gpus)
    G = dnnlib.util.construct_class_by_name(**G_kwargs, **common).train().requires_grad_(False)
    D = dnnlib.util.construct_class_by_name(**D_kwargs, **common).train().requires_grad_(False)
    G_ema = copy.deepcopy(G).eval()
    if resume_pkl is not None and rank == 0:
        with dnnlib.util.open_url(resume_pkl) as f:
            data = legacy.load_network_pkl(f)
        for name, module in [("G", G), ("D", D), ("G_ema", G_ema)]:
            misc.copy_params_and_buffers(data[name], module, require_all=False)
    parts = {"mapping": G.mapping, "synthesis": G.synthesis}
    if num_gpus > 1:
        for module in (*parts.values(), D, G_ema):
            module.requires_grad_(True)
            wrapped = torch.nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)
            module.requires_grad_(False)
            parts.update({name: wrapped for name, part in list(parts.items()) if part is module})

    class Parts:  # what the host's loss calls
        mapping, synthesis = parts["mapping"], parts["synthesis"]

    loss = host_loss.StyleGAN2Loss(torch.device("cpu"), Parts, D, r1_gamma=1)
    optimizer = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.0, 0.99))
    images = iter(sampler)
    for _ in range(steps):
        G.requires_grad_(True)
        optimizer.zero_grad(set_to_none=True)
        real = torch.full([4, 3, 8, 8], float(next(images)) / 8)
        z = torch.randn(4, 16)
        loss.accumulate_gradients("Gmain", real, torch.zeros(4, 0), z, torch.zeros(4, 0), gain=1, cur_nimg=0)
        optimizer.step()
        G.requires_grad_(False)
        for ema, now in zip(G_ema.parameters(), G.parameters()):
            ema.copy_(now.lerp(ema, 0.9))
    if num_gpus > 1:
        misc.check_ddp_consistency(G, ignore_regex=r".*\.w_avg")
    if rank == 0:
        snapshot = {"training_set_kwargs": None, "augment_pipe": None}
        for name, module in [("G", G), ("D", D), ("G_ema", G_ema)]:
            snapshot[name] = copy.deepcopy(module).eval().requires_grad_(False)
        with open(os.path.join(run_dir, "network-snapshot.pkl"), "wb") as f:
            pickle.dump(snapshot, f)
        np.savez(os.path.join(run_dir, "done.npz"), steps=steps)


# the scripts that it stands for have many more options
@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--outdir", required=True)
@click.option("--gpus", type=int, default=1)
@click.option("--steps", type=int, default=2)
@click.option("--resume")
def main(outdir, gpus, steps, resume):
    """Train on plain grey images."""
    description, args = setup_training_loop_kwargs(steps=steps, gpus=gpus, resume=resume)
    args.run_dir = os.path.join(outdir, description)
    os.makedirs(args.run_dir)
    torch.multiprocessing.set_start_method("spawn")
    with tempfile.TemporaryDirectory() as temp_dir:
        if gpus == 1:
            subprocess_fn(rank=0, args=args, temp_dir=temp_dir)
        else:
            torch.multiprocessing.spawn(fn=subprocess_fn, args=(args, temp_dir), nprocs=gpus)


if __name__ == "__main__":
    main()
