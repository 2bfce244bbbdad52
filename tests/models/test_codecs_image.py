"""Pictures: what arrives is upright, RGB and within the limit, or an error that says why not."""

from __future__ import annotations

import base64
import io
import struct
import sys
import zlib

import pytest
from pictures import as_file, difference, photograph, png
from PIL import Image, PngImagePlugin

from dumbwaiter.content_types import parse_content_type
from dumbwaiter.errors import BadInputError, MissingExtraError, ModelLoadError, PermanentError
from dumbwaiter.models.codecs_image import ImageCodec, check_image_mode, decode_image, encode_png, image_to_data_url

LIMIT = 50_000_000
LOSSY = {"JPEG", "AVIF", "WEBP", "GIF"}


def decode(body, mode="RGB", max_pixels=LIMIT):
    return decode_image(body, mode=mode, max_pixels=max_pixels)


def complaint(body, max_pixels=LIMIT):
    with pytest.raises(BadInputError) as caught:
        decode(body, max_pixels=max_pixels)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_a_photograph_arrives_whole_in_every_format(name, kind):
    original = photograph(name)
    came = decode(memoryview(as_file(original, kind)))
    assert (came.mode, came.size) == ("RGB", original.size)
    assert difference(came, original) < (10 if kind in LOSSY else 0.001)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_picture_is_turned_upright_by_its_exif_orientation(kind, orientation):
    upright = Image.new("RGB", (64, 32), "black")
    upright.paste((255, 255, 255), (0, 0, 16, 16))
    upright.paste((128, 128, 128), (48, 0, 64, 16))
    lying = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if orientation == 1 else upright.transpose(lying[orientation])
    came = decode(as_file(stored, kind, exif=exif))
    assert came.size == upright.size
    assert difference(came, upright) < 3


def test_an_orientation_that_makes_no_sense_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 99
    assert decode(as_file(Image.new("RGB", (4, 2)), "JPEG", exif=exif)).size == (4, 2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", [b"II*\x00\xff\xff\xff\x7f" + b"\xff" * 40, b"no such thing", b""])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_broken_exif_block_does_not_make_the_picture_unreadable(kind, block):
    assert decode(as_file(photograph("chelsea"), kind, exif=b"Exif\x00\x00" + block)).size == (451, 300)


def test_a_cmyk_jpeg_becomes_rgb():
    original = photograph("chelsea")
    body = as_file(original.convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(body)).mode == "CMYK"
    assert difference(decode(body), original) < 10


def test_a_grey_picture_becomes_rgb_of_the_same_grey():
    assert decode(as_file(Image.new("L", (3, 2), 100), "PNG")).getpixel((0, 0)) == (100, 100, 100)
    assert decode(as_file(Image.new("1", (3, 2), 1), "PNG")).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "pixel"),
    [("RGB", (156, 156, 156)), ("L", 156), ("RGBA", (156, 156, 156, 255)), ("LA", (156, 255)), ("I", 40_000),
     ("F", 40_000.0), (None, 40_000), ("I;16", 40_000)],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_scaled_and_not_clipped(kind, mode, pixel):
    came = decode(as_file(Image.new("I;16", (3, 2), 40_000), kind), mode=mode)
    assert came.getpixel((0, 0)) == pixel


def test_sixteen_bit_colour_is_read():
    pixels = b"".join(b"\x00" + struct.pack(">HHH", 65535, 32768, 0) * 2 for _ in range(2))
    assert decode(png(2, 2, depth=16, colour=2, pixels=pixels)).getpixel((1, 1)) == (255, 128, 0)


@pytest.mark.parametrize("transparency", [0, b"\x80\xff"])
def test_a_palette_with_transparency_becomes_its_colours(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 210, 220])
    image.putpixel((1, 0), 1)
    body = as_file(image, "PNG", transparency=transparency)
    came = decode(body)
    assert (came.mode, came.getpixel((0, 0)), came.getpixel((1, 0))) == ("RGB", (10, 20, 30), (200, 210, 220))
    assert decode(body, mode="RGBA").getpixel((0, 0))[3] == (0 if transparency == 0 else 128)


def test_the_first_of_several_frames_counts():
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    body = as_file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(body).getpixel((0, 0)) == (255, 0, 0)


