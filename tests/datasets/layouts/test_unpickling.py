"""Pickles of plain data are read as Python reads them; all others are refused and not run."""

import io
import os
import pickle
import pickletools
import tracemalloc

import pytest

from lisabench.datasets.layouts import unpickling
from lisabench.datasets.layouts.unpickling import read_plain_pickle
from lisabench.harness.errors import DataError

pytestmark = pytest.mark.no_clock

REFS = [
    {
        "ref_id": 0,
        "ann_id": 1719310,
        "file_name": "COCO_train2014_000000581857_16.jpg",
        "sentences": [
            {"tokens": ["the", "lady"], "raw": "THE LADY", "sent_id": 0, "sent": "the lady"},
            {"tokens": ["café"], "raw": "Café", "sent_id": 1, "sent": "café"},
        ],
        "split": "train",
    }
]
OTHERS = [
    None,
    True,
    False,
    -1,
    2**70,
    0.5,
    b"bytes",
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, 2, 3, 4),
    [],
]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_are_read_as_python_reads_them(tmp_path, protocol):
    repeated = ["one", "one"]
    data = {"refs": REFS, "others": OTHERS, "repeated": [repeated, repeated], 3: {}}
    if protocol < 3:  # Python 3 calls a function to build bytes there; Python 2 has none
        data["others"] = [value for value in OTHERS if value != b"bytes"]
    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps(data, protocol))
    assert read_plain_pickle(path) == data
    assert read_plain_pickle(path) == pickle.loads(path.read_bytes())


PYTHON_2 = {
    # `pickle.dumps([{'sent': 'a dog', u'raw': u'caf\xe9', 'id': 7L}], protocol)` of Python 2.
    0: b"(lp0\n(dp1\nS'sent'\np2\nS'a dog'\np3\nsVraw\np4\nVcaf\xe9\np5\nsS'id'\np6\nL7L\nsa.",
    2: b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x05a dogq\x03X\x03\x00\x00\x00rawq\x04"
    b"X\x05\x00\x00\x00caf\xc3\xa9q\x05U\x02idq\x06\x8a\x01\x07ua.",
}


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_pickles_of_python_2_are_read(tmp_path, protocol):
    path = tmp_path / "refs.p"
    path.write_bytes(PYTHON_2[protocol])
    assert read_plain_pickle(path) == [{"sent": "a dog", "raw": "café", "id": 7}]
    assert read_plain_pickle(path) == pickle.loads(PYTHON_2[protocol])


def test_texts_of_python_2_beyond_ascii_are_latin_1(tmp_path):
    path = tmp_path / "refs.p"
    path.write_bytes(b"\x80\x02U\x04caf\xe9q\x00.")
    assert read_plain_pickle(path) == "café"


class Reduced:
    def __reduce__(self):
        return os.mkdir, ("executed",)


class Stateful:
    def __init__(self):
        self.value = 1


def by_persistent_id(protocol: int) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return "id" if value == "outside" else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(["outside"])
    return buffer.getvalue()


HOSTILE = {
    "REDUCE": b"cos\nmkdir\n(Vexecuted\ntR.",
    "GLOBAL alone": b"cos\nmkdir\n.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x08executed\x85R.",
    "INST": b"(Vexecuted\nios\nmkdir\n.",
    "OBJ": b"(cos\nmkdir\nVexecuted\no.",
    "NEWOBJ": pickle.dumps(Stateful(), 2),
    "NEWOBJ_EX": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93)}\x92.",
    "BUILD": b"}}b.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": by_persistent_id(0),
    "BINPERSID": by_persistent_id(2),
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "within a list": pickle.dumps([1, {"ref": Reduced()}], 4),
    "by a set": pickle.dumps({1, 2}, 4),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_instructions_that_can_run_code_are_refused_and_not_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "refs.p"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(DataError, match=r"refs\.p: holds the instruction .*can run code.*at byte"):
        read_plain_pickle(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["refs.p"]


def test_every_instruction_of_python_is_known_or_refused():
    """An instruction that a later Python adds is refused: what is allowed is listed."""
    allowed = {
        *unpickling.VALUES, *unpickling.CONSTANTS, *unpickling.EMPTY, *unpickling.TUPLE_LENGTHS,
        *unpickling.PUTS, *unpickling.GETS, *unpickling.NO_EFFECT, "MEMOIZE", "MARK", "STOP",
        "SETITEM", "SETITEMS", "APPEND", "APPENDS", "LIST", "TUPLE", "DICT",
        "POP", "POP_MARK", "DUP",
    }  # fmt: skip
    refused = {opcode.name for opcode in pickletools.opcodes} - allowed
    assert {"GLOBAL", "STACK_GLOBAL", "REDUCE", "INST", "OBJ", "NEWOBJ", "BUILD"} <= refused
    for name in refused:
        with pytest.raises(ValueError, match=name):
            unpickling._Machine().step(name, None)


DAMAGED = {
    "empty": b"",
    "text": b"ref_id,ann_id\n1,2\n",
    "cut short": pickle.dumps(REFS, 2)[:-20],
    "no object": b".",
    "tuple of nothing": b"\x85.",
    "across a mark": b"I1\n(\x85.",
    "no mark": b"]e.",
    "appends to a dict": b"}(I1\ne.",
    "items of a list": b"](I1\nI2\nu.",
    "odd items": b"}(I1\nu.",
    "key of a list": b"}(]I2\nu.",
    "key of a tuple": b"}()I2\nu.",
    "memory of nothing": b"h\x07.",
    "long text": b"X\xff\xff\xff\x7fshort.",
    "endless number": b"I" + b"9" * 100_000 + b"\n.",
    "no number": b"Ione\n.",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pickles_end_with_one_line(tmp_path, name):
    path = tmp_path / "refs.p"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(DataError, match=r"refs\.p: .*download the file again"):
        read_plain_pickle(path)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    path = tmp_path / "refs.p"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(DataError, match="git lfs pull"):
        read_plain_pickle(path)


def test_a_small_pickle_takes_little_memory_whatever_it_stands_for(tmp_path):
    """Each list holds the one before it twice: 2**200 leaves, in 200 objects.

    The place 2**31 - 1 in the memory would make Python's own reader take 32 GiB.
    """
    laughs = b"\x80\x02]q\x00" + b"".join(
        b"]q%c(h%ch%ce" % (number + 1, number, number) for number in range(200)
    )
    path = tmp_path / "refs.p"
    path.write_bytes(laughs + b"r\xff\xff\xff\x7f.")
    tracemalloc.start()
    tree = read_plain_pickle(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(tree) == 2
    assert tree[0] is tree[1]
    assert peak_bytes < 1 << 20


def test_deep_nesting_is_built_without_recursion(tmp_path):
    path = tmp_path / "refs.p"
    path.write_bytes(b"]" * 100_000 + b"a" * 99_999 + b".")
    depth, value = 1, read_plain_pickle(path)
    while value:
        depth, value = depth + 1, value[0]
    assert depth == 100_000


def test_size_and_number_of_instructions_are_limited(tmp_path, monkeypatch):
    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps(list(range(1000)), 2))
    monkeypatch.setattr(unpickling, "MOST_INSTRUCTIONS", 100)
    with pytest.raises(DataError, match="more than 100 instructions"):
        read_plain_pickle(path)
    monkeypatch.setattr(unpickling, "LARGEST", 100)
    with pytest.raises(DataError, match="at most 0 MiB"):
        read_plain_pickle(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"refs\.p: cannot be read \(No such file"):
        read_plain_pickle(tmp_path / "refs.p")
