# SPDX-License-Identifier: Apache-2.0
"""Bags that were cut off, damaged or made to harm: what came before stays readable, nothing fills the memory."""

import os
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType, IndexType, Writer

from usreg.data.bag_messages import make
from usreg.data.bags import BagLimits, BagReader, BagWriter
from usreg.data.definitions import new_store, register, standard_store
from usreg.errors import FileFormatError, UsregError, WriteError

STRING = "std_msgs/msg/String"


def text(value: str):
    return make(STRING, value)


def noise(i: int) -> str:
    return "".join(map(chr, np.random.default_rng(i).integers(97, 123, 100)))


def write_some(path: Path, count: int = 100, compression: str = "zstd") -> list[str]:
    values = [noise(i) for i in range(count)]
    with BagWriter(path, compression=compression, chunk_bytes=1000) as bag:
        for i, value in enumerate(values):
            bag.write("/a", i, text(value))
    return values


def read(path: Path, **options) -> tuple[list[str], bool]:
    with BagReader(path, **options) as bag:
        return [m.data for _, _, m in bag.messages()], bag.truncated


@settings(max_examples=40)
@given(st.floats(0, 1), st.sampled_from(["zstd", "lz4", "none"]))
def test_cut_anywhere(tmp_path_factory, where, compression):
    path = tmp_path_factory.mktemp("bag") / "bag.mcap"
    values = write_some(path, 60, compression)
    whole = path.read_bytes()
    cut = 8 + int(where * (len(whole) - 8))
    path.write_bytes(whole[:cut])
    got, truncated = read(path)
    assert got == values[: len(got)]
    assert truncated or len(got) == len(values)
    least = len(values) * min(1.0, (cut - 1500) / len(whole)) - 15  # at most the chunk in which it was cut is missing
    assert len(got) >= least


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
def test_cut_inside_a_header(tmp_path, compression):
    """Every byte around the start of the first chunks."""
    path = tmp_path / "bag.mcap"
    values = write_some(path, 20, compression)
    whole = path.read_bytes()
    starts = [i for i in range(len(whole)) if whole[i : i + 17] == b"\x06" + whole[i + 1 : i + 9] + b"\0" * 8][:1]
    for cut in range(starts[0], starts[0] + 120):
        path.write_bytes(whole[:cut])
        got, truncated = read(path)
        assert truncated and got == values[: len(got)]


def test_messages_of_the_chunk_that_was_cut(tmp_path):
    """Without compression even the last chunk is read up to the cut."""
    values = write_some(tmp_path / "bag.mcap", 40, "none")
    whole = (tmp_path / "bag.mcap").read_bytes()
    at = whole.index(values[33].encode())
    (tmp_path / "bag.mcap").write_bytes(whole[:at])
    assert read(tmp_path / "bag.mcap") == (values[:33], True)


