"""The load client decodes frames as defined in RFC 6455, in chunks of any size."""

from __future__ import annotations

import pytest

from bridgekit_verify.harness.websocket_protocol import FrameDecoder, InvalidFrame, frame

HELLO = bytes.fromhex("810548656c6c6f")
"""RFC 6455, section 5.7: a text message of one unmasked frame."""
HELLO_IN_TWO = bytes.fromhex("010348656c80026c6f")
"""RFC 6455, section 5.7: the same message in two fragments."""
PING = bytes.fromhex("890548656c6c6f")


def read(*pieces: bytes) -> FrameDecoder:
    frames = FrameDecoder()
    for piece in pieces:
        frames.feed(piece)
    return frames


def test_one_frame_is_one_message() -> None:
    assert read(HELLO).messages == [b"Hello"]


def test_several_frames_in_one_chunk_are_separate_messages() -> None:
    assert read(HELLO * 3).messages == [b"Hello"] * 3


@pytest.mark.parametrize("at", range(len(HELLO) + 1))
def test_frame_split_into_two_chunks_is_joined(at: int) -> None:
    assert read(HELLO[:at], HELLO[at:]).messages == [b"Hello"]


def test_frames_that_arrive_byte_by_byte_are_joined() -> None:
    stream = HELLO + bytes((0x81, 126, 1, 0)) + b"x" * 256 + HELLO
    assert read(*(stream[at : at + 1] for at in range(len(stream)))).messages == [b"Hello", b"x" * 256, b"Hello"]


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "8100"),
        (125, "817d"),
        (126, "817e007e"),
        (65_535, "817effff"),
        (65_536, "817f0000000000010000"),
    ],
)
def test_every_length_encoding_is_decoded(size: int, header: str) -> None:
    data = bytes.fromhex(header) + b"x" * size
    assert read(data).messages == [b"x" * size]
    assert read(data + HELLO).messages == [b"x" * size, b"Hello"]
    for at in range(len(header) // 2):
        assert read(data[:at], data[at:]).messages == [b"x" * size]


def test_fragments_are_joined_to_one_message() -> None:
    assert read(HELLO_IN_TWO).messages == [b"Hello"]


def test_ping_between_fragments_gets_a_pong_and_is_not_a_message() -> None:
    found = read(HELLO_IN_TWO[:5] + PING + HELLO_IN_TWO[5:])
    assert found.messages == [b"Hello"]
    assert bytes(found.replies) == bytes.fromhex("8a85") + bytes(4) + b"Hello"


def test_close_is_answered_with_its_code() -> None:
    found = read(bytes.fromhex("880203e8"))
    assert found.close_code == 1_000
    assert bytes(found.replies) == bytes.fromhex("8882") + bytes(4) + bytes.fromhex("03e8")


def test_close_without_a_code_is_1005() -> None:
    assert read(bytes.fromhex("8800")).close_code == 1_005


def test_pong_is_ignored() -> None:
    found = read(bytes.fromhex("8a00") + HELLO)
    assert found.messages == [b"Hello"]
    assert not found.replies


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("818537fa213d7f9f4d5158", "masked"),
        ("c10548656c6c6f", "compressed"),
        ("83026869", "opcode 3"),
    ],
)
def test_invalid_server_frame_raises(data: str, why: str) -> None:
    with pytest.raises(InvalidFrame, match=why):
        read(bytes.fromhex(data))


def test_frame_of_the_client_is_masked_with_zeros() -> None:
    assert frame(0x81, b"40") == bytes.fromhex("8182") + bytes(4) + b"40"


def test_too_long_client_frame_raises() -> None:
    with pytest.raises(InvalidFrame):
        frame(0x81, b"x" * 126)
