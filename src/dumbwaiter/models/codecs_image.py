"""Pictures as PIL images.

An input picture is loaded fully, turned upright by its EXIF orientation and converted to RGB (a class attribute
``image_mode`` names another Pillow mode, or None to keep the file's own). Of several frames the first counts.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any, cast

from dumbwaiter import data_urls
from dumbwaiter.content_types import PNG, ContentType, parse_content_type, sniff_image
from dumbwaiter.errors import BadInputError, MissingExtraError, ModelLoadError, PermanentError
from dumbwaiter.models.codecs_json import decode_json
from dumbwaiter.models.input_codec import URL_SCHEMA, Buffer, InputCodec, from_data_url, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

#: Pillow knows 40 formats. These are what callers send; EPS, for one, would start Ghostscript on a stranger's program.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_EXPECTED = "an image (JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF)"
_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
_PNG_FORMS = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA", "I": "I;16", "I;16B": "I;16", "I;16L": "I;16", "I;16N": "I;16"}
_GREY_DEPTHS = ("I", "F")  # modes that hold 16 bits of grey as they are
_ORIENTATION = 0x0112
_MOST_SCANS = 100
#: EXIF orientation -> Pillow's Transpose that undoes it.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class ImageCodec(InputCodec):
    """Bodies of image/*, or of no said type, as PIL.Image.Image of at most *max_pixels*."""

    kind = "image"
    cheap = False
    content_types = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif")

    def __init__(self, *, mode: str | None = "RGB", max_pixels: int) -> None:
        self._mode = mode
        self._max_pixels = max_pixels

    def from_body(self, content_type: ContentType, body: Buffer) -> Any:
        if content_type.is_json:
            return self.from_json(decode_json(body))
        if not (content_type.is_image or content_type.opaque):
            raise BadInputError(f"expected {_EXPECTED}, got {one_line(content_type.essence, 60)}")
        return decode_image(body, mode=self._mode, max_pixels=self._max_pixels)

    def from_json(self, value: Any) -> Any:
        content_type, body = from_data_url(_EXPECTED, value)
        said = parse_content_type(content_type)
        if said.is_json:  # which could hold a data URL of JSON, which could hold a data URL of JSON
            raise BadInputError(f"expected {_EXPECTED}, got a data URL of {said.essence}")
        return self.from_body(said, body)

    def schema(self) -> dict[str, Any]:
        return {**URL_SCHEMA, "contentMediaType": "image/*"}


def decode_image(body: Buffer, *, mode: str | None, max_pixels: int) -> Image:
    """The first frame, upright, in *mode*. Raises BadInputError for all that is not a sound picture within the limit.

    The limit is checked on the header, before any pixel is decoded.
    """
    pillow = _pillow()
    if pillow.MAX_IMAGE_PIXELS is not None and max_pixels > pillow.MAX_IMAGE_PIXELS:
        pillow.MAX_IMAGE_PIXELS = max_pixels  # the limit is ours to set; Pillow's own must not be lower
    try:
        image: Image = pillow.open(io.BytesIO(body), formats=_known_formats())
        _check_size(image.size, max_pixels)
        if image.format == "JPEG":
            _check_scans(body)
        image.load()
        return _in_mode(_upright(image, pillow), mode)
    except (BadInputError, MemoryError):
        raise
    except Exception as error:  # a hostile file makes decoders raise anything
        raise BadInputError(_explain(error, sniff_image(body), max_pixels)) from None


def encode_png(image: Image) -> bytes:
    """*image* as PNG, lightly compressed; a mode that PNG lacks becomes the nearest. Raises PermanentError."""
    file = io.BytesIO()
    try:
        (image if image.mode in _PNG_MODES else _for_png(image)).save(file, "PNG", compress_level=1)
    except (ValueError, OSError, SystemError) as error:
        raise PermanentError(f"cannot encode this {image.mode} image as PNG: {one_line(error)}") from None
    return file.getvalue()


def check_image_mode(mode: Any) -> None:
    """Raises ModelLoadError when Pillow knows no such *mode*, MissingExtraError without Pillow."""
    pillow = _pillow()
    try:
        pillow.new("RGB" if mode is None else mode, (1, 1))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ModelLoadError(
            f"image_mode {mode!r} is no mode of Pillow's; write 'RGB', 'L' or another, or None to keep the file's own"
        ) from None


def image_to_data_url(image: Image) -> str:
    """*image* for a place inside JSON: a data URL of its PNG."""
    return data_urls.write(PNG, encode_png(image))


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise BadInputError(
            f"the image has {width} x {height} = {width * height} pixels, more than the limit of {max_pixels};"
            " send it smaller, or raise max_pixels"
        )


def _for_png(image: Image) -> Image:
    mode = _PNG_FORMS.get(image.mode, "RGB")
    if mode != "I;16":
        return image.convert(mode)
    whole = image.convert("I")
    low, high = cast(tuple[int, int], whole.getextrema())
    if not 0 <= low <= high <= 0xFFFF:
        raise ValueError(f"its levels reach from {low} to {high}, and PNG holds 0 to 65535")
    return whole.convert(mode)


def _check_scans(body: Buffer) -> None:
    # Each scan of a progressive JPEG goes over the whole picture again, and an encoder needs about ten of them.
    scans = bytes(body).count(b"\xff\xda")
    if scans > _MOST_SCANS:
        raise BadInputError(f"the image has {scans} scans, more than the limit of {_MOST_SCANS}; save it anew")


def _upright(image: Image, pillow: Any) -> Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a broken EXIF block does not make the picture unreadable
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(pillow.Transpose[turn])


def _in_mode(image: Image, mode: str | None) -> Image:
    if mode is None or image.mode == mode:
        return image
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow takes the transparent colour for a plain one, and warns
    if image.mode.startswith("I;16") and not mode.startswith(_GREY_DEPTHS):
        image = image.convert("I").point(lambda level: level * (1 / 256)).convert("L")  # Pillow would clip at 255
    return image.convert(mode)


def _explain(error: Exception, content_type: str | None, max_pixels: int) -> str:
    if type(error).__name__.startswith("DecompressionBomb"):
        return f"the image has more pixels than the limit of {max_pixels}: {one_line(error)}"
    if content_type is None and type(error).__name__ == "UnidentifiedImageError":
        return f"expected {_EXPECTED}, but the body is not an image"
    if type(error).__name__ == "UnidentifiedImageError":
        return (
            f"expected {_EXPECTED}; this looks like {content_type}, but is damaged or of a kind that is not read here"
        )
    return f"the image is damaged: {one_line(error) or type(error).__name__}"


@functools.cache
def _known_formats() -> tuple[str, ...]:
    pillow = _pillow()
    pillow.init()
    return tuple(name for name in _FORMATS if name in pillow.OPEN)


def _pillow() -> Any:
    try:
        from PIL import Image as pillow  # noqa: N813, PLC0415 - an extra
    except ModuleNotFoundError:
        raise MissingExtraError("pillow", "image") from None
    return pillow
