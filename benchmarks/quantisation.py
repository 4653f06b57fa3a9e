"""What smaller pixels cost in accuracy, set by set.

    python benchmarks/quantisation.py artifacts/fashion-mnist-*.h5
    python benchmarks/quantisation.py results/fashion-mnist-quick/fashion-mnist/*/set.h5

Each set is evaluated under its own protocol (or ``--protocol``) as it is, in float16, clipped to [0, 1] in
float32, and in 8 bits, which clip and round. A PNG folder holds the same pixels as 8 bits do. Students are
the same for all forms of a set: they start from the same weights and see the same draws, so that each differs
from its twin on the set as it is by the pixels alone. Written to artifacts/quantisation.json and .md.
Finished evaluations stay in runs/quantised/ and are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dsdistill
from benchmarks.common import ARTIFACTS, RUNS, date_range, spread
from dsdistill.export.png import export_png
from dsdistill.runtime.device import quiet_allocator
from dsdistill.storage import set_file
from dsdistill.storage.set_description import describe

HEAD: tuple[str, ...] = ("method", "IPC", "protocol, epochs", "outside [0, 1]", "form", "images kB")
HEAD += ("largest error", "accuracy %", "lost")
FORMS = ("float32", "float16", "clipped", "uint8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--protocol")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    quiet_allocator()
    folder = RUNS / "quantised"
    folder.mkdir(parents=True, exist_ok=True)
    records = [measured(file, folder, args.protocol, args.epochs, args.repeats) for file in args.files]
    rows = sorted((row for each in records for row in each), key=lambda row: (row["method"], row["ipc"]))
    command = f"python benchmarks/quantisation.py {' '.join(sys.argv[1:])}"
    (ARTIFACTS / "quantisation.json").write_text(
        json.dumps({"command": command, "rows": rows}, indent=1) + "\n"
    )
    text = table(command, rows)
    (ARTIFACTS / "quantisation.md").write_text(text)
    print(text)


def measured(
    file: Path, folder: Path, protocol: str | None, epochs: int, repeats: int
) -> list[dict[str, Any]]:
    """Evaluate a set in every form, and return a record of each."""
    distilled = set_file.read(file)
    clipped = dataclasses.replace(distilled, images=distilled.images.clamp(0, 1))
    name = f"{distilled.attributes['method']}-ipc{distilled.attributes['ipc']}"
    rows: list[dict[str, Any]] = []
    paths, errors = {}, {}
    content = set_file.digest(file)  # not of evaluations, which may be added
    for form in FORMS:
        settings = f"{content} {form} {protocol} {epochs} {repeats}"
        path = folder / f"{name}-{form}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}.h5"
        stored = clipped if form == "clipped" else distilled
        error = set_file.write(path, stored, "float32" if form == "clipped" else form)  # type: ignore[arg-type]
        paths[form], errors[form] = path, max(error, float((stored.images - distilled.images).abs().max()))
    while outdated := unlike([path.with_suffix(".json") for path in paths.values()]):
        print(f"evaluating {outdated[0].stem}", flush=True)
        dsdistill.evaluate(
            outdated[0].with_suffix(".h5"),
            protocol=protocol,
            epochs=epochs,
            repeats=repeats,
            baselines="",
            save=False,
            json=outdated[0],
        )
    for form, path in paths.items():
        report = json.loads(path.with_suffix(".json").read_text())
        values = report["rows"][0]["values"]
        whole = rows[0]["values"] if rows else values
        rows.append(
            {
                "method": str(distilled.attributes["method"]),
                "ipc": distilled.attributes["ipc"],
                "form": form,
                "values": values,
                "lost": [before - after for before, after in zip(whole, values, strict=True)],
                "image_bytes": describe(path).image_bytes,
                "png_bytes": png_bytes(path) if form == "uint8" else None,
                "outside": float((distilled.images != clipped.images).double().mean()),
                "largest_error": errors[form],
                **{key: report.get(key) for key in ("protocol", "epochs", "conditions", "machine", "date")},
            }
        )
    return rows


def unlike(paths: list[Path]) -> list[Path]:
    """Return the reports that are missing, or have another code, protocol or data than the latest."""
    reports = {path: json.loads(path.read_text()) for path in paths if path.exists()}
    nothing: dict[str, Any] = {}
    latest = max(reports.values(), key=lambda report: str(report["date"]), default=nothing).get("conditions")
    return [path for path in paths if path not in reports or reports[path].get("conditions") != latest]


def png_bytes(path: Path) -> int:
    """Return the bytes of a set's images as PNG files."""
    with tempfile.TemporaryDirectory() as folder:
        export_png(path, Path(folder) / "png")
        return sum(file.stat().st_size for file in Path(folder).rglob("*.png"))


def table(command: str, rows: list[dict[str, Any]]) -> str:
    """Return the records in Markdown."""
    machines = " and ".join(sorted({row["machine"] for row in rows}))
    dates = date_range(row["date"] for row in rows)
    lines = [
        f"Written by `{command}` on {machines}, {dates}. Accuracy in percent, last epoch",
        "on the test set, mean ± sample standard deviation over students; lost: of each student against its",
        "twin on the set as it is, in points. PNG has the pixels of uint8.",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---" * len(HEAD) + "|",
    ]
    for row in rows:
        size = f"{row['image_bytes'] / 1e3:.1f}"
        size += f" (PNG {row['png_bytes'] / 1e3:.1f})" if row["png_bytes"] else ""
        lost = "" if row["form"] == FORMS[0] else spread(row["lost"], "+")
        cells = [row["method"], row["ipc"], f"{row['protocol']}, {row['epochs']}", f"{row['outside']:.1%}"]
        cells += [row["form"], size, f"{row['largest_error']:.2g}", spread(row["values"]), lost]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
