"""The data-set contract: original files on disk become label tables; tables become sources."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from cml_bench.data.cache import default_cache_dir
from cml_bench.data.table import FORMAT, LabelTable
from cml_bench.errors import CmlBenchError, CmlBenchWarning, suggest
from cml_bench.files import writing

if TYPE_CHECKING:
    from cml_bench.data.image_files import ImageFiles
    from cml_bench.data.source import Source

Missing = Literal["error", "allow", "ignore"]
"""What to do about listed images that are not there; see ``ImageFiles``."""


@dataclass(frozen=True)
class DataCard:
    """What is declared of a data set. Write every argument as a literal: ``cml-bench data list`` imports nothing.

    Attributes:
        name: File stem and registry name.
        title: How tables call it.
        version: Counts up when ``read`` changes what it returns; stored tables of another version are made again.
        splits: Official split names to the counts that each must have: any of the keys of ``LabelTable.counts``,
            ``images``, ``labels`` (positives) and ``images_with_labels``. An empty mapping where none is published.
        n_labels: Number of labels, or None where it depends on an option or on the files.
        licence: Terms of labels and images.
        homepage: Where a user gets it.
        download: What to fetch and where to put it, in a few lines; commands where the terms allow them.
        citation: The paper to cite.
        checksums: Label files (relative to ``root``) to ``"sha256:..."`` or ``"md5:..."``, as far as published.
        pretraining_names: Names under which a checkpoint would declare that it was trained on this data.
    """

    name: str
    title: str
    version: int
    splits: Mapping[str, Mapping[str, int]]
    n_labels: int | None
    licence: str
    homepage: str
    download: str
    citation: str
    checksums: Mapping[str, str] = field(default_factory=dict)
    pretraining_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataSet(ABC):
    """A data set in its original file layout. Every field is an option of the command line.

    A subclass declares ``meta`` and answers three questions: which label files a split is read from, what they say, and
    where the images lie. Label files are read once; after that the table comes from the cache.

    Attributes:
        root: The folder that holds the data set.
    """

    root: str

    meta: ClassVar[DataCard]

    @abstractmethod
    def label_files(self, split: str) -> Sequence[Path]:
        """Return the files that ``read`` reads for a split.

        Raises:
            CmlBenchError: If there is no such split (``unknown_split``) or a file is not there (``find_file``).
        """

    @abstractmethod
    def read(self, split: str) -> LabelTable:
        """Parse the original files of a split.

        Raises:
            CmlBenchError: If a file is damaged or does not fit the others; the sentence names file, line and mend.
        """

    def image_folder(self, split: str) -> Path:
        """Return the folder that ``LabelTable.files`` are relative to; ``root`` unless told otherwise."""
        return Path(self.root)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits; the card's unless they depend on the files."""
        return tuple(self.meta.splits)

    def table(self, split: str) -> LabelTable:
        """Return a split's label table: the stored one while its label files are unchanged, else read and stored."""
        try:
            path = self.table_path(split)
            if path.is_file():
                try:
                    return LabelTable.load(path)
                except CmlBenchError as error:
                    warnings.warn(f"{error}; it is read from the original files", CmlBenchWarning, stacklevel=2)
            table = self.read(split)
        except OSError as error:
            what = error.filename or f"a label file in {self.root}"
            raise CmlBenchError(f"{what} cannot be read ({error.strerror}): make it readable") from None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with writing(path):
                table.save(path)
        except OSError as error:
            warnings.warn(
                f"the label table cannot be stored in {path.parent} ({error.strerror})", CmlBenchWarning, stacklevel=2
            )
        return table

    def table_path(self, split: str) -> Path:
        """Return where a split's table is stored: named by everything it depends on."""
        files = [Path(file).resolve() for file in self.label_files(split)]
        depends_on = {
            "format": FORMAT,
            # The module of an ad hoc file bears a digest of its content.
            "reader": f"{type(self).__module__}:{type(self).__qualname__}",
            "version": self.meta.version,
            "split": split,
            "options": dataclasses.asdict(self),
            "files": [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files],
        }
        digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return default_cache_dir() / "tables" / f"{self.meta.name}-{split.replace('/', '-')}-{digest}.npz"

    def source(self, split: str, role: Literal["train", "test"], *, missing: Missing = "error") -> Source:
        """Return a split as a source, of image files unless told otherwise; see ``ImageFiles`` for ``missing``."""
        return self.source_of(self.table(split), role, self.image_folder(split), missing=missing)

    def source_of(
        self, table: LabelTable, role: Literal["train", "test"], folder: Path, *, missing: Missing = "error"
    ) -> ImageFiles:
        """Return a table of this data set as a source: a selection of a split, or several joined."""
        from cml_bench.data.image_files import ImageFiles

        return ImageFiles(
            table,
            folder,
            name=self.meta.name,
            split=role,
            pretraining_names=self.meta.pretraining_names,
            missing=missing,
        )

    def find_file(self, *candidates: str) -> Path:
        """Return the first of some files, relative to ``root``, that is there.

        Raises:
            CmlBenchError: If the root is no folder or none of the files is there.
        """
        root = Path(self.root)
        if not root.is_dir():
            raise CmlBenchError(f"{root} is not a folder; give the folder that holds {self.meta.title} as root")
        for candidate in candidates:
            if (root / candidate).is_file():
                return root / candidate
        names = " or ".join(candidates)
        raise CmlBenchError(f"{root} holds no {names}; 'cml-bench data info {self.meta.name}' says what belongs where")

    def unknown_split(self, split: str) -> CmlBenchError:
        """Return the error for a split that the data set does not have."""
        return CmlBenchError(f"{self.meta.title} has no split {split!r}: {suggest(split, self.splits)}")
