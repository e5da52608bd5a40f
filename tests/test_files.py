import os
import stat

import pytest

from tf_lap.files import remove_unfinished, replaced


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
