"""Picture files of every mode, and files that are not pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps, features

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.data.pictures import Decoding, probe, suffixes
from dsdistill.data.pictures import pixels as decoded
from dsdistill.errors import UserError
from tests.helpers.callbacks import Told
from tests.helpers.data import class_folders, fails, pixels, save

pytestmark = pytest.mark.usefixtures("data_home")


def test_mixed_modes_and_sizes_become_what_was_asked_and_one_sentence_says_how(tmp_path: Path) -> None:
    pets = tmp_path / "pets"
    cat, dog = pets / "train" / "cat", pets / "train" / "dog"
    grey = pixels(8, 8)
    save(cat / "a_grey.png", grey)
    save(cat / "b_16bit.png", grey.astype(np.uint16) * 257)
    save(cat / "c_wide.png", np.full((30, 50, 3), (10, 200, 30), dtype=np.uint8))
    alpha = np.zeros((8, 8, 4), dtype=np.uint8)
    alpha[:, :4] = (200, 100, 50, 255)
    save(dog / "a_alpha.png", alpha)
    save(dog / "b_palette.gif", np.full((8, 8, 3), (255, 0, 0), dtype=np.uint8), "P")
    save(dog / "c_cmyk.jpg", np.full((8, 8, 3), 255, dtype=np.uint8), "CMYK")
    class_folders(pets / "test", per_class=1)
    told: list[str] = []
    task, train = load(DataConfig(name=f"folder:{pets}"), "train", Told(notify=told.append))
    assert task.shape == (3, 8, 8)
    image = train.images
    assert torch.equal(image[0], torch.from_numpy(grey).expand(3, 8, 8))
    assert torch.equal(image[1], image[0])  # 16 bits of the same picture
    assert image[2].flatten(1).float().mean(1).tolist() == [10, 200, 30]
    assert image[3, :, 0, 0].tolist() == [200, 100, 50]
    assert image[3, :, 0, 7].tolist() == [255, 255, 255]  # transparent: white shows through
    assert image[4, :, 3, 3].tolist() == [255, 0, 0]
    assert int(image[5].min()) >= 254
    assert told == [
        f"folder:{pets} (train): 6 images, 1 not 8x8 resized (bilinear, antialiased, aspect not kept), "
        "1 with transparency composited onto white, 1 16-bit scaled to 8 bits, "
        "2 greyscale repeated to 3 channels"
    ]
    told.clear()
    _, small = load(DataConfig(name=f"folder:{pets}", channels=1, size=4), "train", Told(notify=told.append))
    assert small.images.shape == (6, 1, 4, 4)
    assert "4 colour reduced to luma" in told[0]


@pytest.mark.parametrize("damage", [lambda raw: b"no picture", lambda raw: raw[: len(raw) // 2]])
def test_a_corrupt_picture_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    broken = class_folders(tmp_path / "pets", size=32) / "cat" / "3.png"
    broken.write_bytes(damage(broken.read_bytes()))
    for split in ("train", "test"):
        if str(broken) in _error(DataConfig(name=f"folder:{tmp_path / 'pets'}"), split):
            return
    pytest.fail("the damaged file was never named")


def test_pictures_of_unknown_range_and_dangling_links_are_named(tmp_path: Path) -> None:
    pets = class_folders(tmp_path / "pets")
    save(pets / "cat" / "0.tif", pixels(8, 8).astype(np.float32))
    fails("0.tif holds floating-point pixels", f"folder:{pets}", test_fraction=0.01)
    (pets / "cat" / "0.tif").unlink()
    (pets / "cat" / "0.png").rename(tmp_path / "away.png")
    (pets / "cat" / "0.png").symlink_to(tmp_path / "nowhere.png")
    fails("cannot read .*0.png", f"folder:{pets}", test_fraction=0.01)


def write(image: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def test_every_format_that_pillow_reads_safely_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((8, 8, 3), (10, 200, 30), dtype=np.uint8))
    formats = {"jfif": "JPEG", "jpe": "JPEG", "tga": "TGA", "pcx": "PCX", "dib": "BMP", "pbm": "PPM"}
    formats |= {"jpg": "PNG", "png": "GIF", "apng": "PNG"}
    optional = {"avif": ("avif", "AVIF"), "webp": ("webp", "WEBP"), "jp2": ("jpg_2000", "JPEG2000")}
    formats |= {suffix: name for suffix, (feature, name) in optional.items() if features.check(feature)}
    for suffix, name in formats.items():
        write(picture, path := tmp_path / f"a.{suffix}", format=name)
        assert path.suffix in suffixes()
        colour = decoded(path, Decoding(8, 3)).reshape(3, -1).mean(1)
        assert colour == pytest.approx([10, 200, 30], abs=6), suffix


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_formats_that_run_programs_are_no_pictures(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    path = tmp_path / f"a{suffix}"
    write(Image.new("RGB", (8, 8)), path, format="EPS")
    with Image.open(path) as image:
        assert image.format == "EPS"  # to those who do not choose
    for read in (probe, lambda path: decoded(path, Decoding(8, 3))):
        with pytest.raises(UserError, match=r"cannot read the picture .*\(not a picture\)"):
            read(path)
    assert not {".eps", ".ps", ".pdf", ".wmf", ".emf", ".fpx", ".mic", ".h5", ".svg"} & suffixes()


def test_a_format_without_a_mark_is_tried_for_its_own_suffix_only(tmp_path: Path) -> None:
    write(Image.new("RGB", (8, 8)), tmp_path / "a.tga")
    (tmp_path / "a.tga").rename(tmp_path / "a.png")
    with pytest.raises(UserError, match="not a picture"):
        probe(tmp_path / "a.png")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match="it is a pipe, not a regular file"):
        probe(tmp_path / "a.png")


def test_a_picture_too_large_and_one_that_has_gone_get_a_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets = class_folders(tmp_path / "pets", size=32)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32 // 2 - 1)
        fails("cannot read the picture .*exceeds limit", f"folder:{pets}")
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32 - 1)  # where Pillow only warns
        told: list[str] = []
        load(DataConfig(name=f"folder:{pets}"), "train", Told(notify=told.append))
        assert told == []
    with pytest.raises(UserError, match=r"gone\.png has gone since"):
        probe(tmp_path / "gone.png")


def test_12_bit_values_are_told_of_and_a_range_keeps_their_levels(tmp_path: Path) -> None:
    pets = tmp_path / "pets"
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            save(pets / split / name / "0.png", values)
    told: list[str] = []
    _, train = load(DataConfig(name=f"folder:{pets}"), "train", Told(notify=told.append))
    assert len(train.images.unique()) == 17
    assert told == [
        f"folder:{pets} (train): 2 images, 2 16-bit scaled to 8 bits (no value above 4095, so 17 grey levels "
        "are left: data.range=4095 keeps more)"
    ]
    told.clear()
    load(
        DataConfig(name=f"folder:{pets}"), "test", Told(notify=told.append)
    )  # whose range follows that of train
    assert told == [f"folder:{pets} (test): 2 images, 2 16-bit scaled to 8 bits"]
    for split in ("train", "test"):
        told.clear()
        _, data = load(DataConfig(name=f"folder:{pets}", range=4095), split, Told(notify=told.append))  # type: ignore[arg-type]
        expected = np.rint(values.astype(float) * 255 / 4095).astype(np.uint8)
        assert np.array_equal(data.images[0, 0].numpy(), expected)
        assert told == [f"folder:{pets} ({split}): 2 images, 2 16-bit scaled from 0..4095 to 8 bits"]
    fails("holds the value 4095, above data.range=4000", f"folder:{pets}", range=4000)
    save(pets / "train" / "cat" / "1.png", np.full((64, 64), 40000, dtype=np.uint16))
    told.clear()
    load(DataConfig(name=f"folder:{pets}"), "train", Told(notify=told.append))
    assert told[0].endswith("3 images, 3 16-bit scaled to 8 bits")  # some use the whole range


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_exif_rotation_is_applied_if_asked_for(tmp_path: Path, orientation: int, suffix: str) -> None:
    array = np.zeros((16, 32, 3), dtype=np.uint8)
    array[:8, :16], array[8:, :16], array[:8, 16:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"a.{suffix}"
    write(Image.fromarray(array), path, exif=exif, quality=100)
    header = probe(path)
    assert (header.width, header.height, header.turned) == (32, 16, orientation != 1)
    with Image.open(path) as image:
        plain, turned = (square(each) for each in (image, ImageOps.exif_transpose(image)))
    assert np.array_equal(decoded(path, Decoding(16, 3)), plain)
    assert np.array_equal(decoded(path, Decoding(16, 3, exif=True)), turned)


def test_tiff_files_are_turned_once_as_pillow_does_it_itself(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    array = pixels(16, 32, 3)
    write(Image.fromarray(array), tmp_path / "a.tif", exif=exif)
    assert not probe(tmp_path / "a.tif").turned
    expected = square(Image.fromarray(np.rot90(array, -1)))
    for exif_option in (False, True):
        assert np.array_equal(decoded(tmp_path / "a.tif", Decoding(16, 3, exif=exif_option)), expected)


def square(image: Image.Image) -> np.ndarray:
    resized = image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)


def test_damaged_exif_data_harm_no_picture_and_print_nothing(tmp_path: Path) -> None:
    picture, train = Image.fromarray(pixels(8, 8, 3)), tmp_path / "pets" / "train"
    write(picture, train / "cat" / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xffnonsense")
    write(picture, train / "dog" / "a.jpg")
    class_folders(tmp_path / "pets" / "test")
    for exif in (False, True):
        told: list[str] = []
        _, data = load(
            DataConfig(name=f"folder:{tmp_path / 'pets'}", exif=exif), "train", Told(notify=told.append)
        )
        assert torch.equal(data.images[0], data.images[1])
        assert told == []


def test_turned_and_animated_pictures_are_counted(tmp_path: Path) -> None:
    pets = class_folders(tmp_path / "pets" / "train", per_class=1).parent
    class_folders(pets / "test", per_class=1)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    frames = [Image.fromarray(pixels(8, 8, 3, seed=seed)) for seed in range(3)]
    write(frames[0], pets / "train" / "cat" / "1.jpg", exif=exif)
    write(frames[0], pets / "train" / "cat" / "2.gif", save_all=True, append_images=frames[1:])
    write(frames[0], pets / "train" / "cat" / "3.gif")
    write(frames[0], pets / "train" / "cat" / "4.jpg", format="MPO", save_all=True, append_images=frames[1:])
    told: list[str] = []
    load(DataConfig(name=f"folder:{pets}"), "train", Told(notify=told.append))
    load(DataConfig(name=f"folder:{pets}", exif=True), "train", Told(notify=told.append))
    start = f"folder:{pets} (train): 6 images, 1"
    end = "1 with several frames, of which the first is read"
    assert told == [
        f"{start} not turned as their EXIF data say (data.exif=true turns them), {end}",
        f"{start} turned as their EXIF data say, {end}",
    ]


def _error(config: DataConfig, split: str) -> str:
    try:
        load(config, split)  # type: ignore[arg-type]
    except UserError as error:
        return str(error)
    return ""
