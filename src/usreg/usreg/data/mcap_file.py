# SPDX-License-Identifier: Apache-2.0
"""One MCAP file, read by walking through its records: also without footer, as a crash or a full disk leaves it.

The index at the end of a file is not needed and not trusted; every length is checked against the file.
Format: https://mcap.dev/spec
"""

from __future__ import annotations

import heapq
import os
import struct
import zlib
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.records import Channel, Schema

from ..errors import FileFormatError
from .bag_types import BagLimits

MAGIC = b"\x89MCAP0\r\n"
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
RECORD = struct.Struct("<BQ")
MESSAGE_HEAD = struct.Struct("<HIQQ")
CHUNK_HEAD = struct.Struct("<QQQII")  # start, end, uncompressed size, crc, length of the compression's name
ORDER_BITS = 24  # more records than a chunk can hold
MAX_SMALL_RECORD = 16 * 1024 * 1024
KEPT_BYTES = 64 * 1024 * 1024  # of chunks that were opened for single messages
Entry = tuple[int, int, int, bytes]  # log time ns, order in the file, channel, data


@dataclass(frozen=True)
class ChunkPlace:
    """Where a chunk's data lie. `present` is below `stored` where the file was cut inside the chunk."""

    start_ns: int
    end_ns: int
    size: int
    crc: int
    compression: str
    offset: int
    stored: int
    present: int


