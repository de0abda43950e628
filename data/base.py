"""What a data set is, whatever it was read from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data.decode import read_image
from data.errors import DataError

__all__ = ["ArrayDataset", "Dataset", "FileDataset", "Subset"]


class Dataset(ABC):
    """n labelled images: `classes[labels[i]]` is what `image(i)` shows, `names[i]` is what messages call it.

    Raises DataError when there are no images, where a label names no class, or a name stands for two classes.
    """

    def __init__(self, labels: ArrayLike, names: Sequence[str], classes: Sequence[str], origin: str) -> None:
        self.labels: NDArray[np.int64] = np.array(labels, dtype=np.int64)
        self.names = names
        self.classes = tuple(classes)
        self.origin = origin
        self.labels.setflags(write=False)
        if not len(self.labels):
            raise DataError(f"{origin}: holds no images: expected at least one")
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for number, name in enumerate(self.classes) if name in self.classes[:number])
            raise DataError(f"{origin}: two classes are called {twice!r}: give each class a name of its own")
        strays = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        if len(strays):
            first = int(strays[0])
            raise DataError(
                f"{origin}: {names[first]} has label {self.labels[first]}, but the {len(self.classes)} classes are "
                f"numbered 0 to {len(self.classes) - 1}: mend the label or the list of classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, (H, W, 3) RGB, greyscale repeated. Raises DataError, naming a file that is damaged."""


class ArrayDataset(Dataset):
    """Images held in memory: `images` is uint8, (n, H, W) greyscale or (n, H, W, 3) RGB."""

    def __init__(
        self, images: NDArray[np.uint8], labels: ArrayLike, names: Sequence[str], classes: Sequence[str], origin: str
    ) -> None:
        super().__init__(labels, names, classes, origin)
        self._images = images
        self._images.setflags(write=False)

    def image(self, index: int) -> NDArray[np.uint8]:
        image = self._images[index]
        return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else np.ascontiguousarray(image)


class FileDataset(Dataset):
    """Pictures left on disk and decoded when asked for; `names` are paths below `folder`, with forward slashes."""

    def __init__(self, folder: Path, labels: ArrayLike, names: Sequence[str], classes: Sequence[str]) -> None:
        super().__init__(labels, names, classes, str(folder))
        self._folder = folder

    def image(self, index: int) -> NDArray[np.uint8]:
        return read_image(self._folder / self.names[index])


class Subset(Dataset):
    """The images of `whole` at `indices`, in that order."""

    def __init__(self, whole: Dataset, indices: NDArray[np.int64]) -> None:
        super().__init__(whole.labels[indices], [whole.names[i] for i in indices], whole.classes, whole.origin)
        self._whole = whole
        self._indices = indices

    def image(self, index: int) -> NDArray[np.uint8]:
        return self._whole.image(int(self._indices[index]))
