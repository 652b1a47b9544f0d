"""The page in headless Chromium: hostile text, keyboard, filters, links, widths, themes, following."""

import json
import re
import threading

import pytest

from benchmarks.view_browser import browser, browser_fault
from benchmarks.view_rounds import Synthetic, write_run
from recipes.page.document import style
from recipes.page.report import shown_runs, static_page
from recipes.page.run_reader import open_run
from recipes.page.serving import PageServer
from rewards.problem import Problem, Response, Score, Verdict
from rl.run_folder import RunFolder
from rollouts.rollout import Group, Rollout

pytestmark = pytest.mark.skipif(browser_fault() is not None, reason=str(browser_fault()))

SMALL = Synthetic(num_rounds=5, num_groups=4, group_size=4, mean_tokens=12, vocabulary=300)
PAGES = ("runs", "curves", "map", "rollouts")
MARKUP = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror='window.pwned=1'>",
    '"><svg onload=window.pwned=1>',
    "<!-- <script>",
    "{{constructor.constructor('window.pwned=1')()}}",
    "<style>*{display:none}</style>",
    "<base href=http://evil.example/>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<a href='javascript:window.pwned=1'>x</a>",
    "&lt;b&gt; &amp; <b>",
    "`${window.pwned=1}`",
)
# What each must look like: hidden, reordering and broken characters are spelled out.
SPELLED = {
    "\u202eevil\u202c \u2066x\u2069": "\\u202Eevil\\u202C \\u2066x\\u2069",
    "a\u0000b\u001b[31m\u0085": "a\\u0000b\\u001B[31m\\u0085",
    "\u200bz\ufeff\u00ad\u200f": "\\u200Bz\\uFEFF\\u00AD\\u200F",
    "l\u2028p\u2029": "l\\u2028p\\u2029",
    "t\U000e0041": "t\\u{E0041}",
    "c\r": "c\\r",
}
BROKEN = {"\ud800 \udfff": "\\uD800 \\uDFFF", "x\udbff\u0041": "x\\uDBFFA"}


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture
def open_page(chromium):
    """Opens an address; everything the page complains of, asks for or pops up fails the test."""
    faults, contexts = [], []

    def visit(address, width=1280, scheme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": 844}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda asked: faults.append(asked.url) if _outside(asked.url) else None)
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert faults == []


def _outside(url):
    return not url.startswith(("file:", "data:", "http://127.0.0.1:"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A page of a small run, and the run."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    write_run(folder, SMALL)
    return save(folder), open_run(folder)


def save(*folders):
    file = folders[0].parent / "view.html"
    page = static_page(shown_runs([open_run(folder) for folder in folders]), 10**9)
    file.write_text(page)
    return f"file://{file}"


def hostile_run(folder, texts, tokenizer):
    """A run in which everything that a model, a data set or a config can say is hostile."""
    say = MARKUP[0]
    run = RunFolder.create(folder, json.dumps({"model": say, say: {say: say}}), {say: say})
    if tokenizer:
        vocabulary = {f"{text}\u2581": i for i, text in enumerate(texts)}
        (folder / "final").mkdir()
        (folder / "final" / "tokenizer.json").write_text(
            json.dumps({"model": {"vocab": vocabulary}, "decoder": {"type": "Metaspace"}})
        )
    for index, text in enumerate(texts):
        members = tuple(
            Rollout(
                token_ids=(index, index),
                sampled=(False, True),
                logprobs=(0.0, -1.0),
                response=Response(text=f"{text} ", prefill=say, num_tokens=1, max_tokens=3),
                score=Score(value=value, verdict=Verdict.WRONG, parts={say: value, text: 0.5}),
                versions=((0, 1, 2),),
            )
            for value in (0.0, 1.0)
        )
        prompt = text if index % 2 else ({"role": say, "content": text},)
        problem = Problem(id=text, prompt=prompt, answer=text, source=say)
        run.write_round(index, [Group(problem=problem, rollouts=members)])
        run.log({"round": index, "updates": 1, "reward/mean": 0.5, f"reward/part/{say}": 1.0,
                 f"reward/part/{text}": 0.5, f"verdict/{say}": 0.1, say: 1.0})  # fmt: skip
    run.write_eval(
        "<img src=x onerror=window.pwned=1>",
        {"pass_at_1": 0.5, "pass_at_1_interval": [0.4, 0.6], "split": say},
    )
    run.write_summary({"difference": {"before": say, "after": say, "mean": 0.1,
                                      "interval": [0.0, 0.2], "num_problems": say}})  # fmt: skip
    run.close()


@pytest.mark.parametrize("tokenizer", [False, True], ids=["texts", "tokens"])
def test_hostile_text_is_text(open_page, tmp_path, tokenizer):
    texts = [*MARKUP, *SPELLED, *({} if tokenizer else BROKEN)]
    folder = tmp_path / "<img src=x onerror=window.pwned=1>"
    hostile_run(folder, texts, tokenizer)
    address = save(folder)
    page = open_page(address)
    scripts = page.locator("script").count()
    for view in (*PAGES, "map?order=id", "rollouts?text=<&problem=<script", "rollouts?run=<b>"):
        page.goto(f"{address}#{view}")
        page.wait_for_timeout(50)
        assert page.locator("script").count() == scripts
    for index, text in enumerate(texts):
        page.goto(f"{address}#rollouts?round={index}&group=0")
        shown = (SPELLED | BROKEN).get(text, text)
        page.wait_for_selector(f"#detail .soft:text('round {index} ')")
        assert page.locator(".group-head h2").text_content() == shown
        body = page.locator(".completion .text").first
        assert body.locator(".prefill").text_content() == MARKUP[0]
        assert body.text_content() == f"{MARKUP[0]}{shown} "
        assert (body.locator(".tok").count() == 1) is tokenizer
    made = "img, iframe, object, embed, base, link[rel=stylesheet], [onload], [onerror], b > script"
    assert page.locator(made).count() == 0
    assert page.locator("meta[http-equiv]").count() == 1
    assert page.locator("a[href^='javascript']").count() == 0
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.baseURI").startswith("file:")


def test_what_was_not_graded_is_neither_right_nor_wrong(open_page, tmp_path):
    run = RunFolder.create(tmp_path / "run", "model: m\n", {})
    rollout = Rollout(
        token_ids=(0, 1),
        sampled=(False, True),
        logprobs=(0.0, -1.0),
        response=Response(text="x", num_tokens=1, max_tokens=3),
        score=Score(value=0.0, verdict=Verdict.SANDBOX_ERROR),
        versions=((2, 1, 2),),
    )
    problem = Problem(id="p", prompt="?", answer="!", source="s")
    run.write_round(0, [Group(problem=problem, rollouts=(rollout, rollout))])
    run.log({"round": 0, "mismatch/abs": 0.01, "drift/abs": 0.02, "update/learning_rate": 4e-5})
    run.close()
    page = open_page(f"{save(run.path)}#map")
    page.wait_for_timeout(200)
    assert "none graded" in page.locator(".scale-line").text_content()
    assert page.evaluate("document.activeElement.tagName") == "BODY"  # the address focuses nothing
    page.locator(".map").focus()
    assert page.locator("main .told").text_content() == "Round 0, row 1: p · 0 of 0 right"
    page.keyboard.press("Enter")
    page.wait_for_selector(".completion")
    assert "0 of 0 right · weights v2" in page.locator(".group-head p").text_content()
    assert "sandbox error" in page.locator(".verdict").first.text_content()
    page.keyboard.press("2")
    page.wait_for_selector(".panel .legend li")
    ticks = page.locator(".tick[text-anchor=middle]").all_text_contents()
    assert set(ticks) == {"0"}  # one round, one tick
    legends = page.locator(".legend").all_text_contents()
    assert "mismatch0.01drift0.02" in legends and "4e\u22125" in legends


def test_tokens_join_to_the_text_and_half_characters_to_whole_ones(open_page, tmp_path):
    run = RunFolder.create(tmp_path / "run", "model: m\n", {})
    # The euro sign in three tokens of a byte each, then a line break and an end.
    vocabulary = {"\u00e2": 0, "\u0124": 1, "\u00ac": 2, "x\u010a": 3, "<end>": 4}
    added = [{"id": 4, "content": "<end>", "special": True}]
    (run.path / "final").mkdir()
    (run.path / "final" / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": vocabulary}, "decoder": {"type": "ByteLevel"},
                    "added_tokens": added})
    )  # fmt: skip
    rollout = Rollout(
        token_ids=(3, 0, 1, 2, 3, 4),
        sampled=(False, True, True, True, True, True),
        logprobs=(0.0, -0.01, -0.01, -0.2, -5.0, -0.5),
        response=Response(text="\u20acx\n", num_tokens=5, max_tokens=9),
        score=Score(value=1.0, verdict=Verdict.CORRECT),
        versions=((0, 1, 6),),
    )
    problem = Problem(id="p", prompt="?", answer={"target": 3}, source="s")
    run.write_round(0, [Group(problem=problem, rollouts=(rollout, rollout))])
    run.close()
    page = open_page(f"{save(run.path)}#rollouts")
    spans = page.locator("#sample-0 .tok")
    spans.first.wait_for()
    assert page.locator(".prompt .text").nth(1).text_content() == '{"target":3}'
    assert spans.all_text_contents() == ["·", "·", "\u20ac", "x↵\n", "<end>"]
    assert "special" in spans.nth(4).get_attribute("class")
    strengths = [
        float(re.search(r"/ ([\d.]+)\)", span.evaluate("e => getComputedStyle(e).background"))[1])
        for span in (spans.nth(2), spans.nth(4), spans.nth(3))
    ]
    assert (
        strengths == sorted(strengths) and strengths[0] < strengths[2]
    )  # the less likely, the stronger
    spans.nth(3).hover()
    assert (
        "· logprob \u22125 · probability 0.7% ·"
        in page.locator(".token-told").text_content() + " ·"
    )


def test_keys_move_colour_search_and_change_pages(open_page, small):
    page = open_page(f"{small[0]}#runs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("4")
    page.wait_for_selector(".completion .tok")
    first = page.locator(".group-head h2").text_content()
    page.keyboard.press("n")
    page.wait_for_selector(".row[aria-selected=true][data-n='1']")
    assert "group=1" in page.url and "round=0" in page.url
    page.keyboard.press("p")
    page.wait_for_selector(".row[aria-selected=true][data-n='0']")
    page.wait_for_selector(f".group-head h2:text-is('{first}')")
    page.keyboard.press("c")
    assert "colour=ratio" in page.url and page.locator("#colour-ratio").is_checked()
    page.locator("#sample-1").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#sample-1 .tok.now").get_attribute("data-i") == "0"
    assert "token 1 of" in page.locator(".token-told").text_content()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter-text"
    page.keyboard.type("n2")  # typing moves nothing
    assert page.locator("#filter-text").input_value() == "n2" and "#rollouts" in page.url
    page.locator("#theme").focus()
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.wait_for_selector(".panel path")
    page.locator(".plot").first.focus()
    page.keyboard.press("ArrowLeft")
    assert "round 4" in page.locator(".panel .at").first.text_content()
    page.keyboard.press("ArrowLeft")
    assert "round 3" in page.locator(".panel .at").first.text_content()


def test_filters_list_what_passes_and_stand_in_the_address(open_page, small):
    address, run = small
    groups = [(i, p, g) for i in run.rounds() for p, g in enumerate(run.groups(i))]
    page = open_page(f"{address}#rollouts")
    count = page.locator(".count")
    page.wait_for_selector(f".count:text-is('{len(groups)} groups')")
    page.check("#verdict-no_answer")
    wanted = [
        (i, p) for i, p, g in groups if any(r.score.verdict == "no_answer" for r in g.rollouts)
    ]
    assert 0 < len(wanted) < len(groups)
    assert count.text_content() == f"{len(wanted)} group{'s' * (len(wanted) > 1)}"
    page.uncheck("#verdict-no_answer")
    page.fill("#filter-from", "3")
    page.wait_for_selector(".count:text-is('8 groups')")
    page.fill("#filter-from", "")
    word = groups[7][2].rollouts[2].response.text.split(" ")[3]
    found = [(i, p) for i, p, g in groups if any(word in r.response.text for r in g.rollouts)]
    page.fill("#filter-text", word.upper())
    page.wait_for_selector(f".count:text-is('{len(found)} group{'s' * (len(found) > 1)} found')")
    page.wait_for_selector(".tok.hit")
    assert f"text={word.upper()}" in page.url
    again = open_page(page.url)
    again.wait_for_selector(f".count:text-is('{count.text_content()}')")
    again.wait_for_selector(".tok.hit")
    heading = ".group-head h2"
    assert again.locator(heading).text_content() == page.locator(heading).text_content()
    again.fill("#filter-problem", "no such problem")
    again.click("#clear-filters")
    again.wait_for_selector(f".count:text-is('{len(groups)} groups')")
    assert "text=" not in again.url


def test_a_link_leads_to_a_completion(open_page, small):
    address, run = small
    page = open_page(f"{address}#rollouts?round=3&group=2&sample=1&colour=advantage")
    page.wait_for_selector("#detail .soft:text('round 3 ')")
    group = run.groups(3)[2]
    assert page.locator(".group-head h2").text_content() == group.problem.id
    tokens = page.locator("#sample-1 .tok:not(.special)").all_text_contents()
    assert "".join(tokens) == group.rollouts[1].response.text
    assert "linked" in page.locator("#sample-1").get_attribute("class")
    page.click("#sample-3 header a")
    page.wait_for_selector("#sample-3.linked")
    assert "round=3&group=2&sample=3" in page.url
    gone = open_page(f"{address}#rollouts?round=77&group=0")
    gone.wait_for_selector(".empty p:text('Round 77, group 0 is not in this page')")


@pytest.mark.parametrize(("width", "scheme"), [(1024, "light"), (320, "dark")])
def test_nothing_is_wider_than_the_screen(open_page, small, width, scheme):
    page = open_page(small[0], width, scheme)
    for view in (*PAGES, "curves?smooth=0.8&log=1", "map?order=id"):
        page.goto(f"{small[0]}#{view}")
        page.wait_for_timeout(100)
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, view
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 23, 26)" if scheme == "dark" else "rgb(247, 247, 245)"
    )


