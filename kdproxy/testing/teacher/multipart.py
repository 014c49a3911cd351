"""Reading multipart/form-data (RFC 7578) from bytes already in memory."""

from email.message import Message


def parse_form(content_type: str, body: bytes) -> dict[str, bytes] | None:
    """Return the parts by name, and a file's own name as NAME.filename; None if this is no form."""
    if not content_type.lower().startswith("multipart/form-data"):
        return None
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if boundary is None:
        return None
    parts: dict[str, bytes] = {}
    # RFC 2046: a delimiter is CRLF, two hyphens and the boundary; the first has no CRLF of its own.
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:]:
        head, separator, content = part.partition(b"\r\n\r\n")
        if not separator:
            continue
        name, file_name = _names(head)
        if name is not None:
            parts[name] = content
            if file_name is not None:
                parts[f"{name}.filename"] = file_name.encode()
    return parts


def _names(head: bytes) -> tuple[str | None, str | None]:
    disposition = Message()
    for line in head.decode(errors="replace").split("\r\n"):
        field, _, value = line.partition(":")
        if field.strip().lower() == "content-disposition":
            disposition["Content-Disposition"] = value.strip()
    name = disposition.get_param("name", header="content-disposition")
    return (str(name) if name is not None else None), disposition.get_filename()
