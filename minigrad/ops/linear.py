"""Linear (fully connected) layer.

    y[n, o]  = b[o] + sum over c of x[n, c] * w[c, o]
    dx[n, c] = sum over o of dy[n, o] * w[c, o]
    dw[c, o] = sum over n of x[n, c] * dy[n, o]
    db[o]    = sum over n of dy[n, o]

The products are those of kernels/matmul.py.
"""
from minigrad.errors import InputError
from minigrad.kernels.matmul import matmul, matmul_by_transposed, matmul_transposed
from minigrad.op import Op
from minigrad.ops.relu import masked_gradient
from minigrad.tensor import Tensor


class Linear(Op):
    def __init__(self, relu: bool):
        self.relu = relu

    def forward(self, x, w, b=None):
        self.x, self.w = x, w
        self.y = matmul(x, w, b, relu=self.relu)
        return self.y

    def backward(self, dy):
        dz, db = masked_gradient(dy, self.y if self.relu else None)
        dx = matmul_by_transposed(dz, self.w) if self.needs[0] else None
        dw = matmul_transposed(self.x, dz) if self.needs[1] else None
        return (dx, dw, db)[:len(self.needs)]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """Return x (N, C) times weight (C, O) plus bias (O,), at least 0 if relu: (N, O).

    Raises InputError where shapes or dtypes do not fit together.
    """
    if len(x.shape) != 2 or len(weight.shape) != 2 or x.shape[1] != weight.shape[0] or x.shape[0] < 1:
        raise InputError(f"expected x (N, C) with N at least 1 and weight (C, O) with the same C, "
                         f"got {x.shape} and {weight.shape}")
    if bias is not None and bias.shape != weight.shape[1:]:
        raise InputError(f"expected bias {weight.shape[1:]} for weight {weight.shape}, got {bias.shape}")
    if not x.dtype == weight.dtype == (x.dtype if bias is None else bias.dtype):
        raise InputError(f"expected one dtype, got x {x.dtype}, weight {weight.dtype}, bias {bias and bias.dtype}")
    return Linear(relu)(x, weight) if bias is None else Linear(relu)(x, weight, bias)
