"""Splits multipart/form-data into parts, independent of the boundary (RFC 7578, RFC 2046 section 5.1.1).

Strict on purpose: a body that is not clearly well formed gives None and passes uncached to the provider.
"""

import re
from dataclasses import dataclass

_CONTENT_TYPE = re.compile(r'multipart/form-data\s*((?:;\s*[^\s=;"]+=(?:"[^"]*"|[^\s;"]*)\s*)*);?', re.IGNORECASE)
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_DISPOSITION = re.compile(r'form-data\s*((?:;\s*(?:name|filename)="(?:[^"\\]|\\.)*"\s*)+);?', re.IGNORECASE)
_PARAMETER = re.compile(r';\s*(name|filename)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One field or file of a form."""

    name: str
    filename: str | None
    content_type: str | None
    content: bytes


def parse(body: bytes, content_type: str) -> tuple[Part, ...] | None:
    """Split a form into its parts in wire order; None if the body is not well formed."""
    match = _CONTENT_TYPE.fullmatch(content_type.strip())
    boundaries = _BOUNDARY.findall(match[1]) if match is not None else []
    if len(boundaries) != 1 or not content_type.isascii():
        return None
    delimiter = b"--" + "".join(boundaries[0]).encode("ascii")
    # A delimiter is at the start of a line: put a line break before the first one, so that all are alike.
    sections = (b"\r\n" + body).split(b"\r\n" + delimiter)
    if len(sections) < 3 or sections[0] or not sections[-1].startswith(b"--") or sections[-1][2:].strip():
        return None
    parts: list[Part] = []
    for section in sections[1:-1]:
        part = _part(section)
        if part is None:
            return None
        parts.append(part)
    return tuple(parts)


def _part(section: bytes) -> Part | None:
    section = section.lstrip(b" \t")
    head, separator, content = section.partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"\r\n"):
        return None
    headers: dict[str, str] = {}
    for line in head[2:].split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or name.strip() != name:
            return None
        field = name.decode("latin-1").lower()
        if field in headers:
            return None
        headers[field] = value.strip().decode("utf-8", "surrogateescape")
    disposition = _DISPOSITION.fullmatch(headers.get("content-disposition", ""))
    if disposition is None or "content-transfer-encoding" in headers:
        return None
    found = _PARAMETER.findall(disposition[1])
    parameters = {parameter.lower(): value for parameter, value in found}
    if "name" not in parameters or len(parameters) != len(found):
        return None
    return Part(
        name=parameters["name"],
        filename=parameters.get("filename"),
        content_type=headers.get("content-type"),
        content=content,
    )
