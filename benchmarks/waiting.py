"""The threads of a process in which several runtimes take turns.

All runtimes get the same number of threads, and none of them spins while it waits. After a run the
threads of ONNX Runtime and of OpenMP, which PyTorch uses, spin for a while, so that the next run
starts sooner. Where something else wants those cores that is no gain: with other work on a machine
of two cores, spinning doubled the times of every ONNX file (stnkit's, those of gather_nd, and
GridSample: 5 to 9, 8 to 15 and 1.7 to 2.5 ms), and PyTorch's grid_sample took 40 ms in place of 1.
Without it all are near their best times and no contender disturbs another. It is also how
`stnkit.runtime` opens ONNX files. `--spinning` gives the runtimes' own defaults.
"""

from __future__ import annotations

import os


def prepare_process(threads: int, spinning: bool) -> None:
    """Set what a process takes only before the first op of its runtimes.

    Args:
        threads: Threads of one TensorFlow op; ops run one after the other.
        spinning: Whether waiting threads may spin.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not spinning:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.get_logger().setLevel("ERROR")  # each contender is traced anew for each case, on purpose
