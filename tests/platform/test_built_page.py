"""The built page, as it is in the package: what it loads, and what it weighs."""

import gzip
import json
import re

import pytest

MOST_BYTES = 200_000
LICENSES = "licenses.txt"


@pytest.fixture
def page(checkout):
    return checkout / "src" / "citeflow" / "platform" / "static"


def test_page_loads_its_own_files_and_has_nothing_inline(page):
    index = (page / "index.html").read_text()
    loaded = re.findall(r'(?:src|href)="/([^"]*)"', index)
    files = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    assert {*loaded, "index.html", LICENSES} == files
    assert not re.search(r"https?:|<style|style=|\son\w+=|<script(?![^>]*\bsrc=)", index)


def test_page_names_no_other_server_in_its_styles_and_code(page):
    for path in (page / "assets").iterdir():
        text = path.read_text()
        assert not re.search(r"url\(|@import", text if path.suffix == ".css" else "")
        hosts = set(re.findall(r"https?://([\w.-]+)", text))
        # Names of XML namespaces, and pages that messages of the libraries refer to.
        assert hosts <= {"www.w3.org", "react.dev", "reactrouter.com", "github.com", "localhost"}


def test_page_weighs_little(page):
    sizes = [len(gzip.compress(path.read_bytes())) for path in page.rglob("*") if path.is_file()]
    assert sum(sizes) <= MOST_BYTES


def test_page_comes_with_the_licences_of_the_packages_that_are_built_in(page, checkout):
    text = (page / LICENSES).read_text()
    package = json.loads((checkout / "web" / "package.json").read_text())
    named = dict(re.findall(r"^## (\S+) - (\S+) \(.+\)$", text, re.MULTILINE))
    assert package["dependencies"].items() <= named.items()
    notices = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert all("copyright" in notice.lower() for notice in notices)
    code = "".join(path.read_text() for path in (page / "assets").glob("*.js"))
    assert f'"/{LICENSES}"' in code or f"`/{LICENSES}`" in code
