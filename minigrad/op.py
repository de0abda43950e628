"""An operation: a forward function, and under it the gradient of what it computed."""
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.errors import InputError

if TYPE_CHECKING:
    from minigrad.tensor import Tensor


class Op:
    """One node of the graph; a subclass gives `forward` and `backward`.

    An op is made for one call. What `backward` needs, `forward` keeps as named attributes of the op.
    """

    inputs: "tuple[Tensor, ...] | None" = None  # set when the call is recorded, dropped after backward
    outputs = 1  # how many arrays forward returned
    needs: tuple[bool, ...] = ()  # for each input, whether its gradient is wanted

    def forward(self, *arrays: np.ndarray) -> "np.ndarray | tuple[np.ndarray, ...]":
        """Compute the output, or a tuple of them, from the inputs' arrays."""
        raise NotImplementedError

    def backward(self, *dys: Any) -> "tuple[np.ndarray | None, ...]":
        """Return the gradient of each input, given each output's; None where `needs` says it is not wanted.

        The gradient of an output that nothing was computed from is None; that of a single output never is.
        """
        raise NotImplementedError

    def __call__(self, *inputs: "Tensor") -> Any:
        """Run forward, and record the call when some input wants a gradient; returns a tensor for each output.

        Raises InputError for an input without values, such as an empty batch.
        """
        from minigrad.tensor import Tensor, grad_enabled

        for t in inputs:
            if t.data.size == 0:
                raise InputError(f"{type(self).__name__} got an input of shape {t.shape}, which holds no values: "
                                 "an empty batch has no result; leave it out")
        self.needs = tuple(grad_enabled() and t.requires_grad for t in inputs)
        y = self.forward(*(t.data for t in inputs))
        recorded = any(self.needs)
        if recorded:
            self.inputs = inputs
        if not isinstance(y, tuple):
            return Tensor(y, requires_grad=recorded, op=self if recorded else None)
        self.outputs = len(y)
        return tuple(Tensor(each, requires_grad=recorded, op=self if recorded else None, output=number)
                     for number, each in enumerate(y))

    def release(self) -> None:
        """Drop everything forward kept, so that memory falls while the gradient runs backward."""
        self.__dict__.clear()
