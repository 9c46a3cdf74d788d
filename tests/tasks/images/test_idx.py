import functools
import gzip
import struct

import numpy as np
import pytest

from citeflow.errors import DataError
from citeflow.tasks.images.idx import open_idx, write_idx

pack = functools.partial(gzip.compress, mtime=0)
"""Whose bytes are the same in every process of the tests: they name them."""

PIXELS = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
HEADER = struct.pack(">4B3I", 0, 0, 8, 3, 3, 4, 5)
CONTENT = HEADER + PIXELS.tobytes()


@pytest.mark.parametrize("compress", [bytes, pack])
def test_open_idx_reads_what_the_format_says(compress, tmp_path):
    (tmp_path / "images").write_bytes(compress(CONTENT))
    found = open_idx(tmp_path / "images", num_dims=3)
    assert found.shape == (3, 4, 5)
    np.testing.assert_array_equal(found.read(), PIXELS)


def test_write_idx_is_read_back(tmp_path):
    write_idx(tmp_path / "images", PIXELS)
    assert (tmp_path / "images").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"PK\3\4" + CONTENT, "not an IDX file"),
        (b"\0\0\x0d\3" + CONTENT[4:], "another type than bytes: .*0x0d"),
        (b"\0\0\x08\1" + CONTENT[4:], "another number of dimensions: .*1"),
        (HEADER[:9], "cut: .*header"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 0, 4, 5), "without content"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**31, 9), "claims too much"),
        (pack(struct.pack(">4B3I", 0, 0, 8, 3, 1, 2**16, 2**16)), "claims too much"),
        (CONTENT[:-1], "another length"),
        (CONTENT + b"\0", "another length"),
        (pack(CONTENT[:-21]), "cut: .*1 of 3 rows"),
        (pack(CONTENT + b"\0"), "longer"),
        (pack(CONTENT)[:-12], "damaged"),
        (b"\x1f\x8bgarbage", "damaged"),
    ],
)
def test_open_idx_names_the_file_and_what_is_wrong(content, message, tmp_path):
    path = tmp_path / "bad-images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_idx(path, num_dims=3).read()
    assert str(path) in caught.value.value
