"""``export``: write the artefact of a run from one of its checkpoints, or of an adapter."""

from __future__ import annotations

import json
import re
from pathlib import Path

from instructgpt.terminal import say


def export(
    run: str | None = None,
    ckpt_path: str | None = None,
    adapter: str | None = None,
    base: str | None = None,
    output: str | None = None,
    license: str | None = None,
    push: str | None = None,
    public: bool = False,
    yes: bool = False,
) -> None:
    """Write an artefact that the next stage, or plain transformers, can load; give it to the hub.

    Args:
        run: folder of a run (``runs/sft``); its configuration says how to build the model.
        ckpt_path: checkpoint of the run: last, best, or a file (default: best, in runs that have
            one).
        adapter: instead of a run, folder of a LoRA adapter of a policy
            (``runs/sft/export/adapter``): it is merged with its base model.
        base: folder or hub id of that base model (default: what the artefact around the adapter
            started from, else what ``adapter_config.json`` names).
        output: folder to write (default: export/ in the run); without a run and an adapter, the
            folder of an artefact to ``push`` as it is.
        license: what the model card names as licence, such as apache-2.0 (default: that of what the
            stage started from, where its card names one, else unknown).
        push: repository of the Hugging Face hub, ``owner/name``, to upload the folder to; what
            would be uploaded is shown before, and confirmed.
        public: anyone may see a repository that ``push`` makes.
        yes: upload without being asked.
    """
    from instructgpt.commands.hub import Push, check_push
    from instructgpt.commands.hub import push as upload
    from instructgpt.types import require

    require(push is not None or not public, "--public", "left out without --push", public)
    require(push is not None or not yes, "--yes", "left out without --push", yes)
    named = license is None or bool(re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license))
    require(named, "--license", "a licence identifier, such as apache-2.0", repr(license))
    asked = None if push is None else Push(push, public, yes)
    if asked is not None:
        check_push(asked)
    if run is None and adapter is None and asked is not None and output is not None:
        folder = _artefact(output)
    else:
        folder = _write(run, ckpt_path, adapter, base, output)
    if license is not None:
        _set_license(folder, license)
    if asked is not None:
        upload(folder, asked)


def _write(
    run: str | None,
    ckpt_path: str | None,
    adapter: str | None,
    base: str | None,
    output: str | None,
) -> Path:
    """Write an artefact, and return its folder."""
    from instructgpt.types import UserError

    if (run is None) == (adapter is None):
        raise UserError(
            f"--run or --adapter must be given, and not both, got run={run}, adapter={adapter}"
        )
    if run is not None and base is not None:
        raise UserError(f"--base must be left out with --run, got {base}")
    if adapter is not None and ckpt_path is not None:
        raise UserError(f"--ckpt_path must be left out with --adapter, got {ckpt_path}")
    if run is not None:
        best = Path(run, "checkpoints", "best.ckpt").is_file()
        ckpt_path = ckpt_path or ("best" if best else "last")
        folder = Path(output or Path(run, "export"))
        _export_run(run, ckpt_path, folder)
        return folder
    if output is None:
        raise UserError("--output must be given with --adapter, got none")
    _merge(str(adapter), base, Path(output))
    return Path(output)


def _artefact(folder: str) -> Path:
    """A folder that there is already."""
    from instructgpt.models.checksums import check_files
    from instructgpt.models.source import ARTEFACT_FILE
    from instructgpt.types import UserError

    if not Path(folder, ARTEFACT_FILE).is_file():
        raise UserError(
            f"--output must be the folder of an artefact, got {folder}: it has no {ARTEFACT_FILE}"
        )
    check_files(folder)
    for path in sorted(Path(folder).rglob("*")):  # a card is written to, everything is uploaded
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and not path.resolve().is_relative_to(Path(folder).resolve()):
            raise UserError(f"{path} must lie in that folder, got a link to {path.resolve()}")
    return Path(folder)


def _set_license(folder: Path, license: str) -> None:
    """Name a licence in the model cards of an artefact, and leave the rest of them as it is."""
    from instructgpt.models.card import CARD, with_license
    from instructgpt.models.folder import write_text

    for card in sorted(folder.rglob(CARD)):
        write_text(card, with_license(card.read_text(encoding="utf-8"), license))


def _export_run(run: str, ckpt_path: str, output: Path) -> None:
    """Validate the checkpoint with the run's own data, then write the artefact."""
    from instructgpt.callbacks.export import measured, write_metrics
    from instructgpt.cli import main
    from instructgpt.models.folder import check_replaceable, replacing
    from instructgpt.models.source import ARTEFACT_FILE
    from instructgpt.types import UserError

    config = Path(run, "config.yaml")
    if not config.is_file():
        raise UserError(f"--run must be the folder of a run, got {run}: it has no config.yaml")
    check_replaceable(output, ARTEFACT_FILE)
    args = ["validate", "--config", str(config), "--output", run, "--ckpt_path", ckpt_path]
    args += ["--trainer.devices", "1", "--trainer.strategy", "auto", "--trainer.logger", "false"]
    cli = main(args)
    cli.model.finalize()
    metrics = {"step": cli.checkpoint_step, **measured(cli.trainer, cli.model)}
    with replacing(output, ARTEFACT_FILE) as folder:
        cli.model.export(folder, cli.run_config, metrics)
    summary = Path(run, "metrics.json")
    if output.resolve() == Path(run, "export").resolve() and summary.is_file():
        write_metrics(Path(run), json.loads(summary.read_text()) | {"exported": metrics})
    say(f"exported {ckpt_path} of {run} to {output}")


def _merge(adapter: str, base: str | None, output: Path) -> None:
    """Put a LoRA adapter onto its base model and write both as one policy."""
    from instructgpt.models.adapter_files import base_of, with_lora
    from instructgpt.models.artefact import read_artefact, save_policy
    from instructgpt.models.checksums import check_files
    from instructgpt.models.choice import choose_template
    from instructgpt.models.folder import check_replaceable
    from instructgpt.models.forward import base_network
    from instructgpt.models.load import Network, load_policy
    from instructgpt.models.source import ARTEFACT_FILE
    from instructgpt.models.tokenizer import load_tokenizer
    from instructgpt.types import UserError

    if not Path(adapter, "adapter_config.json").is_file():
        raise UserError(f"--adapter must be the folder of a peft adapter, got {adapter}")
    check_replaceable(output, ARTEFACT_FILE)
    about = read_artefact(Path(adapter).resolve().parent)
    if about is None or about.adapter != "lora":  # it does not lie in the artefact of a run
        about = None
    if about is not None:
        check_files(about.path, lambda name: name.startswith(f"{Path(adapter).name}/"))
    base = base or (about.parent if about else None) or base_of(adapter)
    if base is None:
        raise UserError(f"--base must be given, {adapter} does not name its base model")
    tokenizer = load_tokenizer(about.path if about else base)
    chosen = choose_template(None, about.path if about else base, tokenizer)
    policy = with_lora(base_network(load_policy(base, None, Network(), tokenizer)), adapter)
    save_policy(
        policy,
        tokenizer,
        output,
        stage=about.stage if about else "sft",
        template=chosen.template,
        parent=about.parent if about else base,
        config=about.config if about else {},
        metrics=about.metrics if about else {},
        data=(about.data or ()) if about else (),
    )
    say(f"merged {adapter} with {base} into {output}")
