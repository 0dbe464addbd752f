"""The shipped data sets: what they hold, and what they say when files are missing or damaged."""

import hashlib
import pickle

import numpy as np
import pytest
from torchvision import datasets

from ltr.data.sources.cifar import cifar10, cifar100
from ltr.data.sources.digits import digits
from ltr.data.sources.mnist import mnist
from ltr.errors import DataError


def test_digits_have_forty_test_images_of_each_class():
    source = digits()
    assert source.images.shape == (1797, 8, 8, 1)
    assert np.bincount(source.labels[1397:]).tolist() == [40] * 10
    assert source.parts == {"train": range(1397), "test": range(1397, 1797)}


def test_digits_fill_the_range_of_uint8():
    source = digits()
    assert source.images.dtype == np.uint8
    assert (source.images.min(), source.images.max()) == (0, 255)


def test_the_test_digits_never_change():
    # a change here silently changes every result on digits
    assert digits().fingerprint == "d2fd6b2c6b78fa3d3f66f21ccca1c15bbcd51f3aab60cc9cc3b4371b7e459ef9"


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    table = load_digits()
    actual = np.sort([image.tobytes() for image in digits().images])
    expected = np.sort([np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in table.images])
    np.testing.assert_array_equal(actual, expected)


def write_pickle(file, content, as_name=None):
    data = pickle.dumps(content)
    file.write_bytes(data)
    return [as_name or file.name, hashlib.md5(data).hexdigest()]


@pytest.fixture
def small_cifar10(tmp_path, monkeypatch):
    """The official layout with 4 images per file, and their md5 for torchvision."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.Generator(np.random.Philox(key=1))
    entries, images, labels = [], [], []
    for file in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]:
        data = rng.integers(0, 256, size=(4, 3072), dtype=np.uint8)
        targets = rng.integers(0, 10, size=4).tolist()
        entries.append(write_pickle(folder / file, {"data": data, "labels": targets}))
        images.append(data.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1))
        labels += targets
    names = [f"class {label}" for label in range(10)]
    _, md5 = write_pickle(folder / "batches.meta", {"label_names": names})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", entries[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", entries[5:])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": md5})
    return tmp_path, np.concatenate(images), labels


def test_cifar_is_read_in_the_order_of_the_files(small_cifar10):
    root, images, labels = small_cifar10
    source = cifar10(root=str(root))
    np.testing.assert_array_equal(source.images, images)
    assert source.labels.tolist() == labels
    assert source.parts == {"train": range(20), "test": range(20, 24)}
    assert source.class_names[3] == "class 3"


@pytest.fixture
def small_cifar100(tmp_path, monkeypatch):
    """The official layout of CIFAR-100 with 6 classes in 3 superclasses, two images of each in either file."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rng = np.random.Generator(np.random.Philox(key=2))
    fine = np.tile(np.arange(6), 2).tolist()
    entries = []
    for file in ("train", "test"):
        data = rng.integers(0, 256, size=(12, 3072), dtype=np.uint8)
        coarse = [2 - label // 2 for label in fine]
        entries.append(write_pickle(folder / file, {"data": data, "fine_labels": fine, "coarse_labels": coarse}))
    names = {"fine_label_names": [f"class {n}" for n in range(6)], "coarse_label_names": ["rocks", "fish", "trees"]}
    _, md5 = write_pickle(folder / "meta", names)
    monkeypatch.setattr(datasets.CIFAR100, "train_list", entries[:1])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", entries[1:])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": md5})
    return tmp_path


def test_cifar100s_coarse_labels_are_its_supercategories(small_cifar100):
    source = cifar100(root=str(small_cifar100))
    assert source.taxonomy == {"supercategory": ("trees", "trees", "fish", "fish", "rocks", "rocks")}