def test_cut_bag_is_described_with_its_problem(tmp_path):
    write_some(tmp_path / "bag.mcap")
    whole = (tmp_path / "bag.mcap").read_bytes()
    (tmp_path / "bag.mcap").write_bytes(whole[: len(whole) // 2])
    with BagReader(tmp_path / "bag.mcap") as bag:
        assert bag.truncated and "recording was cut off" in bag.problems[0]
        assert bag.topics["/a"].count == sum(1 for _ in bag.raw_messages()) > 30


def test_damaged_chunk(tmp_path):
    path = tmp_path / "bag.mcap"
    values = write_some(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="damaged at byte.*skip_damaged"):
        read(path)
    with BagReader(path, skip_damaged=True) as bag:
        got = [m.data for _, _, m in bag.messages()]
        assert "damaged at byte" in bag.problems[0]
    assert set(got) < set(values) and len(got) >= len(values) - 15


@settings(max_examples=80)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_never_crash(tmp_path_factory, flips):
    path = tmp_path_factory.mktemp("bag") / "bag.mcap"
    write_some(path, 20)
    data = bytearray(path.read_bytes())
    for where, value in flips:
        data[int(where * (len(data) - 1))] ^= value
    path.write_bytes(data)
    try:
        got, _ = read(path)
    except UsregError:
        return
    assert len(got) <= 20


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bag") / "bag.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + content)
    try:
        read(path)
    except UsregError as error:
        assert "bag.mcap" in str(error) or "topic" in str(error) or "type" in str(error)


def chunk(size: int, data: bytes, compression: bytes = b"zstd", crc: int = 0) -> bytes:
    body = struct.pack("<QQQII", 0, 1, size, crc, len(compression)) + compression + struct.pack("<Q", len(data)) + data
    return struct.pack("<BQ", 6, len(body)) + body


FOOTER = struct.pack("<BQQQI", 2, 20, 0, 0, 0) + b"\x89MCAP0\r\n"


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (chunk(2**50, b"x"), "declares a chunk of"),
        (chunk(100, zstandard.compress(b"\0" * 10**7)), "declare another length"),
        (chunk(100, b"not zstd"), "damaged"),
        (chunk(100, b"x" * 100, b"brotli"), "'brotli' is not known"),
        (chunk(100, b"x" * 99, b""), "checksum or its length"),
        (chunk(100, b"x" * 100, b"", crc=1), "checksum or its length"),
        (chunk(100, b"\x05" + struct.pack("<Q", 2**60) + b"x" * 91, b""), "runs over its end"),
        (struct.pack("<BQ", 3, 2**25) + b"\0" * 2**25, "declares a schema of"),
        (struct.pack("<BQ", 5, 3) + b"\0" * 3, "too short"),
        (struct.pack("<BQHHI", 4, 8, 1, 1, 2**31), "cannot be read"),
    ],
    ids=["size", "bomb", "garbage", "compression", "length", "checksum", "record", "schema", "message", "channel"],
)
def test_hostile_records(tmp_path, records, message):
    path = tmp_path / "bag.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + records + FOOTER)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FileFormatError, match=message):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_bomb_within_the_declared_size_is_bounded(tmp_path):
    path = tmp_path / "bag.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + chunk(10**7, zstandard.compress(b"\0" * 10**7)) + FOOTER)
    with pytest.raises(FileFormatError, match="declares a chunk"):
        read(path, limits=BagLimits(max_chunk_bytes=10**6))


def written(path: Path, definition: str, payload: bytes, name: str = "x_msgs/msg/X", **options) -> Path:
    with open(path, "wb") as file:
        writer = Writer(file, **options)
        writer.start("ros2", "test")
        schema = writer.register_schema(name, "ros2msg", definition.encode())
        writer.add_message(writer.register_channel("/x", "cdr", schema), 1, payload, 1)
        writer.finish()
    return path


@pytest.mark.parametrize(
    "definition",
    [
        "uint8[1000000000] huge\n",
        "x_msgs/X inner\n",
        "x_msgs/Missing inner\n",
        "import os; os.system('x')\n",
        "float64 __class__\n",
        "string name\nstring name\n",
        "\0\0\0",
        "float64 x" + "\nfloat64 y" * 10 + "\n" + "=" * 80 + "\nMSG: ../../x\nfloat64 z\n",
    ],
    ids=["array", "itself", "missing", "code", "dunder", "twice", "zeros", "path"],
)
def test_hostile_definitions(tmp_path, definition):
    path = written(tmp_path / "bag.mcap", definition, b"\0\1\0\0" + b"\0" * 64)
    with BagReader(path) as bag, pytest.raises(FileFormatError):
        list(bag.messages())


@pytest.mark.parametrize(
    "name",
    ["X", "../../x/msg/X", "x_msgs/msg/X; import os", "x_msgs/msg/" + "X" * 500],
    ids=["short", "path", "code", "long"],
)
def test_hostile_type_names(tmp_path, name):
    path = written(tmp_path / "bag.mcap", "float64 x\n", b"\0\1\0\0" + b"\0" * 8, name)
    with BagReader(path) as bag, pytest.raises(FileFormatError, match="not the name of a message type"):
        list(bag.messages())


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\0", b"\0\1\0\0", b"\7\7\0\0\0\0\0\0", b"\0\1\0\0" + struct.pack("<I", 2**32 - 1),
        b"\0\1\0\0" + struct.pack("<I", 4) + b"\xff\xfe\xfd\0", b"\0\1\0\0" + struct.pack("<I", 2) + b"a\0" + b"z" * 40,
    ],
    ids=["empty", "short", "bare", "encapsulation", "length", "utf8", "surplus"],
)  # fmt: skip
def test_messages_that_do_not_fit(tmp_path, payload):
    path = written(tmp_path / "bag.mcap", "string data\n", payload)
    with BagReader(path) as bag, pytest.raises(FileFormatError, match="does not fit its type x_msgs/msg/X"):
        list(bag.messages())


