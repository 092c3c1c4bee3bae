"""Densities, distances and kernels of mixtures against torch.distributions and numerical integrals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from cml_bench.losses.mixture import Components, bhattacharyya, log_density, log_kernel, similarity

SEEDS = st.integers(0, 2**31)


def draw(seed: int, images: int = 4, labels: int = 3, width: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, log weights, means and variances."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    variances = normal(images, labels).exp()
    return normal(images, width), normal(images, labels).log_softmax(1), normal(images, labels), variances


@given(seed=SEEDS)
def test_densities_are_torchs(seed: int) -> None:
    features, log_weights, means, variances = draw(seed)
    normals = Normal(means[..., None].expand(-1, -1, 5), variances[..., None].expand(-1, -1, 5).sqrt())
    components = Independent(normals, 1)
    torch.testing.assert_close(log_density(features, means, variances), components.log_prob(features[:, None]))
    mixture = MixtureSameFamily(Categorical(logits=log_weights), components)
    ours = (log_weights + log_density(features, means, variances)).logsumexp(1)
    torch.testing.assert_close(ours, mixture.log_prob(features))
    direct = -((features[:, None] - means[..., None]) ** 2).sum(2) / (2 * variances)
    torch.testing.assert_close(log_kernel(features, means, variances), direct)


def test_wide_features_do_not_underflow() -> None:
    features = 3 + torch.randn(2, 4096)
    kernel = log_kernel(features, torch.zeros(2, 1), torch.ones(2, 1))
    assert (kernel < -10000).all()
    assert kernel.isfinite().all()


@pytest.mark.parametrize("width", [1, 2])
def test_the_distance_is_the_integral_of_the_root_of_the_product(width: int) -> None:
    means, variances = torch.tensor([[0.3], [-0.8]]).double(), torch.tensor([[0.7], [1.9]]).double()
    line = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    densities = [Normal(m, v.sqrt()).log_prob(line).exp() for m, v in zip(means, variances, strict=True)]
    overlap = torch.trapezoid((densities[0] * densities[1]).sqrt(), line) ** width
    torch.testing.assert_close(bhattacharyya(means, variances, width)[0, 1, 0], -overlap.log())


@given(seed=SEEDS)
def test_equal_gaussians_have_no_distance_and_others_do(seed: int) -> None:
    _, _, means, variances = draw(seed)
    distance = bhattacharyya(means, variances, 7)
    torch.testing.assert_close(distance.diagonal(), torch.zeros(3, 4, dtype=torch.float64))
    torch.testing.assert_close(distance, distance.transpose(0, 1))
    assert (distance[0, 1] > 0).all()


@given(seed=SEEDS)
def test_similarity_is_the_normalised_integral_of_the_product(seed: int) -> None:
    _, log_weights, means, variances = draw(seed, images=3)
    line = torch.linspace(-40, 40, 40001, dtype=torch.float64)
    density = (
        (log_weights[..., None] + Normal(means[..., None], variances[..., None].sqrt()).log_prob(line)).exp().sum(1)
    )
    products = torch.trapezoid(density[:, None] * density, line)
    expected = products / (products.diagonal()[:, None] * products.diagonal()).sqrt()
    torch.testing.assert_close(similarity(log_weights, means, variances, 1), expected, rtol=1e-5, atol=1e-7)


@given(seed=SEEDS, width=st.sampled_from([1, 64, 2048]))
def test_similarity_is_one_with_itself_symmetric_and_never_more(seed: int, width: int) -> None:
    _, log_weights, means, variances = draw(seed)
    alike = similarity(log_weights, means, variances, width)
    torch.testing.assert_close(alike.diagonal(), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(alike, alike.T)
    assert ((alike >= 0) & (alike <= 1 + 1e-9)).all()


def test_components_start_as_published_and_grow_by_blocks() -> None:
    components, features = Components(), torch.randn(6, 10)
    components.reach(2, features)
    means, variances = components.mean_rows, components.variance_rows
    assert ((means.weights[0] >= 0) & (means.weights[0] <= 0.1)).all()
    assert (variances.weights[0] == 1).all()
    before, old = components(features), [id(p) for p in components.parameters()]
    components.reach(2, features)
    assert [id(p) for p in components.parameters()] == old
    components.reach(5, features)
    after = components(features)
    for narrow, wide in zip(before, after, strict=True):
        assert wide.shape == (6, 5)
        torch.testing.assert_close(wide[:, :2], narrow)
    assert (after[1] > 1).all()
    far = components(torch.full((1, 10), -100.0))[1]
    assert (far >= 1).all()


def test_components_are_read_off_the_features_as_published() -> None:
    """Means are linear; a variance is two and more by an ELU of the width's own scale."""
    components, features = Components(), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    components.reach(2, features)
    means, variances = components(features)
    torch.testing.assert_close(means, features @ components.mean_rows.weights[0].T)
    read = features @ components.variance_rows.weights[0].T
    torch.testing.assert_close(variances, 2 + 1e-7 + torch.where(read > 0, read, read.exp() - 1))
