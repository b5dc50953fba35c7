"""A picture of what squeezing does to your generator: dense, squeezed and their difference, in one process.

cd stylegan2-ada-pytorch                      # your host's folder
python path/to/side_by_side.py network.pkl out.png --ratio 2
"""

import pickle
import sys
from pathlib import Path

import click

import squeeze_patch
from squeeze_patch.evaluation.grids import grid
from squeeze_patch.evaluation.pixels import psnr
from squeeze_patch.sampling import sample


@click.command()
@click.argument("network", type=click.Path(path_type=Path, exists=True))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--ratio", type=float, help="c / q; the default saves 12.1 % of the parameters.")
@click.option("--images", default=8, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(network: Path, picture: Path, ratio: float, images: int, seed: int) -> None:
    """Draw IMAGES samples of NETWORK, a pickle that you trust, before and after squeezing."""
    sys.path.insert(0, str(Path.cwd()))  # the pickle needs the host's torch_utils
    with open(network, "rb") as stream:
        G = pickle.load(stream)["G_ema"]
    dense = sample(G, images, seed)
    with squeeze_patch.squeezed(G, ratio=ratio):
        click.echo(squeeze_patch.status(G))
        squeezed = sample(G, images, seed)
    grid(dense, squeezed).save(picture)
    click.echo(f"{psnr(dense, squeezed):.1f} dB PSNR, before any training; {picture}")


if __name__ == "__main__":
    main()
