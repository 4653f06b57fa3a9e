"""What an HDF5 file claims to hold: checked before any of it is read, from headers alone.

A few kilobytes can claim terabytes, lead to other files, or turn in circles. Whatever is refused here is a
`ValueError`, which a reader reports as damage; a content that is merely too large for this machine is not.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Collection, Iterator
from typing import TypeAlias

import h5py

from dsdistill.files import INFLATION, is_text
from dsdistill.runtime.device import check_memory

Node: TypeAlias = h5py.Group | h5py.Dataset

NODES = 1 << 16
"""Groups, data sets and attributes of a file, together."""
LONGEST = 1 << 24
"""Bytes of an attribute, or of an evaluation."""
_DEPTH = 4
_CHUNKS = 1 << 16
_SLACK = 1 << 20  # bytes that a file may claim beyond what it inflates to, such as those of headers
_COPIES = 6  # bytes that become float32 are in memory as such, converted, and compared
_COPIES_OF_CODES = 40  # a byte holds up to eight pixels, which become float32
_COPIES_OF_VIEWS = 3  # which stay as they are stored: read, hashed, and looked through
_INFLATED = 1 << 28  # bytes that a chunk may become whatever it claims
_FILTERS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)


def check_structure(file: h5py.File, size: int, sliced: Collection[str] = ()) -> None:
    """Check that a file's nodes are of kinds that dsdistill writes, are all there, and fit in memory.

    Args:
        size: bytes of the file.
        sliced: the data sets that are read by the slice, and are not compressed.

    Raises:
        ValueError: it has more nodes, deeper or larger ones than any such file has; or a node that is a link,
            lies outside the file, is of an unknown type, or claims what is not there.
        UserError: the content does not fit into the memory that is free.
    """
    claimed = written = needed = 0
    for path, node in nodes(file):
        written += _attribute_bytes(path, node)
        if isinstance(node, h5py.Dataset):
            _check_kind(path, node)
            bytes_read = _check_complete(path, node, size)
            claimed += 0 if path in sliced else bytes_read
            needed += 0 if path in sliced else _copies(path) * bytes_read
            if path in sliced and _filters(node) not in ([], [h5py.h5z.FILTER_FLETCHER32]):
                raise ValueError(f"/{path} is compressed")
            if path.startswith("results/") and bytes_read > LONGEST:
                raise ValueError(f"/{path} is larger than any evaluation")
    if claimed + written > INFLATION * size + _SLACK:
        raise ValueError(_hollow("it", claimed + written))
    check_memory("its content takes", needed)


def _copies(path: str) -> int:
    """Return how many bytes reading takes for each byte of a data set, at most."""
    if path.startswith("views/"):
        return _COPIES_OF_VIEWS
    return _COPIES_OF_CODES if path == "pixels/codes" else _COPIES


def nodes(file: h5py.File) -> Iterator[tuple[str, Node]]:
    """Yield every group and data set with its path; the root's is empty.

    Raises:
        ValueError: there are too many, they lie too deep, or one is a link or has two names.
    """
    left, seen = NODES, set()
    waiting: list[tuple[str, h5py.Group, bytes, int]] = []
    entry: tuple[str, Node, int] | None = ("", file["/"], 0)
    while entry:
        path, node, depth = entry
        address = h5py.h5o.get_info(node.id).addr
        left -= 1 + h5py.h5a.get_num_attrs(node.id)
        members = node.id.get_num_objs() if isinstance(node, h5py.Group) else 0
        if address in seen or depth > _DEPTH or members > left - len(waiting):
            raise ValueError("it has more nodes than any such file")
        seen.add(address)
        yield path, node
        waiting += [(path, node, name, depth + 1) for name in (node.id if members else ())]
        entry = _opened(*waiting.pop()) if waiting else None  # one at a time: an open node takes memory


def _opened(path: str, group: h5py.Group, name: bytes, depth: int) -> tuple[str, Node, int]:
    """Return the path of a group's member, the member, which lies in this very file, and its depth."""
    full = f"{path}/{name.decode()}".removeprefix("/")
    if group.id.links.get_info(name).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"/{full} is a link, so it lies outside the file or under another name")
    member = group[name]
    if not isinstance(member, h5py.Group | h5py.Dataset):
        raise ValueError(f"/{full} is neither a group nor a data set")
    return full, member, depth


def _attribute_bytes(path: str, node: Node) -> int:
    """Return the bytes of a node's attributes."""
    total = 0
    for name in node.attrs:
        size = node.attrs.get_id(name).get_storage_size()
        if size > LONGEST or not is_text(name):
            raise ValueError(f"an attribute of /{path} is too long, or its name is no text")
        total += size
    return total


def _check_kind(path: str, node: h5py.Dataset) -> None:
    """Check that a data set holds plain numbers, or text of fixed length, in this very file."""
    dtype = node.dtype
    plain = dtype.kind in "fiuS" and dtype.subdtype is None and not dtype.hasobject
    if not plain or node.shape is None or node.external or node.is_virtual:
        raise ValueError(f"/{path} has an unknown type or lies outside the file")
    rest = iter(_FILTERS)
    if not all(each in rest for each in _filters(node)):  # any of them once, in this order
        raise ValueError(f"/{path} is stored in an unknown way")


def _filters(node: h5py.Dataset) -> list[int]:
    properties = node.id.get_create_plist()
    return [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]


def _check_complete(path: str, node: h5py.Dataset, size: int) -> int:
    """Check that all of a data set is stored; return the bytes that it is read into."""
    bytes_read, stored = math.prod(node.shape) * node.dtype.itemsize, node.id.get_storage_size()
    if stored > size:
        raise ValueError(f"/{path} claims more than the file holds")
    if node.chunks is None:
        if bytes_read > stored + _SLACK:
            raise ValueError(_hollow(f"/{path}", bytes_read))
        if bytes_read > stored:
            raise ValueError(f"/{path} is incomplete")
        return bytes_read
    counts = [-(-length // side) for length, side in zip(node.shape, node.chunks, strict=True)]
    bytes_read = max(bytes_read, math.prod(counts) * math.prod(node.chunks) * node.dtype.itemsize)
    if bytes_read > INFLATION * stored + _SLACK:
        raise ValueError(_hollow(f"/{path}", bytes_read))
    if node.id.get_num_chunks() != math.prod(counts):
        raise ValueError(f"/{path} is incomplete")
    if h5py.h5z.FILTER_DEFLATE in _filters(node):
        _check_chunks(path, node, counts)
    return bytes_read


def _check_chunks(path: str, node: h5py.Dataset, counts: list[int]) -> None:
    """Check that no chunk becomes larger than it claims: HDF5 itself notices when it is too late."""
    if math.prod(counts) > _CHUNKS:
        raise ValueError(f"/{path} has more pieces than any such data set")
    largest = math.prod(node.chunks) * node.dtype.itemsize
    deflate = 1 << _filters(node).index(h5py.h5z.FILTER_DEFLATE)
    for place in itertools.product(*map(range, counts)):
        offset = tuple(index * side for index, side in zip(place, node.chunks, strict=True))
        chunk = node.id.get_chunk_info_by_coord(offset)
        if chunk.filter_mask & deflate or INFLATION * (chunk.size or 0) <= max(_INFLATED, largest):
            continue
        inflater = zlib.decompressobj()
        inflater.decompress(node.id.read_direct_chunk(offset)[1], largest + 8)
        if not inflater.eof:
            raise ValueError(f"/{path} holds a chunk that is larger than it claims")


def _hollow(what: str, claimed: int) -> str:
    return f"{what} claims {claimed / 1e9:.3g} GB, of which next to nothing is there"
