"""HP-DVAL's head: its two scores, CLIP itself as the oracle of its prompts, growth without parameters."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.hp_dval import HPDVALHead
from cml_bench.models.text_vectors import text_vectors
from cml_bench.models.word_vectors import project_queries
from cml_bench.testing.heads import check_head

NAMES = ("cat", "traffic_light", "bus")
D, B, N = 12, 4, 9


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make(names=NAMES, width=D, **options):
    head = HPDVALHead(width, **options)
    with torch.no_grad():
        head.global_words.mul_(20)
        head.local_words.mul_(20)
    head.grow(names)
    return head.eval()


def tokens(batch=B, positions=N):
    return torch.randn(batch, 1 + positions, D)


def cosine(one, other):
    return float(one @ other / one.norm() / other.norm())


@pytest.mark.parametrize(("alpha", "k"), [(0.4, 3), (1.0, 3), (0.0, 1), (0.7, 100)])
def test_against_a_loop(alpha, k):
    head = make(alpha=alpha, k=k, width=D, words=2)
    features = tokens()
    with torch.no_grad():
        names = project_queries(text_vectors("hash", NAMES), 512, 1.0)
        logits = head(features).logits / head.log_scale.exp()
        for image in range(B):
            embedded = head.embed(features[image])
            for label in range(len(NAMES)):
                whole = cosine(names[label] + head.global_words.mean(0), embedded[0])
                local = names[label] + head.local_words.mean(0)
                parts = sorted((cosine(local, part) for part in embedded[1:]), reverse=True)[:k]
                expected = alpha * whole + (1 - alpha) * sum(parts) / len(parts)
                assert float(logits[image, label]) == pytest.approx(expected, abs=1e-5)


def test_alpha_one_looks_at_the_whole_alone():
    head, features = make(alpha=1.0), tokens()
    other = torch.cat([features[:, :1], torch.randn(B, N, D)], dim=1)
    assert torch.equal(head(features).logits, head(other).logits)
    assert not torch.equal(head(features).logits, make(alpha=0.9)(other).logits)


def test_all_parts_make_their_mean():
    head, features = make(alpha=0.0, k=N), tokens()
    alone = [head(torch.cat([features[:, :1], features[:, i : i + 1]], dim=1)).logits for i in range(1, 1 + N)]
    torch.testing.assert_close(head(features).logits, torch.stack(alone).mean(0))


def test_a_new_label_needs_no_parameter_and_moves_no_logit():
    head, features = make(NAMES[:2]), tokens()
    before, parameters = head(features).logits, {name: id(value) for name, value in head.named_parameters()}
    head.grow(NAMES[2:])
    torch.testing.assert_close(head(features).logits[:, :2], before, rtol=0, atol=1e-5)
    assert {name: id(value) for name, value in head.named_parameters()} == parameters


def test_the_mean_of_a_map_stands_in_for_the_class_token():
    head, spatial = make(), torch.randn(B, D, 3, 3)
    as_tokens = torch.cat([spatial.mean((2, 3))[:, None], spatial.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(head(spatial).logits, head(as_tokens).logits)


def test_labels_permute():
    features = tokens()
    head, turned = make(), make(NAMES[::-1])
    turned.load_state_dict(head.state_dict())
    torch.testing.assert_close(turned(features).logits, head(features).logits.flip(1))


def clip_head(tiny_clip, **options):
    """A head whose learnt words say "a photo of a", before the image tower that the text tower was trained with."""
    head = HPDVALHead(24, text=tiny_clip.source, embedding="clip", **options)
    head.grow(NAMES[:1])
    head.grow(NAMES[1:])
    words = head.tower.token_embedding(head.tower.tokenize(["a photo of a"])[0, 1:5])
    for learnt in (head.global_words, head.local_words):
        learnt.data.copy_(words)
    return head.eval()


def test_before_training_it_is_clip(tiny_clip):
    head = clip_head(tiny_clip, alpha=1.0)
    images = torch.randn(B, 3, 32, 32)
    prompts = head.tower.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    visual = copy.deepcopy(tiny_clip.model.visual)
    visual.proj, visual.output_tokens = None, True
    with torch.no_grad():
        pooled, patches = visual(images)
        projected = tiny_clip.model.get_logits(images, prompts)[0] / tiny_clip.model.logit_scale.exp()
        logits = head(torch.cat([pooled[:, None], patches], dim=1)).logits
    torch.testing.assert_close(logits / head.log_scale.exp(), projected, rtol=1e-4, atol=1e-5)


def test_only_words_and_scale_are_learnt_on_a_clip_image_tower(tiny_clip):
    head = clip_head(tiny_clip)
    head(torch.randn(B, 1 + N, 24)).logits.square().sum().backward()
    learnt = {name for name, parameter in head.named_parameters() if parameter.grad is not None}
    assert learnt == {"global_words", "local_words", "log_scale"}
    assert all(bool((head.get_parameter(name).grad != 0).any()) for name in learnt)


def test_the_distance_of_equal_prompts_is_zero(tiny_clip):
    head = clip_head(tiny_clip)
    assert float(head.prompt_distance().detach()) < 1e-6
    head.global_words.data.add_(torch.randn(4, 20))
    with torch.no_grad():
        learnt = F.normalize(head.tower.encode_prompts(head.global_words, head.names), dim=1)
    expected = np.abs(text_vectors(tiny_clip.source, NAMES).numpy() - learnt.numpy()).mean()
    assert float(head.prompt_distance().detach()) == pytest.approx(expected, rel=1e-5)
    head.local_words.data.add_(1.0)
    assert float(head.prompt_distance().detach()) == pytest.approx(expected, rel=1e-5)


def test_a_head_on_a_text_tower_keeps_the_rules(tiny_clip):
    check_head(f"hp_dval 'text={tiny_clip.source}'")


def test_a_copy_does_not_share_what_is_learnt(tiny_clip):
    head = clip_head(tiny_clip)
    other = copy.deepcopy(head)
    head.global_words.data.add_(1.0)
    assert not torch.equal(head.prompts(head.global_words), other.prompts(other.global_words))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"k": 0}, "k=0"),
        ({"words": 0}, "words=0"),
        ({"width": 0}, "width=0"),
        ({"embedding": "clip"}, "image projection"),
        ({"embedding": "one"}, "embedding='one'"),
        ({"text": "open_clip:ViT-B-16"}, "name no weights"),
    ],
)
def test_wrong_options_are_one_sentence(options, match):
    with pytest.raises(CmlBenchError, match=match) as caught:
        HPDVALHead(D, **options)
    assert "\n" not in str(caught.value)


def test_a_projection_of_other_features(tiny_clip):
    with pytest.raises(CmlBenchError, match="image projection of 23 features"):
        HPDVALHead(23, text=tiny_clip.source, embedding="clip")
    with pytest.raises(CmlBenchError, match="width=8"):
        HPDVALHead(24, text=tiny_clip.source, width=8)


def test_it_embeds_by_a_tanh_and_scales_as_published():
    head = HPDVALHead(6)
    assert float(head.log_scale.detach().exp()) == pytest.approx(math.e**3, rel=1e-4)
    first, _, second = head.embed
    features = torch.randn(2, first.in_features)
    torch.testing.assert_close(head.embed(features), second(torch.tanh(first(features))))
