"""Prompt consistency: a distance beside another criterion, for a head that has prompts."""

import pytest
import torch

from cml_bench.errors import CmlBenchError
from cml_bench.losses.bce import BCE
from cml_bench.losses.prompt_consistency import PromptConsistency
from cml_bench.losses.specification import as_criterion
from cml_bench.models.heads.hp_dval import HPDVALHead
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.testing.criteria import check_criterion


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = HPDVALHead(6)
        head.global_words.data.add_(0.1)
        head.grow(["a", "b"])
    return MultiLabelModel(None, head)


def test_base_plus_weighted_distance(model, tiny_dataset):
    criterion = PromptConsistency("bce", weight=3.0)
    labels = torch.tensor([[1, 0], [-2, -1]], dtype=torch.int8)
    output = model.head_output(torch.randn(2, 6))
    criterion.start_epoch(model, tiny_dataset([0, 1], labels), 0, 1)
    distance = model.head.prompt_distance()
    assert float(distance.detach()) > 0
    torch.testing.assert_close(criterion(output, labels), BCE()(output.logits, labels) + 3 * distance)
    criterion(output, labels).backward()
    assert model.head.global_words.grad is not None
    criterion.end_experience(model)
    assert torch.equal(criterion(output, labels), BCE()(output.logits, labels))


def test_a_head_without_prompts_is_refused(tiny_dataset):
    with pytest.raises(CmlBenchError, match="LinearHead has none: set head=hp_dval"):
        PromptConsistency().start_epoch(MultiLabelModel(None, LinearHead(6)), tiny_dataset([0], [[1]]), 0, 1)


def test_written_on_another_criterion(tiny_dataset):
    criterion = as_criterion("prompt_consistency+db weight=0.5")
    assert criterion.title == "PC (DB)"
    criterion.start_experience(tiny_dataset([0, 1], [[1, 0], [1, 1]]))
    assert criterion.base.present.tolist() == [2, 1]


def test_it_keeps_the_rules():
    check_criterion("prompt_consistency base=bce")