@dataclass
class McapFile:
    """An open file: channels, chunks and single messages that were found.

    `problems` says in words what could not be read; `truncated` whether the file has no proper end.
    """

    path: Path
    limits: BagLimits = field(default_factory=BagLimits)
    skip_damaged: bool = False
    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    chunks: list[ChunkPlace] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    truncated: bool = False
    _loose: list[tuple[int, int, int, int]] = field(default_factory=list)  # log time, offset, length, channel
    _opened: OrderedDict[int, bytes] = field(default_factory=OrderedDict)  # chunks by offset, the newest last

    def __post_init__(self) -> None:
        self._file: BinaryIO = open(self.path, "rb")  # noqa: SIM115  closed by close()
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._scan()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def span_ns(self) -> tuple[int, int] | None:
        """First and last log time; None where there is no message."""
        times = [(c.start_ns, c.end_ns) for c in self.chunks] + [(m[0], m[0]) for m in self._loose]
        return (min(t[0] for t in times), max(t[1] for t in times)) if times and self.counts else None

    def entries(self, wanted: set[int] | None = None) -> Iterator[Entry]:
        """Messages of the wanted channels in order of log time, equal times in the order of the file."""
        return heapq.merge(self._chunked(wanted), self._single(wanted))

    def entry(self, order: int) -> Entry:
        """One message again, by its order in the file as `entries` gave it; a few opened chunks are kept.

        Raises:
            FileFormatError: no message lies there (any more).
        """
        offset, number = order >> ORDER_BITS, order & ((1 << ORDER_BITS) - 1)
        chunk = self._by_offset.get(offset)
        if chunk is None:
            return self._loose_entry(offset)
        for place, (opcode, body) in enumerate(self._split(memoryview(self._kept(chunk)), chunk)):
            if place == number and opcode == MESSAGE and len(body) >= MESSAGE_HEAD.size:
                channel, _, log_ns, _ = MESSAGE_HEAD.unpack_from(body)
                return log_ns, order, channel, bytes(body[MESSAGE_HEAD.size :])
        raise FileFormatError(
            f"'{self.path.name}' has no message {number} in its chunk at byte {offset}: has it changed?"
        )

    @cached_property
    def _by_offset(self) -> dict[int, ChunkPlace]:
        return {chunk.offset: chunk for chunk in self.chunks}

    def _loose_entry(self, offset: int) -> Entry:
        at = bisect_left(self._loose, offset, key=lambda m: m[1])
        if at == len(self._loose) or self._loose[at][1] != offset:
            raise FileFormatError(f"'{self.path.name}' has no message at byte {offset}: has it changed?")
        log_ns, _, length, channel = self._loose[at]
        return log_ns, offset << ORDER_BITS, channel, self._read(offset, length)

    def _kept(self, chunk: ChunkPlace) -> bytes:
        data = self._opened.pop(chunk.offset, None) or self._unpacked(chunk)
        self._opened[chunk.offset] = data
        while len(self._opened) > 1 and sum(map(len, self._opened.values())) > KEPT_BYTES:
            self._opened.popitem(last=False)
        return data

    # walking through the records

    def _scan(self) -> None:
        if self._file.read(len(MAGIC)) != MAGIC:
            raise FileFormatError(f"'{self.path.name}' does not begin as an MCAP file: it is empty or of another kind")
        finished = self._walk()
        if not finished:
            self.truncated = True
            self.problems.append(
                f"'{self.path.name}' has no end (recording was cut off); everything up to the cut is read"
            )
        if not finished or not self.channels or (self.chunks and not self.counts):
            self._open_chunks()

    def _walk(self) -> bool:
        position = len(MAGIC)
        while position + RECORD.size <= self._size:
            self._file.seek(position)
            opcode, length = RECORD.unpack(self._file.read(RECORD.size))
            position += RECORD.size
            if opcode == 0 or length > self._size - position:
                self.truncated = True
                if opcode == CHUNK:
                    self._add_chunk(position, self._size - position)
                return False
            self._take(opcode, position, length)
            if opcode == FOOTER:
                return True
            position += length
        return False

    def _take(self, opcode: int, position: int, length: int) -> None:
        if opcode == CHUNK:
            self._add_chunk(position, length)
        elif opcode == MESSAGE:
            self._add_single(position, length)
        elif opcode == MESSAGE_INDEX and length >= 6:
            (channel,) = struct.unpack("<H", self._file.read(2))
            self.counts[channel] += (length - 6) // 16
        elif opcode in (SCHEMA, CHANNEL):
            if length > MAX_SMALL_RECORD:
                raise FileFormatError(
                    f"'{self.path.name}' declares a schema of {length} bytes; at most {MAX_SMALL_RECORD} are read"
                )
            self._add_description(opcode, self._file.read(length))

    def _add_description(self, opcode: int, data: bytes) -> None:
        try:
            stream = ReadDataStream(BytesIO(data))
            if opcode == SCHEMA:
                schema = Schema.read(stream)
                self.schemas.setdefault(schema.id, schema)
            else:
                channel = Channel.read(stream)
                self.channels.setdefault(channel.id, channel)
        except (McapError, struct.error, UnicodeDecodeError, ValueError) as error:
            raise FileFormatError(
                f"'{self.path.name}' holds a topic description that cannot be read: {error}"
            ) from error
        if len(self.channels) > self.limits.max_topics:
            raise FileFormatError(f"'{self.path.name}' has more than {self.limits.max_topics} topics")

    def _add_chunk(self, position: int, available: int) -> None:
        head = self._read(position, min(available, CHUNK_HEAD.size + 64))
        if len(head) < CHUNK_HEAD.size:
            return
        start, end, size, crc, name_length = CHUNK_HEAD.unpack_from(head)
        data = CHUNK_HEAD.size + name_length + 8
        if len(head) < data and self.truncated:
            return  # cut inside the header of this chunk
        if name_length > 32 or len(head) < data:
            self._damaged(position, "its header is not readable")
            return
        name = head[CHUNK_HEAD.size : CHUNK_HEAD.size + name_length].decode("ascii", "replace")
        (stored,) = struct.unpack_from("<Q", head, data - 8)
        self.chunks.append(
            ChunkPlace(start, end, size, crc, name, position + data, stored, min(stored, available - data))
        )

    def _add_single(self, position: int, length: int) -> None:
        if length < MESSAGE_HEAD.size:
            self._damaged(position, f"a message of {length} bytes is too short")
            return
        channel, _, log_ns, _ = MESSAGE_HEAD.unpack(self._file.read(MESSAGE_HEAD.size))
        self._loose.append((log_ns, position + MESSAGE_HEAD.size, length - MESSAGE_HEAD.size, channel))
        self.counts[channel] += 1
        if len(self._loose) > self.limits.max_loose_messages:
            raise FileFormatError(
                f"'{self.path.name}' has more than {self.limits.max_loose_messages} messages outside chunks; convert it"
            )

    def _open_chunks(self) -> None:
        """Without a summary the channels stand only inside the chunks, and counts are taken there too."""
        self.counts = Counter(channel for _, _, _, channel in self._loose)
        for chunk in self.chunks:
            for opcode, body in self._records(chunk):
                if opcode == MESSAGE and len(body) >= MESSAGE_HEAD.size:
                    self.counts[MESSAGE_HEAD.unpack_from(body)[0]] += 1
                elif opcode in (SCHEMA, CHANNEL):
                    self._add_description(opcode, bytes(body))

    # messages

    def _single(self, wanted: set[int] | None) -> Iterator[Entry]:
        for log_ns, offset, length, channel in sorted(self._loose):
            if wanted is None or channel in wanted:
                yield log_ns, offset << ORDER_BITS, channel, self._read(offset, length)

    def _chunked(self, wanted: set[int] | None) -> Iterator[Entry]:
        """Chunks may overlap in time: a message goes out once no later chunk can hold an earlier one."""
        heap: list[Entry] = []
        chunks = sorted(self.chunks, key=lambda c: (c.start_ns, c.offset))
        for chunk in chunks:
            while heap and heap[0][0] < chunk.start_ns:
                yield heapq.heappop(heap)
            for number, (opcode, body) in enumerate(self._records(chunk)):
                if opcode == MESSAGE and len(body) >= MESSAGE_HEAD.size:
                    channel, _, log_ns, _ = MESSAGE_HEAD.unpack_from(body)
                    if wanted is None or channel in wanted:
                        heapq.heappush(
                            heap,
                            (log_ns, (chunk.offset << ORDER_BITS) + number, channel, bytes(body[MESSAGE_HEAD.size :])),
                        )
        while heap:
            yield heapq.heappop(heap)

    def _records(self, chunk: ChunkPlace) -> Iterator[tuple[int, memoryview]]:
        return self._split(memoryview(self._unpacked(chunk)), chunk)

    def _split(self, data: memoryview, chunk: ChunkPlace) -> Iterator[tuple[int, memoryview]]:
        position = 0
        while position + RECORD.size <= len(data):
            opcode, length = RECORD.unpack_from(data, position)
            position += RECORD.size
            if length > len(data) - position:
                break
            yield opcode, data[position : position + length]
            position += length
        if position != len(data) and chunk.present == chunk.stored:
            self._damaged(chunk.offset, "a record runs over its end")

    def _unpacked(self, chunk: ChunkPlace) -> bytes:
        if chunk.size > self.limits.max_chunk_bytes:
            raise FileFormatError(
                f"'{self.path.name}' declares a chunk of {chunk.size} bytes, above {self.limits.max_chunk_bytes}"
            )
        stored = self._read(chunk.offset, chunk.present)
        if chunk.present < chunk.stored:
            return _unpack_part(stored, chunk)
        try:
            data = _unpack(stored, chunk)
        except (zstandard.ZstdError, RuntimeError, ValueError) as error:
            return self._damaged(chunk.offset, str(error))
        if len(data) != chunk.size or (chunk.crc and zlib.crc32(data) != chunk.crc):
            return self._damaged(chunk.offset, "its checksum or its length is wrong")
        return data

    def _damaged(self, offset: int, why: str) -> bytes:
        message = f"'{self.path.name}' is damaged at byte {offset}: {why}"
        if not (self.skip_damaged or self.truncated):
            raise FileFormatError(
                f"{message}. Copy the file again, or read it with skip_damaged to lose only this part"
            )
        if message not in self.problems:
            self.problems.append(message)
        return b""

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)


def _unpack(stored: bytes, chunk: ChunkPlace) -> bytes:
    if chunk.compression == "":
        return stored
    if chunk.compression == "zstd":
        if zstandard.frame_content_size(stored) not in (-1, chunk.size):
            raise ValueError("its compressed data declare another length")
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=max(chunk.size, 1))
    if chunk.compression == "lz4":
        return lz4.frame.LZ4FrameDecompressor().decompress(stored, max_length=chunk.size + 1)
    raise ValueError(f"compression {chunk.compression!r} is not known (zstd, lz4 or none)")


def _unpack_part(stored: bytes, chunk: ChunkPlace) -> bytes:
    """What can be had of a chunk that was cut: whole blocks up to the cut."""
    try:
        if chunk.compression == "zstd":
            return zstandard.ZstdDecompressor().stream_reader(BytesIO(stored)).read(chunk.size)
        if chunk.compression == "lz4":
            return lz4.frame.LZ4FrameDecompressor().decompress(stored, max_length=chunk.size)
    except (zstandard.ZstdError, RuntimeError):
        return b""
    return stored if chunk.compression == "" else b""
