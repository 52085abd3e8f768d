"""Progress: a bar on a terminal, and lines, few of them, elsewhere."""

import io

from wenet_trainer.progress import TOLD_EVERY_S, tqdm


class Terminal(io.StringIO):
    """Takes text as a terminal does."""

    def isatty(self) -> bool:
        return True


def run(file, clock=None, **how):
    """Five steps that are shown; the clock moves on by some seconds with each."""
    with tqdm(total=5, desc="train", file=file, **how) as bar:
        for step in range(5):
            if clock is not None:
                bar.start_t -= clock
                bar.last_print_t -= clock
            bar.set_postfix_str(f"loss {step}")
            bar.update()
    return file.getvalue()


def test_a_terminal_gets_a_bar():
    assert run(Terminal(), mininterval=0).count("\r") > 5


def test_a_file_gets_nothing_of_what_is_soon_over():
    assert run(io.StringIO()) == ""


def test_a_file_gets_whole_lines():
    told = run(io.StringIO(), clock=TOLD_EVERY_S + 1)
    assert "\r" not in told
    assert [line.split(":")[0] for line in told.splitlines()] == ["train"] * len(told.splitlines())
    assert 5 <= len(told.splitlines()) <= 6
    assert "5/5" in told.splitlines()[-1]


def test_what_is_written_past_the_bar_arrives(capsys):
    with tqdm(total=5, desc="train") as bar:
        tqdm.write("epoch 1")
        bar.update()
    assert capsys.readouterr() == ("epoch 1\n", "")
