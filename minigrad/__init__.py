"""minigrad: a small autograd engine on NumPy and Numba.

Arrays are NHWC, `(N, H, W, C)`; convolution weights `(KH, KW, C, O)`. `tensor.py` and `op.py` are the engine,
`ops/` holds one operation a file, `kernels/` what several operations share, `nn.py`, `init.py`, `optim.py`,
`flat.py` and `hdf5.py` what a network is built, trained and stored with.
"""
from minigrad.errors import InputError
from minigrad.runtime import (
    available_threads,
    get_convolution,
    get_threads,
    keep_freed_memory,
    set_convolution,
    set_threads,
)
from minigrad.tensor import Tensor, no_grad

__all__ = ["InputError", "Tensor", "available_threads", "get_convolution", "get_threads", "no_grad", "set_convolution",
           "set_threads"]

keep_freed_memory()
