"""`wheel_contents.py WHEEL ROOT`: a wheel holds every file of the floors, and nothing outside of towtank."""

import sys
import zipfile
from pathlib import Path


def faults(names: set[str], root: Path) -> list[str]:
    """What is wrong with a wheel that holds the files `names`, built from the checkout `root`."""
    tops = {name.split("/", 1)[0] for name in names}
    stray = {top for top in tops if top != "towtank" and not top.endswith(".dist-info")}
    found = [f"{top} would land in site-packages" for top in sorted(stray)]
    package = root / "src" / "towtank"
    places = {package: "towtank"}
    places |= {link.resolve(): f"towtank/{link.name}" for link in package.iterdir() if link.is_symlink()}
    for folder, place in places.items():
        for path in sorted(folder.rglob("*")):
            shipped = path.is_file() and path.suffix != ".md" and "__pycache__" not in path.parts
            if shipped and f"{place}/{path.relative_to(folder).as_posix()}" not in names:
                found.append(f"{path.relative_to(root)} is missing; see package-data in pyproject.toml")
    return found


def main() -> None:
    """Print the faults of a wheel and exit with 1 if there are any."""
    wheel, root = Path(sys.argv[1]), Path(sys.argv[2])
    names = set(zipfile.ZipFile(wheel).namelist())
    found = faults(names, root)
    print(*found, f"{wheel.name}: {len(names)} files, {len(found)} faults", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
