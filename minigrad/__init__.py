"""minigrad: a small autograd engine on NumPy and Numba.

Arrays are NHWC, `(N, H, W, C)`; convolution weights `(KH, KW, C, O)`. `tensor.py` and `op.py` are the engine,
`ops/` holds one operation a file, `kernels/` what several operations share, `nn.py`, `init.py`, `optim.py`,
`flat.py` and `hdf5.py` what a network is built, trained and stored with.
"""
from minigrad import runtime

runtime.prepare()

from minigrad.errors import InputError  # noqa: E402  (the runtime has to be prepared before Numba is imported)
from minigrad.runtime import available_threads, get_threads, set_threads  # noqa: E402
from minigrad.tensor import Tensor, no_grad  # noqa: E402

__all__ = ["InputError", "Tensor", "available_threads", "get_threads", "no_grad", "set_threads"]
