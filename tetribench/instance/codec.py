"""Messages as bytes: the class's name, and its fields in MessagePack."""

from typing import get_args

import msgspec

from tetribench.core.messages import Message

_DECODERS = {kind.__name__.encode(): msgspec.msgpack.Decoder(kind) for kind in get_args(Message)}
_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Message) -> tuple[bytes, bytes]:
    """Two frames: kind and content."""
    return type(message).__name__.encode(), _ENCODER.encode(message)


def decode(kind: bytes, content: bytes) -> Message:
    """Raises KeyError for an unknown kind and msgspec.ValidationError for content that does not fit it."""
    message: Message = _DECODERS[kind].decode(content)
    return message
