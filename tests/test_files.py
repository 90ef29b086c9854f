"""Files written whole or not at all, checksums, folders and their locks."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading

import matplotlib.figure
import numpy as np
import pytest

from keras_qsn._core import files
from keras_qsn._core import kept

WRITERS = {
    "bytes": lambda path: files.write_bytes(path, b"new" * 5000),
    "text": lambda path: files.write_text(path, "new" * 5000),
    "JSON": lambda path: files.write_json(path, ["new"] * 5000),
    "figure": lambda path: files.write_figure(path, matplotlib.figure.Figure()),
    "kept arrays": lambda path: kept.keep_arrays(
        path, x=np.random.default_rng(0).random(5000)
    ),
    "kept JSON": lambda path: kept.keep_json(path, ["new"] * 5000),
}


@pytest.mark.parametrize("kind", WRITERS)
class TestADiskThatFails:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "report.html"
        path.write_text("old")
        return path

    def test_while_it_is_written(self, path, kind):
        """A file may be no larger than 1,000 bytes: a write fails for real."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(OSError, match="File too large") as caught:
                WRITERS[kind](path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(path) in str(caught.value)
        assert caught.value.errno == errno.EFBIG
        assert os.listdir(path.parent) == [path.name]
        assert path.read_text() == "old"

    def test_when_it_takes_its_place(self, path, kind, monkeypatch):
        def full(part, path):
            raise OSError(errno.ENOSPC, "No space left on device", part)

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left") as caught:
            WRITERS[kind](path)
        assert caught.value.filename == str(path)
        assert caught.value.filename2 is None
        assert os.listdir(path.parent) == [path.name]
        assert path.read_text() == "old"


def test_new_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    files.write_text(tmp_path / "new", "")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_two_writers_and_a_reader_never_meet(tmp_path):
    path = tmp_path / "shared"
    files.write_bytes(path, b"0")
    rounds, size, failed = 500, 300_000, []

    def write(letter):
        try:
            for _ in range(rounds):
                files.write_bytes(path, letter * size)
        except OSError as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(c,)) for c in (b"a", b"b")]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        found = path.read_bytes()
        seen.add((len(found), *set(found)))
    assert not failed
    assert seen <= {(1, ord("0")), (size, ord("a")), (size, ord("b"))}
    assert len(seen) > 1 and os.listdir(tmp_path) == ["shared"]


class TestChecksums:
    DATA = {"a": [0.1, 1e-30, float("inf"), None], "ü": {"b": True, "c": "→"}}
    ARRAYS = {"x": np.arange(60.0).reshape(3, 20), "names": np.array(["q", ""])}
    KINDS = {
        "JSON": (kept.keep_json, kept.kept_json, (DATA,), {}),
        "arrays": (kept.keep_arrays, kept.kept_arrays, (), ARRAYS),
        "bytes": (kept.keep_bytes, kept.kept_bytes, (b"weights" * 9,), {}),
    }

    @pytest.mark.parametrize("kind", KINDS)
    def test_no_flipped_bit_is_taken(self, kind, tmp_path):
        keep, read, given, named = self.KINDS[kind]
        path = tmp_path / "kept"
        keep(path, *given, **named)
        content, wanted = path.read_bytes(), repr(read(path))
        refused = 0
        for bit in np.random.default_rng(0).integers(
            8 * len(content), size=2000
        ):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                assert repr(read(path)) == wanted
            except ValueError as error:
                assert f"{path} is damaged" in str(error)
                assert "Delete it: it is made again" in str(error)
                refused += 1
        # JSON between its values is white space, and spells digits one way.
        assert refused == 2000 or kind == "JSON" and refused > 1700

    @pytest.mark.parametrize("kind", KINDS)
    def test_nor_is_a_part_of_a_file(self, kind, tmp_path):
        keep, read, given, named = self.KINDS[kind]
        path = tmp_path / "kept"
        keep(path, *given, **named)
        content = path.read_bytes()
        for count in range(len(content) - 1):
            path.write_bytes(content[:count])
            with pytest.raises(ValueError, match="is damaged"):
                read(path)

    def test_what_is_kept_comes_back(self, tmp_path):
        kept.keep_json(tmp_path / "a.json", self.DATA)
        assert kept.kept_json(tmp_path / "a.json") == self.DATA
        kept.keep_arrays(tmp_path / "a.npz", **self.ARRAYS)
        found = kept.kept_arrays(tmp_path / "a.npz")
        assert found.keys() == self.ARRAYS.keys()
        for name, array in self.ARRAYS.items():
            np.testing.assert_array_equal(found[name], array)
        # NumPy reads it too.
        with np.load(tmp_path / "a.npz") as file:
            np.testing.assert_array_equal(file["x"], self.ARRAYS["x"])


class TestFolders:
    def test_parts_are_kept_by_their_names(self, tmp_path):
        folder = kept.Folder(tmp_path)
        for name, value in (
            ("checks.json", {"a": [0.1, None]}),
            ("network.keras", b"weights"),
        ):
            assert folder.get(name) is None
            folder.put(name, value)
            assert kept.Folder(tmp_path).get(name) == value
        folder.put("attack-0.npz", {"x": np.arange(3)})
        assert folder.get("attack-0.npz")["x"].tolist() == [0, 1, 2]
        nothing = kept.Folder(None)
        nothing.put("checks.json", {})
        assert nothing.get("checks.json") is None

    def test_a_lock_and_torn_files_are_no_other_work(self, tmp_path):
        for name in (".lock", ".settings.json.part", ".settings.json.0f3.part"):
            (tmp_path / name).write_text("{")
        for _ in range(2):
            with kept.work_folder(tmp_path, {"eps": 0.1}) as folder:
                assert folder == tmp_path
                found = {path.name for path in folder.iterdir()}
                assert found == {".lock", "settings.json"}

    def test_other_files_are(self, tmp_path):
        (tmp_path / "thesis.part").write_text("important")
        with pytest.raises(ValueError, match="holds other files"):
            with kept.work_folder(tmp_path, {"eps": 0.1}):
                pass
        assert os.listdir(tmp_path) == ["thesis.part"]

    def test_no_folder_keeps_nothing(self):
        with kept.work_folder(None, None) as folder:
            assert folder is None

    def test_another_process_is_refused_until_it_is_killed(self, tmp_path):
        script = (
            "import sys, time\n"
            "from keras_qsn._core import kept\n"
            "with kept.work_folder(sys.argv[1], {'eps': 0.1}):\n"
            "    print('at work', flush=True)\n"
            "    time.sleep(600)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline() == "at work\n"
            with pytest.raises(ValueError, match="Another run is at work in"):
                with kept.work_folder(tmp_path, {"eps": 0.1}):
                    pass
            process.send_signal(signal.SIGKILL)
        with kept.work_folder(tmp_path, {"eps": 0.1}) as folder:
            assert folder == tmp_path

    def test_an_error_inside_frees_it(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            with kept.work_folder(tmp_path, {"eps": 0.1}):
                raise KeyboardInterrupt
        with kept.work_folder(tmp_path, {"eps": 0.1}):
            pass

    def test_what_differs_is_named(self, tmp_path):
        settings = {"eps": 0.1, "versions": {"keras": "3.0", "python": "3.11"}}
        with kept.work_folder(tmp_path, settings):
            pass
        other = {"eps": 0.2, "versions": {"keras": "3.1", "python": "3.11"}}
        with pytest.raises(
            ValueError, match="other work: it differs in eps, versions.keras."
        ):
            with kept.work_folder(tmp_path, other):
                pass
