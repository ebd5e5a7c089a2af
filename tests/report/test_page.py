"""The report's page: its figures, its tool, and the page in a browser where there is one."""

from __future__ import annotations

import base64
import importlib
import json
import logging
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from swahr.data.images import AbsentImages, ImageStore
from swahr.data.keypoints import KeypointDataset
from swahr.engine.datasets import adapt_records
from swahr.evaluation.matching import load_run
from swahr.evaluation.metrics import METRICS, EvaluationError, evaluate
from swahr.evaluation.pixels import PIXEL_NAMES
from swahr.report.errors import ERRORS, find_errors
from swahr.report.gallery import GREY, kinds_of_image, make_card
from swahr.report.page import ReportError, check_libraries, make_report
from swahr.skeleton import COCO
from swahr.visualize import draw_people
from tests.commands.exit_status import status_of
from tests.engine.test_image_sources import phone_photo
from tests.report.made import OFFSET, SKELETON, found, person, random_set, truth

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
SKELETON_YAML = """
name: made
keypoints: [nose, left_hand, right_hand, left_foot, right_foot]
sigmas: [0.05, 0.05, 0.05, 0.05, 0.05]
flip_pairs: [[1, 2], [3, 4]]
"""


def made_set() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Three images: one without errors, one with a swap, one with a missed person."""
    people = [person(1, 1), person(2, 2), person(3, 2, 1), person(4, 3)]
    records = [
        found(1, off=0),
        found(2, score=0.8, move={1: (OFFSET, 0)}),
        found(2, 1, score=0.7, off=0),
    ]
    return truth(*people, images=3), records


def figures(page: str, table: str) -> dict[str, str]:
    """{figure: text} of the cells of one table."""
    body = re.search(rf'<table id="{table}">(.*?)</table>', page, re.DOTALL)
    assert body
    return dict(re.findall(r'data-figure="([^"]+)">([^<]+)<', body[1]))


def test_figures_of_the_page_are_those_of_the_metrics() -> None:
    annotations, records = random_set(3)
    page = make_report(annotations, {"a run": records}, SKELETON)
    stats = evaluate(annotations, records, SKELETON)
    assert figures(page, "ap") == {name: f"{value:.3f}" for name, value in stats.items()}
    errors = find_errors(load_run(annotations, records, SKELETON))
    numbers = re.findall(r'data-kind="(\w+)">.*?data-figure="number">(\d+)<', page, re.DOTALL)
    assert dict(numbers) == {kind: str(errors.count(kind)) for kind in ERRORS}
    assert sum(errors.count(kind) > 0 for kind in ERRORS) >= 6


def test_metrics_of_the_user_have_a_table() -> None:
    annotations, records = made_set()
    runs = {"a": records, "b": records[:1]}
    page = make_report(annotations, runs, SKELETON, own=lambda found: {"<number>": len(found)})
    table = re.search(r'<table id="own">.*?</table>', page, re.DOTALL)
    assert table and "<th>&lt;number&gt;</th>" in table[0]
    assert re.findall(r'data-figure="&lt;number&gt;">([^<]+)<', table[0]) == ["3.000", "1.000"]
    assert 'id="own"' not in make_report(annotations, {"a": records}, SKELETON)
    assert 'id="own"' not in make_report(annotations, {"a": records}, SKELETON, own=lambda _: {})


def test_a_metric_gets_no_records_that_cannot_be_scored() -> None:
    annotations, records = made_set()
    with pytest.raises(EvaluationError, match="^a: result 3 has no image_id$"):
        make_report(annotations, {"a": [*records, {}]}, SKELETON, own=lambda _: pytest.fail("own"))


def test_counts_of_one_have_no_plural() -> None:
    page = make_report(truth(person(1)), {"a": [found(off=0.3)]}, SKELETON)
    assert " 1 image with\n1 person who counts.</p>" in page and "of the\n1 detection, or " in page
    assert "in 1 image. The loss" in page and "or of the 1 person.</p>" in page


def test_the_page_needs_no_other_file() -> None:
    annotations, records = made_set()
    page = make_report(annotations, {"a": records, "b": records[:2]}, SKELETON)
    links = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "@import" not in page


def test_names_are_escaped() -> None:
    annotations, records = made_set()
    annotations["images"][1]["file_name"] = "<script>alert(1)</script>.png"
    page = make_report(annotations, {"<b>": records}, SKELETON)
    assert "<script>alert" not in page and "<b>:" not in page
    assert "&lt;script&gt;alert(1)" in page and "<h1>&lt;b&gt;</h1>" in page


def test_the_worst_images_come_first_and_those_without_loss_not_at_all() -> None:
    annotations, records = made_set()
    page = make_report(annotations, {"a": records}, SKELETON)
    cards = re.findall(r'data-kinds="([^"]*)">\s*<header><b>([^<]*)', page)
    assert cards == [("missed", "3.png"), ("swap", "2.png")]
    assert (
        len(re.findall("<article", make_report(annotations, {"a": records}, SKELETON, worst=1)))
        == 1
    )


def test_kinds_of_one_image() -> None:
    annotations, records = made_set()
    run = load_run(annotations, [*records, found(2, 1.5, score=0.1)], SKELETON)
    errors = find_errors(run)
    everybody = np.ones(len(run.found.scores), bool)
    assert kinds_of_image(run, errors, everybody, 0) == {}
    assert kinds_of_image(run, errors, everybody, 1) == {"swap": 1, "background": 1}
    assert kinds_of_image(run, errors, run.found.scores > 0.2, 1) == {"swap": 1}
    assert kinds_of_image(run, errors, everybody, 2) == {"missed": 1}


def test_keypoints_that_were_not_found_are_not_drawn() -> None:
    """Neither they nor a ring or frame around 0, 0, where the record has them."""
    annotations = truth(person(1, place=2))
    for record in (found(place=2), found(place=3.5)):  # a person, and nobody
        record["keypoints"][:3] = [0, 0, 0]
        run = load_run(annotations, [record], SKELETON)
        info = {"width": 2400, "height": 300}
        card = make_card(0, 1.0, [("a", run, find_errors(run), 0.1)], info, None)
        data = base64.b64decode(card.images[1][1].partition(",")[2])
        drawn = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(drawn[:8, :8].astype(int) - GREY).max() < 3
        assert np.ptp(drawn) > 50


def test_an_image_that_cannot_be_read_is_named_on_its_card(tmp_path: Path) -> None:
    annotations, records = made_set()
    cv2.imwrite(str(tmp_path / "3.png"), np.zeros((300, 2400, 3), np.uint8))
    page = make_report(annotations, {"a": records}, SKELETON, images=ImageStore(tmp_path))
    assert "2.png: " in page and "3.png: " not in page


def test_a_photograph_is_shown_as_its_annotations_see_it(tmp_path: Path) -> None:
    """The file gives the size of the turned image, as validation takes it."""
    annotations = truth(person(1))
    (tmp_path / "1.jpg").write_bytes(phone_photo(np.zeros((300, 120, 3), np.uint8), 6))
    annotations["images"][0] |= {"file_name": "1.jpg", "width": 300, "height": 120}
    run = load_run(annotations, [found()], SKELETON)
    parts = [("a", run, find_errors(run), 0.1)]
    card = make_card(0, 1.0, parts, annotations["images"][0], ImageStore(tmp_path))
    assert card.size == (560, 224)
    as_stored = make_card(0, 1.0, parts, {"width": 120, "height": 300}, ImageStore(tmp_path))
    assert as_stored.size == (224, 560)


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1)])
def test_a_very_thin_image_is_shown(size: tuple[int, int], tmp_path: Path) -> None:
    """A side of 1 px stays one; the other becomes the page's 560."""
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((*size, 3), np.uint8))
    annotations = truth(person(1))
    run = load_run(annotations, [found()], SKELETON)
    info = {"height": size[0], "width": size[1]}
    card = make_card(0, 1.0, [("a", run, find_errors(run), 0.1)], info, ImageStore(tmp_path))
    assert card.note == "" and sorted(card.size) == [1, 560]


