"""Forms: well-formed ones by their parts, anything doubtful not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.multipart import Part, parse

TYPE = "multipart/form-data; boundary=X"
HEAD = b'Content-Disposition: form-data; name="a"'


def body(*sections: bytes, boundary: bytes = b"X") -> bytes:
    return (
        b"".join(b"--" + boundary + b"\r\n" + section + b"\r\n" for section in sections) + b"--" + boundary + b"--\r\n"
    )


def test_parts_come_in_wire_order_with_their_bytes() -> None:
    parts = parse(
        body(
            HEAD + b"\r\n\r\n1",
            b"content-type: audio/wav\r\n"
            b'CONTENT-DISPOSITION: Form-Data; Filename="caf\xc3\xa9 \\"1\\".wav"; name="file"\r\n'
            b"\r\n\x00\r\n--Y\r\n\xff\r\n",
            HEAD + b"\r\nX-Other: y\r\n\r\n",
        ),
        TYPE,
    )
    assert parts == (
        Part(name="a", filename=None, content_type=None, content=b"1"),
        Part(name="file", filename='café \\"1\\".wav', content_type="audio/wav", content=b"\x00\r\n--Y\r\n\xff\r\n"),
        Part(name="a", filename=None, content_type=None, content=b""),
    )


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=X",
        'multipart/form-data; boundary="X"',
        "Multipart/Form-Data;charset=utf-8;BOUNDARY=X",
        "multipart/form-data; boundary=X; charset=utf-8",
    ],
)
def test_boundary_spellings(content_type: str) -> None:
    assert parse(body(HEAD + b"\r\n\r\n1"), content_type) is not None


@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    st.text(st.sampled_from("abcXYZ019'()+_,-./:=?"), min_size=1),
)
def test_any_content_survives(contents: list[bytes], boundary: str) -> None:
    boundary = f"--kdproxy{boundary[:40]}"
    wire = body(*(HEAD + b"\r\n\r\n" + content for content in contents), boundary=boundary.encode())
    if any(boundary.encode() in content for content in contents):
        return
    parts = parse(wire, f'multipart/form-data; boundary="{boundary}"')
    assert parts is not None
    assert [part.content for part in parts] == contents


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (body(HEAD + b"\r\n\r\n1"), "multipart/form-data"),
        (body(HEAD + b"\r\n\r\n1"), "multipart/mixed; boundary=X"),
        (body(HEAD + b"\r\n\r\n1"), "application/json"),
        (body(HEAD + b"\r\n\r\n1"), "multipart/form-data; notboundary=X; boundary=Z"),
        (body(HEAD + b"\r\n\r\n1"), "multipart/form-data; boundary=X; boundary=Z"),
        (body(HEAD + b"\r\n\r\n1"), "multipart/form-data; boundary=Y"),
        (b"", TYPE),
        (b"--X--\r\n", TYPE),
        (body(HEAD + b"\r\n\r\n1")[:-6], TYPE),
        (b"preamble\r\n" + body(HEAD + b"\r\n\r\n1"), TYPE),
        (body(HEAD + b"\r\n\r\n1") + b"epilogue", TYPE),
        (body(HEAD + b"\r\n\r\n1").replace(b"\r\n", b"\n"), TYPE),
        (body(HEAD + b"\r\n1"), TYPE),
        (body(b"\r\n1"), TYPE),
        (body(b'Content-Disposition: attachment; name="a"\r\n\r\n1'), TYPE),
        (body(b"Content-Disposition: form-data\r\n\r\n1"), TYPE),
        (body(b"Content-Disposition: form-data; name=a\r\n\r\n1"), TYPE),
        (body(b'Content-Disposition: form-data; name="a"; name="b"\r\n\r\n1'), TYPE),
        (body(b"Content-Disposition: form-data; name=\"a\"; filename*=utf-8''%e4.wav\r\n\r\n1"), TYPE),
        (body(b'Content-Disposition: form-data; name="a"; filename=x.wav\r\n\r\n1'), TYPE),
        (body(HEAD + b"\r\n" + HEAD.replace(b'"a"', b'"b"') + b"\r\n\r\n1"), TYPE),
        (body(HEAD + b"\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n1"), TYPE),
        (body(HEAD + b"\r\nContent-Transfer-Encoding: base64\r\n\r\nMQ=="), TYPE),
        (body(HEAD + b"\r\n folded\r\n\r\n1"), TYPE),
        (body(HEAD + b"\r\nno colon\r\n\r\n1"), TYPE),
        (body(HEAD + b"\r\n\r\n1").replace(b"--X--", b"--XY--"), TYPE),
        (b"--X--\r\n" + body(HEAD + b"\r\n\r\n1"), TYPE),
    ],
)
def test_what_is_not_plainly_well_formed_is_no_form(raw: bytes, content_type: str) -> None:
    assert parse(raw, content_type) is None


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([b"--X", b"\r\n", b"--", b":", HEAD, b"\r\n\r\n", b"1"])).map(b"".join)
)
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    parts = parse(raw, TYPE)
    assert parts is None or len(parts) >= 1
