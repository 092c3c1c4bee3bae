"""Text vectors from a CLIP text tower against open_clip itself, and what is said when they cannot be had."""

import hashlib
import importlib

import pytest
import torch
from safetensors.torch import save_file

from cml_bench.errors import CmlBenchError
from cml_bench.models.open_clip_text import load_text_tower, parse_text_tower
from cml_bench.models.text_vectors import text_vectors

NAMES = ("cat", "traffic_light", "a very long name of a thing that nobody has ever seen in a photograph")
SPOKEN = [name.replace("_", " ") for name in NAMES]


def expected(tiny_clip, texts):
    open_clip = importlib.import_module("open_clip")
    with torch.no_grad():
        return tiny_clip.model.encode_text(open_clip.get_tokenizer("tiny-clip")(texts), normalize=True)


def test_vectors_are_those_of_open_clip(tiny_clip):
    found = text_vectors(tiny_clip.source, NAMES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected(tiny_clip, [f"a photo of a {name}." for name in SPOKEN]))
    assert float((found @ found.T).triu(1).max()) < 0.999  # the names differ


def test_another_prompt(tiny_clip):
    found = text_vectors(f"{tiny_clip.source}:{{name}}: a drawing", NAMES)
    torch.testing.assert_close(found, expected(tiny_clip, [f"{name}: a drawing" for name in SPOKEN]))


def test_later_labels_land_in_the_same_space(tiny_clip):
    together = text_vectors(tiny_clip.source, NAMES)
    apart = torch.cat([text_vectors(tiny_clip.source, [name]) for name in NAMES])
    torch.testing.assert_close(together, apart)


def test_the_generators_stay_where_they_are(tiny_clip):
    before = torch.random.get_rng_state()
    text_vectors(tiny_clip.source, NAMES)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_torch_files_of_tensors_and_wrapped_names(tiny_clip, tmp_path):
    path = tmp_path / "epoch_3.pt"
    weights = {f"module.{key}": value for key, value in tiny_clip.model.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 3}, path)
    assert torch.equal(text_vectors(f"open_clip:tiny-clip:{path}", NAMES), text_vectors(tiny_clip.source, NAMES))


def test_learnt_words_that_say_a_photo_of_a(tiny_clip):
    tower = load_text_tower(parse_text_tower(tiny_clip.source))
    words = tower.tokenize(["a photo of a"])[0, 1:5]
    context = tower.token_embedding(words).detach().requires_grad_()
    prompts = tower.encode_prompts(context, tower.prompt_ids(NAMES, 4))
    torch.testing.assert_close(torch.nn.functional.normalize(prompts, dim=1), text_vectors(tiny_clip.source, NAMES))
    prompts[:, 0].sum().backward()
    assert bool((context.grad != 0).any(dim=1).all())
    assert all(parameter.grad is None for parameter in tower.parameters())


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("open_clip:ViT-B-16", "name no weights"),
        ("open_clip::x.pt", "name no weights"),
        ("open_clip:tiny-clip:x.pt:a photo", "no place for the label"),
        ("open_clip:tiny-clop:x.pt", "did you mean 'tiny-clip'"),
        ("open_clip:tiny-clip:nowhere.pt", r"nowhere\.pt does not exist"),
        ("open_clip:ViT-B-16-SigLIP:nowhere.pt", "no causal text tower"),
        ("open_clip:roberta-ViT-B-32:nowhere.pt", "no causal text tower"),
    ],
)
def test_what_is_wrong_is_one_sentence(tiny_clip, source, match):
    with pytest.raises(CmlBenchError, match=match) as caught:
        text_vectors(source, NAMES)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model(tiny_clip, tmp_path):
    path = tmp_path / "short.safetensors"
    save_file({"positional_embedding": torch.zeros(2, 2)}, path)
    with pytest.raises(CmlBenchError, match=r"short\.safetensors do not fit") as caught:
        text_vectors(f"open_clip:tiny-clip:{path}", NAMES)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_one_sentence(monkeypatch):
    real = importlib.import_module

    def without(name):
        if name == "open_clip":
            raise ModuleNotFoundError("No module named 'open_clip'")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(CmlBenchError, match=r"pip install 'cml-bench\[vision_language\]'"):
        text_vectors("open_clip:ViT-B-16:x.pt", NAMES)


def test_a_hashed_vector_is_the_same_for_good() -> None:
    """Made once more from SHA-256 and a generator: features and results bear its name alone."""
    seed = int(hashlib.sha256(b"cat").hexdigest()[:16], 16) >> 1
    drawn = torch.randn(300, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(text_vectors("hash", ["cat"])[0], drawn / drawn.norm())
