"""The fork server imports all that is slow to import, so that no stage does."""

import os
import subprocess
import sys

RUN = """
import sys
import instructgpt.commands.preload
before = set(sys.modules)
from instructgpt.__main__ import main
output, *options = sys.argv[1:]
for stage, source in {"pretrain": None, "sft": "pretrain"}.items():
    start = [f"--model.init_from={output}/{source}/export"] if source else []
    config, run = f"--config=configs/{stage}.yaml", f"--output={output}/{stage}"
    sys.argv = ["instructgpt", "fit", config, run, *options, *start]
    main()
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def test_a_stage_imports_nothing_large(tmp_path):
    """It makes a network, reads it, trains and exports it; what is deferred elsewhere is there."""
    options = [
        "--trainer.max_steps=1",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--data.validation=null",
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    late = set(done.stdout.splitlines()[-1].split())
    assert late & {"torch", "instructgpt"}
    assert not late & {"sympy", "matplotlib", "datasets", "peft", "lightning"}
