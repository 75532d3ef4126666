"""Do the files beside the report hold the rows, the tables and the figures, whole?"""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree

import numpy as np
import pandas as pd
import pytest

from tfprune import study
from tfprune.study.report import svg, tables
from tfprune.study.report.cells import Cells


def _rows():
    """Two strategies and a control, three ratios, three seeds, two detectors."""
    rows = []
    for strategy, control in (("one_shot", False), ("iterative", False), ("random_channels", True)):
        for ratio in (0.0, 0.5, 0.8):
            for seed in range(3):
                key = f"{strategy}{ratio}{seed}"
                row = {"key": key, "dataset": "digits", "model": "mlp", "strategy": strategy, "ratio": ratio}
                row |= {"seed": seed, "control": control, "status": "done", "accuracy": 0.9 - ratio / 10 + seed / 100}
                row |= {"ece": 0.02, "compression_ratio": 1 / (1 - ratio), "latency_ms": 2.0 - ratio - seed / 10}
                row |= {"far/auroc_msp": 0.7, "far/auroc_energy": 0.8, "far/fpr95_msp": 0.6, "far/fpr95_energy": 0.4}
                row |= {"layer_names": ["a", "b"], "layer_channels_after": [3, 4], "layer_channels_before": [6, 8]}
                rows.append(row)
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with rows, from which all tables were written."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows()), encoding="utf-8")
    study.write_tables(folder)
    return folder


def test_files_hold_every_row(folder):
    table = pd.read_csv(folder / "results.csv")
    assert len(table) == len(_rows())
    pytest.importorskip("pyarrow")
    parquet = pd.read_parquet(folder / "results.parquet")
    assert parquet["accuracy"].tolist() == table["accuracy"].tolist()
    assert list(parquet["layer_names"][0]) == ["a", "b"]
    assert not list(folder.glob(".*.part*"))


def test_parquet_holds_columns_of_mixed_kinds_as_text(tmp_path):
    pytest.importorskip("pyarrow")
    rows = [{**_rows()[0], "key": "a", "rounds": 3}, {**_rows()[0], "key": "b", "rounds": "auto", "seed": 1}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    study.write_tables(tmp_path)
    assert pd.read_parquet(tmp_path / "results.parquet")["rounds"].tolist() == ["3", '"auto"']


def test_same_rows_give_the_same_bytes(folder, tmp_path):
    shutil.copy(folder / "results.jsonl", tmp_path)
    for path in study.write_tables(tmp_path):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes()


def _markdown_rows(text, title):
    part = text.split(f"## {title}\n\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()]


def test_markdown_tells_mean_and_sample_deviation(folder):
    head, _, *rows = _markdown_rows((folder / "summary.md").read_text(encoding="utf-8"), "Quality")
    row = next(dict(zip(head, row, strict=True)) for row in rows if row[:2] == ["one-shot", "0.8"])
    values = [0.82, 0.83, 0.84]
    assert row["accuracy"] == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    assert row["seeds"] == "3"


def test_every_detector_and_set_has_its_auroc_and_fpr95(folder):
    text = (folder / "summary.md").read_text(encoding="utf-8")
    for title, value in (("AUROC on far (higher is better)", "0.800"), ("FPR95 on far (lower is better)", "0.400")):
        head, _, *rows = _markdown_rows(text, title)
        assert head == ["strategy", "detector", "ratio 0", "ratio 0.5", "ratio 0.8"]
        assert ["one-shot", "energy", *[f"{value} ± 0.000"] * 3] in rows


def test_a_strategy_without_a_ratio_0_of_its_own_shows_the_dense_network_there():
    rows = [row for row in _rows() if row["ratio"] or row["strategy"] == "random_channels"]
    rows = [
        {**row, "dense_far/auroc_msp": 0.9, "dense_shift/fog/3/accuracy": 0.6, "shift/fog/3/accuracy": 0.5}
        for row in rows
    ]
    auroc, _ = tables.out_of_distribution(Cells(rows))
    shown = {(line[0].text, line[1].text): line[2].text for line in auroc.rows}
    assert shown["one-shot", "msp"] == "0.900 ± 0.000"
    assert shown["random channels", "msp"] == "0.700 ± 0.000"  # it has one
    [accuracy] = tables.corruptions(Cells(rows))
    assert [line[3].text for line in accuracy.rows if line[0].text == "one-shot"] == ["0.600 ± 0.000"]


def test_damaged_inputs_have_their_accuracy_by_corruption_and_severity():
    rows = [{**row, "shift/fog/3/accuracy": 0.5, "shift/fog/10/accuracy": 0.25} for row in _rows()]
    [table] = tables.corruptions(Cells(rows))
    assert [cell.text for cell in table.rows[0][:4]] == ["one-shot", "fog", "3", "0.500 ± 0.000"]
    assert [cell.text for cell in table.rows[1][:4]] == ["one-shot", "fog", "10", "0.250 ± 0.000"]


def test_latex_is_whole_and_escapes_what_latex_reads_otherwise(folder, tmp_path):
    text = (folder / "summary.tex").read_text(encoding="utf-8")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") >= 5
    assert tables.latex_text("50% of a_b & {c} ± 1 \\") == r"50\% of a\_b \& \{c\} $\pm$ 1 \textbackslash{}"
    for block in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end", text, re.DOTALL):
        lines = [line for line in block[1].splitlines() if line.endswith(r"\\")]
        assert {line.replace(r"\&", "").count("&") + 1 for line in lines} == {len(block[0])}
    if not shutil.which("pdflatex"):
        return
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
    (tmp_path / "a.tex").write_text(document, encoding="utf-8")
    subprocess.run(["pdflatex", "-halt-on-error", "a.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_figures_stand_alone(folder):
    files = sorted((folder / "figures").glob("*.svg"))
    assert {"how-far", "accuracy", "ece", "trade-off", "widths", "against-random-channels-accuracy"} <= {
        f.stem for f in files
    }
    for file in files:
        text = file.read_text(encoding="utf-8")
        tree = xml.etree.ElementTree.fromstring(text)
        assert tree.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in text  # plain values: drawing programs know no variables
        named = set(re.findall(r'class="(\w+)', text)) - {"figure", "mark", "legend", "halo"}
        assert named <= svg.PALETTE.keys()


def test_figure_in_a_file_has_its_legend(folder):
    tree = xml.etree.ElementTree.parse(folder / "figures" / "accuracy.svg").getroot()
    words = [text for text in tree.itertext()]
    assert {"one-shot", "iterative", "random channels"} <= set(words)
    lowest = max(float(g.get("transform")[10:-1].split()[1]) for g in tree.findall('.//*[@class="legend"]/*'))
    assert float(tree.get("viewBox").split()[3]) > lowest


def test_folder_that_cannot_be_written_is_named(folder, tmp_path):
    shutil.copy(folder / "results.jsonl", tmp_path)
    (tmp_path / "figures").write_text("in the way", encoding="utf-8")
    with pytest.raises(study.ResultsError, match=r"Could not write .*figures"):
        study.write_tables(tmp_path)
