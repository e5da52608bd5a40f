import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_lap.tabular import GAP, elide, elide_apart, share, table


def test_columns_are_aligned_and_numbers_flush_right():
    assert table([("name", "size"), ("a", "1"), ("long name", "1,000")], right=(1,)) == [
        "name        size",
        "----------------",
        "a              1",
        "long name  1,000",
    ]


@given(st.text(max_size=30), st.integers(4, 40))
def test_a_text_loses_its_middle_only_where_it_is_too_long(text, width):
    short = elide(text, width)
    assert len(short) == min(len(text), width)
    if len(text) <= width:
        assert short == text
    else:
        first = (width - 2) // 2  # a text may have dots of its own, so that its ends are told by their lengths
        start, dots, end = short[:first], short[first : first + 3], short[first + 3 :]
        assert dots == "..."
        assert text.startswith(start)
        assert text.endswith(end)
        assert 0 <= len(start) - len(end) <= 1


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 59)), min_size=1, max_size=6), st.integers(0, 200))
def test_columns_share_what_room_there_is(columns, spare):
    least = [max(width - give, 1) for width, give in columns]
    widths = [width for width, _ in columns]
    room = sum(least) + GAP * (len(least) - 1) + spare
    shared = share(widths, least, room)
    assert all(low <= width <= high for low, width, high in zip(least, shared, widths, strict=True))
    assert sum(shared) + GAP * (len(shared) - 1) == min(room, sum(widths) + GAP * (len(widths) - 1))


@pytest.mark.parametrize(("room", "shared"), [(34, [10, 20]), (32, [10, 20]), (28, [10, 16]), (20, [9, 9])])
def test_the_widest_column_gives_way_first(room, shared):
    assert share([10, 20], [4, 4], room) == shared


def test_texts_are_cut_where_they_stay_apart():
    texts = [
        f"transformer_layer_{block}/_self_attention_layer/{name}" for block in range(4) for name in ("query", "key")
    ]
    cut = elide_apart(texts, 34)
    assert len(set(cut)) == len(texts)
    assert {len(text) for text in cut} == {34}
    assert elide_apart(["ab", "cd"], 4) == ["ab", "cd"]
    assert elide_apart(["ab", ""], 2) == ["ab", ""]
    assert elide_apart(["block_12_expand"], 12) == [elide("block_12_expand", 12)]
    assert elide_apart(["x" * 30, "x" * 40], 10) == ["xxxx...xxx"] * 2
