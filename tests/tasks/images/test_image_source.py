import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from citeflow import files
from citeflow.errors import CiteflowError, DataError, NotFoundError
from citeflow.tasks import get_task, load_settings
from citeflow.tasks.images.idx import write_idx
from citeflow.tasks.images.prepared import PreparedImages


def prepare(dataset, root, *overrides) -> PreparedImages:
    config = load_settings("images", overrides=overrides)
    task = get_task("images")
    raw = task.download(str(dataset), data_root=root, settings=config)
    return PreparedImages.open(task.preprocess(raw, data_root=root, settings=config.to_dict()))


@pytest.fixture
def pets(tmp_path):
    """Cats and dogs of four grays each, 6 x 5 pixels, as PNG and JPEG."""
    folder = tmp_path / "pets"
    for label, name in enumerate(["cat", "dog"]):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            suffix = "png" if number % 2 else "jpg"
            image = Image.new("L", (6, 5), 100 * label + 10 * number)
            image.save(folder / name / f"{number}.{suffix}")
    (folder / "cat" / ".DS_Store").write_text("not an image")
    return folder


def bomb(path):
    """A PNG of a few bytes that claims 3,600 million pixels."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">2I5B", 60_000, 60_000, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def test_folder_of_classes_keeps_pixels_and_names(pets, tmp_path):
    images = prepare(pets, tmp_path / "data")
    assert images.facts.classes == ("cat", "dog")
    assert images.image_NHWC.shape == (8, 5, 6, 1)
    np.testing.assert_array_equal(
        images.image_NHWC[:, 0, 0, 0], [0, 10, 20, 30, 100, 110, 120, 130]
    )
    assert images.label_N.tolist() == [0] * 4 + [1] * 4
    assert (images.facts.num_train, images.facts.num_valid, images.facts.num_test) == (4, 2, 2)


@pytest.mark.parametrize("stray", ["cat/kittens/9.png", "9.png", "train/cat/kittens/9.png"])
def test_image_outside_of_the_folders_of_classes_is_named(stray, pets, tmp_path):
    (pets / stray).parent.mkdir(parents=True, exist_ok=True)
    (pets / "cat" / "1.png").rename(pets / stray)
    with pytest.raises(NotFoundError, match="not in the folder of a class") as caught:
        prepare(pets, tmp_path / "data")
    assert caught.value.value == str(pets / stray)


def test_archive_with_a_test_of_its_own_is_split_as_it_says(pets, tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in pets.rglob("*.[pj][np]g"):
            name = path.relative_to(pets)
            archive.write(path, f"pets/train/{name}")
            if path.stem == "1":
                archive.write(path, f"pets/test/{name}")
    images = prepare(tmp_path / "pets.zip", tmp_path / "data")
    assert (images.facts.split, images.facts.num_test) == ("own", 2)
    assert "2 test images are training images too" in images.facts.remarks[0]


def test_one_color_image_makes_all_rgb(pets, tmp_path):
    Image.new("RGB", (6, 5), (1, 2, 3)).save(pets / "dog" / "9.png")
    images = prepare(pets, tmp_path / "data")
    assert images.image_NHWC.shape == (9, 5, 6, 3)
    assert images.image_NHWC[-1, 0, 0].tolist() == [1, 2, 3]


def test_mixed_sizes_are_an_error_unless_a_size_is_set(pets, tmp_path):
    Image.new("L", (30, 20), 7).save(pets / "dog" / "9.png")
    with pytest.raises(
        DataError, match=r"images of different sizes: .*dog/9.png 30 x 20"
    ) as caught:
        prepare(pets, tmp_path / "data")
    assert "data.size" in caught.value.hint
    images = prepare(pets, tmp_path / "data", "data.size=8")
    assert images.image_NHWC.shape == (9, 8, 8, 1)
    assert "stretched" in images.facts.remarks[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (bomb, "image is too large"),
        (lambda path: path.write_text("<svg/>"), "not a PNG or JPEG"),
        (lambda path: path.write_bytes(b""), "not a PNG or JPEG"),
        (lambda path: Image.new("L", (6, 5)).save(path, "GIF"), "not a PNG or JPEG"),
    ],
)
def test_hostile_image_is_named(spoil, message, pets, tmp_path):
    spoil(pets / "cat" / "bad.png")
    with pytest.raises(DataError, match=message) as caught:
        prepare(pets, tmp_path / "data")
    assert str(pets / "cat" / "bad.png") in caught.value.value


def test_image_that_is_cut_is_named(pets, tmp_path):
    path = pets / "cat" / "1.png"
    noise = np.random.default_rng(0).integers(0, 255, (5, 6), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-25])
    with pytest.raises(DataError, match=r"damaged: .*cat/1.png"):
        prepare(pets, tmp_path / "data")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda folder: (folder / "t10k-images-idx3-ubyte").unlink(), DataError, "is missing"),
        (lambda folder: write_labels(folder, "t10k", [0, 1, 7]), DataError, "no training image"),
        (lambda folder: write_labels(folder, "train", [0] * 9), DataError, "classes: .*: 1"),
        (lambda folder: write_labels(folder, "train", [0, 1]), DataError, "as many labels"),
        (lambda folder: (folder / "classes.txt").write_text("a\n"), DataError, "row 3: 1 of 1"),
        (lambda folder: (folder / "classes.txt").write_text("a\n\nb\n"), DataError, "line 2"),
        (lambda folder: (folder / "classes.txt").write_text("a\nb\na\n"), DataError, "line 3"),
        (lambda folder: files.delete_directory(folder), NotFoundError, "no such dataset"),
    ],
)
def test_idx_folder_that_does_not_fit_is_refused(spoil, error, message, tmp_path):
    folder = tmp_path / "idx"
    folder.mkdir()
    for prefix, num in (("train", 9), ("t10k", 3)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", np.zeros((num, 4, 4)))
        write_labels(folder, prefix, [0] * 3 + [1] * (num - 3))
    spoil(folder)
    with pytest.raises(error, match=message):
        prepare(folder, tmp_path / "data")


def write_labels(folder, prefix, labels):
    path = folder / f"{prefix}-labels-idx1-ubyte"
    path.unlink(missing_ok=True)
    write_idx(path, np.array(labels))


def test_published_dataset_needs_its_published_digest(tmp_path, monkeypatch):
    for prefix in ("train", "t10k"):
        for name in (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"):
            (tmp_path / name).write_bytes(b"another")
    monkeypatch.setenv("CITEFLOW_MNIST_URL", tmp_path.as_uri())
    with pytest.raises(CiteflowError, match=r"wrong sha256: .*train-images.*expected 440fcabf"):
        prepare("mnist", tmp_path / "data")


def test_four_files_below_a_url_are_fetched_once(tmp_path, monkeypatch):
    from citeflow.data import download

    fetched = []

    def fetch(url, target, *, sha256):
        fetched.append(url.rpartition("/")[2])
        num = 30 if "train" in url else 6
        shape = (num, 4, 4) if "images" in url else (num,)
        write_idx(target, np.arange(np.prod(shape)).reshape(shape) % 2)

    monkeypatch.setattr(download, "fetch", fetch)
    url = "https://example.org/fashion/"
    first = prepare(url, tmp_path / "data")
    assert prepare(url, tmp_path / "data").path == first.path
    assert first.facts.dataset == "fashion"
    assert (first.facts.num_images, first.facts.num_test, len(fetched)) == (36, 6, 4)


def test_jpeg_that_a_camera_turned_is_turned_back(pets, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    pixels = np.repeat([[0, 250]], 6, axis=0).repeat([2, 3], axis=1).astype(np.uint8)
    Image.fromarray(pixels).save(pets / "dog" / "9.jpg", exif=exif, quality=100)
    image_HW = prepare(pets, tmp_path / "data").image_NHWC[-1, ..., 0]
    assert image_HW.shape == (5, 6)
    assert image_HW[0].max() < 50 < 200 < image_HW[-1].min()
