"""Stanford Online Products (Oh Song et al., CVPR 2016), a data set for metric learning with disjoint classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltr.data.source import ImageFiles, Source
from ltr.data.sources.archives import Archive, fetch
from ltr.data.sources.checks import (
    check_image_files,
    dataset_folder,
    read_table,
    require,
    to_number,
    warn_if_partial,
)
from ltr.data.sources.text_lists import position_in_lists
from ltr.errors import DataError
from ltr.identity import named
from ltr.names import list_first

ARCHIVE = Archive(
    "http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
    "7f73d41a2f44250d4779881525aea32e",
    "Stanford_Online_Products",
    max_bytes=8 * 2**30,
    max_files=200_000,
)
PUBLISHED = {"train": 59_551, "test": 60_502, "classes": 22_634}
COLUMNS = ("image_id", "class_id", "super_class_id", "path")
LISTS = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}


@named("source/online_products")
def online_products(
    *, root: str, folder: str = "Stanford_Online_Products", roots: Sequence[str] = (), download: bool = False
) -> Source:
    """Read Stanford Online Products: 59,551 training images of 11,318 products, 60,502 test images of 11,316 products.

    **No class is in both parts**, because the data set is for retrieval. Labels number the class ids in ascending
    order, so that the training classes come first.

    Args:
        root: folder that relative ``folder`` starts from.
        folder: in ``root``, or an absolute path; holds ``Ebay_train.txt``, ``Ebay_test.txt`` and the folders of images
            (``bicycle_final`` ...).
        roots: further folders that may contain image files and link targets.
        download: True downloads the official archive (2.9 GB) if ``folder`` does not exist.

    Returns:
        Source with `ImageFiles` in the lists' order, parts ``train`` and ``test``, the files' ``class_ids``, and the
        kind of product (``bicycle`` ...) as taxonomy ``supercategory``.

    Raises:
        DataError: files are missing, a line cannot be read, a class is in both parts, or the download failed.
    """
    base = dataset_folder(root, folder)
    if download and not base.exists():
        fetch("sop", ARCHIVE, base.parent)
    instructions = f"add dataset.download=true; or unpack the official archive there ({ARCHIVE.url})"
    require("sop", base, list(LISTS.values()), instructions)
    paths: list[str] = []
    ids: list[int] = []
    parts = {}
    kind_of: dict[int, str] = {}
    kind_of_super: dict[str, str] = {}
    contradictions: list[str] = []
    for part, file in LISTS.items():
        rows = read_table("sop", base / file, COLUMNS)[1:]  # the first line is the header
        if not rows:
            raise DataError(f"sop: {base / file} lists no image. Unpack the archive again")
        parts[part] = range(len(paths), len(paths) + len(rows))
        for _, class_id, super_id, path in rows:
            paths.append(path)
            ids.append(to_number("sop", f"a class_id in {base / file}", class_id))
            kind = path.partition("/")[0].removesuffix("_final")
            class_kind, super_kind = kind_of.setdefault(ids[-1], kind), kind_of_super.setdefault(super_id, kind)
            if kind not in (class_kind, super_kind) or class_kind != super_kind:
                contradictions.append(
                    f"{path} of class {class_id} ({class_kind}), super class {super_id} ({super_kind})"
                )
    both = sorted(set(ids[: parts["train"].stop]) & set(ids[parts["train"].stop :]))
    if both:
        raise DataError(f"sop: classes in both parts, by class_id: {list_first(both)}. Unpack the archive again")
    if contradictions:
        raise DataError(
            f"sop: ids and folders contradict each other: {list_first(contradictions)}. Unpack the archive again"
        )
    class_ids, labels = np.unique(np.array(ids, dtype=np.int64), return_inverse=True)
    kinds = tuple(kind_of[number] for number in class_ids.tolist())
    warn_if_partial("sop", parts, PUBLISHED, len(class_ids))
    files = ImageFiles.from_paths(base, paths)
    return Source(
        "sop",
        check_image_files(
            "sop", files, named_in=" and ".join(LISTS.values()), roots=roots, where=position_in_lists(parts, LISTS)
        ),
        labels,
        tuple(f"{kind} {number}" for kind, number in zip(kinds, class_ids.tolist())),
        parts,
        class_ids=class_ids,
        taxonomy={"supercategory": kinds},
    )
