import os
import stat
from pathlib import Path

import numpy as np
import pytest

from tf_lap.files import as_path, remove_unfinished, replaced


def write_half(path):
    with replaced(path) as file:
        file.write(b"half")
        raise OSError("no space")


def test_a_file_is_replaced_whole_or_stays_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        with replaced(path) as file:
            file.write(content)
        assert path.read_bytes() == content
    with pytest.raises(OSError, match="no space"):
        write_half(path)
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["plain", "größe", "with space"])
def test_a_path_is_taken_in_every_form_that_open_takes(tmp_path, name):
    class Bytes:
        def __fspath__(self):
            return os.fsencode(path)

    path = tmp_path / name
    for form in (path, str(path), os.fsencode(path), Bytes()):
        assert as_path(form) == path
        open(form, "w").close()
    assert isinstance(as_path(b"undecodable\xff"), Path)
    assert os.fsencode(as_path(b"undecodable\xff")) == b"undecodable\xff"


@pytest.mark.parametrize("thing", [None, 3, 1.5, ["a"], np.zeros(100)], ids=str)
def test_what_is_no_path_is_refused_by_its_arguments_name(thing):
    with pytest.raises(TypeError, match=r"^backup_dir=.*: expected a path, of str, bytes or pathlib.Path$"):
        as_path(thing, "backup_dir")


def test_a_null_byte_is_refused():
    with pytest.raises(ValueError, match="no null byte"):
        as_path(b"a\0b")


def test_what_a_killed_writer_left_beside_a_file_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / ("a*b" + "c" * 200)
    beside = []
    with replaced(path) as file:
        file.write(b"whole")
        beside += [entry.name for entry in tmp_path.iterdir()]
    (tmp_path / beside[0]).write_bytes(b"half")
    (tmp_path / ".axb.0.part").write_bytes(b"of another file")
    remove_unfinished(path)
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, ".axb.0.part"}


def test_a_file_and_its_name_are_on_the_disk_before_the_block_is_over(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: done.append(stat.S_ISDIR(os.fstat(number).st_mode)) or sync(number))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("renamed") or replace(*paths))
    with replaced(tmp_path / "file") as file:
        file.write(b"content")
    assert done == [False, "renamed", True]
