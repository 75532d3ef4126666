"""Does a folder tell how far its study is, without touching it?"""

import pytest

from tfprune import study
from tfprune.study import progress
from tfprune.study.results import Results, is_locked


def grid():
    return study.Study("small", "moons", "mlp", (0, 0.5), (0, 1), ("one_shot",))


def run(folder, function, study_of=grid):
    return study.run_study(study_of(), out=folder, progress=False, trial_function=function)


def test_finished_study_has_nothing_left(tmp_path):
    run(tmp_path, lambda trial: {"accuracy": 0.9})
    found = progress.status(tmp_path)
    assert (found["study"], found["trials"], found["done"], found["failed"], found["left"]) == ("small", 4, 4, 0, 0)
    assert (found["active"], found["running"], found["seconds_left"]) == (False, [], 0.0)


def test_study_in_progress_counts_what_is_done_failed_running_and_left(tmp_path):
    seen = []

    def work(trial):
        if trial.seed == 1:
            seen.append(progress.status(tmp_path))
            raise ArithmeticError("no")
        return {"accuracy": 0.9}

    run(tmp_path, work)
    first, second = seen
    assert (first["done"], first["failed"], first["left"]) == (2, 0, 2)
    assert (second["done"], second["failed"], second["left"]) == (2, 1, 1)
    assert first["active"]
    assert len(first["running"]) == 1
    assert first["seconds_left"] is not None
    assert progress.status(tmp_path)["failed"] == 2


def test_time_left_is_judged_by_trials_of_the_same_kind():
    rows = [
        {"strategy": "one_shot", "ratio": 0.5, "wall_time": 10.0},
        {"strategy": "one_shot", "ratio": 0.9, "wall_time": 30.0},
        {"strategy": "iterative", "ratio": 0.5, "wall_time": 100.0},
    ]
    assert progress.seconds([("one_shot", 0.5)], rows) == 10
    assert progress.seconds([("one_shot", 0.7)], rows) == 20
    assert progress.seconds([["iterative", 0.9], ("one_shot", 0.9)], rows, jobs=2) == (100 + 30) / 2
    assert progress.seconds([("new", 0.5)], rows, jobs=4) == pytest.approx(140 / 3)
    assert progress.seconds([("new", 0.5)], []) is None


def test_lock_is_seen_and_looking_does_not_take_it(tmp_path):
    with Results(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with Results(tmp_path):
        pass


def test_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(study.ResultsError, match=r"No study found\. Received: .*holds no study\.json"):
        progress.status(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(study.ResultsError, match=r"study\.json is damaged"):
        progress.status(tmp_path)


def test_plan_holds_the_whole_grid_as_settings(tmp_path):
    run(tmp_path, lambda trial: {})
    plan = progress.read_plan(tmp_path)
    from tfprune.study import settings

    assert settings.from_settings(plan["settings"]) == grid()
    assert set(plan["trials"]) == {trial.key for trial in grid().trials()}
