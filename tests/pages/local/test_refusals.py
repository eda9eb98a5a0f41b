"""What the local page refuses: other hosts, other sites, files outside of its folder, too much of anything."""

import html
import json
import re
import shlex
from pathlib import Path

import pytest

from towtank.cli import main
from towtank.pages.local.guard import MOST_BODY_BYTES, MOST_HEADER_BYTES, MOST_PATH_BYTES
from towtank.pages.local.server import hosts_of, listen

FORM = {
    "model": "gpt-5b",
    "machine": "selene:nodes=1",
    "global_batch": "16",
    "plan": "tensor_x=2,recompute=full",
}


def test_on_the_usual_port_a_browser_names_none() -> None:
    assert set(hosts_of(80)) == {"127.0.0.1:80", "localhost:80", "127.0.0.1", "localhost"}
    assert set(hosts_of(8765)) == {"127.0.0.1:8765", "localhost:8765"}


def test_a_folder_whose_file_leads_outside_is_refused(ask, folder: Path) -> None:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    config = model / "config.json"
    config.unlink(missing_ok=True)
    config.symlink_to(folder.parent / "secret.yaml")
    answer = ask("POST", "/api/predict", {**FORM, "model": "./model"})
    assert answer.status == 400
    assert "lies outside of the folder" in answer.json()["faults"][0]
    assert "of somebody" not in answer.text


def test_the_commands_of_a_report_have_all_fields_of_the_form(ask, capsys) -> None:
    address = "/report?model=gpt-5b&machine=selene:nodes=1&devices=4&global_batch=16&plan=tensor_x%3D2"
    page = ask("GET", address)
    assert page.status == 200
    line = html.unescape(re.findall(r"<code>(towtank predict .*?)</code>", page.text)[0])
    assert main([*shlex.split(line)[1:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    asked = ask("POST", "/api/predict", {**FORM, "devices": "4", "plan": "tensor_x=2"}).json()
    assert found["step_time_s"] == asked["step_time_s"]


def test_it_listens_on_the_loopback_address_only() -> None:
    with listen(0) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "127.0.0.1.:{port}"]
)
def test_a_foreign_host_is_refused(ask, port: int, host: str) -> None:
    answer = ask("GET", "/", host=host.format(port=port))
    assert answer.status == 421
    assert "<form" not in answer.text


def test_localhost_is_ours(ask, port: int) -> None:
    assert ask("GET", "/", host=f"localhost:{port}").status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"]
)
@pytest.mark.parametrize(
    "method, path",
    [("POST", "/api/predict"), ("POST", "/api/tune"), ("POST", "/api/capacity"), ("DELETE", "/api/tune/x")],
)
def test_a_foreign_origin_is_refused(ask, port: int, origin: str, method: str, path: str) -> None:
    assert ask(method, path, FORM, Origin=origin.format(port=port)).status == 403


def test_our_own_origin_is_answered(ask, port: int) -> None:
    assert ask("POST", "/api/predict", FORM, Origin=f"http://127.0.0.1:{port}").status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_may_link_to_the_form_and_to_nothing_else(ask, site: str) -> None:
    assert ask("GET", "/?model=gpt-5b", Sec_Fetch_Site=site).status == 200
    assert ask("GET", "/report?model=gpt-5b", Sec_Fetch_Site=site).status == 403
    assert ask("POST", "/api/predict", FORM, Sec_Fetch_Site=site).status == 403


def test_a_form_that_a_foreign_page_could_post_is_refused(ask) -> None:
    assert ask("POST", "/api/predict", FORM, Content_Type="text/plain").status == 415


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/scripts/%2e%2e/%2e%2e/guard.py", "/scripts/..\\..\\guard.py",
     "/scripts/..%5c..%5cguard.py", "/scripts/%252e%252e%252fguard.py", "/capacity/%2e%2e%2f%2e%2e",
     "/scripts/../../../pyproject.toml", "/scripts/..%2f..%2fguard.py", "/scripts/guard.py",
     "/scripts/%2fetc%2fpasswd", "//etc/passwd", "/api/tune/..%2f.."],
)  # fmt: skip
def test_no_path_reaches_a_file(ask, path: str) -> None:
    assert ask("GET", path).status == 404


