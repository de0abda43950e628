"""Images in, NumPy arrays out: everything between a folder of pictures and a batch.

    datasets.py      the door: `open_dataset(source, split)`, `split_validation(dataset, fraction, seed)`
    base.py          what a data set is: images, labels, names, classes
    idx.py           MNIST and Fashion-MNIST        | one format a file, each with `recognises(folder)` and
    cifar.py         CIFAR-10, the binary version   | `open_split(folder, split)`: to add a format, write such
    arrays.py        train.npz and test.npz         | a file and name it in datasets.FORMATS
    packed.py        one HDF5 file a split          |
    folders.py       pictures in folders            |
    imagenet_tars.py ImageNet's tars, not unpacked  |
    imagenet_labels.py  the labels of ImageNet's validation pictures, from whatever lies beside them
    pack.py          the command `python -m data.pack SRC OUT.h5`; packing.py does its work
    spans.py         spans of a large file, read from many threads
    embedded/        a Fashion-MNIST subset that comes with the project, its licence and the script that made it
    names.py         class names: lists that lie beside images
    decode.py        one picture, a file or its bytes -> (H, W, 3) uint8
    preprocess.py    how a picture becomes the network's input; this travels with the weights
    resize.py        resizing as Pillow, OpenCV and TensorFlow 1 do it
    sampling.py      the random samples of training: the paper's, and BVLC's crop
    colour.py        contrast, brightness, colour and light of a sample
    preview.py       the command `python -m data.preview SOURCE --output OUT.png`: a sheet of such samples
    crops.py         the 1, 10 or 144 crops of testing, and a picture of them
    loader.py        batches, decoded ahead of time in background threads
    ahead.py         those threads; damaged.py counts and names the images that can't be used
    published.py     the data sets that others publish, by name; fetch.py is the command `python -m data.fetch NAME`,
                     download.py the checked and resumed download, caches.py the folder it all goes to, unpacking.py
                     files out of a tar, flowers.py how Oxford's flowers are laid out
    errors.py        DataError: what the user can mend

Import the submodules (`import data.datasets`); this file defines nothing. The name is common, so:
- a folder `data/` *without* an `__init__.py` in the working folder does no harm: Python prefers a package with an
  `__init__.py` wherever on its path it stands;
- a `data.py`, or a `data/` with an `__init__.py`, in the working folder does hide this package from `python -c`,
  `python -m` and a console, which look there first: use `python -P` (or PYTHONSAFEPATH=1), which does not;
- nothing here is found by the working folder: the embedded images are found beside this file.
"""
