"""Reading tables: the same rules for every command that takes one."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ltr.data.tables import column_names, read_columns
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
def test_spellings_of_one_table_give_the_same_columns(tmp_path, text):
    assert read(tmp_path, text) == {"path": ["a b.jpg"], "label": ["cat"]}


def test_cells_keep_their_white_space_if_the_header_has_none(tmp_path):
    assert read(tmp_path, "path,label\n a.jpg,cat \n") == {"path": [" a.jpg"], "label": ["cat "]}


def test_column_names_of_a_parquet_file_are_stripped(tmp_path):
    pq.write_table(pa.table({"path": ["a.jpg"], " label": [7], "split": ["train"]}), tmp_path / "t.parquet")
    columns = read_columns(tmp_path / "t.parquet", ("path", "label"), ("split",))
    assert columns.texts == {"path": ["a.jpg"], "label": ["7"], "split": ["train"]}


def test_a_separator_inside_quotes_is_text(tmp_path):
    assert read(tmp_path, 'path;label\n"a;b.jpg";"x,y"\n') == {"path": ["a;b.jpg"], "label": ["x,y"]}


@pytest.mark.parametrize("text", ["path, label\na.jpg, cat\nb.jpg, dog\n", "path;label\na.jpg;cat\n"])
def test_column_names_are_those_of_the_header(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert column_names(tmp_path / "t.csv", ("path", "label")) == ["path", "label"]
    table = pa.table({" path": ["a.jpg"], "label ": ["cat"]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert column_names(tmp_path / "t.parquet") == ["path", "label"]


def test_line_numbers_are_those_of_an_editor(tmp_path):
    (tmp_path / "t.csv").write_text('path,label\n\n"a\nb.jpg",x\nc.jpg,y\n')
    columns = read_columns(tmp_path / "t.csv", ("path", "label"))
    assert columns.where(1) == "line 5"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_other_encodings_are_named_or_lack_the_columns(tmp_path, encoding):
    with pytest.raises(DataError, match=r"UTF-16|no column path"):
        read(tmp_path, "path,label\na.jpg,x\n", encoding=encoding)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(60), "the workbook of a spreadsheet, or an archive. Save it as CSV in UTF-8"),
        (b"\xd0\xcf\x11\xe0" + bytes(60), "the workbook of a spreadsheet"),
        (b"sep=;\r\npath;label\r\na.jpg;x\r\n", "its first line (sep=...) declares the separator for spreadsheets"),
        (b"\xef\xbb\xbfsep=,\npath,label\na.jpg,x\n", "its first line (sep=...)"),
        (b'path,label\na.jpg,x\n"b.jpg,y\nc.jpg,z\n', "the row that begins in line 3 has quotes that do not match"),
        (
            b"path,label\na.jpg,x\nb.jpg," + b"y" * 140_000 + b"\n",
            "the row that begins in line 3 has a cell of more than 131,072 characters. Shorten it, or leave",
        ),
        (b"path,label," + b"y" * 140_000 + b"\n", "its first line has a name of more than 131,072 characters"),
        (b'path,label\na.jpg,"x"y\n', "the row that begins in line 2 has quotes that do not match"),
    ],
)
def test_tables_damaged_by_spreadsheets_are_explained(tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_columns(tmp_path / "t.csv", ("path", "label"))
    assert words in str(refused.value)
