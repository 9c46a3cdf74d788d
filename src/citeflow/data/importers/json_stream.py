"""Records of JSON in every wrapping that they come in, one after the other.

JSON lines are decoded by msgspec, which skips the fields that nobody asked for; in a record of
OpenAlex that is nearly all. Whole documents (an array, a page of an API, an object by id, records
one below the other) are taken apart by the standard library's scanner, whose `raw_decode` says
where a value ends, so that an array of any size passes through a small buffer. MongoDB's
`NumberInt(2000)`, as in DBLP's version 13, is read as the number.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, Generic, TypeVar

import msgspec

from citeflow.data.diagnosis import first_line, quote
from citeflow.data.importers.source import SourceFile
from citeflow.errors import DataError

CHUNK_BYTES = 8 << 20
MAX_RECORD_BYTES = 64 << 20
RESULTS = ("results", "data", "works", "papers", "items", "records")
"""Members of a page that hold its records."""

R = TypeVar("R")
_SPACE = re.compile(r"[\s,\ufeff\x1e]*")
_MONGO = re.compile(r'\b(?:NumberInt|NumberLong|ObjectId|ISODate)\(\s*("[^"]*"|-?[\d.]+)\s*\)')
_PAGE = re.compile(rf'"(?:{"|".join(RESULTS)})"\s*:\s*\[\s*\{{')
_DECODER = json.JSONDecoder(strict=False)


class JsonReader(Generic[R]):
    """Reads records of one type, a `msgspec.Struct` whose fields all have a default."""

    def __init__(self, kind: type[R]) -> None:
        """Prepare the decoder."""
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind)

    def batches(self, file: SourceFile) -> Iterator[list[R]]:
        """Yield the records of a file, some thousands at once.

        Raises:
            DataError: it is not JSON, or a field of a record has another type; with the line.
        """
        with file.open() as opened:
            if is_json_lines(file.head):
                yield from self._lines(file, opened)
            else:
                yield from self._documents(file, opened)

    def _lines(self, file: SourceFile, opened: BinaryIO) -> Iterator[list[R]]:
        decode = self._decoder.decode
        number = 0
        for lines in line_blocks(file, opened):
            try:
                records = [decode(line) for line in lines if line and not line.isspace()]
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                records = [
                    record
                    for index, line in enumerate(lines, number + 1)
                    if (record := self._careful(file, index, line)) is not None
                ]
            number += len(lines)
            yield records

    def _careful(self, file: SourceFile, number: int, line: bytes) -> R | None:
        """Decode a line that msgspec may refuse, such as one with NaN; name it if it is wrong."""
        line = line.strip().strip(b"\xef\xbb\xbf\x1e")
        if line in (b"", b"[", b"]"):
            return None
        where = f"{file.path}, line {number}"
        try:
            return msgspec.convert(_decode(line.rstrip(b",").decode()), self._kind)
        except UnicodeDecodeError:
            raise DataError(
                f"{where}: not UTF-8", quote(line[:60]), hint="save it as UTF-8"
            ) from None
        except msgspec.ValidationError as error:
            raise DataError(f"{where}: a field of another type than expected", error) from None
        except (ValueError, RecursionError) as error:
            hint = "the file may be cut short" if not line.endswith(b"}") else ""
            raise DataError(f"{where}: not JSON", first_line(error), hint=hint) from None

    def _documents(self, file: SourceFile, opened: BinaryIO) -> Iterator[list[R]]:
        for number, values in enumerate(_values(file, opened)):
            records = []
            for value in values:
                try:
                    records.append(msgspec.convert(value, self._kind))
                except msgspec.ValidationError as error:
                    what = f"{file.path}: a record has a field of another type than expected"
                    seen = f"{error}: {quote(str(value)[:80])} (block {number + 1})"
                    raise DataError(what, seen) from None
            yield records


def is_json_lines(head: bytes) -> bool:
    """True if the first line that is not empty is a whole JSON object."""
    line = head.lstrip(b"\xef\xbb\xbf \t\r\n\x1e").partition(b"\n")[0]
    return line.startswith(b"{") and isinstance(_try(line), dict) and not _is_page(line, head)


def _is_page(line: bytes, head: bytes) -> bool:
    """True for one object whose records are inside."""
    value = _try(line)
    return isinstance(value, dict) and any(
        isinstance(value.get(key), list) and value[key] and isinstance(value[key][0], dict)
        for key in RESULTS
    )


def first_record(head: bytes) -> dict[str, object] | None:
    """Return the first record of a file by its head, to see its fields; None if it has none."""
    text = head.decode("utf-8", "ignore").lstrip("\ufeff \t\r\n\x1e")
    if text[:1] not in "[{":
        return None
    text = _MONGO.sub(r"\1", text)
    for start in _starts(text):
        try:
            value, _ = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return _inner(value)
    return None


def _starts(text: str) -> Iterator[int]:
    """Yield where the first record may start: on top or in an array, or else in a page."""
    if (first := text.find("{")) >= 0:
        yield first
    if page := _PAGE.search(text):
        yield page.end() - 1


def _inner(value: dict[str, object]) -> dict[str, object]:
    for key in RESULTS:
        inner = value.get(key)
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            return inner[0]
    return value


def line_blocks(file: SourceFile, opened: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the lines of a file, some megabytes at once.

    Raises:
        DataError: a line is longer than 64 MiB.
    """
    rest = b""
    while chunk := opened.read(CHUNK_BYTES):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        if len(rest) > MAX_RECORD_BYTES:
            raise DataError(f"{file.path}: a line of more than 64 MiB", quote(rest[:40]))
        yield lines
    if rest:
        yield [rest]


