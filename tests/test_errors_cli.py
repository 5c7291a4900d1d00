"""What a user gets wrong on the command line ends in one line, exit code 2, and leaves nothing."""

# ruff: noqa: E501  one case a line reads best

import os
import time

import pytest
import toy_stage  # noqa: F401  (makes the toy known by its short name)
from rows import write_rows

from instructgpt import errors
from instructgpt.__main__ import main as run
from instructgpt.errors import one_line
from instructgpt.types import UserError

SFT = ["fit", "--model=SFTModule", "--model.init_from=nowhere", "--data=DemonstrationDataModule"]
SFT += ["--data.train=x.jsonl"]
TOY = ["fit", "--model=ToyModule", "--data=ToyData", "--data.train=x", "--trainer.accelerator=cpu"]


def error_of(args, capsys):
    capsys.readouterr()
    assert run(args) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert [line for line in lines if line.startswith("instructgpt: error: ")] == lines[-1:]
    assert "Traceback" not in "".join(lines)
    assert "usage:" not in "".join(lines)
    return lines[-1].removeprefix("instructgpt: error: ")


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert [p.name for p in tmp_path.rglob("*") if p.suffix not in (".yaml", ".jsonl")] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.max_epoch=3"], "unknown option --trainer.max_epoch; did you mean trainer.max_epochs?"),
        (["--trainer.max_epochs=x"], "--trainer.max_epochs must be int, got x"),
        (["--trainer.precision=33"], "--trainer.precision must be one of 64, 32, 16, "),
        (["--trainer.callbacks=Foo"], "--trainer.callbacks: unknown class Foo"),
        (["--model.dropou=0.1"], "unknown option --model.dropou; did you mean dropout?"),
        (["--model.dropout=a"], "--model.dropout must be float, got a"),
        (["--model.dropout=-0.1"], "model.dropout must be in [0, 1), got -0.1"),
        (["--model.schedule=Cosin"], "--model.schedule: unknown class Cosin; did you mean Cosine?"),
        (["--model.schedule.flor=1"], "unknown option --model.schedule.flor; did you mean floor?"),
        (["--model.schedule.floor=x"], "--model.schedule.floor must be float, got x"),
        (["--model.network.dtype=int"], "--model.network.dtype must be one of 'float32', 'bfloat16', 'float16', got int"),
        (["--model.network.dtyp=float32"], "unknown option --model.network.dtyp; did you mean dtype?"),
        (["--model.optimizer=AdamX"], "--model.optimizer: unknown class AdamX; did you mean Adam"),
        (["--model.optimizer.lr=fast"], "--model.optimizer.lr must be float, got fast"),
        (["--model.trained=LoRa"], "--model.trained: unknown class LoRa; did you mean LoRA?"),
        (["--model.architecture=gpt2"], "--model.architecture must be dict, got gpt2"),
        (["--data.batch_size=0"], "--data.batch_size must be >= 1, got 0"),
        (["--data.batch_size=two"], "--data.batch_size must be int, got two"),
        (["--data.batchsize=3"], "unknown option --data.batchsize; did you mean batch_size?"),
        (["--data.on_error=ignore"], "--data.on_error must be one of 'stop', 'skip', got ignore"),
        (["--checkpoint.every=3"], "unknown option --checkpoint.every"),
        (["--seed_everything=x"], "--seed_everything must be int, got x"),
        (["--outptu=x"], "unknown option --outptu; did you mean output?"),
        (["--config=nowhere.yaml"], "--config: File does not exist: "),
        (["--ckpt_path=last"], "--ckpt_path must be an existing checkpoint, got runs/sft/checkpoints/last.ckpt"),
    ],
)  # fmt: skip
def test_options_of_the_real_stages(capsys, options, message):
    assert error_of([*SFT, *options], capsys).startswith(message)


