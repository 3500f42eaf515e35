"""Torch in worker processes that were made by fork, as those of `datasets.map(num_proc=...)`.

The threads of OpenMP do not come along into a forked process: the first operation of torch there that would share its
work among threads waits for them without end, if the parent has ever used them. Torch's own data loader lets its
workers compute with one thread, and so does this module.
"""

import os

import torch

_process = os.getpid()


def one_thread_after_fork() -> None:
    """Sets torch to one thread if this process is a fork of the one that imported the package; costs a system call."""
    global _process
    if os.getpid() != _process:
        _process = os.getpid()
        torch.set_num_threads(1)
