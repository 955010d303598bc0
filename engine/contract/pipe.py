"""Length-delimited protobuf frames between an engine's worker and its trainer. Knows no asyncio and no tensor."""

import struct
from typing import BinaryIO

from google.protobuf.message import Message

HEADER = struct.Struct("<I")
MAX_FRAME_BYTES = 16 * 1024 * 1024


def encode(message: Message) -> bytes:
    payload: bytes = message.SerializeToString()
    return framed(payload)


def framed(payload: bytes) -> bytes:
    return HEADER.pack(len(payload)) + payload


def frame_length(header: bytes) -> int:
    """Raises ValueError for a length no frame has: the stream is out of step."""
    (length,) = HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes: something else wrote to the pipe")
    return int(length)


def write(stream: BinaryIO, message: Message) -> None:
    stream.write(encode(message))
    stream.flush()


def read(stream: BinaryIO) -> bytes | None:
    """The payload of the next frame, or None at the end of the stream."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    payload = stream.read(frame_length(header))
    return payload