def test_cifar100s_supercategories_are_pseudo_labels_of_background_splitting(small_cifar100, ltr_train):
    done = ltr_train(
        "method=background_splitting",
        "dataset=cifar100_bg",
        f"paths.data={small_cifar100}",
        "dataset.n_foreground=2",
        "method.aux.partition=supercategories",
        "method.aux.init=fresh",
        "trainer.max_epochs=1",
        "scheduler.warmup_epochs=0",
        "batch_size=4",
    )
    assert done.code == 0, done.err
    with np.load(done.directory / "artifacts" / "partition.npz") as report:
        assert report["counts"].tolist() == [4, 4, 4]


def test_a_class_of_cifar100_in_two_superclasses_is_refused(small_cifar100, monkeypatch):
    file = small_cifar100 / "cifar-100-python" / "test"
    content = pickle.loads(file.read_bytes())
    content["coarse_labels"][0] = 0
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [write_pickle(file, content)])
    with pytest.raises(DataError, match="does not give each of 6 classes one superclass"):
        cifar100(root=str(small_cifar100))


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_truncated_cifar_file_is_named(small_cifar10, file):
    root, *_ = small_cifar10
    path = root / "cifar-10-batches-py" / file
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"{file} is damaged or only half downloaded \(100 bytes"):
        cifar10(root=str(root))


def test_a_missing_cifar_file_is_named(small_cifar10):
    root, *_ = small_cifar10
    (root / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(DataError, match=r"it lacks data_batch_2\.\n"):
        cifar10(root=str(root))


@pytest.mark.parametrize(
    ("source", "folder"),
    [(cifar10, "cifar-10-batches-py"), (cifar100, "cifar-100-python"), (mnist, "MNIST/raw")],
)
def test_a_missing_folder_is_refused_with_its_location_and_the_download_command(tmp_path, source, folder):
    with pytest.raises(DataError) as caught:
        source(root=str(tmp_path))
    message = str(caught.value)
    for wanted in (str(tmp_path / folder), "no such folder", "dataset.download=true", "LTR_DATA", "paths.data"):
        assert wanted in message


@pytest.mark.parametrize(("source", "reader"), [(cifar10, datasets.CIFAR10), (mnist, datasets.MNIST)])
def test_a_failed_download_is_one_message(tmp_path, monkeypatch, source, reader):
    def fail(self):
        raise OSError("the network is down")

    monkeypatch.setattr(reader, "download", fail)
    with pytest.raises(DataError, match=r"could not be downloaded.*the network is down"):
        source(root=str(tmp_path), download=True)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def small_mnist(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = np.arange(7 * 28 * 28).reshape(7, 28, 28) % 251
    labels = np.arange(7)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(images[:5]))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels[:5]))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(images[5:]))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(labels[5:]))
    return tmp_path, images, labels


def test_mnist_is_read_with_one_channel(small_mnist):
    root, images, labels = small_mnist
    source = mnist(root=str(root))
    np.testing.assert_array_equal(source.images, images[..., None])
    np.testing.assert_array_equal(source.labels, labels)
    assert source.parts == {"train": range(5), "test": range(5, 7)}


@pytest.mark.parametrize("keep", [0, 3, 100])
def test_a_truncated_mnist_file_is_named(small_mnist, keep):
    root, *_ = small_mnist
    path = root / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is damaged or only half downloaded"):
        mnist(root=str(root))


def test_mnist_with_fewer_labels_than_images_is_refused(small_mnist):
    root, *_ = small_mnist
    (root / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(4)))
    with pytest.raises(DataError, match="7 images but 6 labels"):
        mnist(root=str(root))


def test_real_cifar100_is_balanced_and_complete(cifar_root):
    source = cifar100(root=str(cifar_root))
    assert source.images.shape == (60000, 32, 32, 3)
    assert np.bincount(source.labels[:50000]).tolist() == [500] * 100
    assert np.bincount(source.labels[50000:]).tolist() == [100] * 100
    assert source.class_names[0] == "apple"
    superclasses = source.taxonomy["supercategory"]
    assert len(set(superclasses)) == 20
    assert {superclasses.count(name) for name in superclasses} == {5}
    assert superclasses[source.class_names.index("apple")] == "fruit_and_vegetables"