def test_a_sequence_that_declares_too_much(tmp_path):
    store = new_store()
    register(store, "x_msgs/msg/X", "string[] names\n")
    path = written(tmp_path / "bag.mcap", "string[] names\n", b"\0\1\0\0" + struct.pack("<I", 2**32 - 1))
    start = time.perf_counter()
    with BagReader(path) as bag, pytest.raises(FileFormatError):
        list(bag.messages())
    assert time.perf_counter() - start < 30  # no loop over four billion names


@pytest.mark.parametrize(
    "options",
    [{"use_chunking": False}, {"index_types": IndexType.NONE}, {"repeat_channels": False}],
    ids=["loose", "no index", "no channels"],
)
def test_files_without_chunks_or_index(tmp_path, options):
    payload = bytes(standard_store().serialize_cdr(text("hello"), STRING))
    path = written(tmp_path / "bag.mcap", "string data\n", payload, STRING, compression=CompressionType.NONE, **options)
    assert read(path) == (["hello"], False)
    with BagReader(path) as bag:
        assert bag.topics["/x"].count == 1 and bag.span_ns == (1, 1)


RECORDER = """
import sys, time
from usreg.data.bags import BagWriter
from usreg.data.bag_messages import make
bag = BagWriter(sys.argv[1], live=True, flush_after_s=0.1)
for i in range(10**6):
    bag.write("/a", i * 10_000_000, make("std_msgs/msg/String", f"message {i}"))
    if i % 100 == 0:
        print(i, flush=True)
        time.sleep(0.01)
"""


def test_killed_recorder(tmp_path):
    path = tmp_path / "bag"
    process = subprocess.Popen([sys.executable, "-c", RECORDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 1000:
                break
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (path / "metadata.yaml").exists()
    got, truncated = read(path)
    assert truncated and len(got) >= 980  # all but the last tenth of a second
    assert got == [f"message {i}" for i in range(len(got))]


def limited(path: Path, live: bool, limit: int) -> tuple[int, str]:
    """Write until the file may grow no more; returns how many messages were taken, and the error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    taken, message = 0, ""
    bag = BagWriter(path, live=live, compression="none", chunk_bytes=2000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        try:
            for i in range(10_000):
                bag.write("/a", i, text(noise(i)))
                taken += 1
        except WriteError as error:
            message = str(error)
            with pytest.raises(WriteError, match="an earlier write failed"):
                bag.write("/a", 1, text("more"))
        bag.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    return taken, message


def test_full_disk_while_recording(tmp_path):
    taken, message = limited(tmp_path / "bag", True, 50_000)
    assert "cannot write the bag 'bag'" in message and "stays readable" in message
    got, truncated = read(tmp_path / "bag")
    assert truncated and taken - 20 <= len(got) <= taken
    assert got == [noise(i) for i in range(len(got))]


def test_full_disk_leaves_nothing_half_done(tmp_path):
    _, message = limited(tmp_path / "bag", False, 50_000)
    assert "cannot write" in message and list(tmp_path.iterdir()) == []


def test_full_disk_at_the_end(tmp_path, monkeypatch):
    """The end of the file does not fit: the messages do."""
    bag = BagWriter(tmp_path / "bag", live=True)
    bag.write("/a", 1, text("first"))
    bag.flush()

    def full(data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bag._output, "write", full)
    with pytest.raises(WriteError, match="No space left"):
        bag.close()
    bag.close()  # a second time does nothing
    assert read(tmp_path / "bag") == (["first"], True)


def test_partial_writes_are_continued_or_undone(tmp_path):
    """A device takes part of a block and then is full: the file ends with the last whole block."""
    bag = BagWriter(tmp_path / "bag.mcap", live=True)
    bag.write("/a", 1, text("first"))
    bag.flush()
    file = bag._output._file

    class Short:
        calls = 0

        def write(self, data):
            self.calls += 1
            if self.calls > 3:
                raise OSError(28, "No space left on device")
            return file.write(data[:5])

        def __getattr__(self, name):
            return getattr(file, name)

    bag._output._file = Short()
    bag.write("/a", 2, text(noise(0)))
    with pytest.raises(WriteError, match="No space left"):
        bag.flush()
    bag.close()
    assert read(tmp_path / "bag.mcap") == (["first"], True)


def test_no_permission(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="cannot write the bag"):
        BagWriter(tmp_path / "file" / "bag")
    if os.getuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(WriteError, match="Permission denied"):
            BagWriter(tmp_path / "locked" / "bag")
