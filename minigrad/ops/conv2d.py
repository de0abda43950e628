"""2-D convolution (cross-correlation, as every deep-learning framework has it), channels last.

With x (N, H, W, C) padded by zeros, w (KH, KW, C, O), b (O,), and strides SH, SW:

    y[n, i, j, o]    = b[o] + sum over kh, kw, c of x[n, i SH + kh, j SW + kw, c] * w[kh, kw, c, o]
    dw[kh, kw, c, o] = sum over n, i, j of x[n, i SH + kh, j SW + kw, c] * dy[n, i, j, o]
    dx[n, h, v, c]   = sum over o, kh, kw, i, j with i SH + kh = h and j SW + kw = v of dy[n, i, j, o] * w[kh, kw, c, o]
    db[o]            = sum over n, i, j of dy[n, i, j, o]

Three ways to compute it, one meaning:

- `im2col` writes the patch under every output pixel as a row of a matrix X (N OH OW, KH KW C). Then y = X w + b is a
  matrix product, dw = X^T dy another, and dx is (dy w^T) with every patch added back to where it came from. Any dtype.
- `direct` never builds X: the register tile (kernels/tile.py) reads each patch where it lies, by the addresses of its
  rows. The data gradient is a convolution of dy with the kernel flipped and its channels swapped. float32 and float64.

- `winograd` (kernels/winograd.py) computes 3x3 kernels at steps of 1 with a quarter of the products. Its sums round
  differently: the largest error in float32, of some 3e-6 of the largest value, is up to five times direct's.

`auto` takes winograd where it pays, else direct where it can; `minigrad.set_convolution` makes it take another.
`relu=True` applies max(., 0) as the sums are stored.
"""
from typing import Literal, get_args

import numpy as np

from minigrad import runtime
from minigrad.errors import InputError
from minigrad.kernels.elementwise import as_rows
from minigrad.kernels.gemm import indirect_product
from minigrad.kernels.matmul import has_kernels
from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import empty, recording
from minigrad.kernels.taps import Taps
from minigrad.kernels.target import target
from minigrad.kernels.weight_gradient import weight_gradient
from minigrad.kernels.windows import Padding, Pair, Windows, windows
from minigrad.kernels.winograd import winograd_product, winograd_weight_gradient
from minigrad.op import Op
from minigrad.ops.relu import masked_gradient
from minigrad.tensor import Tensor

Method = Literal["auto", "im2col", "direct", "winograd"]
FEW_CHANNELS = 16  # below this, a whole kernel row is one tap: a tap's loop over channels would be too short
LEAST_CHANNELS, LEAST_TILES = 32, 48  # below, winograd's maps of input, output and weights cost more than they save
LEAST_TILES_OF_A_PLAN = 4  # which maps the weights only once


class Im2col(Op):
    def __init__(self, over: Windows, relu: bool, out: np.ndarray | None):
        self.over, self.relu, self.out = over, relu, out

    def forward(self, x, w, b=None):
        O = w.shape[3]
        self.shape, self.w = x.shape, w
        self.X = patches(x, self.over)  # (N, OH, OW, KH, KW, C)
        N, OH, OW = self.X.shape[:3]
        self.X = self.X.reshape(N * OH * OW, -1)  # (N OH OW, KH KW C)
        y = self.X @ w.reshape(-1, O)
        if b is not None:
            y += b
        if self.relu:
            y = np.maximum(y, 0)
        self.y = into(y.reshape(N, OH, OW, O), self.out)
        return self.y

    def backward(self, dy):
        O = self.w.shape[3]
        dz = dy * (self.y > 0) if self.relu else dy
        dz = dz.reshape(-1, O)  # (N OH OW, O)
        dx = add_patches(dz @ self.w.reshape(-1, O).T, self.shape, self.over) if self.needs[0] else None
        dw = (self.X.T @ dz).reshape(self.w.shape) if self.needs[1] else None
        return (dx, dw, dz.sum(0))[:len(self.needs)]