def painted(image: np.ndarray, shown: np.ndarray) -> dict[str, np.ndarray]:
    """Drawings of maps in one colour."""
    assert image.shape == (300, 2400, 3) and shown.shape == (70, 560, 3)
    red = np.full_like(shown, (255, 0, 0))
    return {"heatmaps": red, "tags": red[..., ::-1]}


def with_images(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], ImageStore]:
    annotations, records = made_set()
    for number in (1, 2, 3):
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((300, 2400, 3), np.uint8))
    return annotations, records, ImageStore(folder)


def test_maps_of_the_network_stand_on_the_first_prediction(tmp_path: Path) -> None:
    annotations, records, store = with_images(tmp_path)
    runs = {"a": records, "b": records}
    page = make_report(annotations, runs, SKELETON, images=store, draw_maps=painted)
    figures_of_a = re.findall(r"<figure>(.*?)</figure>", page, re.DOTALL)[1::3]
    assert len(figures_of_a) == 2
    for text in figures_of_a:
        assert re.findall(r'data-map="(\w+)"', text) == ["heatmaps", "tags"]
        assert re.findall(r'data-show="(\w+)"', text) == ["heatmaps", "tags"]
    assert page.count('data-map="') == 4 and "a click\nkeeps them" in page
    assert "--weights adds them" not in page


