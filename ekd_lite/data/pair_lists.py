"""Lists of pairs over a folder of faces, in the forms of `ekd_lite.data.pair_forms`."""

from __future__ import annotations

import posixpath
import unicodedata
import warnings
from pathlib import Path

import torch
from torch import Tensor

from ekd_lite.data.ahead import reads_ahead
from ekd_lite.data.decode import SUFFIXES
from ekd_lite.data.faceset import FaceSet
from ekd_lite.data.folder import ImageFolder
from ekd_lite.data.indexing import Indices, index_tensor, int64_tensor
from ekd_lite.data.names import printable
from ekd_lite.data.pair_forms import Pair, pairs_in, person, person_and_number
from ekd_lite.data.verification import VerificationSet


class Subset:
    """Some images of a face set, in the order given; one may come several times.

    Args:
        faces: the set.
        rows: indices of the images, (N,), a tensor, array or list.
        labels: identities of these images, where they are not those of the set, (N,).
    """

    def __init__(self, faces: FaceSet, rows: Indices, labels: Tensor | None = None) -> None:
        self.faces = faces
        self.rows = index_tensor(rows, len(faces))
        self._own = labels is not None
        self.labels = (
            faces.labels[self.rows]
            if labels is None
            else int64_tensor(labels, "labels", len(self.rows))
        )
        self.image_size = faces.image_size

    @property
    def num_identities(self) -> int:
        """Number of identities of the whole set, whose labels these are."""
        return int(self.labels.max()) + 1 if self._own else self.faces.num_identities

    @property
    def reads_ahead(self) -> bool:
        """Whether another thread may read the set (`ekd_lite.data.ahead`)."""
        return reads_ahead(self.faces)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Indices) -> Tensor:
        """Images in [-1, 1], (B, 3, image_size, image_size) float32."""
        return self.faces.batch(self.rows[index_tensor(indices, len(self))])


