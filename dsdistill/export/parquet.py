"""A distilled set as one parquet file, whose columns Hugging Face's datasets reads as images and classes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from dsdistill.errors import UserError
from dsdistill.export.training_images import TrainingImages
from dsdistill.files import check_replaceable, expanded, replace


def export_parquet(path: str | Path, out: str | Path) -> list[str]:
    """Write the training images of a set as a parquet file; see `parquet_bytes`.

    Returns:
        sentences on what is left out.

    Raises:
        UserError: as `set_file.read`; the images have neither 1 nor 3 channels; pyarrow is not installed; or
            ``out`` cannot be written.
    """
    out = expanded(out)
    check_replaceable(out, ".parquet")
    images = TrainingImages(expanded(path))
    replace(out, parquet_bytes(images))
    return images.dropped()


def parquet_bytes(images: TrainingImages) -> memoryview:
    """Return a parquet file of training images, a row each.

    Its columns: ``image``, an 8-bit PNG; ``label``; ``pixels``, the same image as float32 [C,H,W] in unit
    space, nothing clipped or rounded; and ``logits``, float32 [K], if the set has soft labels. The schema
    names the features as datasets does, and under the key "dsdistill" the classes and how to preprocess.

    Raises:
        UserError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError('parquet needs pyarrow; run: pip install "dsdistill[hf]"') from error
    plane = pyarrow.list_(pyarrow.list_(pyarrow.float32()))
    types = {
        "image": pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        "label": pyarrow.int64(),
        "pixels": pyarrow.list_(plane),
    }
    examples = list(images)
    columns: dict[str, list[Any]] = {
        "image": [{"bytes": each.png, "path": f"{number:08d}.png"} for number, each in enumerate(examples)],
        "label": [each.label for each in examples],
        "pixels": [each.pixels.tolist() for each in examples],
    }
    if images.dataset.soft_labels is not None:
        types["logits"] = pyarrow.list_(pyarrow.float32())
        columns["logits"] = [each.logits.tolist() for each in examples if each.logits is not None]
    metadata = {
        "huggingface": json.dumps({"info": {"features": features(images)}}),
        "dsdistill": json.dumps(images.description()),
    }
    schema = pyarrow.schema(list(types.items()), metadata)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, schema), buffer)
    return buffer.getbuffer()


def features(images: TrainingImages) -> dict[str, Any]:
    """Return the columns as datasets describes them."""
    shape = list(images.dataset.images.shape[1:])
    columns: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(images.dataset.classes), "_type": "ClassLabel"},
        "pixels": {"shape": shape, "dtype": "float32", "_type": "Array3D"},
    }
    if images.dataset.soft_labels is not None:
        columns["logits"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
    return columns