def test_a_model_may_ask_for_another_mode_or_the_files_own():
    body = as_file(Image.new("RGBA", (2, 2), (1, 2, 3, 4)), "PNG")
    assert decode(body, mode="RGBA").getpixel((0, 0)) == (1, 2, 3, 4)
    assert decode(body, mode=None).mode == "RGBA"
    assert decode(body, mode="L").mode == "L"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_an_error_and_never_half_a_picture(kind, kept):
    body = as_file(photograph("chelsea"), kind)
    said = complaint(body[: int(len(body) * kept)])
    assert "damaged" in said or "truncated" in said or "is not an image" in said


def test_a_truncated_jpeg_says_how_much_is_missing():
    body = as_file(photograph("coffee"), "JPEG")
    assert complaint(body[:-2000]).startswith("the image is damaged: image file is truncated (")
    assert complaint(body[:20]).startswith("expected an image (JPEG, PNG, ")
    assert "looks like image/jpeg, but is damaged" in complaint(body[:20])


@pytest.mark.parametrize("body", [b"", b"hello", b"\x00" * 1000, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_picture_is_named_so_and_postscript_is_never_run(body):
    assert (
        complaint(body) == "expected an image (JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF), but the body is not an image"
    )


def test_a_format_that_is_not_read_here_is_not_called_damaged_only():
    body = as_file(Image.new("RGB", (8, 8)), "JPEG2000")
    assert "looks like image/jp2, but is damaged or of a kind that is not read here" in complaint(body)


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (LIMIT + 1, 1), (10_000, 10_000)])
def test_a_bomb_is_refused_by_its_header_before_any_pixel_is_decoded(size):
    said = complaint(png(*size))
    assert f"the limit of {LIMIT}" in said
    assert said.startswith("the image has ")


def test_the_limit_is_the_models_own():
    body = as_file(photograph("chelsea"), "PNG")
    assert decode(body, max_pixels=451 * 300).size == (451, 300)
    assert complaint(body, max_pixels=451 * 300 - 1) == (
        "the image has 451 x 300 = 135300 pixels, more than the limit of 135299; send it smaller, or raise max_pixels"
    )


def test_the_limit_may_be_above_pillows_own():
    before = Image.MAX_IMAGE_PIXELS
    try:
        body = as_file(Image.new("1", (20_000, 10_000)), "PNG")
        assert decode(body, mode=None, max_pixels=250_000_000).size == (20_000, 10_000)
    finally:
        Image.MAX_IMAGE_PIXELS = before


@pytest.mark.parametrize(
    ("chunk", "prefix"),
    [("zTXt", b"Comment\x00\x00"), ("iTXt", b"Comment\x00\x01\x00\x00\x00"), ("iCCP", b"icc\x00\x00")],
)
def test_a_text_that_inflates_a_thousandfold_is_never_inflated(chunk, prefix):
    bomb = png(4, 4, (chunk, prefix + zlib.compress(bytes(200_000_000), 9)), pixels=bytes(5 * 4))
    assert len(bomb) < 500_000
    assert "the image is damaged" in complaint(bomb)


def test_pixels_that_inflate_beyond_the_header_are_ignored():
    bomb = png(4, 4, pixels=bytes(100_000_000))
    assert decode(bomb).size == (4, 4)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_empty_picture_is_an_error(size):
    assert "looks like image/png, but is damaged" in complaint(png(*size))


def test_json_carries_a_picture_as_a_data_url():
    codec = ImageCodec(max_pixels=LIMIT)
    url = image_to_data_url(photograph("chelsea"))
    assert difference(codec.from_json(url), photograph("chelsea")) == 0
    body = f'"{url}"'.encode()
    assert codec.from_body(parse_content_type("application/json"), body).size == (451, 300)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("data:image/png;base64,", "got a data URL with nothing in it"),
        ("data:text/plain;base64,aGVsbG8=", "got text/plain"),
        ("data:application/json,%22data:,%22", "got a data URL of application/json"),
        ("cat.jpg", "as its own body, or in JSON as a data: or https: URL; got the JSON string 'cat.jpg'"),
        ({"url": "x"}, "got a JSON object"),
    ],
)
def test_json_that_carries_no_picture_says_what_it_carries(value, reason):
    with pytest.raises(BadInputError) as caught:
        ImageCodec(max_pixels=LIMIT).from_json(value)
    assert str(caught.value).startswith("expected an image (JPEG, ")
    assert reason in str(caught.value)


