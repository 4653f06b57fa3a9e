"""Sentences below tables: whose images beat random images with the same labels; and no mixed regimes."""

from __future__ import annotations

import csv
import dataclasses
import io

from dsdistill.bench import tables
from dsdistill.bench.lines import gains
from dsdistill.bench.lines import lines as joined_lines
from dsdistill.bench.results import CellResult
from dsdistill.bench.worth import sentences
from dsdistill.config.regimes import Regime
from dsdistill.evaluation.rows import Row
from dsdistill.report import conclusion, families, figures, page
from tests.helpers.bench import result, row


def of(regime: Regime, name: str, values: list[float]) -> Row:
    return dataclasses.replace(row(name, values), regime=regime)


def cell(
    method: str, regime: Regime, own: float, labelled: float | None = None, **changes: object
) -> CellResult:
    """Return a cell with the accuracy of its set, and that of random images with the same labels."""
    rows = [of(regime, "distilled", [own - 1, own + 1])]
    if labelled is not None:
        rows.append(of(regime, "random+labels", [labelled - 1, labelled + 1]))
    rows.append(row("random", [30.0, 32.0]))
    return result(method, rows=rows, **changes)


WORTH = [
    cell("near", "SL+KD", 60.5, 60.0),
    cell("far", "SL+KD", 70.0, 60.0),
    cell("worse", "SL+KD", 50.0, 60.0),
    cell("unknown", "SL+KD", 90.0),
    cell("stored", "SL", 55.0, 50.0),
    cell("dm", "HL", 40.0),
]


def test_sentences_tell_whose_images_beat_random_ones_with_the_same_labels() -> None:
    hard, stored, online = sentences(joined_lines(WORTH))
    place, same = "cifar10, 1 per class, student convnet, labels", "random images with the same labels"
    assert online == (
        f"{place} SL+KD: the images of far (70.00 ± 1.41 against 60.00 ± 1.41) beat {same}; those of near "
        "(60.50 ± 1.41 against 60.00 ± 1.41), worse (50.00 ± 1.41 against 60.00 ± 1.41) do not; no random "
        "images with the same labels were evaluated for unknown."
    )
    assert stored == f"{place} SL: the images of stored (55.00 ± 1.41 against 50.00 ± 1.41) beat {same}."
    assert hard == f"{place} HL: the images of dm (40.00 ± 1.41 against 31.00 ± 1.41) beat {same}."


def test_sentences_stand_below_the_table_and_on_the_page() -> None:
    text, html = tables.markdown(WORTH), page.html(WORTH)
    for sentence in sentences(joined_lines(WORTH)):
        assert f"- {sentence}" in text
        assert sentence.partition(" (")[0] in html


def test_one_student_says_nothing_of_images() -> None:
    rows = [of("SL", "distilled", [60.0]), of("SL", "random+labels", [50.0])]
    (said,) = sentences(joined_lines([result("dm", rows=rows)]))
    assert said.endswith("labels SL: one student leaves it open for dm (60.00 against 50.00).")


def test_random_images_of_another_method_are_none_with_the_same_labels() -> None:
    """Views are those of a set, so its control is its own."""
    (said,) = sentences(joined_lines([cell("one", "SL", 60.0), cell("two", "SL", 61.0, 50.0)]))
    assert "the images of two (61.00" in said
    assert said.endswith("no random images with the same labels were evaluated for one.")


def test_the_better_of_random_images_for_as_many_epochs_and_as_many_steps_counts() -> None:
    def said(of_steps: float, regime: Regime) -> str:
        labels = "" if regime == "HL" else "+labels"
        rows = [of(regime, "distilled", [69.0, 71.0]), of(regime, f"random{labels}", [59.0, 61.0])]
        control = of(regime, f"random@steps{labels}", [of_steps - 1, of_steps + 1])
        rows.append(dataclasses.replace(control, epochs=4000))
        (finding,) = conclusion.findings(joined_lines([result("idc", rows=rows)]))
        (sentence,) = sentences(joined_lines([result("idc", rows=rows)]))
        return f"{sentence} {finding.text}"

    regimes: tuple[Regime, ...] = ("HL", "SL", "SL+KD")
    for regime in regimes:
        better, worse = said(72.0, regime), said(55.0, regime)
        assert "idc (70.00 ± 1.41 against 72.00 ± 1.41 in as many steps) do not beat" in better
        assert "It is behind as many random real images" in better
        assert "(72.00 ± 1.41 %, trained for as many steps)" in better
        assert "idc (70.00 ± 1.41 against 60.00 ± 1.41) beat" in worse
        assert "steps" not in worse


def test_coresets_for_as_many_steps_count_as_coresets() -> None:
    def coreset(own: float) -> str:
        rows = [row("distilled", [69.0, 71.0])]
        rows += [row("random", [59.0, 61.0]), row("random@steps", [98.0, 99.0]), row("herding", [64.0, 66.0])]
        rows.append(dataclasses.replace(row("herding@steps", [own - 1, own + 1]), epochs=4000))
        (finding,) = conclusion.findings(joined_lines([result("idc", rows=rows)]))
        return finding.text

    assert "chosen by herding@steps are ahead of it (80.00 ± 1.41 %)" in coreset(80.0)
    assert "chosen by" not in coreset(50.0)


