"""The image decoder: an upright RGB image, or a reason."""

import hashlib
from io import BytesIO

import numpy as np
import pytest
from pictures import (
    animated,
    bomb,
    commented_gif,
    deep_grey,
    encoded,
    gradient,
    readable,
    rotated_by_exif,
    unreadable,
)
from PIL import Image, ImageCms

from actors import images
from actors.images import Fit, UnusableImage


@pytest.mark.parametrize("name", readable())
def test_unusual_files_become_rgb(name):
    image = images.decode(readable()[name])
    assert image.mode == "RGB"
    assert min(image.size) >= 40


@pytest.mark.parametrize("name", unreadable())
def test_bad_files_are_refused_with_the_reason(name):
    data, reason = unreadable()[name]
    with pytest.raises(UnusableImage, match=reason):
        images.decode(data)


def test_exif_orientation_is_applied():
    decoded = images.read(rotated_by_exif())
    assert (decoded.width_px, decoded.height_px) == decoded.image.size == (60, 120)
    upper, lower = decoded.image.getpixel((30, 20)), decoded.image.getpixel((30, 100))
    assert upper[0] > 200 > 60 > upper[2]
    assert lower[2] > 200 > 60 > lower[0]


def test_transparency_becomes_white():
    see_through = Image.new("RGBA", (50, 50), (255, 0, 0, 0))
    assert images.decode(encoded(see_through, "PNG")).getpixel((25, 25)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped():
    assert images.decode(deep_grey()).getpixel((10, 10)) == (128, 128, 128)


def test_animation_gives_its_first_frame():
    assert images.decode(animated()).getpixel((10, 10)) == (255, 0, 0)


def test_caller_sets_the_limit_of_pixels():
    assert images.decode(encoded(gradient(100, 100)), max_pixels=10_000).size == (100, 100)
    with pytest.raises(UnusableImage, match="9,999 pixels"):
        images.decode(encoded(gradient(100, 100)), max_pixels=9_999)


def test_decompression_bomb_is_refused_before_decoding():
    with pytest.raises(UnusableImage, match="more than the allowed 100,000,000 pixels"):
        images.decode(bomb())


def test_large_jpeg_is_decoded_at_a_smaller_scale_and_keeps_its_recorded_size():
    photo = encoded(gradient(1600, 1200))
    decoded = images.read(photo, min_side_px=300)
    assert decoded.image.size == (400, 300)
    assert (decoded.width_px, decoded.height_px) == (1600, 1200)
    assert images.read(photo, min_side_px=700).image.size == (1600, 1200)


def test_smaller_scale_gives_nearly_the_same_pixels():
    fit, photo = Fit(96, 96), encoded(gradient(2400, 1800))
    full = images.pixels(images.decode(photo), fit)
    small = images.read_for(photo, fit)
    assert max(small.image.size) < 2400
    assert np.abs(full.astype(int) - images.pixels(small.image, fit)).mean() < 1


def test_preview_keeps_the_aspect_ratio_and_is_never_enlarged():
    large = Image.open(BytesIO(images.preview_jpeg(gradient(800, 400))))
    small = Image.open(BytesIO(images.preview_jpeg(gradient(100, 50))))
    assert (large.format, large.size, small.size) == ("JPEG", (256, 128), (100, 50))


def described_jpeg() -> bytes:
    """A JPEG with every kind of metadata that Pillow writes."""
    exif = Image.Exif()
    exif[0x010E] = "palm tree"  # ImageDescription
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    metadata = {"comment": b"palm tree", "xmp": b"<x>palm tree</x>", "dpi": (300, 300)}
    return encoded(gradient(), exif=exif, icc_profile=profile, **metadata)


@pytest.mark.parametrize("longer_side_px", [64, 256])
@pytest.mark.parametrize("data", [described_jpeg(), commented_gif()], ids=["jpeg", "gif"])
def test_preview_has_no_metadata(data, longer_side_px):
    assert b"palm tree" in data
    preview = images.preview_jpeg(images.decode(data), longer_side_px)
    assert b"palm" not in preview
    info = Image.open(BytesIO(preview)).info
    assert set(info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert info["jfif_density"] == (1, 1)


def test_image_id_is_sha256_of_the_bytes():
    assert images.image_id(b"abc") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("target", [(96, 96), (64, 80)])
@pytest.mark.parametrize("size", [(120, 90), (33, 97), (96, 96), (500, 101), (40, 30)])
def test_pixels_equal_the_transform_of_open_clip(size, target, mode):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    image = gradient(*size, seed=3)
    config = PreprocessCfg(size=target, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode)
    expected = image_transform_v2(config, is_train=False)(image).numpy() * 255
    found = images.pixels(image, Fit(*target, resize_mode=mode))
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, expected, atol=1e-3)
