"""Named sets: where they are looked for, what is in them, and what is said when they are away."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import urllib.error
import zipfile

import numpy as np
import pytest
from PIL import Image

from lilliput.data.sources import load_data, named, tiles
from lilliput.data.sources.download import Remote, cache_folder, fetch, places
from lilliput.data.sources.idx import read_idx
from lilliput.errors import LilliputError, Missing

PICTURES = np.random.default_rng(0).integers(0, 256, (2500, 32, 32, 3), np.uint8)


@pytest.fixture(autouse=True)
def _away_from_real_data(tmp_path, monkeypatch):
    monkeypatch.delenv("LILLIPUT_DATA", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(named, "DEBIAN_FASHION", tmp_path / "debian")

    def offline(*_args, **_named):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)


def write_idx(path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(head + array.tobytes()))


def write_idx_set(folder) -> None:
    rng = np.random.default_rng(0)
    for name, count in zip(named.IDX_NAMES, (30, 30, 10, 10), strict=True):
        shape = (count, 4, 4) if "images" in name else (count,)
        write_idx(folder / name, rng.integers(0, 10, shape, np.uint8))


def write_tiles(path, *, labels: np.ndarray | None = None, size: int = 1600) -> None:
    sheet = PICTURES.reshape(50, 50, 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(1600, 1600, 3)
    content = io.BytesIO()
    Image.fromarray(sheet[:size]).save(content, "png", compress_level=0)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiles_00.png", content.getvalue())
        if labels is not None:
            held = io.BytesIO()
            np.save(held, labels)
            archive.writestr("labels.npy", held.getvalue())


def test_digits_are_the_known_pictures():
    from sklearn.datasets import load_digits

    data = load_data("digits")
    sizes = [len(data.split(n)) for n in ("train", "calibration", "validation", "test")]
    assert sizes == [968, 200, 270, 359]
    assert data.classes == tuple("0123456789")
    assert data.test.inputs.shape == (359, 8, 8, 1)
    assert data.test.inputs.dtype == np.uint8
    known = {(p * 255 / 16).round().astype(np.uint8).tobytes() for p in load_digits().images}
    assert {p.tobytes() for p in data.train.inputs} < known
    assert np.bincount(data.test.targets).min() >= 34


def test_digits_are_the_same_wherever_scikit_learn_keeps_them(monkeypatch):
    from_file = named._digits_table()
    monkeypatch.setattr(named.Path, "is_file", lambda _: False)
    assert np.array_equal(named._digits_table(), from_file)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Missing, match=r"pip install 'lilliput\[train\]'"):
        load_data("digits")


def test_places_are_the_users_folder_then_beside_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LILLIPUT_DATA", "mine")
    assert [str(p) for p in places()] == ["mine", str(cache_folder())]
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert [str(p) for p in places()] == ["mine", "../shared/data", str(cache_folder())]
    assert [str(p) for p in places(tmp_path)] == [str(tmp_path)]


@pytest.mark.parametrize("name", ["set5", "set14", "t91", "pool32"])
def test_sets_without_a_home_say_where_to_put_them(name):
    with pytest.raises(LilliputError) as error:
        load_data(name)
    assert f"the data {name!r} is not on this machine" in str(error.value)
    assert str(cache_folder()) in str(error.value)
    assert "set LILLIPUT_DATA to the folder that holds" in str(error.value)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("cifar10", named.CIFAR_REMOTE.url),
        ("mnist", f"{named.MNIST_HOME}train-images-idx3-ubyte.gz"),
        ("fashion_mnist", f"{named.FASHION_HOME}train-images-idx3-ubyte.gz"),
    ],
)
def test_offline_says_url_folder_and_variable(name, url, tmp_path):
    with pytest.raises(LilliputError) as error:
        load_data(name)
    for part in (url, "cannot be reached", str(cache_folder()), "LILLIPUT_DATA"):
        assert part in str(error.value)
    with pytest.raises(LilliputError, match=f"the data '{name}' is not on this machine\n  → down"):
        load_data(name, root=tmp_path)  # an own folder is never filled by a download


def answer_with(content: bytes, monkeypatch) -> list[str]:
    asked: list[str] = []

    def answer(request, **_named):
        asked.append(request.full_url)
        return io.BytesIO(content)

    monkeypatch.setattr("urllib.request.urlopen", answer)
    return asked


def test_a_download_is_checked_and_kept(monkeypatch):
    asked = answer_with(b"content", monkeypatch)
    remote = Remote("https://example.org/a", hashlib.md5(b"content").hexdigest(), 100)
    path = fetch("a", "sub/a.gz", remote)
    assert path == cache_folder() / "sub" / "a.gz"
    assert path.read_bytes() == b"content"
    assert fetch("a", "sub/a.gz", remote) == path
    assert asked == ["https://example.org/a"]


def test_a_wrong_download_never_gets_its_name(monkeypatch):
    answer_with(b"another content", monkeypatch)
    with pytest.raises(LilliputError, match="is not the file that was published: MD5 "):
        fetch("a", "a.gz", Remote("https://example.org/a", "0" * 32, 100))
    with pytest.raises(LilliputError, match="sends more than 5 bytes"):
        fetch("a", "a.gz", Remote("https://example.org/a", "0" * 32, 5))
    assert not (cache_folder() / "a.gz").exists()


def test_mnist_from_an_npz_and_from_idx(tmp_path, monkeypatch):
    write_idx_set(tmp_path / "idx" / "mnist")
    data = load_data("mnist", root=tmp_path / "idx")
    assert data.test.inputs.shape == (10, 4, 4, 1)
    images = next(n for n in named.IDX_NAMES if "t10k-images" in n)
    known = read_idx(tmp_path / "idx" / "mnist" / images)
    assert np.array_equal(data.test.inputs[..., 0], known)
    np.savez(tmp_path / "mnist.npz", x_train=known, y_train=np.arange(10) % 2, x_test=known[:2])
    monkeypatch.setenv("LILLIPUT_DATA", str(tmp_path))
    assert len(load_data("mnist").test) == 2


def test_fashion_from_the_package_of_debian(tmp_path):
    write_idx_set(tmp_path / "debian")
    data = load_data("fashion_mnist")
    assert len(data.test) == 10
    assert data.classes[-1] == "Ankle boot"
    assert data.augment == ("flip",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain", "this file cannot be read: Not a gzipped file"),
        (gzip.compress(b"\0\0\x0d\x01", mtime=0), "not an idx file of bytes"),
        (gzip.compress(b"\0\0\x08\x01\xff\xff\xff\xff", mtime=0), "declares 4294967295 bytes"),
        (
            gzip.compress(b"\0\0\x08\x01\0\0\0\x03ab", mtime=0),
            "is not of the 3 bytes that it declares",
        ),
        (
            gzip.compress(b"\0\0\x08\x01\0\0\0\x01ab", mtime=0),
            "is not of the 1 bytes that it declares",
        ),
    ],
)
def test_idx_files_are_bounded_by_what_they_declare(tmp_path, content, message):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(LilliputError, match=message):
        read_idx(tmp_path / "a.gz")


def test_tiles_are_unpacked_once(tmp_path, monkeypatch):
    labels = np.arange(2500, dtype=np.uint8) % 10
    for name in named.CIFAR_FILES:
        write_tiles(tmp_path / name, labels=labels)
    tiles.tiled_pictures(tmp_path / "cifar10_test.zip")
    first = tiles.tiled_pictures(tmp_path / "cifar10_train.zip")
    assert isinstance(first, np.memmap)
    assert np.array_equal(first, PICTURES)
    assert [p.suffix for p in (cache_folder() / "unpacked").iterdir()] == [".npy", ".npy"]
    monkeypatch.setattr(tiles, "_cut", None)  # nothing is decoded again
    assert np.array_equal(tiles.tiled_pictures(tmp_path / "cifar10_train.zip"), PICTURES)
    data = load_data("cifar10", root=tmp_path)  # the other archive holds the same tiles
    assert np.array_equal(data.test.targets, labels)
    assert data.facts["duplicates_moved"] == 2500


def test_a_broken_cache_is_unpacked_anew(tmp_path):
    write_tiles(tmp_path / "pool32.zip")
    tiles.tiled_pictures(tmp_path / "pool32.zip")
    (kept,) = (cache_folder() / "unpacked").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    assert np.array_equal(tiles.tiled_pictures(tmp_path / "pool32.zip"), PICTURES)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    write_tiles(tmp_path / "pool32.zip")
    data = load_data("pool32", root=tmp_path)
    assert data.train.targets is None
    assert len(data.train) + len(data.validation) + len(data.test) == 2500


def test_broken_archives_are_named(tmp_path):
    path = tmp_path / "pool32.zip"
    path.write_bytes(b"nothing")
    with pytest.raises(LilliputError, match=r"pool32\.zip: this archive cannot be read"):
        load_data("pool32", root=tmp_path)
    write_tiles(path, size=1568)
    with pytest.raises(LilliputError, match=r"tiles_00\.png has the size \(1600, 1568\)"):
        load_data("pool32", root=tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiles_00.png", b"nothing")
    with pytest.raises(LilliputError, match=r"tiles_00\.png cannot be decoded"):
        load_data("pool32", root=tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", b"nothing")
    with pytest.raises(LilliputError, match="0 files of tiles"):
        load_data("pool32", root=tmp_path)
    with pytest.raises(LilliputError, match=r"no readable labels\.npy"):
        tiles.labels_of(path)


def test_labels_of_objects_are_not_unpickled(tmp_path):
    write_tiles(tmp_path / "a.zip", labels=np.array([{}], object), size=1600)
    with pytest.raises(LilliputError, match=r"no readable labels\.npy: Object arrays cannot be"):
        tiles.labels_of(tmp_path / "a.zip")


def test_the_binary_cifar_is_read_by_name_and_size(tmp_path, monkeypatch):
    monkeypatch.setattr(named, "CIFAR_BATCH_BYTES", 20 * 3073)
    rows = np.random.default_rng(0).integers(0, 10, (20, 3073), np.uint8)
    path = tmp_path / named.CIFAR_BINARY
    with tarfile.open(path, "w:gz") as archive:
        for name in (*named.CIFAR_TRAIN, *named.CIFAR_TEST, "../evil", "short"):
            content = rows.tobytes()[: 5 if name == "short" else None]
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    data = load_data("cifar10", root=tmp_path)
    assert data.test.inputs.shape == (20, 32, 32, 3)
    assert np.array_equal(data.test.targets, rows[:, 0])
    assert data.test.inputs[3, 1, 2].tolist() == rows[3, [35, 1059, 2083]].tolist()
    assert data.facts["duplicates_moved"] == 100  # the five train batches here are the test batch
    assert not (tmp_path / "evil").exists()
    with pytest.raises(LilliputError, match="short is not what was published"):
        named.read_cifar_binary(path, ("short",))
    with pytest.raises(LilliputError, match="this archive cannot be read"):
        named.read_cifar_binary(path, ("absent",))


def test_super_resolution_sets_are_lists_of_rgb(tmp_path, paint):
    for n in range(12):
        paint(tmp_path / "sr" / "train" / f"{n}.png", size=(6 + n, 5))
    for n in range(2):
        paint(tmp_path / "sr" / "set5" / f"{n}.png", mode="L", size=(9, 9 + n))
    data = load_data("t91", root=tmp_path)
    assert not data.alike
    assert data.facts["test"] == "from 'set5'"
    assert [p.shape for p in data.test.inputs] == [(9, 9, 3), (9, 10, 3)]
    assert data.test.targets is None
    assert (len(data.train), len(data.validation)) == (11, 1)
    only = load_data("set5", root=tmp_path)
    assert (len(only.train), len(only.test)) == (0, 2)
    assert only.facts["files"] == ["0", "1"]


@pytest.mark.data
def test_real_mnist(shared_data):
    data = load_data("mnist", root=shared_data)
    assert data.test.targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert data.test.inputs.shape == (10000, 28, 28, 1)
    assert (len(data.train), len(data.validation)) == (55000, 5000)
    assert hashlib.sha256(np.ascontiguousarray(data.test.inputs)).hexdigest().startswith("6d87418d")


@pytest.mark.data
def test_real_cifar10(shared_data):
    data = load_data("cifar10", root=shared_data)
    assert data.test.targets[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert np.bincount(data.test.targets).tolist() == [1000] * 10
    assert np.bincount(data.validation.targets).tolist() == [500] * 10
    assert data.train.inputs.shape == (45000, 32, 32, 3)
    assert data.facts["duplicates_moved"] == 0
    means = data.train.inputs.mean((0, 1, 2)) / 255
    assert np.allclose(means, (0.4914, 0.4822, 0.4465), atol=1e-3)


@pytest.mark.data
@pytest.mark.parametrize(("name", "count"), [("set5", 5), ("set14", 14)])
def test_real_benchmark_pictures(shared_data, name, count):
    data = load_data(name, root=shared_data)
    assert len(data.test) == count
    assert all(p.shape[-1] == 3 for p in data.test.inputs)


@pytest.mark.data
def test_real_pool(shared_data):
    data = load_data("pool32", root=shared_data)
    assert data.train.targets is None
    lost = data.facts["duplicates_moved"]
    assert len(data.train) + len(data.validation) + len(data.test) + lost == 20000
    assert lost <= 1