def test_without_a_network_the_page_says_how_to_get_maps() -> None:
    annotations, records = made_set()
    page = make_report(annotations, {"a": records}, SKELETON)
    assert "Heatmaps and tags need the network: --weights adds them." in page
    assert "data-map" not in page.partition("<script>")[0]


def test_an_image_that_the_network_cannot_take_is_named_on_its_card(tmp_path: Path) -> None:
    def refused(image: np.ndarray, shown: np.ndarray) -> dict[str, np.ndarray]:
        raise ValueError("too long and thin")

    annotations, records, store = with_images(tmp_path)
    page = make_report(annotations, {"a": records}, SKELETON, images=store, draw_maps=refused)
    assert page.count("no maps: too long and thin") == 2


@pytest.mark.parametrize("people", [[], [person(1)]])
def test_reports_on_nothing(people: list[dict[str, Any]]) -> None:
    assert "</html>" in make_report(truth(*people), {"a": []}, SKELETON)
    assert "</html>" in make_report(truth(*people), {"a": [], "b": [found()]}, SKELETON)


def test_a_difference_of_undefined_figures_is_undefined() -> None:
    page = make_report(truth(), {"a": [], "b": [found()]}, SKELETON)
    assert figures(page, "ap")["AP"] == "-"
    (table,) = re.findall('<table id="difference">(.*?)</table>', page, re.DOTALL)
    assert re.findall(">([^<>]+)</td>", table)[:4] == ["AP", "-", "-", "-"]
    assert "better" not in table and "worse" not in table


def test_a_run_that_finds_nobody_is_worse_by_one() -> None:
    """-1 is a difference, although it stands for an undefined figure."""
    page = make_report(truth(person(1)), {"a": [found(off=0)], "b": []}, SKELETON)
    assert set(figures(page, "difference").values()) == {"-1.000"}


def test_an_error_without_a_found_keypoint_is_undefined_and_pck_has_its_column_s_name() -> None:
    page = make_report(truth(person(1)), {"a": [], "b": [found(off=0)]}, SKELETON)
    for name in ("median", "mean"):
        assert re.findall(rf'<b data-figure="{name}">([^<]+)<', page) == ["undefined", "0.0 px"]
    assert page.count(f"{PIXEL_NAMES[-1]}<") == 4 and "PCK@" not in page


