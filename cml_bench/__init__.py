"""cml_bench: the benchmark suite for continual multi-label image classification."""

from __future__ import annotations

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "setup.cfg").is_file() and (_CHECKOUT / "strategies").is_dir():
    # A regular install is shadowed by the checkout when Python starts in its root; there the plug-in folders lie
    # beside this package, not inside it.
    __path__.append(str(_CHECKOUT))

__version__ = "0.1.0"
