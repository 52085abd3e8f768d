import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "convert.md"


def test_the_pages_example_runs_and_prints_what_the_page_says(capsys):
    code, printed, *_ = re.findall(r"^```(?:python)?\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})  # noqa: S102
    assert capsys.readouterr().out == printed
