"""Diff-Feat: what a block of a diffusion transformer makes of an image that was noised a little, frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.backbones import Backbone
from cml_bench.models.checkpoints import Checkpoint, check_pretraining, digest_of
from cml_bench.models.extras import import_extra
from cml_bench.models.layout import FeatureKind
from cml_bench.options import convert, parse_pairs

_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Place:
    """Where features are taken, written ``diff_feat:block=12,step=100``.

    Attributes:
        block: Number of the block whose output is read, counted from 1.
        step: Number of steps by which the image is noised: 0 is the image itself.
        seed: Draws the noise.
    """

    block: int
    step: int
    seed: int = 0


class Denoiser(nn.Module):
    """The part of a latent diffusion transformer that stands before the output of one block.

    ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps`` with the VAE's latent x_0 of the image; the transformer is told
    the null class and the index that the scheduler has for step t, which is t - 1.

    Args:
        vae: ``diffusers.AutoencoderKL``.
        transformer: ``diffusers.DiTTransformer2DModel``.
        scheduler: ``diffusers.DDIMScheduler``.
        place: Where features are taken.

    Raises:
        CmlBenchError: If there is no such block or step.
    """

    alpha_bar: Tensor

    def __init__(self, vae: Any, transformer: Any, scheduler: Any, place: Place) -> None:
        super().__init__()
        depth, steps = len(transformer.transformer_blocks), len(scheduler.alphas_cumprod)
        if not 1 <= place.block <= depth:
            raise CmlBenchError(f"block={place.block} of diff_feat is not there: take 1 to {depth}")
        if not 0 <= place.step <= steps:
            raise CmlBenchError(f"step={place.step} of diff_feat is not there: take 0 to {steps}")
        self.encoder, self.quantize = vae.encoder, vae.quant_conv
        self.scaling = float(vae.config.scaling_factor)
        self.embed = transformer.pos_embed
        self.blocks = transformer.transformer_blocks[: place.block]
        self.depth, self.steps = depth, steps
        self.timestep = max(place.step - 1, 0)
        # The embedding after those of the classes stands for none of them.
        self.null_class = int(transformer.config.num_embeds_ada_norm)
        kept = torch.cat([torch.ones(1), scheduler.alphas_cumprod])
        self.register_buffer("alpha_bar", kept[place.step].clone())

    def encode(self, images: Tensor) -> Tensor:
        """Return the most probable latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]."""
        moments = self.encoder(images)
        if self.quantize is not None:
            moments = self.quantize(moments)
        mean: Tensor = moments.chunk(2, dim=1)[0]
        return mean * self.scaling

    def forward_features(self, images: Tensor, ids: npt.NDArray[np.uint64] | None = None, seed: int = 0) -> Tensor:
        """Return the (B, N, D) tokens after the block.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            ids: (B,) keys of the images, which the noise follows from; None for no noise.
            seed: Draws the noise.
        """
        latents = self.encode(images)
        if ids is not None and self.alpha_bar < 1:
            noise = torch.stack([_noise(latents.shape[1:], key, seed) for key in ids.tolist()]).to(latents)
            latents = self.alpha_bar.sqrt() * latents + (1 - self.alpha_bar).sqrt() * noise
        tokens: Tensor = self.embed(latents)
        timestep = torch.full((len(images),), self.timestep, device=images.device)
        labels = torch.full((len(images),), self.null_class, device=images.device)
        for block in self.blocks:
            tokens = block(tokens, timestep=timestep, class_labels=labels)
        return tokens


class DiffFeat(Backbone):
    """A frozen diffusion transformer as a backbone; its map is read once for every image, into the cache.

    The noise of an image follows from its id and a seed, so an image has the same features whatever else is in its
    batch, under every class order and in every run.

    Source: arXiv 2509.15553, no code is public. From the abstract: features of one block at one step, for images
    best near the middle of both ("layer 12"). Inferred: the formula of the noise, the null class, the mean of the
    latent's distribution, blocks counted from 1, and a pooled feature that is the mean over tokens.
    """

    trainable = False
    model: Denoiser

    def __init__(self, model: Denoiser, place: Place, image_size: int, checkpoint: Checkpoint) -> None:
        options = {"block": place.block, "step": place.step, "seed": place.seed}
        super().__init__(
            model, "diff_feat", options=options, image_size=image_size, mean=_HALF, std=_HALF, checkpoint=checkpoint
        )
        self.place = place

    def read(self, images: Tensor, kind: FeatureKind, ids: npt.NDArray[np.uint64] | None = None) -> Tensor:
        """Return the map (B, D, h, w).

        Args:
            images: (B, 3, H, W) in [-1, 1].
            kind: All but ``pyramid`` give the map: there is no class token.
            ids: (B,) ``stable_keys`` of the images' ids.

        Raises:
            CmlBenchError: If the ids are not known, or a pyramid is asked for.
        """
        if kind == "pyramid":
            raise CmlBenchError("backbone diff_feat has one map, and this head reads several: take another backbone")
        if ids is None:
            raise CmlBenchError("diff_feat noises every image by its id, so it is read into the cache: set frozen=true")
        spatial = self._as_map(self.model.forward_features(images, ids, self.place.seed))
        assert spatial is not None  # images are square
        return spatial


def _noise(shape: Sequence[int], key: int, seed: int) -> Tensor:
    """Return the noise of an image."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    # Drawn on the CPU: the same on every device.
    return torch.randn(*shape, generator=torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1))


