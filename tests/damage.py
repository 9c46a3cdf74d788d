"""Damage to files, at random."""

import contextlib
import gzip
import zlib

WORDS = ["", "-1", "nan", "1e400", "9" * 20, '"', "\0", "\n\n", ",", ",,,,", "\xff", "id", "p0"]
WORDS += ["\r", "5"]


def damage(content, rng):
    """Flip, cut, repeat or insert something, once or three times; in gzip, often in its content."""
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.7:
        with contextlib.suppress(OSError, EOFError, zlib.error):  # damaged before
            return gzip.compress(damage(gzip.decompress(content), rng), mtime=0)
    for _ in range(rng.choice([1, 1, 1, 3])):
        first, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        flipped = bytes([content[first] ^ 1 << rng.randrange(8)]) if first < len(content) else b""
        word = rng.choice(WORDS).encode("latin1")
        head, piece = content[:first], content[first:end]
        replacements = [
            flipped + content[first + 1 :],
            b"",
            word + content[first:],
            word + content[min(end, first + 3) :],
            piece[:40] + content[first:],
            content[first + 2 :],
            content[end:],
        ]
        content = head + rng.choice(replacements)
    return content
