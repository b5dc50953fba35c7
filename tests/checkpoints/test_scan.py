"""Scans: what hostile files would do is seen and not done; nothing unusual is seen in the hosts' own files."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import pickle
import struct
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import pytest
import torch

import squeeze_patch
from squeeze_patch import adapters
from squeeze_patch.adapters.base import Adapter
from squeeze_patch.adapters.nvidia.adapter import NvidiaSurgery
from squeeze_patch.adapters.nvidia.portable import portable_source
from squeeze_patch.adapters.nvidia.unpickling import NvidiaPickles
from squeeze_patch.checkpoints import scanning_findings
from squeeze_patch.checkpoints.scanning_findings import NOT_LOOKED_INTO, RUNS_CODE, UNKNOWN, USUAL
from squeeze_patch.checkpoints.scanning_names import judge_name
from squeeze_patch.checkpoints.scanning_source import judge_source
from squeeze_patch.testing import trained
from tests.corpus import calling, more_payloads, payloads, saved, short, stored_object, zipped
from tests.helpers import Snapshot, scanned, whats, write_checkpoint
from tests.hosts import Host
from tests.hosts.flat import FlatHost

pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")


def test_every_payload_is_seen_and_none_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "sprung"
    files = {**payloads(str(mark)), **more_payloads(str(mark))}
    assert len(files) > 150
    before = set(sys.modules)
    missed = []
    for name, data in files.items():
        found = scanned(data, tmp_path)
        assert not mark.exists(), name
        assert json.loads(json.dumps(found.to_dict()))["verdict"] == found.verdict
        if not found.unusual:
            missed.append((name, found.verdict))
    assert missed == []
    assert not {"this", "antigravity", "somebody", "pip"} & (set(sys.modules) - before)


def test_what_can_make_the_mark_is_called_dangerous(tmp_path: Path) -> None:
    """Whatever way leads to os.mkdir, its name is among what runs code; else the name is computed, and that is said."""
    mark = tmp_path / "sprung"
    for name, data in {**payloads(str(mark)), **more_payloads(str(mark))}.items():
        if any(word in name for word in ("source", "name out", "by join", "gap")) or b"mkdir" not in data:
            continue
        found = scanned(data, tmp_path)
        assert found.of_level(RUNS_CODE), (name, found.verdict)


def test_files_that_run_when_they_are_unpickled_are_unusual(tmp_path: Path) -> None:
    """Those of the corpus that do make the mark, tried in this process."""
    mark, ran = tmp_path / "sprung", 0
    for name, data in more_payloads(str(mark)).items():
        if b"mkdir" not in data or "Popen" in name or any(word in name for word in ("subprocess", "NEWOBJ", "copyreg")):
            continue
        with contextlib.suppress(Exception):
            pickle.loads(data)
        if mark.exists():
            mark.rmdir()
            ran += 1
            assert scanned(data, tmp_path).unusual, name
    assert ran > 30


def test_names_are_counted_and_placed(tmp_path: Path) -> None:
    call = calling(b"somebody.module", b"function", "x")
    found = scanned(b"\x80\x04" + call + b"0" + call + b"0.", tmp_path)
    (name,) = found.of_level(UNKNOWN)
    at = 2 + len(short("somebody.module")) + len(short("function"))
    assert (name.what, name.named, name.called, name.position) == ("somebody.module.function", 2, 2, at)
    assert found.verdict.startswith("1 name that such files do not need: somebody.module.function")


def test_snapshots_of_hosts(host: Host, tmp_path: Path) -> None:
    """Dense and squeezed: nothing unusual, all of it looked into, and that its source is run is said."""
    if host.discriminator_kwargs is None:
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"G_ema": trained(host.generator())}))
    else:
        write_checkpoint(host, tmp_path / "a.pkl")
    squeeze_patch.convert(tmp_path / "a.pkl", tmp_path / "b.pkl", init="weights")
    for name in ("a.pkl", "b.pkl"):
        found = squeeze_patch.scan(tmp_path / name)
        assert (found.unusual, found.complete, found.form) == (False, True, "a pickle"), found.verdict
        assert found.verdict.startswith("names nothing but what such files need; embedded source of ")
        assert found.verdict.endswith("would be run by its host; looked into all of it")
        sources = [finding for finding in found.of_level(USUAL) if finding.kind == "source"]
        assert all("its host runs it" in finding.why for finding in sources)
        assert any("squeeze_patch adds" in finding.why for finding in sources) == (name == "b.pkl")
    tensors = next(f for f in found.findings if f.what == "torch.storage._load_from_bytes")
    assert tensors.called == next(f for f in found.findings if f.what == "torch._utils._rebuild_tensor_v2").called


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols(protocol: int, draggan: Host, tmp_path: Path) -> None:
    found = scanned(pickle.dumps({"G": draggan.generator()}, protocol), tmp_path)
    assert (found.unusual, found.complete) == (False, True), found.verdict


def test_sources_of_hosts(host: Host) -> None:
    """All modules of their checkouts that hold networks whose source is stored."""
    seen = 0
    for path in sorted(host.folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        if "@persistence.persistent_class" in text and path.parent.name != "torch_utils":
            seen += 1
            oddities = judge_source(text)
            if path.name == "triplane.py":  # eg3d's makes a network by a name in its arguments
                assert [oddity.what.split(",")[0] for oddity in oddities or []] == [
                    "uses dnnlib.util.construct_class_by_name"
                ]
                continue
            assert oddities == [], path
    assert seen > 0


def test_files_of_torch(rosinality: FlatHost, tmp_path: Path) -> None:
    Snapshot(rosinality, tmp_path / "a.pt")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    parameter = {"x": torch.nn.Parameter(torch.zeros(2, dtype=torch.float16)), "size": torch.Size([1])}
    files = {
        "snapshot": (tmp_path / "a.pt").read_bytes(),
        "module": saved(module),
        "older format": saved(module, zipped=False),
        "numbers": saved({**parameter, "y": np.float64(1), "z": np.zeros(2), "dtype": torch.int64}),
        "older numbers": saved(parameter, zipped=False),
        "pickled": pickle.dumps(parameter),
    }
    for name, data in files.items():
        found = scanned(data, tmp_path)
        assert (found.unusual, found.complete) == (False, True), (name, found.verdict)


def test_the_demo(tmp_path: Path) -> None:
    found = squeeze_patch.scan(Path(squeeze_patch.__file__).parent / "demo" / "weights.npz")
    assert (found.unusual, found.complete) == (False, True)


def test_code_in_front_of_and_behind_our_own(tmp_path: Path) -> None:
    own = portable_source()
    assert judge_source(own)  # it is unusual, were it not known
    assert judge_source(own, own) == []
    assert judge_source(f"import torch\n{own}\n\nclass A:\n    pass\n", own) == []
    for text in (f"import os\n{own}", f"{own}\nimport os\n", f"def f():\n    '''\n{own}\n    '''\nimport os\n"):
        assert [oddity.what for oddity in judge_source(text, own) or []].count("imports os") == 1
    inside = own.replace("import torch\n", "import torch\nimport os\n", 1)
    assert "imports os" in [oddity.what for oddity in judge_source(inside, own) or []]
    found = scanned(stored_object(f"{own}\nimport os\n"), tmp_path)
    assert found.of_level(RUNS_CODE)[0].what.endswith(f"line {len(own.splitlines()) + 2} imports os")


def test_what_is_not_looked_into(tmp_path: Path) -> None:
    expected = {
        "a text": b"Hello world\nthis is a text\n",
        "a web page": b"<!DOCTYPE html><html></html>",
        "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n",
        "an empty file": b"",
        "data compressed by gzip": b"\x1f\x8b\x08\0\0\0\0",
        "data compressed by xz": b"\xfd7zXZ\x00\0\0",
        "a 7z archive": b"7z\xbc\xaf\x27\x1c\0\0",
        "data of no known form": bytes(range(255, 0, -1)),
        "a pickle that breaks off or is damaged": pickle.dumps({"x": [1] * 100})[:-5],
    }
    for what, data in expected.items():
        found = scanned(data, tmp_path)
        assert whats(found, NOT_LOOKED_INTO) == [what]
        assert not found.unusual
        assert found.verdict.endswith(f"not looked into: {what}")


def test_archives_that_are_not_looked_into(tmp_path: Path) -> None:
    good = saved({"x": torch.zeros(100)})
    encrypted = bytearray(zipped(("x.pkl", pickle.dumps(1))))
    for start in (encrypted.find(b"PK\x03\x04") + 6, encrypted.find(b"PK\x01\x02") + 8):
        encrypted[start] |= 1
    wrong = good.replace(struct.pack("<100f", *[0.0] * 100), struct.pack("<100f", *[1.0] * 100))
    assert wrong != good
    bomb = zipped(("x.pkl", b"\0" * 20_000_000), compression=zipfile.ZIP_DEFLATED)
    packed = zipfile.ZipFile(io.BytesIO(bomb)).infolist()[0].compress_size
    expected = {
        "an encrypted member": bytes(encrypted),
        "a member whose checksum or size does not fit": wrong,
        f"a member of {packed:,} bytes that unpacks to 20,000,000": bomb,
        "a member packed in the way 14": zipped(("x.pkl", b"1"), compression=zipfile.ZIP_LZMA),
    }
    for what, data in expected.items():
        found = scanned(data, tmp_path)
        assert whats(found, NOT_LOOKED_INTO)[0].split("(")[0] == what
    hidden = bytearray(zipped(("x.pkl", b"\x80\x04" + calling(b"os", b"mkdir", "x") + b".")))
    for start in (hidden.find(b"PK\x03\x04") + 6, hidden.find(b"PK\x01\x02") + 8):
        hidden[start] |= 1
    assert whats(scanned(bytes(hidden), tmp_path), RUNS_CODE) == ["os.mkdir"]
    for size in (5, 60, len(good) // 2, len(good) - 5):
        assert not scanned(good[:size], tmp_path).complete


def test_files_without_anything_to_run(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    found = scanned(struct.pack("<Q", len(header)) + header + b"\0" * 4, tmp_path)
    assert (found.form, found.unusual, found.complete) == ("a file of safetensors", False, True)
    np.save(tmp_path / "x.npy", np.zeros((2, 3), dtype=[("O", "f4"), ("y", "i8")]))
    found = squeeze_patch.scan(tmp_path / "x.npy")
    assert (found.form, found.complete) == ("a NumPy array", True)


def test_claims_cost_nothing(tmp_path: Path) -> None:
    """Lengths, memo entries, nesting and repetition that a small file declares take neither memory nor time."""
    long = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"\x94"
    files: Dict[str, bytes] = {
        "memo": b"\x80\x04Nr\xff\xff\xff\x7f.",
        "bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00abc.",
        "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\x00\x00\x00N.",
        "text": b"\x80\x04X\xff\xff\xff\xffabc.",
        "lists": b"\x80\x04" + b"]" * 20_000,
        "marks": b"(" * 20_000,
        "tuples": b"\x80\x04)" + b"\x85" * 20_000 + b".",
        "pairs": b"\x80\x04K\x01" + b"2\x86" * 20_000 + b".",
        "encoding": b"\x80\x04\x8c\x07_codecs\x8c\x06encode\x93\x94" + long + b"0h\x00h\x01\x85R" * 200 + b".",
        "adding": b"\x80\x04coperator\nadd\n\x940"
        + short("ab")
        + b"\x94"
        + b"0h\x00h\x01h\x01\x86R\x94q\x01" * 60
        + b".",
        "deep source": stored_object("x = " + "1+" * 60_000 + "1"),
        "rebuilding": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00N" + b"0h\x00h\x00Nh\x00N" * 1000 + b".",
        "nested": b"",
    }
    inner: Any = {"x": 1}
    for _ in range(2 * scanning_findings.DEPTH):
        inner = pickle.dumps({"x": inner, "y": np.dtype})
    files["nested"] = inner
    for name, data in files.items():
        tracemalloc.start()
        start = time.process_time()
        found = scanned(data, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100 * len(data) + (64 << 20), name
        assert time.process_time() - start < 30, name
    assert f"files nested more than {scanning_findings.DEPTH} deep" in whats(found, NOT_LOOKED_INTO)


def test_opcodes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning_findings.Notes.__init__, "__defaults__", (1000, 0))
    found = scanned(b"(" + b"N" * 2000 + b"cos\nsystem\n.", tmp_path)
    assert "opcodes" in whats(found, NOT_LOOKED_INTO)[0]
    assert not found.complete


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(squeeze_patch.CheckpointError, match="there is no such file"):
        squeeze_patch.scan(tmp_path / "x.pkl")
    with pytest.raises(squeeze_patch.CheckpointError, match="this is a folder"):
        squeeze_patch.scan(tmp_path)


def test_several_pickles_are_one_file(tmp_path: Path) -> None:
    """Positions count from the file's beginning, whatever stands in between."""
    first = pickle.dumps({"x": 1}, 4)
    second = calling(b"somebody.module", b"function", "x")
    found = scanned(first * 3 + b"\x80\x04" + second + b".", tmp_path)
    (name,) = found.of_level(UNKNOWN)
    at = 3 * len(first) + 2 + len(short("somebody.module")) + len(short("function"))
    assert (name.what, name.position, name.place) == ("somebody.module.function", at, "")
    member = zipped(("behind the end at x.pkl", first * 2 + b"???"))
    assert whats(scanned(member, tmp_path), NOT_LOOKED_INTO) == ["a text"]


