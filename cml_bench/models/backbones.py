"""Backbones: any timm model as an image-to-features module, with a record of where its weights came from."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.models.checkpoints import Checkpoint, check_pretraining, folded_norms, load_weights, read_checkpoint
from cml_bench.models.divided import is_divided, read_share
from cml_bench.models.evaluating import evaluating
from cml_bench.models.layout import FeatureKind, Features
from cml_bench.models.lone_image import running_statistics_if_alone
from cml_bench.models.pyramid import Level, find_levels, read_levels

if TYPE_CHECKING:
    from typing_extensions import Self


class Backbone(nn.Module):
    """A timm model that returns its last spatial map, or a vector where it has none.

    Attributes:
        kind: What ``forward`` returns, as the head asks for it; see ``read``.
        name: timm name.
        out_features: Width D of the features.
        spatial: Whether the features are a map (B, D, H, W); else they are vectors (B, D).
        image_size: Side in pixels of the square images the model expects.
        mean: Per-channel mean to subtract, of images in [0, 1].
        std: Per-channel standard deviation to divide by.
        bf16: Whether ``forward`` computes in bfloat16 where autocast finds that safe; what it returns is float32.
        trainable: Whether images can be fed to it in training; else it is read once for every image, into the cache.
        record: What a result keeps: name, options, number of parameters, checkpoint file name and sha256, pretraining
            set, image size, mean and std.
    """

    kind: FeatureKind = "map"
    bf16 = False
    trainable = True

    def __init__(
        self,
        model: nn.Module,
        name: str,
        *,
        options: dict[str, Any],
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.image_size = image_size
        self.mean = mean
        self.std = std
        # Means and variances of a batch would change what the layer before, which holds the trained ones, says.
        self._folded = folded_norms(model, checkpoint) if checkpoint else ()
        self.out_features, self.spatial = self._probe()
        self.record: dict[str, Any] = {
            "name": name,
            "options": options,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "checkpoint": checkpoint.path.name if checkpoint else None,
            "sha256": checkpoint.sha256 if checkpoint else None,
            "pretraining": checkpoint.pretraining if checkpoint else "none",
            "image_size": image_size,
            "mean": list(mean),
            "std": list(std),
        }

    def train(self, mode: bool = True) -> Self:
        """Set the mode; batch norms that were folded into the layers before scale and shift alone, in either."""
        super().train(mode)
        for name in self._folded:
            self.model.get_submodule(name).eval()
        return self

    def forward(self, images: Tensor) -> Features:
        """Return the features of float images (B, 3, H, W), of the backbone's ``kind``.

        Where a job is divided among processes, each reads its share; see ``models.divided``. In training an image that
        is alone in its batch is normalised by the running statistics where its map is a single position.
        """
        if self.training and len(images) == 1:
            # A compiled backbone would not see what changes in its layers.
            features: Features = torch.compiler.disable(self._read_alone)(images)
            return features
        return read_share(self, self._read, images) if is_divided() else self._read(images)

    def _read_alone(self, images: Tensor) -> Features:
        with running_statistics_if_alone(self.model):
            return self._read(images)

    def _read(self, images: Tensor) -> Features:
        if not self.bf16:
            return self.read(images, self.kind)
        with torch.autocast(images.device.type, torch.bfloat16):
            features = self.read(images, self.kind)
        return tuple(level.float() for level in features) if isinstance(features, tuple) else features.float()

    @functools.cached_property
    def levels(self) -> tuple[Level, ...]:
        """Levels of the model's feature pyramid, finest first; see ``find_levels``."""
        return find_levels(self.model, self.name, self.image_size)

    def read(self, images: Tensor, kind: FeatureKind, ids: npt.NDArray[np.uint64] | None = None) -> Features:
        """Return the features of a kind.

        Args:
            images: (B, 3, H, W) float.
            kind: ``tokens`` for (B, 1 + N, D), the class token and the positions, where the model has a class token;
                ``pyramid`` for a tuple of maps; in all other cases the map (B, D, H, W), or (B, D) of a model without
                one.
            ids: (B,) ``stable_keys`` of the images' ids, for a backbone that draws something for every image.
        """
        if kind == "pyramid":
            return read_levels(self.model, self.levels, images)
        if not self.spatial:
            pooled: Tensor = self.model(images)
            return pooled
        features: Tensor = self.model.forward_features(images)  # type: ignore[operator]
        if kind == "tokens" and features.dim() == 3 and getattr(self.model, "has_class_token", False):
            # Registers, and the distillation token of DeiT, stand between the class token and the positions.
            return torch.cat([features[:, :1], features[:, int(self.model.num_prefix_tokens) :]], dim=1)  # type: ignore[arg-type]
        spatial = self._as_map(features)
        assert spatial is not None  # the probe has seen this very layout
        return spatial

    def _as_map(self, features: object) -> Tensor | None:
        """Bring timm's layouts, (B, D, H, W), (B, H, W, D) or tokens (B, P + H*W, D), to a map; None if it is none."""
        if not isinstance(features, Tensor) or features.dim() not in (3, 4):
            return None
        if features.dim() == 4:
            return features.permute(0, 3, 1, 2) if getattr(self.model, "output_fmt", "NCHW") == "NHWC" else features
        tokens = features[:, int(getattr(self.model, "num_prefix_tokens", 0)) :]
        side = math.isqrt(tokens.shape[1])
        if side == 0 or side * side != tokens.shape[1]:
            return None
        return tokens.transpose(1, 2).reshape(*tokens.shape[::2], side, side)

    @torch.no_grad()
    def _probe(self) -> tuple[int, bool]:
        """Return the feature width, and whether there is a map, from one black image."""
        image = torch.zeros(1, 3, self.image_size, self.image_size)
        try:
            with evaluating(self.model):
                spatial = self._as_map(self.model.forward_features(image))  # type: ignore[operator]
                width = int((spatial if spatial is not None else self.model(image)).shape[1])
        except (RuntimeError, AssertionError) as error:
            # timm asserts on image sizes that a model cannot take.
            reason = " ".join(str(error).split())
            raise CmlBenchError(
                f"backbone {self.name!r} does not take images of {self.image_size} px ({reason}); "
                "give another image_size, or none for the model's own"
            ) from None
        return width, spatial is not None


