import pytest

from tf_lap.files import replaced


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
