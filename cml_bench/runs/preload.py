"""The slow imports (torch, Avalanche), made in the server that workers are forked from.

Half a million objects are made that live as long as the process. The garbage collector would look at them again and
again while they are made (a fifth of the seconds), and in each worker, which copies every page that it looks at.

A SIGTERM may reach every process of a group or a task. The server outlives it: it is through the server that the parent
knows which workers still store their jobs. It ends with the parent. A Ctrl-C while it imports ends it without a word.
"""

import gc
import os
import signal

gc.disable()
# Of a process in the background Ctrl-C is ignored, and stays so.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import cml_bench.runs.check  # noqa: E402
import cml_bench.runs.run  # noqa: E402, F401

gc.freeze()
gc.enable()

signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
