from citeflow.kubeflow.run_logs import Shown, new_lines

AT = "2026-11-28T10:00:0{}.000000001Z {}"


def test_new_lines_shows_each_line_of_one_nanosecond_once():
    log = [AT.format(0, "a"), AT.format(1, "b"), AT.format(1, "b")]
    texts, shown = new_lines(log, Shown())
    assert texts == ["a", "b", "b"]
    log += [AT.format(1, "c"), AT.format(2, "d"), "without a time"]
    for expected in (["c", "d", "without a time"], ["without a time"]):
        texts, shown = new_lines(log, shown)
        assert texts == expected
