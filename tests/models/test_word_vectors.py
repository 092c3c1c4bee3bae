"""Word vectors of label names."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cml_bench.errors import CmlBenchError
from cml_bench.models.word_vectors import load_word_vectors, project_queries

TEST_DATA = Path(os.environ.get("CML_BENCH_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
WORDS = {"cat": [1.0, 2.0, 3.0], "traffic": [0.0, 2.0, 4.0], "light": [2.0, 0.0, 0.0], "hot-dog": [9.0, 9.0, 9.0]}


@pytest.fixture(params=["glove.txt", "word2vec.txt", "vectors.npz"])
def path(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".npz":
        np.savez(path, names=np.array(list(WORDS)), vectors=np.array(list(WORDS.values()), dtype=np.float16))
    else:
        lines = [f"{word} {' '.join(map(str, vector))}" for word, vector in WORDS.items()]
        path.write_text("\n".join(["4 3"] * (request.param == "word2vec.txt") + lines) + "\n")
    return path


def test_names_and_words(path):
    vectors = load_word_vectors(path, ["traffic light", "Cat", "hot dog"])
    assert vectors.dtype == torch.float32
    assert vectors.tolist() == [[1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [9.0, 9.0, 9.0]]


def test_missing_words_are_listed(path):
    with pytest.raises(CmlBenchError, match="zebra, traffic cone") as caught:
        load_word_vectors(path, ["zebra", "cat", "traffic cone"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ragged.txt", b"cat 1 2 3\ndog 1 2\n"),
        ("letters.txt", b"cat one two\n"),
        ("not_a_zip.npz", b"cat 1 2 3\n"),
        ("cut.npz", b"PK\x03\x04 and no more"),
        ("absent.txt", None),
    ],
)
def test_damaged_files_end_in_one_sentence(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CmlBenchError, match=name.replace(".", r"\.")):
        load_word_vectors(tmp_path / name, ["cat", "dog"])


def test_pickled_arrays_are_not_executed(tmp_path):
    marker = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return (marker.touch, ())

    path = tmp_path / "bomb.npz"
    np.savez(path, names=np.array([Bomb()], dtype=object), vectors=np.ones((1, 3)))
    with pytest.raises(CmlBenchError, match="bomb"):
        load_word_vectors(path, ["cat"])
    assert not marker.exists()


@pytest.mark.parametrize("width", [5, 40])
def test_projection_is_orthonormal_fixed_and_private(width):
    vectors = torch.eye(12)
    state = torch.random.get_rng_state()
    queries = project_queries(vectors, width, 0.7)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(queries[3:5], project_queries(vectors[3:5], width, 0.7))
    assert torch.allclose(queries.norm(dim=1), torch.full((12,), 0.7), atol=1e-6)
    if width >= 12:
        assert torch.allclose(queries @ queries.T, 0.49 * torch.eye(12), atol=1e-5)


def test_published_vectors():
    path = TEST_DATA / "text" / "glove300.npz"
    if not path.is_file():
        pytest.skip(f"GloVe vectors {path} are missing; set CML_BENCH_TEST_DATA")
    with np.load(path, allow_pickle=False) as stored:
        assert stored["coco_id_order"].shape == (80, 300)
    with pytest.raises(CmlBenchError, match="vectors"):
        load_word_vectors(path, ["cat"])  # three tables without names: not guessed at
