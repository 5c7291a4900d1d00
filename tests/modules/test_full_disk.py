"""A disk that is full where a run writes rows or what it hands over: one line, and it goes on."""

import shutil
import subprocess

import pytest
from crash_test import compare
from last_line import last_line

import instructgpt.callbacks.export
from instructgpt.__main__ import main
from instructgpt.callbacks.samples import SampleWriter
from instructgpt.models.lock import LOCK_FILE
from instructgpt.modules.sft import SFTModule

PAGE = 4096
WRITERS = {
    "samples.jsonl": (SampleWriter, "on_validation_end"),
    "export": (SFTModule, "export"),
    "metrics.json": (instructgpt.callbacks.export, "write_metrics"),
}


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "instructgpt-test", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system may be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder, room):
    with (folder / "full").open("wb", buffering=0) as file:
        while shutil.disk_usage(folder).free:
            file.write(bytes(PAGE))
        file.truncate(file.tell() - room)


@pytest.fixture(scope="module")
def args(files, policy_artefact):
    """Of a run, but for its folder: two epochs of four steps."""
    model = f"--model=SFTModule --model.init_from={policy_artefact} --model.validation_prompts=2 "
    data = f"--data=DemonstrationDataModule --data.train={files['demonstrations']} "
    data += "--data.validation=0.2 --data.max_prompt_tokens=24 --data.max_response_tokens=24 "
    trainer = "--trainer.accelerator=cpu --trainer.max_epochs=2 --trainer.enable_progress_bar=false"
    every = " --data.batch_size=4 --checkpoint.every_n_steps=1 --seed_everything=3"
    return ["fit", *(model + data + trainer + every).split()]


@pytest.fixture(scope="module")
def whole(args, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert main([*args, f"--output={folder}"]) == 0
    return folder


# of the export: for no file, for the settings, for the weights, too
@pytest.mark.parametrize(
    ("name", "pages"),
    [("samples.jsonl", 0), ("metrics.json", 0), ("export", 0), ("export", 3), ("export", 16)],
)
def test_a_run_ends_in_one_line_and_goes_on_where_there_is_room(
    disk, args, whole, monkeypatch, capsys, name, pages
):
    run = disk / "run"
    owner, function = WRITERS[name]
    original = getattr(owner, function)

    def full(*given):
        fill(disk, pages * PAGE)
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(owner, function, full)
        assert main([*args, f"--output={run}"]) == 1
    assert last_line(capsys) == f"instructgpt: error: {run / name}: No space left on device"
    assert not (run / "metrics.json").exists()
    assert (run / "export").exists() == (name == "metrics.json")
    assert {path.name for path in run.iterdir() if path.name[0] == "."} <= {LOCK_FILE}
    (disk / "full").unlink()
    assert main([*args, f"--output={run}", "--ckpt_path=last"]) == 0
    assert compare(whole, run) == []
