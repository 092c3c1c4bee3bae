"""The text tower of a CLIP model, from weights on the user's disk, frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.models.checkpoints import read_weights
from cml_bench.models.extras import import_extra

DEFAULT_PROMPT = "a photo of a {name}."


@dataclass(frozen=True)
class TextSource:
    """A text tower as it is written: ``open_clip:MODEL:WEIGHTS_FILE[:prompt]``.

    Attributes:
        model: Name of an open_clip model, ``ViT-B-16`` say.
        weights: File of its weights.
        prompt: What is said of a label, with ``{name}`` in the place of its name.
    """

    model: str
    weights: Path
    prompt: str = DEFAULT_PROMPT

    def prompts(self, names: Sequence[str]) -> list[str]:
        """Return what is said of each label; an underscore in a name is read as a blank."""
        return [self.prompt.replace("{name}", plain(name)) for name in names]


def plain(name: str) -> str:
    """Return a label's name as it is spoken."""
    return name.replace("_", " ")


def parse_text_tower(source: str) -> TextSource:
    """Parse ``open_clip:MODEL:WEIGHTS_FILE[:prompt]``.

    Raises:
        CmlBenchError: If the model or the file is not named, or the prompt has no place for a name.
    """
    _, *parts = source.split(":", 3)
    if len(parts) < 2 or not all(parts[:2]):
        raise CmlBenchError(f"text vectors {source!r} name no weights: write open_clip:MODEL:WEIGHTS_FILE")
    prompt = parts[2] if len(parts) > 2 else DEFAULT_PROMPT
    if "{name}" not in prompt:
        raise CmlBenchError(f"prompt {prompt!r} has no place for the label: write {{name}} there")
    return TextSource(parts[0], Path(parts[1]), prompt)


class TextTower(nn.Module):
    """A frozen text encoder: byte-pair tokens, a causal transformer read at the end of the text, a projection.

    Sequences are cut where the longest of them ends: later positions have no say in a causal transformer, and prompts
    fill a tenth of the 77 positions.

    Args:
        clip: An ``open_clip.CLIP`` model; its image tower is left behind.
        tokenize: Texts to (n, L) int64 token ids, 0 after the end.

    Attributes:
        width: Width of a token.
        out_features: Width d of a text vector.
        image_projection: (D, d), from the width of the model's own image tower into the space of its text vectors; None
            if the image tower has none.
    """

    image_projection: Tensor | None
    attn_mask: Tensor

    def __init__(self, clip: Any, tokenize: Callable[[list[str]], Tensor]) -> None:
        super().__init__()
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.register_buffer("attn_mask", clip.attn_mask, persistent=False)
        projection = getattr(clip.visual, "proj", None)
        self.register_buffer("image_projection", None if projection is None else projection.detach().clone())
        self.tokenize = tokenize
        self.width = int(self.positional_embedding.shape[1])
        self.requires_grad_(False).eval()
        self.out_features = self.encode(["a"]).shape[1]

    def train(self, mode: bool = True) -> TextTower:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the (n, d) unit vectors of n texts."""
        return F.normalize(self._read(*self._embed(self.tokenize(list(texts)))), dim=1)

    def encode_prompts(self, context: Tensor, ids: Tensor) -> Tensor:
        """Return the (n, d) vectors of n prompts whose first words are learnt; gradients reach these alone.

        Args:
            context: (M, width) learnt words, shared by all prompts.
            ids: (n, L) token ids, as ``prompt_ids`` gives them.
        """
        words, ends = self._embed(ids)
        learnt = context.expand(len(words), -1, -1)
        return self._read(torch.cat([words[:, :1], learnt, words[:, 1 + len(context) :]], dim=1), ends)

    def prompt_ids(self, names: Sequence[str], words: int) -> Tensor:
        """Return the (n, L) ids of prompts: so many words to be learnt, a label's name and a full stop."""
        # Any word that is one token holds the place.
        return self.tokenize([" ".join(["X"] * words + [f"{plain(name)}."]) for name in names])

    def _embed(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return token embeddings (n, l, width), cut at the last end of a text, and where each text ends (n,)."""
        ids = ids.to(self.positional_embedding.device)
        # The token that ends a text has the largest id of all.
        ends = ids.argmax(dim=1)
        embedded: Tensor = self.token_embedding(ids[:, : int(ends.max()) + 1])
        return embedded, ends

    def _read(self, embedded: Tensor, ends: Tensor) -> Tensor:
        length = embedded.shape[1]
        states = self.transformer(
            embedded + self.positional_embedding[:length], attn_mask=self.attn_mask[:length, :length]
        )
        read: Tensor = self.ln_final(states)[torch.arange(len(ends), device=ends.device), ends]
        if isinstance(self.text_projection, nn.Linear):
            read = self.text_projection(read)
        elif self.text_projection is not None:
            read = read @ self.text_projection
        return read


def load_text_tower(source: TextSource) -> TextTower:
    """Build a text tower with weights from disk; nothing is downloaded, torch's generators stay where they are.

    Raises:
        CmlBenchError: If open_clip is not installed, does not know the model, the model is not of CLIP's own kind, or
            the weights do not fit it.
    """
    open_clip = import_extra("open_clip", extra="vision_language", what=f"the text tower of {source.model!r}")
    if source.model not in open_clip.list_models():
        raise CmlBenchError(
            f"open_clip has no model {source.model!r}; {suggest(source.model, open_clip.list_models())}"
        )
    config = open_clip.get_model_config(source.model)
    text = config["text_cfg"]
    foreign = config.get("custom_text") or {"hf_model_name", "hf_tokenizer_name"} & set(text)
    if foreign or text.get("no_causal_mask") or text.get("pool_type", "argmax") != "argmax":
        raise CmlBenchError(
            f"open_clip model {source.model!r} has no causal text tower with CLIP's own tokens: take ViT-B-16, say"
        )
    weights = {key.removeprefix("module."): value for key, value in read_weights(source.weights)[0].items()}
    with torch.random.fork_rng(devices=[]):
        clip = open_clip.CLIP(**config)
    try:
        clip.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CmlBenchError(
            f"weights {source.weights} do not fit open_clip model {source.model!r} ({reason[:200]}); "
            "check the model's name"
        ) from None
    return TextTower(clip, open_clip.get_tokenizer(source.model))
