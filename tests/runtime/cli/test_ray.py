"""Images over the workers of a cluster: each once, whatever is lost, as the same command gives without one.

What is asked of Ray is tested in the real one, of two nodes, where it is installed; the rest with workers in this
process.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_process import Finished, environment
from in_process import invoke
from PIL import Image

import edgepure
from edgepure.cli import spread
from edgepure.demo import demo_images
from edgepure.errors import EdgepureError
from edgepure.machine.cluster import room

ARGUMENTS = ("--preset", "uniform", "--votes", "1", "--seed", "5", "--threads", "1", "--json")


def run(*arguments: str) -> Finished:
    done = invoke(*arguments)
    return Finished(done.exit_code, done.stdout, done.stderr)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * image[0]).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, files: list[bytes]) -> None:
    """As WebDataset has it: a key for each image, and what else belongs to it."""
    with tarfile.open(path, "w") as archive:
        for number, data in enumerate(files):
            for name, content in ((f"{number:04d}.png", data), (f"{number:04d}.cls", b"3")):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A folder with a file that is no image in it, and a tar file."""
    folder = tmp_path_factory.mktemp("inputs")
    files = [png(image) for image in demo_images().adversarial[:16]]
    (folder / "photos").mkdir()
    for number, data in enumerate(files[:9]):
        (folder / "photos" / f"{number}.png").write_bytes(data if number != 4 else b"no image")
    write_tar(folder / "more.tar", files[9:])
    return str(folder / "photos"), str(folder / "more.tar")


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """But for the time that it took, and for rounding: other images shared the calls."""

    def told(document: dict[str, Any]) -> list[Any]:
        rounded = json.loads(json.dumps(document["results"]), parse_float=lambda text: round(float(text), 4))
        return [{key: value for key, value in one.items() if key not in ("seconds", "file")} for one in rounded]

    return bool(found["results"]) and told(found) == told(wanted) and found["failures"] == wanted["failures"]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Workers in this process, in the place of a cluster: the parts come in another order, one of them twice, and the
    run may end before the last ones."""
    done: list[int] = []
    ends = [10**6]

    def on_cluster(task: Any, missing: list[dict[str, Any]], options: Any) -> Iterator[Any]:
        import pickle

        worker = spread.Worker(pickle.loads(pickle.dumps(task)))
        for part in [*reversed(missing), missing[-1]]:
            if len(done) >= ends[0]:
                raise EdgepureError("the cluster is gone", code="E-ray-cluster")
            answer = worker({"number": np.array([part["number"]]), "sources": np.array([part["sources"]], object)})
            done.append(part["number"])
            yield int(answer["number"][0]), pickle.loads(answer["done"][0])

    monkeypatch.setattr(spread, "_on_cluster", on_cluster)

    def ending_after(parts: int) -> list[int]:
        ends[0] = parts
        done.clear()
        return done

    return ending_after


def test_answers_are_those_of_one_machine(inputs: tuple[str, ...], workers: Any) -> None:
    digits = str(edgepure.demo_bundle())
    wanted = run("classify", digits, *inputs, *ARGUMENTS)
    found = run("classify", digits, *inputs, *ARGUMENTS, "--ray", "local", "--part", "5")
    assert found.code == wanted.code == 4, "one is no image"
    assert len(found.json["results"]) == 15 and same(found.json, wanted.json)


def test_purified_files_are_those_of_one_machine(inputs: tuple[str, ...], workers: Any, tmp_path: Path) -> None:
    digits, arguments = str(edgepure.demo_bundle()), ("--preset", "uniform", "--seed", "5", "--json")
    for out, more in (("here", ()), ("there", ("--ray", "local", "--part", "3"))):
        run("purify", digits, *inputs, *arguments, "-o", str(tmp_path / out), *more)
    files = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "there").iterdir()) and len(files) == 15
    for name in files:
        here, there = (np.asarray(Image.open(tmp_path / place / name), int) for place in ("here", "there"))
        assert abs(here - there).max() <= 1


def test_a_run_goes_on_where_it_was_ended(inputs: tuple[str, ...], workers: Any, tmp_path: Path) -> None:
    command = ("classify", str(edgepure.demo_bundle()), *inputs, *ARGUMENTS, "--ray", "local", "--part", "4")
    keep = ("--work", str(tmp_path / "parts"))
    done = workers(2)
    assert run(*command, *keep).json["error"]["code"] == "E-ray-cluster" and done == [3, 2]
    (tmp_path / "parts" / "part-000002.json").write_text("{")  # a disk was full
    done = workers(10**6)
    found = run(*command, *keep)
    assert done == [2, 1, 0, 2], "what was kept is not done again, what cannot be read is"
    assert same(found.json, run(*command).json)
    done = workers(10**6)
    assert same(run(*command, *keep).json, found.json) and done == []
    assert run(*command[:-1], "5", *keep).json["error"]["code"] == "E-ray-work"


def test_parts_of_a_few_images_are_small(inputs: tuple[str, ...], workers: Any) -> None:
    """Else one worker would get all of them, and nothing would be heard before the end."""
    done = workers(10**6)
    run("classify", str(edgepure.demo_bundle()), *inputs, *ARGUMENTS, "--ray", "local", "--slots", "5")
    assert set(done) == {0, 1, 2, 3}, "a part fills the slots"


class Nodes:
    """A cluster, as far as its room is asked for."""

    def __init__(self, *nodes: dict[str, float]) -> None:
        self._nodes = [{"Alive": True, "Resources": node} for node in nodes]
        self._nodes.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}})

    def nodes(self) -> list[dict[str, Any]]:
        return self._nodes


def test_engines_that_do_not_fit_are_refused() -> None:
    """Ray waits for nodes that may never come."""
    nodes = Nodes({"CPU": 7.0, "GPU": 1.0}, {"CPU": 3.0})
    assert room(nodes, 1, False, None) == 10 and room(nodes, 1, False, 4) == 4
    assert room(nodes, 2, False, None) == 4, "an engine does not lie on two nodes"
    assert room(nodes, 9, True, None) == 1
    for threads, gpu, asked in ((8, False, None), (2, False, 5), (1, True, 2)):
        with pytest.raises(EdgepureError) as caught:
            room(nodes, threads, gpu, asked)
        assert caught.value.code == "E-ray-room"


def test_a_worker_with_another_bundle_says_so() -> None:
    task = spread.Task(edgepure.demo_bundle(), "another", None, "own", None, False, "rgb", {})  # type: ignore[arg-type]
    with pytest.raises(EdgepureError) as caught:
        spread.Worker(task)
    assert caught.value.code == "E-ray-bundle"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--work", "parts"), "E-ray-option"),
        (("--ray", "local", "--flag-rate", "0.01"), "E-ray-option"),
    ],
)
def test_options_that_do_not_belong_together(inputs: tuple[str, ...], more: tuple[str, ...], code: str) -> None:
    assert run("classify", str(edgepure.demo_bundle()), *inputs, "--json", *more).json["error"]["code"] == code


@pytest.mark.needs("pyarrow")
def test_parquet_is_read_row_by_row(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    images = demo_images().adversarial[:6]
    np.save(tmp_path / "images.npy", np.rint(255 * images[:, 0]).astype(np.uint8)[..., None])
    rows: list[Any] = [png(image) for image in images]
    pyarrow.parquet.write_table(pyarrow.table({"n": list(range(6)), "image": rows}), tmp_path / "a.parquet", 4)
    rows = [{"bytes": data, "path": None} for data in rows]
    pyarrow.parquet.write_table(pyarrow.table({"photo": rows, "image": rows}), tmp_path / "b.parquet")
    digits, found = str(edgepure.demo_bundle()), []
    for name in ("images.npy", "a.parquet", "b.parquet", "b.parquet:photo"):
        results = run("classify", digits, str(tmp_path / name), *ARGUMENTS).json["results"]
        found.append([one["probabilities"] for one in results])
    assert len(found[0]) == 6 and found[0] == found[1] == found[2] == found[3]
    failed = run("classify", digits, str(tmp_path / "a.parquet:n"), "--json")
    assert failed.code == 4 and "E-image" not in failed.stdout


@pytest.mark.parametrize("name", ["empty.tar", "broken.tar"])
def test_a_tar_file_without_images_is_one_failure(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / name, [])
    if name == "broken.tar":
        (tmp_path / name).write_bytes(b"x" * 1000)
    found = run("classify", str(edgepure.demo_bundle()), str(tmp_path / name), "--json")
    assert found.code == 4 and len(found.json["failures"]) == 1


@pytest.mark.slow
@pytest.mark.needs("ray")
def test_the_command_of_the_lesson(tmp_path: Path) -> None:
    """On a cluster of its own, whatever other one the environment names; and what does not fit is told at once."""
    lesson = Path(__file__).resolve().parents[3] / "samples" / "07_batches_and_streams" / "README.md"
    (command,) = re.findall(r"^ *(edgepure .+ --ray local .*)$", lesson.read_text(encoding="utf-8"), re.MULTILINE)
    _, verb, bundle, folder, *options = command.split()
    assert bundle == "digits" and folder == "photos/"
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(demo_images().adversarial):
        (tmp_path / "photos" / f"{number:02d}.png").write_bytes(png(image))
    start = [sys.executable, "-m", "edgepure", verb, str(edgepure.demo_bundle()), str(tmp_path / "photos"), *options]
    for more, code in ((["--workers", "4096"], "E-ray-room"), ([], None)):
        done = subprocess.run(
            [*start, "--json", *more], env=environment(RAY_ADDRESS="127.0.0.1:9"), cwd=tmp_path, capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
        found = json.loads(done.stdout)
        assert "ray.data" not in done.stderr and "streaming_executor" not in done.stderr, "Ray Data keeps its log"
        if code is None:
            assert done.returncode == 0 and len(found["results"]) == 64
        else:
            assert found["error"]["code"] == code


@pytest.mark.slow
@pytest.mark.needs("ray")
def test_two_nodes_and_a_worker_that_is_killed(inputs: tuple[str, ...], tmp_path: Path) -> None:
    """Every image once, and the answers of one machine."""
    import ray
    from ray._private.state import actors  # the public list_actors asks the dashboard, which needs ray[default]
    from ray.cluster_utils import Cluster

    digits = str(edgepure.demo_bundle())
    many = ("--preset", "uniform", "--votes", "150", "--seed", "5", "--threads", "1", "--json")
    wanted = run("classify", digits, *inputs, *many)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        command = [sys.executable, "-m", "edgepure", "classify", digits, *inputs, *many]
        options = ["--ray", cluster.address, "--part", "2", "--work", str(tmp_path / "parts")]
        process = subprocess.Popen([*command, *options], env=environment(), stdout=subprocess.PIPE, text=True)
        ray.init(address=cluster.address, log_to_driver=False)
        end = time.monotonic() + 240
        alive: list[dict[str, Any]] = []
        while (len(alive) < 2 or not list((tmp_path / "parts").glob("part-*.json"))) and time.monotonic() < end:
            time.sleep(0.1)
            alive = [one for one in actors(actor_state_name="ALIVE").values() if "Worker" in one["ActorClassName"]]
        assert len({one["Address"]["NodeID"] for one in alive}) == 2, "both nodes work"
        assert len(list((tmp_path / "parts").glob("part-*.json"))) < 8, "it is in the middle"
        os.kill(alive[0]["Pid"], signal.SIGKILL)
        said = process.communicate(timeout=300)[0]
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert said.startswith("{"), said[:1000]
    assert process.returncode == 4 and same(json.loads(said), wanted.json)
    assert len(list((tmp_path / "parts").glob("part-*.json"))) == 8
