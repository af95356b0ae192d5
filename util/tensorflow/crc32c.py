"""The checksum of TensorFlow's files."""

_MASK_DELTA = 0xA282EAD8


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), masked: turned right by 15 bits, plus a constant, modulo 2^32.

    Masking is LevelDB's, for checksums that are stored beside what they are of.
    """
    import google_crc32c  # who reads no file of TensorFlow's does not need it

    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFF_FFFF
