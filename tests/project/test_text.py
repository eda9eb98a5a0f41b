"""Nothing in the project points to a place or a host that its readers do not have."""

import re
from pathlib import Path

# in pieces, so that this file does not hold what it looks for
PLACES = ["/" + "work/", "sha" + "red/", "/tmp/" + "brief", "/" + "root/", "/opt/" + "pypi", "/" + "home/"]
HOSTS = [
    "pypi" + r"\.org",
    "python" + "hosted",
    "download" + r"\.pytorch",
    "registry" + r"\.npmjs",
    "conda" + r"\.anaconda",
]
FORBIDDEN = re.compile("|".join([rf"(?<![\w.-]){place}" for place in PLACES] + HOSTS))


def test_the_pattern_finds_what_it_should() -> None:
    assert FORBIDDEN.search("see /" + "work/main")
    assert FORBIDDEN.search("from sha" + "red/design")
    assert FORBIDDEN.search("pypi" + ".org")
    assert not FORBIDDEN.search("a framework/main, an unshared/part")


def test_nothing_forbidden_is_mentioned(root: Path, project_files: list[Path]) -> None:
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()[:100]}"
        for path in project_files
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert found == []


def test_text_is_clean(root: Path, project_files: list[Path]) -> None:
    texts = {path: path.read_bytes() for path in project_files if path.suffix != ".gz"}
    assert [str(path) for path, text in texts.items() if b"\r" in text] == []
    assert [str(path) for path, text in texts.items() if text and not text.endswith(b"\n")] == []