def test_a_person_has_one_number_in_truth_and_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the scores have another order; -1 stands for nobody."""
    drawn = []

    def draw(*arguments: Any, ids: Any) -> np.ndarray:
        drawn.append(list(ids))
        return draw_people(*arguments, ids=ids)

    monkeypatch.setattr("swahr.report.gallery.draw_people", draw)
    annotations = truth(person(1, 1), person(2, 2), person(3, 2, 1), images=2)
    records = [found(2, 1, score=0.9), found(2, 3, score=0.8), found(2, 0, score=0.7)]
    run = load_run(annotations, records, SKELETON)
    make_card(1, 1.0, [("a", run, find_errors(run), 0.1)], {}, None)
    assert drawn[0] == [0, 1] and sorted(drawn[1]) == [-1, 0, 1]
    by_score = np.argsort(-run.found.scores).tolist()
    assert [drawn[1][row] for row in by_score] == [1, -1, 0]


def test_what_missed_people_cost_is_undefined_where_all_are_missed() -> None:
    """Nobody is left to score without them."""
    annotations = truth(person(1))
    page = make_report(annotations, {"a": [], "b": [found(off=0)]}, SKELETON)
    costs = re.findall(r'data-kind="(\w+)">.*?data-figure="cost">([^<]+)<', page, re.DOTALL)
    expected = [(kind, "-" if kind == "missed" else "+0.000") for kind in ERRORS]
    assert costs == expected + [(kind, "+0.000") for kind in ERRORS]
    (chart,) = re.findall(r"<svg(?:(?!</svg>).)*AP that correcting.*?</svg>", page, re.DOTALL)
    assert chart.count(">0.000<") == 2 * len(ERRORS) - 1
    assert "nan" not in chart.lower() and "-1.000" not in page


@pytest.mark.parametrize("name", ["jinja2", "matplotlib"])
def test_a_missing_library_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "swahr.report.page.find_spec", lambda module: None if module == name else object()
    )
    with pytest.raises(ReportError, match=f"^the report needs {name}: pip install {name}$"):
        check_libraries()


def test_libraries_are_imported_when_a_report_is_made() -> None:
    """The package can be imported without them."""
    import subprocess

    code = "import sys, swahr.report.page; print({'jinja2', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "matplotlib" not in done.stdout


# -- the tool


@pytest.fixture
def tool() -> ModuleType:
    return importlib.import_module("swahr.commands.report")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    annotations, records = made_set()
    contents = {
        "val.json": json.dumps(annotations),
        "results.json": json.dumps(records),
        "old/results.json": json.dumps(records[:2]),
        "short.json": json.dumps([records[0] | {"keypoints": [1, 2, 3]}]),
        "made.yaml": SKELETON_YAML,
    }
    (tmp_path / "old").mkdir()
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in contents}


def test_the_tool(
    tool: ModuleType, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "new/report.html")
    common = ["--annotations", files["val.json"], "--skeleton", files["made.yaml"], "--out", out]
    tool.main([files["results.json"], *common])
    assert capsys.readouterr().out == f"{out}\n"
    assert 'id="difference"' not in Path(out).read_text()
    tool.main([files["results.json"], *common, "--compare", files["old/results.json"]])
    page = Path(out).read_text()
    stats = [
        evaluate(files["val.json"], files[name], SKELETON)["AP"]
        for name in ("results.json", "old/results.json")
    ]
    assert figures(page, "difference")["AP"] == f"{stats[1] - stats[0]:+.3f}"
    assert "old/results.json" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.json"], "results none.json: cannot be read ("),
        (["{results.json}", "--skeleton", "cat"], "unknown skeleton 'cat'"),
        (["{results.json}", "--skeleton", "coco"], "no category has 17 keypoints, as the ske"),
        (["{short.json}"], "short.json: result 0 has 3 keypoint numbers; the skeleton needs 3 x 5"),
        (["{results.json}", "--images", "nowhere"], "nowhere: there is no such folder"),
        (["{results.json}", "--compare", "{made.yaml}"], "made.yaml: cannot be read ("),
        (["{results.json}", "--out", "{made.yaml}/report.html"], "could not be written"),
        (["{results.json}", "--weights", "w.pth"], "--weights needs --images, the folder or zip"),
        (["{results.json}", "--cfg", "{made.yaml}"], "--cfg needs --weights, whose settings it"),
        (["{results.json}", "--weights", "w.pth", "--images", "."], "w.pth: no such file or folde"),
    ],
)
def test_wrong_input_is_one_line(
    tool: ModuleType,
    files: dict[str, str],
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = arguments
    for name, path in files.items():
        filled = [argument.replace(f"{{{name}}}", path) for argument in filled]
    if "--skeleton" not in filled:
        filled = ["--skeleton", files["made.yaml"], *filled]
    status = 3 if "written" in said else 2
    assert status_of(tool.main, ["--annotations", files["val.json"], *filled]) == status
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and not printed.out


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("results.json", "RESULTS"),
        ("val.json", "--annotations"),
        ("old/results.json", "--compare"),
        ("made.yaml", "--skeleton"),
    ],
)
def test_the_page_replaces_no_file_that_it_is_made_from(
    tool: ModuleType,
    files: dict[str, str],
    name: str,
    flag: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = Path(files[name]).read_bytes()
    (tmp_path / "link.html").symlink_to(files[name])
    given = [files["results.json"], "--annotations", files["val.json"]]
    given += ["--compare", files["old/results.json"], "--skeleton", files["made.yaml"]]
    for out in (files[name], f"{tmp_path}/old/../{name}", str(tmp_path / "link.html")):
        assert status_of(tool.main, [*given, "--out", out]) == 2
        said = f"--out {out}: would replace {flag}; name another file\n"
        assert capsys.readouterr().err == said
    assert Path(files[name]).read_bytes() == before


def test_fewer_than_no_worst_images_are_refused(
    tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        tool.main(["r.json", "--annotations", "a.json", "--worst", "-5"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("error: --worst -5: it must be at least 0\n")


@pytest.mark.parametrize(
    "field", [{"area": float("nan")}, {"keypoints": None}, {"bbox": [1, 2, 3]}, {"image_id": "7"}]
)
def test_annotations_are_checked_as_for_scoring(
    tool: ModuleType,
    files: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    field: dict[str, Any],
) -> None:
    """What cannot be used is repaired or left out, and named."""
    annotations, records = made_set()
    annotations["annotations"][0] |= field
    path = tmp_path / "val.json"
    path.write_text(json.dumps(annotations))
    out = tmp_path / "report.html"
    arguments = [files["results.json"], "--annotations", str(path), "--out", str(out)]
    with caplog.at_level(logging.WARNING, "swahr"):
        tool.main([*arguments, "--skeleton", files["made.yaml"]])
    assert f"annotation {annotations['annotations'][0]['id']}" in caplog.text
    dataset = KeypointDataset(path, AbsentImages(tmp_path), SKELETON, strict=False)
    stats = evaluate(dataset.coco, adapt_records(records, dataset), SKELETON)
    assert figures(out.read_text(), "ap")["AP"] == f"{stats['AP']:.3f}"


def test_the_tool_shows_metrics_of_the_user(
    tool: ModuleType, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.html"
    monkeypatch.setitem(METRICS, "mine", lambda dataset, records: len(dataset) + len(records))
    given = [files["results.json"], "--annotations", files["val.json"], "--out", str(out)]
    tool.main([*given, "--skeleton", files["made.yaml"], "--compare", files["old/results.json"]])
    assert re.findall(r'data-figure="mine">([^<]+)<', out.read_text()) == ["6.000", "5.000"]


def test_names_of_runs(tool: ModuleType) -> None:
    assert tool.run_names(["a/b.json"]) == ["b.json"]
    assert tool.run_names(["x/a/b.json", "x/c/b.json"]) == ["a/b.json", "c/b.json"]
    assert tool.run_names(["b.json", "b.json"]) == ["first: b.json", "second: b.json"]


# -- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1280,800",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found_browser = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver)
    )
    yield found_browser
    found_browser.quit()


def opened(browser: Any, page: str, folder: Path, dark: bool = False) -> None:
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(path.as_uri())


def test_the_page_in_a_browser(browser: Any, tmp_path: Path) -> None:
    annotations, records = made_set()
    opened(browser, make_report(annotations, {"a": records}, SKELETON), tmp_path)
    ap = evaluate(annotations, records, SKELETON)["AP"]
    assert browser.find_element("css selector", "#ap [data-figure=AP]").text == f"{ap:.3f}"
    cards = browser.find_elements("css selector", "article.card")

    def visible(kind: str) -> list[str]:
        button = browser.find_element("css selector", f'button[data-filter="{kind}"]')
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert len(browser.find_elements("css selector", 'button[aria-pressed="true"]')) == 1
        return [card.find_element("tag name", "b").text for card in cards if card.is_displayed()]

    assert visible("swap") == ["2.png"]
    assert visible("missed") == ["3.png"]
    assert visible("jitter") == []
    assert visible("") == ["3.png", "2.png"]
    drawn = "return [...document.images].every(each => each.complete && each.naturalWidth > 0)"
    assert browser.execute_script(drawn)
    assert browser.get_log("browser") == []


def test_maps_are_shown_under_the_pointer(browser: Any, tmp_path: Path) -> None:
    """Over the image, over a button, and after a click until the next one."""
    chains = importlib.import_module("selenium.webdriver.common.action_chains")
    annotations, records, store = with_images(tmp_path)
    page = make_report(annotations, {"a": records}, SKELETON, images=store, draw_maps=painted)
    opened(browser, page, tmp_path)
    card = browser.find_element("css selector", "article.card")
    heading = card.find_element("tag name", "b")
    prediction = card.find_element("css selector", "figure:nth-child(2) .stack")
    tags = card.find_element("css selector", "[data-show=tags]")

    def shown_over(element: Any) -> list[str]:
        chains.ActionChains(browser).move_to_element(element).perform()
        maps = card.find_elements("css selector", "[data-map]")
        return [each.get_attribute("data-map") for each in maps if each.is_displayed()]

    assert shown_over(heading) == []
    assert shown_over(prediction) == ["heatmaps"]
    assert shown_over(tags) == ["tags"]
    assert shown_over(heading) == []
    tags.click()
    assert shown_over(heading) == ["tags"] == shown_over(prediction)
    assert tags.get_attribute("aria-pressed") == "true"
    image, drawing = prediction.find_elements("css selector", "img")[::2]
    assert image.rect == drawing.rect
    tags.click()
    browser.execute_script("arguments[0].blur()", tags)
    assert shown_over(heading) == []
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [500, 1280])
def test_the_page_is_no_wider_than_its_window(browser: Any, tmp_path: Path, width: int) -> None:
    annotations, _ = made_set()
    people = [{**person(4, 3), "keypoints": [50, 60, 2] * 17, "bbox": [10, 10, 100, 100]}]
    annotations = {**annotations, "annotations": people}
    records = [{**found(3), "keypoints": [52, 61, 1] * 17}]
    name = "a_very_long_name_of_a_file_of_results_" * 4
    browser.set_window_size(width, 800)
    opened(browser, make_report(annotations, {name: records, "b": records}, COCO), tmp_path)
    inner, needed = browser.execute_script(
        "return [innerWidth, document.documentElement.scrollWidth]"
    )
    assert needed <= inner


def test_dark_and_light(browser: Any, tmp_path: Path) -> None:
    """Text of page and charts stands out from the ground in both."""
    annotations, records = made_set()
    page = make_report(annotations, {"a": records}, SKELETON)
    script = """
      const light = (element, name) => {
        const color = getComputedStyle(element)[name].match(/\\d+/g).slice(0, 3).map(Number);
        return color.reduce((sum, value) => sum + value, 0) / 3;
      };
      return [light(document.body, "backgroundColor"), light(document.querySelector("td"), "color"),
              light(document.querySelector(".panel svg text"), "fill")];
    """
    opened(browser, page, tmp_path)
    ground, text, chart = browser.execute_script(script)
    assert ground > 230 and text < 80 and chart < 80
    opened(browser, page, tmp_path, dark=True)
    ground, text, chart = browser.execute_script(script)
    assert ground < 40 and text > 180 and chart > 180
