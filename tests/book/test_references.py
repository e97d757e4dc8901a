"""The bibliography: entries are whole, agree with themselves, and are cited."""

import csv
import hashlib
import re
from pathlib import Path

import pytest
from pybtex.database import parse_file

BOOK = Path(__file__).resolve().parents[2] / "book"
ENTRIES = parse_file(str(BOOK / "references.bib")).entries
WANTED = {
    "article": {"journal", "volume"},
    "book": {"publisher"},
    "inproceedings": {"booktitle"},
    "misc": set(),
    "phdthesis": {"school"},
    "techreport": {"institution", "number"},
}
WHERE = {"note", "howpublished", "url"}  # one of them for what appeared nowhere else
LOOKED_UP = Path(__file__).with_name("looked_up.csv")


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_is_whole(key):
    entry = ENTRIES[key]
    fields = {name.lower(): value for name, value in entry.fields.items()}
    assert WANTED[entry.type] | {"title", "year"} <= fields.keys()
    assert entry.persons["author"]
    assert entry.type != "misc" or WHERE & fields.keys()
    assert 1900 < int(fields["year"]) <= 2026
    everything = " ".join([*fields.values(), *map(str, entry.persons["author"])])
    assert not re.search(r"\?\?|TODO|XXX|and others|et al", everything)
    year = re.search(r"(?<!\d)\d{4}(?!\d)", key)
    assert year is None or year[0] == fields["year"]
    if "pages" in fields:
        assert re.fullmatch(r"\d+(--\d+)?", fields["pages"])
        first, _, last = fields["pages"].partition("--")
        assert not last or int(first) < int(last)
    if "doi" in fields:
        assert re.fullmatch(r"10\.\d{4,}/\S+", fields["doi"])


@pytest.mark.parametrize("key", ENTRIES)
def test_a_number_of_arxiv_is_the_address_and_no_later_than_the_year(key):
    fields = ENTRIES[key].fields
    number = re.fullmatch(r"arXiv:(\d\d)(\d\d)\.\d{4,5}", fields.get("note", ""))
    is_arxiv = "arxiv.org" in fields.get("url", "")
    assert is_arxiv == bool(number)
    if number:
        assert fields["url"] == "https://arxiv.org/abs/" + fields["note"].removeprefix("arXiv:")
        assert 1 <= int(number[2]) <= 12
        # Papers of one year's conference appear in the year before; two were put there later.
        late = key in ("luo2016receptive", "zhong2021sface")
        assert int(fields["year"]) - 4 <= 2000 + int(number[1]) <= int(fields["year"]) + late


def test_no_work_stands_twice():
    titles = [re.sub(r"\W", "", e.fields["title"]).lower() for e in ENTRIES.values()]
    assert len(titles) == len(set(titles))
    notes = [e.fields["note"] for e in ENTRIES.values() if "note" in e.fields]
    assert len(notes) == len(set(notes))


def test_every_entry_is_cited_and_every_citation_has_an_entry():
    sources = [*BOOK.rglob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    found = re.findall(r"\{cite(?::[pt])?\}`([^`]+)`", text)
    cited = {key.strip() for keys in found for key in keys.split(",")}
    assert cited == ENTRIES.keys()


def fingerprint(key):
    """A few letters that change with whatever of an entry was compared with a public source."""
    fields = {name.lower(): value for name, value in ENTRIES[key].fields.items()}
    people = map(str, ENTRIES[key].persons["author"])
    everything = " ".join([*people, *(f"{name}={fields[name]}" for name in sorted(fields))])
    return hashlib.sha256(re.sub(r"[{}\s]", "", everything).encode()).hexdigest()[:8]


def test_every_entry_was_looked_up_as_it_stands():
    """A row says when, and in what kind of place; "not found" where no public source has it."""
    with LOOKED_UP.open(encoding="utf-8", newline="") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    assert list(rows) == sorted(ENTRIES)
    for key, row in rows.items():
        changed = f"{key} changed: look it up again; its row is {key},<date>,{fingerprint(key)},..."
        assert row["fingerprint"] == fingerprint(key), changed
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row["on"])
        assert row["found"]