def _values(file: SourceFile, opened: BinaryIO) -> Iterator[list[dict[str, object]]]:
    """Yield the records of whole documents."""
    members: dict[str, object] = {}
    batch: list[dict[str, object]] = []
    for key, value in events(file, opened):
        if key is None and isinstance(value, dict):
            batch.append(value)
        elif key is not None and key:
            members[key] = value
        elif key == "" and members:  # the end of an object
            batch.append(members)
            members = {}
        if len(batch) >= 4096:
            yield batch
            batch = []
    yield batch


def events(file: SourceFile, opened: BinaryIO) -> Iterator[tuple[str | None, object]]:
    """Take documents apart.

    `(None, record)` is an element of an array of records, on top or in a page; `(key, value)` any
    other member of an object on top, and `("", None)` its end.

    Raises:
        DataError: it is no JSON.
    """
    scanner = _Scanner(file, opened)
    while (mark := scanner.peek()) is not None:
        if mark == "[":
            scanner.skip()
            for value in scanner.elements():
                if isinstance(value, list):
                    raise scanner.error("a table of arrays, not of records")
                yield None, value
        elif mark == "{":
            scanner.skip()
            yield from _members(scanner)
            yield "", None
        else:
            raise scanner.error("neither an object nor an array")


def _members(scanner: "_Scanner") -> Iterator[tuple[str | None, object]]:
    while scanner.peek() != "}":
        key = scanner.value()
        if not isinstance(key, str) or scanner.peek() != ":":
            raise scanner.error("a name and a colon expected")
        scanner.skip()
        if key in RESULTS and scanner.peek() == "[":
            scanner.skip()
            yield from ((None, value) for value in scanner.elements())
        else:
            yield key or " ", scanner.value()
    scanner.skip()


class _Scanner:
    """A buffer of text in which one value after the other is decoded."""

    def __init__(self, file: SourceFile, opened: BinaryIO) -> None:
        self._file = file
        self._opened = opened
        self._has_mongo = bool(_MONGO.search(file.head.decode("utf-8", "ignore")))
        self._bytes = b""
        self._text = ""
        self._at = 0
        self._done = 0
        self._is_end = False
        self._take: Callable[[str, int], tuple[object, int]] = _DECODER.raw_decode

    def peek(self) -> str | None:
        """Return the next character that is no space or comma, without taking it."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return None

    def skip(self) -> None:
        self._at += 1

    def value(self) -> object:
        """Decode one value; more is read while it does not end."""
        if self.peek() is None:
            raise self.error("it ends inside an object: is it cut short?")
        while True:
            try:
                value, end = self._take(self._text, self._at)
            except ValueError as error:
                if len(self._text) - self._at > MAX_RECORD_BYTES:
                    raise self.error("a value of more than 64 MiB") from None
                if not self._fill():
                    reason = first_line(error).partition(": line ")[0]
                    raise self.error(f"{reason}; is it cut short?") from None
            except RecursionError:
                raise self.error("nested too deeply") from None
            else:
                # A number may go on in what is read next.
                if end < len(self._text) or not self._fill():
                    self._at = end
                    return value

    def elements(self) -> Iterator[object]:
        """Yield the elements of an array whose bracket was taken; the one that ends it is, too."""
        while (mark := self.peek()) != "]":
            if mark is None:
                raise self.error("it ends inside an array: is it cut short?")
            yield self.value()
        self.skip()

    def error(self, problem: str) -> DataError:
        near = quote(self._text[self._at : self._at + 40])
        where = f"{self._file.path}, near character {self._done + self._at + 1:,}"
        return DataError(f"{where}: not JSON", f"{problem} ({near})")

    def _fill(self) -> bool:
        """Read on; False at the end.

        Each fill doubles what is looked at, so that a long value is not decoded from its start a
        hundred times.
        """
        if self._is_end:
            return False
        wanted = max(CHUNK_BYTES, len(self._text) - self._at)
        chunk = self._opened.read(wanted)
        self._is_end = not chunk
        data = self._bytes + chunk
        cut = data.rfind(b"\n") + 1 if chunk and b"\n" in data else len(data)
        if cut == len(data) and chunk:
            while cut and len(data) - cut < 4 and data[cut - 1] & 0xC0 == 0x80:
                cut -= 1
            cut -= bool(cut and data[cut - 1] >= 0xC0)
        self._bytes = data[cut:]
        text = data[:cut].decode()
        self._done += self._at
        self._text = self._text[self._at :] + (_MONGO.sub(r"\1", text) if self._has_mongo else text)
        self._at = 0
        return bool(text) or bool(chunk)


def _decode(text: str) -> object:
    value, end = _DECODER.raw_decode(text)
    if text[end:].strip():
        raise ValueError(f"more behind the end of the value: {quote(text[end : end + 40])}")
    return value


def _try(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
