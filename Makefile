# Two commands do everything on a fresh machine: make demo, make test.
# PYTHON=/path/to/python uses an interpreter that already has the packages; otherwise .venv is made.
ifdef PYTHON
  python = $(PYTHON)
else
  python = .venv/bin/python
  base = .venv/base
  full = .venv/full
endif

# Archives and downloads have no counts of their own: a test each is a count.
fault_tests = tests/faults tests/data/test_archives.py tests/data/test_download.py
pages = README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md data/README.md data/results/README.md

.DEFAULT_GOAL = help
.PHONY: help demo test quick colab book print links bench gpu faults lint notebooks versions audit dist

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(base)  ## the main job: train teacher and students on procedural faces, compare them (5 to 10 minutes)
	$(python) -m ekd_lite demo

test: $(full)  ## everything CI checks: lint, types, unit tests, notebooks, book
	$(python) scripts/test.py

quick: $(full)  ## lint, types and the tests that start no process: while you work
	$(python) scripts/test.py quick

book: $(full)  ## build the book into _build/html, warnings are errors
	$(python) book/tools/book.py build

notebooks: $(full)  ## run every chapter again, keep its outputs, sync text twins and Colab copies
	$(python) book/tools/book.py run
	$(python) book/tools/book.py copies

colab: $(full)  ## every Colab copy from an empty folder with the installed wheel; NAMES="01_faces 10_ekd": these
	$(python) book/tools/anywhere.py $(NAMES)

print: $(full)  ## the book on one page, print.html in _build/html, and as book.pdf if there is Chromium
	$(python) book/tools/book.py print

bench: $(full)  ## speed of the parts against a peer's formula and the lower bound; COMPARE=FILE: and what is worse
	$(python) -m benchmarks $(if $(COMPARE),--compare $(COMPARE))

gpu: $(full)  ## on a GPU, at most 9 minutes: is all as on the CPU, and how fast; DRY=yes: tiny, on the CPU
	$(python) -m benchmarks.gpu $(if $(DRY),--dry) $(if $(INSIGHTFACE),--insightface $(INSIGHTFACE)) $(if $(TFACE),--tface $(TFACE))

faults: $(full)  ## kills, signals, full disks, lost processes, damaged files: counts at the end
	EKD_FAULTS=full OMP_NUM_THREADS=1 $(python) -m pytest -q -n 2 --dist worksteal $(fault_tests)

lint: $(full)  ## ruff, mypy and the checks of .github
	$(python) scripts/test.py lint

links: $(full)  ## links of the built book and of the README and its neighbours; OUTSIDE=yes: of other sites too
	$(python) -m linkcheck -f scripts/linkchecker.ini $(if $(OUTSIDE),--check-extern) _build/html/index.html $(pages)

versions: $(full)  ## every command with the lowest and with the newest versions; WHICH="lowest --cuda": one, with CUDA builds
	$(python) scripts/versions.py $(WHICH)

audit: $(full)  ## are there advisories about the pinned versions?
	$(python) -m pip_audit --strict --no-deps --disable-pip -r constraints.txt

dist: $(full)  ## build the sdist and the wheel into dist/ and check them; TAG=v1.2.3: is this its version?
	rm -rf dist
	$(python) -m build
	$(python) -m twine check --strict dist/*
	$(if $(TAG),ls dist/ekd_lite-$(TAG:v%=%).tar.gz)

.venv/base: pyproject.toml constraints.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/full: .venv/base
	.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