def build_backbone(
    name: str,
    *,
    checkpoint: Path | None = None,
    pretrained_on: str | None = None,
    image_size: int | None = None,
    evaluated_on: Sequence[str] = (),
    **timm_options: Any,
) -> Backbone:
    """Build a timm model without its classifier, with weights from a file or random ones; or another kind of backbone.

    Nothing is downloaded. Random weights are drawn from torch's current generator, which the caller isolates.

    Args:
        name: timm model name, e.g. ``"resnet101"``, or ``"diff_feat:block=12,step=100"`` (see ``build_diff_feat``).
        checkpoint: ``.safetensors`` file, or a torch file that holds tensors only.
        pretrained_on: Data set the checkpoint was trained on; needed where the file does not declare it.
        image_size: Side of the square images in pixels; default: the model's own.
        evaluated_on: Names of the data the backbone will be evaluated on (``Source.pretraining_names``).
        timm_options: Further options of ``timm.create_model``; ``pad_type`` is taken from the file if not given.

    Raises:
        CmlBenchError: If the name or an option is unknown, the checkpoint does not fit the model, its pretraining set
            is not declared, or the model was trained on the data it would be evaluated on.
    """
    kind, _, written = name.partition(":")
    if kind == "diff_feat":
        from cml_bench.models.diff_feat import build_diff_feat  # it is a backbone itself

        if timm_options:
            raise CmlBenchError(f"backbone diff_feat has no use for timm's {timm_options}: set backbone_options=[]")
        return build_diff_feat(
            written,
            checkpoint=checkpoint,
            pretrained_on=pretrained_on,
            image_size=image_size,
            evaluated_on=evaluated_on,
        )
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        known, bare = timm.list_models(), architecture.replace("_", "").replace("-", "")
        alike = [each for each in known if each.replace("_", "").startswith(bare)]
        raise CmlBenchError(f"timm has no model {name!r}; {suggest(architecture, alike or known)}")
    stored = None
    if checkpoint is not None:
        stored = read_checkpoint(checkpoint, architecture, pretrained_on)
        check_pretraining(stored, evaluated_on)
        if "pad_type" in stored.metadata:
            timm_options.setdefault("pad_type", stored.metadata["pad_type"])
    elif pretrained_on is not None:
        raise CmlBenchError(
            f"pretrained_on={pretrained_on!r} is given without a checkpoint; name the file or leave it out"
        )
    model = _create(name, image_size, timm_options)
    if stored is not None:
        load_weights(model, stored)
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    return Backbone(
        model,
        name,
        options=dict(timm_options),
        image_size=image_size or int(config["input_size"][-1]),
        mean=(stored and stored.channel_statistics("mean")) or tuple(config["mean"]),
        std=(stored and stored.channel_statistics("std")) or tuple(config["std"]),
        checkpoint=stored,
    )


def _create(name: str, image_size: int | None, options: dict[str, Any]) -> nn.Module:
    """Call ``timm.create_model``; a model with a fixed grid (a ViT, say) is built for the image size asked for."""
    sized: dict[str, Any] = {}
    try:
        config = timm.get_pretrained_cfg(name)
        if image_size is not None and config is not None and config.fixed_input_size:
            sized["img_size"] = image_size
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **sized, **options)
    except (TypeError, RuntimeError, ValueError, AssertionError, KeyError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in {**sized, **options}.items()) or "no options"
        reason = " ".join(str(error).split())
        raise CmlBenchError(f"timm cannot build {name!r} with {given}: {reason}; correct or drop the option") from None
    return model