@pytest.mark.parametrize("name", ["model", "machine", "stack"])
@pytest.mark.parametrize("path", ["../secret.yaml", "/etc/passwd", "link.yaml", "..", "..\\secret.yaml"])
def test_no_field_reaches_a_file_outside_of_the_folder(ask, name: str, path: str) -> None:
    answer = ask("POST", "/api/predict", {**FORM, name: path})
    assert answer.status == 400
    assert len(answer.json()["faults"]) == 1
    assert "of somebody" not in answer.text


def test_a_model_file_inside_of_the_folder_is_read(ask, folder: Path) -> None:
    (folder / "mine.yaml").write_text("no: model\n")
    faults = ask("POST", "/api/predict", {**FORM, "model": "mine.yaml"}).json()["faults"]
    assert "lies outside" not in faults[0]
    assert "mine.yaml" in faults[0]


def test_an_over_long_address_is_refused(ask) -> None:
    assert ask("GET", "/?plan=" + "a" * MOST_PATH_BYTES).status == 414
    assert ask("GET", "/?plan=" + "a" * 100_000).status == 414


def test_over_long_headers_are_refused(ask) -> None:
    assert ask("GET", "/", X_Long="a" * MOST_HEADER_BYTES).status == 431
    assert ask("GET", "/", X_Long="a" * (MOST_HEADER_BYTES // 2)).status == 200


def test_brackets_without_end_are_one_message(ask) -> None:
    answer = ask("POST", "/api/predict", {**FORM, "plan": "stage_layers=" + "[" * 1900})
    assert answer.status == 400
    assert len(answer.json()["faults"]) == 1
    assert len(answer.text) < 300


def test_an_over_long_body_is_refused_whatever_length_it_claims(ask) -> None:
    body = b'"' + b"a" * MOST_BODY_BYTES + b'"'
    assert ask("POST", "/api/predict", body).status == 413
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert ask("POST", "/api/predict", chunked, Transfer_Encoding="chunked").status == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 60_000])
def test_what_is_no_form_gets_one_message(ask, body: bytes) -> None:
    answer = ask("POST", "/api/predict", body)
    assert answer.status == 400
    assert len(answer.json()["faults"]) == 1


def test_all_faults_are_told_at_once(ask) -> None:
    wrong = {"model": "gpt-5", "machine": "selen", "stack": "s" * 300, "plan": "tensor=2", "global_batch": "0",
             "devices": "1e3", "sequence": True, "more": 1}  # fmt: skip
    faults = "\n".join(ask("POST", "/api/predict", wrong).json()["faults"])
    for word in ("'gpt-5'", "'selen'", "stack has 300", "tensor_x", "global_batch = '0'", "devices = '1e3'",
                 "sequence = 'True'", "no field 'more'"):  # fmt: skip
        assert word in faults
    assert ask("POST", "/api/tune", wrong).status == 400


def test_a_capacity_plan_needs_tokens_and_a_time(ask) -> None:
    wrong = {**FORM, "tokens": "2x", "deadline": "90", "machine": "selen"}
    answer = ask("POST", "/api/capacity", wrong)
    assert answer.status == 400
    faults = "\n".join(answer.json()["faults"])
    for word in ("tokens must be", "deadline must be", "'selen'"):
        assert word in faults
    assert ask("POST", "/api/capacity", FORM).status == 400
    assert ask("POST", "/api/capacity", {**FORM, "tokens": "1" * 41}).status == 400
    assert ask("GET", "/capacity/none").status == 404


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "../\x00"])
def test_letters_that_no_name_has_are_refused(ask, text: str) -> None:
    assert "cannot be printed" in ask("POST", "/api/predict", {**FORM, "model": text}).text


def test_aliases_of_yaml_are_refused(ask) -> None:
    answer = ask("POST", "/api/predict", {**FORM, "plan": "stage_layers=[&a [1], *a]"})
    assert answer.status == 400
    assert "& * !" in answer.text


def test_a_wrong_report_is_a_page_without_script_of_others(ask) -> None:
    answer = ask("GET", "/report?model=%3Cscript%3Ealert(1)%3C/script%3E&machine=selene")
    assert answer.status == 400
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert" in answer.text
    assert ask("GET", "/report?model=a&model=b").status == 400


@pytest.mark.parametrize("path", ["/", "/report", "/none", "/api/none", "/scripts/local.js"])
def test_every_answer_says_what_may_run(ask, path: str) -> None:
    headers = ask("GET", path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_an_unknown_search_is_not_there(ask) -> None:
    assert ask("GET", "/api/tune/none").status == 404
    assert ask("DELETE", "/api/tune/none").status == 404
    assert ask("PUT", "/api/tune/none", {}).status == 405