def test_findings_are_of_one_regime() -> None:
    found = conclusion.findings(joined_lines(WORTH))
    place = "cifar10, 1 per class, labels"
    assert [each.title for each in found] == [f"{place} HL", f"{place} SL", f"{place} SL+KD"]
    texts = [each.text for each in found]
    assert texts[0].startswith("dm, the only method, reaches 40.00 ± 1.41 %.")
    assert "It beats as many random real images with the same labels (50.00 ± 1.41 %)." in texts[1]
    assert texts[2].startswith("unknown is the best of 4 with 90.00 ± 1.41 %, ahead of far")
    assert "It is not compared with random real images with the same labels." in texts[2]
    assert texts[2].endswith("1 of 3 beat as many random real images with the same labels (60.00 ± 1.41 %).")
    overall = "distilled images beat as many random real images with the same labels in 3 of 5 comparisons."
    assert conclusion.overall(found).casefold() == overall.casefold()


def test_tables_and_charts_rank_one_regime_at_a_time() -> None:
    lines = joined_lines(WORTH)
    ranked = families.families(lines)
    assert [each.regime for each in ranked] == ["HL", "SL", "SL+KD"]
    assert all({line.regime for line in each.lines} == {each.regime} for each in ranked)
    assert [name for name, _ in families.titled(ranked)] == [
        f"1 per class, labels {each.regime}" for each in ranked
    ]
    order = [line.regime for line in lines]
    assert order == sorted(order, key=["HL", "SL", "SL+KD"].index)
    slow = [dataclasses.replace(each, seconds=50.0 * 9**at, curve=[]) for at, each in enumerate(WORTH)]
    drawn = figures.over_time(slow, joined_lines(slow))
    assert [figure.name for figure in drawn] == ["seconds-tried-cifar10-ipc1-sl+kd"]
    assert [panel.name for panel in drawn[0].panels] == ["unknown", "far", "near", "worse"]


def test_gains_are_within_a_regime() -> None:
    settings = {"distil": {}, "evaluate": {"gain_over": "dm"}}
    assert gains([cell("own", "SL", 60.0, settings=settings), cell("dm", "HL", 40.0)]) == []
    (gain,) = gains([cell("own", "SL", 60.0, settings=settings), cell("dm", "SL", 40.0)])
    assert gain.points == (20.0,)
    assert "labels SL" in str(gain)


def test_labels_cost_seconds_and_bytes_where_students_learn_from_them() -> None:
    costs = {"seconds": 60.0, "teacher_seconds": 120.0, "label_seconds": 180.0}
    stored, online, hard = (cell("dm", regime, 60.0, 50.0, **costs) for regime in ("SL", "SL+KD", "HL"))
    spent = [joined_lines([each])[-2].spent for each in (online,)]
    assert spent == ["1 min + 2 min"]
    (line,) = [line for line in joined_lines([stored]) if line.set == "distilled"]
    assert line.spent == "1 min + 2 min + labels 3 min"
    assert (line.label_bytes, line.bytes) == (100.0, 10_000.0)
    assert next(line for line in joined_lines([hard]) if line.set == "distilled").spent == "1 min"
    assert "| 1 min + 2 min + labels 3 min | 100 | 10.0 | 0.1 |" in tables.markdown([stored])
    assert "of labels kB" not in tables.markdown([hard])
    rows = list(csv.DictReader(io.StringIO(tables.csv_text([stored, hard]))))
    labels = [(each["label_bytes"], each["label_seconds"]) for each in rows]
    assert labels[:3] == [("100.0", "180.00"), ("100.0", ""), ("", "")]  # its own, with its labels, random
    assert labels[3] == ("", "")
    assert "labels in 3 min" in page.html([stored])


def test_hard_labels_of_a_labelled_set_take_the_bytes_of_images() -> None:
    rows = [of("SL", "distilled", [60.0]), of("HL", "distilled-hard", [50.0])]
    sizes = {line.set: line.bytes for line in joined_lines([result("dm", rows=rows)])}
    assert sizes == {"distilled": 10_000.0, "distilled-hard": 9_900.0}


def test_a_teacher_is_no_student() -> None:
    teacher = dataclasses.replace(row("teacher", [90.0]), network="resnet18", images=0, decoded=0)
    rows = [of("SL", "distilled", [60.0, 61.0]), of("SL", "distilled", [50.0, 51.0]), teacher]
    rows[1] = dataclasses.replace(rows[1], network="mlp")
    lines = joined_lines([result("dm", rows=rows)])
    assert [each.network for each in families.families(lines)] == ["convnet", "mlp"]
    heat_map = page.html([result("dm", rows=rows)]).partition('id="networks"')[2].partition("</table>")[0]
    assert "mlp" in heat_map
    assert "resnet18" not in heat_map


def test_seeds_of_labels_are_one_line_and_other_labels_another() -> None:
    def labelled(seed: int, views: int) -> CellResult:
        settings = {"distil": {}, "evaluate": {}, "label": {"seed": seed, "views": views}}
        return cell("dm", "SL", 60.0, seed=seed, settings=settings, suite="one", cell=f"{seed}-{views}")

    own = [
        line for line in joined_lines([labelled(0, 3), labelled(1, 3), labelled(2, 4)]) if not line.baseline
    ]
    assert [len(line.values) for line in own] == [4, 2]
