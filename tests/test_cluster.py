"""Does the same study run on a cluster, with the same rows?"""

import pytest

from tfprune import study
from tfprune.study.trial import Recipe


def table(rows):
    return [{name: value for name, value in row.items() if name not in ("wall_time", "started")} for row in rows]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # distributed and what it stands on, in their own code
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_dask_cluster_gives_the_rows_of_this_machine(tmp_path):
    import joblib

    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    recipe = Recipe(batch_size=100, epochs=2, patience=1)
    grid = study.Study("small", "moons", "mlp", (0.5,), (0, 1), ("one_shot",), recipe=recipe)
    here = study.run_study(grid, out=tmp_path / "here", progress=False)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        there = study.run_study(grid, out=tmp_path / "there", jobs=2, backend="dask", progress=False)
        with joblib.parallel_config("dask"):  # as users of joblib say it
            more = study.Study("small", "moons", "mlp", (0.5,), (0, 1, 2), ("one_shot",), recipe=recipe)
            again = study.run_study(more, out=tmp_path / "there", jobs=2, progress=False)
    assert [row["error"] for row in again] == [None] * 3
    assert table(there) == table(here)
    assert table(again[:2]) == table(here)


def test_dask_without_a_cluster_says_what_to_do(tmp_path):
    pytest.importorskip("distributed", reason="needs the extra dask")
    grid = study.Study("small", "moons", "mlp", (0.5,), (0, 1), ("one_shot",))
    with pytest.raises(ValueError, match="create a Dask Client"):
        study.run_study(grid, out=tmp_path, jobs=2, backend="dask", trial_function=len, progress=False)