def build_diff_feat(
    written: str,
    *,
    checkpoint: Path | None,
    pretrained_on: str | None,
    image_size: int | None = None,
    evaluated_on: Sequence[str] = (),
) -> DiffFeat:
    """Build the backbone from a folder of diffusers weights: ``vae``, ``transformer`` and ``scheduler``.

    Args:
        written: ``block=12,step=100``, and ``seed=1`` for other noise; see ``Place``.
        checkpoint: The folder, as ``DiTPipeline.save_pretrained`` writes it.
        pretrained_on: What the weights were trained on; the folder does not say.
        image_size: Side of the square images in pixels; default: the transformer's own.
        evaluated_on: Names of the data the backbone will be evaluated on.

    Raises:
        CmlBenchError: If diffusers is not installed, the folder, what it was trained on or the place is missing, or
            something does not fit.
    """
    place = Place(
        **convert(Place, dict(parse_pairs(written.split(",") if written else [])), owner="backbone diff_feat")
    )
    if checkpoint is None or not checkpoint.is_dir():
        raise CmlBenchError(
            f"checkpoint={checkpoint} is no folder, and diff_feat reads one: save a DiTPipeline there with "
            "save_pretrained"
        )
    if not pretrained_on:
        raise CmlBenchError(f"checkpoint {checkpoint} does not declare what it was trained on; pass pretrained_on")
    stored = Checkpoint(checkpoint, digest_of(checkpoint), pretrained_on, {}, {})
    check_pretraining(stored, evaluated_on)
    vae = _load("AutoencoderKL", checkpoint, "vae")
    transformer = _load("DiTTransformer2DModel", checkpoint, "transformer")
    scheduler = _load("DDIMScheduler", checkpoint, "scheduler")
    shrinks = 2 ** (len(vae.config.block_out_channels) - 1)
    size = image_size or transformer.config.sample_size * shrinks
    if size % (shrinks * transformer.config.patch_size):
        raise CmlBenchError(
            f"image_size={size} does not divide into patches of {shrinks * transformer.config.patch_size} px: take a "
            "multiple, or none for the model's own"
        )
    return DiffFeat(Denoiser(vae, transformer, scheduler, place).requires_grad_(False), place, size, stored)


def _load(kind: str, folder: Path, part: str) -> Any:
    """Load one part; nothing is downloaded, nothing executed, nothing left at random values."""
    diffusers = import_extra("diffusers", extra="diffusion", what="backbone diff_feat")
    options: dict[str, Any] = {"subfolder": part, "local_files_only": True}
    try:
        if part == "scheduler":
            return getattr(diffusers, kind).from_pretrained(folder, **options)
        with torch.random.fork_rng(devices=[]):
            model, info = getattr(diffusers, kind).from_pretrained(
                folder, **options, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CmlBenchError(
            f"{folder / part} cannot be read as {kind} ({reason[:200]}): save it with save_pretrained, as safetensors"
        ) from None
    if info["missing_keys"] or info["mismatched_keys"]:
        raise CmlBenchError(f"{folder / part} lacks weights, {sorted(info['missing_keys'])[:3]} for one: save it again")
    return model
