"""Messages as bytes: the class's name, a line feed, and its fields in MessagePack."""

from typing import get_args

import msgspec

from tetribench.core.messages import Message

_DECODERS = {kind.__name__.encode(): msgspec.msgpack.Decoder(kind) for kind in get_args(Message)}
_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    return b"%b\n%b" % (type(message).__name__.encode(), _ENCODER.encode(message))


def decode(frame: bytes) -> Message:
    """Raises KeyError for an unknown kind and msgspec.ValidationError for content that does not fit it."""
    kind, _, content = frame.partition(b"\n")
    message: Message = _DECODERS[kind].decode(content)
    return message
