"""Public sets by name."""

from __future__ import annotations

import importlib.util
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lilliput.data.dataset import Split
from lilliput.data.sources.download import Remote, fetch, find, not_here
from lilliput.data.sources.folder import listed_pictures, pictures_of
from lilliput.data.sources.idx import read_idx
from lilliput.data.sources.npz import load_npz
from lilliput.data.sources.raw import WHOLE, Raw, Shares
from lilliput.data.sources.tiles import labels_of, tiled_pictures
from lilliput.errors import LilliputError, Missing

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
IDX_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
MNIST_MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
FASHION_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
MNIST_HOME = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FASHION_HOME = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
IDX_MOST_BYTES = 40 << 20

CIFAR_FILES = ("cifar10_train.zip", "cifar10_test.zip")
CIFAR_BINARY = "cifar-10-binary.tar.gz"
CIFAR_REMOTE = Remote(
    f"https://www.cs.toronto.edu/~kriz/{CIFAR_BINARY}",
    "c32a1d4ab5d03f1284b67883e8d87530",
    200 << 20,
)
CIFAR_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
CIFAR_BATCH_BYTES = 10_000 * 3073
CIFAR_TRAIN = tuple(f"cifar-10-batches-bin/data_batch_{n}.bin" for n in range(1, 6))
CIFAR_TEST = ("cifar-10-batches-bin/test_batch.bin",)

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
NUMERALS = tuple("0123456789")


def digits(root: Path | None) -> Raw:  # noqa: ARG001  # every set takes the folder
    """scikit-learn's handwritten digits: 1797 grey pictures of 8x8, levels 0..16 as 0..255.

    Raises:
        Missing: scikit-learn, which carries them, is not installed.
    """
    table = _digits_table()
    pictures = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    shares = Shares(validation=0.15 / 0.8, test=0.2, calibration=200, apart=True)
    whole = Split(pictures, table[:, 64].astype(np.int64))
    return Raw("digits", {WHOLE: whole}, classes=NUMERALS, shares=shares)


def _digits_table() -> NDArray[np.float64]:
    """(1797, 65): 64 levels and the label a row.

    Read from the file inside scikit-learn where it is as we know it: importing the library takes
    seconds, reading its file none.
    """
    home = importlib.util.find_spec("sklearn")
    if home is None or home.origin is None:
        raise Missing("the digits come with scikit-learn", hint="pip install 'lilliput[train]'")
    file = Path(home.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        return np.loadtxt(file, delimiter=",", dtype=np.float64)
    from sklearn.datasets import load_digits

    held = load_digits()
    return np.column_stack([held.data, held.target]).astype(np.float64)


def mnist(root: Path | None) -> Raw:
    """MNIST (LeCun, Cortes and Burges): 60,000 and 10,000 grey pictures of 28x28."""
    place = find(("mnist.npz",), root)
    if place is not None:
        parts = load_npz(place / "mnist.npz").parts
    else:
        parts = _from_idx("mnist", _remotes(MNIST_HOME, MNIST_MD5), root)
    return Raw("mnist", parts, augment=("shift",), classes=NUMERALS)


def fashion_mnist(root: Path | None) -> Raw:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): clothes in MNIST's form."""
    remotes = _remotes(FASHION_HOME, FASHION_MD5)
    parts = _from_idx("fashion_mnist", remotes, root, also=DEBIAN_FASHION)
    return Raw("fashion_mnist", parts, augment=("flip",), classes=FASHION_CLASSES)


def cifar10(root: Path | None) -> Raw:
    """CIFAR-10 (Krizhevsky 2009), lossless: 50,000 and 10,000 pictures of 32x32, RGB."""
    place = find(CIFAR_FILES, root)
    if place is not None:
        train, test = (
            Split(tiled_pictures(place / name), labels_of(place / name)) for name in CIFAR_FILES
        )
    else:
        held = find((CIFAR_BINARY,), root)
        if held is None and root is not None:
            raise not_here("cifar10", CIFAR_FILES, (CIFAR_REMOTE,))
        path = fetch("cifar10", CIFAR_BINARY, CIFAR_REMOTE) if held is None else held / CIFAR_BINARY
        train, test = read_cifar_binary(path, CIFAR_TRAIN), read_cifar_binary(path, CIFAR_TEST)
    parts = {"train": train, "test": test}
    return Raw("cifar10", parts, augment=("flip", "shift"), classes=CIFAR_CLASSES)


