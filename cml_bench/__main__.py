"""``python -m cml_bench`` is ``cml-bench``."""

from cml_bench.cli import main

main()