def test_the_map_is_walked_by_arrows_and_opens_a_group(open_page, small):
    page = open_page(f"{small[0]}#map?order=round")
    page.locator(".map").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert page.locator(".told").text_content().startswith("Round 2, row 2: synthetic/")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail .soft:text('round 2 ')")
    page.go_back()
    page.wait_for_selector(".map")


def test_every_control_has_a_name(open_page, small):
    page = open_page(small[0])
    for view in PAGES:
        page.goto(f"{small[0]}#{view}")
        page.wait_for_timeout(100)
        nameless = page.evaluate(
            "[...document.querySelectorAll('input, select, button')].filter((e) => "
            "!(e.labels?.length || e.ariaLabel || e.textContent.trim())).map((e) => e.outerHTML)"
        )
        assert nameless == []


def test_several_runs_lie_over_one_another(open_page, tmp_path):
    for name in ("first", "second"):
        write_run(tmp_path / name, SMALL)
    page = open_page(f"{save(tmp_path / 'first', tmp_path / 'second')}#curves")
    page.wait_for_selector(".panel path")
    lines = page.locator(".panel").first.locator("path.line")
    assert lines.count() == 2
    page.uncheck("#shown-run-1")
    page.wait_for_timeout(200)
    assert lines.count() == 1 and "hide=1" in page.url
    assert page.evaluate("document.activeElement.id") == "shown-run-1"  # focus survives a redraw
    page.locator(".plot").first.focus()
    page.evaluate("dispatchEvent(new HashChangeEvent('hashchange'))")
    assert page.evaluate("document.activeElement.id") == "plot-Reward"