def read_cifar_binary(path: Path, members: tuple[str, ...]) -> Split:
    """Pictures and labels of the binary version: a label byte, then three planes of 32x32.

    Members are read by their known names and sizes, none is unpacked to disk.

    Raises:
        LilliputError: a member is missing or has another size.
    """
    records = []
    try:
        with tarfile.open(path, "r:gz") as archive:
            for name in members:
                member = archive.getmember(name)
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is None or member.size != CIFAR_BATCH_BYTES:
                    raise LilliputError(f"{name} is not what was published", at=str(path))
                content = stream.read(CIFAR_BATCH_BYTES)
                records.append(np.frombuffer(content, np.uint8).reshape(-1, 3073))
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError) as error:
        raise LilliputError(f"this archive cannot be read: {error}", at=str(path)) from error
    rows: NDArray[np.uint8] = np.concatenate(records)
    pictures = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(pictures), rows[:, 0].astype(np.int64))


def pool32(root: Path | None) -> Raw:
    """20,000 unlabelled natural pictures of 32x32, RGB."""
    place = find(("pool32.zip",), root)
    if place is None:
        raise not_here("pool32", ("pool32.zip",))
    whole = Split(tiled_pictures(place / "pool32.zip"))
    return Raw("pool32", {WHOLE: whole}, augment=("flip", "shift"))


def set5(root: Path | None) -> Raw:
    """Set5 (Bevilacqua et al. 2012): five pictures on which super-resolution is compared."""
    return _pictures("set5", "sr/set5", "test", root)


def set14(root: Path | None) -> Raw:
    """Set14 (Zeyde, Elad and Protter 2010): fourteen such pictures; `bridge` is grey."""
    return _pictures("set14", "sr/set14", "test", root)


def t91(root: Path | None) -> Raw:
    """T91 (Yang et al. 2010): 91 pictures to train super-resolution on."""
    return _pictures("t91", "sr/train", "train", root)


NAMED: dict[str, Callable[[Path | None], Raw]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "set5": set5,
    "set14": set14,
    "t91": t91,
    "pool32": pool32,
}

USUAL_TEST = {"t91": "set5"}
"""Sets without test pictures of their own, and what the literature tests on."""


def _pictures(name: str, folder: str, part: str, root: Path | None) -> Raw:
    place = find((folder,), root)
    files = [] if place is None else listed_pictures(place / folder)
    if not files:
        raise not_here(name, (folder,))
    inputs = pictures_of(files, "RGB")
    names = {"files": [f.stem for f in files]} if part == "test" else {}
    augment = ("flip",) if part == "train" else ()
    return Raw(name, {part: Split(inputs)}, augment=augment, facts=names)


def _remotes(home: str, sums: tuple[str, ...]) -> tuple[Remote, ...]:
    return tuple(
        Remote(home + file, md5, IDX_MOST_BYTES) for file, md5 in zip(IDX_NAMES, sums, strict=True)
    )


def _from_idx(
    name: str, remotes: tuple[Remote, ...], root: Path | None, also: Path | None = None
) -> dict[str, Split]:
    """The four idx files: in a folder of the set's name, where a package put them, or fetched."""
    inside = tuple(f"{name}/{file}" for file in IDX_NAMES)
    place = find(inside, root)
    if place is not None:
        paths = [place / file for file in inside]
    elif also is not None and all((also / file).is_file() for file in IDX_NAMES):
        paths = [also / file for file in IDX_NAMES]
    elif root is not None:
        raise not_here(name, inside, remotes)
    else:
        paths = [fetch(name, f, remote) for f, remote in zip(inside, remotes, strict=True)]
    train_x, train_y, test_x, test_y = (read_idx(path) for path in paths)
    return {
        "train": Split(train_x[..., None], train_y.astype(np.int64)),
        "test": Split(test_x[..., None], test_y.astype(np.int64)),
    }