class Direct(Op):
    def __init__(self, over: Windows, relu: bool, out: np.ndarray | None):
        self.over, self.relu, self.out = over, relu, out

    def forward(self, x, w, b=None):
        self.x, self.w = x, w
        shape = x.shape[0], self.over.OH, self.over.OW, w.shape[3]
        self.y = empty(shape, x.dtype) if self.out is None else self.out
        self.product(b)
        return self.y

    def backward(self, dy):
        dz, db = masked_gradient(dy, self.y if self.relu else None)
        dx = self.data_gradient(dz) if self.needs[0] else None
        dw = self.weight_gradient(dz) if self.needs[1] else None
        return (dx, dw, db)[:len(self.needs)]

    def product(self, b: np.ndarray | None) -> None:
        """Write y."""
        self.rows, self.taps, w = described(self.x, self.w, self.over)
        indirect_product(self.rows, self.taps, self.y.size // self.y.shape[3], w, b, *as_rows(self.y), self.relu)

    def data_gradient(self, dz: np.ndarray) -> np.ndarray:
        """Return dx: dz, spread out by the stride, convolved with w flipped and its channels swapped."""
        over, (KH, KW, C, O) = self.over, self.w.shape
        rows, step = as_rows(dz)
        top, left = KH - 1 - over.top, KW - 1 - over.left
        taps = Taps(over.OH, over.OW, over.H, over.W, KH, KW, 1, 1, top, left, over.SH, over.SW, O, step)
        dx = np.empty(self.x.shape, dz.dtype)
        indirect_product(rows, taps, dx.size // C, self.w, None, dx.reshape(-1), C, flip=True)
        return dx

    def weight_gradient(self, dz: np.ndarray) -> np.ndarray:
        """Return dw."""
        O = self.w.shape[3]
        return weight_gradient(self.rows, self.taps, dz.size // O, *as_rows(dz), O).reshape(self.w.shape)


class Winograd(Direct):
    def product(self, b):
        winograd_product(self.x, self.w, b, self.y, self.over.top, self.over.left, self.relu)

    def data_gradient(self, dz):
        dx = np.empty(self.x.shape, dz.dtype)
        winograd_product(dz, self.w, None, dx, 2 - self.over.top, 2 - self.over.left, flip=True)
        return dx

    def weight_gradient(self, dz):
        return winograd_weight_gradient(self.x, dz, self.over.top, self.over.left)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: Pair = 1, padding: Padding = 0,
           relu: bool = False, method: Method = "auto", out: np.ndarray | None = None) -> Tensor:
    """Convolve x (N, H, W, C) with weight (KH, KW, C, O) and add bias (O,): (N, OH, OW, O).

    `padding` is as in `kernels.windows.windows`. `out`, an array (N, OH, OW, O) such as a channel slice of a wider
    buffer, receives the result. Raises InputError where shapes or dtypes do not fit together.
    """
    if len(weight.shape) != 4 or len(x.shape) != 4 or weight.shape[2] != x.shape[3]:
        raise InputError(f"expected x (N, H, W, C) and weight (KH, KW, C, O) with the same C, "
                         f"got {x.shape} and {weight.shape}")
    if bias is not None and bias.shape != weight.shape[3:]:
        raise InputError(f"expected bias {weight.shape[3:]} for weight {weight.shape}, got {bias.shape}")
    if not x.dtype == weight.dtype == (x.dtype if bias is None else bias.dtype):
        raise InputError(f"expected one dtype, got x {x.dtype}, weight {weight.dtype}, bias {bias and bias.dtype}")
    over = windows(x.shape, weight.shape[:2], stride, padding)
    shape = (x.shape[0], over.OH, over.OW, weight.shape[3])
    if out is not None and (out.shape != shape or out.dtype != x.dtype):
        raise InputError(f"expected out {shape} of {x.dtype}, got {out.shape} of {out.dtype}")
    op = {"im2col": Im2col, "direct": Direct, "winograd": Winograd}[chosen(method, x, weight, over, out)]
    return op(over, relu, out)(x, weight) if bias is None else op(over, relu, out)(x, weight, bias)


def chosen(method: Method, x: Tensor, weight: Tensor, over: Windows, out: np.ndarray | None) -> str:
    """Return the way to compute. Raises InputError for a way that can't compute this convolution."""
    if method not in get_args(Method):
        raise InputError(f'method is "{method}"; choose {", ".join(get_args(Method))}')
    fast = has_kernels(x.dtype) and (out is None or np.may_share_memory(as_rows(out)[0], out))
    if method in ("direct", "winograd") and not fast:
        raise InputError(f"{method} convolution computes float32 and float64 into rows of one step, got {x.dtype}; "
                         "use im2col")
    small = weight.shape[:2] == (3, 3) and over.SH == over.SW == 1
    if method == "winograd" and not small:
        raise InputError(f"winograd convolution has 3x3 kernels and stride 1, got {weight.shape[:2]} and stride "
                         f"{(over.SH, over.SW)}; use direct")
    if method != "auto":
        return method
    wanted = runtime.get_convolution()
    if runtime.jit_disabled() or not fast or wanted == "im2col":
        return "im2col"
    if wanted != "auto":
        return "winograd" if wanted == "winograd" and small else "direct"
    C, O = weight.shape[2:]
    lanes = target().lanes(x.dtype)
    tiles = x.shape[0] * -(-over.OH // 4) * -(-over.OW // 4)
    enough = min(C, O) >= LEAST_CHANNELS and tiles >= (LEAST_TILES if recording() is None else LEAST_TILES_OF_A_PLAN)
    return "winograd" if small and enough and C % lanes == O % lanes == 0 else "direct"


def described(x: np.ndarray, w: np.ndarray, over: Windows) -> tuple[np.ndarray, Taps, np.ndarray]:
    """Return x as flat rows, the taps over it, and w with the kernel cells that one tap joins side by side."""
    KH, KW, C, O = w.shape
    if C < FEW_CHANNELS and KW > 1:
        x = padded(x, over)  # (N, HP, WP, C): the KW * C values under a kernel row are contiguous
        H, W = x.shape[1:3]
        taps = Taps(H, W, over.OH, over.OW, KH, 1, over.SH, over.SW, 0, 0, 1, 1, KW * C, C)
        return x.reshape(-1), taps, w.reshape(KH, 1, KW * C, O)
    rows, step = as_rows(x)
    return rows, Taps(over.H, over.W, over.OH, over.OW, KH, KW, over.SH, over.SW, over.top, over.left, 1, 1, C, step), w


def padded(x: np.ndarray, over: Windows) -> np.ndarray:
    """Return x (N, H, W, C) with zeros around it as the windows want it, contiguous."""
    if over.top == over.bottom == over.left == over.right == 0:
        return np.ascontiguousarray(x)
    N, H, W, C = x.shape
    wide = empty((N, over.top + H + over.bottom, over.left + W + over.right, C), x.dtype)
    x = np.ascontiguousarray(x)
    rows = wide.reshape(-1, wide.shape[2] * C)
    pad_rows(len(rows), x.reshape(N * H, W * C), H, over.top, over.left * C, rows)
    return wide


@kernel
def pad_rows(first, last, x, H, top, left, wide):
    """wide[(n, h), left + i] = x[(n, h - top), i], zero where there is none"""
    height, zero = wide.shape[0] * H // x.shape[0], x.dtype.type(0)
    for r in range(first, last):
        n, h = r // height, r % height - top
        row = wide[r]
        for i in range(len(row)):
            row[i] = zero
        if 0 <= h < H:
            inside, own = row[left:], x[n * H + h]
            for i in range(len(own)):
                inside[i] = own[i]


def patches(x: np.ndarray, over: Windows) -> np.ndarray:
    """Return the patch under every window: (N, H, W, C) -> (N, OH, OW, KH, KW, C)."""
    cut = np.lib.stride_tricks.sliding_window_view(padded(x, over), (over.KH, over.KW), axis=(1, 2))
    return np.ascontiguousarray(cut[:, ::over.SH, ::over.SW].transpose(0, 1, 2, 4, 5, 3))


def add_patches(dX: np.ndarray, shape: tuple[int, ...], over: Windows) -> np.ndarray:
    """Add every patch of dX (N OH OW, KH KW C) to where `patches` took it from: (N, H, W, C)."""
    N, H, W, C = shape
    dX = dX.reshape(N, over.OH, over.OW, over.KH, over.KW, C)
    wide = np.zeros((N, over.top + H + over.bottom, over.left + W + over.right, C), dX.dtype)
    for kh in range(over.KH):
        for kw in range(over.KW):
            wide[:, kh:kh + over.SH * over.OH:over.SH, kw:kw + over.SW * over.OW:over.SW] += dX[:, :, :, kh, kw]
    return wide[:, over.top:over.top + H, over.left:over.left + W]


def into(y: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Return y, or `out` filled with it."""
    if out is None:
        return y
    out[...] = y
    return out
