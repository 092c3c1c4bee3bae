"""Learners of Avalanche 0.6.0 that fail on several labels an image, and what stands here in their place."""

from __future__ import annotations

from cml_bench.errors import CmlBenchError

_INSTEAD = {
    **dict.fromkeys(("AGEM", "AGEMPlugin"), "agem"),
    **dict.fromkeys(("BiC", "BiCPlugin"), "bic"),
    **dict.fromkeys(("GDumb", "GDumbPlugin"), "gdumb"),
    **dict.fromkeys(("GEM", "GEMPlugin"), "gem"),
    **dict.fromkeys(("LwF", "LwFPlugin"), "lwf"),
    **dict.fromkeys(("MIR", "MIRPlugin"), "mir"),
    "DER": "derpp",
    "ER_ACE": "er_ace",
    "FeatureDistillationPlugin": "feature_distillation",
    "ICaRL": "icarl",
    "JointTraining": "joint",
    "LearningToPrompt": "l2p",
    "RWalkPlugin": "rwalk",
}
_WITHOUT_TWIN = frozenset(
    (
        *("AETraining", "AR1", "CWRStar", "CWRStarPlugin", "CoPE", "CoPEPlugin", "CurrentDataFeCAMUpdate"),
        *("CurrentDataNCMUpdate", "ER_AML", "ExpertGateStrategy", "FeCAMOracle", "FeatureReplay", "GSS_greedy"),
        *("GSS_greedyPlugin", "GenerativeReplay", "GenerativeReplayPlugin", "LFL", "LFLPlugin", "MER"),
        *("MemoryFeCAMUpdate", "MemoryNCMUpdate", "NCMOracle", "PNNStrategy", "PackNet", "RARPlugin", "SCR"),
        *("StreamingLDA", "VAETraining"),
    )
)
"""They count classes, read their numbers, or need a model of their own."""


def refuse_unfit(kind: type) -> None:
    """Refuse a class of Avalanche that would end in an error of its own; a subclass may have mended it.

    Raises:
        CmlBenchError: If it is one of those.
    """
    name = kind.__name__
    if not kind.__module__.startswith("avalanche.") or name not in {*_INSTEAD, *_WITHOUT_TWIN}:
        return
    mend = f"the suite's {_INSTEAD[name]}" if name in _INSTEAD else "a method that 'cml-bench list strategies' names"
    raise CmlBenchError(f"Avalanche's {name} does not run on images with several labels: take {mend}")
