from benchmarks.simulator.device import paper
from benchmarks.simulator.families import cases
from benchmarks.simulator.picture import write_picture
from benchmarks.simulator.study import play_case


def test_a_picture_is_written(tmp_path):
    outcome = play_case(cases(paper())[0], range(2), 60)
    write_picture([outcome] * 5, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