def test_the_theme_can_be_chosen(open_page, small):
    page = open_page(f"{small[0]}#runs", scheme="light")
    for expected in ("rgb(247, 247, 245)", "rgb(20, 23, 26)", "rgb(247, 247, 245)"):
        page.click("#theme")  # light, dark, auto
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == expected


def test_text_stands_out_from_what_it_is_on():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def mixed(first, second, share):
        pairs = [(int(first[i : i + 2], 16), int(second[i : i + 2], 16)) for i in (1, 3, 5)]
        return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)

    themes = re.findall(r"color-scheme: \w+;(.*?)\n\s*}", style(), re.DOTALL)
    assert len(themes) == 3
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        for ink in ("ink", "soft", "accent"):
            for paper in ("page", "card", "fill"):
                light, dark = sorted((luminance(colours[ink]), luminance(colours[paper])))[::-1]
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)  # WCAG 2.2, AA
        for hue in ("low", "high"):  # a token is tinted by at most 64% of a hue
            on = luminance(mixed(colours[hue], colours["card"], 0.64))
            light, dark = sorted((luminance(colours["ink"]), on))[::-1]
            assert (light + 0.05) / (dark + 0.05) >= 4.5, hue


def test_the_served_page_follows_a_run(open_page, tmp_path):
    write_run(tmp_path / "run", SMALL)
    server = PageServer(shown_runs([open_run(tmp_path / "run")]), 0)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        page = open_page(f"{server.url}#rollouts?round=1&group=1&text=")
        page.wait_for_selector(".count:text-is('20 groups')")
        page.wait_for_selector("#detail .soft:text('round 1 ')")
        folder = RunFolder(tmp_path / "run")
        folder.write_round(5, open_run(tmp_path / "run").groups(0))
        page.wait_for_selector(".count:text-is('24 groups')", timeout=10_000)
        assert page.locator(".row[aria-selected=true]").get_attribute("data-n") == "5"  # stays
        page.goto(f"{server.url}#rollouts?round=5&group=0")
        page.wait_for_selector("#detail .soft:text('round 5 ')")
        assert page.locator("#colour-ratio").is_disabled()  # no second file yet
        folder.write_trained(5, list(open_run(tmp_path / "run").trained(0).values()))
        page.wait_for_selector("#colour-ratio:enabled", state="attached", timeout=10_000)
        folder.close()
        page.close()
    finally:
        server.shutdown()
        server.server_close()