def read_pairs(
    path: str | Path, faces: ImageFolder, *, skip_missing: bool = False
) -> VerificationSet:
    """Read a list of pairs over a folder of faces.

    Four forms, in UTF-8 or as Excel saves them:

    - CSV with the columns left, right, is_genuine and, if wanted, fold (file1, file2 will do for
      the files, which are relative to the folder), separated by commas, semicolons or tabs;
    - text with two files and a flag a line, `a/1.jpg b/2.jpg 0` or `0 a/1.jpg b/2.jpg`, as the
      lists of AgeDB-30 and CFP often are;
    - LFW's pairs.txt, where `name 1 4` is a genuine pair, `name 1 other 2` an impostor pair, and
      the first line counts: `folds pairs`, or the pairs of each kind alone;
    - the lists of CALFW and CPLFW, two lines a pair, `name_1.jpg 1` and `name_2.jpg 1`; the number
      is 0 for an impostor pair, and the fold of a genuine one in CALFW (impostor pairs have none
      there, so that no folds are given). Their images may lie in one folder, as they come.

    Args:
        path: the list.
        faces: the folder its files are in.
        skip_missing: leave out pairs that name a missing image, with a warning that names it.

    Raises:
        FileNotFoundError: no such list.
        ValueError: a line that is of no form, another number of pairs than the list announces, a
            label that contradicts the folders, or an image that is missing or there twice; the line
            is named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such list of pairs: {path}")
    form, pairs = pairs_in(path)
    where = _Rows(faces, form)
    missing = sorted({name for pair in pairs for name in pair[:2] if where.find(name) is None})
    if missing:
        lacks = "lacks or has twice" if form == "two lines" else "lacks"
        text = f"{path} names {len(missing)} images that {faces.root} {lacks}: {_some(missing)}"
        if not skip_missing:
            raise ValueError(f"{text}; skip_missing=True leaves their pairs out")
        lost = set(missing)
        kept = [pair for pair in pairs if not lost & {pair.left, pair.right}]
        warnings.warn(f"{text}; {len(pairs) - len(kept)} pairs left out", stacklevel=2)
        pairs = kept
    if not pairs:
        raise ValueError(f"{path} holds no pair")
    return _as_set(path, pairs, faces, where)


def _as_set(path: Path, pairs: list[Pair], faces: ImageFolder, where: _Rows) -> VerificationSet:
    sides = [[pair.left for pair in pairs], [pair.right for pair in pairs]]
    rows = [torch.tensor([where.find(name) for name in side]) for side in sides]
    left, right = Subset(faces, rows[0]), Subset(faces, rows[1])
    one_folder = bool((torch.cat([left.labels, right.labels]) == left.labels[0]).all())
    if where.form == "two lines" and one_folder:
        # That folder is then not a person: a file's own name says who it is.
        people = [[person(name) for name in side] for side in sides]
        number = {name: i for i, name in enumerate(dict.fromkeys(people[0] + people[1]))}
        if None not in number:
            labels = [torch.tensor([number[name] for name in side]) for side in people]
            left, right = (Subset(faces, *own) for own in zip(rows, labels, strict=True))
    is_genuine = torch.tensor([pair.is_genuine for pair in pairs])
    wrong = ((left.labels == right.labels) != is_genuine).nonzero().flatten().tolist()
    if wrong:
        pair = pairs[wrong[0]]
        raise ValueError(
            f"{path} says is_genuine = {int(pair.is_genuine)} of {pair.left} and {pair.right}, and "
            f"their folders say otherwise ({len(wrong)} such pairs)"
        )
    same = (rows[0] == rows[1]).nonzero().flatten()
    if len(same):
        warnings.warn(
            f"{path} compares {len(same)} images with themselves, the first of them "
            f"{pairs[int(same[0])].left}: these pairs say nothing of a net",
            stacklevel=3,
        )
    folds = [pair.fold for pair in pairs if pair.fold is not None]
    return VerificationSet(left, right, is_genuine, torch.tensor(folds) if folds else None)


class _Rows:
    """Which image of a folder a list means by a name.

    CSV names paths below the folder. LFW's lists say a person and a number, whose file has any
    suffix. CALFW's and CPLFW's name a file alone, in whatever folder it is.
    """

    def __init__(self, faces: ImageFolder, form: str) -> None:
        self._root, self.form = _composed(posixpath.normpath(faces.root.as_posix())), form
        self._rows: dict[str | tuple[str, int], int | None] = {}
        for row in range(len(faces)):
            for key in self._keys(_composed(faces.files.relative(row))):
                # What two files are called names neither of them.
                self._rows[key] = row if self._rows.get(key, row) == row else None

    def find(self, name: str) -> int | None:
        """The row of an image, or None."""
        plain = _composed(posixpath.normpath(name.replace("\\", "/")))
        plain = plain.removeprefix(f"{self._root}/")
        for key in (name, *self._keys(plain)):
            if self._rows.get(key) is not None:
                return self._rows[key]
        return None

    def _keys(self, name: str) -> list[str | tuple[str, int]]:
        """What a list of this form may call a file, the most exact first."""
        if self.form == "csv":
            return [name]
        keys: list[str | tuple[str, int]] = [name]
        short = posixpath.basename(name) if self.form == "two lines" else name
        if self.form == "two lines":
            keys.append(short)
        stem, suffix = posixpath.splitext(short)
        if suffix.lower() in SUFFIXES:
            short = stem
        if self.form == "lfw":
            keys.append(short)
        numbered = person_and_number(short)
        return keys if numbered is None else [*keys, numbered]


def _composed(name: str) -> str:
    """An accented letter as one sign: macOS writes it as two, and both look the same."""
    return unicodedata.normalize("NFC", name)


def _some(names: list[str]) -> str:
    return ", ".join(map(printable, names[:10])) + (", ..." if names[10:] else "")
