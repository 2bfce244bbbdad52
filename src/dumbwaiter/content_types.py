"""Content types: parsed once, and guessed from the first bytes where nobody said."""

from __future__ import annotations

import functools

import msgspec

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
NPY = "application/x-npy"
PNG = "image/png"

#: Nobody chose these: no header, and what `curl --data-binary` says unless told otherwise.
_UNSAID = frozenset({"", "application/x-www-form-urlencoded"})
_OPAQUE = _UNSAID | {BYTES, "binary/octet-stream"}
_NPY_NAMES = frozenset({NPY, "application/npy", "application/x-numpy"})


class ContentType(msgspec.Struct, frozen=True):
    """A parsed content type: *essence* is ``type/subtype`` in lower case (empty when unsaid), *charset* as given."""

    essence: str
    charset: str = "utf-8"

    @property
    def unsaid(self) -> bool:
        """Nobody chose it, and so it says nothing of the body."""
        return self.essence in _UNSAID

    @property
    def opaque(self) -> bool:
        """Unsaid, or said to be bytes of some kind: the body has to speak for itself."""
        return self.essence in _OPAQUE

    @property
    def is_json(self) -> bool:
        """JSON, or one of its dialects (``application/geo+json``)."""
        return self.essence in {JSON, "text/json"} or self.essence.endswith("+json")

    @property
    def is_text(self) -> bool:
        """Plain text of any kind, but not JSON."""
        return self.essence.startswith("text/") and not self.is_json

    @property
    def is_image(self) -> bool:
        """A picture of any format."""
        return self.essence.startswith("image/")

    @property
    def is_npy(self) -> bool:
        """NumPy's file format."""
        return self.essence in _NPY_NAMES


@functools.lru_cache(maxsize=128)
def parse_content_type(text: str | None) -> ContentType:
    """Parse a Content-Type header; None and nonsense alike have no known essence."""
    essence, *parameters = (text or "").split(";")
    charset = "utf-8"
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip("\"'").lower()
    return ContentType(essence.strip().lower(), charset)


def sniff_image(body: bytes | memoryview) -> str | None:
    """The image's content type by its first bytes, or None when it is no image that we know."""
    head = bytes(body[:16])
    for magic, content_type in _MAGIC:
        if head.startswith(magic):
            return content_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:12] in {b"ftypavif", b"ftypavis"}:
        return "image/avif"
    return None


_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
)