def test_an_option_of_another_class_is_not_its_own_guess(capsys):
    told = error_of([*SFT, "--model.schedule.init_args.path=x"], capsys)
    assert told.startswith("unknown option --model.schedule.init_args.path")
    assert "did you mean path" not in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.strategy=foo"], "trainer: You selected an invalid strategy name: `strategy='foo'`"),
        (["--trainer.accelerator=foo"], "trainer: You selected an invalid accelerator name: `accelerator='foo'`"),
        (["--trainer.devices=0"], "trainer: `Trainer(devices='0')` value is not a valid input"),
        (["--model.wrong=-1"], "model.wrong must be > 0, got -1.0"),
        (["--data=OtherToyData"], "ToyModule needs --data ToyData, got OtherToyData"),
    ],
)  # fmt: skip
def test_what_is_noticed_later(capsys, options, message):
    quiet = ["--trainer.logger=false", "--trainer.max_epochs=1"]
    assert error_of([*TOY, *quiet, *options], capsys).startswith(message)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit"], "--data, --model are required"),
        (["fit", "--model=SFTModule", "--data=TextDataModule"], "--data.train is required"),
        (["fit", "--data=TextDataModule", "--data.train=x"], "--model is required"),
        (["fit", "--model=SFTModul"], "--model: unknown class SFTModul; did you mean SFTModule?"),
        (["fit", "--model=Foo"], "--model: unknown class Foo (there are "),
        (["fit", "--model=SFTModule", "--data=Foo"], "--data: unknown class Foo (there are "),
        (["fit", "--model=TextDataModule"], "--model: unknown class TextDataModule"),
        (["predict", "--modle=SFTModule"], "unknown option --modle; did you mean model?"),
        (["fti"], "unknown verb 'fti'; did you mean fit?"),
        (
            ["train"],
            "unknown verb 'train' (verbs: fit, plan, validate, test, predict, pipeline, world, prepare,",
        ),
    ],
)
def test_verbs_and_classes(capsys, args, message):
    assert error_of(args, capsys).startswith(message)


MINE = """
from instructgpt import RewardFunction, RolloutAlgorithm, RowFormat
class Unfinished(RowFormat):
    pass
class Evaluates(RewardFunction):
    def evaluate(self, samples):
        return [0.0 for _ in samples]
class NoLoss(RolloutAlgorithm):
    uses_value = uses_reference = False
    experience_type = tuple
    def experience(self, scored, kl_coef):
        return scored
class Another:
    pass
"""


