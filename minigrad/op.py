"""An operation: a forward function, and under it the gradient of what it computed."""
from typing import TYPE_CHECKING

import numpy as np

from minigrad.errors import InputError

if TYPE_CHECKING:
    from minigrad.tensor import Tensor


class Op:
    """One node of the graph; a subclass gives `forward` and `backward`.

    An op is made for one call. What `backward` needs, `forward` keeps as named attributes of the op.
    """

    inputs: "tuple[Tensor, ...] | None" = None  # set when the call is recorded, dropped after backward
    needs: tuple[bool, ...] = ()  # for each input, whether its gradient is wanted

    def forward(self, *arrays: np.ndarray) -> np.ndarray:
        """Compute the output from the inputs' arrays."""
        raise NotImplementedError

    def backward(self, dy: np.ndarray) -> "tuple[np.ndarray | None, ...]":
        """Return the gradient of each input, given the output's; None where `needs` says it is not wanted."""
        raise NotImplementedError

    def __call__(self, *inputs: "Tensor") -> "Tensor":
        """Run forward, and record the call when some input wants a gradient.

        Raises InputError for an input without values, such as an empty batch.
        """
        from minigrad.tensor import Tensor, grad_enabled

        for t in inputs:
            if t.data.size == 0:
                raise InputError(f"{type(self).__name__} got an input of shape {t.shape}, which holds no values: "
                                 "an empty batch has no result; leave it out")
        self.needs = tuple(grad_enabled() and t.requires_grad for t in inputs)
        y = self.forward(*(t.data for t in inputs))
        if not any(self.needs):
            return Tensor(y)
        self.inputs = inputs
        return Tensor(y, requires_grad=True, op=self)

    def release(self) -> None:
        """Drop everything forward kept, so that memory falls while the gradient runs backward."""
        self.__dict__.clear()
