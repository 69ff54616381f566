"""Responses of HTTP, however their bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.servers.refused import Refused
from tetribench.servers.response import MAX_HEAD_BYTES, Response

HEAD = b"HTTP/1.1 200 OK\r\n"
BODIES = st.binary(max_size=60)


def fed(sent: bytes, cuts: list[int]) -> tuple[Response, bytes]:
    taken: list[bytes] = []
    response = Response(taken.append)
    bounds = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    for start, end in pairwise(bounds):
        response.feed(sent[start:end])
    return response, b"".join(taken)


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(1, 400), max_size=12), st.booleans()
)
def test_chunks_are_put_together(chunks: list[bytes], cuts: list[int], has_trailer: bool) -> None:
    body = b"".join(b"%X;x=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    end = b"0\r\nX-Sum: 1\r\n\r\n" if has_trailer else b"0\r\n\r\n"
    response, taken = fed(
        b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Transfer-Encoding: Chunked\r\n\r\n" + body + end, cuts
    )
    assert taken == b"".join(chunks) and response.has_ended and response.leaves_open and response.status == 200


@given(BODIES, st.lists(st.integers(1, 120), max_size=6))
def test_a_body_of_known_length_ends_with_it(body: bytes, cuts: list[int]) -> None:
    sent = HEAD + b"content-length: %d\r\n\r\n" % len(body)
    response, taken = fed(sent + body, cuts)
    assert taken == body and response.leaves_open
    if body:
        cut_short, _ = fed(sent + body[:-1], cuts)
        assert not cut_short.has_ended
        with pytest.raises(Refused, match="connection lost"):
            cut_short.close()


@given(BODIES, st.lists(st.integers(1, 120), max_size=6))
def test_a_body_of_no_known_length_ends_with_the_connection(body: bytes, cuts: list[int]) -> None:
    response, taken = fed(HEAD + b"\r\n" + body, cuts)
    assert taken == body and not response.has_ended
    response.close()
    assert response.has_ended and not response.leaves_open


@given(st.binary(max_size=200), st.lists(st.integers(1, 200), max_size=6))
def test_whatever_comes_is_read_or_refused(sent: bytes, cuts: list[int]) -> None:
    for start in (b"", HEAD + b"Transfer-Encoding: chunked\r\n\r\n", HEAD + b"Content-Length: 7\r\n\r\n"):
        try:
            _, taken = fed(start + sent, cuts)
        except Refused:
            continue
        assert len(taken) <= len(sent)


@pytest.mark.parametrize(
    ("head", "leaves_open"),
    [
        (HEAD, True),
        (b"HTTP/1.1 204 None\r\n", True),
        (HEAD + b"Connection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
    ],
)
def test_a_connection_is_kept_where_the_server_keeps_it(head: bytes, leaves_open: bool) -> None:
    response, _ = fed(head + b"Content-Length: 0\r\n\r\n", [])
    assert response.has_ended and response.leaves_open is leaves_open


def test_what_follows_a_response_is_not_for_the_next_one() -> None:
    response, taken = fed(HEAD + b"Content-Length: 2\r\n\r\nabHTTP/1.1 408 Late\r\n", [])
    assert taken == b"ab" and response.has_ended and not response.leaves_open


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"x" * (MAX_HEAD_BYTES + 1),
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1_0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * (MAX_HEAD_BYTES + 1),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"x" * (MAX_HEAD_BYTES + 1),
    ],
)
def test_what_is_no_http_is_refused(sent: bytes) -> None:
    with pytest.raises(Refused, match=r"^what came is no HTTP: "):
        fed(sent, [])
