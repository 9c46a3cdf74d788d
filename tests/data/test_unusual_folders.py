"""Folders that are written in another way than the format says are read as the same graph."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import zipfile
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_folders import CITATIONS, PAIRS, PAPERS, write_good_folder, write_lines

from citeflow import config
from citeflow.config import DataConfig
from citeflow.data.citation_folder import read_folder
from citeflow.data.datasets import download_dataset, read_raw
from citeflow.data.features import Degrees
from citeflow.errors import DataError


@pytest.fixture
def good(tmp_path):
    return write_good_folder(tmp_path / "good")


def replaced(folder, name, content):
    """Replace a table of the folder by another file."""
    (folder / f"{name.partition('.')[0].lower()}.csv").unlink()
    (folder / name).write_bytes(content)


def text(lines, delimiter=","):
    return "\n".join(lines).replace(",", delimiter) + "\n"


WRITTEN = {
    "floats as dates": (
        "papers.csv",
        text(PAPERS).replace("year", "date").replace("5,0", "5.0,0").encode(),
        "",
    ),
    "tabs": ("papers.csv", text(PAPERS, "\t").encode(), "separated by tabs"),
    "tsv": ("citations.tsv", text(CITATIONS, "\t").encode(), "separated by tabs"),
    "upper case": ("Papers.CSV", text(PAPERS).encode(), ""),
    "semicolons and decimal commas": (
        "papers.csv",
        text(PAPERS, ";").replace(".", ",").encode(),
        "separated by semicolons, with decimal commas",
    ),
    "excel": (
        "papers.csv",
        b"sep=;\r\n" + text(PAPERS, ";").encode(),
        "a line before the header skipped",
    ),
    "comments": ("citations.csv", b"# made by X\n" + text(CITATIONS).encode(), "a line before"),
    "UTF-16": ("papers.csv", text(PAPERS, "\t").encode("utf-16"), "in UTF-16"),
    "UTF-16 without a mark": ("papers.csv", text(PAPERS).encode("utf-16-be"), "in UTF-16-BE"),
    "no header": ("citations.csv", text(CITATIONS[1:]).encode(), "without a header line"),
    "bzip2": ("papers.csv.bz2", bz2.compress(text(PAPERS).encode()), ""),
    "xz": ("citations.tsv.xz", lzma.compress(text(CITATIONS, "\t").encode()), "separated by tabs"),
    "gzip under another name": ("papers.csv", gzip.compress(text(PAPERS).encode()), ""),
}


@pytest.mark.parametrize(("name", "content", "remark"), WRITTEN.values(), ids=WRITTEN)
def test_table_in_another_dialect_is_read_and_named(good, name, content, remark):
    expected = read_folder(good, DataConfig())
    replaced(good, name, content)
    graph = read_folder(good, DataConfig())
    assert graph.id_N.tolist() == expected.id_N.tolist()
    assert np.array_equal(graph.edge_2E, expected.edge_2E)
    assert np.array_equal(graph.x_NF, expected.x_NF)
    assert np.array_equal(graph.day_N, expected.day_N)
    assert remark in " ".join(graph.remarks)


def test_line_of_a_fault_counts_what_stands_before_the_header(good):
    lines = text(PAPERS, ";").replace("p2;1992", "p2;199x").splitlines(keepends=True)
    replaced(good, "papers.csv", f"sep=;\n{''.join(lines)}".encode("utf-16"))
    with pytest.raises(DataError, match=r"line 5: column 'year' is not a number: '199x'"):
        read_folder(good, DataConfig())


def test_quotes_escaped_by_backslashes_are_read(good):
    titles = [r'"On \"small\" worlds, 3"', '"plain"'] * 4
    rows = [f"p{row},{title}" for row, title in enumerate(titles)]
    write_lines(good / "papers.csv", ["id,title", *rows])
    graph = read_folder(good, DataConfig())
    assert graph.title_N[:2].tolist() == ['On "small" worlds, 3', "plain"]
    assert "backslashes" in graph.remarks[0]
    # LaTeX in plain CSV is no escaped quote.
    rows = [f'p{row},"Schr\\""odinger, again"' for row in range(8)]
    write_lines(good / "papers.csv", ["id,title", *rows])
    assert read_folder(good, DataConfig()).title_N[0] == 'Schr\\"odinger, again'


def test_folder_of_parquet_parts_is_one_table(good):
    shutil.rmtree(good)
    for stem, columns in {
        "papers": {"id": np.arange(8.0), "year": np.arange(1990, 1998)},
        "citations": {"citing": [a for a, _ in PAIRS], "cited": [b for _, b in PAIRS]},
    }.items():
        folder = good / f"{stem}.parquet"
        folder.mkdir(parents=True)
        (folder / "_SUCCESS").touch()
        table = pa.table(columns)
        pq.write_table(table.slice(0, 3), folder / "part-00000.snappy.parquet")
        pq.write_table(table.slice(3), folder / "part-00001.snappy.parquet")
    graph = read_folder(good, DataConfig())
    assert graph.id_N.tolist() == list(range(8))
    assert graph.edge_2E.T.tolist() == [list(pair) for pair in PAIRS]
    pq.write_table(pa.table({"id": [9.0, 9.0], "year": [1, 2]}), good / "papers.parquet/z.parquet")
    with pytest.raises(DataError, match=r"z\.parquet, row 2: id appears a second time"):
        read_folder(good, DataConfig())


def test_ids_are_compared_in_nfc_and_whole_floats_are_numbers(good):
    write_lines(good / "papers.csv", ["id", *(f"Mu\N{COMBINING DIAERESIS}ller{n}" for n in "012")])
    write_lines(good / "citations.csv", ["citing,cited", "Müller1,Müller0"])
    assert read_folder(good, DataConfig()).edge_2E.tolist() == [[1], [0]]
    write_lines(good / "papers.csv", ["id", "10.0", "20.0", "30.0"])
    write_lines(good / "citations.csv", ["citing,cited", "20,10.0"])
    graph = read_folder(good, DataConfig())
    assert graph.id_N.tolist() == [10, 20, 30]
    assert graph.edge_2E.tolist() == [[1], [0]]
    assert "whole numbers" in graph.remarks[0]


DATES = ["publication_year", "pub_year", "date_published", "publicationDate", "Year published"]


@pytest.mark.parametrize("name", DATES)
def test_year_under_another_name_is_the_date_and_counts_are_no_features(good, name):
    counts = "cited_by_count,citationCount,n_citation,in-degree,w"
    rows = [f"p{row},{1990 + row},{row % 3},{row % 2},7,5,{row}" for row in range(8)]
    write_lines(good / "papers.csv", [f"id,{name},{counts}", *rows])
    graph = read_folder(good, DataConfig())
    assert graph.day_N.tolist() == read_folder_days(range(1990, 1998))
    assert graph.x_NF.tolist() == [[row] for row in range(8)]
    assert len(graph.remarks) == 1
    for words in (f"the date is '{name}'", "counts of citations: 'cited_by_count'", "are 'w'"):
        assert words in graph.remarks[0]


def read_folder_days(years):
    return [
        int(np.datetime64(f"{year}-01-01").astype("datetime64[D]").astype(int)) for year in years
    ]


def test_column_that_follows_the_citations_is_no_feature(good):
    rng = np.random.default_rng(0)
    edge_2E = np.sort(rng.integers(0, 60, (2, 500)), axis=0)[::-1]
    degree_N = np.bincount(edge_2E[1], minlength=60)
    rows = [f"{row},{np.log1p(degree_N[row])},{row % 7}" for row in range(60)]
    write_lines(good / "papers.csv", ["id,impact,w", *rows])
    write_lines(good / "citations.csv", ["citing,cited", *(f"{a},{b}" for a, b in edge_2E.T)])
    x_NF = np.stack([rng.random(60), degree_N + rng.random(60) / 10], axis=1)
    np.save(good / "features.npy", x_NF.astype(np.float32))
    graph = read_folder(good, DataConfig())
    assert graph.x_NF.shape == (60, 2)
    assert "'impact'" in graph.remarks[0]
    assert "features.npy, column 2" in graph.remarks[0]
    assert not Degrees(edge_2E, 60).are_followed_by(np.arange(60) % 7)


def test_feature_counts_whatever_its_unit(good):
    seconds = [f"p{row},{1.6e9 + row % 2}" for row in range(8)]
    write_lines(good / "papers.csv", ["id,seconds", *seconds])
    assert read_folder(good, DataConfig()).x_NF.tolist() == [[-1], [1]] * 4


def test_lists_of_one_length_are_features(good):
    rows = [f'p{row},"[{row}, 0.5]","[{", ".join(["1"] * (row + 1))}]"' for row in range(8)]
    write_lines(good / "papers.csv", ["id,embedding,authors", *rows])
    graph = read_folder(good, DataConfig())
    assert graph.x_NF.tolist() == [[row, 0.5] for row in range(8)]
    assert "lists of 1 to 8 numbers: 'authors'" in graph.remarks[0]


@pytest.mark.parametrize("how", ["drop", "undated"])
def test_papers_without_a_date_are_left_out_or_kept(good, how):
    lines = ["id,year", "p0,1990", "p1,", *(f"p{row},{1990.0 + row}" for row in range(2, 8))]
    write_lines(good / "papers.csv", lines)
    graph = read_folder(good, DataConfig(without_date=how))
    assert "1 of 8 papers have no date" in graph.remarks[-1]
    assert "'p1'" in graph.remarks[-1]
    if how == "undated":
        assert graph.is_dated_N.tolist() == [True, False, *[True] * 6]
        assert graph.edge_2E.shape[1] == len(PAIRS)
    else:
        assert "p1" not in graph.id_N
        kept = [(a - (a > 1), b - (b > 1)) for a, b in PAIRS if 1 not in (a, b)]
        assert graph.edge_2E.T.tolist() == [list(pair) for pair in kept]
        assert graph.counts["without_date"] == len(PAIRS) - len(kept)


@pytest.mark.parametrize(
    "kind", [pa.decimal128(21, 2), pa.int16(), pa.float32(), pa.string(), pa.date32()]
)
def test_years_of_any_type_may_be_missing(good, kind):
    (good / "papers.csv").unlink()
    years = pa.array([1999, None, *[2000] * 6])
    if pa.types.is_date(kind):
        years = pa.array([each and date(each, 1, 1) for each in years.to_pylist()])
    years = years.cast(kind, safe=False)
    pq.write_table(
        pa.table({"id": [f"p{n}" for n in range(8)], "year": years}), good / "papers.parquet"
    )
    graph = read_folder(good, DataConfig(without_date="undated"))
    assert graph.is_dated_N.tolist() == [True, False, *[True] * 6]
    assert graph.day_N[[0, 1]].tolist() == read_folder_days([1999, 2000])


@pytest.mark.parametrize("dates", [["9999"] * 2, ["1900-01-01"] * 2, ["1970-01-01"] * 2])
def test_dates_that_look_like_placeholders_are_named(good, dates):
    rows = [f"p{row},{2000 + row}-05-05" for row in range(6)]
    write_lines(
        good / "papers.csv", ["id,date", *rows, *(f"p{6 + i},{d}" for i, d in enumerate(dates))]
    )
    (remark,) = read_folder(good, DataConfig()).remarks
    assert "WARNING: 2 of 8 papers" in remark
    assert "data.without_date" in remark
    graph = read_folder(good, DataConfig(without_date="drop"))
    assert graph.id_N.tolist() == [f"p{row}" for row in range(6)]
    assert "taken for none" in graph.remarks[0]
    write_lines(
        good / "papers.csv", ["id,year", *(f"p{row},{1967 + row // 2}" for row in range(8))]
    )
    assert read_folder(good, DataConfig()).remarks == ()


def test_one_instant_is_one_day_in_csv_and_parquet(good):
    times = ["2001-02-03T23:30:00-05:00", "2001-02-03T23:30:00Z", "2001-02-03 23:30:00"]
    rows = [f"p{row},{times[row % 3]}" for row in range(8)]
    write_lines(good / "papers.csv", ["id,date", *rows])
    days = read_folder(good, DataConfig()).day_N
    assert days[:3].tolist() == [11357, 11356, 11356]
    instants = pa.array(times[:1] * 8, pa.string()).cast(pa.timestamp("us", "UTC"))
    for zone in ("UTC", "America/New_York"):
        table = {
            "id": [f"p{row}" for row in range(8)],
            "date": instants.cast(pa.timestamp("us", zone)),
        }
        (good / "papers.csv").unlink(missing_ok=True)
        pq.write_table(pa.table(table), good / "papers.parquet")
        assert read_folder(good, DataConfig()).day_N.tolist() == [11357] * 8


@pytest.mark.parametrize("unit", [1, 1000])
def test_seconds_since_1970_are_a_date(good, unit):
    rows = [f"p{row},{(row * 86_400 + 1_600_000_000) * unit}" for row in range(8)]
    write_lines(good / "papers.csv", ["id,published_at", *rows])
    assert read_folder(good, DataConfig()).day_N.tolist() == list(range(18518, 18526))


def test_dropped_and_ignored_is_shown(good):
    with (good / "citations.csv").open("a") as file:
        file.write("p1,x1\np1,x2\np1,x3\np1,x4\n")
    lines = [f"{line},1" for line in (good / "citations.csv").read_text().splitlines()]
    write_lines(good / "citations.csv", ["citing,cited,weight", *lines[1:]])
    remarks = read_folder(good, DataConfig(unknown="drop")).remarks
    assert "columns ignored: 'weight'" in remarks[0]
    assert "4 of 17 citations dropped" in remarks[-1]
    assert "'x1' (line 15), 'x2' (line 16), 'x3' (line 17) and 1 more" in remarks[-1]


def pack_tar(path, folder, mode, inside):
    with tarfile.open(path, mode) as file:
        file.add(folder, inside)


def pack_on_windows(path, folder):
    with zipfile.ZipFile(path, "w") as file:
        for each in folder.iterdir():
            info = zipfile.ZipInfo("data/x")
            info.filename = f"data\\{each.name}"
            file.writestr(info, each.read_bytes())


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zip"])
def test_archive_is_read_however_it_is_packed(good, tmp_path, suffix):
    path = tmp_path / f"a.{suffix if suffix == 'zip' else f'tar.{suffix}'}"
    if suffix == "zip":
        pack_on_windows(path, good)
    else:
        pack_tar(path, good, f"w:{suffix}", "export/2024/data")
    settings = config.load()
    raw = download_dataset(str(path), data_root=tmp_path / "root", config=settings)
    assert read_raw(raw, settings.data).edge_2E.shape == (2, len(PAIRS))


def test_messages_name_the_files_of_the_user(good, tmp_path):
    settings = config.load()
    with (good / "papers.csv").open("a") as file:
        file.write("p0,1999,1\n")
    copy = shutil.copytree(good, tmp_path / "copy")
    for folder in (good, copy):
        raw = download_dataset(str(folder), data_root=tmp_path / "root", config=settings)
        with pytest.raises(DataError, match=rf"{folder}/papers\.csv, line 10") as caught:
            read_raw(raw, settings.data)
        assert "raw/" not in str(caught.value)


KINDS = {
    "a 7z archive": b"7z\xbc\xaf\x27\x1c",
    "a Python pickle": b"\x80\x04\x95",
    "GML": b"Creator me\ngraph [\n  directed 1\n]\n",
    "a MatrixMarket matrix": b"%%MatrixMarket matrix coordinate\n2 2 1\n1 2 1\n",
    "a list of RIS": b"TY  - JOUR\n",
    "an export of the Web of Science": b"FN Clarivate\nVR 1.0\n",
    "no dataset that citeflow knows: it begins with": b"hello\n",
    "no dataset that citeflow knows: it is empty": b"",
    "cannot be read": b"\x1f\x8b\x08",
}


@pytest.mark.parametrize(("kind", "content"), KINDS.items(), ids=KINDS)
def test_file_that_is_not_read_is_named_with_the_way_out(tmp_path, kind, content):
    path = tmp_path / "file.dat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}.*{kind}") as caught:
        download_dataset(str(path), data_root=tmp_path / "root", config=config.load())
    assert caught.value.hint


def test_excel_workbook_is_no_archive_without_datasets(tmp_path):
    with zipfile.ZipFile(tmp_path / "mine.xlsx", "w") as file:
        file.writestr("[Content_Types].xml", "<x/>")
    with pytest.raises(DataError, match="of an office program") as caught:
        download_dataset(
            str(tmp_path / "mine.xlsx"), data_root=tmp_path / "root", config=config.load()
        )
    assert "CSV" in caught.value.hint


def test_table_instead_of_its_folder_is_named(good, tmp_path):
    with pytest.raises(DataError) as caught:
        download_dataset(
            str(good / "papers.csv"), data_root=tmp_path / "root", config=config.load()
        )
    assert caught.value.hint == f"name its folder: {good}"


def test_folder_of_another_kind_says_which(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/papers.7z").write_bytes(KINDS["a 7z archive"])
    with pytest.raises(DataError, match="is a 7z archive: not read"):
        download_dataset(str(tmp_path / "mine"), data_root=tmp_path / "root", config=config.load())