def test_data_urls_of_json_of_data_urls_do_not_end_the_worker():
    url = image_to_data_url(Image.new("L", (1, 1)))
    for _ in range(600):
        url = f"data:application/json,%22{url.replace('%', '%25')}%22"
    with pytest.raises(BadInputError, match="got a data URL of application/json"):
        ImageCodec(max_pixels=LIMIT).from_json(url)


def test_a_body_of_another_type_is_refused_by_name():
    codec = ImageCodec(max_pixels=LIMIT)
    with pytest.raises(BadInputError, match=r"expected an image \(JPEG.*\), got text/plain"):
        codec.from_body(parse_content_type("text/plain"), as_file(photograph("chelsea"), "PNG"))
    assert codec.from_body(parse_content_type(None), as_file(photograph("chelsea"), "PNG")).size == (451, 300)
    assert codec.schema()["contentMediaType"] == "image/*"


@pytest.mark.parametrize(
    ("mode", "sent"),
    [("1", "1"), ("L", "L"), ("LA", "LA"), ("P", "P"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("I;16", "I;16"),
     ("I", "I;16"), ("I;16B", "I;16"), ("PA", "RGBA"), ("RGBa", "RGBA"), ("La", "LA"), ("CMYK", "RGB"), ("F", "RGB"),
     ("YCbCr", "RGB"), ("HSV", "RGB"), ("LAB", "RGB")],
)  # fmt: skip
def test_a_picture_of_any_mode_can_be_answered(mode, sent):
    assert Image.open(io.BytesIO(encode_png(Image.new(mode, (3, 2))))).mode == sent


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B"])
def test_sixteen_bits_of_grey_are_answered_without_loss(mode):
    assert decode(encode_png(Image.new(mode, (3, 2), 40_000)), mode=None).getpixel((0, 0)) == 40_000


@pytest.mark.parametrize("level", [-1, 65_536])
def test_levels_that_png_cannot_hold_are_an_error_and_never_clipped(level):
    with pytest.raises(PermanentError) as caught:
        encode_png(Image.new("I", (3, 2), level))
    assert f"cannot encode this I image as PNG: its levels reach from {level} to {level}" in str(caught.value)


def test_a_picture_without_pixels_cannot_be_answered():
    with pytest.raises(PermanentError, match="cannot encode this RGB image as PNG: "):
        encode_png(Image.new("RGB", (0, 0)))


def test_large_text_in_a_picture_of_the_models_own_is_no_matter():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 1000, zip=True)
    assert decode(as_file(Image.new("RGB", (2, 2)), "PNG", pnginfo=info)).size == (2, 2)


@pytest.mark.parametrize("mode", ["rgb", "", 3, b"RGB"])
def test_a_mode_that_pillow_does_not_know_is_found_when_the_model_is_loaded(mode):
    with pytest.raises(ModelLoadError) as caught:
        check_image_mode(mode)
    assert str(caught.value).startswith(f"image_mode {mode!r} is no mode of Pillow's; write 'RGB'")


def test_known_modes_and_none_pass():
    for mode in ("RGB", "L", "RGBA", "I;16", "F", None):
        check_image_mode(mode)


def test_without_pillow_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError) as caught:
        decode(b"")
    assert str(caught.value) == "pillow is not installed; install it with: pip install 'dumbwaiter[image]'"


def test_base64_of_a_photograph_survives_json():
    body = as_file(photograph("coffee"), "JPEG")
    url = f"data:image/jpeg;base64,{base64.b64encode(body).decode()}"
    assert difference(ImageCodec(max_pixels=LIMIT).from_json(url), decode(body)) == 0


def test_a_progressive_jpeg_is_taken_and_one_with_hundreds_of_scans_is_not():
    """Each scan goes over the whole picture again: a small file could keep a thread busy for minutes."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(file, "JPEG", progressive=True)
    honest = file.getvalue()
    assert decode_image(honest, mode="RGB", max_pixels=10_000).size == (64, 64)
    first_scan = honest.index(b"\xff\xda")
    scan = honest[first_scan : honest.index(b"\xff\xc4", first_scan + 2)]
    bomb = honest[:first_scan] + scan * 500 + honest[first_scan:]
    with pytest.raises(BadInputError, match=r"the image has \d+ scans, more than the limit of 100; save it anew"):
        decode_image(bomb, mode="RGB", max_pixels=10_000)
