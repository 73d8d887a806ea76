"""The tests. However they are started, what is compiled is kept, for them and their processes.

Where it is not, every process of theirs compiles all libraries anew, and the tests take thrice
as long. And each process computes with one thread, as those of the `broker` command do.
"""

import os
import sys

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
