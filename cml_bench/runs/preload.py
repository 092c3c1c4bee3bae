"""The slow imports (torch, Avalanche), made in the server that workers are forked from.

Half a million objects are made that live as long as the process. The garbage collector would look at them again and
again while they are made (a fifth of the seconds), and in each worker, which copies every page that it looks at.
"""

import gc

gc.disable()

import cml_bench.runs.check  # noqa: E402
import cml_bench.runs.run  # noqa: E402, F401

gc.freeze()
gc.enable()
