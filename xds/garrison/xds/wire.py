"""Protobuf's wire format, as far as joining encoded fields needs it.

A response to ten thousand clients is the same bytes with another nonce, so resources are encoded
once and a response is a join of chunks (https://protobuf.dev/programming-guides/encoding/).
"""

_LENGTH_DELIMITED = 2
_SEVEN_BITS = 0x7F


def field(number: int, payload: bytes) -> bytes:
    """Encode one length-delimited field (a string, bytes or a message).

    >>> field(1, b"abc").hex()
    '0a03616263'
    """
    return field_head(number, len(payload)) + payload


def field_head(number: int, length: int) -> bytes:
    """Encode what stands before the payload of a length-delimited field.

    >>> field_head(2, 300).hex()
    '12ac02'
    """
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > _SEVEN_BITS:
        encoded.append(value & _SEVEN_BITS | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
