"""The operations, one a file: equations, the op with forward and backward, the public function, the kernels."""
from minigrad.kernels.plan import empty
from minigrad.ops.adaptive_avg_pool2d import adaptive_avg_pool2d
from minigrad.ops.arithmetic import add, multiply, reshape, sum_all
from minigrad.ops.avg_pool2d import avg_pool2d
from minigrad.ops.batch_norm import batch_norm
from minigrad.ops.concat import concat
from minigrad.ops.conv2d import conv2d
from minigrad.ops.cross_entropy import cross_entropy
from minigrad.ops.depthwise_conv2d import depthwise_conv2d
from minigrad.ops.dropout import dropout
from minigrad.ops.linear import linear
from minigrad.ops.lrn import lrn
from minigrad.ops.max_pool2d import max_pool2d
from minigrad.ops.pointwise import pointwise
from minigrad.ops.relu import relu
from minigrad.ops.softmax import log_softmax, softmax

__all__ = ["adaptive_avg_pool2d", "add", "avg_pool2d", "batch_norm", "concat", "conv2d", "cross_entropy",
           "depthwise_conv2d", "dropout", "empty", "linear", "log_softmax", "lrn", "max_pool2d", "multiply",
           "pointwise", "relu", "reshape", "softmax", "sum_all"]
