"""C-GMVAE's head: labels are Gaussians in a latent space, from which features are decoded to meet label embeddings."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.models.heads.checks import check_dropout, check_least
from cml_bench.models.heads.head import Head, HeadMeta, HeadOutput
from cml_bench.models.layout import pool

__all__ = ["CGMVAEHead"]


class CGMVAEHead(Head):
    """Score labels by their embeddings: ``z_c = <emb, E_c>`` with ``emb`` a unit vector decoded from the feature.

    The encoder reads ``q(z|x) = N(mu, var)`` from the pooled feature x; the decoder makes of x and z the embedding. In
    training z is drawn from q, in evaluation it is mu. A label encoder, shared by the labels, reads the Gaussian of
    label c from ``E_c``; the logits do not need it, ``loss=c_gmvae`` does. With another loss the head is a stochastic
    network between feature and label embeddings, and nothing keeps var from growing: on the toy stream none of six runs
    diverges at ``lr=0.006``, four at 0.01 and all at 0.03, where with ``loss=c_gmvae`` none does. Growing appends rows
    to E.

    Source: Bai et al. 2022, "Gaussian Mixture Variational Autoencoder with Contrastive Learning for Multi-Label
    Classification" (ICML); layers and the unit length as in ``JunwenBai/C-GMVAE``. Published there for 1000-d features
    and 38 labels: latent 38, embedding 2048. Departures: rows of E start normal, of length about 1, where the release's
    start depends on the number of labels; the label encoder reads them without a common offset.

    Args:
        in_features: Width D of the features.
        latent: Dimension of the latent space.
        embedding: Width e of E; None for twice the features'.
        dropout: Probability of dropping an entry of the encoders' hidden layers in training.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = HeadMeta(
        name="c_gmvae", title="C-GMVAE", features="pooled", growth_keeps_logits=True, reference="ICML 2022, Bai et al."
    )

    def __init__(
        self, in_features: int, *, latent: int = 38, embedding: int | None = None, dropout: float = 0.5
    ) -> None:
        super().__init__(in_features)
        embedding = 2 * in_features if embedding is None else embedding
        for name, width in (("latent", latent), ("embedding", embedding)):
            check_least("c_gmvae", name, width)
        check_dropout("c_gmvae", dropout)
        self.embedding = embedding
        self.feature_encoder = _layers((in_features, 256, 512, 256), dropout)
        self.feature_gaussian = nn.Linear(256, 2 * latent)
        self.label_encoder = _layers((embedding, 512, 256), dropout)
        self.label_gaussian = nn.Linear(256, 2 * latent)
        self.decoder = nn.Sequential(
            nn.Linear(in_features + latent, 512), nn.ReLU(), nn.Linear(512, embedding), nn.LeakyReLU()
        )
        self.dropout = nn.Dropout(dropout)
        self.embeddings = nn.ParameterList()

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of embeddings (n, e)."""
        like = self.label_gaussian.weight
        block = torch.randn(len(names), self.embedding, device=like.device, dtype=like.dtype)
        self.embeddings.append(nn.Parameter(block * self.embedding**-0.5))

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n) and the pooled feature (B, D)."""
        pooled = pool(features)
        mean, log_variance = self.encode(pooled)
        latent = sample(mean, log_variance) if self.training else mean
        return HeadOutput(self.score(self.decode(pooled, latent)), pooled)

    def encode(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, (B, latent) each, of q(z|x) for (B, D) features."""
        mean, log_variance = self.feature_gaussian(self.feature_encoder(pooled)).chunk(2, dim=1)
        return mean, log_variance

    def label_gaussians(self) -> tuple[Tensor, Tensor]:
        """Return means and log-variances, (n, latent) each, of the labels' Gaussians."""
        hidden = self.label_encoder(self.dropout(F.relu(torch.cat(list(self.embeddings)))))
        means, log_variances = self.label_gaussian(hidden).chunk(2, dim=1)
        return means, log_variances

    def decode(self, pooled: Tensor, latent: Tensor) -> Tensor:
        """Return the (B, e) unit embedding of features (B, D) with latents (B, latent)."""
        return F.normalize(self.decoder(torch.cat([pooled, latent], dim=1)), dim=1)

    def score(self, embedded: Tensor) -> Tensor:
        """Return the (B, n) logits of (B, e) embeddings."""
        return embedded @ torch.cat(list(self.embeddings)).T


def sample(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Draw from a Gaussian with the reparameterisation trick; like dropout, from torch's generator of the process."""
    return mean + (log_variance / 2).exp() * torch.randn_like(mean)


def _layers(widths: tuple[int, ...], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)