@pytest.mark.parametrize("written", ["flag", "file"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere_at_all.Mine", "--data.format: cannot import nowhere_at_all.Mine: No module named 'nowhere_at_all' (the module must be installed, or in the current directory or PYTHONPATH)"),
        ("face_mine.Other", "--data.format: cannot import face_mine.Other: module 'face_mine' has no attribute 'Other'"),
        ("face_broken.Mine", "import of face_broken.Mine failed: ZeroDivisionError: division by zero (at "),
        ("face_needs.Mine", "--data.format: import of face_needs.Mine failed: ModuleNotFoundError: No module named 'nothing_of_that_name' (at "),
        ("face_mine.Another", "--data.format must be a RowFormat, got face_mine.Another"),
        ("face_mine.Unfinished", "--data.format: face_mine.Unfinished must define convert"),
    ],
)  # fmt: skip
def test_a_class_path_that_does_not_fit(
    written, path, message, tmp_path_factory, monkeypatch, capsys
):
    folder = tmp_path_factory.mktemp("own")
    (folder / "face_mine.py").write_text(MINE)
    (folder / "face_broken.py").write_text("1 / 0\n")
    (folder / "face_needs.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(folder)
    (folder / "own.yaml").write_text(f"data: {{init_args: {{format: {{class_path: {path}}}}}}}\n")
    options = [f"--data.format={path}"] if written == "flag" else [f"--config={folder}/own.yaml"]
    assert message in error_of([*SFT, *options], capsys)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("question_answer", "rows.jsonl:1: \"question\" is missing, got the keys ['prompt', 'response'] for a row of question and answer"),
        ("question_answers", "--data.format must be one of question_answer, "),
        ("alpaca", "rows.jsonl:1: must be a row of the format alpaca (--data.format), got one of demonstration"),
    ],
)  # fmt: skip
def test_formats_by_name(name, message, tmp_path_factory, tokenizer_folder, capsys):
    """They come as far as the rows."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "rows.jsonl").write_text('{"prompt": "q", "response": "a"}\n')
    options = ["--model.architecture={model_type: gpt2, n_layer: 1, n_embd: 8, n_head: 1}"]
    options += [f"--model.tokenizer={tokenizer_folder}", "--data=DemonstrationDataModule"]
    options += [f"--data.train={folder}/rows.jsonl", "--data.batch_size=1", f"--output={folder}/o"]
    options += [f"--data.format={name}", "--data.template=hh", "--trainer.accelerator=cpu"]
    assert message in error_of(["fit", "--model=SFTModule", *options], capsys)


PPO = ["fit", "--model=PPOModule", "--model.init_from=x", "--data=PromptDataModule"]
PPO += ["--data.train=x.jsonl", "--trainer.accelerator=cpu"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.reward=loop_mine.Evaluates"], "--model.reward: loop_mine.Evaluates must define raw_scores"),
        (["--model.reward=CountReward", "--model.reward.text=e", "--model.algorithm=loop_mine.NoLoss"], "--model.algorithm: loop_mine.NoLoss must define loss"),
        (["--model.algorithm=loop_mine.Another"], "--model.algorithm must be a RolloutAlgorithm, got loop_mine.Another"),
        (["--data=loop_mine.Another"], "--data must be a StageData, got loop_mine.Another"),
        (["--model=loop_mine.Nope"], "--model: cannot import loop_mine.Nope: module 'loop_mine' has no attribute 'Nope'"),
        (["--model=nowhere_at_all.Mine"], "--model: cannot import nowhere_at_all.Mine: No module named"),
    ],
)  # fmt: skip
def test_a_class_of_ones_own_that_does_not_fit(
    options, message, tmp_path_factory, monkeypatch, capsys
):
    folder = tmp_path_factory.mktemp("own")
    (folder / "loop_mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(folder)
    assert error_of([*PPO, *options], capsys).startswith(message)


DATA = "data: {class_path: TextDataModule, init_args: {train: x}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {class_path: SFTModul}", "--model: unknown class SFTModul; did you mean SFTModule?"),
        ("model: {class_path: SFTModule, init_args: {dropou: 1}}", "unknown option --model.dropou; did you mean dropout?"),
        ("model: {class_path: SFTModule, init_args: {dropout: x}}", "--model.dropout must be float, got x"),
        ("model: {class_path: SFTModule, dropout: 0.1}", "--model must be written as class_path: NAME, with"),
        ("model: {class_path: SFTModule, init_args: {network: {dtyp: x}}}", "unknown option --model.dtyp; did you mean dtype?"),
        ("model: {class_path: SFTModule, init_args: {schedule: {class_path: Cosine, floor: 1}}}", "--model.schedule must be written as class_path: NAME, with"),
        ("model: {class_path: SFTModule, init_args: {schedule: {class_path: Cosine, init_args: {floor: x}}}}", "--model.schedule.floor must be float, got x"),
        ("model: {class_path: SFTModule}\ntrainer: {max_epoch: 1}", "unknown option --trainer.max_epoch; did you mean trainer.max_epochs?"),
        ("model: {class_path: SFTModule}\noutptu: x", "unknown option --outptu; did you mean output?"),
        ("model: {class_path: SFTModule]", "c.yaml:2:30: expected ',' or '}', but got ']'"),
        ("model: {class_path: SFTModule}\nmodel: {class_path: RewardModule}", "c.yaml:3:1: model is given twice"),
        ("model: \x00", "c.yaml: "),
    ],
)  # fmt: skip
def test_configuration_files(tmp_path, capsys, text, message):
    (tmp_path / "c.yaml").write_text(DATA + text)
    assert error_of(["fit", "--config", "c.yaml"], capsys).startswith(message)


def test_bad_data_names_file_and_line_and_leaves_no_output(tmp_path, capsys):
    rows = [{"text": "good"}, {"txet": "bad"}]
    write_rows(tmp_path / "t.jsonl", rows)
    args = ["fit", "--model=SFTModule", "--model.architecture={model_type: gpt2}"]
    args += ["--data=TextDataModule", "--data.train=t.jsonl", "--data.bpe.vocab_size=300"]
    args += ["--trainer.logger=false", "--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
    message = error_of(args, capsys)
    assert "t.jsonl:2" in message
    assert "text" in message


def test_a_message_nobody_foresaw_still_fits_one_line():
    assert one_line("some\n  new\nmessage", []) == "some new message"


def pretraining(tmp_path, *options):
    (tmp_path / "t.jsonl").write_text('{"text": "the cat says meow"}\n' * 20)
    args = ["fit", "--model=SFTModule", "--data=TextDataModule", "--data.train=t.jsonl"]
    args += ["--model.architecture={model_type: gpt2, n_layer: 1, n_embd: 8, n_head: 2}"]
    args += ["--data.bpe.vocab_size=270", "--data.validation=null", "--data.block_size=16"]
    return [*args, "--trainer.accelerator=cpu", "--trainer.max_epochs=1", *options]


@pytest.mark.parametrize("output", [[], ["--output=some/where"]])
def test_a_refused_pretraining_leaves_no_tokenizer(tmp_path, capsys, output):
    args = pretraining(tmp_path, "--data.block_size=2000", *output)
    assert "must fit into the model's context of 1024 tokens" in error_of(args, capsys)


def test_a_trial_leaves_no_tokenizer(tmp_path):
    assert run(pretraining(tmp_path, "--trainer.fast_dev_run=true")) == 0


def test_what_lightning_refuses_leaves_nothing(tmp_path, capsys):
    quiet = ["--trainer.logger=false", "--trainer.callbacks=LearningRateMonitor"]
    assert "no logger" in error_of(pretraining(tmp_path, *quiet), capsys)


@pytest.mark.parametrize("there", ["x.jsonl", "x.jsonl/run"])
def test_an_output_that_is_a_file(tmp_path, capsys, there):
    (tmp_path / "x.jsonl").write_text("")
    message = error_of([*TOY, f"--output={there}"], capsys)
    assert message.startswith(f"--output must be a folder, got {there}: ")
    assert message.endswith("x.jsonl is a file")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("first_fails", "said"), [(True, ["0"]), (False, ["1"])])
def test_what_all_processes_find_is_said_by_the_first(
    tmp_path, monkeypatch, first_fails, said, late
):
    """The second is a child of the first, as Lightning starts it; alone, it says it in the end.

    Late: the first has ended before the second finds it.
    """
    monkeypatch.setattr(errors, "OTHERS_WAIT", 30.0 if first_fails else 0.3)
    answers, told = tmp_path / "answers.yaml", tmp_path / "told.yaml"

    def fail(_):
        raise UserError("nothing fits")

    def process(rank):
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setattr(errors, "say", lambda *_, **__: append(told, rank))
        append(answers, str(errors.guarded(fail, ["fit"])))

    def append(file, text):
        with file.open("a") as stream:
            stream.write(text + "\n")

    first = os.fork()
    if first == 0:
        try:
            monkeypatch.setenv(errors.STARTER, str(os.getpid()))
            second = os.fork()
            if second == 0:
                time.sleep(1.0 if late and first_fails else 0.0)
                process("1")
            elif first_fails:
                time.sleep(0.3)
                process("0")
            else:
                os.waitpid(second, 0)
        finally:
            os._exit(0)
    os.waitpid(first, 0)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and answers.read_text().count("\n") < 1 + first_fails:
        time.sleep(0.05)
    assert answers.read_text().split() == ["2"] * (1 + first_fails)
    assert told.read_text().split() == said
