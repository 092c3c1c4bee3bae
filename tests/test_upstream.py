"""Guard rails: what avalanche-lib does with several labels an image, so that an upgrade that changes it is noticed.

One test a behaviour that runs and misleads, and that the suite works around. Those of single methods stand beside
ours, as ``test_upstream_*`` in ``tests/strategies``: SI, MAS, EWC, GEM, A-GEM, DER, ER-ACE, MIR, GDumb, RWalk, L2P ...
"""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    benchmark_with_validation_stream,
    class_incremental_benchmark,
    split_online_stream,
    with_classes_timeline,
)
from avalanche.benchmarks.utils import (
    AvalancheDataset,
    DataAttribute,
    _make_taskaware_classification_dataset,
)
from avalanche.benchmarks.utils.data_attribute import TaskLabels
from avalanche.checkpointing import save_checkpoint
from avalanche.evaluation.metrics import (
    AccuracyMatrixPluginMetric,
    ClassAccuracy,
    CumulativeAccuracyPluginMetric,
    CumulativeForgettingPluginMetric,
    TaskAwareAccuracy,
    accuracy_metrics,
    amca_metrics,
    bwt_metrics,
    class_accuracy_metrics,
    confusion_matrix_metrics,
    forgetting_metrics,
    forward_transfer_metrics,
    topk_acc_metrics,
)
from avalanche.evaluation.metrics.accuracy import Accuracy
from avalanche.logging import CSVLogger, WandBLogger
from avalanche.models import IncrementalClassifier
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.regularization import LearningWithoutForgetting
from avalanche.training.supervised import Naive
from torch.utils.data import TensorDataset

from cml_bench.errors import CmlBenchError
from cml_bench.runs.run import run_job
from cml_bench.training.argmax_metrics import refuse_argmax_metrics

MULTI_HOT = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])


@pytest.fixture
def label_sets() -> Any:
    """Multi-hot rows as the tuples that pass for targets upstream."""
    data = TensorDataset(torch.zeros(4, 8), MULTI_HOT.float())
    return _make_taskaware_classification_dataset(data, targets=[tuple(row) for row in MULTI_HOT.tolist()])


def plain(labels: torch.Tensor) -> AvalancheDataset[Any]:
    rows = len(labels)
    data = TensorDataset(torch.zeros(rows, 8), labels.float())
    return AvalancheDataset([data], data_attributes=[TaskLabels([0] * rows)])


def single_label(classes: int) -> Any:
    """One image a class."""
    data = TensorDataset(torch.zeros(classes, 8), torch.arange(classes))
    return _make_taskaware_classification_dataset(data, targets=list(range(classes)))


def test_each_set_of_labels_becomes_a_class(label_sets: Any) -> None:
    assert set(label_sets.targets.uniques) == {(1, 0, 1, 0), (0, 1, 0, 0), (0, 0, 0, 0)}
    scenario = with_classes_timeline(benchmark_from_datasets(train=[label_sets], test=[label_sets]))
    assert (1, 0, 1, 0) in scenario.train_stream[0].classes_in_this_experience


def test_a_multi_hot_attribute_has_no_values() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        _ = DataAttribute(MULTI_HOT.tolist(), "labels").uniques


def test_classes_that_do_not_divide_are_dropped() -> None:
    scenario = class_incremental_benchmark(
        {"train": single_label(10), "test": single_label(10)}, class_order=list(range(10)), num_experiences=3
    )
    assert sorted(scenario.train_stream[2].classes_seen_so_far) == list(range(9))


def test_seeds_of_builders_are_global() -> None:
    datasets = {"train": single_label(4), "test": single_label(4)}
    state = torch.random.get_rng_state()
    class_incremental_benchmark(datasets, num_experiences=2, seed=5)
    drawn = torch.rand(1)
    torch.random.set_rng_state(state)
    class_incremental_benchmark(datasets, num_experiences=2, seed=5)
    assert torch.equal(drawn, torch.rand(1))


def test_streams_of_plain_datasets_know_no_benchmark() -> None:
    scenario = benchmark_from_datasets(train=[plain(MULTI_HOT)], test=[plain(MULTI_HOT)])
    assert scenario.train_stream[0].origin_stream.benchmark is None


def test_decorated_streams_lose_what_was_set_by_hand() -> None:
    scenario = benchmark_from_datasets(train=[plain(MULTI_HOT)], test=[plain(MULTI_HOT)])
    scenario.train_stream[0].label_names = ("a",)
    validated = benchmark_with_validation_stream(scenario, validation_size=0.5)
    assert not hasattr(validated.train_stream[0], "label_names")
    chunk = next(iter(split_online_stream(scenario.train_stream, experience_size=2, access_task_boundaries=True)))
    assert not hasattr(chunk, "label_names")
    assert chunk.origin_experience.label_names == ("a",)


def test_lwf_reads_label_sets_as_columns() -> None:
    """Two old label sets of four columns each pick (4, 2, 4) numbers of a (4, 6) output instead of old units."""
    distil = LearningWithoutForgetting(alpha=1, temperature=2)
    output = torch.randn(4, 6)
    old = [(1, 0, 1, 0), (0, 1, 0, 0)]
    picked = output[:, old]
    assert picked.shape == (4, 2, 4)
    assert torch.equal(picked, output[:, torch.tensor(old)])
    changed = output.clone()
    changed[:, 2:] += torch.randn(4, 4)
    # Nothing beyond the units 0 and 1 is ever compared with the teacher.
    assert distil._distillation_loss(changed, output, old) == pytest.approx(
        float(distil._distillation_loss(output, output, old))
    )


