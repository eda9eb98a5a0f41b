"""A search in a process of its own: a form on its standard input, progress and answer as lines of JSON.

An interrupt (SIGINT) ends it with the best plans so far, as Ctrl-C does with `towtank tune`.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from towtank.autotune.search.records import Progress


def main() -> None:
    """Search what the form asks for."""
    try:
        _search()
    except KeyboardInterrupt:
        _say({"faults": ["stopped before the first plan was found"]})


def _search() -> None:
    # loading these takes a second in which the search may be stopped already
    from towtank.autotune.search.exact import tune
    from towtank.autotune.search.report import search_report
    from towtank.pages.local.answers import search_answer
    from towtank.pages.local.capacity import capacity_answer
    from towtank.pages.local.wish import USER_ERRORS, WrongForm, task_of, wish_of

    form = json.load(sys.stdin)
    wish, folder = wish_of(form["fields"]), Path(form["folder"])
    try:
        if form["kind"] == "capacity":
            answer, page = capacity_answer(wish, folder, _tell_stage)
            _say({"result": answer, "page": page})
            return
        result = tune(task_of(wish, folder), progress=_tell)
        _say({"result": search_answer(wish, search_report(result))})
    except WrongForm as error:
        _say({"faults": list(error.faults)})
    except USER_ERRORS as error:
        _say({"faults": [str(error)]})


def _tell(progress: "Progress") -> None:
    _say({"progress": asdict(progress)})


def _tell_stage(stage: str, done: int, of: int) -> None:
    _say({"progress": {"stage": stage, "done": done, "of": of}})


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
