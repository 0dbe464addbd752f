"""Reading tables: the same rules for every command that takes one."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ltr.data.tables import read_columns
from ltr.errors import DataError


def read(tmp_path, text, needed=("path", "label"), encoding="utf-8"):
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    return read_columns(tmp_path / "t.csv", needed, ("split",)).texts


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na b.jpg,cat\n",
        "\ufeffpath,label\r\na b.jpg,cat\r\n",
        "path, label\na b.jpg, cat\n",
        " path , label \na b.jpg , cat \n",
        'path, label\n"a b.jpg", "cat"\n',
        "path;label\na b.jpg;cat\n",
        "path; label\na b.jpg; cat\n",
        "path\tlabel\na b.jpg\tcat\n",
        "label,id,path\n\ncat,7,a b.jpg\n\n",
        "path,label\na b.jpg,cat,,\n",
        "path,\u200blabel\na b.jpg,cat\n",
    ],
)
def test_one_table_in_many_forms(tmp_path, text):
    assert read(tmp_path, text) == {"path": ["a b.jpg"], "label": ["cat"]}


def test_cells_keep_their_white_space_where_the_head_has_none(tmp_path):
    assert read(tmp_path, "path,label\n a.jpg,cat \n") == {"path": [" a.jpg"], "label": ["cat "]}


def test_names_of_a_parquet_file_lose_their_white_space_too(tmp_path):
    pq.write_table(pa.table({"path": ["a.jpg"], " label": [7], "split": ["train"]}), tmp_path / "t.parquet")
    columns = read_columns(tmp_path / "t.parquet", ("path", "label"), ("split",))
    assert columns.texts == {"path": ["a.jpg"], "label": ["7"], "split": ["train"]}


def test_a_separator_inside_quotes_separates_nothing(tmp_path):
    assert read(tmp_path, 'path;label\n"a;b.jpg";"x,y"\n') == {"path": ["a;b.jpg"], "label": ["x,y"]}


def test_lines_are_counted_as_an_editor_does(tmp_path):
    (tmp_path / "t.csv").write_text('path,label\n\n"a\nb.jpg",x\nc.jpg,y\n')
    columns = read_columns(tmp_path / "t.csv", ("path", "label"))
    assert columns.where(1) == "line 5"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_other_encodings_are_named_or_lack_the_columns(tmp_path, encoding):
    with pytest.raises(DataError, match=r"UTF-16|no column path"):
        read(tmp_path, "path,label\na.jpg,x\n", encoding=encoding)