def test_evaluation_grows_the_head_to_labels_still_to_come() -> None:
    head = IncrementalClassifier(8, initial_out_features=2)
    data = {"train": single_label(6), "test": single_label(6)}
    scenario = class_incremental_benchmark(data, class_order=list(range(6)), num_experiences=3)
    learner = Naive(
        model=head, optimizer=torch.optim.SGD(head.parameters(), 0.1), evaluator=EvaluationPlugin(loggers=[])
    )
    learner.train(scenario.train_stream[0])
    before = head.classifier.out_features
    learner.eval(scenario.test_stream)
    assert (before, head.classifier.out_features) == (2, 6)


def test_accuracy_compares_the_first_largest_entries() -> None:
    accuracy = Accuracy()
    # Both labels of the image are found, and a third is denied: right in every entry. Argmax calls it wrong.
    accuracy.update(torch.tensor([[1.0, -3.0, 2.0]]), torch.tensor([[1, 0, 1]]))
    assert accuracy.result() == 0.0
    # Nothing is in the image, everything is claimed: wrong in every entry. Argmax calls it right.
    accuracy.reset()
    accuracy.update(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0, 0, 0]]))
    assert accuracy.result() == 1.0


def test_the_csv_logger_has_no_column_for_other_metrics(tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path))
    logger.close()
    assert (
        tmp_path / "eval_results.csv"
    ).read_text().strip() == "eval_exp,training_exp,eval_accuracy,eval_loss,forgetting"


def test_a_whole_strategy_cannot_be_pickled(tmp_path: Path) -> None:
    """Upstream pickles the strategy object whole; ours are tensors and plain data."""
    model = torch.nn.Linear(2, 2)
    learner = Naive(
        model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1), evaluator=EvaluationPlugin(loggers=[])
    )
    with pytest.raises(pickle.PicklingError):
        save_checkpoint(learner, tmp_path / "all.pkl")


def test_accuracies_of_classes_run_on_label_sets() -> None:
    """The classes are 0 and 1: absent and present, whatever the label."""
    accuracy = ClassAccuracy()
    accuracy.update(torch.tensor([[1.0, -3.0, 2.0]]), torch.tensor([[1, 0, 1]]), 0)
    assert {label for labels in accuracy.result().values() for label in labels} == {0}


def test_forgetting_is_that_of_the_same_accuracy() -> None:
    (forgetting,) = forgetting_metrics(experience=True)
    assert isinstance(forgetting._current_metric, TaskAwareAccuracy)
    forgetting._current_metric.update(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0, 0, 0]]), 0)
    assert forgetting._current_metric.result() == {0: 1.0}


def test_lwf_compares_shares_of_a_whole() -> None:
    """What softmax does not see and a sigmoid does: all old labels becoming likelier at once."""
    distil = LearningWithoutForgetting(alpha=1, temperature=2)
    before = torch.randn(4, 6)
    same, likelier = (float(distil._distillation_loss(before + step, before, [0, 1])) for step in (0.0, 5.0))
    assert likelier == pytest.approx(same, abs=1e-4)


def accurate(**common: Any) -> Naive:
    """A factory whose learner would report argmax accuracy."""
    common["evaluator"] = EvaluationPlugin(
        accuracy_metrics(epoch=True), class_accuracy_metrics(stream=True), loggers=[]
    )
    return Naive(**common)


def test_argmax_accuracy_is_refused(small_jobs: Any) -> None:
    (job,) = small_jobs([f"{__file__}:accurate"])
    with pytest.raises(CmlBenchError, match="Top1_Acc_Epoch compares the largest logit"):
        run_job(job)


EVERY = [
    *(
        accuracy_metrics,
        class_accuracy_metrics,
        forgetting_metrics,
        bwt_metrics,
        forward_transfer_metrics,
        amca_metrics,
    ),
    *(confusion_matrix_metrics, topk_acc_metrics),
    lambda: [AccuracyMatrixPluginMetric(), CumulativeAccuracyPluginMetric(), CumulativeForgettingPluginMetric()],
]


@pytest.mark.parametrize("make", EVERY)
def test_every_argmax_metric_is_refused(make: Any) -> None:
    flags = {name: True for name in inspect.signature(make).parameters if name in ("stream", "experience", "epoch")}
    extra = {"num_classes": 4} if make is confusion_matrix_metrics else {"top_k": 2} if make is topk_acc_metrics else {}
    made = make(**({"stream": True} if extra else flags), **extra)
    for each in made if isinstance(made, list) else [made]:
        learner: Any = SimpleNamespace(plugins=[EvaluationPlugin(each, loggers=[])])
        with pytest.raises(CmlBenchError, match="compares the largest logit"):
            refuse_argmax_metrics(learner)


def test_the_wandb_logger_cannot_log_a_number() -> None:
    logger = WandBLogger.__new__(WandBLogger)
    logger.import_wandb()
    with pytest.raises(AttributeError, match="viz"):
        logger.log_single_metric("loss", 1.0, 1)