def test_archives_with_many_members_and_overlaps(tmp_path: Path) -> None:
    start = time.process_time()
    found = scanned(zipped(*((f"{index}", b"") for index in range(20_000))), tmp_path)
    assert (found.unusual, found.complete) == (False, True)
    data = zipped(("a.pkl", pickle.dumps(b"\0" * 10_000)), ("b.pkl", b""))
    directory = data.find(b"PK\x01\x02")
    entry = data[directory : data.find(b"PK\x01\x02", directory + 1)]
    end = data.find(b"PK\x05\x06")
    many = (
        data[:directory] + entry * 50 + data[end : end + 8] + struct.pack("<HHLL", 50, 50, len(entry) * 50, directory)
    )
    found = scanned(many + b"\0\0", tmp_path)
    assert "members that overlap" in whats(found, UNKNOWN)
    assert any("bytes that unpacks to" in what for what in whats(found, NOT_LOOKED_INTO))
    assert time.process_time() - start < 60


def test_progress(tmp_path: Path) -> None:
    seen: List[Any] = []
    (tmp_path / "file").write_bytes(pickle.dumps([{"x": 1}] * 2 + list(range(5000))))
    squeeze_patch.scan(tmp_path / "file", lambda *step: seen.append(step))
    size = os.path.getsize(tmp_path / "file")
    assert seen[-1] == ("", size, size)
    assert len(seen) > 3
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert inspect.signature(squeeze_patch.scan).parameters["progress"].default is None


def test_a_family_that_is_registered_later_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was judged before is judged again."""
    assert judge_name("later.persistence", "rebuild", 4)[0] == UNKNOWN

    class Later(NvidiaPickles):
        def judge(self, module: str, name: str) -> Optional[bool]:
            return True if module == "later.persistence" else None

    monkeypatch.setattr(
        adapters, "_registered", [*adapters.adapters(), Adapter("later", NvidiaSurgery(), pickles=Later())]
    )
    assert judge_name("later.persistence", "rebuild", 4)[0] == USUAL
